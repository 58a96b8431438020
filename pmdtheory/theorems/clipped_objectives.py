r"""Statement 30: clipped objectives have no interior law; CISPO has one.

PPO's surrogate from q = p with two atoms moves until the last of the two ratios is clipped:

.. math:: J' = J + \max(ε_h J, ε_l (1 − J)) \quad \text{if } (1 + ε_h) J < 1, \text{ else } 1.

Assumptions: one success, one failure, 0 < ε_l, ε_h < 1.

References
----------
Statement 30.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import family
from . import family_problems, moments
from .claim import Claim
from .statement import claims


@claims("30", family_problems.two_actions)
def stops_when_the_last_class_clips(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, clip_low: ArrayLike, clip_high: ArrayLike
) -> Claim:
    """The flow of the success rate is positive below J' and zero there and beyond.

    Parameters
    ----------
    clip_low, clip_high : array_like, shape (...)
        ε_l and ε_h.

    Returns
    -------
    Claim
        Minus the flow over J (1 − J) at x, a tenth to nine tenths of the way from J to J', against −x (1 − x), and its
        size halfway from J' to 1 (where (1 + ε_h) J < 1) against 0; shape (..., 10).

    Examples
    --------
    >>> stops_when_the_last_class_clips([0.9, 0.1], [0.0, 1.0], 1.0, 0.2, 0.2).holds.all()
    np.True_
    """
    r = np.asarray(reward, dtype=float)
    J, low, high = moments.mean(np.asarray(policy), r), np.asarray(clip_low, float), np.asarray(clip_high, float)
    after = np.where((1 + high) * J < 1, J + np.maximum(high * J, low * (1 - J)), 1.0)
    before = J[..., None] + (after - J)[..., None] * np.arange(1, 10) / 10
    value = [-_flow(J[..., None], before, low[..., None], high[..., None]) / (J * (1 - J))[..., None]]
    value.append(_flow(J, (after + 1) / 2, low, high)[..., None] * ((1 + high) * J < 1)[..., None])
    bound = np.concatenate([-before * (1 - before), np.zeros((*J.shape, 1))], axis=-1)
    return Claim("PPO: stops when the last class clips", np.concatenate(value, axis=-1), bound, scale=1.0)


@claims("30", family_problems.two_actions)
def cispo_is_stationary(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, clip_low: ArrayLike, clip_high: ArrayLike
) -> Claim:
    """min(ρ, c) A/ρ = C where q has mass, and at most C where it has none; c = 2 ε_h here.

    Returns
    -------
    Claim
        E_q|…/ρ − C| and the largest excess of A over C among the emptied, against 0; shape (..., 2).
    """
    p, D = moments.targets(policy, reward, tau)
    A, c = np.asarray(tau, float)[..., None] * D, 2 * np.asarray(clip_high, float)
    law = family.MEMBERS["cispo"].law(policy, reward, tau, cap=c)
    q = law.policy
    each = np.minimum(1.0, c[..., None] * np.divide(p, q, out=np.full(p.shape, np.inf), where=q > 0)) * A
    C = moments.mean(q, each)
    spread = moments.mean(q, np.abs(each - C[..., None]))
    emptied = np.where(q == 0, A - C[..., None], -np.inf).max(axis=-1)
    value = np.stack([spread, np.maximum(emptied, 0.0)], axis=-1)
    return Claim("CISPO: min(ρ, c) A/ρ = C on its support", value, 0.0, scale=np.abs(A).max(axis=-1)[..., None])


def _flow(J, now, low, high):
    """d(success rate)/dt of softmax logits: covariance of the unclipped ρA with the reward."""
    success, failure = now / J, (1 - now) / (1 - J)
    rise = J * (1 - J) * success * (success <= 1 + high)
    fall = (1 - J) * J * failure * (failure >= 1 - low)
    return rise * (1 - now) + fall * now
