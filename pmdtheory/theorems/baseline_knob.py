r"""Statement 10: one knob from frozen to ideal, for baselines b ≤ τ log Z.

The regression of s on (r − b)/τ has s + λ e^s = (r − b)/τ with

.. math:: λ = \mathrm{KL}(p\|q) + (\bar r − b)/τ ≥ 0.

λ decreases and E_q[r] increases with b; b = τ log Z is the KL update, b = r̄ is PMD-mean, and b → −∞ freezes the policy:
χ²(q‖p) ≤ Var_p(r)/(r̄ − b)² for b < r̄. Proof of the last: E_q[r] − r̄ = τ [KL(q‖p) + KL(p‖q) + λ χ²(q‖p)], so by
Cauchy–Schwarz λ χ² ≤ sd_p(r) χ/τ, and λ ≥ (r̄ − b)/τ.

Assumptions: b ≤ τ log Z.

References
----------
Statement 10.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import updates
from . import moments, problems, regressions
from .claim import Claim
from .statement import claims


@claims("10", problems.contexts_with_baselines)
def weight_identity(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Claim:
    """λ = KL(p‖q) + (r̄ − b)/τ.

    Parameters
    ----------
    baseline : array_like, shape (..., B)
        B baselines per context, increasing.

    Returns
    -------
    Claim
        Shape (..., B).

    Examples
    --------
    >>> claim = weight_identity([0.5, 0.5], [0.0, 1.0], 1.0, [-1.0, 0.0, 0.5])
    >>> claim.value.round(4), claim.bound.round(4)
    (array([1.5199, 0.5522, 0.1009]), array([1.5199, 0.5522, 0.1009]))
    """
    x, update = _at(policy, reward, tau, baseline)
    reverse_kl = moments.reverse_kl(x.p, update.log_ratio)
    size = np.maximum(reverse_kl, x.rounding * 1e14)
    value, bound = update.chi2_weight, reverse_kl - x.shift
    return Claim("λ = KL(p‖q) + (r̄ − b)/τ", value, bound, _convex(x), "==", size)


@claims("10", problems.contexts_with_baselines)
def weight_decreases(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Claim:
    """λ decreases from each baseline to the next; shape (..., B − 1).

    Examples
    --------
    >>> weight_decreases([0.5, 0.5], [0.0, 1.0], 1.0, [-1.0, 0.0, 0.5]).slack.round(2)
    array([0.64, 0.82])
    """
    x, update = _at(policy, reward, tau, baseline)
    weight = update.chi2_weight
    return Claim("λ decreasing in b", weight[..., 1:], weight[..., :-1], _convex(x)[..., 1:])


@claims("10", problems.contexts_with_baselines)
def reward_increases(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Claim:
    """E_q[r] is nondecreasing from each baseline to the next; shape (..., B − 1)."""
    x, update = _at(policy, reward, tau, baseline)
    gain = moments.improvement(x.p, update.log_ratio, x.D)
    return Claim("E_q r nondecreasing in b", gain[..., :-1], gain[..., 1:], _convex(x)[..., 1:])


@claims("10", problems.contexts_with_baselines)
def ideal_at_log_partition(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Claim:
    """At b = τ log Z the update is the KL update; L1 distance of shape (..., B)."""
    x, update = _at(policy, reward, tau, baseline)
    ideal = updates.kl_update(policy, reward, tau)
    at_log_partition = np.abs(x.shift - x.gap) <= 1e-14 * x.gap
    return _same("b = τ log Z is the KL update", x, update, ideal, at_log_partition)


@claims("10", problems.contexts_with_baselines)
def pmd_mean_at_mean(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Claim:
    """At b = r̄ the update is PMD-mean; L1 distance of shape (..., B)."""
    x, update = _at(policy, reward, tau, baseline)
    mean = updates.pmd_mean_update(policy, reward, tau)
    return _same("b = r̄ is PMD-mean", x, update, mean, np.abs(x.shift) <= x.rounding)


@claims("10", problems.contexts_with_baselines)
def frozen_far_below(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Claim:
    """χ(q‖p) ≤ sd_p(r)/(r̄ − b) for b < r̄; shape (..., B).

    Examples
    --------
    >>> claim = frozen_far_below([0.5, 0.5], [0.0, 1.0], 1.0, [-100.0, -10.0, 0.5])
    >>> claim.value.round(4), claim.bound.round(4), claim.assumptions
    (array([0.0049, 0.0435, 0.4275]), array([0.005 , 0.0476, 0.5   ]), array([ True,  True, False]))
    """
    x, update = _at(policy, reward, tau, baseline)
    below = x.shift < 0
    bound = moments.spread(x.p, x.D) / np.where(below, -x.shift, 1.0)
    return Claim("χ(q‖p) ≤ sd(r)/(r̄ − b)", np.sqrt(moments.chi2(x.p, update.log_ratio)), bound, below)


def _at(policy, reward, tau, baseline):
    arguments = policy, reward, tau, baseline
    return regressions.describe(*arguments), regressions.solve(*arguments)


def _convex(x):
    """Where b ≤ τ log Z, up to rounding."""
    return x.shift <= x.gap + x.rounding


def _same(name, x, update, other, where):
    log_ratio = other.log_ratio[..., None, :]
    moved = moments.distance(x.p, log_ratio, 0.0)
    return Claim(name, moments.distance(x.p, update.log_ratio, log_ratio), 0.0, where, "==", moved)
