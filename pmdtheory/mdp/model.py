r"""A finite discounted Markov decision process, dense or sparse.

States x, actions a, transition law P(y|x, a), expected reward R(x, a), discount γ in [0, 1) and an initial distribution
ρ. A policy π has

.. math:: V^π(x) = E\Big[\sum_{t≥0} γ^t R(x_t, a_t) \,\Big|\, x_0 = x\Big], \qquad
    Q^π(x, a) = R(x, a) + γ \sum_y P(y|x, a) V^π(y).

An episode that ends moves to a *terminal* state: one that every action leaves where it is, with reward 0. There V, Q
and the advantage are 0, and every update of this package leaves the policy as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee

from .. import simplex
from ..draws import passed

__all__ = ["MDP", "column_sampler"]

_LARGEST = 1e290


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite discounted Markov decision process.

    Attributes
    ----------
    P : ndarray, shape (S, A, S), or scipy.sparse.csr_array, shape (S·A, S)
        P[x, a, y] is the probability of state y after action a in state x; the sparse form has row x·A + a. Any
        scipy.sparse matrix is accepted. Rows sum to 1 within 1e-4 and are rescaled to do so up to rounding.
    R : ndarray, shape (S, A)
        Expected reward, finite; values must stay far below the largest float.
    gamma : float
        Discount, in [0, 1).
    rho : ndarray, shape (S,), optional
        Distribution of the initial state; uniform by default.
    terminal : ndarray of bool, shape (S,)
        Derived: the states that no action leaves and whose rewards are all 0.

    Raises
    ------
    ValueError
        If an attribute is not as described; the message names it, and the state and action.

    Examples
    --------
    >>> stay_or_go = MDP(P=[[[1, 0], [0, 1]], [[0, 1], [0, 1]]], R=[[0, 1], [0, 0]], gamma=0.9)
    >>> stay_or_go.terminal
    array([False,  True])
    """

    P: np.ndarray | sparse.csr_array
    R: np.ndarray
    gamma: float
    rho: np.ndarray | None = None
    terminal: np.ndarray = field(init=False)

    def __post_init__(self):
        R = simplex.finite(self.R, "R")
        if R.ndim != 2 or R.size == 0:
            raise ValueError(f"R must have shape (states, actions), got {R.shape}.")
        S, A = R.shape
        gamma = simplex.finite(self.gamma, "gamma")
        if gamma.ndim or not 0 <= gamma < 1:
            raise ValueError(f"gamma must be one number in [0, 1), got {self.gamma}.")
        _bounded(R, float(gamma))
        rho = simplex.distribution(np.full(S, 1 / S) if self.rho is None else self.rho, "rho")
        if rho.shape != (S,):
            raise ValueError(f"rho must have shape ({S},), one entry for each state of R, got {rho.shape}.")
        P = _transitions(self.P, S, A)
        checked = {"P": P, "R": R, "gamma": float(gamma), "rho": rho, "terminal": _terminal(P, R)}
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def rewarded(self, R: np.ndarray) -> "MDP":
        """Return the MDP with the rewards `R`, shape (S, A), instead; both share the transitions."""
        R = simplex.finite(R, "R")
        if R.shape != self.R.shape:
            raise ValueError(f"R must have shape {self.R.shape}, got {R.shape}.")
        _bounded(R, self.gamma)
        other = object.__new__(MDP)
        checked = {"P": self.P, "R": R, "gamma": self.gamma, "rho": self.rho}
        for name, value in (checked | {"terminal": _terminal(self.P, R)}).items():
            object.__setattr__(other, name, value)
        return other

    @property
    def states(self) -> int:
        """Number of states S."""
        return self.R.shape[0]

    @property
    def actions(self) -> int:
        """Number of actions A."""
        return self.R.shape[1]

    @property
    def is_sparse(self) -> bool:
        """Whether P is a sparse array."""
        return sparse.issparse(self.P)

    @property
    def rows(self) -> Any:
        """P as a matrix of shape (S·A, S), row x·A + a."""
        return self.P if self.is_sparse else self.P.reshape(-1, self.states)

    @property
    def reward_range(self) -> tuple[float, float]:
        """Smallest and largest expected reward; values lie between these, divided by 1 − γ."""
        return float(self.R.min()), float(self.R.max())

    @cached_property
    def anchor(self) -> int:
        """A state that others lead to: the first terminal one, or else the one that most transitions enter."""
        if self.terminal.any():
            return int(self.terminal.argmax())
        return int(np.asarray(self.rows.sum(axis=0)).argmax())

    @cached_property
    def most_successors(self) -> int:
        """Largest number of next states that one action can lead to."""
        if self.is_sparse:
            return int(np.diff(self.P.indptr).max())
        return int(np.count_nonzero(self.P, axis=-1).max())

    @cached_property
    def profile(self) -> int:
        """Entries between the diagonal and the first of each row, states ordered by reverse Cuthill and McKee.

        Factors of I − γP_π in that order fill no more than this. The anchor is left out, as it is of the system that
        values solve.
        """
        others = np.flatnonzero(np.arange(self.states) != self.anchor)
        graph = self.induced(self.uniform_policy())
        graph = sparse.csr_array(graph)[others][:, others]
        place = np.empty(len(others), dtype=np.int64)
        place[reverse_cuthill_mckee(graph)] = np.arange(len(others))
        a, b = place[graph.nonzero()[0]], place[graph.nonzero()[1]]
        first = np.arange(len(others))
        np.minimum.at(first, np.maximum(a, b), np.minimum(a, b))
        return int((np.arange(len(others)) - first).sum())

    def uniform_policy(self) -> np.ndarray:
        """The policy that takes every action with equal probability, shape (S, A)."""
        return np.full(self.R.shape, 1 / self.actions)

    def check_policy(self, policy: ArrayLike) -> np.ndarray:
        """Check that `policy`, array_like of shape (..., S, A), is a policy of this MDP and return it as floats."""
        array = simplex.distribution(policy)
        if array.shape[-2:] != self.R.shape:
            raise ValueError(f"policy must have shape {self.R.shape}, one row for each state, got {array.shape}.")
        return array

    def backup(self, V: ArrayLike) -> np.ndarray:
        """Q = R + γ P V from values V, shape (..., S) → (..., S, A); a sparse MDP takes one V, shape (S,)."""
        ahead = self.P @ V if self.is_sparse else V @ self.rows.T
        return self.R + self.gamma * ahead.reshape(*np.shape(V)[:-1], *self.R.shape)

    def induced(self, policy: ArrayLike) -> Any:
        """Σ_a policy(x, a) P(y|x, a), shape (..., S, S), sparse when P is: the transitions under a policy."""
        if not self.is_sparse:
            return (policy[..., None, :] @ self.P)[..., 0, :]
        S, A = self.R.shape
        if policy.ndim != 2:
            raise ValueError(f"policy must have shape ({S}, {A}) for a sparse MDP, got {policy.shape}.")
        weights = (policy.ravel(), np.arange(S * A), np.arange(0, S * A + 1, A))
        return sparse.csr_array(weights, shape=(S, S * A)) @ self.P

    @cached_property
    def _next_column(self):
        return column_sampler(self.rows)

    def next_states(self, rng: np.random.Generator, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Draw next states after `action` in `state`, integer arrays of one shape, with the Generator `rng`."""
        return self._next_column(rng, np.asarray(state) * self.actions + action)


def column_sampler(rows: Any) -> Callable[..., np.ndarray]:
    """Return ``draw(rng, index)``, which draws one column from each row `index` of a matrix of distributions.

    Parameters
    ----------
    rows : ndarray or scipy.sparse array, shape (N, M)
        Rows sum to 1.

    Returns
    -------
    callable
        ``draw(rng, index)`` with an integer array of any shape returns columns of that shape.

    Examples
    --------
    >>> column_sampler(np.eye(3))(np.random.default_rng(0), np.array([2, 0]))
    array([2, 0], dtype=int32)
    """
    table = sparse.csr_array(rows)
    start, count = table.indptr[:-1], np.diff(table.indptr)
    row = np.repeat(np.arange(table.shape[0]), count)
    before = np.concatenate([[0.0], np.cumsum(table.data)])
    # Row i occupies [i, i + 1].
    ends = row + np.clip(before[1:] - before[start][row], 0.0, 1.0)

    def draw(rng, index):
        first, most = start[index], count[index]
        number = passed(ends, first, most, index + rng.random(np.shape(index)))
        return table.indices[first + np.minimum(number, most - 1)]

    return draw


def _transitions(P, S, A):
    """P checked and rescaled: a dense (S, A, S) array or a CSR array of shape (S·A, S)."""
    if sparse.issparse(P):
        P = sparse.csr_array(P, dtype=np.float64, copy=True)
        P.sum_duplicates()
        shape, accepted, entries = P.shape, (S * A, S), P.data
    else:
        P = simplex.finite(P, "P")
        shape, accepted, entries = P.shape, (S, A, S), P
    if shape != accepted:
        raise ValueError(f"P must have shape {accepted} for R of shape {(S, A)}, got {shape}.")
    total = np.asarray(P.sum(axis=-1)).reshape(S, A)
    if not np.all(np.abs(total - 1) <= simplex.SUM_TOLERANCE):
        x, a = np.argwhere(~(np.abs(total - 1) <= simplex.SUM_TOLERANCE))[0]
        raise ValueError(f"P must sum to 1 over next states, got a sum of {total[x, a]} in state {x}, action {a}.")
    if entries.min() < 0:
        x, a, y = _place_of_smallest(P, A)
        raise ValueError(
            f"P must be nonnegative, got {entries.min()} for state {x}, action {a}, next state {y}."
        )
    if sparse.issparse(P):
        P.data /= np.repeat(total.ravel(), np.diff(P.indptr))
        P.eliminate_zeros()
    else:
        P /= total[..., None]
    return P


def _place_of_smallest(P, A):
    if not sparse.issparse(P):
        return np.unravel_index(P.argmin(), P.shape)
    entry = P.data.argmin()
    return *divmod(int(np.searchsorted(P.indptr, entry, side="right")) - 1, A), P.indices[entry]


def _bounded(R, gamma):
    """Refuse rewards so large that values overflow."""
    if (largest := np.abs(R).max()) > _LARGEST * (1 - gamma) ** 2:
        raise ValueError(
            f"R must be so small that values and their errors, up to |R|/(1-gamma)^2, stay below {_LARGEST:g}, got "
            f"{largest} at gamma = {gamma!r}."
        )


def _terminal(P, R):
    """States that no action leaves and whose rewards are all 0."""
    return ((_stay(P, *R.shape) == 1) & (R == 0)).all(axis=1)


def _stay(P, S, A):
    """Probability of staying, shape (S, A)."""
    if not sparse.issparse(P):
        return np.einsum("xax->xa", P)
    entries = P.tocoo()
    loops = entries.row // A == entries.col
    return np.bincount(entries.row[loops], entries.data[loops], S * A).reshape(S, A)
