r"""CFPO: a quadratic penalty scaled by the size of the advantage.

Maximise E_p[ρ A − |A| (ρ − 1)²/(2ε)] over policies, a concave quadratic:

.. math:: ρ = \max(0, 1 + ε (A − m)/|A|).

Actions with A = 0 have no penalty: they share what the others leave if those leave anything at m = 0, else nothing.

References
----------
Statement 28.
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex, updates
from ..updates import Update
from . import normalisation
from .member import Member


def law(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike = 1.0, epsilon: ArrayLike = 0.2) -> Update:
    """Solve ρ = max(0, 1 + ε (A − m)/|A|).

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`; τ is not read.
    epsilon : array_like, shape (...)
        ε > 0; ρ stays positive for every success rate of binary rewards iff ε < 2(√2 − 1).

    Returns
    -------
    Update
        With ``baseline`` r̄ + m.

    Examples
    --------
    >>> law([0.5, 0.5], [0.0, 1.0], epsilon=0.2).policy.round(4)
    array([0.4, 0.6])
    """
    p, A, mean, epsilon = _parts(policy, reward, tau, epsilon)
    size = np.abs(A)
    neutral = (p > 0) & (A == 0)
    acting = (p > 0) & (A != 0)
    K = p.shape[-1]
    S, sign, act, eps = (
        np.where(acting, size, 1.0).reshape(-1, K), np.sign(A).reshape(-1, K), acting.reshape(-1, K),
        epsilon.reshape(-1),
    )  # fmt: skip

    def ratio(rows, m):
        rho = 1 + eps[rows, None] * (sign[rows] - m[:, None] / S[rows])
        live = act[rows] & (rho > 0)
        return np.where(live, rho, 0.0), np.where(live, eps[rows, None] / S[rows], 0.0)

    flat = p.reshape(-1, K)
    at_zero = np.einsum("nk,nk->n", flat, ratio(np.arange(len(flat)), np.zeros(len(flat)))[0]).reshape(mean.shape)
    free = neutral.any(axis=-1) & (at_zero <= 1)
    largest = size.max(axis=-1, where=acting, initial=0.0)
    held = np.where(free[..., None] | ~acting.any(axis=-1, keepdims=True), np.where(acting, 0.0, p), p)
    m = np.zeros(mean.shape)
    rows = np.flatnonzero(~free.reshape(-1))
    if rows.size:

        def chosen(i, x):
            return ratio(rows[i], x)

        width = largest.reshape(-1)[rows]
        m.reshape(-1)[rows] = normalisation.solve(held.reshape(-1, K)[rows], chosen, -width, width, width)
    rho = ratio(np.arange(len(flat)), m.reshape(-1))[0].reshape(p.shape)
    rest = 1 - np.where(acting, p * rho, 0.0).sum(axis=-1)
    share = np.where(free, rest / np.maximum(np.where(neutral, p, 0.0).sum(axis=-1), 1e-300), 0.0)
    return normalisation.update(p, np.where(neutral, share[..., None], rho), mean + m)


def _parts(policy, reward, tau, epsilon):
    simplex.positive(epsilon, "epsilon")
    p, r, tau, epsilon = simplex.problem(policy, reward, tau, epsilon=epsilon)
    A = tau[..., None] * updates.centred_targets(p, r, tau)[0]
    scale = np.abs(np.where(p > 0, r, 0.0)).max(axis=-1, keepdims=True)
    A = np.where((p > 0) & (np.abs(A) > 4e-16 * scale), A, 0.0)
    return p, A, np.einsum("...k,...k->...", p, r), epsilon


def _convex(policy, reward, tau=1.0, epsilon=0.2, solver="CLARABEL"):
    import cvxpy as cp

    p, A, mean, epsilon = _parts(policy, reward, tau, epsilon)
    K, shape = p.shape[-1], p.shape
    P, A, epsilon = p.reshape(-1, K), A.reshape(-1, K), np.broadcast_to(epsilon, mean.shape).reshape(-1)
    unit = np.maximum(np.abs(A).max(axis=-1, keepdims=True), 1e-300)
    rho = cp.Variable(P.shape, nonneg=True)
    bends = np.sqrt(P * np.abs(A) / unit / (2 * epsilon[:, None]))
    gain = cp.sum(cp.multiply(P * A / unit, rho)) - cp.sum_squares(cp.multiply(bends, rho - 1))
    normalised = cp.sum(cp.multiply(P, rho), axis=1) == 1
    problem = cp.Problem(cp.Maximize(gain), [normalised])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        problem.solve(solver=solver)
    solution = np.maximum(np.where(P > 0, rho.value, 0.0), 0.0)
    solution /= np.einsum("nk,nk->n", P, solution)[:, None]
    return normalisation.update(
        p, solution.reshape(shape), mean + (unit[:, 0] * normalised.dual_value).reshape(mean.shape)
    )


MEMBER = Member(
    name="cfpo",
    papers="CFPO",
    formula="max E_p [ρ A − |A| (ρ − 1)²/(2ε)]",
    decides="a penalty that scales with the advantage",
    law_formula="ρ = max(0, 1 + ε (A − m)/|A|)",
    exists="always; no action emptied at any success rate iff ε < 2(√2 − 1)",
    statement="28",
    function=law,
    convex=_convex,
)
