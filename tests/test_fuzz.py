"""What fuzzing found stays found, a few seeds of every target pass, and every target and the harness can fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmdtheory import updates
from pmdtheory.mdp import evaluate, optimum
from tests.fuzz import _harness, baselines, mdps, sampled
from tests.fuzz import updates as single

SEEDS = 12


@pytest.mark.parametrize("failure", _harness.recorded(), ids=lambda f: f"{f['target']} {f['seed']}")
def test_what_was_found_is_mended(failure):
    assert _harness.attempt(failure["target"], failure["seed"]) is None


@pytest.mark.parametrize("target", _harness.targets())
def test_a_few_problems(target):
    failures = [_harness.attempt(target, [20261125, index]) for index in range(SEEDS)]
    assert failures == [None] * SEEDS


def changed(function, change):
    """The function with one thing wrong about what it returns: ``change(policy, result)``."""
    return lambda policy, *rest, **options: change(policy, function(policy, *rest, **options))


def short_of(policy, update):
    """An update that stops a thousandth of the way before its end."""
    q = 0.999 * update.policy + 0.001 * np.asarray(policy)
    with np.errstate(divide="ignore"):
        return replace(update, policy=q, log_ratio=np.log(q / policy))


DEFECTS = {
    "mass": ("updates", single, "kl_update", lambda p, u: replace(u, policy=u.policy * (1 + 1e-12))),
    "log-ratio": ("updates", single, "mixed_update", lambda p, u: replace(u, log_ratio=u.log_ratio * (1 + 1e-9))),
    "weight": ("updates", single, "pmd_mean_update", lambda p, u: replace(u, chi2_weight=u.chi2_weight * (1 + 1e-8))),
    "estimate": ("baselines", baselines.baselines, "estimate", lambda name, b: b * (1 + 1e-12)),
    "minimiser": ("sampled", sampled, "sampled_update", short_of),
    "error": ("mdps", mdps, "evaluate", lambda mdp, e: replace(e, error=e.error * 1e-3)),
    "optimum": ("mdps", optimum, "certified", lambda mdp, e: evaluate(mdp, np.roll(e.policy, 1, axis=1))),
    "claim": ("claims", updates, "pmd_mean_update", short_of),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_target_reports_a_defect(defect, monkeypatch):
    """A problem fails with the defect that passes without it."""
    target, module, name, change = DEFECTS[defect]
    good = [[1, index] for index in range(100) if _harness.attempt(target, [1, index]) is None]
    assert len(good) > 80
    monkeypatch.setattr(module, name, changed(getattr(module, name), change))
    assert any(_harness.attempt(target, seed) for seed in good)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of targets of which most fail, each in its own way."""
    folder = tmp_path / "planted"
    folder.mkdir()
    (folder / "__init__.py").touch()
    bodies = {
        "good": "rng.random()",
        "wrong": "assert rng.random() < 0, 'as planted'",
        "warns": "numpy.float64(0) / numpy.float64(0)",
        "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
        "hang": "[None for _ in iter(int, 1)]",
        "_helper": "raise NotImplementedError",
    }
    for name, body in bodies.items():
        (folder / f"{name}.py").write_text(f"import os, signal\nimport numpy\n\n\ndef check(rng):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "planted"
    for name in [name for name in sys.modules if name.split(".")[0] == "planted"]:
        del sys.modules[name]


def test_crash_hang_warning_and_assertion_are_recorded(package, tmp_path):
    """Every way to fail is a line of the file, named by its target, and the good target goes on."""
    names, path, lines = _harness.targets(package), tmp_path / "found.jsonl", []
    assert names == ["crash", "good", "hang", "warns", "wrong"]
    tried, failed = _harness.run(
        names, np.inf, 7, 2, most=40, cpu_seconds=1, package=package, path=path, say=lines.append
    )
    assert tried.total() >= 40 and tried["good"] > 0 and failed["good"] == 0
    assert all(tried[name] == failed[name] > 0 for name in names if name != "good")
    messages = {failure["target"]: failure["message"] for failure in _harness.recorded(path)}
    assert set(messages) == set(names) - {"good"}
    assert messages["wrong"] == "AssertionError at wrong.py:6: as planted"
    assert messages["warns"].startswith("RuntimeWarning at warns.py:6")
    assert "exit code -11" in messages["crash"] and "1 s of processor time" in messages["hang"]
    assert len(lines) == 1 + len(_harness.recorded(path)) <= _harness.KEPT_PER_PLACE * 4
    assert all(failure["seed"][0] == 7 for failure in _harness.recorded(path))


def test_a_record_is_not_repeated(tmp_path):
    path = tmp_path / "found.jsonl"
    first = {"target": "updates", "seed": [1, 2], "message": "λ < 0"}
    for failure in (first, first | {"message": "again"}, first | {"seed": [1, 3]}):
        _harness.record(failure, path)
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == [[1, 2], [1, 3]]
    assert _harness.recorded(path)[0] == first and list(tmp_path.iterdir()) == [path]


def command(*words):
    return [sys.executable, "-m", "tests.fuzz", "--targets", "baselines", "--jobs", "1", *words]


def test_command_line():
    """The last line has problems, failures and the seed; what is unknown is refused."""
    options = {"cwd": Path(__file__).parent.parent, "capture_output": True, "text": True}
    run = subprocess.run(command("--minutes", "0.1", "--seed", "3"), **options)
    assert run.returncode == 0 and run.stdout.splitlines()[-1].endswith(" problems, 0 failures, seed 3"), run
    run = subprocess.run(command("--targets", "nonsense"), **options)
    assert run.returncode == 2 and "not nonsense" in run.stderr


def test_interrupt_ends_with_the_last_line():
    words, root = command("--seed", "3", "--minutes", "60"), Path(__file__).parent.parent
    with subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline().startswith("trying baselines from seed 3")
        run.send_signal(signal.SIGINT)
        *_, last = run.stdout
    assert run.returncode == 0 and last.endswith(" problems, 0 failures, seed 3\n")
