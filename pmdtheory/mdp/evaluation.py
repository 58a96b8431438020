r"""Exact evaluation of policies, their optimality certificate, and the optimal policy.

With P_π the transitions and r_π the rewards under π,

.. math:: V = (I − γ P_π)^{-1} r_π, \quad Q = R + γ P V, \quad A = Q − V, \quad
    d = (1 − γ) (I − γ P_π^⊤)^{-1} ρ,

d being the normalised discounted occupancy of the states.

As γ → 1 this system has condition number 1/(1−γ), and what decides between actions, A, is 1−γ of V. So V is kept as
g/(1−γ) + h, with h = 0 in one anchor state z (a terminal one where there is one). Let B be I − γP_π without the row
and column of z, and p = γP_π(z, ·). Between two visits to z (renewal), with a the rewards and b the time, discounted,

.. math:: a = B^{-1} r_π, \quad b = B^{-1} 1, \quad g = \frac{r_π(z) + p^⊤ a}{1 + p^⊤ b}, \quad h = a − g b, \quad
    A = R − g + γ P h − h.

h measures how states differ, and stays bounded as γ → 1 wherever every state leads to z. E_π A = 0 up to rounding; as
long as it is not, it is solved for as a reward of its own and the solution added (iterative refinement). B is an
M-matrix, strictly diagonally dominant by rows, its diagonal computed from the other entries of the row, so that both
the dense factorisation (LAPACK) and the sparse one (SuperLU without pivoting, minimum-degree order) are stable. The
sparse one is meant for transitions with local structure, as in a gridworld: on a random graph its factors fill up.

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
from scipy import sparse
from scipy.sparse.linalg import splu

from .model import MDP

__all__ = ["Evaluation", "advantage_gap", "evaluate", "occupancy", "optimal"]

TOLERANCE = 1e-6
_UNIT = np.finfo(float).eps / 2
_REFINEMENTS = 20
_GREEDY_STEPS, _SWEEPS, _CLOSE, _BETTER = 2000, 20, 1e-6, 1e-13


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


def evaluate(mdp: MDP, policy: ArrayLike) -> Evaluation:
    """Value a policy exactly, by one factorisation.

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
    cycle = _Cycle(mdp, policy)
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

    rest = 1 - mdp.gamma
    V = np.where(mdp.terminal, 0.0, (g / rest)[..., None] + h)
    error = (off + rounding) / rest + 4 * _UNIT * (np.abs(g) / rest + np.abs(h).max(axis=-1))
    certificate = (A.max(axis=(-2, -1)) - residual.min(axis=-1) + 2 * rounding) / rest
    return Evaluation(policy, V, V[..., None] + A, A, V @ mdp.rho, error, certificate, rounding)


