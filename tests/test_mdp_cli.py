"""``pmdtheory mdp`` on whatever can be typed: a result, or one line and exit code 2; memory comes first."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from pmdtheory import cli
from pmdtheory.cli import mdp as command
from pmdtheory.mdp import deep_sea, garnet, iterate, optimal


def run(capsys, words):
    """Exit code, standard output, standard error."""
    try:
        code = cli.main(["mdp", *words.split()])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


REFUSED = {
    "--gamma nan": "gamma must be one number in [0, 1), got nan",
    "--gamma -0.1": "got -0.1",
    "--gamma abc": "argument --gamma: invalid float value: 'abc'",
    "--tau -1": "tau must be positive, got -1.0",
    "--tau inf": "tau must be finite, got inf",
    "--tau 1e-320": "tau must be large enough",
    "--update mixed --chi2-coef -1": "chi2_coef must be nonnegative",
    "--update mixed --chi2-coef 1e308 --tau 1e-3": "chi2_coef",
    "--update nonsense": "argument --update: invalid choice",
    "--schedule nonsense": "argument --schedule: invalid choice",
    "--size 0": "--size must be an integer of at least 1, got 0",
    "--env gridworld --size 1": "--size must be an integer of at least 2, got 1",
    "--actions 0": "--actions must be an integer of at least 1, got 0",
    "--steps -1": "steps must be an integer of at least 0, got -1",
    "--steps 1.5": "argument --steps: invalid int value: '1.5'",
    "--tolerance nan": "tolerance must be finite, got nan",
    "--seed -1": "--seed must be an integer of at least 0, got -1",
    "--env FrozenLake-v1 --size 5": "--size is 4 or 8 for FrozenLake-v1",
    "--env ALE/Pong-v5": "--env is one of garnet, chain, gridworld, deep-sea or a Gymnasium id",
    "--env nosuchmodule:X-v0": "ModuleNotFoundError",
    "--env ../x": "it must be an environment that gymnasium can make, got '../x'",
    "--env Blackjack-v1": "it must have a transition table",
    "--size 10000000": "--size 10000000 --actions 4 must fit the memory: garnet needs about 1.12e+06 GiB",
    "--actions 100000000000": "--size 20 --actions 100000000000 must fit the memory",
    "--env gridworld --size 1000000": "gridworld needs about 2.42e+06 GiB",
    "--env deep-sea --size 1000000": "deep-sea needs about 1.21e+06 GiB",
    "--env chain --size 100000000000": "chain needs about",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_one_line(capsys, words):
    """Exit code 2, nothing on standard output, one line that names the argument."""
    code, out, err = run(capsys, words)
    assert (code, out) == (2, "") and err.count("\n") == 1 and REFUSED[words] in err, err


WORKS = [
    "--gamma 0 --schedule geometric",
    "--gamma 1e-310 --schedule geometric",
    "--gamma 1e-5 --schedule adaptive --steps 300",
    "--gamma 0.9999999999999999",
    "--gamma 0.9999999999999999 --env chain",
    "--gamma 0.9999999999999999 --env gridworld --steps 20",
    "--gamma 0.9999999 --env CliffWalking-v1 --steps 30",
    "--gamma 0.9999999999 --update kl --tau 1e-6",
    "--tau 1e300",
    "--tau 1e-300 --update euclidean",
    "--tau 1e308 --update mixed --chi2-coef 1e308",
    "--update mixed --chi2-coef 1e-300",
    "--size 1 --actions 1",
    "--actions 1",
    "--env deep-sea --size 1",
    "--steps 0",
    "--tolerance 0",
    "--tolerance 1e300",
    "--seed 99999999999999999999999999",
    "--schedule geometric --tau 1e-300",
    "--schedule geometric --tau 1e300 --steps 20",
    "--schedule adaptive --steps 2000 --tolerance 0",
    "--env chain --size 50000 --steps 1",
]


@pytest.mark.parametrize("words", WORKS)
def test_extremes_work(capsys, words):
    """A result, nothing on standard error, no warning (which the tests turn into an error)."""
    code, out, err = run(capsys, words)
    assert code == 0 and err == "" and "certified: after" in out


def test_certified_near_gamma_one(capsys):
    """The tolerance of 1e-6 is met at γ = 1 − 1e-7, where values are 8e6; where rounding forbids it, that is said."""
    code, out, _ = run(capsys, "--gamma 0.9999999 --tau 0.001")
    best = optimal(garnet(20, 4, 5, np.random.default_rng(0), 0.9999999))
    assert code == 0 and "gamma 0.9999999;" in out and "\ncertified: after" in out
    assert float(out.splitlines()[-2].split()[1]) == pytest.approx(best.value, rel=1e-3)
    assert "more --steps" in run(capsys, "--steps 2")[1]
    code, out, _ = run(capsys, "--gamma 0.999999999999 --tau 0.001")
    assert "at gamma 0.999999999999 rounding leaves about that much" in out


def test_sparse_and_dense_garnets_are_one(capsys, monkeypatch):
    """What is printed does not hang on how P is stored."""
    dense = run(capsys, "--tau 0.05 --steps 10")
    monkeypatch.setattr(command, "_DENSE", 0)
    assert run(capsys, "--tau 0.05 --steps 10") == dense


def test_the_memory_that_is_there_decides(capsys, monkeypatch):
    """The same problem runs or is refused with the memory that the system tells of."""
    assert run(capsys, "--env chain --size 2000 --steps 1")[0] == 0
    monkeypatch.setattr(command, "_memory", lambda: 2**20)
    code, _, err = run(capsys, "--env chain --size 2000 --steps 1")
    assert code == 2 and "--size 2000 must fit the memory: chain needs about 0.00242 GiB" in err


def test_table_on_disk(capsys, tmp_path):
    """The rows are those of the library; nothing else is left in the folder."""
    path = tmp_path / "t.csv"
    assert run(capsys, f"--env deep-sea --size 3 --steps 4 --tolerance 0 --csv {path}")[0] == 0
    expected = iterate(deep_sea(3, 0.95), steps=4).table
    pd.testing.assert_frame_equal(pd.read_csv(path), expected, rtol=1e-9, atol=1e-12)
    assert list(tmp_path.iterdir()) == [path]


def test_without_gymnasium(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    code, out, err = run(capsys, "--env FrozenLake-v1")
    assert (code, out) == (2, "") and "pip install 'pmdtheory[gymnasium]'" in err and err.count("\n") == 1
