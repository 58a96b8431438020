"""The command line as a newcomer meets it: tables on paper, files, one-line errors, exit codes."""

import json
import re
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pmdllm import cli, models
from pmdllm.evaluate import evaluate
from pmdllm.study import Setting, Study
from pmdllm.study import declared as studies
from pmdllm.tasks import load
from pmdllm.train import Interrupted

TASK = "arithmetic:terms=4,modulus=6"


def run(capsys, *words):
    """Exit code, standard output, standard error."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A preset whose runs take a moment, with a random model of some hundred parameters."""
    folder = tmp_path_factory.mktemp("preset")
    tokenizer = models.character_tokenizer(load(TASK).alphabet)
    model = models.tiny(tokenizer, hidden_size=16, layers=1, heads=2, max_length=64, seed=1)
    models.save(model, tokenizer, folder / "model")
    values = {
        "task": TASK, "model": str(folder / "model"), "max_new_tokens": 4, "prompts_per_batch": 4,
        "rollouts_per_prompt": 2, "updates_per_batch": 2, "iterations": 2, "eval_every": 1, "eval_prompts": 4,
        "test_prompts": 6, "eval_samples": 2, "threads": 1,
    }  # fmt: skip
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    return folder / "small.yaml"


def numbers(line):
    return [float(x) for x in re.findall(r"\d+\.\d+", line)]


def test_train_prints_before_and_after(capsys, preset, tmp_path):
    """The printed accuracies are those of result.json; the same command again trains nothing and prints the same."""
    words = ("train", "--preset", preset, "--output", tmp_path / "run", "--learning-rate", "1e-2", "--seed", "3")
    code, out, _ = run(capsys, *words)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert code == 0
    assert str(tmp_path / "run") in out.splitlines()[0]
    lines = {line.split()[0]: numbers(line) for line in out.splitlines() if "±" in line}
    for name in ("avg@2", "pass@2", "maj@2", "greedy"):
        expected = [result[f"{split}/{name}{part}"] for split in ("before", "test") for part in ("", "_ci")]
        assert lines[name] == pytest.approx(expected, abs=6e-4)
    assert f"{result['rollouts']} rollouts" in out
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["learning_rate"] == 0.01
    assert run(capsys, *words)[1] == out


def test_evaluate_is_the_librarys(capsys, preset):
    """Table and JSON show what `evaluate` returns."""
    folder, task = preset.parent / "model", load(TASK)
    expected = evaluate(*models.load(folder), task, "validation", 5, 3, 4, seed=2, temperature=0.7)
    words = ["evaluate", "--model", folder, "--task", TASK, "--split", "validation", "--prompts", 5, "--samples", 3]
    words += ["--max-new-tokens", 4, "--seed", 2, "--temperature", 0.7, "--device", "cpu"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    for line in out.splitlines()[1:5]:
        name = line.split()[0]
        assert numbers(line) == pytest.approx([expected[name], expected[f"{name}_ci"]], abs=6e-4)
    code, out, _ = run(capsys, *words, "--json")
    assert json.loads(out) == expected


def test_completions_that_say_nothing_are_complained_of(capsys, preset):
    """A model that is stopped at its first operator never answers."""
    code, _, err = run(capsys, "evaluate", "--prompts", 50, "--samples", 2, "--stop", "+|-|*")
    assert code == 0 and "warning: nearly" in err


def test_compare_writes_tables_and_panels(capsys, preset, tmp_path):
    """Algorithms × seeds with any option of train; the printed means are those of the table."""
    words = ["compare", "--preset", preset, "--algorithms", "pmd-mean,grpo", "--seeds", "0-1", "--tau", "0.3"]
    code, out, _ = run(capsys, *words, "--output", tmp_path)
    results, curves = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("results", "curves"))
    assert code == 0
    assert sorted(zip(results.algorithm, results.seed)) == [("grpo", 0), ("grpo", 1), ("pmd-mean", 0), ("pmd-mean", 1)]
    assert results.options.str.contains("tau=0.3").all()
    assert len(curves) == 4 * 3
    for suffix in (".png", ".svg"):
        assert (tmp_path / f"panels{suffix}").stat().st_size > 10_000
    for algorithm, rows in results.groupby("algorithm"):
        (line,) = (line for line in out.splitlines() if line.startswith(f"{algorithm} "))
        values = rows["test/avg@2"]  # of two seeds drawn anew each is both with probability 1/4
        assert numbers(line)[:3] == pytest.approx([values.mean(), values.min(), values.max()], abs=6e-4)
        assert f" {rows.rollouts.iloc[0]} " in line
    earlier = out
    code, out, _ = run(capsys, *words, "--output", tmp_path, "--algorithms", "rloo", "--seeds", "4")
    first, second = (results["test/avg@2"][results.algorithm == name] for name in ("pmd-mean", "grpo"))
    above = np.mean([(y > x) + (x == y) / 2 for x in first for y in second])
    (line,) = (line for line in earlier.splitlines() if line.startswith("grpo "))
    assert any(abs(x - above) < 6e-4 for x in numbers(line)[6:]), line
    assert code == 0
    added = pd.read_csv(tmp_path / "results.csv")
    assert len(added) == 5 and ("rloo", 4) in set(zip(added.algorithm, added.seed))
    assert "rloo" in out and "grpo" not in out.replace(str(tmp_path), "") and "pmd-mean" not in out
    assert "4 of the 5 runs in" in out
    assert "other algorithms" not in run(capsys, *words, "--output", tmp_path, "--algorithms", "rloo,pmd-mean,grpo",
                                         "--seeds", "0-1,4")[1]  # fmt: skip


