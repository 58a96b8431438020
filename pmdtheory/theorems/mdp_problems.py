"""Random MDPs for the claims of Statements 15 and 16, in the manner of ``problems.py``.

A whole iteration on an MDP costs what thousands of single contexts do, so a sampler gives a tenth of the problems
asked for, but at least 40 (or all, if fewer are asked for). It yields them one by one: ``(1, arguments)``.

Nine in ten are Garnet MDPs with 3 to 20 states and 2 to 6 actions, the others chains and gridworlds with slip and one
terminal state. γ is uniform in [0.3, 0.97], the start distribution uniform or Dirichlet, rewards lie in [0, 1].
Policies are uniform, Dirichlet(1) or nearly one-hot Dirichlet(0.1) in each state; one in ten excludes some actions.
Temperatures are log-uniform in [1e-3, 10].
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..mdp import MDP, chain, garnet, gridworld, iterate
from . import problems as contexts

_SHARE, _LEAST = 10, 40


def count(problems: int) -> int:
    """How many MDPs stand for that many problems."""
    return min(problems, max(_LEAST, problems // _SHARE))


def mdps(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """MDP, policy and temperature (which is c₀ where steps are adaptive)."""
    for _ in range(count(problems)):
        mdp = _mdp(rng)
        yield 1, (mdp, _policy(rng, mdp, zeros=rng.random() < 0.1), 10 ** rng.uniform(-3, 1))


def mdps_with_errors(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """The same with an evaluation error ε, log-uniform in [1e-3, 0.3]."""
    for size, arguments in mdps(rng, problems):
        yield size, (*arguments, 10 ** rng.uniform(-3, -0.5))


def mdps_with_lookahead(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """The same with a lookahead of 2 to 4."""
    for size, arguments in mdps(rng, problems):
        yield size, (*arguments, int(rng.integers(2, 5)))


def episodic_mdps(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """The same with one state made terminal: every action stays there, with reward 0."""
    for size, (mdp, *rest) in mdps(rng, problems):
        P, R, end = mdp.P.copy(), mdp.R.copy(), rng.integers(mdp.states)
        P[end], R[end] = np.eye(mdp.states)[end], 0.0
        yield size, (MDP(P, R, mdp.gamma, mdp.rho), *rest)


def mdps_with_policies(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """MDP and eight policies: random ones, a deterministic one, and those of four PMD-mean iterations."""
    for size, (mdp, policy, tau) in mdps(rng, problems):
        visited = iterate(mdp, policy, tau=tau, steps=4, keep=["policy"]).kept["policy"]
        others = [
            _policy(rng, mdp),
            _policy(rng, mdp, zeros=True),
            np.eye(mdp.actions)[rng.integers(mdp.actions, size=mdp.states)],
        ]
        yield size, (mdp, np.concatenate([visited, others]))


def regularised_mdps(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """MDP, positive policy, entropy weight μ in [1e-3, 1], and η from 0.5 to 600 times (1−γ)/(γμ)."""
    for _ in range(count(problems)):
        mdp = _mdp(rng)
        weight = 10 ** rng.uniform(-3, 0)
        eta = (1 - mdp.gamma) / (mdp.gamma * weight) * 10 ** rng.uniform(-0.3, 2.8)
        yield 1, (mdp, _policy(rng, mdp), weight, eta)


def unit_contexts(rng: np.random.Generator, problems: int) -> Iterator[Any]:
    """Policy and rewards of single contexts (all of them), the rewards rescaled to [0, 1]."""
    for size, (policy, reward, _) in contexts.contexts(rng, problems):
        low, high = (f(reward, axis=-1, keepdims=True) for f in (np.min, np.max))
        yield size, (policy, np.clip((reward - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0))


def _mdp(rng):
    gamma = rng.uniform(0.3, 0.97)
    kind = rng.choice(["garnet", "chain", "gridworld"], p=[0.9, 0.05, 0.05])
    if kind == "chain":
        mdp = chain(int(rng.integers(3, 13)), slip=rng.uniform(0, 0.4), gamma=gamma)
    elif kind == "gridworld":
        height, width = rng.integers(2, 5, size=2)
        mdp = gridworld(int(height), int(width), slip=rng.uniform(0, 0.5), gamma=gamma)
    else:
        S, A = int(rng.integers(3, 21)), int(rng.integers(2, 7))
        mdp = garnet(S, A, int(rng.integers(1, S + 1)), rng, gamma=gamma)
    if kind == "garnet" and rng.random() < 0.5:
        mdp = MDP(mdp.P, mdp.R, gamma, rng.dirichlet(np.ones(mdp.states)))
    return mdp


def _policy(rng, mdp, zeros=False):
    concentration = rng.choice([np.inf, 1.0, 0.1])
    if np.isinf(concentration):
        policy = mdp.uniform_policy()
    else:
        policy = np.maximum(rng.dirichlet(np.full(mdp.actions, concentration), mdp.states), 1e-100)
    if zeros:
        kept = rng.random(policy.shape) < 0.7
        kept[np.arange(mdp.states), policy.argmax(axis=1)] = True
        policy = policy * kept
    return policy / policy.sum(axis=1, keepdims=True)
