"""The passes in their order: rows of checked problems solved, one at a time or side by side, or a part of that done."""

from numba import types

from .beside import apart, pass_of_rows, side_by_side
from .between import THERE, follow
from .elementary import loop
from .kept import FLAGS, GIVEN_NUMBERS, GIVEN_ROWS, NUMBERS, NUMBERS_32, ROWS, ROWS_32, kept
from .layout import (
    ALL,
    BASELINE,
    BEST,
    BETWEEN,
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
    RATE,
    SHIFT,
    START,
    STEP,
    TAU,
    WEIGHT,
    V,
)
from .row import pass_of_row

_SIDE = 64  # the most actions of rows that are laid side by side
_FEWEST = 6  # rows


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
            for j in range(p.shape[1]):
                s[i, j], q[i, j] = 0.0, p[i, j]


def rows_together(N, K):
    """How many of N rows of K actions are solved side by side."""
    return LANES if K <= _SIDE and N >= _FEWEST else 1


def groups_of(N, together):
    """How many groups N rows are solved in."""
    return -(-N // together)


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
    ROWS, ROWS, NUMBERS, NUMBERS, NUMBERS, FLAGS, NUMBERS, ROWS, types.Array(types.int64, 1, "C"), NUMBERS, ROWS, ROWS_32, NUMBERS_32,
)  # fmt: skip
def solve_rows(part, low, high, law, p, r, tau, a, q, s, v, weight, mean, done, g, t, at, b, x, y, c):
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
    together = _together(N, K)
    state = at[4:]
    for group in range(_groups(N, together)):
        start = group * together
        end = min(start + together, N)
        if part in (ALL, START):
            at[0], at[1], at[2], at[3] = LIKELIEST if law == KL else BEST, 0, 0, K > PART
            for i in range(together):
                row = min(start + i, end - 1)
                g[i + TAU], g[i + RATE], g[i + MASS], g[i + GIVEN] = tau[row], 1.0 / tau[row], 1.0, a[row]
                if law == KL:
                    g[i + OWN] = _first_reward(p[row], r[row])
            if together > 1:
                side_by_side(p[start:end], r[start:end], x)
        while at[0] != END:
            if part in (ALL, PASS):
                if together > 1:
                    pass_of_rows(at, k, x, y, g, c, t[0])
                else:
                    for i in range(low, high):
                        e, f = i * PART, min((i + 1) * PART, K)
                        pass_of_row(at, k, p[start, e:f], r[start, e:f], s[start, e:f], q[start, e:f], g, b, t[i])
            if part in (ALL, BETWEEN):
                follow(at, law, k, together, g, t, state)
            if part != ALL and at[0] != END:
                return
        if together > 1:
            apart(x, g[MASS : MASS + LANES], s[start:end], q[start:end])
        _report(
            law, k, p[start:end], r[start:end], a[start:end], q[start:end], s[start:end], v[start:end],
            weight[start:end], mean[start:end], done[start:end], g, state,
        )  # fmt: skip
