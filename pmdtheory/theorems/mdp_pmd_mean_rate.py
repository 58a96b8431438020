r"""Statement 16, B11 in MDPs: PMD-mean with constant τ converges at the rate 1/T.

Let π* be a deterministic optimal policy with action a*(x), d* its occupancy from the start distribution ν, and c_T the
smallest π^t(a*(x)|x) over 1 ≤ t ≤ T and the states with d*(x) > 0. With exact Q,

.. math:: E_ν[V^* − V^T] ≤ \frac{1}{(1−γ)T}
    \Big[τ E_{d^*} \mathrm{KL}(π^*\|π^0) + \frac{1}{c_T} E_{d^*}[V^* − V^0]\Big].

Evaluate s + λρ = A/τ at a*(x) and average over d*. The right side becomes (1−γ) gap_t/τ, s the decrease of
E_{d*}KL(π*‖π^t), and by Statement 15 τλρ(a*) ≤ E_{π^{t+1}}A/π^{t+1}(a*) ≤ (V^{t+1} − V^t)/c_T. Both telescope, and the
gap does not increase. The bound is a posteriori: c_T is read off the run.

Assumptions: KL(π*‖π⁰) finite where d* > 0. The rewards may have any size.

References
----------
Statement 16, B11, proved there; the bandit part is in ``bandit_rates.py``.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import updates
from ..mdp import iterate
from ..mdp.model import MDP
from . import mdp_optimum, mdp_problems
from .claim import Claim
from .statement import claims


def pmd_mean_bound(mdp: MDP, policies: list[np.ndarray], tau: float, best: Any = None) -> np.ndarray:
    """Bound B11 along policies already visited, such as ``kept["policy"]`` of ``mdp.iterate``.

    Parameters
    ----------
    mdp : MDP
    policies : ndarray, shape (T + 1, S, A)
        π⁰, …, π^T.
    tau : float
        Temperature, units of Q, positive.
    best : Evaluation, optional
        ``optimal(mdp)``, if at hand.

    Returns
    -------
    ndarray, shape (T,)
        For T = 1, 2, …; infinite if π⁰ excludes an action of π*.
    """
    best, d, gap, distance = mdp_optimum.start(mdp, policies[0], best)
    mass = policies[1:, best.policy == 1].min(axis=1, where=d > 0, initial=1.0)
    with np.errstate(divide="ignore"):
        total = tau * distance + (d @ gap) / np.minimum.accumulate(mass)
    return total / ((1 - mdp.gamma) * np.arange(1, len(policies)))


@claims("B11 MDP", mdp_problems.mdps)
def pmd_mean_rate(mdp: MDP, policy: ArrayLike, tau: float, steps: int = 10) -> Claim:
    """Bound B11 on the PMD-mean iteration.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        π⁰.
    tau : float
        Temperature, units of Q, positive.
    steps : int
        Number of iterations.

    Returns
    -------
    Claim
        E_ν[V* − V^T] against its bound, shape (steps,).

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> claim = pmd_mean_rate(chain(4, gamma=0.5), [[0.5, 0.5]] * 4, tau=0.1, steps=2)
    >>> claim.value.round(3), claim.bound.round(3)
    (array([0.096, 0.04 ]), array([1.587, 0.793]))
    """
    best, _, _, distance = mdp_optimum.start(mdp, policy)
    run = iterate(mdp, policy, updates.pmd_mean_update, tau, steps, optimal_value=best.V, keep=["policy"])
    bound = pmd_mean_bound(mdp, run.kept["policy"], tau, best)
    name = "PMD-mean: gap ≤ [τD₀ + E_{d*}(V*−V⁰)/c]/((1−γ)T)"
    value, scale = run.table.mean_gap.to_numpy()[1:], mdp_optimum.scale(mdp, bound)
    return Claim(name, value, bound, np.isfinite(distance), scale=scale)
