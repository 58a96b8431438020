r"""The one root behind every update: normalise ρ = e^s subject to s + λρ = D − c.

Given a distribution p and targets D with E_p[D] = 0, find s with E_p[e^s] = 1 and

.. math:: s + λ(e^s − 1) = D − v, \qquad v = λ + c,

when either c (the *shift*: the baseline's excess over the mean, in units of τ) or λ (the *weight* of χ²) is given. At
the solution v = KL(p‖q). With Ψ(v) = E_p[e^s − 1 − s], whose terms are nonnegative,

.. math:: Ψ − v = (1 + λ)(E_p[e^s] − 1),

so comparing Ψ with v decides, without cancellation, on which side of the root v lies. For c ≤ 0, or λ given, the root
is found by Halley's method on log Ψ − log v in log v: two to four passes over the actions in practice. For c > 0, where
λ = v − c would cancel, it is found by Newton's method on 1/E_p[e^s] in λ, close to linear both for λ → 0 and for large
targets. Both are kept inside a bracket: with sd the standard deviation of D under p (Statements 6 and 10)

.. math:: 0 ≤ v ≤ \log E_p[e^D], \qquad λ ≤ \min\{\log E_p[e^D] − c, \max D − c, (\sqrt{c^2 + sd^2} − c)/2\}.
"""

from functools import partial

import numpy as np

from . import overestimated
from .partition import jensen_gap
from .stationarity import excess, log_ratio

_TINY = np.finfo(float).tiny
_BLOCK = 2**15  # numbers per array
_FAILED = "the normalisation did not converge; please report the arguments."


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
    sd, _ = _spread(p[rows], D[rows])
    s[rows], v[rows] = _in_blocks(partial(_outside, 0.0), p[rows], D[rows], weight[rows], v[rows], sd)
    # Where v is large its own rounding unsettles s = D − v − …: one Newton step on log E_p[e^s], in s itself.
    rows = rows[v[rows] > 1]
    rho = np.exp(s[rows])
    mass = np.einsum("nk,nk->n", p[rows], rho)
    pull = 1 / (1 + weight[rows, None] * rho)
    step = mass * np.log(mass) / np.einsum("nk,nk,nk->n", p[rows], rho, pull)
    s[rows], v[rows] = s[rows] - step[:, None] * pull, v[rows] + step
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
    s, weight, rounding = np.empty_like(D), np.zeros(len(p)), np.broadcast_to(rounding, shift.shape)

    outside = shift <= 0
    rows = slice(None) if outside.all() else np.flatnonzero(outside)
    sd, top = _spread(p[rows], D[rows])
    high = np.minimum(sd * (sd / (2 * (np.hypot(shift[rows], sd) - shift[rows] + _TINY))), top)
    s[rows], v = _in_blocks(partial(_outside, 1.0), p[rows], D[rows], -shift[rows], high, sd)
    weight[rows] = v - shift[rows]
    if outside.all():
        return s, weight

    log_z = np.zeros(len(p))
    log_z[~outside] = jensen_gap(p[~outside], D[~outside])
    surplus = np.where(outside, np.nan, shift - log_z)
    rows = np.flatnonzero(surplus < -rounding)
    s[rows], weight[rows] = _in_blocks(_between, p[rows], D[rows], shift[rows], log_z[rows])
    rows = np.flatnonzero(np.abs(surplus) <= rounding)
    s[rows] = D[rows] - log_z[rows, None]
    rows = np.flatnonzero(surplus > rounding)
    if rows.size:
        largest = overestimated.largest_shift(p[rows], D[rows])
        beyond = np.flatnonzero(shift[rows] > largest + rounding[rows])
        if beyond.size:
            raise BeyondPrincipalBranchError(rows[beyond[0]], largest[beyond[0]])
        s[rows], weight[rows] = _above(p[rows], D[rows], np.minimum(shift[rows], largest), log_z[rows])
    return s, weight


