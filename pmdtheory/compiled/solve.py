"""The passes in their order: rows of problems solved, one at a time or side by side, or a part of that done."""

import numpy as np
from numba import types

from .beside import ACTION, all_sound, apart, pass_of_rows, side_by_side
from .between import THERE, follow
from .elementary import LARGE, checks_of, loop, sound
from .kept import FLAGS, GIVEN_NUMBERS, GIVEN_ROWS, NUMBERS, ROWS, kept
from .layout import (
    ALL,
    BASELINE,
    BEST,
    BETWEEN,
    BLOCK,
    CHANGE,
    DONE,
    DOUBTFUL,
    END,
    FIRST,
    GIVEN,
    KL,
    LANES,
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
    SOME,
    START,
    STEP,
    TAU,
    WEIGHT,
    V,
)
from .levels import maybe_two, merge_row, merge_rows, spread_row, spread_rows
from .row import pass_of_row

SIDE = 128  # the most actions of rows that are laid side by side

_G = 8 + LANES  # where things begin in what `solve_rows` works in: numbers of rows, those in 32 bits, sums
_C = _G + QUANTITIES * LANES
_T = _C + QUANTITIES * LANES // 2


def parts_of(K):
    """How many parts a row has, whose sums are added up in one order by however many threads."""
    return -(-K // PART)


def room(K):
    """How many numbers `solve_rows` needs to work in."""
    return _T + max(ACTION, parts_of(K) * (4 + BLOCK)) + 6 * LANES * (2 + (K if K <= SIDE else 0))


@loop
def _report(law, k, p, r, given, q, s, v, weight, mean, done, g, state):
    """Write the numbers of some rows, and the rows in which nothing moves; returns whether all are done."""
    all_done = True
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
            for j in range(p.shape[1]):
                s[i, j], q[i, j] = 0.0, p[i, j]
        all_done &= done[i]
    return all_done


@loop
def _first_reward(p, r):
    """The reward of the first action that has a probability."""
    j = 0
    while p[j] == 0.0 and j < p.size - 1:
        j += 1
    return r[j]


@loop
def _begin(law, p, r, tau, a, lanes, g):
    """What is known of each lane's row; whether that is beyond doubt."""
    result = True
    for i in range(lanes):
        row = min(i, len(p) - 1)
        g[i + TAU], g[i + RATE], g[i + MASS], g[i + GIVEN] = tau[row], 1.0 / tau[row], 1.0, a[row]
        if law == KL:
            g[i + OWN] = _first_reward(p[row], r[row])
        result &= 1.0 / LARGE <= tau[row] <= LARGE and abs(a[row]) <= LARGE
    return result


@kept(
    *[types.int64] * 4, types.boolean, GIVEN_ROWS, GIVEN_ROWS, GIVEN_NUMBERS, GIVEN_NUMBERS, ROWS, ROWS, ROWS, FLAGS,
    NUMBERS,
)  # fmt: skip
def solve_rows(part, low, high, law, checked, p, r, tau, a, q, s, found, done, work):
    """Solve a law on rows of policies and rewards, or do a part of that.

    Parameters
    ----------
    part : int
        ALL, for the rows from `low` up to `high`; or, for a single row whose passes several threads share, START, one
        PASS over the parts of the row from `low` up to `high`, or what is to be done BETWEEN two passes.
    law : int
        KL, MIXED (λ = a), PMD_MEAN (λ = v, that is a = 0) or BASELINE (`a` is b, and λ = v + (E_p[r] − b)/τ).
    checked : bool
        False for arguments of which only the shapes are known.
    p, r : ndarray, shape (N, K)
    tau, a : ndarray, shape (N,)
    q, s : ndarray, shape (N, K)
        Written.
    found : ndarray, shape (3, N)
        Written: v = KL(p‖q), λ and E_p[r]; for KL 0, 0 and τ log Z.
    done : ndarray of bool, shape (N,)
        Written.
    work : ndarray, shape (room(K),)
        What threads share that solve one row, which pass is next first of all; zeros to begin with.

    Returns
    -------
    int
        DONE, SOME or DOUBTFUL.
    """
    k = 1.0 if law in (PMD_MEAN, BASELINE) else 0.0
    K = p.shape[1]
    at, g, c = work.view(np.int64)[:_G], work[_G:_C], work[_C:_T].view(np.float32)
    v, weight, mean = found
    state = at[8:]
    start, stop = (low, high) if part == ALL else (0, 1)
    result = DONE
    while start < stop:
        beside = K <= SIDE and stop - start >= 2 + K // 4
        end = min(start + LANES, stop) if beside else start + 1
        P, R, S, Q = p[start:end], r[start:end], s[start:end], q[start:end]
        n, parts = K if beside else 0, -(-K // PART)
        width = ACTION if beside else 4 + BLOCK
        t = work[_T : _T + parts * width].reshape((parts, width))
        x_at = _T + t.size
        y_at = x_at + (n + 2) * ACTION
        x = work[x_at:y_at].reshape((n + 2, ACTION))
        y = work[y_at : y_at + (n + 2) * ACTION // 2].view(np.float32).reshape((n + 2, ACTION))
        merged, lanes, first, last = False, LANES if beside else 1, 0, n
        if part in (ALL, START):
            if beside:
                side_by_side(P, R, x)
            sure = checked or (all_sound(x[:n], t[0]) if beside else sound(*checks_of(P[0], R[0])))
            if sure and law != KL and K > 2 and maybe_two(P[0], R[0]):
                merged = merge_rows(x[:n], x[n:], t[0]) if beside else merge_row(P[0], R[0], x[n:])
                if merged:
                    lanes, first, last = LANES, n, n + 2
            if not (_begin(law, P, R, tau[start:end], a[start:end], lanes, g) or checked) or not sure:
                at[0] = END
                return DOUBTFUL
            at[0], at[1], at[2], at[3] = LIKELIEST if law == KL else BEST, 0, 0, K > PART and not merged
        while at[0] != END:
            if lanes > 1:
                pass_of_rows(at, k, x[first:last], y[first:last], g, c, t[0])
            elif part in (ALL, PASS):
                for i in range(0 if part == ALL else low, parts if part == ALL else high):
                    e, f = i * PART, min((i + 1) * PART, K)
                    pass_of_row(at, k, P[0, e:f], R[0, e:f], S[0, e:f], Q[0, e:f], g, t[i, 4:], t[i, :4])
            if lanes > 1 or part in (ALL, BETWEEN):
                follow(at, law, k, lanes, g, t[:1] if merged else t, state)
            if lanes == 1 and part != ALL and at[0] != END:
                return result
        if merged and not beside:
            spread_row(P[0], R[0], x[n:], g[MASS], S[0], Q[0])
        elif merged:
            spread_rows(x[:n], x[n:])
        if beside:
            apart(x[:n], g[MASS : MASS + LANES], S, Q)
        if not _report(
            law, k, P, R, a[start:end], Q, S, v[start:end], weight[start:end], mean[start:end], done[start:end], g, state
        ):
            result = SOME
        start = end
    return result
