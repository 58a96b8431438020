"""The folder of a run: whole or absent, of one configuration, of one process, and nothing that is not a run's."""

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pmdllm.config import Config
from pmdllm.run.folder import RunFolder, write_atomically

silent = pytest.mark.filterwarnings("error")
LOGS = ("metrics.jsonl", "timings.jsonl")


def state(number):
    rng = np.random.default_rng(number)
    return {
        "number": number,
        "weights": torch.arange(number, number + 5.0),
        "rng": rng.bit_generator.state,
        "pending": [[1, 2], [3]],
        "before": {"avg@8": 0.25},
        "nothing": None,
    }


def write(config, numbers, result=None):
    """A run that made these steps: a line in both logs and a checkpoint for each."""
    with RunFolder(config) as folder:
        last = folder.load()
        for number in numbers:
            for name in LOGS:
                folder.append(name, {"number": number})
            folder.save(state(number))
        if result is not None:
            folder.finish(result)
    return last


def number(config):
    """Number of the state that a run would go on from."""
    with RunFolder(config) as folder:
        found = folder.load()
    return found and found["number"]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def checkpoints(config):
    return sorted(Path(config.output, "checkpoints").glob("*.pt"))


def replaced(path, content):
    """Another content under its right digest."""
    path.write_bytes(content)
    return path.rename(path.with_name(f"{path.name[:8]}-{hashlib.sha256(content).hexdigest()[:32]}.pt"))


@pytest.fixture
def config(tmp_path):
    return Config(output=str(tmp_path / "run"))


@silent
def test_what_is_saved_is_loaded(config):
    write(config, [7])
    with RunFolder(config) as folder:
        back = folder.load()
    assert torch.equal(back.pop("weights"), state(7)["weights"])
    assert back == {name: value for name, value in state(7).items() if name != "weights"}
    rng = np.random.default_rng()
    rng.bit_generator.state = back["rng"]
    assert rng.random() == np.random.default_rng(7).random()


@silent
def test_the_newest_two_checkpoints_stay_and_of_a_complete_run_the_last(config):
    write(config, range(12))
    assert number(config) == 11
    assert [path.name[:8] for path in checkpoints(config)] == ["00000011", "00000012"]
    write(config, [], result={"done": True})
    assert [path.name[:8] for path in checkpoints(config)] == ["00000012"]
    assert RunFolder(config).result == {"done": True}


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_named_and_passed_over(config, damage):
    write(config, [1, 2])
    newest = checkpoints(config)[-1]
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"flip": content, "cut": content[:-100], "empty": b""}[damage])
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        assert number(config) == 1


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("content", [[1, 2], {"weights": 1}, Harmful(), "text"], ids=["list", "dict", "code", "text"])
def test_a_checkpoint_with_foreign_content_is_passed_over_its_digest_notwithstanding(config, content, tmp_path, capsys):
    write(config, [1, 2])
    if content == "text":
        (tmp_path / "content").write_text(content)
    else:
        torch.save(content, tmp_path / "content")
    newest = replaced(checkpoints(config)[-1], (tmp_path / "content").read_bytes())
    with pytest.warns(UserWarning, match=f"{newest.name} is no checkpoint of a run"):
        assert number(config) == 1
    assert not capsys.readouterr().out


def test_a_checkpoint_of_another_configuration_is_passed_over(config, tmp_path):
    write(config, [1, 2])
    other = replace(config, output=str(tmp_path / "other"), seed=1, tau=0.5)
    write(other, [3])
    foreign = replaced(checkpoints(config)[-1], checkpoints(other)[-1].read_bytes())
    with pytest.warns(UserWarning, match=rf"{foreign.name} belongs to .* \(seed \(1 there, 0 here\), tau \(0.5 there"):
        assert number(config) == 1


def test_without_a_usable_checkpoint_a_run_starts_anew_and_says_so(config):
    write(config, [1, 2])
    for path in checkpoints(config):
        path.write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="starts anew"):
        assert write(config, [5]) is None
    assert Path(config.output, "metrics.jsonl").read_text() == '{"number": 5}\n'


@silent
def test_a_write_that_was_cut_off_is_ignored_and_overwritten(config):
    write(config, [1])
    part = Path(config.output, "checkpoints", ".part")
    part.write_bytes(b"half a file")
    assert number(config) == 1
    write(config, [2])
    assert number(config) == 2
    assert not part.exists()


