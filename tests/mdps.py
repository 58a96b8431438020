"""MDPs for tests, and slow, plain calculations to compare the library with."""

from __future__ import annotations

import numpy as np

from pmdtheory.mdp import chain, deep_sea, from_gymnasium, garnet, gridworld


def examples():
    """One MDP of each kind, small enough for an oracle."""
    rng = np.random.default_rng(3)
    return {
        "garnet": garnet(30, 4, 5, rng, gamma=0.95),
        "sparse garnet": garnet(40, 3, 2, rng, gamma=0.9, sparse=True),
        "chain": chain(12),
        "gridworld": gridworld(5, 6, slip=0.2, walls=[(1, 1), (2, 1), (3, 4)], sparse=True),
        "deep sea": deep_sea(6),
        "FrozenLake 4x4": from_gymnasium("FrozenLake-v1", 0.99),
        "FrozenLake 8x8": from_gymnasium("FrozenLake-v1", 0.99, map_name="8x8"),
        "Taxi": from_gymnasium("Taxi-v4", 0.99),
        "CliffWalking": from_gymnasium("CliffWalking-v1", 0.99),
    }


def dense(mdp):
    """P of shape (S, A, S)."""
    return mdp.P.toarray().reshape(mdp.states, mdp.actions, mdp.states) if mdp.is_sparse else mdp.P


def random_policy(rng, mdp):
    """A policy with some actions of probability 0."""
    weight = rng.exponential(size=mdp.R.shape) ** 2 * (rng.random(mdp.R.shape) < 0.8)
    weight[:, 0] += 1e-3
    return weight / weight.sum(axis=1, keepdims=True)


def fixed_point(mdp, choose, sweeps):
    """Iterate V ← choose(R + γ P V), one sum at a time over next states."""
    P, V = dense(mdp), np.zeros(mdp.states)
    for _ in range(sweeps):
        V = choose(mdp.R + mdp.gamma * np.einsum("xay,y->xa", P, V))
    return V
