"""The command line as a newcomer meets it: printed numbers, one-line errors, exit codes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pmdtheory import cli, kl_update, pmd_mean_update
from pmdtheory.cli import table as printed
from pmdtheory.mdp import chain, from_gymnasium, iterate, optimal


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
    words = "solve --policy 0.1,0.9 --reward -1,0 --tau 0.5 --chi2-coef 0.2 --baseline -0.3"
    code, out, _ = run(capsys, *words.split())
    assert code == 0
    assert all(f"q {name}" in out for name in ("kl", "mean", "mixed", "baseline"))


def test_solve_certify(capsys):
    """CVXPY's distances are small and its status is printed."""
    words = "solve --policy 0.2,0.3,0.5 --reward 0,1,1.5 --tau 0.5 --certify"
    code, out, _ = run(capsys, *words.split())
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
        ("bandit --rollouts 8 --estimator loo_target_kl", "--estimator loo_target_kl needs --target-kl"),
        ("bandit --rollouts 8 --target-kl 0.5", "--estimator loo_mean has no use for --target-kl"),
        ("check --problems 0", "problems must be"),
        ("check --seed -1", "seed must be an integer of at least 0, got -1"),
        ("bandit --seed -1", "seed must be an integer of at least 0, got -1"),
        ("bandit --tau -1e-3", "tau must be positive, got -0.001"),
        ("bandit --tau 1e-300 --rollouts 4", "tau must be large enough for the square of (rewards - baseline) / tau"),
        ("bandit --csv .", "--csv . cannot be written (it is a folder)"),
        ("bandit --csv /nowhere/t.csv", "--csv /nowhere/t.csv cannot be written (No such file or directory)"),
        ("mdp --csv /nowhere/t.csv", "--csv /nowhere/t.csv cannot be written (No such file or directory)"),
        ("bandit --json --csv /dev/stdout", "--csv /dev/stdout and --json cannot share standard output"),
        ("bandit --json --csv /proc/self/fd/1", "--csv /proc/self/fd/1 and --json cannot share standard output"),
        ("mdp --tau 0", "tau must be positive, got 0.0"),
        ("mdp --gamma 1", "gamma must be one number in [0, 1), got 1.0"),
        ("mdp --tolerance -1", "tolerance must be nonnegative"),
        ("mdp --update mixed", "--update mixed needs --chi2-coef"),
        ("mdp --env nonsense", "Environment `nonsense` doesn't exist"),
        ("mdp --env Taxi-v3", "Please use `Taxi-v4` instead"),
        ("mdp --env CartPole-v1", "must have a transition table"),
        ("mdp --env Taxi-v4 --size 8", "not an option of Taxi-v4, got 8"),
        ("mdp --env chain --size 1", "must be an integer of at least 2, got 1"),
        ("advise --success 0", "success must lie between 0 and 1, got 0.0"),
        ("advise --rollouts 1", "rollouts must be an integer of at least 2, got 1"),
        ("advise --table /nowhere/t.csv", "table /nowhere/t.csv is not there"),
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


