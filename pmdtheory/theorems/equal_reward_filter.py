r"""Statement 24: dropping groups of equal rewards weakens the penalty, most on hard prompts.

.. math:: w τ s + C e^s = A, \qquad w_+ = 1 − J^{n−1}, \quad w_- = 1 − (1−J)^{n−1}.

C < 0 iff J e^{(1−J)/(w₊τ)} + (1−J) e^{−J/(w₋τ)} < 1, and then the step goes beyond the KL update.

Assumptions: rewards 0 and 1; the law exists on the principal branch for n = 2, hence for all n here.

References
----------
Statement 24.
"""

from math import comb

import numpy as np
from numpy.typing import ArrayLike

from .. import family, updates
from ..family import filtered
from . import family_problems, moments
from .claim import Claim
from .statement import claims

_GROUPS = (2, 3, 4, 8)


@claims("24", family_problems.binary)
def stationary_over_all_groups(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """The gradient summed over the number of successes among the other rollouts; shape (..., 4) for n = 2, 3, 4, 8.

    Examples
    --------
    >>> stationary_over_all_groups([0.9, 0.1], [0.0, 1.0], 1.0).holds
    array([ True,  True,  True,  True])
    """
    p, r, tau, laws, exists = _laws(policy, reward, tau)
    J, values = moments.mean(p, r)[..., None], []
    for n, s in zip(_GROUPS, laws):
        coefficient = np.zeros(p.shape)
        for k in range(n):
            chance = comb(n - 1, k) * J**k * (1 - J) ** (n - 1 - k)
            kept = np.where(r == 1, k < n - 1, k > 0)
            coefficient += np.where(kept, chance * (r - k / (n - 1) - tau[..., None] * s), 0.0)
        gradient = p * coefficient
        gradient -= p * np.exp(s) * gradient.sum(axis=-1, keepdims=True)
        values.append(np.abs(gradient).sum(axis=-1) / (1 + tau * np.abs(s).max(axis=-1)))
    value = np.stack(values, axis=-1)
    return Claim("filter: stationary over all groups", value, 0.0, exists[..., None], "==", 1.0)


@claims("24", family_problems.binary)
def bolder_with_fewer_rollouts(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """J' falls with n, to PMD-mean's for n → ∞; shape (..., 4)."""
    p, r, tau, laws, exists = _laws(policy, reward, tau)
    after = [moments.mean(p * np.exp(s), r) for s in laws]
    after.append(moments.mean(updates.pmd_mean_update(p, r, tau).policy, r))
    value, bound = np.stack(after[1:], axis=-1), np.stack(after[:-1], axis=-1)
    return Claim("filter: J' falls with n, to PMD-mean's", value, bound, exists[..., None])


@claims("24", family_problems.binary)
def first_from_the_anchor(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """The flow of the success rate points up all the way from p to the law; shape (..., 4, 9)."""
    p, r, tau, laws, exists = _laws(policy, reward, tau)
    J, values = moments.mean(p, r)[..., None], []
    for n, s in zip(_GROUPS, laws):
        now = J + (moments.mean(p * np.exp(s), r)[..., None] - J) * np.arange(1, 10) / 10
        w_success, w_failure = (-np.expm1((n - 1) * np.log(x)) for x in (J, 1 - J))
        up, down = np.log(now / J), np.log((1 - now) / (1 - J))
        flow = (1 - J - w_success * tau[..., None] * up) * (1 - now) / (1 - J)
        values.append(-flow - (J + w_failure * tau[..., None] * down) * now / J)
    value = np.stack(values, axis=-2)
    return Claim("filter: the first stationary point from p", value, 0.0, exists[..., None, None], scale=1.0)


@claims("24", family_problems.binary)
def overshoots_where_the_multiplier_is_negative(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """C < 0 exactly if the targets hold too little mass, and then J' is at least the KL update's; shape (..., 4, 2)."""
    p, r, tau, laws, exists = _laws(policy, reward, tau)
    J, ideal = moments.mean(p, r), moments.mean(updates.kl_update(p, r, tau).policy, r)
    values, bounds = [], []
    for n, s in zip(_GROUPS, laws):
        w_success, w_failure = (-np.expm1((n - 1) * np.log(x)) for x in (J, 1 - J))
        low = np.where(r == 1, np.inf, s).min(axis=-1)
        pull = -J - w_failure * tau * low  # C times the ratio of failures
        with np.errstate(over="ignore"):
            mass = J * np.exp((1 - J) / (w_success * tau)) + (1 - J) * np.exp(-J / (w_failure * tau))
        sign = np.where(np.abs(mass - 1) > 1e-9, np.sign(mass - 1), 0.0)
        after = moments.mean(p * np.exp(s), r)
        values.append(np.stack([-sign * pull, np.where(sign < 0, ideal, 0.0)], axis=-1))
        bounds.append(np.stack([np.zeros(J.shape), np.where(sign < 0, after, 1.0)], axis=-1))
    value, bound = np.stack(values, axis=-2), np.stack(bounds, axis=-2)
    return Claim("filter: C < 0 iff targets hold < 1; overshoots", value, bound, exists[..., None, None], scale=1.0)


def _laws(policy, reward, tau):
    """p, r, τ, the log-ratios for each n, and where all exist (elsewhere those of a larger τ stand in)."""
    p, r, tau = (np.asarray(x, dtype=float) for x in (policy, reward, tau))
    exists = np.all([filtered.has_law(p, r, tau, n) for n in _GROUPS], axis=0)
    p = np.where(exists[..., None], p, 1 / p.shape[-1])
    tau = np.where(exists, tau, 10.0)
    return p, r, tau, [family.MEMBERS["filtered"].law(p, r, tau, rollouts=n).log_ratio for n in _GROUPS], exists
