"""Rewards with two levels: their actions are merged, and each is given the s of its level."""

from numba import types

from .elementary import checks_of, loop, sound, summing
from .kept import GIVEN_ROWS, ROWS, kept


@summing
def _extremes(p, r):
    """The least and the largest reward of the support."""
    low, high = 1e308, -1e308
    for j in range(p.size):
        low, high = min(low, r[j] if p[j] > 0 else 1e308), max(high, r[j] if p[j] > 0 else -1e308)
    return low, high


@summing
def _masses(p, r, low, high):
    """The probabilities of two rewards, and of all others."""
    lower = upper = others = 0.0
    for j in range(p.size):
        lower += p[j] if r[j] == low else 0.0
        upper += p[j] if r[j] == high else 0.0
        others += p[j] if r[j] != low and r[j] != high else 0.0
    return lower, upper, others


@kept(types.int64, types.int64, types.boolean, GIVEN_ROWS, GIVEN_ROWS, ROWS, ROWS)
def merge_levels(low_row, high_row, checked, p, r, mass, reward):
    """Merge the actions of some rows with at most two rewards on their support; returns whether all rows are such.

    If not `checked`, it is not sure either, and all that is not beyond doubt is not merged.

    Writes the total probability and the reward of the lower and the higher level, arrays of shape (N, 2).
    """
    head, head_r = p[0, :64], r[0, :64]
    low, high = _extremes(head, head_r)
    if _masses(head, head_r, low, high)[2] > 0.0:
        return False
    for i in range(low_row, high_row):
        low, high = _extremes(p[i], r[i])
        lower, upper, others = _masses(p[i], r[i], low, high)
        if others > 0.0 or not (checked or sound(*checks_of(p[i], r[i]))):
            return False
        reward[i, 0], reward[i, 1] = low, high
        mass[i, 0], mass[i, 1] = lower if low < high else 0.0, upper
    return True


@loop
def _spread_row(p, r, high, s_low, s_high, factor_low, factor_high, q, s):
    for j in range(p.size):
        s[j] = (s_high if r[j] == high else s_low) if p[j] > 0 else 0.0
        q[j] = p[j] * (factor_high if r[j] == high else factor_low)


@kept(types.int64, types.int64, *[GIVEN_ROWS] * 6, ROWS, ROWS)
def spread_levels(low_row, high_row, p, r, reward, q_levels, s_levels, mass, q, s):
    """Write q and s of all actions from those of the two levels that `merge_levels` made of them."""
    for i in range(low_row, high_row):
        factor_low = q_levels[i, 0] / mass[i, 0] if mass[i, 0] > 0 else 0.0
        factor_high = q_levels[i, 1] / mass[i, 1] if mass[i, 1] > 0 else 0.0
        s_low, s_high = s_levels[i]
        _spread_row(p[i], r[i], reward[i, 1], s_low, s_high, factor_low, factor_high, q[i], s[i])
