"""Passes over rows side by side: the first action of each row before the second of any, so that lanes are rows.

Always LANES rows go together, the last of them again where there are fewer: loops of one known length become vector
instructions without remainders. `x` holds p, r, s and q of LANES rows for the first action, then for the second, and
`y` what is in 32 bits in the same way; what belongs to a row is in `g`, in 32 bits in `c`, and sums go to `t`.
"""

from .actions import exact_step, exponent_of, first_solution, key_of, last_step, rough_step, target_of
from .elementary import ZERO, F, either, exponential, loop, sound
from .layout import (
    AVERAGE,
    BEST,
    CHANGE,
    CURVE,
    EXACT,
    EXPONENTS,
    IDEAL,
    LANES,
    LAST,
    LIKELIEST,
    LOG,
    MASS,
    MEAN,
    OWN,
    PSI,
    RATE,
    ROUGH,
    SLOPE,
    TARGETS,
    TAU,
    WEIGHT,
    V,
)

ACTION = 4 * LANES  # numbers of one action
P, R, S, Q = range(0, ACTION, LANES)
_D, _PULL = R, Q
_SECOND, _THIRD, _FOURTH = LANES, 2 * LANES, 3 * LANES  # sums


@loop
def _keep(number, reward, i, t):
    """Keep the largest number of a row, and the reward of that action."""
    better = number > t[i]
    t[i], t[i + _SECOND] = either(better, number, t[i]), either(better, reward, t[i + _SECOND])


@loop
def _choose_best(x, t):
    """The most probable action so far, and its reward."""
    for j in range(len(x)):
        for i in range(LANES):
            _keep(x[j, i + P], x[j, i + R], i, t)


@loop
def _averages(x, g, t):
    for j in range(len(x)):
        for i in range(LANES):
            t[i] += x[j, i + P] * (x[j, i + R] - g[i + OWN])


@loop
def _targets(x, y, g, t):
    for j in range(len(x)):
        for i in range(LANES):
            d = target_of(x[j, i + P], x[j, i + R], g[i + OWN], g[i + RATE], g[i + MEAN])
            y[j, i + P], y[j, i + _D] = x[j, i + P], d
            t[i] += x[j, i + P] * (d * d)
            t[i + _SECOND] += x[j, i + P] * max(d, 0.0)
            t[i + _THIRD] += abs(d)


@loop
def _starts(y, c):
    for j in range(len(y)):
        for i in range(LANES):
            y[j, i + S], y[j, i + _PULL] = first_solution(y[j, i + _D] - c[i + V], c[i + WEIGHT], c[i + LOG]), ZERO


@loop
def _roughs(y, k, c):
    for j in range(len(y)):
        for i in range(LANES):
            y[j, i + S], y[j, i + _PULL], psi, slope, curve = rough_step(
                y[j, i + P], y[j, i + _D] - c[i + V], y[j, i + S] - c[i + CHANGE] * y[j, i + _PULL], k, c[i + WEIGHT]
            )
            c[i + PSI] += psi
            c[i + SLOPE] += slope
            c[i + CURVE] += curve


@loop
def _all_roughs(y, k, again, g, c, t):
    for i in range(LANES):
        c[i + V], c[i + WEIGHT], c[i + CHANGE], c[i + LOG] = g[i + V], g[i + WEIGHT], g[i + CHANGE], g[i + LOG]
        c[i + PSI], c[i + SLOPE], c[i + CURVE] = ZERO, ZERO, ZERO
    if again:
        _starts(y, c)
    _roughs(y, k, c)
    for i in range(LANES):
        t[i], t[i + _SECOND], t[i + _THIRD] = c[i + PSI], c[i + SLOPE], c[i + CURVE]


@loop
def _moved(x, y, g):
    for j in range(len(x)):
        for i in range(LANES):
            x[j, i + S] = y[j, i + S] - g[i + CHANGE] * y[j, i + _PULL]


