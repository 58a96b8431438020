r"""Statement 3: PMD-mean maximises a mixed KL–χ² objective.

Let q be the PMD-mean update and λ its multiplier. With λ held fixed, q is the unique maximiser over policies of

.. math:: F(q) = E_q[r] − τ\,\mathrm{KL}(q\|p) − \frac{τλ}{2} χ^2(q\|p).

Assumptions: none.

References
----------
Statement 3; arXiv 2602.05933.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import updates
from . import moments
from .claim import Claim
from .statement import claims


@claims("3")
def mixed_update_agrees(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """`mixed_update` with κ = τλ gives the same policy; relative to how far the policy moves.

    Returns
    -------
    Claim
        L1 distance of the two policies against 0, shape (...).

    Examples
    --------
    >>> mixed_update_agrees([0.2, 0.3, 0.5], [0.0, 0.5, 1.0], tau=0.1).holds
    np.True_
    """
    p, _ = moments.targets(policy, reward, tau)
    update = updates.pmd_mean_update(policy, reward, tau)
    mixed = updates.mixed_update(policy, reward, tau, np.asarray(tau) * update.chi2_weight)
    distance = moments.distance(p, update.log_ratio, mixed.log_ratio)
    moved = moments.distance(p, update.log_ratio, 0.0)
    return Claim("PMD-mean = mixed update with κ = τλ", distance, 0.0, relation="==", scale=moved)


@claims("3")
def mixed_objective_is_largest(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, rivals: int = 4, seed: int = 0
) -> Claim:
    """F(rival) ≤ F(q) for p itself, the KL update, policies close to q and policies drawn at random.

    Parameters
    ----------
    rivals : int
        How many close and how many random ones.
    seed : int
        Of the draws.

    Returns
    -------
    Claim
        (F(rival) − F(p))/τ against (F(q) − F(p))/τ, shape (..., 2 + 2 · rivals).

    Examples
    --------
    >>> claim = mixed_objective_is_largest([0.5, 0.5], [0.0, 1.0], tau=1.0)
    >>> claim.value[:2].round(4), claim.bound.round(4)  # p and the KL update
    (array([0.    , 0.1093]), array([0.1101]))
    """
    p, D = moments.targets(policy, reward, tau)
    update = updates.pmd_mean_update(policy, reward, tau)
    tilts = np.random.default_rng(seed).normal(size=(rivals, *p.shape))
    others = [np.zeros_like(p), updates.kl_update(policy, reward, tau).log_ratio]
    for tilt in tilts:
        near = updates.kl_update(update.policy, 0.1 * tilt, 1.0).log_ratio
        others += [update.log_ratio + near, updates.kl_update(p, 3 * tilt, 1.0).log_ratio]

    def objective(s):
        return moments.improvement(p, s, D) - moments.kl(p, s) - update.chi2_weight / 2 * moments.chi2(p, s)

    values = np.stack([objective(s) for s in others], axis=-1)
    return Claim("F(rival) ≤ F(q) for F = E r − τ KL − (τλ/2) χ²", values, objective(update.log_ratio)[..., None])
