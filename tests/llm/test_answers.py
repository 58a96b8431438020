"""Answers read from completions: known forms, equality by value, hostile text, and a checker that breaks."""

import random
import re
import resource
import subprocess
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmdllm.tasks import answers
from pmdllm.tasks.checker import Checker

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
    verdict = answers.exact([text], [str(answer)])
    assert verdict.correct[0] == (text.split("=")[-1] == str(answer))
    assert verdict.parsed[0] or not verdict.correct[0]


def test_exact_counts_what_is_no_answer():
    texts = ["12", "1+2=3=12", "=12=", "= 12", "=-12", "=012", "=１２", "=12\n", "", "1+2"]
    verdict = answers.exact(texts, ["12"] * len(texts))
    assert verdict.correct.tolist() == [True, True] + [False] * 8
    assert verdict.parsed.tolist() == [True, True, False, False, False, True, False, False, False, False]
    assert verdict.answers == ["12", "12", None, None, None, "012", None, None, None, None]


def test_exact_with_another_form():
    verdict = answers.exact(["Answer: B", "Answer: E"], ["B", "B"], separator=": ", pattern="[A-D]")
    assert verdict.correct.tolist() == [True, False] and verdict.answers == ["B", None]


@pytest.mark.parametrize("check", [answers.exact, answers.math])
def test_lists_of_unequal_length_are_refused(check):
    with pytest.raises(ValueError, match="answers must have one entry per completion, got 2 for 1"):
        check(["1"], ["1", "2"])


def test_an_impossible_right_answer_is_refused():
    with pytest.raises(ValueError, match="answers must match"):
        answers.exact(["5"], ["5.0"])


@pytest.mark.parametrize("check", [answers.exact, answers.math])
def test_no_completions(check):
    verdict = check([], [])
    assert verdict.correct.shape == verdict.parsed.shape == (0,) and verdict.correct.dtype == bool


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{a}", "a"),
        (r"\boxed {a}", "a"),
        (r"\fbox{a}", "a"),
        (r"\boxed{\frac{1}{2}}, so \boxed{\sqrt{3}}.", r"\sqrt{3}"),
        (r"$\boxed{3}$, $\boxed{5}$, and $\boxed{7}$.", "3, 5, 7"),
        (r"\boxed{3} \boxed{5}", "5"),
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
    assert answers.last_boxed(text) == inside


