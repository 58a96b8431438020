r"""What the bounds of Statement 16 know about the optimum of an MDP.

π* is the deterministic optimal policy that policy iteration finds, V* its value, and from the start distribution ν
(the ``rho`` of the MDP)

.. math:: d^* = (1−γ) \sum_t γ^t P(x_t ∈ ·)\ \text{under}\ π^*, \qquad
    D_0 = E_{x∼d^*} D_h(π^*(·|x)\|π^0(·|x)).

h is the mirror map of the step: the negative entropy, so that D_h is KL, unless an object of
``pmdtheory.mdp.mirror_maps`` is given.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import divergences, updates
from ..mdp import evaluate, occupancy, optimal
from ..mdp.model import MDP


def step_of(mirror: Any) -> Any:
    """Return the update of a mirror map, the KL update for None."""
    return updates.kl_update if mirror is None else mirror


def start(mdp: MDP, policy: ArrayLike, best: Any = None, mirror: Any = None) -> tuple[Any, ...]:
    """Return the optimum and how far the first policy is from it.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        π⁰.
    best : Evaluation, optional
        Of π*, if at hand: ``optimal(mdp)``.
    mirror : mirror map, optional

    Returns
    -------
    best : Evaluation
    d : ndarray, shape (S,)
        d*.
    gap : ndarray, shape (S,)
        V* − V⁰.
    distance : float
        D₀; infinite where π⁰ excludes an action of π*.

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> _, d, gap, distance = start(chain(3, slip=0.0, gamma=0.5), [[0.5, 0.5]] * 3)
    >>> d, gap.round(3), round(float(distance), 3)
    (array([0.5 , 0.25, 0.25]), array([0.426, 0.798, 1.266]), 0.693)
    """
    best = optimal(mdp) if best is None else best
    policy = mdp.check_policy(policy)
    d = occupancy(mdp, best.policy)
    divergence = divergences.kl if mirror is None else mirror.divergence
    distance = np.where(d > 0, divergence(best.policy, policy), 0.0) @ d
    return best, d, best.V - evaluate(mdp, policy).V, distance


def scale(mdp: MDP, bound: Any, weight: float = 0.0) -> float:
    """Scale of a claim about differences of values: `bound`, but so large that rounding stays within the tolerance.

    Steps see Q to the rounding of the largest value (with the entropy of weight `weight`), and an error of Q costs up
    to 1/(1−γ) times itself, so the least scale is 1e-5 of the largest value over 1−γ.
    """
    largest = (np.abs(mdp.R).max() + weight * np.log(mdp.actions)) / (1 - mdp.gamma)
    return np.maximum(np.where(np.isfinite(bound), np.abs(bound), 0.0), 1e-5 * largest / (1 - mdp.gamma))
