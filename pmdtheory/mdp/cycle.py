r"""A policy's way from an anchor state z back to it, and the linear systems of values and occupancies.

Let B be I − γP_π without the row and column of z, and p = γP_π(z, ·). Between two visits to z (renewal), with a the
rewards and b the time, discounted,

.. math:: a = B^{-1} r_π, \quad b = B^{-1} 1, \quad g = \frac{r_π(z) + p^⊤ a}{1 + p^⊤ b}, \quad h = a − g b.

B is an M-matrix, strictly diagonally dominant by rows, its diagonal computed from the other entries of the row, so that
both factorisations below are stable without pivoting.

==============  =======================================================================================================
dense           LAPACK, for several policies at once
``direct``      SuperLU in minimum-degree order: exact to rounding, and fast where few states border on many, as in a
                chain or a small grid; on a random graph, and on large grids, its factors fill up
``iterative``   GMRES, preconditioned by a Gauss–Seidel sweep there and back through the states in the order of their
                distance to z: where a policy heads for z, or away from it, that is nearly the solution. Memory linear
                in the non-zeros
==============  =======================================================================================================

What a solver leaves is found as a residual by the caller, who solves again for it: a solver need not be exact.
"""

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import LinearOperator, gmres, splu

from .model import MDP

__all__ = ["SOLVERS", "Cycle"]

SOLVERS = ("direct", "iterative")
_REDUCTION, _RESTART, _CYCLES = 1e-10, 30, 40


class Cycle:
    """The cycle of one policy; of several for a dense MDP.

    Parameters
    ----------
    mdp : MDP
    policy : ndarray, shape (..., S, A)
        As `MDP.check_policy` returns it.
    solver : {"direct", "iterative"}
        For a sparse MDP.
    """

    def __init__(self, mdp: MDP, policy: np.ndarray, solver: str = "direct"):
        self.gamma, self.anchor, self._time = mdp.gamma, mdp.anchor, None
        moves = mdp.induced(mdp.gamma * policy)
        z = self.anchor
        self._solver: _Dense | _Direct | _Iterative
        if mdp.is_sparse:
            moves = moves - sparse.diags_array(moves.diagonal())
            left = np.asarray(moves.sum(axis=1))
            self.out, self.back = moves[[z]].toarray()[0], moves[:, [z]].toarray()[:, 0]
            keep = sparse.diags_array(np.arange(mdp.states) != z, dtype=float)
            system = (sparse.diags_array(1 - mdp.gamma + left) - keep @ moves @ keep).tocsr()
            self._solver = _Direct(system) if solver == "direct" else _Iterative(system, _nearest_first(moves, z))
        else:
            diagonal = np.einsum("...xx->...x", moves)
            diagonal[...] = 0.0
            left = moves.sum(axis=-1)
            self.out, self.back = moves[..., z, :].copy(), moves[..., z].copy()
            moves[..., z, :] = moves[..., z] = 0.0
            system = np.negative(moves, out=moves)
            diagonal[...] = 1 - mdp.gamma + left
            self._solver = _Dense(system)

    def values(self, reward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """g and h for rewards of the states, shape (..., S)."""
        once = reward.copy()
        once[..., self.anchor] = 0.0
        if not self.out.any() and not reward[..., self.anchor].any():  # a terminal anchor: g is 0
            return reward[..., self.anchor], self._solver(once[..., None])[..., 0]
        if self._time is None:
            time = np.ones_like(reward)
            time[..., self.anchor] = 0.0
            a, self._time = np.moveaxis(self._solver(np.stack([once, time], axis=-1)), -1, 0)
        else:
            a = self._solver(once[..., None])[..., 0]
        g = (reward[..., self.anchor] + (self.out * a).sum(axis=-1)) / (1 + (self.out * self._time).sum(axis=-1))
        return g, a - g[..., None] * self._time

    def occupancy(self, start: np.ndarray) -> np.ndarray:
        """Discounted occupancy: what start gives before the first visit to z, and what each visit gives after it."""
        before = start.copy()
        before[..., self.anchor] = 0.0
        u, w = np.moveaxis(self._solver(np.stack([before, self.out], axis=-1), transposed=True), -1, 0)
        visits = start[..., self.anchor] + (u * self.back).sum(axis=-1)
        d = (1 - self.gamma) * u + (visits / (1 + w.sum(axis=-1)))[..., None] * w
        d[..., self.anchor] = visits / (1 + w.sum(axis=-1))
        return d


class _Dense:
    def __init__(self, system):
        self.system = system

    def __call__(self, right, transposed=False):
        return np.linalg.solve(np.swapaxes(self.system, -1, -2) if transposed else self.system, right)


class _Direct:
    def __init__(self, system):
        self.factors = _factors(system, "MMD_AT_PLUS_A")

    def __call__(self, right, transposed=False):
        return self.factors.solve(right, trans="T" if transposed else "N")


class _Iterative:
    def __init__(self, system, order):
        self.system, self.order = system[order][:, order], order
        self.diagonal = self.system.diagonal()
        self.there = _factors(sparse.tril(self.system), "NATURAL")  # triangular already: nothing fills
        self.back = _factors(sparse.triu(self.system), "NATURAL")

    def sweep(self, x, trans="N"):
        """Solve (D + L) D⁻¹ (D + U) y = x, or with the transposed matrix, for the system L + D + U."""
        first, second = (self.there, self.back) if trans == "N" else (self.back, self.there)
        return second.solve(self.diagonal * first.solve(x, trans), trans)

    def __call__(self, right, transposed=False):
        system, trans = (self.system.T, "T") if transposed else (self.system, "N")
        sweep = LinearOperator(system.shape, lambda x: self.sweep(x, trans), dtype=float)
        solution = np.empty_like(right)
        for column, found in zip(right.T, solution.T):
            size = np.abs(column).max() or 1.0  # so that tiny residuals do not underflow in norms
            found[self.order], _ = gmres(
                system, column[self.order] / size, rtol=_REDUCTION, restart=_RESTART, maxiter=_CYCLES, M=sweep
            )
            found *= size
        return solution


def _factors(system, ordering):
    return splu(system.tocsc(), permc_spec=ordering, diag_pivot_thresh=0.0, options={"SymmetricMode": True})


def _nearest_first(moves, z):
    """All states, those that need fewest steps to z first, those that never get there last."""
    order = breadth_first_order(moves.T.tocsr(), z, return_predecessors=False)
    far = np.ones(moves.shape[0], dtype=bool)
    far[order] = False
    return np.append(order, np.flatnonzero(far))
