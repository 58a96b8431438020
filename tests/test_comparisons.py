"""Tests of two methods against an enumeration of all divisions, Holm's steps one by one, a loop over pairs."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from pmdtheory.comparisons import Difference, holm, improvement, permutation, rank_test, signs, student_test
from pmdtheory.intervals import interquartile_mean, mean_interval


def enumerated(scores, size):
    """Doubled smaller tail over every way to divide the scores."""
    sums = np.array([scores[list(some)].sum() for some in combinations(range(len(scores)), size)])
    mine = scores[:size].sum()
    return min(1.0, 2 * min(np.mean(sums <= mine + 1e-9), np.mean(sums >= mine - 1e-9)))


@pytest.mark.parametrize("sizes", [(3, 4), (5, 5)])
def test_rank_test_against_all_divisions(sizes):
    """Ties and infinite values among them."""
    rng = np.random.default_rng(3)
    for _ in range(10):
        values = rng.integers(6, size=sum(sizes)).astype(float)
        values[values == 5] = math.inf
        ranks = pd.Series(values).rank().to_numpy()
        found = rank_test(values[: sizes[0]], values[sizes[0] :])
        assert found.pvalue == pytest.approx(enumerated(ranks, sizes[0]))
        assert found.sign == np.sign(round(ranks[: sizes[0]].mean() - ranks[sizes[0] :].mean(), 9))


def test_nothing_against_something_is_no_difference():
    assert rank_test([], [1.0]) == permutation([1.0], []) == rank_test([3.0], [1.0, 2.0]) == Difference(0, 1.0)


def test_twelve_seeds_are_divided_at_random_and_always_alike():
    """Against the normal approximation of the rank sum, which is good at twelve against twelve."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=12), 0.9 + rng.normal(size=12)
    found = rank_test(first, second)
    ranks = pd.Series([*first, *second]).rank()[:12].sum()
    z = (abs(ranks - 150) - 0.5) / math.sqrt(300)
    assert found.pvalue == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.25)
    assert found == rank_test(first, second) and found.sign == -1


def test_student_test_against_scipys_own_of_the_values():
    values = np.random.default_rng(7).normal(0.3, 1, size=9)
    found = student_test(*mean_interval(values)[:2], 9)
    assert found.pvalue == pytest.approx(ttest_1samp(values, 0).pvalue, abs=1e-10) and found.sign == 1
    assert student_test(0.3, math.nan, 1) == student_test(0.0, 0.0, 5) == Difference(0, 1.0)
    assert student_test(0.3, 0.0, 5) == Difference(1, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_his_steps_reject(pvalues, level):
    """The smallest against level/k, the next against level/(k − 1), and so on until the first that is not below."""
    rejected, left = set(), len(pvalues)
    for i in sorted(range(len(pvalues)), key=lambda i: pvalues[i]):
        if not pvalues[i] * left < level:
            break
        rejected.add(i)
        left -= 1
    assert {i for i, p in enumerate(holm(pvalues)) if p < level} == rejected


def test_signs_are_of_what_is_left_after_correction():
    first = Difference(1, 0.02)
    assert signs([first]) == [1] and signs([first, Difference(-1, 0.03)]) == [1, -1]
    assert signs([Difference(1, 0.03), Difference(-1, 0.03)]) == [0, 0]
    assert signs([first, Difference(-1, 0.001)]) == [1, -1] and signs([]) == []


def test_of_six_true_hypotheses_one_is_rejected_at_most_as_often_as_the_level_says():
    rng = np.random.default_rng(2)
    wrong = [any(signs([Difference(1, p) for p in rng.uniform(size=6)])) for _ in range(4000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.01)


def test_improvement_against_all_pairs():
    """A mean over settings of pairs won, ties half; above one half if and only if ranks are."""
    rng = np.random.default_rng(6)
    ours, theirs = ([rng.integers(5, size=m).astype(float) for m in sizes] for sizes in ((4, 5), (3, 6)))
    shares = [np.mean([(x > y) + (x == y) / 2 for x in a for y in b]) for a, b in zip(ours, theirs)]
    found = improvement(ours, theirs)
    assert found.value == pytest.approx(np.mean(shares)) and found.low <= found.value <= found.high
    back = improvement(theirs, ours)
    mirrored = [1 - found.value, 1 - found.high, 1 - found.low]
    assert [back.value, back.low, back.high] == pytest.approx(mirrored, abs=0.02)
    alone = improvement(ours[:1], theirs[:1]).value - 0.5
    assert np.sign(alone) == rank_test(ours[0], theirs[0]).sign


def test_improvement_is_certain_where_all_runs_are_above_and_infinite_values_tie():
    assert list(improvement([[3.0, 4.0]], [[1.0, 2.0]])) == [1.0, 1.0, 1.0]
    assert improvement([[math.inf, 1.0]], [[math.inf, math.inf]]).value == 0.25


def test_a_missing_value_decides_nothing():
    """Tests name the argument that has it; an estimate that it has a part in is NaN."""
    whole, lacking = [0.1, 0.2, 0.3], [0.9, math.nan, 0.8]
    for test in (rank_test, permutation):
        for pair, name in (((whole, lacking), "second"), ((lacking, whole), "first")):
            with pytest.raises(ValueError, match=f"^{name} must be without NaN, got 1 of 3: leave out"):
                test(*pair)
    with pytest.raises(ValueError, match=r"^pvalues must be without NaN, got 1 of 2"):
        holm([0.01, math.nan])
    with pytest.raises(ValueError, match=r"^mean must be without NaN, got 1 of 1"):
        student_test(math.nan, 0.1, 5)
    with pytest.raises(ValueError, match=r"^half_width must be nonnegative, or NaN for no interval, got -0.1"):
        student_test(0.2, -0.1, 5)
    for pair in (([lacking], [whole]), ([whole], [lacking]), ([whole, lacking], [whole, whole])):
        assert all(math.isnan(number) for number in improvement(*pair))
        assert all(math.isnan(number) for number in interquartile_mean([*pair[0], *pair[1]]))
