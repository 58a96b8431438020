"""Intervals against the t table, sums of binomial probabilities, and loops over runs and draws."""

import math

import numpy as np
import pandas as pd
import pytest

from pmdtheory.intervals import (
    SHARE,
    Estimate,
    half_width,
    interquartile_mean,
    mean_interval,
    over_seeds,
    proportion,
    stratified,
)

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
def test_proportion_solves_the_exact_tails(k, m):
    """At either end k successes, or fewer, or more, have probability 0.025."""
    low, high = proportion(k, m)

    def tail(p, counts):
        return sum(math.comb(m, i) * p**i * (1 - p) ** (m - i) for i in counts)

    assert low == 0 if k == 0 else tail(low, range(k, m + 1)) == pytest.approx(0.025)
    assert high == 1 if k == m else tail(high, range(k + 1)) == pytest.approx(0.025)
    low, high = proportion([k, k], [m, m])
    assert low.shape == high.shape == (2,) and (low <= k / m).all() and (k / m <= high).all()
    assert all(math.isnan(end) for end in proportion(0, 0))


def middle(values):
    """Mean of the middle half of a list, by hand."""
    ordered, cut = sorted(values), len(values) // 4
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)


def test_interquartile_mean_against_a_loop():
    """The value exactly; the ends against draws of each setting among itself, one after the other."""
    rng = np.random.default_rng(4)
    settings = [rng.normal(size=5), 3 + rng.normal(size=4), rng.normal(size=7)]
    found = interquartile_mean(settings)
    assert found.value == pytest.approx(middle([*settings[0], *settings[1], *settings[2]]))
    drawn = [middle([x for own in settings for x in rng.choice(own, len(own))]) for _ in range(20_000)]
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)
    assert found == interquartile_mean(settings)
    pooled = interquartile_mean([np.concatenate(settings)])
    assert pooled.high - pooled.low > 1.1 * (found.high - found.low)  # strata far apart: nothing moves between them


def test_one_failure_in_five_does_not_move_an_interquartile_mean_but_one_run_has_no_interval():
    assert interquartile_mean([[0.9, 0.9, 0.9, 0.9, 0.0]]).value == pytest.approx(0.9)
    assert f"{interquartile_mean([[0.8], [0.7, 0.6]]):.2f}" == "0.70"
    assert math.isnan(interquartile_mean([]).value) and math.isnan(interquartile_mean([[], [1.0]]).value)


@pytest.mark.parametrize(("runs", "settings", "covered"), [(5, 1, 0.90), (5, 3, 0.91), (12, 3, 0.94)])
def test_the_bootstrap_covers_as_often_as_its_page_says(runs, settings, covered):
    """Of 200 samples of normal values of mean 0, within three standard errors."""
    rng = np.random.default_rng(0)
    ends = [interquartile_mean(rng.normal(size=(settings, runs))) for _ in range(200)]
    share = np.mean([interval.low <= 0 <= interval.high for interval in ends])
    assert share == pytest.approx(covered, abs=3 * math.sqrt(covered * (1 - covered) / 200))


def test_any_statistic_is_drawn_by_setting():
    """The difference of two means, whose bootstrap is nearly normal."""
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=200), 1 + rng.normal(size=300)
    found = stratified(lambda x, y, axis: x.mean(axis) - y.mean(axis), [first, second])
    error = 1.96 * math.sqrt(first.var() / 200 + second.var() / 300)
    difference = first.mean() - second.mean()
    assert list(found) == pytest.approx([difference, difference - error, difference + error], abs=0.02)
