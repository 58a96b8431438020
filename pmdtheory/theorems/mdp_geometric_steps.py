r"""Statement 16, B5: the ideal step with geometrically growing step sizes converges linearly.

Let ν > 0 be the start distribution and ϑ = ‖d*/ν‖∞/(1−γ) the mismatch between it and the occupancy of π*. With
η_{k+1} = η_k ϑ/(ϑ−1), η₀ = 1/τ,

.. math:: E_ν[V^* − V^k] ≤ \Big(1 − \frac1ϑ\Big)^k \Big[E_ν[V^* − V^0] + \frac{D_0}{η_0 (1−γ)(ϑ−1)}\Big].

As in B4, but the improvement under d* is bounded by that under the occupancy of π^{k+1}, which is at least (1−γ)ν:
gap_{k+1} + D_{k+1}/(η_k ϑ(1−γ)) ≤ (1−1/ϑ)[gap_k + D_k/(η_k(1−γ)(ϑ−1))], and the growth of η makes it telescope.

Assumptions: ν > 0, D₀ finite, and steps that did grow as they should (γ > 0, or else ϑ may be 1: a `ValueError`).

References
----------
Statement 16; Xiao, arXiv 2201.07443, linear rate.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..mdp import iterate, occupancy, optimal
from ..mdp.model import MDP
from . import mdp_optimum, mdp_problems
from .claim import Claim
from .statement import claims


def mismatch(mdp: MDP, best: Any = None) -> float:
    """ϑ = max_x d*(x)/ν(x)/(1−γ), infinite where ν(x) = 0 < d*(x).

    Parameters
    ----------
    mdp : MDP
    best : Evaluation, optional
        ``optimal(mdp)``, if at hand.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If γ = 0.

    Examples
    --------
    >>> from pmdtheory.mdp import MDP
    >>> mismatch(MDP(P=[[[0, 1]], [[0, 1]]], R=[[1], [0]], gamma=0.5))  # d* = (1/4, 3/4)
    np.float64(3.0)
    """
    if mdp.gamma == 0:
        raise ValueError("gamma must be positive, got 0.")
    d = occupancy(mdp, (optimal(mdp) if best is None else best).policy)
    visited = d > 0
    with np.errstate(divide="ignore"):
        return (d[visited] / mdp.rho[visited]).max() / (1 - mdp.gamma)


def geometric_step_bound(
    mdp: MDP, policy: ArrayLike, tau: float, steps: int, mirror: Any = None, best: Any = None
) -> np.ndarray:
    """Bound B5 after 1, …, `steps` iterations.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        π⁰.
    tau : float
        First temperature 1/η₀, units of Q, positive.
    steps : int
    mirror : mirror map, optional
        The KL update by default.
    best : Evaluation, optional
        ``optimal(mdp)``, if at hand.

    Returns
    -------
    ndarray, shape (steps,)
    """
    best, _, gap, distance = mdp_optimum.start(mdp, policy, best, mirror)
    theta = mismatch(mdp, best)
    with np.errstate(invalid="ignore"):  # D₀ and ϑ both infinite
        total = mdp.rho @ gap + tau * distance / ((1 - mdp.gamma) * (theta - 1))
    return (1 - 1 / theta) ** np.arange(1, steps + 1) * total


@claims("B5", mdp_problems.mdps)
def geometric_step_rate(mdp: MDP, policy: ArrayLike, tau: float, mirror: Any = None, steps: int = 10) -> Claim:
    """Bound B5 on the iteration with geometric steps.

    Parameters
    ----------
    mdp, policy, tau, mirror, steps
        As in `geometric_step_bound`.

    Returns
    -------
    Claim
        E_ν[V* − V^k] against its bound, shape (steps,).

    Examples
    --------
    >>> from pmdtheory.mdp import MDP, chain
    >>> corridor = chain(4, gamma=0.5)
    >>> claim = geometric_step_rate(MDP(corridor.P, corridor.R, 0.5), [[0.5, 0.5]] * 4, tau=0.1, steps=3)
    >>> claim.value.round(3), claim.bound.round(3)
    (array([0.067, 0.008, 0.002]), array([0.455, 0.32 , 0.225]))
    """
    best, _, _, distance = mdp_optimum.start(mdp, policy, mirror=mirror)
    theta = mismatch(mdp, best)
    growth = 1 / (1 - 1 / theta)
    table = iterate(
        mdp,
        policy,
        mdp_optimum.step_of(mirror),
        tau,
        steps,
        step_sizes="geometric",
        growth=growth,
        optimal_value=best.V,
    ).table
    taus = table.tau.to_numpy()[1:]
    grown = np.logical_and.accumulate(taus <= tau * growth ** -np.arange(steps, dtype=float) * (1 + 1e-9))
    assumed = grown & (mdp.rho > 0).all() & np.isfinite(distance)
    bound = geometric_step_bound(mdp, policy, tau, steps, mirror, best)
    name = "geometric steps: gap ≤ (1−1/ϑ)^k [gap₀ + …]"
    return Claim(name, table.mean_gap.to_numpy()[1:], bound, assumed, scale=mdp_optimum.scale(mdp, bound))
