"""The command line as a newcomer meets it: printed numbers, one-line errors, exit codes."""

import re

import numpy as np
import pandas as pd
import pytest

from pmdtheory import cli, kl_update, pmd_mean_update


def run(capsys, *words):
    """Exit code, standard output, standard error."""
    try:
        code = cli.main(list(words))
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def column(out, title, count):
    """The first `count` numbers below a column title of the printed table."""
    head, *rows = out.splitlines()
    index = re.sub("q ", "q_", head).split().index(title)
    return np.array([float(row.split()[index]) for row in rows[:count]])


def test_solve_prints_the_updates(capsys):
    """Printed policies are those of the library."""
    code, out, _ = run(capsys, "solve", "--policy", "0.1,0.9", "--reward", "1,0", "--tau", "0.1")
    assert code == 0
    for title, update in (("q_kl", kl_update), ("q_mean", pmd_mean_update)):
        assert column(out, title, 2) == pytest.approx(update([0.1, 0.9], [1, 0], 0.1).policy, rel=1e-5)


def test_solve_with_negative_rewards_and_every_method(capsys):
    """A reward list may start with a minus sign; mixed and baseline join when their numbers are given."""
    words = ["solve", "--policy", "0.1,0.9", "--reward", "-1,0", "--tau", "0.5", "--chi2-coef", "0.2", "--baseline", "-0.3"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert all(f"q {name}" in out for name in ("kl", "mean", "mixed", "baseline"))


def test_solve_certify(capsys):
    """CVXPY's distances are small and its status is printed."""
    code, out, _ = run(capsys, *["solve", "--policy", "0.2,0.3,0.5", "--reward", "0,1,1.5", "--tau", "0.5", "--certify"])
    rows = [line.split() for line in out.splitlines() if line.rstrip().endswith("(CLARABEL)")]
    assert code == 0
    assert len(rows) == 3
    assert all(float(row[-4]) < 1e-5 and row[-2] == "optimal" for row in rows)


def test_solve_marks_local_minima(capsys):
    """A baseline above τ log Z is said to give a local minimum only."""
    words = "solve --policy 0.2,0.3,0.5 --reward 0,1,1.5 --tau 0.1 --method baseline --baseline 1.45 --certify"
    code, out, _ = run(capsys, *words.split())
    assert code == 0
    assert "local minimum only (Statement 11)" in out
    assert "not convex" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("solve --policy 0.1,0.8 --reward 1,0 --tau 0.1", "policy summed over its last axis must be 1"),
        ("solve --policy 0.1,0.9 --reward 1,0 --tau 0", "tau must be positive, got 0.0"),
        ("solve --policy 0.1,0.9 --reward 1,0,2 --tau 1", "reward must have one entry per action"),
        ("solve --policy 0.1,x --reward 1,0 --tau 1", "'0.1,x' is not a list of numbers separated by commas"),
        ("solve --policy 0.1,0.9 --reward 1,0 --tau 1 --method mixed", "--method mixed needs --chi2-coef"),
        ("solve --policy 0.1,0.9 --reward 1,0 --tau 1 --baseline 9", "baseline must be at most"),
        ("bandit --actions 0", "actions must be"),
        ("bandit --rollouts 1", "leave-one-out needs at least two rollouts"),
        ("bandit --rollouts 8 --estimator median", "median"),
        ("check --problems 0", "problems must be"),
        ("solve", "the following arguments are required"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_bad_values_get_one_line(capsys, words, message):
    """Exit code 2, nothing on standard output, one line on standard error."""
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_bandit_prints_and_writes(capsys, tmp_path):
    """The table on paper is the mean of the table on disk."""
    path = tmp_path / "table.csv"
    words = f"bandit --kind binary --tau 0.2 --steps 3 --rollouts 8 --seeds 4 --csv {path}".split()
    code, out, _ = run(capsys, *words)
    table = pd.read_csv(path)
    assert code == 0
    last = out.splitlines()[-1].split()
    assert float(last[1]) == pytest.approx(table[table.step == 3].reward.mean(), abs=1e-4)
    assert set(table.seed) == {0, 1, 2, 3}


def test_check_finds_nothing(capsys):
    """The theorems hold on a few problems and the exit code says so."""
    code, out, _ = run(capsys, "check", "--problems", "40")
    assert code == 0
    assert "no violation" in out


@pytest.mark.parametrize("words", ["--help", "solve --help", "bandit --help", "check --help"])
def test_help(capsys, words):
    """Every command explains itself."""
    code, out, _ = run(capsys, *words.split())
    assert code == 0
    assert out.startswith("usage: pmdtheory")