@pytest.mark.parametrize("missing", [(), ("config.yaml",), ("metrics.jsonl",), ("config.yaml", *LOGS)])
def test_another_seed_never_gets_the_weights_of_this_one(config, missing):
    """Whatever is deleted of a killed run, its checkpoint says whose it is."""
    write(config, [1, 2])
    for name in missing:
        Path(config.output, name).unlink()
    before = contents(Path(config.output))
    with pytest.raises(ValueError, match=r"other settings: seed \(0 there, 1 here\)"):
        RunFolder(replace(config, seed=1))
    assert contents(Path(config.output)) == before


@pytest.mark.parametrize("damage", ["deleted", "garbled", "binary", "another file"])
def test_a_configuration_that_was_lost_is_written_again(config, damage):
    write(config, [1, 2])
    path = Path(config.output, "config.yaml")
    text = path.read_bytes()
    path.unlink()
    if damage != "deleted":
        path.write_bytes({"garbled": b"a: [", "binary": bytes(range(256)), "another file": b"name: mine"}[damage])
    with pytest.warns(UserWarning, match="config.yaml is missing or damaged"):
        write(config, [3])
    assert path.read_bytes() == text and number(config) == 3


@pytest.mark.parametrize("damage", ["deleted", "cut", "cut within a line", "changed", "binary"])
@pytest.mark.parametrize("complete", [False, True])
def test_a_damaged_log_is_named_and_put_right(config, damage, complete):
    """What the checkpoint vouches for comes back, what a killed process wrote after it goes."""
    write(config, [1, 2], result={"done": True} if complete else None)
    path = Path(config.output, "metrics.jsonl")
    whole = path.read_bytes()
    path.unlink()
    if damage != "deleted":
        path.write_bytes({
            "cut": whole[:14], "cut within a line": whole[:-3], "changed": whole.replace(b"1", b"7"),
            "binary": bytes(range(256)),
        }[damage])  # fmt: skip
    said = pytest.warns(UserWarning, match=r"metrics.jsonl was deleted or changed")
    with said, RunFolder(config) as folder:
        assert folder.result is None and folder.load()["number"] == 2
        folder.append("metrics.jsonl", {"number": 3})
    assert path.read_bytes() == whole + b'{"number": 3}\n'


@silent
def test_lines_after_the_checkpoint_are_cut(config):
    write(config, [1])
    with Path(config.output, "metrics.jsonl").open("a") as file:
        file.write('{"number": 2}\n{"num')
    write(config, [2])
    assert Path(config.output, "metrics.jsonl").read_text() == '{"number": 1}\n{"number": 2}\n'


def test_what_is_appended_to_the_log_of_a_complete_run_goes(config):
    write(config, [1], result={"done": True})
    with Path(config.output, "timings.jsonl").open("ab") as file:
        file.write(b"\xff\xe4")
    with pytest.warns(UserWarning, match="timings.jsonl was deleted or changed"), RunFolder(config) as folder:
        assert folder.result is None and folder.load()["number"] == 1
        folder.finish({"done": True})
    assert Path(config.output, "timings.jsonl").read_text() == '{"number": 1}\n'


def test_a_damaged_result_is_computed_again(config):
    write(config, [1], result={"done": True})
    Path(config.output, "result.json").write_text('{"done": tr')
    with pytest.warns(UserWarning, match="result.json is damaged"), RunFolder(config) as folder:
        assert folder.result is None and folder.load()["number"] == 1


@silent
def test_more_iterations_go_on_from_the_last_checkpoint(config):
    write(config, [1, 2], result={"done": True})
    longer = replace(config, iterations=config.iterations + 1)
    with RunFolder(longer) as folder:
        assert folder.result is None and folder.load()["number"] == 2
        folder.append("metrics.jsonl", {"number": 3})
        assert not Path(config.output, "result.json").exists()
    with pytest.raises(ValueError, match=rf"iterations \({longer.iterations} there, {config.iterations} here\)"):
        RunFolder(config)


def test_a_decaying_rate_does_not_allow_it(config):
    decaying = replace(config, lr_schedule="linear")
    write(decaying, [1])
    with pytest.raises(ValueError, match=r"iterations \(60 there, 61 here, and the linear decay .* depends on it\)"):
        RunFolder(replace(decaying, iterations=61))


