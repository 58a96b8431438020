"""Random problems for the claims, from easy to numerically hard, batched by the number of actions.

A sampler takes a generator and a number of problems and yields (how many, arguments of the claims) until it has given
that many; the arrays of a claim then have the problems on their leading axis.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import overestimated
from . import moments

_ACTIONS = (2, 3, 4, 6, 10, 30, 100, 300)
_SHARES = (0.25, 0.2, 0.15, 0.15, 0.1, 0.08, 0.05, 0.02)
_BLOCK = 2**14  # numbers per array


def contexts(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """Policy, reward and temperature of every kind.

    Dirichlet, log-uniform (down to 1e-300) and nearly one-hot policies, a quarter with exact zeros; normal, uniform,
    graded, binary, tied and constant rewards, half of them rescaled and half shifted; τ/range in [1e-4, 1e3].
    """
    for K, count in zip(_ACTIONS, rng.multinomial(problems, _SHARES)):
        size = max(1, _BLOCK // K)
        for n in [size] * (count // size) + [count % size] * int(count % size > 0):
            p = _policies(rng, n, K)
            r = _rewards(rng, n, K)
            yield n, (p, r, _temperatures(rng, p, r))


def binary_contexts(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """The same with rewards 0 and 1."""
    for n, (p, r, _) in contexts(rng, problems):
        r = (rng.random(r.shape) < rng.random((n, 1))).astype(float)
        yield n, (p, r, _temperatures(rng, p, r))


def contexts_with_baselines(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """Centred rewards (so that b − E_p[r] is exact) with eight increasing baselines up to τ log Z."""
    for n, (p, r, tau) in contexts(rng, problems):
        p, D = moments.targets(p, r, tau)
        sd, gap = moments.spread(p, D)[:, None], moments.jensen_gap(p, D)[:, None]
        shift = np.concatenate([sd * [-100, -10, -1, -0.1], gap * [0, 0.25, 0.75, 1]], axis=-1)
        yield n, (p, tau[:, None] * D, tau, tau[:, None] * shift)


def contexts_with_high_baselines(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """The same with two baselines between τ log Z and the largest that has a principal-branch solution."""
    for n, (p, r, tau) in contexts(rng, problems):
        p, D = moments.targets(p, r, tau)
        gap = moments.jensen_gap(p, D)[:, None]
        shift = gap + (overestimated.largest_shift(p, D)[:, None] - gap) * [0.1, 0.99]
        yield n, (p, tau[:, None] * D, tau, tau[:, None] * shift)


def contexts_with_errors(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """With an error in each reward, the largest of them from 0.01 to 30 times τ."""
    for n, (p, r, tau) in contexts(rng, problems):
        error = rng.uniform(-1, 1, p.shape)
        yield n, (p, r, tau, error * (tau * 10 ** rng.uniform(-2, 1.5, n))[:, None])


def _policies(rng, n, K):
    exponent = rng.choice([-3.0, -30.0, -300.0], (n, 1))
    one_hot = 10 ** (exponent * rng.uniform(0.9, 1.0, (n, K)))
    one_hot[np.arange(n), rng.integers(K, size=n)] = 1.0
    kinds = [rng.dirichlet(np.full(K, a), n) for a in (0.1, 1.0, 10.0)]
    kinds += [10 ** (exponent * rng.random((n, K))), one_hot]
    p = np.stack(kinds)[rng.integers(len(kinds), size=n), np.arange(n)]
    keep = (rng.random((n, K)) < 0.7) | (rng.random((n, 1)) < 0.75)
    keep[np.arange(n), p.argmax(axis=-1)] = True
    p = np.where(keep & (p > 1e-300), p, 0.0)
    return p / p.sum(axis=-1, keepdims=True)


def _rewards(rng, n, K):
    graded, binary = rng.integers(5, size=(n, K)) / 4, rng.integers(2, size=(n, K)).astype(float)
    tied = np.take_along_axis(rng.normal(size=(n, 3)), rng.integers(3, size=(n, K)), axis=-1)
    kinds = [rng.normal(size=(n, K)), rng.random((n, K)), graded, binary, tied]
    r = np.stack(kinds)[rng.integers(len(kinds), size=n), np.arange(n)]
    r = np.where(rng.random((n, 1)) < 0.03, 1.0, r)
    scale = np.where(rng.random((n, 1)) < 0.5, 10 ** rng.uniform(-6, 6, (n, 1)), 1.0)
    offset = np.where(rng.random((n, 1)) < 0.5, rng.choice([-1, 1], (n, 1)) * 10 ** rng.uniform(-2, 6, (n, 1)), 0.0)
    return scale * r + offset


def _temperatures(rng, p, r):
    width = r.max(axis=-1, where=p > 0, initial=-np.inf) - r.min(axis=-1, where=p > 0, initial=np.inf)
    return np.where(width > 0, width, 1.0) * 10 ** rng.uniform(-4, 3, len(p))
