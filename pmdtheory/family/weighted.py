r"""Two numbers for each action decide the law: its expected weight and its expected weighted advantage.

A loss whose gradient averages over actions drawn from p, with coefficients that are affine in the log-ratio, has the
expected coefficient a − τ w s at an action, w > 0 the expected weight and a the expected weighted advantage. In softmax
logits it is stationary where

.. math:: a − τ w s = C e^s \quad \text{for every action}, \qquad E_p[e^s] = 1.

With the weights as a policy, g = p w / E_p[w], this is the regression of Statement 10 from g, without baseline, on the
rewards a/w + τ log(p/g): log(q/g) is log(q/p) + log(p/g). So one root finder serves all.

=====================  ==================  ============================
member                 w                   a
=====================  ==================  ============================
PMD-mean               1                   r − r̄
division by length     1/|y|               (r − r̄)/|y|
mismatch               g/p                 (g/p)(r − E_g[r])
filter                 P(group kept | y)   r − r̄
=====================  ==================  ============================

C ≥ 0, the convex case, iff E_p[e^{a/(τ w)}] ≥ 1.

References
----------
Statement 19.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import convex, simplex, updates
from ..updates import Update

__all__ = ["has_law", "solve", "solve_convex"]


def solve(policy: ArrayLike, weight: ArrayLike, advantage: ArrayLike, tau: ArrayLike, condition: str) -> Update:
    """Solve a − τ w s = C e^s.

    Parameters
    ----------
    policy : ndarray, shape (..., K)
        p, checked.
    weight, advantage : ndarray, shape (..., K)
        w > 0 on the support of p, dimensionless, and a, reward units.
    tau : ndarray, shape (...)
        τ > 0.
    condition : str
        What has to hold for a principal-branch solution to exist, for the error.

    Returns
    -------
    Update
        With ``chi2_weight`` C/τ, ``baseline`` 0 and ``local`` where C < 0.

    Raises
    ------
    ValueError
        If there is no principal-branch solution (Statement 11).
    """
    g, rewards, offset, mean = _as_regression(policy, weight, advantage, tau)
    try:
        update = updates.baseline_update(g, rewards, tau, 0.0)
    except ValueError as error:
        if "Statement 11" not in str(error):
            raise
        raise ValueError(f"there is no principal-branch law here: {condition}.") from None
    s = np.where(policy > 0, update.log_ratio - offset, 0.0)
    return updates.Update(update.policy, s, update.chi2_weight * mean, update.baseline, update.local)


def has_law(policy: ArrayLike, weight: ArrayLike, advantage: ArrayLike, tau: ArrayLike) -> np.ndarray:
    """Whether there is a principal-branch solution, (...); arguments as in `solve`."""
    g, rewards, *_ = _as_regression(policy, weight, advantage, tau)
    return updates.largest_baseline(g, rewards, tau) >= 0


def solve_convex(
    policy: ArrayLike, weight: ArrayLike, advantage: ArrayLike, tau: ArrayLike, **solver_options: Any
) -> Update:
    """The same from CVXPY, for C ≥ 0: the regression of `pmdtheory.convex.regression` from the weights as a policy."""
    g, rewards, offset, mean = _as_regression(policy, weight, advantage, tau)
    update = convex.regression(g, rewards, tau, 0.0, **solver_options)
    s = np.where(policy > 0, update.log_ratio - offset, 0.0)
    return updates.Update(
        update.policy, s, update.chi2_weight * mean, update.baseline, update.local, update.certificate
    )


def _as_regression(p, weight, advantage, tau):
    """The weights as a policy g, the rewards of the regression from it, log(p/g), and E_p[w]."""
    mean = np.einsum("...k,...k->...", p, weight)
    on = p > 0
    w = np.where(on, weight, 1.0)
    offset = np.where(on, np.log(mean)[..., None] - np.log(w), 0.0)
    g = np.where(on, p * w / mean[..., None], 0.0)
    rewards = np.where(on, advantage / w + tau[..., None] * offset, 0.0)
    return simplex.distribution(g / g.sum(axis=-1, keepdims=True)), rewards, offset, mean
