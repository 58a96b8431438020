r"""CISPO: policy gradient with importance weights min(ρ, c) that are not differentiated, and no penalty.

The truncated law at τ = 0: in proportion to A where ρ > c, indifferent where ρ ≤ c and A = C, and empty
where A < C:

.. math:: ρ = \frac{c A}{C} \text{ where } A > C, \qquad \text{the rest of the mass at } A = C.

References
----------
Statement 30.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex, updates
from ..updates import Update
from . import normalisation
from .member import Member


def law(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike = 1.0, cap: ArrayLike = 1.28) -> Update:
    """ρ = (c A/C) 1{A > C}, the rest at A = C, in proportion to p.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`; τ is not read.
    cap : array_like, shape (...)
        c > 0, the largest weight.

    Returns
    -------
    Update
        With ``baseline`` r̄ + C. A constant reward moves nothing.

    Examples
    --------
    >>> law([0.5, 0.3, 0.2], [0.0, 0.5, 1.0], cap=0.9).policy.round(4)
    array([0.  , 0.22, 0.78])
    """
    simplex.positive(cap, "cap")
    p, r, tau, c = simplex.problem(policy, reward, tau, cap=cap)
    A = tau[..., None] * updates.centred_targets(p, r, tau)[0]
    scale = np.abs(np.where(p > 0, r, 0.0)).max(axis=-1, keepdims=True)
    A = np.where((p > 0) & (4e-16 * scale < A), A, 0.0)
    mean, constant = np.einsum("...k,...k->...", p, r), ~A.any(axis=-1)
    order = np.argsort(-A, axis=-1, kind="stable")
    a, mass = np.take_along_axis(A, order, axis=-1), np.take_along_axis(p, order, axis=-1)
    above = np.cumsum(mass * a, axis=-1)  # E_p[A; the best actions so far]
    C = c[..., None] * above  # what the multiplier is if exactly these have ρ = cA/C
    with np.errstate(invalid="ignore"):
        following = np.concatenate([a[..., 1:], np.zeros((*a.shape[:-1], 1))], axis=-1)
    # The first prefix whose C is at least the next advantage: C is its own, or the level that stopped it from below.
    first = np.argmax(following <= C, axis=-1)[..., None]
    last = np.take_along_axis(a, first, axis=-1)
    C = np.minimum(np.take_along_axis(C, first, axis=-1), last)
    C = np.where(constant[..., None], 1.0, C)
    over = A > C
    rho = np.where(over, c[..., None] * A / C, 0.0)
    rest = 1 - (p * rho).sum(axis=-1, keepdims=True)
    at = (p > 0) & (A == C)
    share = np.where(at, rest / np.maximum(np.where(at, p, 0.0).sum(axis=-1, keepdims=True), 1e-300), rho)
    return normalisation.update(p, np.where(constant[..., None], 1.0, share), mean + C[..., 0])


MEMBER = Member(
    name="cispo",
    papers="CISPO, MiniMax-M1 2506.13585",
    formula="E_p sg[min(ρ, c)] A log q",
    decides="weights min(ρ, c), no penalty",
    law_formula="ρ = (cA/C) 1{A > C}, the rest at A = C",
    exists="always, for a whole completion as the action",
    statement="30",
    function=law,
)
