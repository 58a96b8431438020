"""Rewards with two levels: their actions are merged, and each is given the s of its level.

The two levels of a group of rows, or of a long row, in all lanes, lie side by side as two actions: `m` here.
"""

from .beside import P, Q, R, S
from .elementary import either, loop, summing
from .layout import LANES

_HEAD = 64  # actions whose rewards are looked at first


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


@loop
def maybe_two(p, r):
    """Whether the first actions of a row have at most two rewards on their support."""
    head, head_r = p[:_HEAD], r[:_HEAD]
    low, high = _extremes(head, head_r)
    return _masses(head, head_r, low, high)[2] == 0.0


@loop
def merge_row(p, r, m):
    """Merge the actions of a row if it has at most two rewards on its support; returns whether it has."""
    low, high = _extremes(p, r)
    lower, upper, others = _masses(p, r, low, high)
    for i in range(LANES):
        m[0, i + P], m[1, i + P] = lower if low < high else 0.0, upper
        m[0, i + R], m[1, i + R] = low, high
    return others == 0.0


@loop
def merge_rows(x, m, others):
    """`merge_row` for rows side by side; returns whether all have at most two."""
    for i in range(LANES):
        m[0, i + P], m[1, i + P], m[0, i + R], m[1, i + R], others[i] = 0.0, 0.0, 1e308, -1e308, 0.0
    for j in range(len(x)):
        for i in range(LANES):
            there, r = x[j, i + P] > 0.0, x[j, i + R]
            m[0, i + R] = min(m[0, i + R], either(there, r, 1e308))
            m[1, i + R] = max(m[1, i + R], either(there, r, -1e308))
    for j in range(len(x)):
        for i in range(LANES):
            p, is_low, is_high = x[j, i + P], x[j, i + R] == m[0, i + R], x[j, i + R] == m[1, i + R]
            m[0, i + P] += either(is_low, p, 0.0)
            m[1, i + P] += either(is_high, p, 0.0)
            others[i] += either(is_low, 0.0, either(is_high, 0.0, p))
    result = True
    for i in range(LANES):
        m[0, i + P] = m[0, i + P] if m[0, i + R] < m[1, i + R] else 0.0
        result &= others[i] == 0.0
    return result


@loop
def spread_row(p, r, m, mass, s, q):
    """Write s and q of a row, the latter divided by its mass, from those of the levels."""
    high, s_low, s_high = m[1, R], m[0, S], m[1, S]
    factor_low = m[0, Q] / (m[0, P] * mass) if m[0, P] > 0.0 else 0.0
    factor_high = m[1, Q] / (m[1, P] * mass) if m[1, P] > 0.0 else 0.0
    for j in range(p.size):
        s[j] = (s_high if r[j] == high else s_low) if p[j] > 0 else 0.0
        q[j] = p[j] * (factor_high if r[j] == high else factor_low)


@loop
def spread_rows(x, m):
    """Write s and q of rows side by side from those of their levels."""
    for j in range(2):
        for i in range(LANES):
            m[j, i + Q] = m[j, i + Q] / m[j, i + P] if m[j, i + P] > 0.0 else 0.0
    for j in range(len(x)):
        for i in range(LANES):
            p, is_high = x[j, i + P], x[j, i + R] == m[1, i + R]
            x[j, i + S] = either(p > 0.0, either(is_high, m[1, i + S], m[0, i + S]), 0.0)
            x[j, i + Q] = p * either(is_high, m[1, i + Q], m[0, i + Q])
