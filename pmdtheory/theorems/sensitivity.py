r"""Statement 31: how far an error in the rewards, or in the baseline, moves the updated policy.

With u = λρ and w = q/(1 + u) a change dD of PMD-mean's targets moves the policy by

.. math:: dq = w\Big(dD − ρ\,\frac{\sum w\,dD}{\sum wρ}\Big), \qquad \|dq\|_1 ≤ 2 \sum w |dD|, \qquad
    w ≤ \min\Big(q, \frac pλ, \frac{p + \sqrt{p^2 + 2p}}{2}\Big).

The KL update has dq = q (dD − E_q[dD]), so the same bound with q in place of w. The last bound holds for all rewards,
so it also bounds the effect of errors of any size: one of size δ in the reward of an action of probability p moves
PMD-mean by O(√p δ/τ), and the KL update, for some rewards, by 2 tanh(δ/(4τ)) however small p is.

References
----------
Statement 31.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex, updates
from . import moments, problems
from .claim import Claim
from .statement import claims


def largest_weight(policy: ArrayLike) -> np.ndarray:
    """Bound min(1, (p + √(p² + 2p))/2) of w = q/(1 + λρ), whatever the rewards are.

    Examples
    --------
    >>> largest_weight(np.array([2e-6, 0.5])).round(6)
    array([0.001001, 0.809017])
    """
    p = np.asarray(policy, dtype=float)
    return np.minimum(1.0, (p + np.sqrt(p * (p + 2))) / 2)


@claims("31", problems.contexts_with_errors)
def errors_in_all_rewards(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, error: ArrayLike) -> Claim:
    """‖q' − q‖₁ ≤ (2/τ) Σ w̄ |A' − A|, with w̄ the bound of `largest_weight`.

    Parameters
    ----------
    error : array_like, shape (..., K)
        What is added to the rewards.

    Examples
    --------
    >>> claim = errors_in_all_rewards([0.9, 0.1], [0.0, 1.0], 1.0, [0.0, 0.1])
    >>> claim.value.round(4), claim.bound.round(4)
    (np.float64(0.0273), np.float64(0.0702))
    """
    p, r, tau = simplex.problem(policy, reward, tau)
    moved = _moved(updates.pmd_mean_update, (p, r, r + error, tau))
    change = moments.targets(p, r + error, tau)[1] - moments.targets(p, r, tau)[1]
    bound = 2 * moments.mean(largest_weight(p), np.where(p > 0, np.abs(change), 0.0))
    return Claim("rewards r + e: ‖q'−q‖₁ ≤ 2 Σ w̄|A'−A|/τ", moved, bound, scale=1.0)


@claims("31", problems.contexts_with_errors)
def error_in_one_reward(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, error: ArrayLike) -> Claim:
    """‖q' − q‖₁ ≤ 2 (w̄ + p) |δ|/τ if only the action with the largest error has one, δ."""
    p, delta, change = _single(policy, reward, tau, error)
    bound = 2 * (largest_weight(p) + p) * delta
    return Claim("one error δ: ‖q'−q‖₁ ≤ 2(w̄+p)|δ|/τ", _moved(updates.pmd_mean_update, change), bound, scale=1.0)


@claims("31", problems.contexts_with_errors)
def error_in_one_reward_of_the_kl_update(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, error: ArrayLike
) -> Claim:
    """‖q' − q‖₁ ≤ 2 tanh(|δ|/(4τ)), with equality where q of the action is 1/(1 + e^{δ/(2τ)})."""
    _, delta, change = _single(policy, reward, tau, error)
    return Claim("the same, KL: ‖q'−q‖₁ ≤ 2 tanh(|δ|/4τ)", _moved(updates.kl_update, change), 2 * np.tanh(delta / 4),
                 scale=1.0)  # fmt: skip


@claims("31", problems.contexts_with_errors)
def error_in_one_reward_with_a_fixed_weight(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, error: ArrayLike
) -> Claim:
    """‖q' − q‖₁ ≤ 2p |δ|/κ with the χ² penalty κ, here τ."""
    p, delta, change = _single(policy, reward, tau, error)

    def update(policy, reward, tau):
        return updates.mixed_update(policy, reward, tau, tau)

    return Claim("the same, fixed χ²: ‖q'−q‖₁ ≤ 2p|δ|/κ", _moved(update, change), 2 * p * delta, scale=1.0)


@claims("31", problems.contexts_with_errors)
def error_in_the_baseline(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, error: ArrayLike) -> Claim:
    """‖q' − q‖₁ ≤ 2 |b̂ − r̄|/τ for a baseline b̂ ≤ τ log Z, here the mean of the rewards with their errors."""
    p, D = moments.targets(policy, reward, tau)
    one = np.ones(D.shape[:-1])
    wanted = moments.mean(p, np.where(p > 0, np.asarray(error) / np.asarray(tau)[..., None], 0.0))
    shift = np.minimum(wanted, moments.jensen_gap(p, D))
    moved = updates.baseline_update(p, D, one, shift)
    value = moments.distance(p, updates.pmd_mean_update(p, D, one).log_ratio, moved.log_ratio)
    return Claim("baseline b̂ ≤ τ log Z: ‖q'−q‖₁ ≤ 2|b̂−r̄|/τ", value, 2 * np.abs(shift), scale=1.0)


def _single(policy, reward, tau, error):
    """Return the probability p of the action with the largest error, |δ|/τ, and (p, rewards before, after, tau)."""
    p, r, tau = simplex.problem(policy, reward, tau)
    size = np.where(p > 0, np.abs(error), -1.0)
    at = size.argmax(axis=-1)[..., None]
    changed = np.where(np.arange(p.shape[-1]) == at, r + error, r)
    chosen, delta = (np.take_along_axis(x, at, axis=-1)[..., 0] for x in (p, np.abs(changed - r)))
    return chosen, delta / tau, (p, r, changed, tau)


def _moved(update, change):
    p, before, after, tau = change
    return moments.distance(p, update(p, before, tau).log_ratio, update(p, after, tau).log_ratio)
