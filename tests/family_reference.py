r"""Laws of losses by nested bisection, from what each loss does to each action and from nothing else.

A loss has, at an action with log-ratio s, an expected coefficient c(s) of ∇log q; it is stationary in softmax logits
where c_y(s_y) = C e^{s_y} for all actions. Divided by a positive factor, c(s) − C e^s becomes a function h(s, C) that
decreases in s: bisection finds s for each C, and bisection in C the one whose policy sums to 1. Expectations over
groups are sums over all of them.
"""

from itertools import product

import numpy as np

EMPTY = -60.0


def problems(rng, count, actions, rewards=("binary", "graded", "normal")):
    """Policies (count, K), rewards of mixed kinds, and temperatures from 0.05 to 10 times their range."""
    p = np.where(rng.random((count, 1)) < 0.7, rng.dirichlet(np.ones(actions), count), 0.0)
    wide = 10 ** rng.uniform(-4, 0, (count, actions))
    p = np.where(p.sum(axis=-1, keepdims=True) > 0, p, wide / wide.sum(axis=-1, keepdims=True))
    kinds = {
        "binary": rng.integers(2, size=(count, actions)).astype(float),
        "graded": rng.integers(4, size=(count, actions)) / 4,
        "normal": rng.normal(size=(count, actions)),
    }
    r = np.stack([kinds[name] for name in rewards])[rng.integers(len(rewards), size=count), np.arange(count)]
    r[:, 0], r[:, 1] = 0.0, 1.0  # never constant
    order = rng.permuted(np.tile(np.arange(actions), (count, 1)), axis=-1)
    r = np.take_along_axis(r, order, axis=-1)
    return p, r, np.ptp(r, axis=-1) * 10 ** rng.uniform(np.log10(0.05), 1, count)


def mean(p, x):
    return (p * x).sum(axis=-1)


def stationary(p, h, low, high, upper=None):
    """Policies (N, K) with E_p[e^s] = 1 and h(s, C) = 0.

    Parameters
    ----------
    h : callable
        ``h(s, C)`` of arrays (N, K) and (N, 1), decreasing in s up to the upper end, and in C.
    low, high : array (N,)
        Brackets of C.
    upper : callable, optional
        ``upper(C)``, the largest s of the branch meant; where h is positive there, C is too low.
    """
    low, high = np.array(low, dtype=float)[:, None], np.array(high, dtype=float)[:, None]

    def log_ratios(C):
        a, b = np.full(p.shape, EMPTY), -np.log(p) + 1
        if upper is not None:
            b = np.minimum(b, upper(C))
        beyond = (h(b, C) > 0) if upper is not None else np.zeros(p.shape, dtype=bool)
        for _ in range(64):
            middle = (a + b) / 2
            right = h(middle, C) > 0
            a, b = np.where(right, middle, a), np.where(right, b, middle)
        return (a + b) / 2, beyond.any(axis=-1, keepdims=True)

    for _ in range(64):
        C = (low + high) / 2
        s, beyond = log_ratios(C)
        more = beyond | (mean(p, np.exp(s))[:, None] > 1)
        low, high = np.where(more, C, low), np.where(more, high, C)
    q = p * np.exp(log_ratios(high)[0])
    return q / q.sum(axis=-1, keepdims=True), q.sum(axis=-1)


def regression(p, weight, advantage, tau):
    """Of c(s) = a − τ w s on the principal branch, for any sign of C."""
    t = tau[:, None] * weight
    top = (np.abs(advantage) + t).max(axis=-1)
    convex = mean(p, np.exp(np.minimum(advantage / t, 700))) >= 1

    def upper(C):
        with np.errstate(divide="ignore"):
            return np.where(C < 0, np.log(t / np.maximum(-C, 1e-300)), np.inf)

    def h(s, C):
        return advantage - t * s - C * np.exp(s)

    low = np.where(convex, 0.0, -(t.max(axis=-1)) * np.exp(50.0))
    # Below zero the multiplier is bracketed in its logarithm.
    q, mass = stationary(p, h, low * 0, top)
    if (~convex).any():
        i = ~convex

        def negative(s, x):
            return advantage[i] - t[i] * s + np.exp(-x) * np.exp(s)

        def branch(x):
            return np.log(t[i]) + x

        q[i], mass[i] = stationary(p[i], negative, np.full(i.sum(), -50.0), np.full(i.sum(), 50.0), branch)
    return q, mass


def groups(p, r, n):
    """All groups of n − 1 other rollouts: (chance (N,), their rewards (N, n − 1)) one after the other."""
    for others in product(range(p.shape[1]), repeat=n - 1):
        others = list(others)
        yield p[:, others].prod(axis=-1), r[:, others]


def expected(p, r, n, coefficients):
    """Sum over all groups; ``coefficients(own (N, 1), others (N, n − 1)) -> tuple of (N,)`` for each own action."""
    totals = None
    for chance, others in groups(p, r, n):
        columns = [coefficients(r[:, y], others) for y in range(p.shape[1])]
        values = [chance[:, None] * np.stack(each, axis=-1) for each in zip(*columns)]
        totals = values if totals is None else [a + b for a, b in zip(totals, values)]
    return totals
