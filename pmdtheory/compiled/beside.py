"""Passes over rows side by side: the first action of each row before the second of any.

What belongs to a row is laid out for the actions of a block, `b` in 64 bits, `c` in 32, so that what is done once a row
is a vector instruction too; sums go to `t`.
"""

import numpy as np

from .actions import exact_step, exponent_of, first_solution, key_of, last_step, rough_step, target_of
from .elementary import ZERO, F, copy, loop
from .layout import (
    AVERAGE,
    BEST,
    BLOCK,
    CHANGE,
    CURVE,
    EXACT,
    EXPONENTS,
    FIRST,
    IDEAL,
    LAST,
    LIKELIEST,
    LOG,
    MASS,
    MEAN,
    OWN,
    PSI,
    RATE,
    ROUGH,
    SECOND,
    SLOPE,
    STEP,
    TARGETS,
    TAU,
    WEIGHT,
    V,
)
from .row import exponentiated


@loop
def _fill(b, at, x):
    """Give each action of a block the number of its row."""
    rows = x.size
    for start in range(at, at + BLOCK - rows + 1, rows):
        for i in range(rows):
            b[start + i] = x[i]


@loop
def _add(x, out):
    """Add to each row what its actions have, halves of which are laid upon halves; `x` is used up."""
    rows, left = out.size, x.size // out.size
    while left > 1:
        half = left // 2
        far = (left - half) * rows
        for j in range(half * rows):
            x[j] += x[far + j]
        left -= half
    for i in range(rows):
        out[i] += x[i]


@loop
def _raise(x, out):
    """Raise each row to the largest that its actions have, as `_add`."""
    rows, left = out.size, x.size // out.size
    while left > 1:
        half = left // 2
        far = (left - half) * rows
        for j in range(half * rows):
            x[j] = max(x[j], x[far + j])
        left -= half
    for i in range(rows):
        out[i] = max(out[i], x[i])


@loop
def _best_of_rows(x, r, best, own):
    """The largest x of each row, if it is above `best`, and the reward of that action."""
    rows = own.size
    for start in range(0, x.size, rows):
        for i in range(rows):
            better = x[start + i] > best[i]
            best[i] = x[start + i] if better else best[i]
            own[i] = r[start + i] if better else own[i]


@loop
def _means_of_block(p, r, b):
    for j in range(p.size):
        b[j + FIRST] = p[j] * (r[j] - b[j + OWN])


@loop
def _targets_of_block(p, r, p32, D32, b):
    for j in range(p.size):
        d = target_of(p[j], r[j], b[j + OWN], b[j + RATE], b[j + MEAN])
        p32[j], D32[j] = p[j], d
        b[j + FIRST], b[j + SECOND], b[j + STEP] = p[j] * (d * d), p[j] * max(d, 0.0), abs(d)


@loop
def _starts_of_block(D, s, pull, c):
    for j in range(D.size):
        s[j], pull[j] = first_solution(D[j] - c[j + V], c[j + WEIGHT], c[j + LOG]), ZERO


@loop
def _roughs_of_block(p, D, s, pull, k, c):
    for j in range(p.size):
        s[j], pull[j], c[j + PSI], c[j + SLOPE], c[j + CURVE] = rough_step(
            p[j], D[j] - c[j + V], s[j] - c[j + CHANGE] * pull[j], k, c[j + WEIGHT]
        )


@loop
def _moved_of_block(s, pull, b):
    for j in range(s.size):
        b[j + FIRST] = s[j] - b[j + CHANGE] * pull[j]


@loop
def _exacts_of_block(p, r, s, q, k, b):
    for j in range(p.size):
        d = target_of(p[j], r[j], b[j + OWN], b[j + RATE], b[j + MEAN]) - b[j + V]
        s[j], q[j], b[j + STEP], b[j + PSI], b[j + SLOPE] = exact_step(p[j], d, b[j + FIRST], k, b[j + WEIGHT])


@loop
def _lasts_of_block(p, s, q, k, b):
    for j in range(p.size):
        s[j], q[j] = last_step(p[j], s[j], q[j], k, b[j + WEIGHT], b[j + CHANGE])
        b[j + FIRST] = q[j]


@loop
def _keys_beside(p, r, b):
    for j in range(p.size):
        b[j + FIRST] = key_of(p[j], r[j], b[j + OWN], b[j + RATE])


@loop
def _exponents_of_block(p, r, s, q, b):
    for j in range(p.size):
        s[j], q[j], b[j + FIRST], b[j + STEP] = exponent_of(p[j], r[j], b[j + OWN], b[j + TAU])
        b[j + SECOND] = q[j]


@loop
def _ideal_of_block(p, s, q, b):
    for j in range(p.size):
        s[j] = s[j] - b[j + LOG] if p[j] > 0 else 0.0
        q[j] *= b[j + MASS]