@silent
def test_what_does_not_change_the_outcome_may_change(config):
    write(config, [1])
    assert number(replace(config, checkpoint_seconds=0.0, report_to="tensorboard")) == 1


@silent
def test_a_run_of_an_earlier_version_lacks_options_that_are_off(config):
    write(config, [1])
    path = Path(config.output, "config.yaml")
    values = yaml.safe_load(path.read_text())
    del values["chat"], values["reward"]
    path.write_text(yaml.safe_dump(values))
    assert number(config) == 1


def test_a_start_that_fails_leaves_nothing(tmp_path):
    config = Config(output=str(tmp_path / "new" / "run"))
    with pytest.raises(RuntimeError), RunFolder(config) as folder:
        folder.load()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_start_that_fails_changes_nothing(config):
    write(config, [1], result={"done": True})
    before = contents(Path(config.output))
    with pytest.raises(RuntimeError), RunFolder(replace(config, overwrite=True, seed=1)) as folder:
        assert folder.result is None and folder.load() is None
        raise RuntimeError
    assert contents(Path(config.output)) == before


@silent
def test_overwriting_deletes_a_run_and_nothing_else(config):
    write(config, [1, 2], result={"done": True})
    Path(config.output, "model").mkdir()
    Path(config.output, "thesis.txt").write_text("mine")
    write(replace(config, overwrite=True, seed=1), [5])
    assert {path.name for path in Path(config.output).iterdir()} == {"config.yaml", *LOGS, "checkpoints", "thesis.txt"}
    assert number(replace(config, seed=1)) == 5


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "result.json", "model"])
def test_what_is_no_run_is_refused(config, name, overwrite):
    path = Path(config.output, name)
    path.parent.mkdir()
    path.write_text("name: mine")
    with pytest.raises(ValueError, match=rf"holds {name} but no run's config.yaml"):
        RunFolder(replace(config, overwrite=overwrite))
    assert contents(path.parent) == {name: b"name: mine"}


@silent
def test_other_files_do_no_harm(config):
    Path(config.output).mkdir()
    Path(config.output, "thesis.txt").write_text("mine")
    write(config, [1])
    assert number(config) == 1 and Path(config.output, "thesis.txt").read_text() == "mine"


@silent
def test_one_process_at_a_time(config):
    with RunFolder(config) as folder:
        folder.append("metrics.jsonl", {"number": 1})
        with pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
            RunFolder(config)
    RunFolder(config).close()
    assert not Path(config.output, ".lock").exists()


def test_a_dead_process_holds_no_lock(config):
    """One that was killed, and one that has left a child behind."""
    code = (
        "import os, sys, time; from pmdllm.config import Config; from pmdllm.run.folder import RunFolder\n"
        "folder = RunFolder(Config(output=sys.argv[1])); folder.append('metrics.jsonl', {'number': 1})\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, config.output], stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        with pytest.raises(ValueError, match=f"in use by process {process.pid}:"):
            RunFolder(config)
        process.kill()
        process.wait()
        RunFolder(config).close()
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("output", ["file", "file/run", "a" * 300, "new/" + "a" * 300])
def test_an_output_that_cannot_be_a_folder(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    with pytest.raises(ValueError, match=f"output must be a folder that can be written, got '{output}'"):
        RunFolder(Config(output=output))
    assert contents(tmp_path) == {"file": b"mine"} and list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_full_disk_leaves_the_previous_checkpoint(config):
    """A limit on the size of files stands for the disk: one sentence, nothing lost, and the run goes on from there."""
    write(config, [1])
    code = (
        "import resource, signal, sys, torch\n"
        "from pmdllm.config import Config; from pmdllm.run.folder import RunFolder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "folder = RunFolder(Config(output=sys.argv[1])); assert folder.load()['number'] == 1\n"
        "folder.append('metrics.jsonl', {'number': 2})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "try: folder.save({'number': 2, 'weights': torch.zeros(100_000)})\n"
        "except OSError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, config.output], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{config.output} cannot be written (" in done.stdout and "What was saved before is intact" in done.stdout
    assert done.stdout.count("\n") == 1
    assert number(config) == 1
    assert [path.name for path in Path(config.output, "checkpoints").iterdir()] == [checkpoints(config)[0].name]


def test_text_is_written_whole(tmp_path):
    path = tmp_path / "result.json"
    write_atomically(path, "first")
    write_atomically(path, "second")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\udc80")
    assert path.read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
