r"""Statement 25: standardised advantages are a temperature that adapts.

By the population's σ: PMD-mean at τσ. By the group's σ̂_n, binary: PMD-mean at τσ²/E[σ̂_n].

Assumptions: rewards 0 and 1 for the second.

References
----------
Statement 25.
"""

from math import comb

import numpy as np
from numpy.typing import ArrayLike

from .. import family
from ..family import standardised
from . import family_problems, moments
from .claim import Claim
from .statement import claims

_GROUPS = (2, 3, 8)


@claims("25", family_problems.binary)
def stationary_over_all_groups(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """The gradient summed over the successes among the other rollouts, for n = 2, 3, 8; shape (..., 3).

    Examples
    --------
    >>> stationary_over_all_groups([0.9, 0.1], [0.0, 1.0], 1.0).holds
    array([ True,  True,  True])
    """
    p, r, tau = (np.asarray(x, dtype=float) for x in (policy, reward, tau))
    J, values = moments.mean(p, r)[..., None], []
    for n in _GROUPS:
        s = family.MEMBERS["standardised"].law(p, r, tau, rollouts=n).log_ratio
        advantage = np.zeros(p.shape)
        for k in range(n):
            mean = (k + r) / n
            sd = np.sqrt(mean * (1 - mean))
            chance = comb(n - 1, k) * J**k * (1 - J) ** (n - 1 - k)
            advantage += np.where(sd > 0, chance * (r - mean) / np.where(sd > 0, sd, 1.0), 0.0)
        gradient = p * (advantage - tau[..., None] * s)
        gradient -= p * np.exp(s) * gradient.sum(axis=-1, keepdims=True)
        values.append(np.abs(gradient).sum(axis=-1) / (1 + tau * np.abs(s).max(axis=-1)))
    return Claim("σ̂_n: stationary over all groups", np.stack(values, axis=-1), 0.0, relation="==", scale=1.0)


@claims("25", family_problems.binary)
def no_vanishing_temperature(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """σ²/E[σ̂_n] ≥ (1 − J)/√(n − 1): the temperature of hard prompts stays away from 0; shape (..., 3).

    With k successes σ̂_n ≤ √(n − 1) k/n, so E[σ̂_n] ≤ J √(n − 1).
    """
    p, r, tau = (np.asarray(x, dtype=float) for x in (policy, reward, tau))
    J = moments.mean(p, r)
    factor = np.stack([standardised.effective(p, r, tau, n) / tau for n in _GROUPS], axis=-1)
    return Claim("σ²/E[σ̂_n] ≥ (1 − J)/√(n − 1)", (1 - J)[..., None] / np.sqrt(np.array(_GROUPS) - 1), factor)


@claims("25", family_problems.binary)
def population_deviation(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """s + λ e^s = A/(στ) for the population's σ: A/(στ) − s is one multiple of ρ."""
    p, D = moments.targets(policy, reward, tau)
    s = family.MEMBERS["standardised"].law(policy, reward, tau).log_ratio
    target = D / (np.asarray(tau)[..., None] * moments.spread(p, D)[..., None])
    pull = p * (target - s)
    left = np.abs(pull - p * np.exp(s) * pull.sum(axis=-1, keepdims=True)).sum(axis=-1)
    size = moments.mean(p, np.abs(target) + np.abs(s))
    return Claim("(A/(στ) − s)/ρ = λ for all actions", left, 0.0, relation="==", scale=1 + size)
