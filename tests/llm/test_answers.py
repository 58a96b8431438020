"""Answers read from completions: known forms, equality by value, hostile text, and a checker that breaks."""

import random
import resource
import subprocess
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmdllm.tasks import answers as rewards

HOSTILE = {
    "tower of powers": r"\boxed{9^{9^{9^9}}}",
    "tower in dollars": "$9^{9^{9^9}}$",
    "tower in plain text": "the answer is 9**9**9**9",
    "factorial": r"\boxed{(10^{10})!}",
    "a megabyte of digits": "1" * 1_000_000,
    "a megabyte of boxes": r"\boxed{" * 150_000,
    "a megabyte of parentheses": "(" * 1_000_000,
    "dollars": "$" * 100_001,
    "nested braces": r"\boxed{" + "{" * 3000 + "1" + "}" * 3000 + "}",
    "nested parentheses": r"\boxed{" + "(" * 3000 + "1" + ")" * 3000 + "}",
    "nested fractions": r"\frac{" * 2000 + "1",
    "null bytes": "\0" * 1000,
    "half a surrogate pair": "\ud800",
    "newlines": "\n" * 100_000,
    "nothing": "",
    "an unclosed box": r"\boxed{7",
}


@given(st.text(alphabet="=0123456789 +-\n", max_size=20), st.integers(0, 99))
def test_exact_is_string_equality_after_the_last_separator(text, answer):
    verdict = rewards.exact([text], [str(answer)])
    assert verdict.correct[0] == (text.split("=")[-1] == str(answer))
    assert verdict.parsed[0] or not verdict.correct[0]


def test_exact_counts_what_is_no_answer():
    texts = ["12", "1+2=3=12", "=12=", "= 12", "=-12", "=012", "=１２", "=12\n", "", "1+2"]
    verdict = rewards.exact(texts, ["12"] * len(texts))
    assert verdict.correct.tolist() == [True, True] + [False] * 8
    assert verdict.parsed.tolist() == [True, True, False, False, False, True, False, False, False, False]
    assert verdict.answers == ["12", "12", None, None, None, "012", None, None, None, None]


def test_exact_with_another_form():
    verdict = rewards.exact(["Answer: B", "Answer: E"], ["B", "B"], separator=": ", pattern="[A-D]")
    assert verdict.correct.tolist() == [True, False] and verdict.answers == ["B", None]


@pytest.mark.parametrize("check", [rewards.exact, rewards.math])
def test_lists_of_unequal_length_are_refused(check):
    with pytest.raises(ValueError, match="answers must have one entry per completion, got 2 for 1"):
        check(["1"], ["1", "2"])


def test_an_impossible_right_answer_is_refused():
    with pytest.raises(ValueError, match="answers must match"):
        rewards.exact(["5"], ["5.0"])


@pytest.mark.parametrize("check", [rewards.exact, rewards.math])
def test_no_completions(check):
    verdict = check([], [])
    assert verdict.correct.shape == verdict.parsed.shape == (0,) and verdict.correct.dtype == bool


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{a}", "a"),
        (r"\boxed {a}", "a"),
        (r"\fbox{a}", "a"),
        (r"\boxed{\frac{1}{2}} and \boxed{\sqrt{3}}.", r"\sqrt{3}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"} \boxed{1}}}", "1"),
        (r"{{{ \boxed{1}", "1"),
        (r"\boxed{\boxed{1}}", r"\boxed{1}"),
        (r"\boxed{}", ""),
        (r"\boxed 5", None),
        ("nothing", None),
    ],
)
def test_last_boxed(text, inside):
    assert rewards.last_boxed(text) == inside


def test_free_text():
    cases = [
        (r"Thus \boxed{42}.", "42", True, "42"),
        ("3 + 4 = 7, times 6.\n#### 42", "42", True, "42"),
        ("#### $1,234.00", "1234", True, "1234"),
        ("#### Step 1: 5\nso \\boxed{42}", "42", True, "42"),
        ("#### 42\nI hope this helps 2 people.", "42", True, "42"),
        ("The answer is 42.", "42", True, "42"),
        ("Answer: 42", "42", True, "42"),
        (r"\boxed{7}, no, \boxed{42}", "42", True, "42"),
        (r"\boxed{x = 42}", "42", True, "42"),
        (r"\boxed{41}", "42", False, "41"),
        (r"\boxed{4}2", "42", False, "4"),
        (r"\boxed{\{2, 1\}}", r"\{1, 2\}", True, "{1, 2}"),
        (r"\boxed{1 + x}", "x+1", True, "x + 1"),
        (r"\boxed{(1, 2)}", "(2, 1)", False, None),
        (r"\boxed{\text{Friday}}", r"\text{Friday}", True, "friday"),
        (r"\boxed{10\%}", r"10\%", True, "0.1"),
        ("I do not know", "42", False, None),
    ]
    texts, answers, correct, found = zip(*cases)
    verdict = rewards.math(texts, answers)
    assert verdict.correct.tolist() == list(correct)
    for got, wanted, text in zip(verdict.answers, found, texts):
        assert wanted in (got, None), text
    assert verdict.parsed.tolist() == [True] * 16 + [False]
    assert verdict.answers[-1] is None


