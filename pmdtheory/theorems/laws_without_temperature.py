r"""Statement 28: CFPO and AsymRE, whose step is not held by a temperature.

CFPO maximises E_p[ρ A − |A| (ρ − 1)²/(2ε)] with ρ = max(0, 1 + ε (A − m)/|A|). AsymRE's softmax flow ends at the
projection of p (r − V)/(r̄ − V) on the simplex, which for V ≤ min r is the τ → 0 limit of Statement 10.

Assumptions: V < r̄ for AsymRE.

References
----------
Statement 28.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import wrightomega

from .. import family, updates
from . import family_problems, moments
from .claim import Claim
from .statement import claims

_EPSILONS = (0.1, 0.8, 2.0)


@claims("28", family_problems.contexts)
def cfpo_is_best(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, rivals: int=6, seed: int = 0) -> Claim:
    """No rival has a larger objective: mixtures with the anchor, the KL update, and policies near and far.

    Parameters
    ----------
    rivals : int
        How many random ones.
    seed : int
        Of the draws.

    Returns
    -------
    Claim
        Shape (..., 3, 2 + rivals), for ε = 0.1, 0.8, 2.

    Examples
    --------
    >>> cfpo_is_best([0.5, 0.5], [0.0, 1.0], 1.0).holds.all()
    np.True_
    """
    p, D = moments.targets(policy, reward, tau)
    A = np.asarray(tau, dtype=float)[..., None] * D
    rng, size = np.random.default_rng(seed), np.abs(A).max(axis=-1)[..., None]
    values, bounds = [], []
    for epsilon in _EPSILONS:
        law = family.MEMBERS["cfpo"].law(policy, reward, tau, epsilon=epsilon).policy

        def objective(q, epsilon=epsilon):
            rho = q / p
            return moments.mean(p, rho * A - np.abs(A) * (rho - 1) ** 2 / (2 * epsilon))

        others = [(law + p) / 2, updates.kl_update(policy, reward, tau).policy]
        for share in np.geomspace(1e-3, 1, rivals):
            drawn = rng.dirichlet(np.ones(p.shape[-1]), p.shape[:-1])
            others.append((1 - share) * law + share * drawn)
        values.append(np.stack([objective(q) for q in others], axis=-1))
        bounds.append(objective(law)[..., None])
    value, bound = np.stack(values, axis=-2), np.stack(bounds, axis=-2)
    return Claim("CFPO: the largest objective", value, bound, scale=size[..., None])


@claims("28", family_problems.contexts)
def asymre_stops(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """At the law every action of q has the same drift κ ≥ 0, and those without mass have no larger one.

    Returns
    -------
    Claim
        Largest excess of a drift over κ, and E_q|drift − κ|, against 0, for V from below min r to near r̄; (..., 3, 2).
    """
    p, r = np.asarray(policy, dtype=float), np.asarray(reward, dtype=float)
    mean, low = moments.mean(p, r), r.min(axis=-1)
    values = []
    for share in (-0.5, 0.3, 0.9):
        V = low + share * (mean - low)
        q = family.MEMBERS["asymre"].law(p, r, tau, baseline=V).policy
        drift = (p * (r - V[..., None]) - (mean - V)[..., None] * q) / (mean - V)[..., None]
        kappa = moments.mean(q, drift)
        spread = moments.mean(q, np.abs(drift - kappa[..., None]))
        values.append(np.stack([(drift - kappa[..., None]).max(axis=-1), spread], axis=-1))
    scale = np.full((*mean.shape, 3, 1), 1e2)
    return Claim("AsymRE: one drift on the support, less elsewhere", np.stack(values, axis=-2), 0.0, scale=scale)


@claims("28", family_problems.contexts)
def asymre_is_the_cold_limit(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """For V < min r it is Statement 10 at b = V with τ → 0: ‖q − q_τ‖₁ ≤ (τ/a)(log 2 + w + max(log 2, w)).

    a = r̄ − V and w = W((r_max − V)/τ), as in Statement 8; here τ is a millionth of the range.
    """
    p, r = np.asarray(policy, dtype=float), np.asarray(reward, dtype=float)
    width = np.ptp(r, axis=-1)
    V = r.min(axis=-1) - 0.5 * width
    law = family.MEMBERS["asymre"].law(p, r, tau, baseline=V).policy
    cold = 1e-6 * width
    other = updates.baseline_update(p, r, cold, V).policy
    w = wrightomega(np.log((r.max(axis=-1) - V) / cold))
    bound = cold / (moments.mean(p, r) - V) * (np.log(2) + w + np.maximum(np.log(2), w))
    return Claim("AsymRE = Statement 10, τ → 0", np.abs(law - other).sum(axis=-1), bound)
