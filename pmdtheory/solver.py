r"""The one root behind every update: normalise ρ = e^s subject to s + λρ = D − c.

Given a distribution p and targets D with E_p[D] = 0, find s with E_p[e^s] = 1 and

.. math:: s + λ(e^s − 1) = D − v, \qquad v = λ + c,

when either c (the *shift*: the baseline's excess over the mean, in units of τ) or λ (the *weight* of χ²) is given. At
the solution v = KL(p‖q). With Ψ(v) = E_p[e^s − 1 − s], whose terms are nonnegative,

.. math:: Ψ − v = (1 + λ)(E_p[e^s] − 1),

so comparing Ψ with v decides, without cancellation, on which side of the root v lies. The root is found by Newton's
method on log Ψ − log v in log v inside that bracket: two to five passes over the actions in practice.

Brackets, with sd the standard deviation of D under p: 0 ≤ v ≤ log E_p[e^D] always; for λ = v (PMD-mean) also
v ≤ sd/2 and v ≤ max D (Statement 6); λ decreases and v increases in c (Statement 10).
"""

import numpy as np

from . import overestimated
from .stationarity import excess, log_ratio

_TINY = np.finfo(float).tiny
_BLOCK = 2**15  # numbers per array


class BeyondPrincipalBranchError(ValueError):
    """No principal-branch solution for the shift of context `index`; `largest` is the largest that has one."""

    def __init__(self, index, largest):
        super().__init__(f"shift must be at most {largest} in row {index} (Statement 11).")
        self.index, self.largest = index, largest


def with_weight(p, D, weight):
    """Solve for s and v = KL(p‖q), λ given.

    Parameters
    ----------
    p, D : ndarray, shape (N, K)
        Distributions, and targets with E_p[D] = 0.
    weight : ndarray, shape (N,)
        λ ≥ 0.

    Returns
    -------
    s : ndarray, shape (N, K)
        Log-ratios (of no meaning where p = 0).
    v : ndarray, shape (N,)
    """
    if (merged := _two_levels(p, D)) is not None:
        is_high, *atoms = merged
        s, v = with_weight(*atoms, weight)
        return np.where(is_high, s[:, 1:], s[:, :1]), v
    v = jensen_gap(p, D)
    s = D - v[:, None]
    rows = np.flatnonzero(weight > 0)
    s[rows], v[rows] = _root(p[rows], D[rows], 0.0, weight[rows], np.zeros(len(rows)), v[rows])
    return s, v


def with_shift(p, D, shift, rounding=0.0):
    """Solve for s and λ, c given.

    Parameters
    ----------
    p, D : ndarray, shape (N, K)
        Distributions, and targets with E_p[D] = 0.
    shift : ndarray, shape (N,)
        c ≤ 0 for λ ≥ KL(p‖q); up to log E_p[e^D] for λ ≥ 0; above, λ < 0 (Statement 11).
    rounding : array_like, shape (N,)
        Absolute uncertainty of `shift`: within it of log E_p[e^D], λ is 0.

    Returns
    -------
    s : ndarray, shape (N, K)
        Log-ratios (of no meaning where p = 0).
    weight : ndarray, shape (N,)

    Raises
    ------
    BeyondPrincipalBranchError
        If a shift is too large for a principal-branch solution.
    """
    if (merged := _two_levels(p, D)) is not None:
        is_high, *atoms = merged
        s, weight = with_shift(*atoms, shift, rounding)
        return np.where(is_high, s[:, 1:], s[:, :1]), weight
    log_z = np.full(len(p), np.inf)
    rows = np.flatnonzero(shift > 0)
    log_z[rows] = jensen_gap(p[rows], D[rows])
    s, weight = np.empty(p.shape), np.zeros(len(p))

    below = shift < log_z - rounding
    rows = slice(None) if below.all() else np.flatnonzero(below)
    sd, top = _spread(p[rows], D[rows])
    low = np.maximum(shift[rows], 0.0)
    high = np.minimum(log_z[rows], low + np.minimum(sd / 2, top))
    s[rows], v = _root(p[rows], D[rows], 1.0, -shift[rows], low, high)
    weight[rows] = v - shift[rows]

    rows = np.flatnonzero(shift > log_z + rounding)
    largest = overestimated.largest_shift(p[rows], D[rows])
    beyond = np.flatnonzero(shift[rows] > largest + np.broadcast_to(rounding, shift.shape)[rows])
    if beyond.size:
        raise BeyondPrincipalBranchError(rows[beyond[0]], largest[beyond[0]])
    s[rows], weight[rows] = overestimated.solve(p[rows], D[rows], np.minimum(shift[rows], largest))

    rows = np.flatnonzero(np.abs(shift - log_z) <= rounding)
    s[rows] = D[rows] - log_z[rows, None]
    return s, weight


