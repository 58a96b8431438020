"""Checkpoints: whole or absent, newest intact one wins, only data is read back."""

import pickle

import numpy as np
import pytest
import torch
from pmdllm import checkpoint


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


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint.save(tmp_path / "new", state(7))
    back = checkpoint.load_latest(tmp_path / "new")
    assert torch.equal(back.pop("weights"), state(7)["weights"])
    assert back == {name: value for name, value in state(7).items() if name != "weights"}
    rng = np.random.default_rng()
    rng.bit_generator.state = back["rng"]
    assert rng.random() == np.random.default_rng(7).random()


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.load_latest(tmp_path) is None
    assert checkpoint.load_latest(tmp_path / "absent") is None


def test_the_newest_stays_and_old_ones_go(tmp_path):
    for number in range(12):
        checkpoint.save(tmp_path, state(number), keep=3)
    assert checkpoint.load_latest(tmp_path)["number"] == 11
    assert [path.name[:8] for path in sorted(tmp_path.iterdir())] == ["00000010", "00000011", "00000012"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, damage):
    checkpoint.save(tmp_path, state(1))
    newest = checkpoint.save(tmp_path, state(2))
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"flip": content, "cut": content[:-100], "empty": b""}[damage])
    with pytest.warns(UserWarning, match=newest.name):
        assert checkpoint.load_latest(tmp_path)["number"] == 1


def test_all_damaged_is_none(tmp_path):
    for number in (1, 2):
        checkpoint.save(tmp_path, state(number)).write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.load_latest(tmp_path) is None


def test_a_write_that_was_cut_off_is_ignored_and_overwritten(tmp_path):
    checkpoint.save(tmp_path, state(1))
    (tmp_path / ".part").write_bytes(b"half a file")
    assert checkpoint.load_latest(tmp_path)["number"] == 1
    checkpoint.save(tmp_path, state(2))
    assert checkpoint.load_latest(tmp_path)["number"] == 2
    assert not (tmp_path / ".part").exists()


def test_a_failing_write_leaves_the_previous_one(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state(1))
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(tmp_path, state(2))
    assert checkpoint.load_latest(tmp_path)["number"] == 1


def test_code_is_not_loaded(tmp_path):
    """A checkpoint that would call a function is refused, its digest notwithstanding."""

    class Harmful:
        def __reduce__(self):
            return print, ("executed",)

    checkpoint.save(tmp_path, {"number": Harmful()})
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load_latest(tmp_path)


def test_text_is_written_whole(tmp_path):
    path = tmp_path / "result.json"
    checkpoint.write_atomically(path, "first")
    checkpoint.write_atomically(path, "second")
    assert path.read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
