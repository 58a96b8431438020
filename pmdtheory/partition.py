r"""Log-partition functions, log E_p[e^x], accurate where they are tiny and where e^x overflows."""

import numpy as np
from numpy.typing import ArrayLike

from .stationarity import excess


def log_mean_exp(p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """log E_p[e^x], shape (N,), with full relative accuracy where x = 0 has most of the mass."""
    return _log_mean(p, x, _mean_growth(p, x, np.expm1))


def jensen_gap(p: np.ndarray, D: np.ndarray) -> np.ndarray:
    """log E_p[e^D] ≥ 0 for E_p[D] = 0, shape (N,), with full relative accuracy also where it is tiny."""
    return _log_mean(p, D, _mean_growth(p, D, lambda x: excess(x, np.expm1(x))))


def log_partition_of_ranks(tau: ArrayLike) -> np.ndarray:
    """τ log Z = τ log(τ (e^{1/τ} − 1)) of a reward that is uniform in [0, 1], as ranks without ties are."""
    with np.errstate(divide="ignore"):
        return 1 + tau * np.log(tau * -np.expm1(-1 / tau))


def _log_mean(p, x, growth):
    """log(1 + growth), growth = E_p[e^x] − 1; from the logarithms of p e^x where that cancels or overflows."""
    near = (growth > -0.5) & np.isfinite(growth)
    result = np.log1p(np.where(near, growth, 0.0))
    with np.errstate(divide="ignore"):
        logits = np.log(p[~near]) + x[~near]
    top = logits.max(axis=-1, initial=-np.inf)
    result[~near] = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    return result


def _mean_growth(p, x, function):
    """E_p of a function that is e^x for all that matters where x > 300, where p e^x rather than e^x is formed."""
    large = x > 300
    if not large.any():
        return np.einsum("nk,nk->n", p, function(x))
    with np.errstate(divide="ignore", over="ignore"):
        huge = np.exp(np.log(p) + np.where(large, x, 0.0))
        return np.where(large, huge, p * function(np.where(large, 0.0, x))).sum(axis=-1)
