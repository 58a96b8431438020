r"""Statement 26: rollouts from g, log-ratios against p.

.. math:: s + λ (p/g) e^s = (r − E_g[r])/τ, \qquad E_q[r] ≥ E_g[r] + τ\,\mathrm{KL}(q\|p).

Assumptions: E_g[r] ≤ τ log Z.

References
----------
Statement 26.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import family, updates
from . import family_problems, moments
from .claim import Claim
from .statement import claims


@claims("26", family_problems.with_sampler)
def better_than_the_sampler(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, sampler: ArrayLike) -> Claim:
    """E_q[r] ≥ E_g[r] + τ KL(q‖p): at least as good as what was sampled, not always as the anchor.

    Parameters
    ----------
    sampler : array_like, shape (..., K)
        g.

    Examples
    --------
    >>> claim = better_than_the_sampler([0.9, 0.1], [0.0, 1.0], 1.0, [0.85, 0.15])
    >>> claim.value.round(4), claim.bound.round(4)
    (np.float64(0.2225), np.float64(0.231))
    """
    law = family.MEMBERS["mismatch"].law(policy, reward, tau, sampler=sampler)
    p, r = np.asarray(policy, dtype=float), np.asarray(reward, dtype=float)
    sampled = moments.mean(np.asarray(sampler, dtype=float), r)
    value = sampled + np.asarray(tau) * moments.kl(p, law.log_ratio)
    return Claim("E_q r ≥ E_g r + τ KL(q‖p)", value, moments.mean(law.policy, r), scale=1 + np.abs(r).max(axis=-1))


@claims("26", family_problems.with_sampler)
def stationary(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, sampler: ArrayLike) -> Claim:
    """g (r − E_g[r] − τ s)/q is one number for all actions."""
    law = family.MEMBERS["mismatch"].law(policy, reward, tau, sampler=sampler)
    g, r, t = (np.asarray(x, dtype=float) for x in (sampler, reward, tau))
    pull = g * (r - moments.mean(g, r)[..., None] - t[..., None] * law.log_ratio)
    left = pull - law.policy * pull.sum(axis=-1, keepdims=True)
    size = 1 + np.abs(r).max(axis=-1) + t * np.abs(law.log_ratio).max(axis=-1)
    return Claim("g (r − E_g r − τs) = C q", np.abs(left).sum(axis=-1), 0.0, relation="==", scale=size)


@claims("26", family_problems.with_sampler)
def anchor_at_the_sampler(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, sampler: ArrayLike) -> Claim:
    """With the sampler as anchor it is PMD-mean."""
    law = family.MEMBERS["mismatch"].law(sampler, reward, tau, sampler=sampler)
    other = updates.pmd_mean_update(sampler, reward, tau)
    distance = np.abs(law.policy - other.policy).sum(axis=-1)
    return Claim("g = p: PMD-mean", distance, 0.0, relation="==", scale=1.0)
