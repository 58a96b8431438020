r"""Statement 16, B4: the ideal step with one step size converges at the rate 1/k.

With η = 1/τ constant, rewards in [0, 1], start distribution ν and D₀ = E_{d*} D_h(π*‖π⁰),

.. math:: E_ν[V^* − V^k] ≤ \frac1k \Big[\frac{D_0}{η(1−γ)} + \frac{1}{(1−γ)^2}\Big] \qquad (k ≥ 1).

The d*-average of the three-point inequality at π* bounds (1−γ)·gap by a decrease of τD plus an improvement of the
value; both telescope, the gap does not increase, and values lie in [0, 1/(1−γ)].

Assumptions: rewards in [0, 1], D₀ finite.

References
----------
Statement 16; Xiao, arXiv 2201.07443, sublinear rate; for KL Agarwal et al., arXiv 1908.00261.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..mdp import iterate
from ..mdp.model import MDP
from . import mdp_optimum, mdp_problems
from .claim import Claim
from .statement import claims


def constant_step_bound(
    mdp: MDP, policy: ArrayLike, tau: float, steps: int, mirror: Any = None, best: Any = None
) -> np.ndarray:
    """Bound B4 after 1, …, `steps` iterations.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        π⁰.
    tau : float
        Temperature 1/η, units of Q, positive.
    steps : int
    mirror : mirror map, optional
        The KL update by default.
    best : Evaluation, optional
        ``optimal(mdp)``, if at hand.

    Returns
    -------
    ndarray, shape (steps,)
        Infinite if π⁰ excludes an action of π*.

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> constant_step_bound(chain(4, gamma=0.5), [[0.5, 0.5]] * 4, tau=1.0, steps=2).round(3)  # (2 log 2 + 4)/k
    array([5.386, 2.693])
    """
    _, _, _, distance = mdp_optimum.start(mdp, policy, best, mirror)
    rest = 1 - mdp.gamma
    return (tau * distance / rest + 1 / rest**2) / np.arange(1, steps + 1)


@claims("B4", mdp_problems.mdps)
def constant_step_rate(mdp: MDP, policy: ArrayLike, tau: float, mirror: Any = None, steps: int = 10) -> Claim:
    """Bound B4 on the iteration with constant steps.

    Parameters
    ----------
    mdp, policy, tau, mirror, steps
        As in `constant_step_bound`.

    Returns
    -------
    Claim
        E_ν[V* − V^k] against its bound, shape (steps,).

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> claim = constant_step_rate(chain(4, gamma=0.5), [[0.5, 0.5]] * 4, tau=1.0, steps=2)
    >>> claim.value.round(3), claim.bound.round(3)
    (array([0.148, 0.128]), array([5.386, 2.693]))
    """
    best, *_ = mdp_optimum.start(mdp, policy, mirror=mirror)
    table = iterate(mdp, policy, mdp_optimum.step_of(mirror), tau, steps, optimal_value=best.V).table
    bound = constant_step_bound(mdp, policy, tau, steps, mirror, best)
    assumed = (mdp.R.min() >= 0) & (mdp.R.max() <= 1) & np.isfinite(bound)
    scale = mdp_optimum.scale(mdp, bound)
    name = "constant steps: gap ≤ [τD₀ + 1/(1−γ)]/((1−γ)k)"
    return Claim(name, table.mean_gap.to_numpy()[1:], bound, assumed, scale=scale)