def numbers_in(value):
    """All numbers in lists and dicts."""
    if isinstance(value, dict | list):
        return [x for each in (value.values() if isinstance(value, dict) else value) for x in numbers_in(each)]
    return [value] if isinstance(value, int | float) else []


NO_GPU = "meta" if torch.cuda.is_available() else "cuda"
JSON = {
    "train --preset {preset} --output {folder}/run": {"before/avg@2", "test/avg@2", "output"},
    "evaluate --prompts 4 --samples 2": {"avg@2", "greedy"},
    "compare --preset {preset} --algorithms pmd-mean,grpo --seeds 0-1 --output {folder}/both": {"algorithms", "runs"},
    "warmup --task arithmetic:terms=4,modulus=6 --steps 2 --eval-prompts 4 --output {folder}/base": {"command"},
    "warmup --optimizer muon --hidden-size 16 --layers 1 --heads 2 --steps 3 --eval-prompts 4 --output {folder}/muon":
        {"command"},
    "validate --experiments population --rewards graded --taus 1 --prompts 2 --output {folder}/laws":
        {"results", "departures"},
    "law pmd-mean": {"law", "tau", "sentence"},
    "fetch": {"by_name", "fetched"},
    "study sums": {"results", "failed"},
    "study sums --dry-run": set(),
}  # fmt: skip


@pytest.mark.parametrize("words", JSON)
def test_json_is_one_object_and_nothing_else(capsys, preset, tmp_path, words):
    """The numbers of the table on paper are in it; what is said on the way goes to standard error."""
    typed = words.format(preset=preset, folder=tmp_path).split()
    _, paper, _ = run(capsys, *typed)
    code, out, _ = run(capsys, *typed, "--json")
    found = json.loads(out, parse_constant=pytest.fail)
    assert code in (0, 1) and out.count("\n") == 1
    assert JSON[words] <= set(found) if isinstance(found, dict) else found[0]["study"] == "sums"
    known = np.array(numbers_in(found), dtype=float)
    shown = [x for line in paper.splitlines() if "±" in line or "[" in line for x in numbers(line) if "nan" not in line]
    assert all(np.abs(known - x).min() <= 6e-4 for x in shown)
    assert shown or not words.startswith(("train", "evaluate", "compare", "warmup"))


