"""Accuracies against exact enumeration: all subsets of samples, all orders of tied answers."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pmdllm import models
from pmdllm.evaluate import avg_at_k, evaluate, maj_at_k, pass_at_k
from pmdllm.tasks import Pool, Problem, Verdict, load

verdicts = npst.arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 6)))


def over_subsets(row, k):
    """The largest of k rewards, averaged over all ways to choose them."""
    return np.mean([max(chosen) for chosen in itertools.combinations(row, k)])


@given(correct=verdicts, data=st.data())
@settings(max_examples=60, deadline=None)
def test_pass_at_k_averages_over_all_subsets(correct, data):
    k = data.draw(st.integers(1, correct.shape[1]))
    expected = np.mean([over_subsets(row, k) for row in correct])
    assert pass_at_k(correct, k).value == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("n", [1, 4, 16, 200])
def test_pass_at_k_is_the_formula_of_chen_et_al(n):
    for k in {1, 2, 8, n} & set(range(1, n + 1)):
        for c in {0, 1, n // 2, n - 1, n}:
            expected = 1 - math.comb(n - c, k) / math.comb(n, k)
            assert pass_at_k([[True] * c + [False] * (n - c)], k).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_unbiased(k):
    """Over all outcomes of n = 5 samples of accuracy J the mean is 1 − (1 − J)^k, the law of k samples."""
    n, J = 5, 0.3
    outcomes = np.array(list(itertools.product([0, 1], repeat=n)))
    probability = np.prod(np.where(outcomes, J, 1 - J), axis=1)
    values = [pass_at_k([row], k).value for row in outcomes]
    assert probability @ values == pytest.approx(1 - (1 - J) ** k, rel=1e-12)


def elected(answers, correct):
    """Accuracy of the vote, averaged over all orders of preference among the answers that settle ties."""
    candidates = sorted({answer for answer in answers if answer is not None})
    if not candidates:
        return np.mean(correct)
    results = []
    for order in itertools.permutations(candidates):
        winner = max(order, key=answers.count)  # the first of the most frequent
        results.append(np.mean([right for answer, right in zip(answers, correct) if answer == winner]))
    return np.mean(results)


votes = st.lists(st.sampled_from(["1", "2", "3", "x", None]), min_size=6, max_size=6)


@given(
    answers=st.lists(votes, min_size=1, max_size=3),
    right=st.sampled_from(["1", "x"]),
)
@settings(max_examples=100, deadline=None)
def test_majority_averages_over_all_orders_of_tied_answers(answers, right):
    correct = [[answer == right for answer in row] for row in answers]
    expected = np.mean([elected(*row) for row in zip(answers, correct)])
    assert maj_at_k(answers, correct).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["7", "7", "3"], 1),
        (["3", "7", "3"], 0),
        (["7", None, None], 1),
        ([None, None, None], 0),
        (["7", "3", None], 1 / 2),
        (["7", "3", "4"], 1 / 3),
        (["7"], 1),
    ],
)
def test_majority_cases(answers, expected):
    correct = [[answer == "7" for answer in answers]]
    assert maj_at_k([answers], correct).value == pytest.approx(expected)


def test_an_answer_judged_both_ways_is_as_correct_as_its_copies():
    assert maj_at_k([["7", "7", "7", "1"]], [[1, 0, 1, 0]]).value == pytest.approx(2 / 3)


def test_intervals_are_students_over_prompts():
    """As many units as prompts: ten times the samples with the same accuracies leave the interval as it is."""
    correct = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1]])
    answers = [["a" if right else f"w{i}" for i, right in enumerate(row)] for row in correct]
    vote = [1, 1 / 4, 1, 0, 1]
    cases = [
        (avg_at_k(correct), correct.mean(axis=1)),
        (avg_at_k(np.repeat(correct, 10, axis=1)), correct.mean(axis=1)),
        (pass_at_k(correct, 3), [over_subsets(row, 3) for row in correct]),
        (maj_at_k(answers, correct), vote),
    ]
    for estimate, values in cases:
        interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        expected = (interval.low + interval.high) / 2, (interval.high - interval.low) / 2
        assert estimate == pytest.approx(expected, rel=1e-12)


def test_a_single_prompt_has_a_value_and_no_interval():
    estimate = avg_at_k([[1, 0, 1, 1]])
    assert estimate.value == 0.75 and math.isnan(estimate.half_width)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: avg_at_k([1, 0]), r"rewards must have shape \(P, n\).*got \(2,\)"),
        (lambda: avg_at_k(np.zeros((0, 3))), r"both at least 1, got \(0, 3\)"),
        (lambda: avg_at_k([[1, math.nan]]), "rewards must be finite, got nan"),
        (lambda: pass_at_k([[1, 0]], 3), "k must be an integer from 1 to the number of samples, 2, got 3"),
        (lambda: pass_at_k([[1, 0]], 0), "k must be .* got 0"),
        (lambda: pass_at_k([[1, 0]], 1.0), "k must be .* got 1.0"),
        (lambda: pass_at_k([[1, 0.5]], 1), "correct must be True or False, 1 or 0, got 0.5"),
        (lambda: maj_at_k([["1", "2"]], [[1]]), r"answers must have the shape of correct, \(1, 1\)"),
        (lambda: maj_at_k([["1"], ["2"]], [[1]]), r"answers must have the shape of correct, \(1, 1\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Kinds(Pool):
    """Problems of two kinds; right is what was asked, for the first kind always, for the second never."""

    def __init__(self):
        test = [Problem(f"{n}+1=", str(n % 3 == 0), kind="ab"[n % 3 > 0]) for n in range(9)]
        self.problems = {"validation": [], "test": test}

    def judge(self, completions, answers):
        return Verdict.of([answer == "True" for answer in answers], completions)


def test_kinds_are_counted_by_themselves():
    tokenizer = models.character_tokenizer(load("arithmetic").alphabet)
    model = models.tiny(tokenizer, hidden_size=16, layers=1, heads=2, max_length=16)
    values = evaluate(model, tokenizer, Kinds(), "test", 9, 2, 4)
    assert {name: values[name] for name in ("avg@2", "a/avg@2", "b/avg@2", "a/greedy", "b/greedy")} == {
        "avg@2": pytest.approx(1 / 3), "a/avg@2": 1, "b/avg@2": 0, "a/greedy": 1, "b/greedy": 0
    }  # fmt: skip
    assert not any("/" in name for name in evaluate(model, tokenizer, Kinds(), "test", 1, 2, 4))
