r"""Divergences between two policies on one action set, and the regulariser of PMD-mean.

For distributions a and b over K actions (last axis), with ratio t = a/b:

.. math::

    \mathrm{KL}(a\|b) = \sum_i a_i \log\frac{a_i}{b_i}, \qquad
    \chi^2(a\|b) = \sum_i \frac{(a_i - b_i)^2}{b_i}.

Both are sums of nonnegative terms, b (t log t − t + 1) and b (t − 1)², evaluated so that they keep their relative
accuracy when a is close to b. An action with a > 0 = b makes them infinite; one with a = b = 0 adds nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import simplex
from .stationarity import excess

__all__ = ["Movement", "chi2", "entropy", "kl", "mixed_regulariser", "movement"]

_SERIES = [1 / (k * (k - 1)) for k in range(2, 19)]


def _pair(a, b):
    a, b = simplex.distribution(a, "a"), simplex.distribution(b, "b")
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"a and b must have the same actions, got shapes {a.shape} and {b.shape}.")
    return np.broadcast_arrays(a, b)


def _bregman(x):
    """(1 + x) log(1 + x) − x for x ≥ −1, accurate near 0, where it is x²/2 − x³/6 + …."""
    small = np.abs(x) < 0.1
    y = np.where(small, -x, 0.0)
    series = x * x * np.polynomial.polynomial.polyval(y, _SERIES)
    inside = np.where(small | (x <= -1), 0.0, x)
    direct = (1 + inside) * np.log1p(inside) - inside
    return np.where(small, series, np.where(x <= -1, 1.0, direct))


def kl(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Kullback–Leibler divergence KL(a‖b) in nats.

    Parameters
    ----------
    a, b : array_like, shape (..., K)
        Distributions; leading axes broadcast.

    Returns
    -------
    ndarray, shape (...)
        In [0, inf]; inf where a has mass on an action that b excludes.

    Examples
    --------
    >>> kl([0.5, 0.5], [0.25, 0.75]).round(4)
    np.float64(0.1438)
    """
    a, b = _pair(a, b)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        x = np.where(b > 0, (a - b) / b, 0.0)
        overflow = x > 1e300
        terms = np.where(
            overflow, a * (np.log(a) - np.log(b)) - a + b, b * _bregman(np.where(overflow, 0.0, x))
        )
    terms = np.where(b > 0, terms, np.where(a > 0, np.inf, 0.0))
    return terms.sum(axis=-1)


def chi2(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """χ² divergence Σ (a − b)²/b of `a` from `b`; arguments and range as in `kl`.

    Examples
    --------
    >>> chi2([0.5, 0.5], [0.25, 0.75]).round(4)
    np.float64(0.3333)
    """
    a, b = _pair(a, b)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        terms = np.where(b > 0, (a - b) * ((a - b) / b), np.where(a > 0, np.inf, 0.0))
    return terms.sum(axis=-1)


def mixed_regulariser(a: ArrayLike, b: ArrayLike, tau: ArrayLike, chi2_coef: ArrayLike) -> np.ndarray:
    r"""The penalty τ KL(a‖b) + (κ/2) χ²(a‖b) that `mixed_update` subtracts from the expected reward.

    PMD-mean is the case κ = τλ with its own λ (Statement 3).

    Parameters
    ----------
    a, b : array_like, shape (..., K)
        Distributions; leading axes broadcast.
    tau : array_like, shape (...)
        Weight of the KL part, positive, reward units.
    chi2_coef : array_like, shape (...)
        κ ≥ 0, reward units.

    Returns
    -------
    ndarray, shape (...)
        In reward units.
    """
    tau, chi2_coef = simplex.positive(tau, "tau"), simplex.nonnegative(chi2_coef, "chi2_coef")
    with np.errstate(invalid="ignore"):  # 0 · ∞
        penalty = np.where(chi2_coef > 0, chi2_coef / 2 * chi2(a, b), 0.0)
    return tau * kl(a, b) + penalty


def entropy(a: ArrayLike) -> np.ndarray:
    """Shannon entropy −Σ a log a in nats of `a`, shape (..., K) → (...)."""
    a = simplex.distribution(a, "a")
    return (a * -np.log(np.where(a > 0, a, 1.0))).sum(axis=-1) + 0.0


class Movement(NamedTuple):
    """How far an update q = p e^s moves from p; every field has shape (...)."""

    kl: np.ndarray
    """KL(q‖p), nats."""
    reverse_kl: np.ndarray
    """KL(p‖q), nats; inf only where an action of p is given no mass at all (s = −inf)."""
    chi2: np.ndarray
    """χ²(q‖p)."""
    min_ratio: np.ndarray
    """Smallest q/p on the support of p."""
    max_ratio: np.ndarray
    """Largest q/p on the support of p."""


def movement(policy: ArrayLike, log_ratio: ArrayLike) -> Movement:
    """Measure an update from its log-ratio: exact also where q itself underflows or hardly differs from p.

    Parameters
    ----------
    policy : array_like, shape (..., K)
        p, the policy before the update.
    log_ratio : array_like, shape (..., K)
        s = log(q/p) with E_p[e^s] = 1; −inf where q = 0 < p. Ignored where p = 0.

    Returns
    -------
    Movement

    Examples
    --------
    >>> movement([0.5, 0.5], np.log([0.5, 1.5])).chi2
    np.float64(0.25)
    """
    p = simplex.distribution(policy)
    s = np.where(p > 0, log_ratio, 0.0)
    huge = s > 700  # e^s may overflow where q = p e^s does not
    growth = np.expm1(np.where(huge, 0.0, s))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # s = −∞; χ² and a ratio may be infinite
        reverse = np.where(huge, 0.0, excess(s, growth))
        forward = np.where(np.isneginf(s), 1.0, s * growth - reverse)  # ρ log ρ − ρ + 1
        q = np.where(huge, np.exp(np.log(p) + s), 0.0)
        return Movement(
            np.einsum("...k,...k->...", p, forward) + (q * (s - 1)).sum(axis=-1, where=huge),
            np.einsum("...k,...k->...", p, reverse) + q.sum(axis=-1),
            np.einsum("...k,...k,...k->...", p, growth, growth) + (q * np.exp(s)).sum(axis=-1, where=huge),
            np.exp(s.min(axis=-1, where=p > 0, initial=np.inf)),
            np.exp(s.max(axis=-1, where=p > 0, initial=-np.inf)),
        )
