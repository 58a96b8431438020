r"""Groups of n rollouts whose rewards are all equal are dropped: dynamic sampling, online filtering.

With leave-one-out means the advantages of such a group vanish anyway, so an action's expected advantage stays r − r̄;
but its penalty τ s only counts in the groups that are kept, with chance w(r) = 1 − P(r)^{n−1}, P(r) the probability of
its reward:

.. math:: w τ s + C e^s = r − \bar r.

For binary rewards w₊ = 1 − J^{n−1} and w₋ = 1 − (1−J)^{n−1}: two temperatures. On hard prompts failures hardly pay for
moving, and the step overshoots the ideal one.

References
----------
Statement 24.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex, updates
from ..updates import Update
from . import weighted
from .member import Member


def law(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, rollouts: int | None, estimator: str = "loo_mean"
) -> Update:
    """Solve w τ s + C e^s = r − r̄.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`. Actions belong to one level of the reward if theirs are equal.
    rollouts : int
        n ≥ 2 of a group.
    estimator : {'loo_mean', 'mean'}
        Baseline of a group: with the plain mean the advantages are (n − 1)/n of that.

    Returns
    -------
    Update
        With ``chi2_weight`` C/τ; ``local`` where C < 0.

    Raises
    ------
    ValueError
        Also if no principal-branch solution exists: then failures, hardly held, would have to keep more mass than the
        targets leave.

    Examples
    --------
    >>> law([0.9, 0.1], [0.0, 1.0], tau=1.0, rollouts=2).policy[1].round(3)
    np.float64(0.405)
    """
    p, weight, A, tau = _parts(policy, reward, tau, rollouts, estimator)
    condition = (
        "with equal groups dropped the targets hold E_p[exp((r - E_p[r]) / (w tau))] of the mass, far below 1; "
        "more rollouts or a larger tau raise it (Statement 24)"
    )
    return weighted.solve(p, weight, A, tau, condition)


def has_law(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, rollouts: int | None, estimator: str = "loo_mean"
) -> np.ndarray:
    """Whether `law` gives one, (...), instead of refusing; arguments as there."""
    return weighted.has_law(*_parts(policy, reward, tau, rollouts, estimator))


def kept(p: np.ndarray, r: np.ndarray, rollouts: int) -> np.ndarray:
    """w(r) = 1 − P(r)^{n−1} of each action, (..., K)."""
    same = r[..., :, None] == r[..., None, :]
    other = np.einsum("...jk,...k->...j", ~same, p)  # 1 − P(r), exact where it is small
    with np.errstate(divide="ignore"):
        return -np.expm1((rollouts - 1) * np.log1p(-np.minimum(other, 1.0)))


def _parts(policy, reward, tau, rollouts, estimator="loo_mean"):
    simplex.count(rollouts, "rollouts", 2)
    if estimator not in ("loo_mean", "mean"):
        raise ValueError(f"estimator must be 'loo_mean' or 'mean', got {estimator!r}.")
    p, r, tau = simplex.problem(policy, reward, tau)
    D = updates.centred_targets(p, r, tau)[0]
    weight = np.where(D.any(axis=-1, keepdims=True), kept(p, r, rollouts), 1.0)
    share = (rollouts - 1) / rollouts if estimator == "mean" else 1.0
    return p, weight, share * tau[..., None] * D, tau


def _convex(policy, reward, tau, rollouts, estimator="loo_mean", **solver_options):
    return weighted.solve_convex(*_parts(policy, reward, tau, rollouts, estimator), **solver_options)


MEMBER = Member(
    name="filtered",
    papers="DAPO 2503.14476 (dynamic sampling), PRIME 2502.01456 (online filtering)",
    formula="E over groups with unequal rewards of (r − r̂ − τ s)²",
    decides="weights P(group kept | y) on the penalty only",
    law_formula="w τ s + C e^s = r − r̄, w = 1 − P(r)^{n−1}",
    exists="E_p e^{(r − r̄)/(wτ)} ≥ 1; below, a local one that overshoots the KL update, while there is one",
    statement="24",
    function=law,
    example={"rollouts": 8},
    convex=_convex,
)
