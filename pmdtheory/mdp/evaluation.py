r"""Exact evaluation of policies, their optimality certificate, and the optimal policy.

With P_π the transitions and r_π the rewards under π,

.. math:: V = (I − γ P_π)^{-1} r_π, \quad Q = R + γ P V, \quad A = Q − V, \quad
    d = (1 − γ) (I − γ P_π^⊤)^{-1} ρ,

d being the normalised discounted occupancy of the states. I − γ P_π is strictly diagonally dominant by rows, so that
both the dense factorisation (LAPACK) and the sparse one (SuperLU without pivoting, minimum-degree order) are stable.
The sparse one is meant for transitions with local structure, as in a gridworld: on a random graph its factors fill
up.

The certificate (Statement B10). With exact Q let g = max A(x, a) over states and actions. Then

.. math:: g ≤ \max_x \big(V^*(x) − V^π(x)\big) ≤ \frac{g}{1 − γ}.

No oracle is needed: the right-hand side bounds the distance to the optimum, and is 0 at the optimum.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

__all__ = ["Evaluation", "advantage_gap", "evaluate", "occupancy", "optimal"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Exact values of a policy (or of several, along leading axes).

    Attributes
    ----------
    policy : ndarray, shape (..., S, A)
        π.
    V : ndarray, shape (..., S)
        Value of each state; 0 in terminal states.
    Q : ndarray, shape (..., S, A)
        Value of each action.
    A : ndarray, shape (..., S, A)
        Advantage Q − V.
    value : ndarray, shape (...)
        Expected value of the initial state.
    """

    policy: np.ndarray
    V: np.ndarray
    Q: np.ndarray
    A: np.ndarray
    value: np.ndarray


def evaluate(mdp, policy):
    """Value a policy exactly, by one linear solve.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (..., S, A)
        Rows sum to 1. Leading axes, several policies at once, only for a dense MDP.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If `policy` is not a policy of `mdp`.

    Examples
    --------
    >>> from pmdtheory.mdp import MDP
    >>> two = MDP(P=[[[1, 0], [0, 1]], [[0, 1], [0, 1]]], R=[[1, 0], [0, 0]], gamma=0.5)
    >>> evaluate(two, [[0.5, 0.5], [1, 0]]).V.round(4)
    array([0.6667, 0.    ])
    """
    policy = mdp.check_policy(policy)
    reward = np.einsum("...xa,xa->...x", policy, mdp.R)
    V = np.where(mdp.terminal, 0.0, _solve(_system(mdp, policy), reward))
    Q = mdp.backup(V)
    return Evaluation(policy, V, Q, Q - V[..., None], V @ mdp.rho)


def occupancy(mdp, policy, start=None):
    """Normalised discounted occupancy of the states, (1 − γ) Σ_t γ^t P(x_t = x).

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (..., S, A)
        As in `evaluate`.
    start : array_like, shape (S,), optional
        Distribution of the initial state; that of the MDP by default.

    Returns
    -------
    ndarray, shape (..., S)
        Sums to 1.

    Examples
    --------
    >>> from pmdtheory.mdp import MDP
    >>> two = MDP(P=[[[0, 1]], [[0, 1]]], R=[[1], [0]], gamma=0.5, rho=[1, 0])
    >>> occupancy(two, [[1], [1]])
    array([0.5, 0.5])
    """
    policy = mdp.check_policy(policy)
    start = mdp.rho if start is None else np.asarray(start, dtype=float)
    start = np.broadcast_to(start, policy.shape[:-1])
    return (1 - mdp.gamma) * _solve(_system(mdp, policy), start, transposed=True)


def advantage_gap(evaluation):
    """Largest advantage over states and actions, shape (...).

    Divided by 1 − γ it bounds the distance to the optimal value in every state (Statement B10).
    """
    return evaluation.A.max(axis=(-2, -1))


def optimal(mdp):
    """Find an optimal policy by policy iteration.

    A state changes its action only for one that is better by more than rounding, so equally good actions do not
    alternate and the iteration ends; the returned evaluation certifies itself by `advantage_gap`.

    Parameters
    ----------
    mdp : MDP

    Returns
    -------
    Evaluation
        Of a deterministic optimal policy.

    Examples
    --------
    >>> from pmdtheory.mdp import MDP
    >>> two = MDP(P=[[[1, 0], [0, 1]], [[0, 1], [0, 1]]], R=[[1, 0], [0, 0]], gamma=0.5)
    >>> optimal(two).V
    array([2., 0.])
    """
    every = np.arange(mdp.states)
    choice = mdp.R.argmax(axis=1)
    while True:
        current = evaluate(mdp, np.eye(mdp.actions)[choice])
        rounding = 16 * np.finfo(float).eps * np.abs(current.Q).max() / (1 - mdp.gamma)
        best = current.Q.argmax(axis=1)
        better = current.Q[every, best] > current.Q[every, choice] + rounding
        if not better.any():
            return current
        choice = np.where(better, best, choice)


def _system(mdp, policy):
    """I − γ P_π."""
    system = mdp.induced(-mdp.gamma * policy)
    if mdp.is_sparse:
        return sparse.eye_array(mdp.states, format="csc") + system.tocsc()
    np.einsum("...xx->...x", system)[...] += 1
    return system


def _solve(system, right, transposed=False):
    if sparse.issparse(system):
        factors = splu(
            system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        return factors.solve(right, trans="T" if transposed else "N")
    system = np.swapaxes(system, -1, -2) if transposed else system
    return np.linalg.solve(system, right[..., None])[..., 0]
