"""What pictures of training share: horizons, restricted means in words, settings that all methods have."""

import math

import numpy as np
import pandas as pd
import pytest

from figures import marks
from pmdtheory import plotting
from pmdtheory.intervals import interquartile_mean

COSTS = pd.DataFrame({
    "method": ["a"] * 3 + ["b"] * 3, "updates_per_batch": 8, "seed": [0, 1, 2] * 2,
    "tokens": [10e3, 20e3, math.nan, 30e3, 40e3, 50e3], "budget": [90e3, 95e3, 80e3, 70e3, 60e3, 60e3],
})  # fmt: skip


def test_means_are_restricted_to_where_all_methods_are_known():
    """To the budget of the last run that is cut short; where none is, to the largest budget."""
    assert marks.horizon(COSTS) == 80e3
    assert marks.horizon(COSTS[COSTS.method == "b"]) == 70e3
    late = COSTS.assign(tokens=COSTS.tokens.where(COSTS.seed > 0, 85e3))  # a's last run gets there after that budget
    assert marks.horizon(late) == 95e3
    tied = COSTS.assign(tokens=[10e3, 80e3, math.nan, 30e3, 40e3, 50e3])  # one gets there where another is cut short
    assert marks.horizon(tied) == marks.horizon(tied[::-1]) == 80e3
    assert marks.restricted(COSTS[COSTS.method == "a"], 80e3) == "37 [0, 80] (2/3)"  # (10 + 20 + 80)/3
    assert marks.restricted(COSTS[:0], 80e3) == "–"


def runs():
    rows = [("a", 1), ("b", 1), ("a", 8), ("b", 8), ("a", 64)]
    rows = [(method, updates, seed) for method, updates in rows for seed in range(4)]
    table = pd.DataFrame(rows, columns=["method", "updates", "seed"])
    return table.assign(score=0.1 * table.seed + 0.2 * (table.method == "a"))


def test_aggregates_are_over_the_settings_that_all_methods_have():
    """U = 64 has one method only; the interval draws the runs of each setting anew."""
    table = runs()
    both = marks.shared(table, ["a", "b"], ["updates"])
    assert set(both.updates) == {1, 8}
    own = marks.strata(both[both.method == "a"], "score", "updates")
    assert [len(values) for values in own] == [4, 4]
    with plotting.style():
        figure, axes = plotting.panels(1, 2)
        marks.aggregates(axes, table, ["a", "b"], ["updates"], "score")
    left, right = (axis.containers for axis in axes)
    found = interquartile_mean(own)
    assert [bar.lines[0].get_xdata()[0] for bar in left] == pytest.approx([found.value, found.value - 0.2])
    pairs = [(x > y) + (abs(x - y) < 1e-9) / 2 for x in 0.2 + 0.1 * np.arange(4) for y in 0.1 * np.arange(4)]
    assert [bar.lines[0].get_xdata()[0] for bar in right] == pytest.approx([np.mean(pairs)])
    plotting.plt.close(figure)


def test_a_run_that_does_not_get_there_is_a_triangle_above_its_budget():
    with plotting.style():
        figure, (axis,) = plotting.panels(1, 1)
        marks.survivals(axis, COSTS, ["a", "b"], "updates_per_batch", (8,))
    triangles = np.concatenate([line.get_ydata() for line in axis.lines if line.get_marker() == "^"])
    bars = [bar.lines[0].get_ydata()[0] for bar in axis.containers]
    assert len(triangles) == 1 and triangles[0] > 80
    assert bars == pytest.approx([110 / 3, 40])
    plotting.plt.close(figure)
