r"""Statement 27: Kimi K2.5's form, E_p[ρ A − τ log²ρ].

.. math:: \frac{\log ρ}{ρ} = \frac{A − m}{2τ}, \quad ρ ≤ e.

For binary rewards a solution exists iff J ≥ 1/e or τ ≥ 1/(2h), and it is bolder than PMD-mean at 2τ iff J < J' < 1 − J.

Assumptions: rewards 0 and 1, and that the solution exists.

References
----------
Statement 27.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import family, updates
from ..family import kimi_k25
from . import family_problems, moments
from .claim import Claim
from .statement import claims


@claims("27", family_problems.binary)
def stationary(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """The gradient q A − 2τ p s of the objective, less its share in q, vanishes.

    Examples
    --------
    >>> stationary([0.7, 0.3], [0.0, 1.0], 0.1).holds
    np.True_
    """
    p, r, tau, s, exists = _law(policy, reward, tau)
    q = p * np.exp(s)
    pull = q * (r - moments.mean(p, r)[..., None]) - 2 * tau[..., None] * p * s
    left = np.abs(pull - q * pull.sum(axis=-1, keepdims=True)).sum(axis=-1)
    return Claim("q A − 2τ p s = m q", left, 0.0, exists, "==", 1 + tau)


@claims("27", family_problems.binary)
def ratios_are_at_most_e(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """ρ ≤ e, the branch on which the objective is concave."""
    p, _, _, s, exists = _law(policy, reward, tau)
    return Claim("ρ ≤ e", np.exp(moments.extremes(p, s)[1]), np.e, exists)


@claims("27", family_problems.binary)
def existence(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """The law is refused below the smallest τ of the closed form and given above: 1 if right, against 1."""
    *_, exists = _law(policy, reward, tau)
    J, t = moments.mean(np.asarray(policy), reward), np.asarray(tau)
    smallest = kimi_k25.smallest_tau(J)
    clear = np.abs(t - smallest) > 1e-9 * smallest
    right = exists == (t >= smallest)
    return Claim("exists iff J ≥ 1/e or τ ≥ 1/(2h)", 1.0 * right, np.ones(J.shape), clear, "==")


@claims("27", family_problems.binary)
def bolder_than_pmd_mean_on_hard_prompts(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """J' exceeds that of PMD-mean at 2τ where J < J' < 1 − J, and is below where not."""
    p, r, tau, s, exists = _law(policy, reward, tau)
    J, after = moments.mean(p, r), moments.mean(p * np.exp(s), r)
    other = moments.mean(updates.pmd_mean_update(p, r, 2 * tau).policy, r)
    sign = np.where(after < 1 - J, 1.0, -1.0)
    clear = exists & (np.abs(after - (1 - J)) > 1e-7)
    return Claim("bolder than PMD-mean at 2τ iff J < J' < 1 − J", sign * other, sign * after, clear, scale=1.0)


@claims("27", family_problems.binary)
def ascent_from_the_anchor_ends_there(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """Between p and the law the gain from moving mass from failures to successes is positive: E_p[ρA − τ log²ρ] rises.

    Returns
    -------
    Claim
        Minus the gain at a tenth to nine tenths of the way, against 0; shape (..., 9).
    """
    p, r, tau, s, exists = _law(policy, reward, tau)
    J, after = moments.mean(p, r)[..., None], moments.mean(p * np.exp(s), r)[..., None]
    now = J + (after - J) * np.arange(1, 10) / 10
    success, failure = now / J, (1 - now) / (1 - J)
    gain = 1 - 2 * tau[..., None] * (np.log(success) / success - np.log(failure) / failure)
    return Claim("the ascent from p ends at this law", -gain, 0.0, exists[..., None], scale=1.0)


def _law(policy, reward, tau):
    """p, r, τ, log-ratios and where they exist (elsewhere those of a large τ stand in)."""
    p, r, tau = (np.asarray(x, dtype=float) for x in (policy, reward, tau))
    exists = kimi_k25.has_law(p, r, tau)
    tau = np.where(exists, tau, 1e3)
    return p, r, tau, family.MEMBERS["kimi-k2.5"].law(p, r, tau).log_ratio, exists
