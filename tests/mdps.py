"""MDPs for tests, and slow, plain calculations to compare the library with."""

from __future__ import annotations

from fractions import Fraction

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


def exact_values(mdp, choice):
    """V of the deterministic policy `choice` in rational numbers, the rows of P divided by their exact sums."""
    rows = dense(mdp)[np.arange(mdp.states), choice]
    system = []
    for x, row in enumerate(rows):
        move = _distribution(row)
        left = [(x == y) - Fraction(mdp.gamma) * p for y, p in enumerate(move)]
        system.append([*left, Fraction(mdp.R[x, choice[x]])])
    for i in range(mdp.states):  # Gauss and Jordan; I − γP needs no pivots
        system[i] = [entry / system[i][i] for entry in system[i]]
        for j in range(mdp.states):
            factor = system[j][i]
            if j != i and factor:
                system[j] = [a - factor * b for a, b in zip(system[j], system[i])]
    return [row[-1] for row in system]


def exact_certificate(mdp, V):
    """The largest advantage over 1 − γ of exact values V, in rational numbers."""
    gamma, P = Fraction(mdp.gamma), dense(mdp)
    ahead = [[sum(p * v for p, v in zip(_distribution(row), V) if p) for row in rows] for rows in P]
    gap = max(
        Fraction(mdp.R[x, a]) + gamma * ahead[x][a] - V[x] for x in range(mdp.states) for a in range(mdp.actions)
    )
    return gap / (1 - gamma)


def _distribution(row):
    row = [Fraction(p) for p in row]
    total = sum(row)
    return [p / total for p in row]
