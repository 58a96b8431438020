r"""Importance weights min(ρ, c) that are not differentiated, on rollouts from the anchor.

Where ρ ≤ c the weights move the average to the policy itself and the KL law holds, where ρ > c it is a regression with
weights c:

.. math:: τ s + C \max(1, ρ/c) = r − V.

The cap slides from Statement 10 (c at most its smallest ratio) to the KL update (c at least its largest). Any weights
w(ρ) with ρ/w nondecreasing do the same to φ(ρ) = ρ/w: each is an implicit f-penalty with f' = φ.

References
----------
Statement 19.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import partition, simplex, updates
from ..stationarity import log_ratio
from ..updates import Update
from . import normalisation
from .member import Member


def law(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, cap: ArrayLike, baseline: ArrayLike | None = None
) -> Update:
    """Solve τ s + C max(1, e^s/c) = r − V.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`.
    cap : array_like, shape (...)
        c > 0, the largest weight.
    baseline : array_like, shape (...), optional
        V ≤ τ log Z, reward units; by default r̄.

    Raises
    ------
    ValueError
        Also if V exceeds τ log Z: then two limits can be stable.

    Examples
    --------
    >>> for c in (0.1, 1.0, 10.0):
    ...     print(law([0.5, 0.5], [0.0, 1.0], tau=1.0, cap=c).policy.round(4))
    [0.2862 0.7138]
    [0.277 0.723]
    [0.2689 0.7311]
    """
    simplex.positive(cap, "cap")
    p, r, tau, c = simplex.problem(policy, reward, tau, cap=cap)
    D = updates.centred_targets(p, r, tau)[0]
    K = p.shape[-1]
    flat = p.reshape(-1, K)
    mean = np.einsum("...k,...k->...", p, r)
    shift = np.zeros(mean.shape)
    if baseline is not None:
        p, r, tau, c, V = simplex.problem(p, r, tau, cap=c, baseline=baseline)
        shift, D, flat = (V - mean) / tau, np.broadcast_to(D, p.shape), p.reshape(-1, K)
    gap = partition.jensen_gap(flat, np.ascontiguousarray(D).reshape(-1, K)).reshape(shift.shape)
    above = shift > gap + 1e-12 * (1 + np.abs(gap))
    if above.any():
        i = tuple(np.argwhere(above)[0])
        limit = np.broadcast_to(mean, shift.shape)[i] + tau[i] * gap[i]
        raise ValueError(
            f"baseline must be at most tau * log Z = {limit:.6g} for the law to be unique (Statement 19), "
            f"got {V[i]:.6g}."
        )
    target = np.where(p > 0, D - shift[..., None], -np.inf)
    T, cap_of = target.reshape(-1, K), c.reshape(-1)

    def solution(rows, a):
        """s and −ds/da at C/τ = a."""
        t, cap = T[rows], cap_of[rows, None]
        low, over = t - a[:, None], t - a[:, None] > np.log(cap)
        weight = a[:, None] / cap
        s = np.where(over, log_ratio(np.where(over, t - weight, 0.0), weight)[0], low)
        rho = np.exp(np.minimum(s, 700.0))
        return s, np.where(over, rho / cap / (1 + weight * rho), 1.0)

    def ratio(rows, a):
        s, slope = solution(rows, a)
        rho = np.exp(np.minimum(s, 700.0))
        return rho, rho * slope

    high = np.maximum(target.max(axis=-1), 0.0) * np.minimum(c, 1.0)
    a = normalisation.solve(p, ratio, np.zeros(high.shape), high)
    s = solution(np.arange(len(flat)), a.reshape(-1))[0].reshape(p.shape)
    return normalisation.update(p, np.exp(s), mean + tau * shift)


MEMBER = Member(
    name="truncated-importance",
    papers="truncated importance sampling, min(ρ, c) with stopped gradient",
    formula="E_p sg[min(ρ, c)] (r − V − τ s)²",
    decides="weights min(ρ, c), V = r̄",
    law_formula="τ s + C max(1, ρ/c) = r − r̄",
    exists="V ≤ τ log Z",
    statement="19",
    function=law,
    example={"cap": 1.5},
)
