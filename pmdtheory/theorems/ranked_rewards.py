r"""Statement 29: ranks of rewards have a known partition function, up to ties.

.. math:: b = τ \log(τ (e^{1/τ} − 1)), \qquad τ \log E_p[e^{\mathrm{mid}/τ}] ≤ b ≤ τ \log E_p[e^{F/τ}],

and equality for R_k = τ log(τ (e^{F_k/τ} − e^{F_{k−1}/τ})/P_k).

Assumptions: none; τ in units of a rank.

References
----------
Statement 29.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import family, updates
from ..family import quantile
from . import family_problems, moments
from .claim import Claim
from .statement import claims


@claims("29", family_problems.contexts)
def known_partition_function(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """b against τ log Z of the three kinds of ranks: middle ≤ b ≤ at most, and exact.

    Returns
    -------
    Claim
        Shape (..., 4).

    Examples
    --------
    >>> claim = known_partition_function([0.5, 0.5], [0.0, 1.0], 0.1)
    >>> claim.value.round(3), claim.bound.round(3)
    (array([0.681, 0.77 , 0.77 , 0.77 ]), array([0.77 , 0.931, 0.77 , 0.77 ]))
    """
    t = _in_ranks(reward, tau)
    log_z = {}
    for ranks in ("middle", "at-most", "exact"):
        p, rank, _, b = quantile._parts(policy, reward, t, ranks)
        log_z[ranks] = updates.kl_update(p, rank, t).baseline
    value = np.stack([log_z["middle"], b, log_z["exact"], b], axis=-1)
    bound = np.stack([b, log_z["at-most"], b, log_z["exact"]], axis=-1)
    return Claim("mid-ranks ≤ b = exact ≤ P(r' ≤ r), τ log Z", value, bound, scale=1.0)


@claims("29", family_problems.contexts)
def published_ranks_are_cautious(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """With P(r' ≤ r) the law has λ ≥ 0, and E_q[rank] at most that of its own KL update; shape (..., 2)."""
    t = _in_ranks(reward, tau)
    p, rank, *_ = quantile._parts(policy, reward, t, "at-most")
    law, ideal = family.MEMBERS["quantile"].law(policy, reward, t), updates.kl_update(p, rank, t)
    value = np.stack([-law.chi2_weight, moments.mean(law.policy, rank)], axis=-1)
    bound = np.stack([np.zeros(t.shape), moments.mean(ideal.policy, rank)], axis=-1)
    return Claim("P(r' ≤ r): λ ≥ 0, below the KL law of its rank", value, bound, scale=1.0)


@claims("29", family_problems.contexts)
def exact_for_ties(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """A level's mass under the exact ranks is the integral of e^{u/τ} over its stretch of ranks, over the whole."""
    t = _in_ranks(reward, tau)
    p, r = np.asarray(policy, dtype=float), np.asarray(reward, dtype=float)
    law = family.MEMBERS["quantile"].law(policy, reward, t, ranks="exact").policy
    same, below = r[..., :, None] == r[..., None, :], r[..., :, None] > r[..., None, :]
    mass, start = (np.einsum("...jk,...k->...j", x, p) for x in (same, below))
    stretch = np.exp((start - 1) / t[..., None]) * np.expm1(mass / t[..., None]) / -np.expm1(-1 / t)[..., None]
    value = np.einsum("...jk,...k->...j", same, law)
    return Claim("exact ranks: mass of a level = ∫ e^{u/τ} du/Z", value, stretch, relation="==", scale=1.0)


def _in_ranks(reward, tau):
    """τ in units of a rank: over the range of the reward, and not below 0.05, so that e^{1/τ} keeps its digits."""
    return np.maximum(np.asarray(tau) / np.ptp(np.asarray(reward), axis=-1), 0.05)
