r"""Statement 8: high and low temperature, with explicit error bounds.

Let Δ = (r − r̄)/τ, v = Var_p(Δ), M = max Δ, m = min Δ, ψ(x) = (e^x − 1 − x)/x² (increasing, ψ(0) = ½) and λ̄ = v ψ(M).

*τ → ∞.* For every τ

.. math:: \frac{v\,ψ(m − λ̄)}{(1 + λ̄ e^M)^2} ≤ λ ≤ λ̄, \qquad |s_{mean} − s_{KL}| ≤ λ̄ e^M,

so λ = Var_p(r)/(2τ²) (1 + O(1/τ)) and the two updates differ by O(1/τ²). Proof: λ ≤ log E_p[e^Δ] (Statement 6), which
is at most E_p[e^Δ − 1 − Δ] ≤ λ̄. Conversely λ = E_p[e^s − 1 − s] ≥ ψ(min s) Var_p(s); s = Δ − λρ gives min s ≥ m − λ and
s ≤ Δ, and Δ = s + λe^s has slope at most 1 + λe^M in s, so Var_p(s) ≥ v/(1 + λe^M)². Last,
s_mean − s_KL = log E_p[e^Δ] − λρ, both terms in [0, λ̄e^M].

*τ → 0.* Let A = r − r̄, a = E_p[A₊] > 0 and w = W(M), W the Lambert function. For every τ

.. math::

    −τ \log 2 ≤ τλ − a ≤ τ w, \qquad
    \Big\|q − \frac{p A_+}{a}\Big\|_1 ≤ \frac{τ}{a} (\log 2 + w + \max(\log 2, w)),

and w grows as log(1/τ): PMD-mean tends to p A₊/a, while the KL update, with p* the mass of the best actions and δ the
gap to the next, leaves at most e^{−δ/τ} (1 − p*)/p* outside them. Proof: e = τλρ − A₊ ≥ −τ (log ρ)₊, whose mean is at
least −τ log E_p[max(ρ, 1)] ≥ −τ log 2; where e > 0, ρ < 1 and τλρ ≤ A₊ + τ log(1/ρ), so e ≤ τ log(τλ/e), that is
e ≤ τ W(λ) ≤ τ w. The mean of e is τλ − a, and ‖q − pA₊/a‖₁ ≤ (E_p|e| + |τλ − a|)/a.

Assumptions: τ at least the range of r for the first limit, r not constant on the support for the second.

References
----------
Statement 8.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import wrightomega

from .. import updates
from ..stationarity import excess
from . import moments
from .claim import Claim
from .statement import claims


@claims("8")
def weight_at_high_temperature_from_above(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """λ ≤ v ψ(M), near v/2.

    Returns
    -------
    Claim
        Assumes that tau is at least the range of the reward; shape (...).

    Examples
    --------
    >>> claim = weight_at_high_temperature_from_above([0.5, 0.5], [0.0, 1.0], tau=100.0)
    >>> (claim.value * 100**2).round(4), (claim.bound * 100**2).round(4)  # Var_p(r)/2 is 1/8
    (np.float64(0.125), np.float64(0.1252))
    """
    p, D, hot = _hot(policy, reward, tau)
    update = updates.pmd_mean_update(policy, reward, tau)
    return Claim("λ ≤ Var ψ(M)/τ², hence ~ Var/(2τ²), τ→∞", update.chi2_weight, _weight_bound(p, D), hot)


@claims("8")
def weight_at_high_temperature_from_below(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """λ ≥ v ψ(m − λ̄)/(1 + λ̄e^M)²."""
    p, D, hot = _hot(policy, reward, tau)
    low, high = moments.extremes(p, D)
    above = _weight_bound(p, D)
    value = moments.spread(p, D) ** 2 * _psi(low - above) / (1 + above * np.exp(high)) ** 2
    update = updates.pmd_mean_update(policy, reward, tau)
    return Claim("λ ≥ Var ψ(m − λ̄)/(τ + τλ̄e^M)², τ→∞", value, update.chi2_weight, hot)


@claims("8")
def updates_agree_at_high_temperature(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """|s_mean − s_KL| ≤ λ̄ e^M on the support."""
    p, D, hot = _hot(policy, reward, tau)
    mean, kl = updates.pmd_mean_update(policy, reward, tau), updates.kl_update(policy, reward, tau)
    gap = np.abs(mean.log_ratio - kl.log_ratio).max(axis=-1)
    size = np.abs(kl.log_ratio).max(axis=-1)
    bound = _weight_bound(p, D) * np.exp(moments.extremes(p, D)[1])
    return Claim("|s_mean − s_KL| ≤ λ̄e^M = O(τ⁻²), τ→∞", gap, bound, hot, scale=np.maximum(size, bound))


@claims("8")
def weight_at_low_temperature(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """−log 2 ≤ λ − a/τ ≤ w.

    Returns
    -------
    Claim
        Both inequalities, assuming a non-constant reward; shape (..., 2).

    Examples
    --------
    >>> claim = weight_at_low_temperature([0.5, 0.5], [0.0, 1.0], tau=0.001)
    >>> (0.001 * claim.value).round(4), (0.001 * claim.bound).round(4)  # E_p[A₊] is 1/4
    (array([0.2493, 0.2497]), array([0.2497, 0.2547]))
    """
    _, _, advantage, w, varies = _cold(policy, reward, tau)
    weight = updates.pmd_mean_update(policy, reward, tau).chi2_weight
    value = np.stack([advantage - np.log(2), weight], axis=-1)
    bound = np.stack([weight, advantage + w], axis=-1)
    return Claim("−τ log 2 ≤ τλ − E_p A₊ ≤ τ W(M), τ→0", value, bound, varies[..., None])


@claims("8")
def policy_at_low_temperature(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """The L1 distance of q from p A₊/a is at most (τ/a)(log 2 + w + max(log 2, w)).

    Returns
    -------
    Claim
        Assumes a non-constant reward; shape (...).

    Examples
    --------
    >>> claim = policy_at_low_temperature([0.4, 0.3, 0.3], [0.0, 0.5, 1.0], tau=1e-4)
    >>> claim.value.round(4), claim.bound.round(4)
    (np.float64(0.0004), np.float64(0.0078))
    """
    p, D, advantage, w, varies = _cold(policy, reward, tau)
    s = updates.pmd_mean_update(policy, reward, tau).log_ratio
    distance = moments.mean(p, np.abs(np.exp(s) - _proportional(D, advantage)))
    return Claim("‖q − pA₊/E_p A₊‖₁ = O(τ log 1/τ), τ→0", distance, _distance_bound(advantage, w), varies)


@claims("8")
def keeps_several_actions_at_low_temperature(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """PMD-mean is not greedy: actions below the best keep at least their limiting mass less half the L1 bound.

    Returns
    -------
    Claim
        Assumes that at least two reward levels exceed the mean; shape (...).

    Examples
    --------
    >>> claim = keeps_several_actions_at_low_temperature([0.4, 0.3, 0.3], [0.0, 0.5, 1.0], tau=1e-4)
    >>> claim.value.round(3), claim.bound.round(3), claim.assumptions
    (np.float64(0.079), np.float64(0.084), np.True_)
    """
    p, D, advantage, w, varies = _cold(policy, reward, tau)
    worse = p * (moments.extremes(p, D)[1][..., None] > D)
    s = updates.pmd_mean_update(policy, reward, tau).log_ratio
    limit = moments.mean(worse, _proportional(D, advantage))
    value, bound = limit - _distance_bound(advantage, w) / 2, moments.mean(worse, np.exp(s))
    two_levels = varies & ((worse > 0) & (D > 0)).any(axis=-1)
    return Claim("q keeps suboptimal mass, two levels > r̄, τ→0", value, bound, two_levels)


@claims("8")
def kl_update_is_greedy_at_low_temperature(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """The KL update leaves at most e^{−δ/τ} (1 − p*)/p* outside the best actions; in logarithms.

    Returns
    -------
    Claim
        Assumes a non-constant reward; shape (...).

    Examples
    --------
    >>> claim = kl_update_is_greedy_at_low_temperature([0.5, 0.5], [0.0, 1.0], tau=0.1)
    >>> np.exp([claim.value, claim.bound]).round(7)
    array([4.54e-05, 4.54e-05])
    """
    p, D, _, _, varies = _cold(policy, reward, tau)
    top = moments.extremes(p, D)[1]
    best = top[..., None] == D
    s = updates.kl_update(policy, reward, tau).log_ratio
    gap = top - moments.extremes(p * ~best, D)[1]
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    logits = np.where(best | (p == 0), -np.inf, log_p + s)
    value = np.logaddexp.reduce(logits, axis=-1, where=varies[..., None], initial=-np.inf)
    odds = (p * ~best).sum(axis=-1) / (p * best).sum(axis=-1)
    bound = np.log(np.where(varies, odds, 1.0)) - np.where(varies, gap, 0.0)
    return Claim("q_KL(not best) ≤ e^{−δ/τ} (1 − p*)/p*, τ→0", np.where(varies, value, 0.0), bound, varies)


def _psi(x):
    """(e^x − 1 − x)/x²."""
    safe = np.where(np.abs(x) < 1e-4, 1.0, x)
    return np.where(np.abs(x) < 1e-4, 0.5 + x / 6 + x * x / 24, excess(safe, np.expm1(safe)) / safe**2)


def _hot(policy, reward, tau):
    """Return p, Δ and where the range of Δ is at most 1; elsewhere Δ = 0 stands in."""
    p, D = moments.targets(policy, reward, tau)
    low, high = moments.extremes(p, D)
    return p, np.where((high - low <= 1)[..., None], D, 0.0), high - low <= 1


def _weight_bound(p, D):
    """λ̄ = v ψ(M)."""
    return moments.spread(p, D) ** 2 * _psi(moments.extremes(p, D)[1])


def _cold(policy, reward, tau):
    """Return p, Δ, a/τ (1 where r is constant), w and where r is not constant."""
    p, D = moments.targets(policy, reward, tau)
    low, high = moments.extremes(p, D)
    varies = high > low
    w = wrightomega(np.log(np.where(varies, high, 1.0)))
    return p, D, np.where(varies, moments.mean(p, np.maximum(D, 0.0)), 1.0), w, varies


def _proportional(D, advantage):
    """A₊/a."""
    return np.maximum(D, 0.0) / advantage[..., None]


def _distance_bound(advantage, w):
    return (np.log(2) + w + np.maximum(np.log(2), w)) / advantage