def test_the_table_is_checked_before_the_run_and_a_device_stays_one(capsys, tmp_path, monkeypatch):
    """A pipe is written to, standard output gets the rows, and a full disk leaves nothing behind."""
    monkeypatch.setattr("pmdtheory.bandit.iterate", lambda *a, **k: pytest.fail("ran before the check"))
    assert run(capsys, "bandit", "--csv", str(tmp_path))[0] == 2
    monkeypatch.undo()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert run(capsys, "bandit", "--steps", "1", "--csv", str(pipe))[0] == 0
    assert os.read(reader, 10_000).startswith(b"step,seed,reward")
    assert not pipe.is_file()
    os.close(reader)
    assert "step,seed,reward" in run(capsys, "bandit", "--steps", "1", "--csv", "/dev/stdout")[1]

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    code, out, err = run(capsys, "bandit", "--steps", "1", "--csv", str(tmp_path / "t.csv"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "No space left on device" in err
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("words", ["bandit --tau 1e-300", "bandit --tau 1e-300 --update kl", "bandit --tau 1e300"])
def test_extreme_temperatures_give_numbers(capsys, words):
    """Greedy from the first step, or not moved at all."""
    code, out, _ = run(capsys, *words.split())
    assert code == 0
    assert "nan" not in out and "inf" not in out


def test_solve_far_below_the_reward_range(capsys):
    """Everything goes to the best action."""
    words = "solve --policy 0.3,0.3,0.4 --reward 0.1,0.7,1 --tau 1e-12 --chi2-coef 0 --baseline -1e290"
    code, out, _ = run(capsys, *words.split())
    assert code == 0
    assert column(out, "q_mixed", 3).tolist() == column(out, "q_kl", 3).tolist() == [0, 0, 1]
    assert column(out, "q_baseline", 3) == pytest.approx([0.3, 0.3, 0.4])


def test_mdp_certifies_and_writes(capsys, tmp_path):
    """The certificate is met on paper and on disk, and the certified value is policy iteration's."""
    path = tmp_path / "table.csv"
    words = f"mdp --env FrozenLake-v1 --size 4 --gamma 0.9 --tau 0.01 --steps 400 --tolerance 1e-5 --csv {path}"
    code, out, _ = run(capsys, *words.split())
    table, best = pd.read_csv(path), optimal(from_gymnasium("FrozenLake-v1", 0.9, map_name="4x4"))
    first, *_, ending = out.splitlines()
    assert code == 0
    assert first == "FrozenLake-v1: 17 states (1 terminal), 4 actions, gamma 0.9; mean, tau 0.01, constant"
    assert ending.startswith(f"certified: after {len(table) - 1} steps")
    assert table.certificate.iloc[-1] <= 1e-5 < table.certificate.iloc[-2]
    assert table.value.iloc[-1] == pytest.approx(best.value, abs=1e-5)


def test_mdp_says_when_it_stops_short(capsys):
    """Too few steps: the row at the end is the library's, and the gap is not called certified."""
    words = "mdp --env chain --size 6 --gamma 0.9 --update kl --tau 0.5 --steps 4"
    code, out, _ = run(capsys, *words.split())
    table = iterate(chain(6), update=kl_update, tau=0.5, steps=4).table
    step, value, certificate, kl, weight, largest, entropy = out.splitlines()[-3].split()
    assert (code, step, weight, largest) == (0, "4", "0", "0")
    shown = [float(x) for x in (value, certificate, kl, entropy)]
    assert shown == pytest.approx(table[["value", "certificate", "kl", "entropy"]].iloc[-1].to_list(), rel=1e-3)
    assert "not certified" in out


@pytest.mark.parametrize(
    "words",
    [
        "--env gridworld --tau 0.01",
        "--env deep-sea --update euclidean",
        "--update mixed --chi2-coef 0.1 --schedule adaptive",
    ],
)
def test_mdp_environments_and_updates(capsys, words):
    """Every kind runs, and the printed certificate falls."""
    code, out, _ = run(capsys, "mdp", "--steps", "5", *words.split())
    gaps = [float(line.split()[2]) for line in out.splitlines()[2:8]]
    assert code == 0
    assert gaps[-1] < gaps[0]


def test_check_finds_nothing(capsys):
    """The theorems hold on a few problems and the exit code says so."""
    code, out, _ = run(capsys, "check", "--problems", "40")
    assert code == 0
    assert "no violation" in out


@pytest.mark.parametrize("words", ["", "solve ", "bandit ", "mdp ", "advise ", "check "])
def test_help(capsys, words):
    """Every command explains itself."""
    code, out, _ = run(capsys, *words.split(), "--help")
    assert code == 0
    assert out.startswith("usage: pmdtheory")


def test_a_stream_that_takes_no_more_is_named(capsys):
    code, _, err = run(capsys, "bandit", "--steps", "1", "--csv", "/dev/full")
    assert code == 2 and "--csv /dev/full could not be written: No space left on device" in err


def test_version(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"pmdtheory {version('pmdtheory')}\n"


JSON = {
    "solve --policy 0.2,0.3,0.5 --reward 0,1,1.5 --tau 0.1 --baseline 1.45 --certify": {"methods", "certificates"},
    "bandit": {"steps", "best"},
    "bandit --rollouts 4 --seeds 3 --steps 2": {"steps", "best"},
    "mdp": {"steps", "gap", "certified"},
    "check --problems 20": {"claims", "violations"},
}


@pytest.mark.parametrize("words", JSON)
def test_json_is_one_object_that_says_what_the_table_does(capsys, words):
    """Every number on paper is one of the object's, in as many digits; nothing else is on standard output."""
    code, paper, _ = run(capsys, *words.split())
    code_of_json, out, err = run(capsys, *words.split(), "--json")
    found = json.loads(out, parse_constant=pytest.fail)
    assert (code, code_of_json, err, out.count("\n")) == (0, 0, "", 1)
    assert JSON[words] <= set(found)
    every = [abs(x) for x in leaves(found) if isinstance(x, float | int)]
    rows = [line.split() for line in paper.splitlines() if re.match(r" +[0-9]+ ", line)]
    assert bool(rows) != words.startswith("check")
    for text in (text for row in rows for text in row if re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", text)):
        digits = 0.51 * 10.0 ** -len(text.partition(".")[2].partition("e")[0]) if "e" not in text else 1e-3
        assert min(abs(x - abs(float(text))) for x in every) <= max(digits, 1e-3 * abs(float(text))), text


def leaves(value):
    """All that is in lists and dicts."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    else:
        yield value


def test_json_of_solve_is_the_librarys(capsys):
    _, out, _ = run(capsys, *["solve", "--policy", "0.1,0.9", "--reward", "1,0", "--tau", "0.1", "--json"])
    found, expected = json.loads(out)["methods"]["mean"], pmd_mean_update([0.1, 0.9], [1.0, 0.0], 0.1)
    assert found["policy"] == expected.policy.tolist() and found["chi2_weight"] == float(expected.chi2_weight)
    assert found["reverse_kl"] == pytest.approx(found["chi2_weight"], rel=1e-12)


def test_what_is_no_finite_number_is_null(capsys):
    frame = pd.DataFrame({"x": [np.inf]})
    printed.print_json({"a": np.array([1.0, np.nan]), "b": frame, "c": Path("d"), "e": (True, None)})
    assert json.loads(capsys.readouterr().out) == {"a": [1.0, None], "b": [{"x": None}], "c": "d", "e": [True, None]}


def test_a_reader_that_leaves_is_no_fault():
    words = [sys.executable, "-m", "pmdtheory.cli", "bandit"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 128 + signal.SIGPIPE)


@pytest.mark.parametrize("words", ["check --problems 1", "mdp --steps 3", "bandit --steps 3"])
def test_progress_is_shown_on_a_terminal_only(words):
    """Standard error of a pseudo-terminal has a bar, and of a pipe nothing."""
    command = [sys.executable, "-m", "pmdtheory.cli", *words.split()]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    os.set_blocking(ours, False)
    shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    bar = os.read(ours, 100_000).decode(errors="replace")
    os.close(ours)
    os.close(theirs)
    assert piped.stderr == "" and piped.stdout == shown.stdout
    assert "0%" in bar