RIGHT = [  # a completion, the right answer, the vote
    (r"Thus \boxed{42}.", "42", "42"),
    ("3 + 4 = 7, times 6.\n#### 42", "42", "42"),
    ("#### $1,234.00", "1234", "1234"),
    ("#### Step 1: 5\nso \\boxed{42}", "42", "42"),
    ("#### 42\nI hope this helps 2 people.", "42", "42"),
    ("The answer is 42.", "42", "42"),
    ("So.\nAnswer: $42$", "42", "42"),
    ("They need 2 2/3 cups", "8/3", "8/3"),
    ("it costs $15.50.", "15.5", "15.5"),
    ("x = 5-3 = 2", "2", "2"),
    ("total=7", "7", "7"),
    (r"\boxed{7}, no, \boxed{42}", "42", "42"),
    (r"\boxed{x = 42}", "42", "42"),
    (r"\boxed{2+3=5}", "5", "5"),
    (r"\boxed{\{2, 1\}}", r"\{1, 2\}", "{1, 2}"),
    (r"\boxed{1 + x}", "x+1", "x+1"),
    (r"\boxed{\text{Friday}}", "Friday", "friday"),
    (r"\boxed{yes}", r"\text{Yes}", "yes"),
    (r"\boxed{10\%}", r"10\%", "10"),
    (r"\boxed{28}", r"28\%", "28"),
    (r"\boxed{0.28}", r"28\%", "28"),
    (r"\boxed{2 2/3}", "8/3", "8/3"),
    (r"\boxed{8/3}", "2 2/3", "8/3"),
    (r"\boxed{2\frac{2}{3}}", "8/3", "8/3"),
    (r"\boxed{10\,080}", "10080", "10080"),
    (r"\boxed{1000}", r"1\,000", "1000"),
    (r"\boxed{1{,}000}", "1,000", "1000"),
    (r"\boxed{0.333333}", "1/3", "1/3"),
    (r"\boxed{1/3}", r"0.\overline{3}", "1/3"),
    (r"\boxed{0.666666}", r"\frac{2}{3}", "2/3"),
    (r"\boxed{1.41421}", r"\sqrt{2}", r"\sqrt{2}"),
    (r"\boxed{0.30000000000000004}", "0.3", "0.3"),
    (r"\boxed{3}, \boxed{5}, \boxed{7}", "3, 5, 7", "{3, 5, 7}"),
    (r"$\boxed{3}$ and $\boxed{5}$", "5, 3", "{3, 5}"),
    (r"\boxed{2516_{8}}", "2516_8", "2516_8"),
    (r"\boxed{42.}", "42", "42"),
    (r"\boxed{{42,}}", "42", "42"),
    (r"\boxed{{**42**}}", "42", "42"),
    (r"\boxed{1e3}", "1000", "1000"),
    (r"\boxed{1.5 \times 10^{-3}}", "0.0015", "0.0015"),
    (r"\boxed{E: some text}", "E", "E"),
    (r"\boxed{\textbf{(C)}\ 12}", "C", "C"),
    (r"\boxed{\textbf{(C)}\ 12}", "12", "12"),
    (r"\boxed{12:00}", "12:00", "12:00"),
    (r"\boxed{5}", "5.", "5"),
    (r"\boxed{5\text{ cm}}", "5", "5"),
    (r"\boxed{5}", r"5\text{ cm}", "5"),
    (r"\boxed{5 m}", "5", "5"),
    (r"\boxed{5 m}", "5 m", "5 m"),
    (r"\boxed{(5,3)}", "x=5,y=3", "(5, 3)"),
    (r"\boxed{x = 5, \quad y = 3}", "(5, 3)", "(5, 3)"),
    (r"\boxed{y = 3 and x = 5}", "x=5, y=3", "(5, 3)"),
    (r"\boxed{r=5,\theta=\pi}", r"(5,\pi)", r"(5,\pi)"),
    (r"\boxed{90^\circ}", "90", "90"),
    (r"<think> \boxed{5}</think> so 6", "6", "6"),
    (r"\boxed{(x+1)^2}", "x^2+2x+1", "x^2+2x+1"),
    (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", r"2\sqrt{2}"),
    (r"\boxed{y=2x+1}", "2x+1", "2x+1"),
    (r"\boxed{x^2+y^2=1}", "y^2+x^2 = 1", "y^2+x^2 = 1"),
    (r"\boxed{x \le 5}", r"5 \ge x", r"5 \ge x"),
    (r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", None),
    (r"\boxed{\pm 3}", "3, -3", "{-3, 3}"),
    (r"\boxed{100,200,300}", "100, 200, 300", "{100, 200, 300}"),
    (r"\boxed{7}, \boxed{7}", "7", "7"),
    (r"\boxed{\boxed{7}}", "7", "7"),
    (r"\boxed{12\,\text{m/s}}", "12", "12"),
    (r"\boxed{x\in[1,2]}", "[1,2]", "[1, 2]"),
    (r"\boxed{\emptyset}", r"\varnothing", None),
    ("Answer: B) because", "B", "B"),
]
WRONG = [
    (r"\boxed{41}", "42", "41"),
    (r"\boxed{4}2", "42", "4"),
    (r"\boxed{(1, 2)}", "(2, 1)", "(1, 2)"),
    (r"\boxed{4/3}", "2 2/3", "4/3"),
    (r"\boxed{0}", r"1\,000", "0"),
    (r"\boxed{0.0000001}", "0.0000002", "0.0000001"),
    (r"\boxed{1/2^99}", "1/2^98", None),
    (r"\boxed{0.333}", "1/3", "0.333"),
    (r"\boxed{0.500001}", "1/2", "0.500001"),
    (r"\boxed{1000001}", "1000000", "1000001"),
    (r"\boxed{1.414}", r"\sqrt{2}", "1.414"),
    (r"\boxed{3}, \boxed{5}, \boxed{7}", "7", "{3, 5, 7}"),
    (r"\boxed{2516_9}", "2516_8", "2516_9"),
    (r"\boxed{\text{not } 0}", "0", None),
    (r"\boxed{5\text{ m}}", r"5\text{ cm}", "5"),
    (r"\boxed{5 m}", "5 cm", "5 m"),
    (r"\boxed{5 cm}", "5 m", "5"),
    (r"\boxed{5 g}", "5 kg", "5 g"),
    (r"\boxed{(3,5)}", "x=5,y=3", "(3, 5)"),
    (r"\boxed{a=5,b=3}", "x=5,y=3", "(5, 3)"),
    (r"\boxed{(0,\infty)}", r"[0, \infty)", None),
    (r"\boxed{x}", "X", None),
    (r"\boxed{x=2x+1}", "y = 1+2x", "2x+1"),
    (r"\boxed{5 thousand}", "5", None),
    (r"<think> \boxed{6}</think> so 5", "6", "5"),
]
UNREAD = [
    ("I do not know", "42"),
    (r"\boxed{2 = 1}", "1"),
    (r"\boxed{\neg 1}", "1"),
    (r"<think> so it is \boxed{5}", "5"),
    (r"\boxed{5}</think> hm <think>", "5"),
    ("the answer is 9**9**9**9", "9"),
]


@pytest.mark.parametrize(("cases", "correct"), [(RIGHT, True), (WRONG, False)], ids=["right", "wrong"])
def test_free_text(cases, correct):
    texts, right, votes = zip(*cases)
    verdict = answers.math(texts, right)
    assert [case for case, got in zip(cases, verdict.correct) if got != correct] == []
    read = [(text, got, vote) for text, got, vote in zip(texts, verdict.answers, votes) if vote and got != vote]
    assert read == []


def test_what_cannot_be_read_is_wrong_and_counted():
    verdict = answers.math(*zip(*UNREAD))
    assert not verdict.correct.any() and not verdict.parsed.any() and verdict.answers == [None] * len(UNREAD)


def test_comparison_is_symmetric_and_reflexive():
    texts, right, _ = zip(*RIGHT, *WRONG)
    inner = [answers.last_boxed(text) or text for text in texts]
    pairs = [(a, b) for a, b in zip(inner, right) if not any(mark in a for mark in ("think", "#", "boxed"))]
    forth = answers.math([rf"\boxed{{{a}}}" for a, _ in pairs], [b for _, b in pairs]).correct
    back = answers.math([rf"\boxed{{{b}}}" for _, b in pairs], [a for a, _ in pairs]).correct
    assert [pair for pair, x, y in zip(pairs, forth, back) if x != y] == []
    assert answers.math([rf"\boxed{{{b}}}" for _, b in pairs], [b for _, b in pairs]).correct.all()


def test_equivalent_answers_are_one_vote():
    """Wrong ones by their canonical form, right ones because they are right."""
    groups = [
        [r"\{1/2,1\}", r"\{1, 0.5\}", r"\{\frac{1}{2},1\}"],
        [r"28\%", "28", r"28\text{ cm}"],
        ["(x+1)^2", "x^2+2x+1", "1 + 2x + x^2"],
        [r"\sqrt{8}", r"2\sqrt{2}"],
        ["1,000", r"1\,000", "1e3", r"10^{3}"],
        ["Yes", "yes", r"\text{yes}"],
    ]
    for group in groups:
        votes = answers.math([rf"\boxed{{{text}}}" for text in group], ["17"] * len(group)).answers
        assert len(set(votes)) == 1 and votes[0], (group, votes)
    assert len(set(answers.math([r"\boxed{1/3}", r"\boxed{0.333333}"], ["1/3"] * 2).answers)) == 1


def test_what_follows_a_stop_text_is_not_judged():
    text = "It is \\boxed{4}.\nQuestion: 5+5?\nIt is \\boxed{10}."
    assert answers.math([text] * 2, ["4", "10"], stop=("\nQuestion:",)).correct.tolist() == [True, False]
    assert answers.math([text], ["10"]).correct.all()


def test_fractions_are_compared_by_value():
    """Against rational arithmetic, for pairs in different notations; equal numbers are one vote."""
    rng = random.Random(0)
    pairs = [(Fraction(rng.randint(-9, 9), 4), Fraction(rng.randint(-9, 9), 4)) for _ in range(60)]
    texts = [rf"\boxed{{\frac{{{3 * a.numerator}}}{{{3 * a.denominator}}}}}" for a, _ in pairs]
    verdict = answers.math(texts, [str(float(b)) for _, b in pairs])
    assert verdict.correct.tolist() == [a == b for a, b in pairs]
    assert [Fraction(x) for x in verdict.answers] == [a for a, _ in pairs]


def test_hostile_text_is_wrong_and_in_time():
    """Processor time of the killed workers: for each at most the limit and what it takes to start one."""
    spent = [resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime]
    verdict = answers.math(list(HOSTILE.values()), ["7"] * len(HOSTILE), seconds=0.3)
    spent.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
    assert spent[1] - spent[0] < 5 * len(HOSTILE)
    assert not verdict.correct.any()
    assert verdict.parsed.tolist() == [found is not None for found in verdict.answers]
    assert not verdict.parsed.any(), [name for name, parsed in zip(HOSTILE, verdict.parsed) if parsed]


def test_text_is_never_run(tmp_path):
    touch = f"__import__('pathlib').Path('{tmp_path}/ran').touch()"
    texts = [touch, rf"\boxed{{{touch}}}", f"${touch}$", f"#### {touch} 1"]
    assert not answers.math(texts, ["7"] * 4).correct.any()
    assert not (tmp_path / "ran").exists()


def test_the_next_completion_after_a_killed_one_is_read():
    texts = [r"\boxed{9^{9^{9^9}}}", r"\boxed{5}"] * 2
    verdict = answers.math(texts, ["5"] * 4, seconds=0.3)
    assert verdict.correct.tolist() == verdict.parsed.tolist() == [False, True] * 2


def test_from_other_threads_at_once():
    found = {}

    def check(i):
        found[i] = answers.math([rf"\boxed{{{j}}}" for j in range(20)], [str(i)] * 20).correct

    threads = [threading.Thread(target=check, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.flatnonzero(found[i]).tolist() == [i] for i in range(4))


def test_from_a_script_without_a_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pmdllm.tasks import answers\nprint(answers.math([r'\\boxed{\\sqrt{25}}'], ['5']).correct)\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert run.stdout == "[ True]\n" and run.stderr == ""


def test_right_answers_that_are_not_read_as_they_are_meant_are_told_apart():
    trusted = [
        "42",
        "-0.5",
        r"1\,000",
        "2 2/3",
        "12:00",
        r"0.\overline{3}",
        "5.",
        "2516_8",
        r"\text{not } 0",
        "C",
        "Friday",
        r"2\sqrt{3}",
        "x^2+1",
        "y = 2x",
        r"[0, \infty)",
        r"\frac{\pi}{4}",
        r"x \le 5",
        "3, 5, 7",
        "(1, x)",
        "xy",
    ]
    untrusted = ["", r"\frac{", "$$$", r"\neg 1", "2 = 1", r"\frac{1}{0", "1 + because x", "9" * 2000, "\\boxed{3"]
    untrusted += ["1.5.2", "1e999999999"]  # no product of 1.5 and .2, none of e and a number
    problems = answers.untrusted(trusted + untrusted)
    assert sorted(problems) == sorted(untrusted)


def test_an_answer_of_which_a_part_is_ignored_is_not_trusted(monkeypatch):
    """`\\mathbb{Z}_7` would do if Math-Verify dropped the 7; here it is made to drop all numbers but the first."""
    from pmdllm.tasks import latex

    monkeypatch.setattr(latex, "_meaning", lambda text: [re.sub(r"(\d\D+)\d+", r"\1", text)])
    monkeypatch.setattr(latex, "_equal", lambda a, b: a == b)
    assert latex.survives("3x + 5") == "a part of it is not read"


def test_plain_right_answers_need_no_process():
    """A hundred thousand of them are checked by one question to the worker."""
    asked = []
    original = Checker.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checker, "__call__", lambda self, calls: asked.extend(calls) or original(self, calls))
        assert answers.untrusted([str(i) for i in range(100_000)] + ["1/3", "(1, 2)", "7%"]) == {}
    assert len(asked) == 1


def test_time_must_be_positive():
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        answers.math(["5"], ["5"], seconds=0)


@pytest.fixture
def broken(monkeypatch):
    """Replace the worker's program."""

    def use(code):
        checker = Checker("operator:neg")
        checker.command = sys.executable, "-c", code
        monkeypatch.setattr(answers, "_checker", lambda seconds: checker)

    return use


def test_a_checker_that_dies_is_an_error(broken):
    broken("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="died twice with status 3"):
        answers.math([r"\boxed{\sqrt{25}}"], ["5"])
    with pytest.raises(RuntimeError, match="died twice with status 3"):
        answers.untrusted(["5"])


def test_a_checker_that_dies_in_the_middle_is_an_error(broken, tmp_path):
    """One answer is given, then the process is gone and cannot start again."""
    broken(
        f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch(exist_ok=False); input();"
        "print('[[true, \"5\"], null]', flush=True)"
    )
    with pytest.raises(RuntimeError, match="died twice with status 1"):
        answers.math([rf"\boxed{{\sqrt{{{i}}}}}" for i in range(9)], ["5"] * 9)


def test_a_checker_that_rejects_everything_is_an_error_before_anything_is_judged(broken):
    broken("while input(): print('[[false, null], null]', flush=True)")
    with pytest.raises(RuntimeError, match="reinstall math-verify"):
        answers.untrusted(["5"])


def test_a_checker_that_fails_is_an_error_before_anything_is_judged(broken):
    broken("while input(): print('[null, \"TypeError: new version\"]', flush=True)")
    with pytest.raises(RuntimeError, match=r"TypeError: new version.*reinstall math-verify"):
        answers.untrusted(["5"])


def test_a_missing_package_is_named(monkeypatch):
    answers._checker.cache_clear()
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ImportError, match="pip install math-verify"):
        answers.untrusted(["5"])
