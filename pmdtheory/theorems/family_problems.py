"""Random problems for the statements about the family of losses, batched by the number of actions.

The laws themselves are the package's updates, tried to their limits elsewhere; here policies are Dirichlet or
log-uniform down to 1e-4 and τ/range lies in [0.03, 30], so that groups of rollouts can be enumerated and residuals
keep their digits.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import updates

_ACTIONS, _SHARES = (2, 3, 5, 8), (0.3, 0.3, 0.25, 0.15)


def contexts(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """Policy, reward (binary, graded or normal, never constant) and temperature."""
    for K, n in zip(_ACTIONS, rng.multinomial(problems, _SHARES)):
        if n:
            yield n, _context(rng, n, K, ("binary", "graded", "normal"))


def binary(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """The same with rewards 0 and 1."""
    for K, n in zip(_ACTIONS, rng.multinomial(problems, _SHARES)):
        if n:
            yield n, _context(rng, n, K, ("binary",))


def two_actions(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """One success and one failure, and a clip range on either side, uniform in (0, 1)."""
    p, r, tau = _context(rng, problems, 2, ("binary",))
    yield problems, (p, r, tau, *rng.uniform(0, 1, (2, problems)))


def weighted(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """With a baseline at most τ log Z, weights over four decades, and a cap from 0.01 to 100."""
    for n, (p, r, tau) in contexts(rng, problems):
        mean, ideal = np.einsum("nk,nk->n", p, r), updates.kl_update(p, r, tau).baseline
        baseline = mean + rng.uniform(-2, 1, n) * (ideal - mean)
        yield n, (p, r, tau, baseline, 10 ** rng.uniform(-2, 2, p.shape), 10 ** rng.uniform(-2, 2, n))


def with_two_temperatures(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """With a first temperature between τ and 100 τ."""
    for n, problem in contexts(rng, problems):
        yield n, (*problem, problem[-1] * 10 ** rng.uniform(0.01, 2, n))


def with_lengths(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """With lengths from 1 to 200."""
    for n, problem in contexts(rng, problems):
        yield n, (*problem, rng.integers(1, 201, problem[0].shape))


def with_sampler(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """With a sampler of mean reward at most τ log Z of the anchor, near it or far; else the anchor tilted down."""
    for n, (p, r, tau) in contexts(rng, problems):
        g = updates.kl_update(p, rng.normal(size=p.shape), 10 ** rng.uniform(-0.5, 2, n)).policy
        above = np.einsum("nk,nk->n", g, r) > updates.kl_update(p, r, tau).baseline
        low = updates.kl_update(p, -r, np.ptp(r, axis=-1)).policy
        yield n, (p, r, tau, np.where(above[:, None], low, g))


def _context(rng, n, K, kinds):
    wide = 10 ** rng.uniform(-4, 0, (n, K))
    p = np.where(rng.random((n, 1)) < 0.7, rng.dirichlet(np.ones(K), n) + 1e-6, wide)
    p /= p.sum(axis=-1, keepdims=True)
    rewards = {
        "binary": rng.integers(2, size=(n, K)).astype(float),
        "graded": rng.integers(5, size=(n, K)) / 4,
        "normal": rng.normal(size=(n, K)),
    }
    r = np.stack([rewards[name] for name in kinds])[rng.integers(len(kinds), size=n), np.arange(n)]
    r[:, 0], r[:, 1] = 0.0, 1.0
    r = rng.permuted(r, axis=-1)
    return p, r, np.ptp(r, axis=-1) * 10 ** rng.uniform(np.log10(0.03), np.log10(30), n)
