"""The passes in their order: rows of checked problems solved, one at a time or side by side, or a part of that done."""

import numpy as np
from numba import types

from .beside import apart, pass_of_rows, side_by_side
from .between import THERE, follow
from .elementary import loop
from .kept import FLAGS, GIVEN_NUMBERS, GIVEN_ROWS, NUMBERS, ROWS, kept
from .layout import (
    ALL,
    BASELINE,
    BEST,
    BETWEEN,
    BLOCK,
    CHANGE,
    END,
    FIRST,
    KL,
    LIKELIEST,
    LOG,
    MASS,
    MEAN,
    MOVE,
    OWN,
    PART,
    PASS,
    PMD_MEAN,
    QUANTITIES,
    RATE,
    SHIFT,
    START,
    STEP,
    TAU,
    WEIGHT,
    V,
)
from .row import pass_of_row

_SIDE = 128  # the most actions of rows that are laid side by side


@loop
def _report(law, k, p, r, given, q, s, v, weight, mean, done, g, state):
    """Write the numbers of some rows, and the rows in which nothing moves."""
    for i in range(len(p)):
        own, tau, far = g[i + OWN], g[i + TAU], g[i + MOVE]
        if law == KL:
            still = g[i + STEP] * tau <= 1e-15 * abs(own)
            v[i], weight[i], mean[i] = 0.0, 0.0, own + (0.0 if still else tau * g[i + LOG])
            done[i] = g[i + FIRST] > 1e-290 and g[i + STEP] < 650.0 and abs(g[i + LOG]) < 1e300
        else:
            v[i], weight[i] = g[i + V], g[i + WEIGHT] + k * g[i + CHANGE]
            mean[i] = own + tau * g[i + MEAN]
            near = far < THERE and abs(g[i + MASS] - 1.0) < 1e-12
            cancels = v[i] > 256.0 and (k == 0.0 or g[i + SHIFT] < 0.0)  # D − v
            still = state[i] == 0
            done[i] = still or (state[i] == 1 and near and not cancels)
            if still:
                v[i], weight[i] = 0.0, (own - given[i]) / tau + g[i + MEAN] if law == BASELINE else given[i]
        if still:
            s[i], q[i] = 0.0, p[i]


def rows_together(K):
    """How many rows of K actions are solved side by side."""
    return min(BLOCK * 2 // 3, 8 * max(1, 64 // K)) if K <= _SIDE else 1


def groups_of(N, together):
    """How many groups N rows are solved in; the last takes what is left over if that is less than half a group."""
    return max(1, (N + together // 2) // together)


_together, _groups = loop(rows_together), loop(groups_of)


@loop
def _first_reward(p, r):
    """The reward of the first action that has a probability."""
    j = 0
    while p[j] == 0.0:
        j += 1
    return r[j]


@kept(
    types.int64, types.int64, types.int64, types.int64, GIVEN_ROWS, GIVEN_ROWS, GIVEN_NUMBERS, GIVEN_NUMBERS,
    ROWS, ROWS, NUMBERS, NUMBERS, NUMBERS, FLAGS, NUMBERS, ROWS, types.Array(types.int64, 1, "C"),
)  # fmt: skip
def solve_rows(part, low, high, law, p, r, tau, a, q, s, v, weight, mean, done, g, t, at):
    """Solve a law on rows of policies and rewards, or do a part of that.

    Parameters
    ----------
    part : int
        ALL; or, for one row whose passes several threads share, START, one PASS over the parts of the row from `low`
        up to `high`, or what is to be done BETWEEN two passes.
    law : int
        KL, MIXED (λ = a), PMD_MEAN (λ = v, that is a = 0) or BASELINE (`a` is b, and λ = v + (E_p[r] − b)/τ).
    p, r : ndarray, shape (N, K)
    tau, a : ndarray, shape (N,)
    q, s : ndarray, shape (N, K)
        Written.
    v, weight, mean : ndarray, shape (N,)
        Written: v = KL(p‖q), λ and E_p[r]; for KL 0, 0 and τ log Z.
    done : ndarray of bool, shape (N,)
        Written.
    g, t, at : ndarray
        Of `threads.workspace`: numbers of the rows in work, sums of each part, and which pass is next.
    """
    k = 1.0 if law in (PMD_MEAN, BASELINE) else 0.0
    N, K = p.shape
    together = _together(K)
    groups, beside = _groups(N, together), min(N, together) > 1
    b, c = np.empty(QUANTITIES * BLOCK), np.empty(QUANTITIES * BLOCK, dtype=np.float32)
    columns = np.empty((4, min(N, together + together // 2) * K if beside else 0))
    state = at[4:]
    for group in range(groups):
        start = group * together
        end = start + together if group < groups - 1 else N
        rows = end - start
        size = rows * K if beside else 0
        P, R, S, Q = columns[0, :size], columns[1, :size], columns[2, :size], columns[3, :size]
        if part in (ALL, START):
            at[0], at[1], at[2], at[3] = LIKELIEST if law == KL else BEST, 0, 0, K > PART
            for i in range(rows):
                g[i + TAU], g[i + RATE], g[i + MASS] = tau[start + i], 1.0 / tau[start + i], 1.0
                if law == KL:
                    g[i + OWN] = _first_reward(p[start + i], r[start + i])
            if rows > 1:
                side_by_side(p[start:end], P)
                side_by_side(r[start:end], R)
        while at[0] != END:
            if part in (ALL, PASS):
                if rows > 1:
                    pass_of_rows(at, k, P, R, S, Q, rows, g, b, c, t[0])
                else:
                    for i in range(low, high):
                        x, y = i * PART, min((i + 1) * PART, K)
                        pass_of_row(at, k, p[start, x:y], r[start, x:y], s[start, x:y], q[start, x:y], g, b, t[i])
            if part in (ALL, BETWEEN):
                follow(at, law, k, a[start:end], rows, g, t, state)
            if part != ALL and at[0] != END:
                return
        if rows > 1:
            apart(S, Q, g[MASS : MASS + rows], s[start:end], q[start:end])
        _report(
            law, k, p[start:end], r[start:end], a[start:end], q[start:end], s[start:end], v[start:end],
            weight[start:end], mean[start:end], done[start:end], g, state,
        )  # fmt: skip
