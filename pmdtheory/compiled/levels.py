"""Rewards with two levels: their actions are merged, and each is given the s of its level.

The two levels of rows lie side by side as two actions: `m` here.
"""

from .beside import P, Q, R, S
from .elementary import checks_of, either, loop, sound, summing
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
def merge_each(p, r, checked, m):
    """Merge the actions of rows with at most two rewards on their support; returns whether they have, and are sound."""
    two = sure = True
    for i in range(LANES):
        if i < len(p):
            low, high = _extremes(p[i], r[i])
            lower, upper, others = _masses(p[i], r[i], low, high)
            two &= others == 0.0
            sure &= checked or sound(*checks_of(p[i], r[i]))
        m[0, i + P], m[1, i + P] = lower if low < high else 0.0, upper
        m[0, i + R], m[1, i + R] = low, high
    return two, sure


@loop
def merge_rows(x, m, others):
    """As `merge_each`, for rows side by side; returns whether all have at most two."""
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
def _spread_row(p, r, high, s_low, s_high, factor_low, factor_high, s, q):
    for j in range(p.size):
        s[j] = (s_high if r[j] == high else s_low) if p[j] > 0 else 0.0
        q[j] = p[j] * (factor_high if r[j] == high else factor_low)


@loop
def spread_each(p, r, m, mass, s, q):
    """Write s and q of rows, the latter divided by its mass, from those of their levels."""
    for i in range(len(p)):
        low = m[0, i + Q] / (m[0, i + P] * mass[i]) if m[0, i + P] > 0.0 else 0.0
        high = m[1, i + Q] / (m[1, i + P] * mass[i]) if m[1, i + P] > 0.0 else 0.0
        _spread_row(p[i], r[i], m[1, i + R], m[0, i + S], m[1, i + S], low, high, s[i], q[i])


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