def _in_blocks(solve, p, D, *per_row):
    """Run ``solve`` on blocks of rows that fit a cache."""
    s, found = np.empty_like(D), np.empty(len(p))
    size = max(1, _BLOCK // p.shape[-1])
    for start in range(0, len(p), size):
        rows = slice(start, start + size)
        s[rows], found[rows] = solve(p[rows], D[rows], *(x[rows] for x in per_row))
    return s, found


def _outside(k, p, D, a, high, sd):
    """Halley on log Ψ − log v in log v along λ = k v + a, a ≥ 0, for v up to `high`. Returns s and v."""
    s, v = D / (1 + a)[:, None], np.minimum(sd / (1 + a), 1e150) ** 2 / 2
    rows = np.flatnonzero(v > _TINY)  # elsewhere this first order is exact
    v = _first_guess(k, p, s, v)
    with np.errstate(divide="ignore"):
        y_high = np.log(high) + 1e-12
        y = np.minimum(np.log(v), y_high)
    y_low, guess = np.full(len(p), -np.inf), None
    for _ in range(200):
        if not rows.size:
            return s, v
        every = slice(None) if rows.size == len(p) else rows
        P, v_now = p[every], np.exp(y[rows])
        weight = (k * v_now + a[rows])[:, None]
        solution, growth = log_ratio(D[every] - v_now[:, None], weight, guess)
        with np.errstate(over="ignore", invalid="ignore"):  # far from the root only
            psi = _psi(P, solution, growth, v_now)
            rho = 1 + growth
            u = weight * rho
            inverse = 1 / (1 + u)
            pull = (1 + k * growth) * inverse  # −ds/dv
            bend = pull * inverse * (2 * k * rho - u * pull)  # d²s/dv²
            first = -v_now * (np.einsum("nk,nk,nk->n", P, growth, pull) / psi)
            second = v_now * (v_now * (np.einsum("nk,nk->n", P, rho * pull * pull + growth * bend) / psi))
            value, slope = np.log(psi) - y[rows], first - 1
            curving = value * (first + second - first * first) / (2 * slope * slope)
            new = y[rows] - value / slope / (1 - np.where(np.abs(curving) < 0.5, curving, 0.0))
        y_low[rows] = np.where(value > 0, y[rows], y_low[rows])
        y_high[rows] = np.where(value > 0, y_high[rows], y[rows])
        midpoint = np.where(np.isfinite(y_low[rows]), (y_low[rows] + y_high[rows]) / 2, y_high[rows] - 5)
        inside = (new >= y_low[rows]) & (new <= y_high[rows])
        new = np.where(inside, np.maximum(new, y[rows] - 10), midpoint)
        step, y[rows] = new - y[rows], new
        with np.errstate(over="ignore", invalid="ignore"):
            change = (v_now * np.expm1(step))[:, None]
            guess = solution - change * (pull - change / 2 * bend)
        s[every], v[rows] = guess, np.exp(new)
        # Cubic convergence: after a step of 1e-6 the root is exact.
        unfinished = ~(np.abs(step) <= np.where(inside, 1e-6, 1e-14))
        rows, guess = rows[unfinished], guess[unfinished] if np.abs(step).max() < 1 else None
    raise FloatingPointError(_FAILED)


def _first_guess(k, p, x, half_variance):
    """The v with v (1 + 2 k v) = log E_p[e^x]: for λ = k v the root, through fourth order in x."""
    log_z = np.log1p(np.einsum("nk,nk->n", p, np.expm1(np.minimum(x, 700.0))))
    log_z = np.where(log_z > 1e-12, log_z, half_variance)  # below, log_z is rounding
    return 2 * log_z / (1 + np.sqrt(1 + 8 * k * log_z))


def _between(p, D, c, log_z):
    """Newton on 1/E_p[e^s] in λ = v − c, for 0 < c < log E_p[e^D]. Returns s and λ."""
    sd, top = _spread(p, D)
    weight = np.minimum(np.minimum(log_z, top) - c, sd * (sd / (2 * (np.hypot(c, sd) + c))))
    low, high, s, rows = np.zeros(len(p)), weight.copy(), np.empty(p.shape), np.arange(len(p))
    for _ in range(200):
        if not rows.size:
            return s, weight
        now = weight[rows]
        solution, pull, surplus, new = _newton_weight(p[rows], D[rows], c[rows], now)
        low[rows] = np.where(surplus > 0, now, low[rows])
        high[rows] = np.where(surplus > 0, high[rows], now)
        midpoint = np.sqrt(np.maximum(low[rows], high[rows] / 1e4)) * np.sqrt(high[rows])
        new = np.where((new > low[rows]) & (new <= high[rows]), new, midpoint)
        s[rows], weight[rows] = solution - (new - now)[:, None] * pull, new
        noise = 1e-15 * np.minimum(now + c[rows], 1.0)
        rows = rows[~((np.abs(new - now) <= 1e-8 * now) | (np.abs(surplus) <= noise))]
    raise FloatingPointError(_FAILED)


def _above(p, D, c, log_z):
    """Principal branch for c > log E_p[e^D]: λ < 0. Returns s and λ."""
    s, weight = np.zeros(p.shape), -c  # the solution where D = 0
    # To first order λ = −(c − log Z)/E_p[ρ²] with the KL update's ρ; −λρ = 1 is the branch point.
    rho = np.exp(np.minimum(D - log_z[:, None], 350.0))
    first = (c - log_z) / np.einsum("nk,nk,nk->n", p, rho, rho)
    near = first * rho.max(axis=-1, where=p > 0, initial=0.0) < 1e-3
    varied = D.any(axis=-1)
    rows = np.flatnonzero(varied & near)
    if rows.size:
        weight[rows] = 0.0
        for _ in range(10):
            now = weight[rows]
            ideal = D[rows] - (now + c[rows])[:, None]
            solution, pull, _, new = _newton_weight(p[rows], D[rows], c[rows], now, ideal)
            s[rows], weight[rows] = solution - (new - now)[:, None] * pull, new
    rows = np.flatnonzero(varied & ~near)
    s[rows], weight[rows] = overestimated.solve(p[rows], D[rows], c[rows])
    return s, weight


def _newton_weight(p, D, c, weight, start=None):
    """One Newton step on 1/E_p[e^s] in λ at given c: s, −ds/dλ, E_p[e^s] − 1 and the next λ."""
    v = weight + c
    solution, growth = log_ratio(D - v[:, None], weight[:, None], start)
    with np.errstate(over="ignore", invalid="ignore"):
        small = (_psi(p, solution, growth, v) - v) / (1 + weight)
        mass = np.einsum("nk,nk->n", p, 1 + growth)
        surplus = np.where(v < 1e-2, small, mass - 1)
        pull = (1 + growth) / (1 + weight[:, None] * (1 + growth))
        new = weight + surplus * mass / np.einsum("nk,nk,nk->n", p, 1 + growth, pull)
    return solution, pull, surplus, new


def _psi(p, s, growth, v):
    """E_p[e^s − 1 − s]; cancellation in its terms matters only where v, which it approaches, is small."""
    psi = np.einsum("nk,nk->n", p, growth - s)
    small = np.flatnonzero(v < 1e-5)
    if small.size:
        psi[small] = np.einsum("nk,nk->n", p[small], excess(s[small], growth[small]))
    return psi


def _spread(p, D):
    """Standard deviation and maximum of D (E_p[D] = 0, and 0 where p = 0, so the maximum is one of the support)."""
    scale = np.maximum(np.abs(D).max(axis=-1), _TINY)
    x = D / scale[:, None]
    return scale * np.sqrt(np.einsum("nk,nk,nk->n", p, x, x)), D.max(axis=-1)


def _two_levels(p, D):
    """Merge the actions if every context has at most two target values on its support (binary rewards)."""
    if p.shape[-1] <= 2 or (len(p) > 1 and _two_levels(p[:1], D[:1]) is None):
        return None
    high = np.where(p > 0, D, -np.inf).max(axis=-1, keepdims=True)
    low = np.where(p > 0, D, np.inf).min(axis=-1, keepdims=True)
    is_high = high == D
    if not np.all(is_high | (low == D) | (p == 0)):
        return None
    mass = np.stack([np.where(is_high, 0.0, p).sum(axis=-1), np.where(is_high, p, 0.0).sum(axis=-1)], axis=-1)
    return is_high, mass, np.concatenate([low, high], axis=-1)
