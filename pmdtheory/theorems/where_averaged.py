r"""Statement 19: where the gradient is averaged decides the law.

Weights v on the squares of r − V − τ s, V ≤ τ log Z: the law is τ s + C q/v = r − V with one C ≥ 0, and

.. math:: E_q[r] = V + τ\,\mathrm{KL}(q\|p) + C E_q[q/v] ≥ V.

Stopped weights min(ρ, c) slide from Statement 10 to the KL law as c grows.

Assumptions: V ≤ τ log Z.

References
----------
Statement 19.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from .. import family, updates
from ..family import weighted
from . import family_problems, moments
from .claim import Claim
from .statement import claims


@claims("19", family_problems.weighted)
def improvement_for_any_weights(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike, weight: ArrayLike, cap: ArrayLike
) -> Claim:
    """E_q[r] − V = τ KL(q‖p) + C E_p[ρ²/w], for v = p w.

    Parameters
    ----------
    baseline : array_like, shape (...)
        V.
    weight : array_like, shape (..., K)
        w > 0.
    cap : array_like, shape (...)
        c > 0, of the truncated weights.

    Examples
    --------
    >>> claim = improvement_for_any_weights([0.5, 0.5], [0.0, 1.0], 1.0, 0.5, [3.0, 1.0], 1.0)
    >>> claim.value.round(4), claim.holds
    (np.float64(0.2034), np.True_)
    """
    p, r, w = (np.asarray(x, dtype=float) for x in (policy, reward, weight))
    tau, V = np.asarray(tau, dtype=float), np.asarray(baseline, dtype=float)
    law = weighted.solve(p, w, w * (r - V[..., None]), tau, "V at most tau log Z")
    s = law.log_ratio
    gain = moments.mean(law.policy, r - V[..., None])
    C = tau * law.chi2_weight
    predicted = tau * moments.kl(p, s) + C * moments.mean(p, np.exp(2 * s) / w)
    size = moments.mean(law.policy, np.abs(r - V[..., None]))
    return Claim("E_q r − V = τ KL(q‖p) + C E_q[q/v], any weights", gain, predicted, relation="==", scale=size)


@claims("19", family_problems.weighted)
def multiplier_is_nonnegative(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike, weight: ArrayLike, cap: ArrayLike
) -> Claim:
    """C ≥ 0 where V ≤ τ log Z, for the same random weights."""
    p, r, w, V = (np.asarray(x, dtype=float) for x in (policy, reward, weight, baseline))
    law = weighted.solve(p, w, w * (r - V[..., None]), np.asarray(tau, dtype=float), "V at most tau log Z")
    return Claim("V ≤ τ log Z: C ≥ 0", -law.chi2_weight, 0.0, scale=1.0)


@claims("19", family_problems.weighted)
def truncated_is_stationary(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike, weight: ArrayLike, cap: ArrayLike
) -> Claim:
    """min(ρ, c) (r − V − τ s)/ρ is one number C for all actions."""
    law = _truncated(policy, reward, tau, cap, baseline)
    r, tau, V, c = (np.asarray(x, dtype=float) for x in (reward, tau, baseline, cap))
    residual = r - V[..., None] - tau[..., None] * law.log_ratio
    each = residual * np.minimum(1.0, c[..., None] * np.exp(-law.log_ratio))
    spread = moments.mean(law.policy, np.abs(each - moments.mean(law.policy, each)[..., None]))
    size = np.abs(r - V[..., None]).max(axis=-1) + tau * np.abs(law.log_ratio).max(axis=-1)
    return Claim("min(ρ, c)(r − V − τs)/ρ = C for all actions", spread, 0.0, relation="==", scale=size)


@claims("19", family_problems.weighted)
def cap_slides_to_the_kl_law(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike, weight: ArrayLike, cap: ArrayLike
) -> Claim:
    """ρ at 2c over ρ at c is nondecreasing in r, and so on to Statement 10 below and the KL law above.

    Returns
    -------
    Claim
        Largest fall of the log-ratio of two laws between neighbouring rewards, for c/2 and c and for c and 2c and for
        the two ends, against 0; shape (..., 4).
    """
    c = np.asarray(cap, dtype=float)
    laws = [updates.baseline_update(policy, reward, tau, baseline)]
    laws += [_truncated(policy, reward, tau, factor * c, baseline) for factor in (0.5, 1.0, 2.0)]
    laws += [updates.kl_update(policy, reward, tau)]
    order = np.argsort(reward, axis=-1)
    logs = [np.take_along_axis(law.log_ratio, order, axis=-1) for law in laws]
    falls = [-np.diff(b - a, axis=-1).min(axis=-1) for a, b in pairwise(logs)]
    size = 1 + np.abs(logs[-1]).max(axis=-1)[..., None]
    return Claim("min(ρ, c): q(2c)/q(c) nondecreasing in r", np.stack(falls, axis=-1), 0.0, scale=size)


@claims("19", family_problems.weighted)
def ends_of_the_slide(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike, weight: ArrayLike, cap: ArrayLike
) -> Claim:
    """The smallest ratio of Statement 10 as c gives Statement 10, the largest of the KL law gives that; (..., 2)."""
    p = np.asarray(policy, dtype=float)
    ends = updates.baseline_update(policy, reward, tau, baseline), updates.kl_update(policy, reward, tau)
    distances = []
    for end, pick in zip(ends, (0, 1)):
        c = np.exp(moments.extremes(p, end.log_ratio)[pick])
        law = _truncated(policy, reward, tau, c, baseline)
        distances.append(moments.distance(p, law.log_ratio, end.log_ratio))
    return Claim("min(ρ, c): both ends of the slide", np.stack(distances, axis=-1), 0.0, relation="==", scale=1.0)


def _truncated(policy, reward, tau, cap, baseline):
    return family.MEMBERS["truncated-importance"].law(policy, reward, tau, cap=cap, baseline=baseline)