def test_study(capsys, preset, tmp_path, monkeypatch):
    """--dry-run trains nothing; a failing cell gives exit code 1; --check says what departs."""
    methods = (Setting({"method": "a"}, {}), Setting({"method": "b"}, {"model": str(tmp_path / "nowhere")}))
    declared = Study("two", methods, seeds=(0, 1), preset=str(preset), checked=({"method": "a"},))
    monkeypatch.setattr(studies, "STUDIES", {"two": declared})
    words = ["study", "two", "--tables", tmp_path / "tables", "--runs", tmp_path / "runs", "--jobs", 1]
    code, out, _ = run(capsys, *words, "--dry-run")
    assert code == 0
    assert "4 cells" in out
    assert out.count("pmd-llm train") == 4
    assert not list(tmp_path.iterdir())
    code, out, err = run(capsys, *words)
    assert code == 1
    assert "2 cells failed" in err
    assert len(pd.read_csv(tmp_path / "tables" / "study_two.csv")) == 2
    assert "2 cells" in run(capsys, *words, "--dry-run")[1]
    code, out, _ = run(capsys, *words, "--check")
    assert code == 0
    assert "0 departures" in out
    table = pd.read_csv(tmp_path / "tables" / "study_two.csv")
    table.assign(**{"test/greedy": 30.0}).to_csv(tmp_path / "tables" / "study_two.csv", index=False)
    code, out, _ = run(capsys, *words, "--check")
    assert code == 1
    assert "DEPARTS: two: method a, seed 0: test/greedy" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --tau 0", "tau must be a number in [1e-06, 1000000.0], got 0.0"),
        ("train --tau x", "tau must be a number in [1e-06, 1000000.0], got 'x'"),
        ("train --tau", "argument --tau: expected one argument"),
        ("train --algorithm ppo", "algorithm must be one of pmd-mean,"),
        ("train --preset huge", "preset must be one of"),
        ("train --no-such-option 1", "--no-such-option"),
        ("train --task chess", "chess"),
        ("train --preset tiny-cpu --model ./nowhere", "model must be 'base', a folder"),
        ("train --model ./nowhere", "needs its own task and learning_rate"),
        ("train --device meta", "device must be auto, cpu or a GPU of this machine, got 'meta'"),
        ("train --report_to nonsense", "report_to must be none or names among"),
        ("train --output /dev/null/run", "output must be a folder that can be written, got '/dev/null/run'"),
        *((f"validate --device {NO_GPU} {more}", f"device must be auto, cpu or a GPU of this machine, got '{NO_GPU}'")
          for more in ("", "--preset held-out", "--preset smollm2-135m", "--experiments training")),
        ("warmup --heads 3", "hidden_size must be a multiple of heads = 3"),
        ("warmup --output /dev/null", "output must be a folder that can be written, got '/dev/null'"),
        ("evaluate --model ./nowhere", "model must be 'base', a folder"),
        ("evaluate --task chess", "chess"),
        ("evaluate --prompts 0", "prompts must be an integer in [1, 1000000], got 0"),
        ("evaluate --max-new-tokens -1", "max_new_tokens must be an integer in [0, 1000000], got -1"),
        ("evaluate --seed 99999999999", "seed must be an integer in [0, 4294967295]"),
        ("evaluate --temperature nan", "temperature must be a number in [1e-06, 1000000.0], got nan"),
        ("evaluate --split train", "split must be one of validation, test, got 'train'"),
        ("evaluate --device meta", "device must be auto, cpu or a GPU of this machine, got 'meta'"),
        ("evaluate --preset tiny-cpu", "'--preset' is no option"),
        ("compare --seeds x", "seeds must be as in 0-2 or 0,3,5, got 'x'"),
        ("compare --seeds 3-1", "seeds must be as in 0-2 or 0,3,5, got '3-1'"),
        ("compare --algorithms ppo", "algorithm must be one of pmd-mean,"),
        ("compare --jobs 0", "jobs must be positive, got 0"),
        ("validate --tau 0", "tau must be a number in"),
        ("validate --seeds x", "seeds must be integers in [0, 2147483648], separated by commas, got 'x'"),
        ("study nonsense", "no study is called 'nonsense'; there are seeds, temperature, methods"),
        ("nonsense", "invalid choice: 'nonsense'"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_bad_values_get_one_line(capsys, tmp_path, monkeypatch, words, message):
    """Exit code 2, nothing is written, one line on standard error."""
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *words.split())
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def damaged(folder, damage):
    """Damage a copy of a model's folder."""
    config, weights = folder / "config.json", folder / "model.safetensors"
    if damage == "weights cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "weights missing":
        weights.unlink()
    elif damage == "configuration garbled":
        config.write_text('{"a":')
    elif damage == "configuration a list":
        config.write_text("[]")
    elif damage == "another size":
        config.write_text(config.read_text().replace('"n_embd": 16', '"n_embd": 8'))
    elif damage == "tokenizer garbled":
        (folder / "tokenizer.json").write_text("{")


@pytest.mark.parametrize(
    "damage",
    ["weights cut", "weights missing", "configuration garbled", "configuration a list", "another size",
     "tokenizer garbled"],
)  # fmt: skip
def test_a_damaged_model_gets_one_line(capsys, preset, tmp_path, damage):
    shutil.copytree(preset.parent / "model", tmp_path / "model")
    damaged(tmp_path / "model", damage)
    code, _, err = run(capsys, "evaluate", "--model", tmp_path / "model", "--task", TASK, "--prompts", 4)
    assert code == 2
    assert f"model '{tmp_path / 'model'}' could not be loaded (" in err.splitlines()[-1]


def test_a_model_that_diverged_gets_one_line(capsys, preset, tmp_path):
    model, tokenizer = models.load(preset.parent / "model")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    models.save(model, tokenizer, tmp_path)
    code, _, err = run(capsys, "evaluate", "--model", tmp_path, "--task", TASK, "--prompts", 4)
    assert code == 1
    assert err.count("\n") == 1 and "diverged or are damaged" in err
    code, _, err = run(capsys, "train", "--preset", preset, "--model", tmp_path, "--output", tmp_path / "run")
    assert code == 1 and not (tmp_path / "run").exists()
    assert "diverged or are damaged" in err.splitlines()[-1] and "learning_rate" not in err


