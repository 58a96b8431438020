"""The command line as a newcomer meets it: tables on paper, files, one-line errors, exit codes."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from pmdllm import cli, models
from pmdllm.evaluate import evaluate
from pmdllm.study import Setting, Study
from pmdllm.study import declared as studies
from pmdllm.tasks import load

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
        spread = 12.7062 * rows["test/avg@2"].std() / np.sqrt(2)
        assert numbers(line)[:2] == pytest.approx([rows["test/avg@2"].mean(), spread], abs=6e-4)
        assert f" {rows.rollouts.iloc[0]} " in line
    code, out, _ = run(capsys, *words, "--output", tmp_path, "--algorithms", "rloo", "--seeds", "4")
    assert code == 0
    results = pd.read_csv(tmp_path / "results.csv")  # the others are kept
    there = results.groupby("algorithm").seed.unique().map(list).to_dict()
    assert there == {"grpo": [0, 1], "pmd-mean": [0, 1], "rloo": [4]}
    assert "±" not in next(line for line in out.splitlines() if line.startswith("rloo "))


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
        ("train --tau 0", "tau must be positive, got 0.0"),
        ("train --algorithm ppo", "algorithm must be one of pmd-mean,"),
        ("train --preset huge", "preset must be one of"),
        ("train --no-such-option 1", "--no-such-option"),
        ("warmup --heads 3", "hidden_size must be a multiple of heads = 3"),
        ("evaluate --model ./nowhere", "model must be 'base', a folder"),
        ("evaluate --task chess", "chess"),
        ("evaluate --prompts 0", "prompts must be positive, got 0"),
        ("evaluate --split train", "invalid choice: 'train'"),
        ("compare --seeds x", "seeds must be as in 0-2 or 0,3,5, got 'x'"),
        ("compare --seeds 3-1", "seeds must be as in 0-2 or 0,3,5, got '3-1'"),
        ("compare --algorithms ppo", "algorithm must be one of pmd-mean,"),
        ("compare --jobs 0", "jobs must be positive, got 0"),
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
