r"""Exact evaluation of policies, and their optimality certificate.

With P_π the transitions and r_π the rewards under π,

.. math:: V = (I − γ P_π)^{-1} r_π, \quad Q = R + γ P V, \quad A = Q − V, \quad
    d = (1 − γ) (I − γ P_π^⊤)^{-1} ρ,

d being the normalised discounted occupancy of the states.

As γ → 1 this system has condition number 1/(1−γ), and what decides between actions, A, is 1−γ of V. So V is kept as
g/(1−γ) + h, with h = 0 in one anchor state z (a terminal one where there is one), from the renewal at z that
``cycle.py`` solves, and

.. math:: A = R − g + γ P h − h.

h measures how states differ, and stays bounded as γ → 1 wherever every state leads to z. E_π A = 0 up to rounding; as
long as it is not, it is solved for as a reward of its own and the solution added (iterative refinement). A sparse MDP
whose factors would fill up is solved iteratively, to the same residual.

Error bound and certificate (Statement B10). Let Â be the advantages of any V̂, each off by at most ε. Because T^π and T
are monotone and contract by γ,

.. math:: ‖V^π − V̂‖_∞ ≤ \frac{\max_x |E_π Â(x)| + ε}{1 − γ}, \qquad
    \max_x \big(V^*(x) − V^π(x)\big) ≤ \frac{\max Â − \min_x E_π Â(x) + 2ε}{1 − γ}.

No oracle is needed, and both hold for what was computed, whatever the linear solver did. In exact arithmetic the
second is g ≤ max (V* − V^π) ≤ g/(1−γ) with g = max A.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex
from .cycle import SOLVERS, Cycle
from .model import MDP

__all__ = ["Evaluation", "advantage_gap", "evaluate", "occupancy"]

_UNIT = np.finfo(float).eps / 2
_REFINEMENTS = 20
_NARROW, _WIDE = 1_000_000, 100_000_000  # profiles up to which factors are the first choice, and the last resort


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Exact values of a policy (or of several, along leading axes), and how exact they are.

    Attributes
    ----------
    policy : ndarray, shape (..., S, A)
        π.
    V : ndarray, shape (..., S)
        Value of each state; 0 in terminal states.
    Q : ndarray, shape (..., S, A)
        Value of each action.
    A : ndarray, shape (..., S, A)
        Advantage Q − V, computed without that subtraction: exact to `rounding`, which as γ → 1 is far less than that
        of V and Q.
    value : ndarray, shape (...)
        Expected value of the initial state.
    error : ndarray, shape (...)
        No V is further than this from the exact one, rounding included.
    certificate : ndarray, shape (...)
        No state is further than this below its optimal value, rounding included.
    rounding : ndarray, shape (...)
        ε: a bound on the rounding error of an advantage, as one of the values that were found.
    """

    policy: np.ndarray
    V: np.ndarray
    Q: np.ndarray
    A: np.ndarray
    value: np.ndarray
    error: np.ndarray
    certificate: np.ndarray
    rounding: np.ndarray


def evaluate(mdp: MDP, policy: ArrayLike, solver: str | None = None) -> Evaluation:
    """Value a policy exactly.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (..., S, A)
        Rows sum to 1. Leading axes, several policies at once, only for a dense MDP.
    solver : {"direct", "iterative"}, optional
        For a sparse MDP, see ``cycle.py``: a factorisation, or a method that needs no more memory than P. By default
        the first where the factors stay small, else the second, and the first again where that fails.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If `policy` is not a policy of `mdp`, if `solver` is not one, or if the iterative one leaves a residual above
        rounding, which is then stated.

    Examples
    --------
    >>> from pmdtheory.mdp import MDP
    >>> two = MDP(P=[[[1, 0], [0, 1]], [[0, 1], [0, 1]]], R=[[1, 0], [0, 0]], gamma=0.5)
    >>> evaluate(two, [[0.5, 0.5], [1, 0]]).V.round(4)
    array([0.6667, 0.    ])
    """
    policy = mdp.check_policy(policy)
    for name in _solvers(mdp, solver):
        g, h, A, residual, off, rounding = _refined(mdp, policy, Cycle(mdp, policy, name))
        if name == "direct" or off <= 64 * rounding:
            break
    else:
        raise ValueError(
            f"solver 'iterative' left a residual of {off:.1e}, an error of up to {off / (1 - mdp.gamma):.1e} in values "
            f"that reach {np.abs(g / (1 - mdp.gamma) + h).max():.1e}: choose a smaller gamma, or solver='direct' if "
            "its factors fit into memory."
        )
    rest = 1 - mdp.gamma
    V = np.where(mdp.terminal, 0.0, (g / rest)[..., None] + h)
    error = (off + rounding) / rest + 4 * _UNIT * (np.abs(g) / rest + np.abs(h).max(axis=-1))
    certificate = (A.max(axis=(-2, -1)) - residual.min(axis=-1) + 2 * rounding) / rest
    return Evaluation(policy, V, V[..., None] + A, A, V @ mdp.rho, error, certificate, rounding)