def occupancy(mdp: MDP, policy: ArrayLike, start: ArrayLike | None = None) -> np.ndarray:
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
        Sums to 1, up to rounding over 1 − γ where several classes of states do not lead to one another.

    Examples
    --------
    >>> from pmdtheory.mdp import MDP
    >>> two = MDP(P=[[[0, 1]], [[0, 1]]], R=[[1], [0]], gamma=0.5, rho=[1, 0])
    >>> occupancy(two, [[1], [1]])
    array([0.5, 0.5])
    """
    policy = mdp.check_policy(policy)
    start = mdp.rho if start is None else np.asarray(start, dtype=float)
    return _Cycle(mdp, policy).occupancy(np.broadcast_to(start, policy.shape[:-1]))  # type: ignore[arg-type]


def advantage_gap(evaluation: Evaluation) -> np.ndarray:
    """Largest advantage over states and actions, shape (...).

    Divided by 1 − γ it bounds the distance to the optimal value in every state (Statement B10), up to the rounding
    that ``evaluation.certificate`` includes.
    """
    return evaluation.A.max(axis=(-2, -1))


def optimal(mdp: MDP, tolerance: float | None = None) -> Evaluation:
    """Find an optimal policy by policy iteration, and certify it.

    It starts from what modified policy iteration finds, so that few policies have to be valued exactly.
    A state changes its action only for one that is better by more than rounding, so that equally good actions do not
    alternate. Should rounding lead back to an earlier policy all the same, the best certified one is returned.

    Parameters
    ----------
    mdp : MDP
    tolerance : float, optional
        Largest certificate to accept, units of value; 1e-6 of the largest value by default.

    Returns
    -------
    Evaluation
        Of a deterministic policy that is optimal to within its `certificate`.

    Raises
    ------
    ValueError
        If rounding leaves a larger certificate than `tolerance`; the message gives the one reached. With the default
        this takes γ above 1 − 1e-7, and states that do not lead to one another.

    Examples
    --------
    >>> from pmdtheory.mdp import MDP
    >>> two = MDP(P=[[[1, 0], [0, 1]], [[0, 1], [0, 1]]], R=[[1, 0], [0, 0]], gamma=0.5)
    >>> best = optimal(two)
    >>> best.V, bool(best.certificate < 1e-13)
    (array([2., 0.]), True)
    """
    every, best, seen = np.arange(mdp.states), None, set()
    choice = _good_choice(mdp)
    while (policy := hash(choice.tobytes())) not in seen:
        seen.add(policy)
        current = evaluate(mdp, np.eye(mdp.actions)[choice])
        if best is None or current.certificate <= best.certificate:
            best = current
        greedy = current.A.argmax(axis=1)
        better = current.A[every, greedy] > current.A[every, choice] + 2 * current.rounding
        choice = np.where(better, greedy, choice)
    return certified(mdp, best, tolerance)


def _good_choice(mdp):
    """Action of each state that is greedy for values near the optimal ones, found without solving a system.

    Modified policy iteration (Puterman and Shin 1978): a greedy step, then sweeps with its policy. Actions are changed
    only for better ones, also where values are far below the largest; it ends when none is and the last step moved all
    values alike, within 1e-6.
    """
    every, V = np.arange(mdp.states), np.zeros(mdp.states)
    choice = mdp.R.argmax(axis=1)
    for _ in range(_GREEDY_STEPS):
        Q = mdp.backup(V)
        greedy = Q.argmax(axis=1)
        better = Q[every, greedy] > Q[every, choice] + _BETTER * np.abs(Q).max()
        choice = np.where(better, greedy, choice)
        step = Q[every, choice] - V
        if not better.any() and _span(step[~mdp.terminal]) <= _CLOSE * np.abs(Q).max():
            break
        moves, reward = mdp.rows[every * mdp.actions + choice], mdp.R[every, choice]
        for _ in range(_SWEEPS):
            V = reward + mdp.gamma * (moves @ V)
    return choice


def _span(values):
    return values.max(initial=-np.inf) - values.min(initial=np.inf)


def certified(mdp, evaluation, tolerance):
    """Return `evaluation`, of one policy, if its certificate is at most `tolerance` (or its default)."""
    if tolerance is None:
        tolerance = TOLERANCE * max(np.abs(evaluation.V).max(), np.abs(mdp.R).max())
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be nonnegative, got {tolerance}.")
    if not evaluation.certificate <= tolerance:
        raise ValueError(
            f"tolerance must be at least {evaluation.certificate:.2g}, the gap that rounding leaves at gamma = "
            f"{mdp.gamma!r} where values reach {np.abs(evaluation.V).max():.2g}, got {tolerance:.2g}: accept that, or "
            "choose a smaller gamma."
        )
    return evaluation


def _mean(policy, values):
    return np.einsum("...xa,...xa->...x", policy, values)


def _advantages(mdp, policy, g, h):
    """Â = R − g + γPh − h (0 in terminal states), E_π Â, the largest of its entries, and ε."""
    A = mdp.backup(h) - h[..., None] - g[..., None, None]
    A[..., mdp.terminal, :] = 0.0
    residual = _mean(policy, A)
    # Twice for the products of P and h: once as they are summed, once because rows of P sum to 1 up to rounding.
    size = (2 * mdp.most_successors + 8) * np.abs(h).max(axis=-1) + 8 * np.abs(mdp.R).max()
    rounding = _UNIT * (size + mdp.actions * np.abs(A).max(axis=(-2, -1)))
    return A, residual, np.abs(residual).max(axis=-1), rounding


class _Cycle:
    """A policy's way from the anchor state z back to it: B of the module docstring, with z as a state that earns 0."""

    def __init__(self, mdp, policy):
        self.gamma, self.anchor, self.factors = mdp.gamma, mdp.anchor, None
        moves = mdp.induced(mdp.gamma * policy)
        z = self.anchor
        if mdp.is_sparse:
            moves = moves - sparse.diags_array(moves.diagonal())
            left = np.asarray(moves.sum(axis=1))
            self.out, self.back = moves[[z]].toarray()[0], moves[:, [z]].toarray()[:, 0]
            keep = sparse.diags_array(np.arange(mdp.states) != z, dtype=float)
            system = sparse.diags_array(1 - mdp.gamma + left) - keep @ moves @ keep
            self.factors = splu(
                system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
        else:
            diagonal = np.einsum("...xx->...x", moves)
            diagonal[...] = 0.0
            left = moves.sum(axis=-1)
            self.out, self.back = moves[..., z, :].copy(), moves[..., z].copy()
            moves[..., z, :] = moves[..., z] = 0.0
            self.system = np.negative(moves, out=moves)
            diagonal[...] = 1 - mdp.gamma + left

    def values(self, reward):
        """g and h for rewards of the states, shape (..., S)."""
        once, time = reward.copy(), np.ones_like(reward)
        once[..., self.anchor] = time[..., self.anchor] = 0.0
        a, b = np.moveaxis(self._solve(np.stack([once, time], axis=-1)), -1, 0)
        g = (reward[..., self.anchor] + (self.out * a).sum(axis=-1)) / (1 + (self.out * b).sum(axis=-1))
        return g, a - g[..., None] * b

    def occupancy(self, start):
        """Discounted occupancy: what start gives before the first visit to z, and what each visit gives after it."""
        before = start.copy()
        before[..., self.anchor] = 0.0
        u, w = np.moveaxis(self._solve(np.stack([before, self.out], axis=-1), transposed=True), -1, 0)
        visits = start[..., self.anchor] + (u * self.back).sum(axis=-1)
        d = (1 - self.gamma) * u + (visits / (1 + w.sum(axis=-1)))[..., None] * w
        d[..., self.anchor] = visits / (1 + w.sum(axis=-1))
        return d

    def _solve(self, right, transposed=False):
        if self.factors is not None:
            return self.factors.solve(right, trans="T" if transposed else "N")
        return np.linalg.solve(np.swapaxes(self.system, -1, -2) if transposed else self.system, right)