def test_a_stop_text_that_is_empty_stops_nothing(capsys, preset):
    words = ("evaluate", "--model", preset.parent / "model", "--task", TASK, "--prompts", 4, "--json")
    outputs = [run(capsys, *words, *stop)[1] for stop in ((), ("--stop", "|"), ("--stop", "~|"))]
    assert outputs[0] == outputs[1] == outputs[2]


def test_a_run_that_diverges_gets_one_line(capsys, preset, tmp_path):
    words = ("train", "--preset", preset, "--output", tmp_path / "run", "--learning_rate", "1e10")
    code, _, err = run(capsys, *words)
    assert code == 1
    assert "diverged" in err.splitlines()[-1] and "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    ["--tau 1e-6 --learning_rate 1e-300", "--eval_temperature 1e-6 --eval_top_p 5e-324 --micro_batch 1000000",
     "--algorithm grpo --clip_high 1e6 --clip_low 5e-324 --wrong_reward -1e6", "--max_grad_norm 1e12 --threads 64"],
)  # fmt: skip
def test_values_on_their_bounds_work(capsys, preset, tmp_path, words):
    code, _, err = run(capsys, "train", "--preset", preset, "--output", tmp_path / "run", *words.split())
    assert code == 0, err
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("yaml", "pip install 'pmdtheory[llm]'"), ("transformers", "pip install 'pmdtheory[llm]'"),
     ("pandas.core", "pip install pandas"), ("reasoning_gym", "pip install reasoning-gym")],
)  # fmt: skip
def test_a_missing_package_is_named_with_its_remedy(capsys, monkeypatch, name, remedy):
    def command(_):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setitem(cli.COMMANDS, "train", command)
    code, _, err = run(capsys, "train")
    assert code == 2
    assert err == f"pmd-llm train: this needs the package {name.split('.')[0]}, which is not installed: {remedy}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("command", "kept"),
    [("train", "what the last checkpoint holds is kept"), ("evaluate", "nothing is kept, and the same command starts"),
     ("warmup", "what the last checkpoint holds is kept"),
     ("compare", "finished cells are kept"), ("study", "finished cells are kept")],
)  # fmt: skip
def test_signals_end_a_command_in_one_line(capsys, monkeypatch, number, command, kept):
    monkeypatch.setitem(cli.COMMANDS, command, lambda _: signal.raise_signal(number))
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
    code, _, err = run(capsys, command)
    assert code == 128 + number
    assert err.startswith(f"pmd-llm {command}: interrupted: {kept}") and err.count("\n") == 1
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == before


def test_what_a_run_says_when_it_is_interrupted_is_passed_on(capsys, monkeypatch):
    def command(_):
        raise Interrupted("saved after iteration 3", signal.SIGHUP)

    monkeypatch.setitem(cli.COMMANDS, "train", command)
    assert run(capsys, "train") == (129, "", "pmd-llm train: saved after iteration 3\n")


def test_an_ignored_signal_stays_ignored(capsys, monkeypatch):
    """As under nohup."""
    monkeypatch.setitem(cli.COMMANDS, "train", lambda _: signal.raise_signal(signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(capsys, "train")[0] is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_warnings_are_one_line_and_said_once(capsys, monkeypatch):
    def command(_):
        for line in (1, 1, 2):
            warnings.warn(f"look\nat {line}", stacklevel=1)

    monkeypatch.setitem(cli.COMMANDS, "train", command)
    assert run(capsys, "train")[2] == "pmd-llm train: warning: look at 1\npmd-llm train: warning: look at 2\n"


def test_a_reader_that_leaves_is_no_fault():
    """As in `pmd-llm train --help | head -0`, and where the reader leaves after the program has begun."""
    for words in (["train", "--help"], ["evaluate", "--prompts", "2", "--samples", "2", "--json"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "pmdllm.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() in (0, 128 + signal.SIGPIPE)


def test_version(capsys):
    code, out, _ = run(capsys, "--version")
    assert code == 0 and re.fullmatch(r"pmd-llm \S+\n", out)


def test_the_help_is_quick():
    """Nothing heavy is loaded before a command is chosen, nor matplotlib by anything but compare's picture."""
    code = (
        "import sys; from pmdllm import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "cli.main(['study', 'methods', '--dry-run'])\n"
        "assert not {'matplotlib', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("warmup", "train", "evaluate", "compare", "study"))


@pytest.mark.parametrize("command", ["train", "warmup", "evaluate", "compare", "study"])
def test_help(capsys, command):
    """Every command explains itself."""
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert out.startswith(f"usage: pmd-llm {command}")
