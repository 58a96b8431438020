r"""Statement 22: two temperatures lie between PMD-mean and the KL law.

V = β₁ log E_p[e^{r/β₁}] decreases from τ log Z to r̄ as β₁ grows from τ, and Statement 10 does the rest.

Assumptions: β₁ ≥ τ.

References
----------
Statement 22.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from .. import family, updates
from . import family_problems, moments
from .claim import Claim
from .statement import claims


@claims("22", family_problems.with_two_temperatures)
def value_lies_between(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline_tau: ArrayLike) -> Claim:
    """r̄ ≤ V ≤ τ log Z.

    Parameters
    ----------
    baseline_tau : array_like, shape (...)
        β₁ ≥ τ.

    Examples
    --------
    >>> claim = value_lies_between([0.5, 0.5], [0.0, 1.0], 1.0, 3.0)
    >>> claim.value.round(4), claim.bound.round(4)
    (array([0.5   , 0.5415]), array([0.5415, 0.6201]))
    """
    V = _law(policy, reward, tau, baseline_tau).baseline
    mean, ideal = moments.mean(np.asarray(policy), reward), updates.kl_update(policy, reward, tau).baseline
    size = 1 + np.abs(ideal)[..., None]
    return Claim("r̄ ≤ β₁ log E e^{r/β₁} ≤ τ log Z", np.stack([mean, V], -1), np.stack([V, ideal], -1), scale=size)


@claims("22", family_problems.with_two_temperatures)
def likelihood_ratio_order(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline_tau: ArrayLike) -> Claim:
    """q at β₁ over q at 2β₁ is nondecreasing in r, so are q_KL over the first and the second over q_mean; (..., 3)."""
    laws = [
        updates.pmd_mean_update(policy, reward, tau),
        _law(policy, reward, tau, 2 * np.asarray(baseline_tau)),
        _law(policy, reward, tau, baseline_tau),
        updates.kl_update(policy, reward, tau),
    ]
    order = np.argsort(reward, axis=-1)
    logs = [np.take_along_axis(law.log_ratio, order, axis=-1) for law in laws]
    falls = np.stack([-np.diff(b - a, axis=-1).min(axis=-1) for a, b in pairwise(logs)], axis=-1)
    return Claim("q(β₁)/q(2β₁) nondecreasing in r", falls, 0.0, scale=1 + np.abs(logs[-1]).max(axis=-1)[..., None])


def _law(policy, reward, tau, baseline_tau):
    return family.MEMBERS["two-temperatures"].law(policy, reward, tau, baseline_tau=baseline_tau)
