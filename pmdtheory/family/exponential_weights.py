r"""Weights e^{r/τ}/Z on the squares: they turn the average over the anchor into one over the ideal policy.

Then q_KL (r − V − τ s) = C q, which q = q_KL solves for every V: the implicit regulariser is switched off. With each
group's own Ẑ_n the weights are random, and it is another law: the expected weight of an action and its expected
weighted advantage decide (``weighted.py``). For binary rewards both are sums over the successes among the other n − 1
rollouts.

References
----------
Statement 20.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from .. import convex, simplex, updates
from ..updates import Update
from . import weighted
from .member import Member


def law(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, rollouts: int | None = None) -> Update:
    """The KL law, or with `rollouts` that of weights e^{r/τ}/Ẑ_n.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`.
    rollouts : int, optional
        n ≥ 2, of a group that estimates its own Ẑ_n and subtracts leave-one-out means; for rewards 0 and 1.

    Examples
    --------
    >>> for n in (None, 4, 16):
    ...     print(law([0.9, 0.1], [0.0, 1.0], tau=0.3, rollouts=n).policy[1].round(3))
    0.757
    0.53
    0.686
    """
    if rollouts is None:
        return updates.kl_update(policy, reward, tau)
    weight, advantage, p, tau = expected(policy, reward, tau, rollouts)
    condition = "a group's own weights need E_p[exp(a/(tau w))] at least 1 nearly (Statement 20)"
    return weighted.solve(p, weight, advantage, tau, condition)


def expected(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, rollouts: int) -> tuple[np.ndarray, ...]:
    """Expected weight and weighted advantage of each action for groups of n with their own Ẑ_n, leave-one-out."""
    simplex.count(rollouts, "rollouts", 2)
    p, r, tau = binary(policy, reward, tau)
    J = np.clip(np.einsum("...k,...k->...", p, r), 0.0, 1.0)
    others = np.arange(rollouts)
    chance = stats.binom.pmf(others, rollouts - 1, J[..., None])
    small = np.exp(-1 / tau)[..., None]  # everything in units of e^{1/τ}
    weights, advantages = [], []
    for own in (0, 1):
        k = (others + own) / rollouts
        w = np.where(own, 1.0, small) / (k + (1 - k) * small)
        weights.append((chance * w).sum(axis=-1))
        advantages.append((chance * w * (own - others / (rollouts - 1))).sum(axis=-1))
    weight, advantage = (np.where(r == 1, high[..., None], low[..., None]) for low, high in (weights, advantages))
    return weight, advantage, p, tau


def binary(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> tuple[np.ndarray, ...]:
    """Check a problem whose rewards must be 0 or 1."""
    p, r, tau = simplex.problem(policy, reward, tau)
    if not np.isin(np.where(p > 0, r, 0.0), (0.0, 1.0)).all():
        raise ValueError("reward must be 0 or 1 on the support of policy where rollouts is given here.")
    return p, np.where(p > 0, r, 0.0), tau


MEMBER = Member(
    name="exponential-weights",
    papers="Xu et al. 2602.05933 as an option; the gradient of KL(q_KL‖q) with a control variate",
    formula="E_p (e^{r/τ}/Z)(r − V − τ s)²",
    decides="weights move the average to the ideal policy",
    law_formula="s = r/τ − log Z",
    exists="always; unique iff V ≤ τ log Z, a local minimum iff V < τ (log Z + 1)",
    statement="20",
    function=law,
    convex=lambda policy, reward, tau, **options: convex.kl(policy, reward, tau, **options),
)
