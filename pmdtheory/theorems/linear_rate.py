r"""Statement 32: how fast PMD-mean reaches the best actions.

Let * be a best action, Δ_y = r* − r_y, and gap = r* − r̄. One step at τ moves the odds of * against y at least as far as
a KL step at τ + gap does,

.. math:: \log\frac{ρ_*}{ρ_y} ≥ \frac{Δ_y}{τ + gap}, \qquad\text{so}\qquad
    gap_T ≤ \sum_a Δ_a \frac{π_0(a)}{p_0^*} \exp\Big(−Δ_a \sum_{t<T} \frac{1}{τ + gap_t}\Big),

a linear rate that is the KL update's in the end. No action gains much in one step if it is rare,

.. math:: q ≤ p + \sqrt{2 p A_+/τ},

and at τ = 0, where q = p A₊/E_p[A₊], L reward levels take at most L − 1 steps.

References
----------
Statement 32.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex, updates
from . import moments
from .claim import Claim
from .statement import claims


@claims("32")
def odds_of_the_best(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """log(ρ_y/ρ_*) ≤ −Δ_y/(τ + gap); shape (..., K).

    Examples
    --------
    >>> claim = odds_of_the_best([0.5, 0.5], [0.0, 1.0], tau=0.5)
    >>> claim.value.round(3), claim.bound.round(3)
    (array([-1.609,  0.   ]), array([-1., -0.]))
    """
    p, r, tau = simplex.problem(policy, reward, tau)
    s = updates.pmd_mean_update(p, r, tau).log_ratio
    best = np.where(p > 0, r, -np.inf).argmax(axis=-1)[..., None]
    behind = np.where(p > 0, np.take_along_axis(r, best, axis=-1) - r, 0.0)
    value = np.where(p > 0, s - np.take_along_axis(s, best, axis=-1), 0.0)
    bound = -behind / (tau + moments.mean(p, behind))[..., None]
    return Claim("ρ_y/ρ_* ≤ e^{−Δ/(τ+gap)}", value, bound, scale=1 + np.abs(s).max(axis=-1, keepdims=True))


@claims("32")
def rate(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, steps: int = 15) -> Claim:
    """gap_T against its bound after 1, …, T steps; shape (..., T)."""
    p, r, tau = simplex.problem(policy, reward, tau)
    best = r.max(axis=-1, where=p > 0, initial=-np.inf)[..., None]
    behind = np.where(p > 0, best - r, 0.0)
    with np.errstate(divide="ignore"):
        log_start = np.log(p * behind)
        log_best = np.log(np.where(behind == 0, p, 0.0).sum(axis=-1))[..., None]
    inverse, values, bounds = 0.0, [], []
    for _ in range(steps):
        inverse = inverse + 1 / (tau + moments.mean(p, behind))
        p = updates.pmd_mean_update(p, -behind, tau).policy
        values.append(moments.mean(p, behind))
        bounds.append(np.exp(log_start - log_best - inverse[..., None] * behind).sum(axis=-1))
    return Claim("gap_T ≤ Σ Δ π₀ e^{−ΔΣ1/(τ+gap_t)}/p₀*", np.stack(values, axis=-1), np.stack(bounds, axis=-1))


@claims("32")
def rare_actions(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """q ≤ p + √(2 p A₊/τ); shape (..., K)."""
    p, D = moments.targets(policy, reward, tau)
    q = updates.pmd_mean_update(policy, reward, tau).policy
    return Claim("q ≤ p + √(2pA₊/τ)", q, p + np.sqrt(2 * p * np.maximum(D, 0.0)))


@claims("32")
def levels(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """At τ = 0 the policy is greedy after as many steps as there are rewards less one."""
    p, r, _ = simplex.problem(policy, reward, tau)
    best = r.max(axis=-1, where=p > 0, initial=-np.inf)[..., None]
    behind = np.where(p > 0, best - r, 0.0)
    ordered = np.sort(behind, axis=-1)
    steps = (np.diff(ordered, axis=-1) > 0).sum(axis=-1)
    for step in range(steps.max(initial=0)):
        A = np.maximum(moments.targets(p, -behind, 1.0)[1], 0.0)
        mass = moments.mean(p, A)[..., None]
        p = np.where((step < steps)[..., None] & (mass > 0), p * A / np.where(mass > 0, mass, 1.0), p)
    left = moments.mean(p, behind)
    return Claim("τ = 0: greedy after L − 1 steps", left, 0.0, relation="==", scale=1 + ordered[..., -1])
