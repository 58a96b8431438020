"""Intervals against the t table, Wilson's quadratic, and a direct enumeration of all rankings."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from pmdtheory.intervals import SHARE, Estimate, half_width, mean_interval, over_seeds, proportion, rank_test

T = {2: 12.7062047362, 3: 4.3026527299, 5: 2.7764451052, 21: 2.0859634473}
"""t₀.₉₇₅ for that many seeds, from a printed table."""


@pytest.mark.parametrize("count", T)
def test_half_width_is_students(count):
    assert half_width(0.3, count) == pytest.approx(T[count] * 0.3 / math.sqrt(count), rel=1e-9)


def test_one_seed_has_no_interval():
    assert math.isnan(half_width(0.0, 1)) and math.isnan(half_width(np.nan, 0))
    assert f"{mean_interval([0.8]):.2f}" == "0.80"
    assert math.isnan(mean_interval([0.8]).low) and math.isnan(mean_interval([0.8], SHARE).high)
    assert math.isnan(mean_interval([]).value)


def test_the_text_shows_no_value_outside_the_range():
    """Two seeds at 0.9 and 0.4: ± 3.18 is cut to the range, and 0.5 ± 0.5 just fits."""
    assert f"{mean_interval([0.9, 0.4], SHARE):.2f}" == "0.65 [0.00, 1.00]"
    assert f"{mean_interval([0.9, 0.4]):.2f}" == "0.65 ± 3.18"
    assert f"{Estimate(0.5, 0.5, SHARE):.1f}" == "0.5 ± 0.5"
    assert f"{Estimate(0.9, 0.2, SHARE):.1f}" == "0.9 [0.7, 1.0]"


def test_frames_average_within_a_seed_first():
    """Two rows of a seed count once; the interval is over the three seeds."""
    table = pd.DataFrame({"x": 1, "seed": [0, 0, 1, 2, 3], "y": [0.0, 2.0, 3.0, 5.0, np.nan]})
    (row,) = over_seeds(table, "x", "y").itertuples()
    spread = T[3] * 2 / math.sqrt(3)
    assert (row.mean, row.low, row.high, row.count) == pytest.approx((3, 3 - spread, 3 + spread, 3))
    (cut,) = over_seeds(table, "x", "y", limits=(0, 4)).itertuples()
    assert (cut.mean, cut.low, cut.high) == (3, 0, 4)
    positive = table.assign(y=table.y + 1)
    (geometric,) = over_seeds(positive, "x", "y", log=True).itertuples()
    assert geometric.mean == pytest.approx((2 * 4 * 6) ** (1 / 3))
    assert geometric.mean**2 == pytest.approx(geometric.low * geometric.high)
    single = over_seeds(table[table.seed == 1], "x", "y")
    assert single["mean"].item() == 3 and single[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(("k", "m"), [(0, 5), (1, 12), (3, 5), (36, 36)])
def test_proportion_solves_wilsons_quadratic(k, m):
    """Ends are where (p̂ − p)² = z² p(1 − p)/m."""
    for end in proportion(k, m):
        if k not in (0, m) or end not in (0, 1):
            assert (k / m - end) ** 2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / m, rel=1e-9)
        assert 0 <= end <= 1
    low, high = proportion([k, k], [m, m])
    assert low.shape == high.shape == (2,) and (low <= k / m).all() and (k / m <= high).all()


@pytest.mark.parametrize("sizes", [(3, 4), (5, 5)])
def test_rank_test_against_all_divisions(sizes):
    """Doubled smaller tail over every way to divide the ranks, ties and unreached values among them."""
    rng = np.random.default_rng(3)
    for _ in range(10):
        values = rng.integers(6, size=sum(sizes)).astype(float)
        values[values == 5] = math.inf
        ranks = pd.Series(values).rank().to_numpy()
        sums = np.array([ranks[list(some)].sum() for some in combinations(range(len(ranks)), sizes[0])])
        mine = ranks[: sizes[0]].sum()
        tails = np.mean(sums <= mine + 1e-9), np.mean(sums >= mine - 1e-9)
        p = rank_test(values[: sizes[0]], values[sizes[0] :])
        assert p == pytest.approx(min(1.0, 2 * min(tails)))


def test_unreached_values_count_as_later_and_are_not_left_out():
    """Three early seeds and two that never get there are not ahead of five that all do."""
    assert rank_test([1, 2, 3, math.inf, math.inf], [4, 5, 6, 7, 8]) > 0.05
    assert rank_test([1, 2, 3, 4, 5], [6, 7, 8, math.inf, math.inf]) == pytest.approx(2 / 252)
    assert rank_test([], [1.0]) == 1
