r"""AsymRE: off-policy REINFORCE, E_p[(r − V) log q], with the baseline below the mean reward.

In softmax logits the flow is p (r − V) − (r̄ − V) q. For V ≤ min r the objective is concave and q = p (r − V)/(r̄ − V),
the τ → 0 limit of Statement 10. For V above, actions with r < V are pushed down without end, and the flow goes to the
Euclidean projection of the same vector on the simplex, (p (r − V) − κ)₊/(r̄ − V).

References
----------
Statement 28.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex
from ..updates import Update
from . import normalisation
from .member import Member


def law(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike = 1.0, baseline: ArrayLike | None = 0.0) -> Update:
    """Project p (r − V)/(r̄ − V) on the simplex.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`; τ is not read.
    baseline : array_like, shape (...)
        V below r̄, reward units.

    Raises
    ------
    ValueError
        Also if V is not below r̄: then the flow ends on one action.

    Examples
    --------
    >>> law([0.5, 0.3, 0.2], [0.0, 0.5, 1.0], baseline=-0.5).policy.round(4)
    array([0.2941, 0.3529, 0.3529])
    >>> law([0.5, 0.3, 0.2], [0.0, 0.5, 1.0], baseline=0.2).policy.round(4)
    array([0.    , 0.2667, 0.7333])
    """
    p, u, _, V = _parts(policy, reward, tau, baseline)
    K = p.shape[-1]
    ordered = -np.sort(-np.where(p > 0, u, -np.inf), axis=-1)
    excess = np.cumsum(np.where(np.isfinite(ordered), ordered, 0.0), axis=-1) - 1
    level = excess / np.arange(1, K + 1)
    kept = np.maximum((ordered > level).sum(axis=-1, keepdims=True), 1)
    kappa = np.take_along_axis(level, kept - 1, axis=-1)
    inside = (np.where(p > 0, u, 0.0) >= 0).all(axis=-1, keepdims=True)
    q = np.where(p > 0, np.maximum(u - np.where(inside, 0.0, kappa), 0.0), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = np.where(p > 0, q / p, 1.0)
    return normalisation.update(p, rho, V)


def _parts(policy, reward, tau, baseline):
    p, r, tau, V = simplex.problem(policy, reward, tau, baseline=baseline)
    mean = np.einsum("...k,...k->...", p, r)
    above = mean <= V
    height = np.einsum("...k,...k->...", p, r - V[..., None])  # r̄ − V, of the same rounding as what it divides
    if above.any():
        i = tuple(np.argwhere(above)[0])
        raise ValueError(
            f"baseline must be below the mean reward, {mean[i]:.6g}, for a law to exist (Statement 28), got {V[i]:.6g}."
        )
    return p, p * (r - V[..., None]) / height[..., None], mean, V


def _convex(policy, reward, tau=1.0, baseline=0.0, solver="CLARABEL"):
    import cvxpy as cp

    p, u, _, V = _parts(policy, reward, tau, baseline)
    q = cp.Variable(p.reshape(-1, p.shape[-1]).shape, nonneg=True)
    target = u.reshape(q.shape)
    off = (p.reshape(q.shape) == 0).astype(float)
    constraints = [cp.sum(q, axis=1) == 1, cp.multiply(off, q) == 0]
    cp.Problem(cp.Minimize(cp.sum_squares(q - target)), constraints).solve(solver=solver)
    solution = np.where(off == 0, np.maximum(q.value, 0.0), 0.0).reshape(p.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = np.where(p > 0, solution / p, 1.0)
    return normalisation.update(p, rho / solution.sum(axis=-1, keepdims=True), V)


MEMBER = Member(
    name="asymre",
    papers="AsymRE 2506.20520; TOPR and supervised training on successes at V = 0",
    formula="max E_p [(r − V) log q]",
    decides="no penalty: the baseline holds the step",
    law_formula="(p (r − V) − κ)₊/(r̄ − V), κ = 0 for V ≤ min r",
    exists="V < r̄",
    statement="28",
    function=law,
    convex=_convex,
)
