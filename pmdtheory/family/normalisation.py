r"""Laws that are not regressions: each ratio is a decreasing function of one multiplier, which makes q sum to 1."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import roots, updates

__all__ = ["solve"]


def solve(
    p: np.ndarray, ratio: Callable[..., Any], low: ArrayLike, high: ArrayLike, scale: ArrayLike | None = None
) -> np.ndarray:
    """Find the multiplier m with E_p[ρ(m)] = 1, ρ nonincreasing in m.

    Parameters
    ----------
    p : ndarray, shape (..., K)
        Policies.
    ratio : callable
        ``ratio(rows, m) -> ρ, −dρ/dm``, both (n, K), for the contexts `rows` of the flattened batch at m of shape (n,).
    low, high : ndarray, shape (...)
        E_p[ρ] is at least 1 at `low` and at most 1 at `high`.
    scale : ndarray, shape (...), optional
        Size of m below which only its absolute error matters, at least that of the bracket; without it m ≥ 0 is found
        with full relative accuracy.

    Returns
    -------
    ndarray, shape (...)
    """
    K, shape = p.shape[-1], p.shape[:-1]
    floor, scale = (0.0, 0.0) if scale is None else (1.0, scale)
    p, low, high, scale = p.reshape(-1, K), *(np.broadcast_to(x, shape).reshape(-1) for x in (low, high, scale))
    if not p.size:
        return np.zeros(shape)
    unit = np.maximum(np.maximum(np.abs(scale), high - low), np.finfo(float).tiny)

    def propose(rows, x):
        m = x * unit[rows]
        rho, slope = ratio(rows, m)
        mass = np.einsum("nk,nk->n", p[rows], rho)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = x + (mass - 1) / (np.einsum("nk,nk->n", p[rows], slope) * unit[rows])
        return np.where(np.abs(mass - 1) <= 2e-16, 0.0, mass - 1), newton

    ends = low / unit, high / unit
    x = roots.find(propose, (ends[0] + ends[1]) / 2, *ends, floor=floor, geometric=floor == 0)
    return (x * unit).reshape(shape)


def update(p, rho, baseline, weight=np.nan, local=False):
    """The `Update` of given ratios, whose mass is 1 up to rounding."""
    shape = p.shape[:-1]
    q = np.where(p > 0, p * rho, 0.0)
    mass = q.sum(axis=-1, keepdims=True)
    if not np.all(np.abs(mass - 1) < 1e-9):
        raise FloatingPointError("the law is not normalised; please report the arguments.")
    with np.errstate(divide="ignore"):
        s = np.log(np.where(p > 0, rho / mass, 1.0))
    weight, baseline, local = (np.broadcast_to(x, shape).copy() for x in (weight, baseline, local))
    return updates.Update(q / mass, s, weight, baseline, local)
