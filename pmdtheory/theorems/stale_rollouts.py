r"""Statement 33: rollouts from another policy than the one that is updated.

Let g be the sampler, of the support of p, Ω = max log(g/p) − min log(g/p) and R the range of the rewards. With anchor g
instead of p (stale rollouts, log-ratios against their sampler) the updates differ in L1 by at most

.. math:: \text{KL: } 2\tanh\tfrac Ω4, \qquad \text{PMD-mean: } 2Ω\Big(1 + \frac{R}{4τ}\Big),

and with rollouts from g but log-ratios against p (Statement 26) PMD-mean differs from that with anchor g by at most
2Ω + 2 KL(g‖p). One step changes log π by a function of range at most R/τ.

References
----------
Statement 33.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import family, updates
from . import family_problems, moments
from .claim import Claim
from .statement import claims


@claims("33", family_problems.with_sampler)
def stale_anchor_of_the_kl_update(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, sampler: ArrayLike) -> Claim:
    """‖q_g − q_p‖₁ ≤ 2 tanh(Ω/4).

    Parameters
    ----------
    sampler : array_like, shape (..., K)
        g.
    """
    moved = _distance(updates.kl_update, policy, reward, tau, sampler)
    return Claim("KL from g or p: ‖q−q'‖₁ ≤ 2 tanh(Ω/4)", moved, 2 * np.tanh(_spread(policy, sampler) / 4), scale=1.0)


@claims("33", family_problems.with_sampler)
def stale_anchor(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, sampler: ArrayLike) -> Claim:
    """‖q_g − q_p‖₁ ≤ 2Ω (1 + R/(4τ)).

    Examples
    --------
    >>> claim = stale_anchor([0.9, 0.1], [0.0, 1.0], 1.0, [0.85, 0.15])
    >>> claim.value.round(4), claim.bound.round(4)
    (np.float64(0.1729), np.float64(1.1566))
    """
    moved = _distance(updates.pmd_mean_update, policy, reward, tau, sampler)
    bound = 2 * _spread(policy, sampler) * (1 + np.ptp(reward, axis=-1) / (4 * np.asarray(tau)))
    return Claim("PMD-mean from g or p: ‖q−q'‖₁ ≤ 2Ω(1+R/4τ)", moved, bound, scale=1.0)


@claims("33", family_problems.with_sampler)
def mismatched_sampler(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, sampler: ArrayLike) -> Claim:
    """‖q − q_g‖₁ ≤ 2Ω + 2 KL(g‖p), q with rollouts from g and log-ratios against p, E_g[r] ≤ τ log Z."""
    g, p = (np.asarray(x, dtype=float) for x in (sampler, policy))
    law = family.MEMBERS["mismatch"].law(p, reward, tau, sampler=g).policy
    moved = np.abs(law - updates.pmd_mean_update(g, reward, tau).policy).sum(axis=-1)
    bound = 2 * _spread(p, g) + 2 * moments.mean(g, np.log(g / p))
    return Claim("sampler g, anchor p or g: ‖q−q'‖₁ ≤ 2Ω+2KL(g‖p)", moved, bound, scale=1.0)


@claims("33", family_problems.with_sampler)
def one_step(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, sampler: ArrayLike) -> Claim:
    """max s − min s ≤ R/τ: each step of lag adds at most that to Ω."""
    s = updates.pmd_mean_update(policy, reward, tau).log_ratio
    return Claim("max s − min s ≤ R/τ", np.ptp(s, axis=-1), np.ptp(reward, axis=-1) / np.asarray(tau))


def _spread(policy, sampler):
    return np.ptp(np.log(np.asarray(sampler, dtype=float) / np.asarray(policy, dtype=float)), axis=-1)


def _distance(update, policy, reward, tau, sampler):
    return np.abs(update(sampler, reward, tau).policy - update(policy, reward, tau).policy).sum(axis=-1)
