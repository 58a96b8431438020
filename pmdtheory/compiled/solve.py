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
    START,
    STEP,
    TAU,
    WEIGHT,
    V,
)
from .levels import maybe_two, merge_each, merge_rows, spread_each, spread_rows
from .row import pass_of_row

SIDE = 96  # the most actions of rows that are solved side by side
LONG = 4096  # those of rows whose levels are
_FEW = 16  # those of rows whose levels are found side by side, too
_UNSURE, _SOLVED, _NOT_TWO = range(3)  # what becomes of a group

# Where things begin in the array that is worked in: which pass is next and the states of the rows, numbers of the rows,
# those in 32 bits, and what depends on the number of actions.
_NUMBERS = 8 + LANES
_NUMBERS_32 = _NUMBERS + QUANTITIES * LANES
_REST = _NUMBERS_32 + QUANTITIES * LANES // 2


def parts_of(K):
    """How many parts a row has, whose sums are added up in one order by however many threads."""
    return -(-K // PART)


_parts = loop(parts_of)


def room(K):
    """How many numbers `solve_rows` needs to work in."""
    actions = 2 + (K if K <= SIDE else 0)
    return _REST + max(ACTION, parts_of(K) * (4 + BLOCK)) + actions * (ACTION + ACTION // 2)


@loop
def _report(law, k, p, given, q, s, v, weight, mean, done, g, state):
    """Write the numbers of some rows, and the rows in which nothing moves."""
    for i in range(len(p)):
        own, tau, far = g[i + OWN], g[i + TAU], g[i + MOVE]
        if law == KL:
            still = g[i + STEP] < 600.0 and g[i + STEP] * tau <= 1e-15 * abs(own)  # sizes end at 645
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


@loop
def _first_reward(p, r):
    """The reward of the first action that has a probability."""
    j = 0
    while p[j] == 0.0 and j < p.size - 1:
        j += 1
    return r[j]


@loop
def _begin(law, p, r, tau, a, lanes, g):
    """Write what is known of the row of each lane; returns whether τ and a are beyond doubt."""
    sure = True
    for i in range(lanes):
        row = min(i, len(p) - 1)
        g[i + TAU], g[i + RATE], g[i + MASS], g[i + GIVEN] = tau[row], 1.0 / tau[row], 1.0, a[row]
        if law == KL:
            g[i + OWN] = _first_reward(p[row], r[row])
        sure &= 1.0 / LARGE <= tau[row] <= LARGE and abs(a[row]) <= LARGE
    return sure


@loop
def _solve_group(part, low, high, law, checked, two, p, r, tau, a, q, s, v, weight, mean, done, work):
    """`solve_rows` for one row, for rows side by side, or, if they are, for rows with `two` levels."""
    k = 1.0 if law in (PMD_MEAN, BASELINE) else 0.0
    K, parts = p.shape[1], _parts(p.shape[1])
    beside = len(p) > 1 and (K <= _FEW or not two)
    n, width = K if beside else 0, ACTION if beside or two else 4 + BLOCK
    at, g, c = work.view(np.int64), work[_NUMBERS:_NUMBERS_32], work[_NUMBERS_32:_REST].view(np.float32)
    parts = 1 if two else parts
    state, actions, actions_32 = at[8:_NUMBERS], _REST + parts * width, _REST + parts * width + (n + 2) * ACTION
    t = work[_REST:actions].reshape((parts, width))
    x = work[actions:actions_32].reshape((n + 2, ACTION))  # the last two are the levels
    y = work[actions_32 : actions_32 + (n + 2) * (ACTION // 2)].view(np.float32).reshape((n + 2, ACTION))
    lanes = LANES if beside or two else 1
    first, last = (n, n + 2) if two else (0, n)
    if part in (ALL, START):
        at[0], at[1], at[2], at[3] = END, 0, 0, K > PART and not two
        if beside:
            side_by_side(p, r, x)
            sure = checked or all_sound(x[:n], t[0])
            if sure and two and not merge_rows(x[:n], x[n:], t[0]):
                return _NOT_TWO
        elif two:
            really, sure = merge_each(p, r, checked, x)
            if sure and not really:
                return _NOT_TWO
        else:
            sure = checked or sound(*checks_of(p[0], r[0]))
        if not (_begin(law, p, r, tau, a, lanes, g) or checked) or not sure:
            return _UNSURE
        at[0] = LIKELIEST if law == KL else BEST
    while at[0] != END:
        if lanes > 1:
            pass_of_rows(at, k, x[first:last], y[first:last], g, c, t[0])
        elif part in (ALL, PASS):
            for i in range(low, high):
                here, there = i * PART, min((i + 1) * PART, K)
                pass_of_row(
                    at, k, p[0, here:there], r[0, here:there], s[0, here:there], q[0, here:there], g, t[i, 4:], t[i, :4]
                )  # fmt: skip
        if lanes > 1 or part in (ALL, BETWEEN):
            follow(at, law, k, lanes, g, t, state)
        if lanes == 1 and part != ALL and at[0] != END:
            return _SOLVED
    if two and not beside:
        spread_each(p, r, x, g[MASS : MASS + LANES], s, q)
    elif two:
        spread_rows(x[:n], x[n:])
    if beside:
        apart(x[:n], g[MASS : MASS + LANES], s, q)
    _report(law, k, p, a, q, s, v, weight, mean, done, g, state)
    return _SOLVED


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
        False if no more than the shapes of the arguments is known.
    p, r : ndarray, shape (N, K)
    tau, a : ndarray, shape (N,)
    q, s : ndarray, shape (N, K)
        Written.
    found : ndarray, shape (3, N)
        Written: v = KL(p‖q), λ and E_p[r]; for KL 0, 0 and τ log Z.
    done : ndarray of bool, shape (N,)
        Written.
    work : ndarray, shape (room(K),)
        To work in; threads that share a row share it too, and read which pass is next in its first number.

    Returns
    -------
    bool
        False if the arguments are not `checked` and not beyond doubt either; then what is written means nothing.
    """
    v, weight, mean = found
    K, single = p.shape[1], part != ALL
    start, stop = (0, 1) if single else (low, high)
    state = _SOLVED
    while start < stop:
        rows = min(LANES if K <= LONG else 1, stop - start)
        two = part in (ALL, START) and law != KL and K > 2 and state != _NOT_TWO and maybe_two(p[start], r[start])
        end = start + (rows if two or (K <= SIDE and rows >= 2 + K // 4) else 1)
        state = _solve_group(
            part, low if single else 0, high if single else _parts(K), law, checked, two, p[start:end], r[start:end],
            tau[start:end], a[start:end], q[start:end], s[start:end], v[start:end], weight[start:end], mean[start:end],
            done[start:end], work,
        )  # fmt: skip
        if state == _UNSURE:
            return False
        start = start if state == _NOT_TWO else end
    return True