@loop
def _lay_out(stage, rows, g, b, c):
    """Give the actions of a block what a pass reads of their rows, unless an earlier one did."""
    if stage in (AVERAGE, LIKELIEST, EXPONENTS):
        _fill(b, OWN, g[OWN : OWN + rows])
    if stage in (TARGETS, LIKELIEST):
        _fill(b, RATE, g[RATE : RATE + rows])
    if stage == TARGETS:
        _fill(b, MEAN, g[MEAN : MEAN + rows])
    if stage == ROUGH:
        _fill(c, V, g[V : V + rows])
        _fill(c, WEIGHT, g[WEIGHT : WEIGHT + rows])
        _fill(c, CHANGE, g[CHANGE : CHANGE + rows])
        _fill(c, LOG, g[LOG : LOG + rows])
    if stage == EXACT:
        _fill(b, V, g[V : V + rows])
        _fill(b, WEIGHT, g[WEIGHT : WEIGHT + rows])
    if stage in (EXACT, LAST):
        _fill(b, CHANGE, g[CHANGE : CHANGE + rows])
    if stage == EXPONENTS:
        _fill(b, TAU, g[TAU : TAU + rows])
    if stage == IDEAL:
        _fill(b, LOG, g[LOG : LOG + rows])
        _fill(b, MASS, g[MASS : MASS + rows])


@loop
def pass_of_rows(at, k, p, r, s, q, rows, g, b, c, t):
    """One pass over rows side by side."""
    n, width = p.size, BLOCK // rows * rows
    first, second = s.view(np.float32), q.view(np.float32)
    p32, D32, s32, pull = first[:n], second[:n], first[n:], second[n:]
    lowest = -1.0 if at[0] in (BEST, LIKELIEST) else 0.0
    for i in range(4 * rows):
        t[i] = lowest
    _lay_out(at[0], rows, g, b, c)
    for start in range(0, n, width):
        end = min(start + width, n)
        P, R, S, Q, size = p[start:end], r[start:end], s[start:end], q[start:end], end - start
        A, B, C, D = p32[start:end], D32[start:end], s32[start:end], pull[start:end]
        if at[0] == BEST:
            _best_of_rows(P, R, t[:rows], t[rows : 2 * rows])
        elif at[0] == AVERAGE:
            _means_of_block(P, R, b)
            _add(b[FIRST : FIRST + size], t[:rows])
        elif at[0] == TARGETS:
            _targets_of_block(P, R, A, B, b)
            _add(b[FIRST : FIRST + size], t[:rows])
            _add(b[SECOND : SECOND + size], t[rows : 2 * rows])
            _add(b[STEP : STEP + size], t[2 * rows : 3 * rows])
        elif at[0] == ROUGH:
            if at[2]:
                _starts_of_block(B, C, D, c)
            _roughs_of_block(A, B, C, D, F(k), c)
            _add(c[PSI : PSI + size], t[:rows])
            _add(c[SLOPE : SLOPE + size], t[rows : 2 * rows])
            _add(c[CURVE : CURVE + size], t[2 * rows : 3 * rows])
        elif at[0] == EXACT:
            if at[2]:
                _moved_of_block(C, D, b)
            else:
                copy(S, b, FIRST)
            _exacts_of_block(P, R, S, Q, k, b)
            _add(b[PSI : PSI + size], t[:rows])
            _add(b[SLOPE : SLOPE + size], t[rows : 2 * rows])
            _raise(b[STEP : STEP + size], t[3 * rows : 4 * rows])
        elif at[0] == LAST:
            _lasts_of_block(P, S, Q, k, b)
            _add(b[FIRST : FIRST + size], t[:rows])
        elif at[0] == LIKELIEST:
            _keys_beside(P, R, b)
            _best_of_rows(b[FIRST : FIRST + size], R, t[:rows], t[rows : 2 * rows])
        elif at[0] == EXPONENTS:
            _exponents_of_block(P, R, S, Q, b)
            _add(b[FIRST : FIRST + size], t[:rows])
            _add(b[SECOND : SECOND + size], t[rows : 2 * rows])
            _raise(b[STEP : STEP + size], t[3 * rows : 4 * rows])
        elif at[0] == IDEAL:
            _ideal_of_block(P, S, Q, b)
            if at[2]:
                exponentiated(P, S, Q)
                copy(Q, b, FIRST)
                _add(b[FIRST : FIRST + size], t[:rows])


@loop
def side_by_side(x, out):
    """Lay rows side by side: the first action of each before the second of any."""
    rows, K = x.shape
    for j in range(K):
        for i in range(rows):
            out[j * rows + i] = x[i, j]


@loop
def apart(s_beside, q_beside, mass, s, q):
    """Lay rows that were side by side into arrays again, q divided by its mass."""
    rows, K = s.shape
    for i in range(rows):
        scale = 1.0 / mass[i]
        for j in range(K):
            s[i, j], q[i, j] = s_beside[j * rows + i], q_beside[j * rows + i] * scale
