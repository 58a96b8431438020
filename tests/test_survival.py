"""Censored costs against areas by hand, lifelines' textbook data, SciPy's log-rank statistic and all divisions."""

import math

import numpy as np
import pytest
from scipy.stats import CensoredData, logrank

from pmdtheory.survival import Costs, log_rank_test, restricted_mean
from tests.test_comparisons import enumerated

NEVER = math.nan
MERCAPTOPURINE = Costs(
    np.array([6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35], dtype=float),
    np.array([True] * 9 + [False] * 12),
)
PLACEBO = Costs(
    np.array([1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23], dtype=float), np.full(21, True)
)
"""Weeks in remission (Freireich et al., Blood 21, 1963)."""


def test_without_censoring_before_the_horizon_it_is_the_mean_of_the_smaller():
    """min(T, h) has Student's interval, whoever never gets there."""
    costs = Costs.of([10.0, 20.0, 30.0, NEVER, NEVER], [100.0, 100.0, 100.0, 100.0, 120.0])
    found = restricted_mean(costs, 100.0)
    values = [10.0, 20.0, 30.0, 100.0, 100.0]
    assert found.value == pytest.approx(np.mean(values)) and found.value > 20
    assert found.half_width == pytest.approx(2.7764451052 * np.std(values, ddof=1) / math.sqrt(5))
    assert restricted_mean(costs, 25.0).value == pytest.approx((10 + 20 + 3 * 25) / 5)


def test_area_under_the_textbook_curve():
    """Kaplan and Meier's S of 6-MP, as printed in textbooks, steps down at 6, 7, 10, 13, 16, 22 and 23 weeks."""
    steps = [0, 6, 7, 10, 13, 16, 22, 23, 35]
    levels = [1, 18 / 21, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482]
    area = sum(level * (b - a) for level, a, b in zip(levels, steps, steps[1:]))
    assert restricted_mean(MERCAPTOPURINE, 35.0).value == pytest.approx(area, abs=0.005)


def test_the_interval_of_a_restricted_mean_is_that_of_greenwood_at_many_runs():
    """Var = Σ (area beyond t)² d/(n (n − d)) over the times t."""
    rng = np.random.default_rng(3)
    spent, budget = rng.exponential(size=120), rng.uniform(0.5, 3, size=120)
    costs = Costs(np.minimum(spent, budget), spent <= budget)
    found, variance = restricted_mean(costs, 2.0), 0.0
    for time in np.unique(costs.spent[costs.reached & (costs.spent < 2)]):
        n, d = np.sum(costs.spent >= time), np.sum(costs.reached & (costs.spent == time))
        beyond = found.value - restricted_mean(costs, time).value
        variance += beyond**2 * d / (n * (n - d))
    assert found.half_width == pytest.approx(1.980 * math.sqrt(variance), rel=0.03)
    assert found.value == pytest.approx(np.minimum(spent, 2).mean(), abs=0.05)  # of the costs that nobody sees


def test_one_run_or_none_has_no_interval():
    assert f"{restricted_mean(Costs.of([NEVER], 100.0), 100.0):.0f}" == "100"
    assert math.isnan(restricted_mean(Costs.of([], []), 100.0).value)


def test_scores_sum_to_the_numerator_of_the_log_rank_statistic():
    """SciPy's statistic of the textbook data, and the sign of a permuted test."""
    found = log_rank_test(MERCAPTOPURINE, PLACEBO)
    censored = [CensoredData.right_censored(costs.spent, ~costs.reached) for costs in (MERCAPTOPURINE, PLACEBO)]
    reference = logrank(*censored)
    assert found.sign == 1 and reference.statistic < 0  # fewer events than expected
    assert found.pvalue < 0.002 and reference.pvalue < 0.002


@pytest.mark.parametrize("seed", range(6))
def test_log_rank_test_against_all_divisions(seed):
    """SciPy's log-rank statistic on every division of the runs; its numerator alone varies."""
    rng = np.random.default_rng(seed)
    spent, reached = rng.integers(1, 7, size=8).astype(float), rng.uniform(size=8) < 0.7
    reached[:2] = True
    numerators = []
    for own in range(8):  # one run against the others: its score
        others = np.arange(8) != own
        passed = [time for time in np.unique(spent[reached]) if time <= spent[own]]
        expected = sum(np.sum(reached & (spent == time)) / np.sum(spent >= time) for time in passed)
        numerators.append(expected - reached[own])
        alone, rest = (CensoredData.right_censored(spent[some], ~reached[some]) for some in (~others, others))
        if abs(numerators[own]) > 1e-9:
            assert np.sign(logrank(alone, rest).statistic) == -np.sign(numerators[own])
    found = log_rank_test(Costs(spent[:4], reached[:4]), Costs(spent[4:], reached[4:]))
    scores = np.array(numerators)
    assert found.pvalue == pytest.approx(enumerated(scores, 4))
    assert found.sign == np.sign(round(scores[:4].mean() - scores[4:].mean(), 9))


def test_few_early_runs_are_not_ahead_of_many_late_ones():
    """3 of 5 after 10, the others never, against 5 of 5 after 50 are not told apart; all before all are."""
    some, late = Costs.of([10, 11, 12, NEVER, NEVER], 200), Costs.of([50, 51, 52, 53, 54], 200)
    assert log_rank_test(some, late).pvalue > 0.05
    assert log_rank_test(Costs.of([10, 11, 12, 13, 14], 200), late).sign == -1
    assert log_rank_test(Costs.of([10, 11, 12, 13, 14], 200), late).pvalue == pytest.approx(2 / 252)
    assert log_rank_test(Costs.of([NEVER] * 5, 200), Costs.of([NEVER] * 5, 200)).pvalue == 1


@pytest.mark.parametrize("horizon", [101.0, np.inf, 0.0, -1.0, np.nan])
def test_a_horizon_beyond_what_is_known_is_refused(horizon):
    with pytest.raises(ValueError, match=r"^horizon must be positive, at most what is known, 100, got "):
        restricted_mean(Costs.of([10, NEVER, NEVER], [100.0, 100.0, 50.0]), horizon)


def test_where_the_last_run_gets_there_all_is_known():
    """Nobody is left: the mean is that of the costs, however far the horizon."""
    assert restricted_mean(Costs.of([10, 20, 60], 100.0), 1e6).value == pytest.approx(30)
    late = Costs.of([10, NEVER, 60], [100.0, 50.0, 100.0])  # cut short at 50, before the last one gets there
    assert restricted_mean(late, 1e6).value == pytest.approx(10 + 2 / 3 * 50)
    with pytest.raises(ValueError, match="at most what is known, 100, got 101"):
        restricted_mean(Costs.of([100, NEVER], 100.0), 101.0)  # at the same cost one gets there, one is cut short


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_costs_that_are_none_are_refused(bad):
    wrong, right = Costs(np.array([1.0, bad]), np.array([True, False])), Costs.of([1, 2], 9)
    for call, name in (
        (lambda: restricted_mean(wrong, 1.0), "costs"),
        (lambda: log_rank_test(wrong, right), "first"),
        (lambda: log_rank_test(right, wrong), "second"),
    ):
        with pytest.raises(ValueError, match=rf"^{name}\.spent must be (finite|nonnegative), got .* at index \(1,\)"):
            call()
