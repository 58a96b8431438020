"""The folder of a run: whole or absent, of one configuration, of one process, and nothing that is not a run's."""

import hashlib
import json
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
from pmdllm.run_folder import RunFolder, write_atomically

pytestmark = pytest.mark.filterwarnings("error::UserWarning")
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


def test_what_is_saved_is_loaded(config):
    write(config, [7])
    with RunFolder(config) as folder:
        back = folder.load()
    assert torch.equal(back.pop("weights"), state(7)["weights"])
    assert back == {name: value for name, value in state(7).items() if name != "weights"}
    rng = np.random.default_rng()
    rng.bit_generator.state = back["rng"]
    assert rng.random() == np.random.default_rng(7).random()


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
    with pytest.warns(UserWarning, match="starts from its beginning"):
        assert write(config, [5]) is None
    assert Path(config.output, "metrics.jsonl").read_text() == '{"number": 5}\n'


def test_a_write_that_was_cut_off_is_ignored_and_overwritten(config):
    write(config, [1])
    part = Path(config.output, "checkpoints", ".part")
    part.write_bytes(b"half a file")
    assert number(config) == 1
    write(config, [2])
    assert number(config) == 2
    assert not part.exists()


@pytest.mark.parametrize("missing", [("config.yaml",), ("metrics.jsonl",), ("config.yaml", *LOGS)])
def test_another_seed_never_gets_the_weights_of_this_one(config, missing):
    """Whatever is deleted of a killed run, its checkpoint says whose it is."""
    write(config, [1, 2])
    for name in missing:
        Path(config.output, name).unlink()
    before = contents(Path(config.output))
    with pytest.raises(ValueError, match=r"other settings: seed \(0 there, 1 here\)"), pytest.warns():
        raise_warning_free(replace(config, seed=1))
    assert contents(Path(config.output)) == before


def raise_warning_free(config):
    import warnings

    warnings.warn("so that there is one", stacklevel=1)
    RunFolder(config)
