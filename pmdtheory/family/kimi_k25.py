r"""Kimi K2.5's form: maximise E_p[ρ A − τ log²ρ], the penalty weighted by the anchor and the gain by the policy.

.. math:: \frac{\log ρ}{ρ} = \frac{A − m}{2τ}, \qquad ρ = \exp(−W_0(−\tfrac{A − m}{2τ})) ≤ e.

log ρ/ρ has its largest value 1/e at ρ = e. A stationary point with every ρ ≤ e, which is where the ascent from the
anchor goes, exists iff E_p[ρ] ≥ 1 with the best action at ρ = e. Without it winner takes most: one action alone has
ρ > e, on the branch W₋₁, and among equal successes one is chosen. (A point with ρ > e can be better than one without
even where that exists: Statement 27.) The unknown here is the log-ratio of the best action, in [0, 1].

References
----------
Statement 27.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import wrightomega

from .. import simplex
from ..overestimated import principal_branch
from ..stationarity import excess
from ..updates import Update
from . import normalisation
from .member import Member

_LEAST_MASS = 1 - 1e-13  # 1 up to rounding


def law(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Update:
    """Solve log ρ/ρ = (A − m)/(2τ) with every ρ ≤ e.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`.

    Returns
    -------
    Update
        With ``baseline`` r̄ + m, the reward at which ρ = 1. A local maximum; the only one where no action can have
        ρ > e.

    Raises
    ------
    ValueError
        Also if there is no such solution.

    Examples
    --------
    >>> law([0.7, 0.3], [0.0, 1.0], tau=0.1).policy.round(4)
    array([0.194, 0.806])
    """
    p, top, gap, tau = _parts(policy, reward, tau)
    G, mass = gap.reshape(-1, p.shape[-1]), _largest_mass(p, gap)
    refused = mass < _LEAST_MASS
    if refused.any():
        i = tuple(np.argwhere(refused)[0])
        raise ValueError(
            f"tau must be large enough for E_p[rho] >= 1 with the best action at rho = e (binary rewards: for a mean "
            f"reward of at least 1/e any tau is; Statement 27), got {tau[i]}, where E_p[rho] = {mass[i]:.6g}; below, "
            "one action takes most of the mass."
        )

    def ratio(rows, minus_top):
        s_top = np.clip(-minus_top, 0.0, 1.0)
        s = log_ratio(s_top, G[rows])
        rho = np.exp(s)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = rho**2 / (1 - s) * ((1 - s_top) * np.exp(-s_top))[:, None]
        return rho, np.where(G[rows] == 0, rho, slope)

    s_top = -normalisation.solve(p, ratio, -np.ones(tau.shape), np.zeros(tau.shape), 1.0)
    s = log_ratio(s_top.reshape(-1), G).reshape(p.shape)
    return normalisation.update(p, np.exp(s), top - 2 * tau * s_top * np.exp(-s_top))


def has_law(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> np.ndarray:
    """Whether `law` gives one, (...), instead of refusing; arguments as there."""
    p, _, gap, _ = _parts(policy, reward, tau)
    return _largest_mass(p, gap) >= _LEAST_MASS


def log_ratio(s_top: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """The s ≤ 1 with s e^{−s} = s_top e^{−s_top} − gap, (n, K); exact near s = 1, where ties stay ties."""
    x_top = (s_top * np.exp(-s_top))[:, None]
    x = x_top - gap
    with np.errstate(divide="ignore", invalid="ignore"):
        log_top = np.log(s_top)
        t_top = excess(log_top, np.expm1(log_top))[:, None]  # x = e^{−1−t}
        positive, negative = x > 0, x < 0
        t = np.where(positive, t_top - np.log1p(-gap / x_top), 1.0)
        high = principal_branch(np.maximum(t, 0.0))[0]
        low = -wrightomega(np.log(np.where(negative, -x, 1.0)))
    return np.where(positive, high, np.where(negative, low, 0.0))


def _parts(policy, reward, tau):
    """p, the largest reward r₁ of the support, (r₁ − r)/(2τ), and τ."""
    p, r, tau = simplex.problem(policy, reward, tau)
    top = np.where(p > 0, r, -np.inf).max(axis=-1)
    return p, top, np.where(p > 0, (top[..., None] - r) / (2 * tau[..., None]), 0.0), tau


def _largest_mass(p, gap):
    """E_p[ρ] with the best action at ρ = e."""
    K = p.shape[-1]
    rho = np.exp(log_ratio(np.ones(p.size // K), gap.reshape(-1, K)))
    return np.einsum("...k,...k->...", p, rho.reshape(p.shape))


def smallest_tau(success_rate: ArrayLike) -> np.ndarray:
    """Smallest τ with a solution for rewards 0 and 1: 0 for J ≥ 1/e, else 1/(2h), h = 1/e + |log ρ₋|/ρ₋ at ρ₊ = e.

    Examples
    --------
    >>> smallest_tau([0.1, 0.3, 0.4]).round(4)
    array([0.794 , 0.0921, 0.    ])
    """
    J = np.asarray(success_rate, dtype=float)
    failures = np.where(J * np.e < 1, (1 - J * np.e) / (1 - J), 1.0)
    return np.where(J * np.e < 1, 0.5 / (np.exp(-1) - np.log(failures) / failures), 0.0)


MEMBER = Member(
    name="kimi-k2.5",
    papers="Kimi K2.5 2602.02276",
    formula="max E_p [ρ A − τ log²ρ]",
    decides="gain over the policy, penalty over the anchor",
    law_formula="log ρ/ρ = (A − m)/(2τ), ρ ≤ e",
    exists="E_p[ρ] ≥ 1 with the best action at ρ = e; below, winner takes most",
    statement="27",
    function=law,
)
