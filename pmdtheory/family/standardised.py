r"""Advantages divided by their standard deviation.

By that of the population it is PMD-mean at temperature τ σ. By that of the group (1/n in it), binary rewards: only the
expected advantage of either reward matters, and their difference is E[σ̂_n]/σ², so it is PMD-mean at τ σ²/E[σ̂_n].

References
----------
Statement 25.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from .. import convex, simplex, updates
from ..updates import Update
from .exponential_weights import binary
from .member import Member


def law(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, rollouts: int | None = None) -> Update:
    """PMD-mean at τ σ, or at τ σ²/E[σ̂_n].

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`; τ is dimensionless here, in standard deviations.
    rollouts : int, optional
        n ≥ 2 of a group that is standardised by itself, its 0/0 being 0; for rewards 0 and 1.

    Returns
    -------
    Update
        Where the reward is constant nothing moves.

    Examples
    --------
    >>> law([0.5, 0.5], [0.0, 1.0], tau=2.0).policy.round(4)
    array([0.2862, 0.7138])
    """
    return updates.pmd_mean_update(policy, reward, effective(policy, reward, tau, rollouts))


def effective(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, rollouts: int | None = None) -> np.ndarray:
    """Temperature of PMD-mean in reward units, (...); τ itself where the reward is constant."""
    if rollouts is None:
        p, r, tau = simplex.problem(policy, reward, tau)
    else:
        simplex.count(rollouts, "rollouts", 2)
        p, r, tau = binary(policy, reward, tau)
    D = updates.centred_targets(p, r, tau)[0]
    sd = tau * np.sqrt(np.einsum("...k,...k->...", p, D * D))
    factor = np.where(sd > 0, sd, 1.0)
    if rollouts is not None:
        k = np.arange(1, rollouts)
        J = np.clip(np.einsum("...k,...k->...", p, r), 0.0, 1.0)
        spread = np.sqrt(k / rollouts * (1 - k / rollouts))
        expected = (stats.binom.pmf(k, rollouts, J[..., None]) * spread).sum(axis=-1)
        factor = np.where(sd > 0, sd**2 / np.where(sd > 0, expected, 1.0), 1.0)
    return tau * factor


MEMBER = Member(
    name="standardised",
    papers="GRPO 2402.03300 (its advantages) in a regression",
    formula="E_p ((r − r̄)/σ − τ s)²",
    decides="a temperature that adapts to the prompt",
    law_formula="PMD-mean at τσ; by the group's σ̂_n, binary: at τσ²/E[σ̂_n]",
    exists="always",
    statement="25",
    function=law,
    convex=lambda policy, reward, tau, rollouts=None, **options: convex.regression(
        policy, reward, effective(policy, reward, tau, rollouts), **options
    ),
)