def test_fractions_are_compared_by_value():
    """Against rational arithmetic, for pairs in different notations; equal numbers are one vote."""
    rng = random.Random(0)
    pairs = [(Fraction(rng.randint(-9, 9), 4), Fraction(rng.randint(-9, 9), 4)) for _ in range(60)]
    texts = [rf"\boxed{{\frac{{{3 * a.numerator}}}{{{3 * a.denominator}}}}}" for a, _ in pairs]
    verdict = rewards.math(texts, [str(float(b)) for _, b in pairs])
    assert verdict.correct.tolist() == [a == b for a, b in pairs]
    assert [Fraction(x) for x in verdict.answers] == [a for a, _ in pairs]


def test_hostile_text_is_wrong_and_in_time():
    """Processor time of the killed workers: for each at most the limit and what it takes to start one."""
    spent = [resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime]
    verdict = rewards.math(list(HOSTILE.values()), ["7"] * len(HOSTILE), seconds=0.3)
    spent.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
    assert spent[1] - spent[0] < 5 * len(HOSTILE)
    assert not verdict.correct.any()
    assert verdict.parsed.tolist() == [found is not None for found in verdict.answers]
    assert not verdict.parsed.any(), [name for name, parsed in zip(HOSTILE, verdict.parsed) if parsed]


def test_text_is_never_run(tmp_path):
    touch = f"__import__('pathlib').Path('{tmp_path}/ran').touch()"
    texts = [touch, rf"\boxed{{{touch}}}", f"${touch}$", f"#### {touch} 1"]
    assert not rewards.math(texts, ["7"] * 4).correct.any()
    assert not (tmp_path / "ran").exists()


def test_the_next_completion_after_a_killed_one_is_read():
    texts = [r"\boxed{9^{9^{9^9}}}", r"\boxed{5}"] * 2
    verdict = rewards.math(texts, ["5"] * 4, seconds=0.3)
    assert verdict.correct.tolist() == verdict.parsed.tolist() == [False, True] * 2


def test_from_other_threads_at_once():
    found = {}

    def check(i):
        found[i] = rewards.math([rf"\boxed{{{j}}}" for j in range(20)], [str(i)] * 20).correct

    threads = [threading.Thread(target=check, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.flatnonzero(found[i]).tolist() == [i] for i in range(4))


def test_from_a_script_without_a_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from pmdllm.tasks import answers as rewards\nprint(rewards.math(['= 5'], ['5']).correct)\n")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert run.stdout == "[ True]\n" and run.stderr == ""


@pytest.mark.parametrize("answer", ["", r"\frac{", "$$$"])
def test_an_unreadable_right_answer_is_an_error(answer):
    with pytest.raises(ValueError, match="correct or drop that problem"):
        rewards.math(["5"], [answer])


def test_time_must_be_positive():
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        rewards.math(["5"], ["5"], seconds=0)


@pytest.fixture
def broken(monkeypatch):
    """Replace the worker's program, and forget the workers and answers of other tests."""

    def use(code):
        monkeypatch.setattr(rewards, "COMMAND", [sys.executable, "-c", code])
        monkeypatch.setattr(rewards, "_proven", set())
        rewards._workers.cache_clear()

    yield use
    rewards._workers.cache_clear()


def test_a_checker_that_dies_is_an_error(broken):
    broken("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="died twice with status 3"):
        rewards.math(["5"], ["5"])


def test_a_checker_that_dies_in_the_middle_is_an_error(broken, tmp_path):
    """The right answer is checked, then the process is gone and cannot start again."""
    broken(
        f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch(exist_ok=False); input();"
        "print('[true, \"5\", null]', flush=True)"
    )
    with pytest.raises(RuntimeError, match="died twice with status 1"):
        rewards.math(["5"] * 9, ["5"] * 9)


def test_a_checker_that_rejects_everything_is_an_error(broken):
    broken("while input(): print('[false, null, \"TypeError: new version\"]', flush=True)")
    with pytest.raises(ValueError, match=r"TypeError: new version.*reinstall math-verify"):
        rewards.math(["5"], ["5"])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ImportError, match="pip install math-verify"):
        rewards.math(["5"], ["5"])