def occupancy(
    mdp: MDP, policy: ArrayLike, start: ArrayLike | None = None, solver: str | None = None
) -> np.ndarray:
    """Normalised discounted occupancy of the states, (1 − γ) Σ_t γ^t P(x_t = x).

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (..., S, A)
        As in `evaluate`.
    start : array_like, shape (S,), optional
        Distribution of the initial state; that of the MDP by default.
    solver : {"direct", "iterative"}, optional
        As in `evaluate`; the iterative one is accepted if all entries together are within 1e-10.

    Returns
    -------
    ndarray, shape (..., S)
        Sums to 1, up to rounding over 1 − γ where several classes of states do not lead to one another.

    Raises
    ------
    ValueError
        As `evaluate`.

    Examples
    --------
    >>> from pmdtheory.mdp import MDP
    >>> two = MDP(P=[[[0, 1]], [[0, 1]]], R=[[1], [0]], gamma=0.5, rho=[1, 0])
    >>> occupancy(two, [[1], [1]])
    array([0.5, 0.5])
    """
    policy = mdp.check_policy(policy)
    start = np.asarray(mdp.rho) if start is None else simplex.distribution(start, "start")
    if start.shape != (mdp.states,):
        raise ValueError(f"start must be a distribution over the {mdp.states} states, got shape {start.shape}.")
    start = np.broadcast_to(start, policy.shape[:-1])
    for name in _solvers(mdp, solver):
        cycle = Cycle(mdp, policy, name)
        d = cycle.occupancy(start)
        if name == "direct":
            return d
        flow, rest = mdp.gamma * mdp.induced(policy).T, 1 - mdp.gamma
        d = d + cycle.occupancy(start - (d - flow @ d) / rest)
        error = np.abs(start - (d - flow @ d) / rest).sum()
        if error <= 1e-10:
            return d
    raise ValueError(
        f"solver 'iterative' leaves an error of up to {error:.1e} in the occupancy: choose a smaller gamma, or "
        "solver='direct' if its factors fit into memory."
    )


def _solvers(mdp, solver):
    """Solvers to be tried, in this order."""
    if solver is not None and solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}.")
    if not mdp.is_sparse or solver == "direct" or (solver is None and mdp.profile <= _NARROW):
        return ["direct"]
    return ["iterative", "direct"] if solver is None and mdp.profile <= _WIDE else ["iterative"]


def _refined(mdp, policy, cycle):
    """g and h, and what `_advantages` makes of them, after as many refinements as make the residual smaller."""
    g, h = cycle.values(_mean(policy, mdp.R))
    A, residual, off, rounding = _advantages(mdp, policy, g, h)
    for _ in range(_REFINEMENTS):
        if np.all(off <= 8 * rounding):
            break
        more_g, more_h = cycle.values(residual)
        new = _advantages(mdp, policy, g + more_g, h + more_h)
        better = new[2] < off / 2
        if not better.any():
            break
        g, h = np.where(better, g + more_g, g), np.where(better[..., None], h + more_h, h)
        A, residual, off, rounding = _advantages(mdp, policy, g, h)
    return g, h, A, residual, off, rounding


def advantage_gap(evaluation: Evaluation) -> np.ndarray:
    """Largest advantage over states and actions, shape (...).

    Divided by 1 − γ it bounds the distance to the optimal value in every state (Statement B10), up to the rounding
    that ``evaluation.certificate`` includes.
    """
    return evaluation.A.max(axis=(-2, -1))


def _mean(policy, values):
    return np.einsum("...xa,...xa->...x", policy, values)


def _advantages(mdp, policy, g, h):
    """Â = R − g + γPh − h (0 in terminal states), E_π Â, the largest of its entries, and ε."""
    A = mdp.backup(h) - h[..., None] - g[..., None, None]
    A[..., mdp.terminal, :] = 0.0
    residual = _mean(policy, A)
    rounding = advantage_rounding(mdp, np.abs(h).max(axis=-1), np.abs(A).max(axis=(-2, -1)))
    return A, residual, np.abs(residual).max(axis=-1), rounding


def advantage_rounding(mdp, values, advantages):
    """ε: what rounding may do to an advantage, from the largest of the values it comes from and of the advantages."""
    # Twice for the products of P and h: once as they are summed, once because rows of P sum to 1 up to rounding.
    size = (2 * mdp.most_successors + 8) * values + 8 * np.abs(mdp.R).max()
    return _UNIT * (size + mdp.actions * advantages)
