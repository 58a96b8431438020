r"""Statement 9: rewards 0 and 1 with success probability J = E_p[r].

PMD-mean is a two-atom problem. Its success ratio and its failure ratio ρ₋ = (1 − J')/(1 − J) obey

.. math:: ρ_+ ≤ \frac1J, \qquad e^{−J/τ − λ} ≤ \exp(−J/τ − λ e^{−J/τ}) ≤ ρ_- ≤ e^{−J/τ},

while the KL update has ρ₋ = e^{−1/τ}/(J + (1 − J) e^{−1/τ}) ≤ e^{−1/τ}/J. The χ² penalty τλ tends to J(1 − J):

.. math:: J (1 − J + τ \log J) ≤ τλ ≤ \frac{J (1 − J)}{1 − (1 − J) e^{−J/τ}}.

Proof of the last: s₊ + λρ₊ = (1 − J)/τ with 0 ≤ s₊ ≤ −log J and (1 − (1 − J) e^{−J/τ})/J ≤ ρ₊ ≤ 1/J.

Assumptions: rewards 0 and 1 on the support, J in (0, 1).

References
----------
Statement 9.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import updates
from . import moments, problems
from .claim import Claim
from .statement import claims


@claims("9", problems.binary_contexts)
def success_ratio(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """log ρ₊ ≤ −log J.

    Examples
    --------
    >>> claim = success_ratio([0.75, 0.25], [0.0, 1.0], tau=0.1)
    >>> np.exp([claim.value, claim.bound]).round(3)
    array([3.781, 4.   ])
    """
    x = _binary(policy, reward, tau)
    s = updates.pmd_mean_update(policy, reward, tau).log_ratio
    largest_target = x.failure / x.tau  # s₊ is what λρ₊ leaves of it
    return Claim("ρ₊ ≤ 1/J", s.max(axis=-1), -x.log_success, x.assumptions, scale=largest_target)


@claims("9", problems.binary_contexts)
def failure_ratio_from_above(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """log ρ₋ ≤ −J/τ."""
    x = _binary(policy, reward, tau)
    s = updates.pmd_mean_update(policy, reward, tau).log_ratio
    return Claim("1 − J' ≤ (1 − J) e^{−J/τ}", s.min(axis=-1), -x.success / x.tau, x.assumptions)


@claims("9", problems.binary_contexts)
def failure_ratio_from_below(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """−J/τ − λ ≤ −J/τ − λ e^{−J/τ} ≤ log ρ₋.

    Returns
    -------
    Claim
        Both inequalities, shape (..., 2).

    Examples
    --------
    >>> failure_ratio_from_below([0.75, 0.25], [0.0, 1.0], tau=0.1).bound.round(3)
    array([-2.619, -2.619])
    """
    x = _binary(policy, reward, tau)
    update = updates.pmd_mean_update(policy, reward, tau)
    sharp = -x.success / x.tau - update.chi2_weight * np.exp(-x.success / x.tau)
    simple = -x.success / x.tau - update.chi2_weight
    log_ratio = update.log_ratio.min(axis=-1)
    value, bound = np.stack([simple, sharp], axis=-1), np.stack([log_ratio, log_ratio], axis=-1)
    return Claim("1 − J' ≥ (1 − J) exp(−J/τ − λe^{−J/τ})", value, bound, x.assumptions[..., None])


@claims("9", problems.binary_contexts)
def kl_failure_ratio(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """Log ρ₋ of the KL update is −1/τ − log(J + (1 − J) e^{−1/τ})."""
    x = _binary(policy, reward, tau)
    s = updates.kl_update(policy, reward, tau).log_ratio
    odds = x.log_success + 1 / x.tau
    small = np.log1p(x.success * np.expm1(np.where(odds < 0, 1 / x.tau, 0.0)))
    bound = -np.where(odds < 0, small, np.logaddexp(np.log(x.failure), odds))
    return Claim("KL: 1 − J' in closed form", s.min(axis=-1), bound, x.assumptions, "==")


@claims("9", problems.binary_contexts)
def kl_failure_ratio_from_above(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """Log ρ₋ of the KL update is at most −1/τ − log J."""
    x = _binary(policy, reward, tau)
    s = updates.kl_update(policy, reward, tau).log_ratio
    bound = -1 / x.tau - x.log_success
    scale = np.maximum(1 / x.tau, -x.log_success)
    return Claim("KL: 1 − J' ≤ (1 − J) e^{−1/τ}/J", s.min(axis=-1), bound, x.assumptions, scale=scale)


@claims("9", problems.binary_contexts)
def penalty_near_variance(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """J (1 − J + τ log J) ≤ τλ ≤ J(1 − J)/(1 − (1 − J) e^{−J/τ}).

    Returns
    -------
    Claim
        Both inequalities, shape (..., 2).

    Examples
    --------
    >>> claim = penalty_near_variance([0.75, 0.25], [0.0, 1.0], tau=0.01)
    >>> claim.value.round(4), claim.bound.round(4)  # J(1 − J) is 0.1875
    (array([0.184, 0.184]), array([0.184 , 0.1875]))
    """
    x = _binary(policy, reward, tau)
    penalty = x.tau * updates.pmd_mean_update(policy, reward, tau).chi2_weight
    below = x.success * (x.failure + x.tau * x.log_success)
    above = x.success * x.failure / (x.success - x.failure * np.expm1(-x.success / x.tau))
    value, bound = np.stack([below, penalty], axis=-1), np.stack([penalty, above], axis=-1)
    return Claim("τλ → J(1 − J), two-sided", value, bound, x.assumptions[..., None])


class _Binary(NamedTuple):
    """J, 1 − J, log J, tau and where the assumptions hold; J = ½ stands in elsewhere."""

    success: np.ndarray
    failure: np.ndarray
    log_success: np.ndarray
    tau: np.ndarray
    assumptions: np.ndarray


def _binary(policy, reward, tau):
    p, _ = moments.targets(policy, reward, tau)
    r, tau = np.broadcast_to(reward, p.shape), np.broadcast_to(np.asarray(tau, float), p.shape[:-1])
    success, failure = (np.where(r == level, p, 0.0).sum(axis=-1) for level in (1, 0))
    assumptions = ((r == 0) | (r == 1) | (p == 0)).all(axis=-1) & (success > 0) & (failure > 0)
    success, failure = np.where(assumptions, success, 0.5), np.where(assumptions, failure, 0.5)
    log_success = np.where(success < failure, np.log(success), np.log1p(-np.minimum(failure, 0.5)))
    return _Binary(success, failure, log_success, tau, assumptions)
