r"""Statement 7: PMD-mean lies between the current policy and the KL update in likelihood-ratio order.

On the support of p, q_mean/p and q_KL/q_mean are nondecreasing in the reward. Hence ρ_mean is below ρ_KL in convex
order under p: every f-divergence from p is no larger, E_p[f(ρ_mean)] ≤ E_p[f(ρ_KL)] for f convex; the extreme ratios
and the spread of s are no more extreme, and r̄ ≤ E_{q_mean}[r] ≤ E_{q_KL}[r].

Assumptions: none. All are strict unless r is constant on the support.

References
----------
Statement 7.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import updates
from . import moments
from .claim import Claim
from .statement import claims


@claims("7")
def ratio_increases_with_reward(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """q_mean/p is nondecreasing in r.

    Returns
    -------
    Claim
        The largest decrease of s_mean from one action to the next better one, against 0; shape (...).

    Examples
    --------
    >>> ratio_increases_with_reward([0.2, 0.3, 0.5], [0.0, 1.0, 0.5], tau=1.0).value.round(3)
    np.float64(-0.471)
    """
    p, D, s, _ = _both(policy, reward, tau)
    return Claim("q_mean/p nondecreasing in r", _largest_decrease(p, D, s), 0.0, scale=np.abs(s).max(axis=-1))


@claims("7")
def kl_ratio_increases_faster(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """q_KL/q_mean is nondecreasing in r."""
    p, D, s, s_kl = _both(policy, reward, tau)
    scale = np.maximum(np.abs(s), np.abs(s_kl)).max(axis=-1)
    return Claim("q_KL/q_mean nondecreasing in r", _largest_decrease(p, D, s_kl - s), 0.0, scale=scale)


@claims("7")
def convex_order(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """Every upper set of rewards gets less mass from q_mean than from q_KL, relative to p: the ratios' convex order.

    Returns
    -------
    Claim
        q_mean(r ≥ x) − p(r ≥ x) against q_KL(r ≥ x) − p(r ≥ x) at all levels x; shape (..., K).

    Examples
    --------
    >>> claim = convex_order([0.2, 0.3, 0.5], [0.0, 0.5, 1.0], tau=0.5)
    >>> np.abs(claim.value).round(3), np.abs(claim.bound).round(3)
    (array([0.   , 0.148, 0.252]), array([0.   , 0.158, 0.284]))
    """
    p, D, s, s_kl = _both(policy, reward, tau)
    order = np.argsort(D, axis=-1)

    def gained_above(log_ratio):
        gain = np.take_along_axis(p * np.expm1(log_ratio), order, axis=-1)
        return np.flip(np.cumsum(np.flip(gain, axis=-1), axis=-1), axis=-1)

    moved = moments.distance(p, s_kl, 0.0)[..., None]
    return Claim("q_mean(r ≥ x) ≤ q_KL(r ≥ x) for all x", gained_above(s), gained_above(s_kl), scale=moved)


@claims("7")
def smaller_kl(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """KL(q_mean‖p) ≤ KL(q_KL‖p)."""
    p, _, s, s_kl = _both(policy, reward, tau)
    return Claim("KL(q_mean‖p) ≤ KL(q_KL‖p)", moments.kl(p, s), moments.kl(p, s_kl))


@claims("7")
def smaller_reverse_kl(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """KL(p‖q_mean) ≤ KL(p‖q_KL)."""
    p, _, s, s_kl = _both(policy, reward, tau)
    return Claim("KL(p‖q_mean) ≤ KL(p‖q_KL)", moments.reverse_kl(p, s), moments.reverse_kl(p, s_kl))


@claims("7")
def smaller_chi2(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """χ²(q_mean‖p) ≤ χ²(q_KL‖p)."""
    p, _, s, s_kl = _both(policy, reward, tau)
    return Claim("χ²(q_mean‖p) ≤ χ²(q_KL‖p)", moments.chi2(p, s), moments.chi2(p, s_kl))


@claims("7")
def smaller_f_divergences(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """Total variation, squared Hellinger, triangular and Jensen–Shannon divergence from p are no larger.

    Returns
    -------
    Claim
        Shape (..., 4), in the order above.

    Examples
    --------
    >>> claim = smaller_f_divergences([0.5, 0.5], [0.0, 1.0], tau=1.0)
    >>> claim.value.round(4), claim.bound.round(4)
    (array([0.2138, 0.0243, 0.0958, 0.0242]), array([0.2311, 0.0287, 0.1128, 0.0285]))
    """
    p, _, s, s_kl = _both(policy, reward, tau)
    divergences = (_total_variation, _hellinger, _triangular, _jensen_shannon)
    value, bound = (np.stack([moments.mean(p, f(x)) for f in divergences], axis=-1) for x in (s, s_kl))
    return Claim("TV, Hellinger, triangular, Jensen–Shannon ≤", value, bound)


@claims("7")
def smaller_largest_ratio(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """max log q_mean/p ≤ max log q_KL/p."""
    p, D, s, s_kl = _both(policy, reward, tau)
    largest_target = moments.extremes(p, D)[1]  # s is what λρ or log E_p[e^D] leaves of it
    value, bound = moments.extremes(p, s)[1], moments.extremes(p, s_kl)[1]
    return Claim("max ρ_mean ≤ max ρ_KL", value, bound, scale=largest_target)


@claims("7")
def larger_smallest_ratio(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """min log q_mean/p ≥ min log q_KL/p."""
    p, _, s, s_kl = _both(policy, reward, tau)
    return Claim("min ρ_mean ≥ min ρ_KL", -moments.extremes(p, s)[0], -moments.extremes(p, s_kl)[0])


@claims("7")
def smaller_log_ratio_spread(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """max s − min s is no larger."""
    p, _, s, s_kl = _both(policy, reward, tau)
    value, bound = (np.subtract(*reversed(moments.extremes(p, x))) for x in (s, s_kl))
    return Claim("max s − min s no larger for q_mean", value, bound)


@claims("7")
def reward_between(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """r̄ ≤ E_{q_mean}[r] ≤ E_{q_KL}[r].

    Returns
    -------
    Claim
        Both inequalities for the improvements over r̄ in units of τ; shape (..., 2).

    Examples
    --------
    >>> claim = reward_between([0.5, 0.5], [0.0, 1.0], tau=1.0)
    >>> claim.value.round(4), claim.bound.round(4)
    (array([0.    , 0.2138]), array([0.2138, 0.2311]))
    """
    p, D, s, s_kl = _both(policy, reward, tau)
    mean, kl = moments.improvement(p, s, D), moments.improvement(p, s_kl, D)
    return Claim("r̄ ≤ E_q_mean r ≤ E_q_KL r", np.stack([0 * mean, mean], axis=-1), np.stack([mean, kl], axis=-1))


def _both(policy, reward, tau):
    """Return p, the targets and the log-ratios of PMD-mean and of the KL update."""
    p, D = moments.targets(policy, reward, tau)
    both = (updates.pmd_mean_update(policy, reward, tau), updates.kl_update(policy, reward, tau))
    return p, D, *(update.log_ratio for update in both)


def _largest_decrease(p, D, s):
    """Largest s_i − s_j over neighbours i, j in the order of increasing D on the support (−inf without any)."""
    order = np.argsort(np.where(p > 0, D, np.inf), axis=-1, stable=True)
    s, on_support = (np.take_along_axis(x, order, axis=-1) for x in (s, p > 0))
    return (s[..., :-1] - s[..., 1:]).max(axis=-1, where=on_support[..., 1:], initial=-np.inf)


def _total_variation(s):
    return np.abs(np.expm1(s)) / 2


def _hellinger(s):
    return np.expm1(s / 2) ** 2 / 2


def _triangular(s):
    return np.expm1(s) * np.tanh(s / 2)


def _jensen_shannon(s):
    """½ [KL(q‖m) + KL(p‖m)], m = (p + q)/2, as ½ (1 + ρ) [y tanh y − log cosh y] with y = s/2."""
    y = np.abs(s) / 2
    near = np.log1p(2 * np.sinh(np.minimum(y, 1.0) / 2) ** 2)
    log_cosh = np.where(y < 1, near, y + np.log1p(np.exp(-2 * y)) - np.log(2))
    return (1 + np.exp(s)) / 2 * (y * np.tanh(y) - log_cosh)
