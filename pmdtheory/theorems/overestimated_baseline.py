r"""Statement 11: baselines b > τ log Z, where the regression is not convex.

The constraint E_p[e^s] = 1 asks for more mass than e^Δ has, Δ = (r − b)/τ, so λ < 0. On the principal branch, −λρ ≤ 1,
a stationary point exists iff

.. math:: b ≤ b_{max} = r_{max} + τ (1 + \log E_p[−W_0(−e^{−1 − (r_{max} − r)/τ})]).

It minimises the loss E_p[½ (s − Δ)²] among the policies with ratio at most −1/λ and is a strict local minimum where
−λρ < 1. It need not be the global one: letting every action but a rare one, k, meet its target costs
½ p_k (log(q_k/p_k) − Δ_k)², q_k the mass left over, which for small p_k is below the ½ λ² that the stationary point
costs at least.

Proof. −λρ = −W₀(λe^Δ) increases with −λ, and so does the mass E_p[ρ], up to e^{(b_max − b)/τ} where max −λρ = 1. As
½ (s − Δ)² + λ e^s is convex for λe^s ≥ −1 and stationary at the solution, no policy with such ratios costs less. At the
solution the loss is ½ λ² E_p[ρ²] ≥ ½ λ².

Assumptions: b > τ log Z (and more where a function says so).

References
----------
Statement 11.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import updates
from ..overestimated import principal_branch
from . import moments, problems, regressions
from .claim import Claim
from .statement import claims


@claims("11", problems.contexts_with_high_baselines)
def no_solution_above_largest_baseline(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike
) -> Claim:
    """On the principal branch E_p[ρ] ≤ e^{(b_max − b)/τ}: nothing on it is normalised for b > b_max.

    Parameters
    ----------
    baseline : array_like, shape (..., B)
        B baselines per context, as large as you like.

    Returns
    -------
    Claim
        Logarithms of both at 14 places along the branch, shape (..., B, 14).

    Examples
    --------
    >>> claim = no_solution_above_largest_baseline([0.001, 0.999], [0.0, 1.0], 1.0, [1.8992, 2.1])
    >>> claim.value.max(axis=-1).round(3), claim.holds.all()
    (array([ 0.1  , -0.101]), np.True_)
    """
    x = regressions.describe(policy, reward, tau, baseline)
    p, D, shift = (a[..., None, :] for a in (x.p, x.D, x.shift[..., None]))
    top = moments.extremes(p, D)[1]
    below = np.where(p > 0, top[..., None] - D, 0.0)
    along = np.concatenate([[0.0], np.geomspace(1e-8, 1e4, 13)])  # log of the largest −λρ, less it, less 1
    U, _ = principal_branch(along[:, None] + below)  # −λρ; log U = U − 1 − along − below
    with np.errstate(divide="ignore"):
        log_mass = np.logaddexp.reduce(np.log(p) + U + D, axis=-1) - shift[..., 0]
    bound = top + 1 + np.log(moments.mean(p, principal_branch(below)[0])) - shift[..., 0]
    scale = 1 + np.abs(top) + np.abs(shift[..., 0])
    return Claim("no principal solution for b > b_max", log_mass, bound, _above(x)[..., None], scale=scale)


@claims("11", problems.contexts_with_high_baselines)
def solution_up_to_largest_baseline(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Claim:
    """For τ log Z < b ≤ b_max some λ < 0 solves s + λ e^s = (r − b)/τ with q normalised.

    Parameters
    ----------
    baseline : array_like, shape (..., B)
        B baselines per context, none beyond b_max.

    Returns
    -------
    Claim
        Largest residual of the equation relative to its terms, |E_p[ρ] − 1|, and λ, against 0; shape (..., B, 3).

    Raises
    ------
    ValueError
        If a baseline is beyond b_max.

    Examples
    --------
    >>> solution_up_to_largest_baseline([0.001, 0.999], [0.0, 1.0], 1.0, [1.8992]).holds.all()
    np.True_
    """
    x, update, target = _at(policy, reward, tau, baseline)
    s, weight = update.log_ratio, update.chi2_weight
    residual = np.where(x.p > 0, np.abs(s + weight[..., None] * np.exp(s) - target), 0.0).max(axis=-1)
    residual = residual / (1 + np.abs(x.D).max(axis=-1) + np.abs(x.shift))
    value = np.stack([residual, np.abs(moments.mean(x.p, np.expm1(s))), weight], axis=-1)
    return Claim("principal solution for τ log Z < b ≤ b_max", value, 0.0, _above(x)[..., None], scale=1.0)


@claims("11", problems.contexts_with_high_baselines)
def strict_local_minimum(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Claim:
    """−λρ ≤ 1, so the Hessian p (1 + λρ) of the Lagrangian is positive; shape (..., B).

    Examples
    --------
    >>> claim = strict_local_minimum([0.001, 0.999], [0.0, 1.0], 1.0, [1.8992])
    >>> claim.value.round(3), claim.bound
    (array([0.9]), 1.0)
    """
    x, update, _ = _at(policy, reward, tau, baseline)
    largest = moments.extremes(x.p, update.log_ratio)[1]
    return Claim("strict local minimum: −λρ ≤ 1", -update.chi2_weight * np.exp(largest), 1.0, _above(x))


@claims("11", problems.contexts_with_high_baselines)
def least_loss_below_ratio(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike, rivals: int = 3, seed: int = 0
) -> Claim:
    """No policy with ratio at most −1/λ has less loss: not the mixtures of p and q, nor random policies.

    Parameters
    ----------
    rivals : int
        How many mixtures and how many random policies.
    seed : int
        Of the draws.

    Returns
    -------
    Claim
        The loss of q against that of the rivals, assuming their ratio is at most −1/λ; shape (..., B, 2 · rivals).

    Examples
    --------
    >>> claim = least_loss_below_ratio([0.001, 0.999], [0.0, 1.0], 1.0, [1.8992])
    >>> claim.bound[0, 0].round(4), claim.value[0, 0].round(4)  # p, and less
    (np.float64(0.4057), np.float64(0.4046))
    """
    x, update, target = _at(policy, reward, tau, baseline)
    s, rng = update.log_ratio, np.random.default_rng(seed)
    others = [np.log1p(share * np.expm1(s)) for share in np.arange(rivals) / rivals]
    for size in np.geomspace(0.01, 3, rivals):
        drawn = updates.kl_update(x.p, size * rng.normal(size=x.p.shape), 1.0).log_ratio
        others.append(np.broadcast_to(drawn, s.shape))
    others = np.stack(others, axis=-2)
    allowed = -update.chi2_weight[..., None] * np.exp(moments.extremes(x.p[..., None, :], others)[1]) <= 1
    value = _loss(x.p, s, target)[..., None]
    bound = _loss(x.p[..., None, :], others, target[..., None, :])
    return Claim("least loss among ratios ≤ −1/λ", value, bound, _above(x)[..., None] & allowed)


@claims("11", problems.contexts_with_high_baselines)
def dumping_costs_less(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Claim:
    """Putting all left-over mass on the rarest action costs less than the stationary point, if that action is rare.

    Returns
    -------
    Claim
        The two losses, assuming p_k (log(q_k/p_k) − Δ_k)² ≤ λ² for the rarest action k; shape (..., B).

    Examples
    --------
    The worked example, only a local minimum:

    >>> claim = dumping_costs_less([0.001, 0.999], [0.0, 1.0], 1.0, [1.8992])
    >>> claim.value.round(3), claim.bound.round(3), claim.assumptions
    (array([0.034]), array([0.405]), array([ True]))
    """
    x, update, target = _at(policy, reward, tau, baseline)
    rarest = np.where(x.p > 0, x.p, np.inf).argmin(axis=-1)[..., None]
    p, target_k = np.take_along_axis(x.p, rarest, axis=-1)[..., 0], np.take_along_axis(target, rarest, axis=-1)[..., 0]
    fitted = np.where((x.p > 0) & (np.arange(x.p.shape[-1]) != rarest), target, -np.inf)
    with np.errstate(over="ignore"):
        left_over = 1 - moments.mean(x.p, np.exp(fitted))
    resolved = _above(x) & (left_over > 1e-6)  # else rounding hides it
    dumping = p * (np.log(np.where(resolved, left_over, 1.0)) - np.log(p) - target_k) ** 2 / 2
    rare = resolved & (2 * dumping <= update.chi2_weight**2)
    return Claim("dumping mass on a rare action costs less", dumping, _loss(x.p, update.log_ratio, target), rare)


def _at(policy, reward, tau, baseline):
    arguments = policy, reward, tau, baseline
    x = regressions.describe(*arguments)
    return x, regressions.solve(*arguments), x.D - x.shift[..., None]


def _above(x):
    """Where b > τ log Z beyond rounding."""
    return x.shift > x.gap * (1 + 1e-14) + x.rounding


def _loss(p, s, target):
    return moments.mean(p, (s - target) ** 2) / 2