def log_mean_exp(p, x):
    """log E_p[e^x], shape (N,); accurate relative to the largest |x| of the support."""
    near = np.log1p(np.einsum("nk,nk->n", p, np.expm1(np.minimum(x, 1.0))))
    small = np.abs(x).max(axis=-1) < 1
    if small.all():
        return near
    with np.errstate(divide="ignore"):
        logits = np.where(p > 0, np.log(p) + x, -np.inf)
    top = logits.max(axis=-1)
    far = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    return np.where(small, near, far)


def jensen_gap(p, D):
    """log E_p[e^D] ≥ 0 for E_p[D] = 0, shape (N,), with full relative accuracy also where it is tiny."""
    moderate = D.max(axis=-1) < 300
    x = np.where(moderate[:, None], D, 0.0)
    near = np.log1p(np.einsum("nk,nk->n", p, excess(x, np.expm1(x))))
    return near if moderate.all() else np.where(moderate, near, log_mean_exp(p, D))


def _root(p, D, k, a, low, high):
    """Solve Ψ = v along λ = k v + a for v in [low, high], in blocks of rows that fit a cache. Returns s and v."""
    s, v = np.empty(p.shape), np.empty(len(p))
    size = max(1, _BLOCK // p.shape[-1])
    for start in range(0, len(p), size):
        rows = slice(start, start + size)
        s[rows], v[rows] = _newton(p[rows], D[rows], k, a[rows], low[rows], high[rows])
    return s, v


def _newton(p, D, k, a, low, high):
    """Newton on log Ψ − log v in log v, from the first-order solution or, where λ ≥ 0 must be kept, from above."""
    sd, _ = _spread(p, D)
    s, v = D / (1 + np.maximum(a, 0.0))[:, None], (sd / (1 + np.maximum(a, 0.0))) ** 2 / 2
    rows = np.flatnonzero(v > _TINY)  # elsewhere the first order is exact
    v = np.where(low > 0, high, np.minimum(v, high))
    with np.errstate(divide="ignore"):
        y, y_low, y_high = np.log(v), np.log(low), np.log(high) + 1e-12
    guess = None
    for _ in range(200):
        if not rows.size:
            return s, v
        every = slice(None) if rows.size == len(p) else rows
        P, v_now = p[every], np.exp(y[rows])
        weight = np.maximum(k * v_now + a[rows], 0.0)[:, None]
        solution, growth = log_ratio(D[every] - v_now[:, None], weight, guess)
        # Cancellation in e^s − 1 − s matters only where its mean is small.
        excesses = growth - solution if v_now.min() > 1e-3 else excess(solution, growth)
        psi = np.einsum("nk,nk->n", P, excesses)
        pull = (1 + k * growth) / (1 + weight * (1 + growth))
        slope = -v_now * np.einsum("nk,nk,nk->n", P, growth, pull) / psi
        value = np.log(psi) - y[rows]
        y_low[rows] = np.where(value > 0, y[rows], y_low[rows])
        y_high[rows] = np.where(value > 0, y_high[rows], y[rows])
        new = y[rows] + value / (1 - slope)
        midpoint = np.where(np.isfinite(y_low[rows]), (y_low[rows] + y_high[rows]) / 2, y_high[rows] - 5)
        new = np.where((new >= y_low[rows]) & (new <= y_high[rows]), new, midpoint)
        step, y[rows] = new - y[rows], new
        guess = solution - (v_now * np.expm1(step))[:, None] * pull
        s[every], v[rows] = guess, np.exp(new)
        unfinished = np.abs(step) > 1e-8
        rows, guess = rows[unfinished], guess[unfinished] if np.abs(step).max() < 1 else None
    raise FloatingPointError("the normalisation did not converge; please report the arguments.")


def _spread(p, D):
    """Standard deviation (E_p[D] = 0) and maximum of D on the support, each of shape (N,)."""
    scale = np.maximum(np.abs(D).max(axis=-1), _TINY)
    x = D / scale[:, None]
    return scale * np.sqrt(np.einsum("nk,nk,nk->n", p, x, x)), D.max(axis=-1, where=p > 0, initial=0.0)


def _two_levels(p, D):
    """Merge the actions if every context has at most two target values on its support (binary rewards)."""
    if p.shape[-1] <= 2:
        return None
    high = np.where(p > 0, D, -np.inf).max(axis=-1, keepdims=True)
    low = np.where(p > 0, D, np.inf).min(axis=-1, keepdims=True)
    is_high = high == D
    if not np.all(is_high | (low == D) | (p == 0)):
        return None
    mass = np.stack([np.where(is_high, 0.0, p).sum(axis=-1), np.where(is_high, p, 0.0).sum(axis=-1)], axis=-1)
    return is_high, mass, np.concatenate([low, high], axis=-1)