@loop
def _exacts(x, k, g, t):
    for j in range(len(x)):
        for i in range(LANES):
            d = target_of(x[j, i + P], x[j, i + R], g[i + OWN], g[i + RATE], g[i + MEAN]) - g[i + V]
            x[j, i + S], x[j, i + Q], step, psi, slope = exact_step(x[j, i + P], d, x[j, i + S], k, g[i + WEIGHT])
            t[i] += psi
            t[i + _SECOND] += slope
            t[i + _FOURTH] = max(t[i + _FOURTH], step)


@loop
def _lasts(x, k, g, t):
    for j in range(len(x)):
        for i in range(LANES):
            s, rho = x[j, i + S], x[j, i + Q]
            x[j, i + S], x[j, i + Q] = last_step(x[j, i + P], s, rho, k, g[i + WEIGHT], g[i + CHANGE])
            t[i] += x[j, i + Q]


@loop
def _choose_likeliest(x, g, t):
    """The action with the largest p e^x so far: its key and its reward."""
    for j in range(len(x)):
        for i in range(LANES):
            key = key_of(x[j, i + P], x[j, i + R], g[i + OWN], g[i + RATE])
            _keep(key, x[j, i + R], i, t)


@loop
def _exponents(x, g, t):
    for j in range(len(x)):
        for i in range(LANES):
            x[j, i + S], x[j, i + Q], growth, size = exponent_of(x[j, i + P], x[j, i + R], g[i + OWN], g[i + TAU])
            t[i] += growth
            t[i + _SECOND] += x[j, i + Q]
            t[i + _FOURTH] = max(t[i + _FOURTH], size)


@loop
def _ideals(x, g):
    for j in range(len(x)):
        for i in range(LANES):
            x[j, i + S] = x[j, i + S] - g[i + LOG] if x[j, i + P] > 0 else 0.0
            x[j, i + Q] *= g[i + MASS]


@loop
def _exponentiated(x, t):
    """q = p e^s where p e^x may have vanished."""
    for j in range(len(x)):
        for i in range(LANES):
            _, rho = exponential(x[j, i + S])
            x[j, i + Q] = x[j, i + P] * rho
            t[i] += x[j, i + Q]


@loop
def pass_of_rows(at, k, x, y, g, c, t):
    """One pass over rows side by side."""
    lowest = -1.0 if at[0] in (BEST, LIKELIEST) else 0.0
    for i in range(ACTION):
        t[i] = lowest
    if at[0] == BEST:
        _choose_best(x, t)
    elif at[0] == AVERAGE:
        _averages(x, g, t)
    elif at[0] == TARGETS:
        _targets(x, y, g, t)
    elif at[0] == ROUGH:
        _all_roughs(y, F(k), at[2], g, c, t)
    elif at[0] == EXACT:
        if at[2]:
            _moved(x, y, g)
        _exacts(x, k, g, t)
    elif at[0] == LAST:
        _lasts(x, k, g, t)
    elif at[0] == LIKELIEST:
        _choose_likeliest(x, g, t)
    elif at[0] == EXPONENTS:
        _exponents(x, g, t)
    elif at[0] == IDEAL:
        _ideals(x, g)
        if at[2]:
            _exponentiated(x, t)


@loop
def side_by_side(p, r, x):
    """Lay at most LANES rows side by side."""
    rows, K = p.shape
    for i in range(LANES):
        row = min(i, rows - 1)
        for j in range(K):
            x[j, i + P], x[j, i + R] = p[row, j], r[row, j]


@loop
def all_sound(x, t):
    """Whether each row is `sound`."""
    for i in range(LANES):
        t[i], t[i + _SECOND], t[i + _THIRD] = 0.0, 0.0, 0.0
    for j in range(len(x)):
        for i in range(LANES):
            t[i] += x[j, i + P]
            t[i + _SECOND] += min(x[j, i + P], 0.0)
            t[i + _THIRD] += abs(x[j, i + R])
    result = True
    for i in range(LANES):
        result &= sound(t[i], t[i + _SECOND], t[i + _THIRD])
    return result


@loop
def apart(x, mass, s, q):
    """Lay rows that were side by side into arrays again, q divided by its mass."""
    rows, K = s.shape
    for i in range(rows):
        scale = 1.0 / mass[i]
        for j in range(K):
            s[i, j], q[i, j] = x[j, i + S], x[j, i + Q] * scale
