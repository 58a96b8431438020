"""Expectations of a log-ratio s = log q/p under p, from s itself and not from q.

For a normalised q each is a sum of nonnegative terms, so it keeps its relative accuracy when q is close to p, when
p is nearly one-hot, and where q underflows.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import partition, simplex, updates
from ..stationarity import excess


def targets(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return p and D = (r − E_p[r])/τ, both (..., K), D = 0 where p = 0; accurate for nearly one-hot p."""
    p, r, tau = simplex.problem(policy, reward, tau)
    return p, updates.centred_targets(p, r, tau)[0]


def mean(p: np.ndarray, x: Any) -> np.ndarray:
    """E_p[x]."""
    return np.einsum("...k,...k->...", p, x)


def spread(p: np.ndarray, D: np.ndarray) -> np.ndarray:
    """Standard deviation under p of targets with E_p[D] = 0."""
    return np.sqrt(mean(p * np.abs(D), np.abs(D)))


def jensen_gap(p: np.ndarray, D: np.ndarray) -> np.ndarray:
    """log E_p[e^D] for targets with E_p[D] = 0."""
    K = p.shape[-1]
    return partition.jensen_gap(p.reshape(-1, K), D.reshape(-1, K)).reshape(p.shape[:-1])


def improvement(p: np.ndarray, s: np.ndarray, D: np.ndarray) -> np.ndarray:
    """(E_q[r] − E_p[r])/τ."""
    return mean(p * np.expm1(s), D)


def kl(p: np.ndarray, s: np.ndarray) -> np.ndarray:
    """KL(q‖p) = E_p[ρ log ρ − ρ + 1]."""
    inner = np.maximum(s, -30.0)
    terms = np.where(s > -30, np.exp(inner) * excess(-inner, np.expm1(-inner)), 1 + (s - 1) * np.exp(s))
    return mean(p, terms)


def reverse_kl(p: np.ndarray, s: np.ndarray) -> np.ndarray:
    """KL(p‖q) = E_p[ρ − 1 − log ρ]."""
    return mean(p, excess(s, np.expm1(s)))


def chi2(p: np.ndarray, s: np.ndarray) -> np.ndarray:
    """χ²(q‖p) = E_p[(ρ − 1)²]."""
    return mean(p * np.expm1(s), np.expm1(s))


def distance(p: np.ndarray, s: np.ndarray, other: np.ndarray | float) -> np.ndarray:
    """L1 distance of the two policies with log-ratios `s` and `other`."""
    return mean(p, np.abs(np.expm1(s) - np.expm1(other)))


def extremes(p: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest s on the support."""
    return s.min(axis=-1, where=p > 0, initial=np.inf), s.max(axis=-1, where=p > 0, initial=-np.inf)
