r"""The one root behind every update: normalise ρ = e^s subject to s + λρ = D − c.

Given a distribution p and targets D with E_p[D] = 0, find s with E_p[e^s] = 1 and

.. math:: s + λ(e^s − 1) = D − v, \qquad v = λ + c,

when either c (the *shift*: the baseline's excess over the mean, in units of τ) or λ (the *weight* of χ²) is given. At
the solution v = KL(p‖q). With Ψ(v) = E_p[e^s − 1 − s], whose terms are nonnegative,

.. math:: Ψ − v = (1 + λ)(E_p[e^s] − 1),

so comparing Ψ with v decides, without cancellation, on which side of the root v lies. For c ≤ 0, or λ given, the root
is found by Halley's method on log Ψ − log v in log v: in practice by one to three passes over the actions in 32 bits
and one in 64. For c > 0, where λ = v − c would cancel, it is found by Newton's method on 1/E_p[e^s] in λ, close to
linear both for λ → 0 and for large targets. Both are kept inside a bracket: with sd the standard deviation of D under p
(Statements 6 and 10)

.. math:: 0 ≤ v ≤ \log E_p[e^D], \qquad λ ≤ \min\{\log E_p[e^D] − c, \max D − c, (\sqrt{c^2 + sd^2} − c)/2\}.

Where v is larger than 256 and than λ, nearly all of p has lost its mass, and targets measured from the mean say little
about the actions that gained it: D − v cancels. Then, λ given, the targets are measured from an action whose own target
is small; c given, from the baseline wherever c > 1.
"""

from functools import partial

import numpy as np

from . import blocks, overestimated, roots
from .partition import jensen_gap, log_mean_exp
from .stationarity import excess, log_ratio

_TINY = np.finfo(float).tiny
_FAR = 256.0  # values of v beyond which D − v loses digits that matter
_SMALL = 1e-2  # values of v below which E_p[e^s] − 1 is computed without a difference
_FAILED = "the normalisation did not converge; please report the arguments."


class BeyondPrincipalBranchError(ValueError):
    """No principal-branch solution for the shift of context `index`; `largest` is the largest that has one."""

    def __init__(self, index, largest):
        super().__init__(f"shift must be at most {largest} in row {index} (Statement 11).")
        self.index, self.largest = index, largest


def with_weight(p, D, weight, measured_from):
    """Solve for s and v = KL(p‖q), λ given.

    Parameters
    ----------
    p, D : ndarray, shape (N, K)
        Distributions, and targets with E_p[D] = 0.
    weight : ndarray, shape (N,)
        λ ≥ 0.
    measured_from : callable
        ``measured_from(rows, actions)``: the targets of `rows` less that of one action each, shape (n, K), with full
        relative accuracy (0 where p = 0).

    Returns
    -------
    s : ndarray, shape (N, K)
        Log-ratios (of no meaning where p = 0).
    v : ndarray, shape (N,)
    """
    v = jensen_gap(p, D)
    s = D - v[:, None]
    with np.errstate(over="ignore"):  # s ≤ −log p of the largest target bounds v from below
        top = np.maximum(np.take_along_axis(p, D.argmax(axis=-1)[:, None], axis=-1)[:, 0], 5e-324)
        far = D.max(axis=-1) + np.log(top) - weight / top > np.maximum(weight, _FAR)
    near = (weight > 0) & ~far
    rows = slice(None) if near.all() else np.flatnonzero(near)
    s[rows], v[rows] = blocks.of_rows(partial(_halley, 0), p[rows], D[rows], weight[rows], v[rows])
    rows = np.flatnonzero(far | (v > np.maximum(weight, _FAR)))
    if rows.size:
        mode, s[rows] = _ideal(p[rows], partial(measured_from, rows))
        curved = weight[rows] > 0
        if (some := rows[curved]).size:
            s[some] = _from_an_action(p[some], weight[some], mode[curved], partial(measured_from, some))
        v[rows] = np.einsum("nk,nk->n", p[rows], -s[rows])
    return s, v


def with_shift(p, D, shift, target=None, rounding=0.0):
    """Solve for s and λ, c given.

    Parameters
    ----------
    p, D : ndarray, shape (N, K)
        Distributions, and targets with E_p[D] = 0.
    shift : ndarray, shape (N,)
        c ≤ 0 for λ ≥ KL(p‖q); up to log E_p[e^D] for λ ≥ 0; above, λ < 0 (Statement 11).
    target : ndarray, shape (N, K), optional
        D − c with full relative accuracy; only needed where c > 1.
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
    below = shift <= 0
    if below.all():
        return _below_the_mean(p, D, shift)
    s, weight = np.empty_like(D), np.empty(len(p))
    s[below], weight[below] = _below_the_mean(p[below], D[below], shift[below])
    rows = np.flatnonzero(~below)
    c, rounding = shift[rows], np.broadcast_to(rounding, shift.shape)[rows]
    s[rows], weight[rows] = _above_the_mean(p[rows], D[rows], c, target[rows], rounding, rows)
    return s, weight


def _below_the_mean(p, D, c):
    """Solve for c ≤ 0, where λ = v − c."""
    s, v = blocks.of_rows(partial(_halley, 1), p, D, -c)
    return s, v - c


def _above_the_mean(p, D, c, target, rounding, rows):
    """Solve for c > 0: λ > 0, = 0 or < 0 as E_p[e^target] is above, at or below 1. `rows` are named in the error."""
    near = c <= 1
    target = np.where(near[:, None], D - c[:, None], target)
    log_mass = np.where(near, jensen_gap(p, D) - c, log_mean_exp(p, target))
    s = target - log_mass[:, None]
    weight = np.zeros(len(p))
    q = p * np.exp(np.minimum(s, 700.0))
    rounding = np.where(near, rounding, 4e-16 * (1 + np.einsum("nk,nk->n", q, np.abs(target))))

    convex = np.flatnonzero(log_mass > rounding)
    s[convex], weight[convex] = _between(*(x[convex] for x in (p, D, c, target, log_mass)))
    over = np.flatnonzero(log_mass < -rounding)
    if over.size:
        p, D, c, target, log_mass, rounding = (x[over] for x in (p, D, c, target, log_mass, rounding))
        from_mean = D.max(axis=-1) <= np.abs(target.max(axis=-1, where=p > 0, initial=-np.inf))
        levels = np.where(from_mean[:, None], D, target)
        left = overestimated.largest_shift(p, levels) - np.where(from_mean, c, 0.0)
        beyond = np.flatnonzero(left < -(rounding + 4e-15 + 4e-16 * c))
        if beyond.size:
            first = beyond[:1]
            raise BeyondPrincipalBranchError(rows[over][first[0]], overestimated.largest_shift(p[first], D[first])[0])
        s[over], weight[over] = _above(p, c, target, levels, log_mass)
    return s, weight


def _halley(k, p, D, a, high=np.inf):
    """Halley on log Ψ − log v in log v along λ = k v + a, a ≥ 0, for v up to `high`. Returns s and v.

    The loop is its own because each step starts from the solutions of the last, moved to second order. The first steps
    are taken in 32 bits, twice as many numbers to an instruction, wherever they lead close to the root.
    """
    sd, top, gain = _moments(p, D)
    if k:
        high = np.minimum(sd / 8 * (sd / (np.hypot(a / 4, sd / 4) + a / 4 + _TINY)), top)
    # There Ψ hardly depends on v, unless a large target belongs to a tiny probability.
    tiny = (sd <= 1e-20 * (1 + a)) & (top <= 1 + a)
    s, left = np.empty_like(D), ~tiny
    with np.errstate(all="ignore"):  # far from the root only
        y_high = np.log(np.maximum(high, 5e-324)) + 1e-12
        y = np.minimum(np.log(np.fmax(_first_guess(k, a, sd, gain), 5e-324)), y_high)
        y_low, warm = np.full(len(p), -np.inf), _roughly(k, p, D, a, y, s, left)
        y = np.minimum(y, y_high)
        for _ in range(200):
            if not left.any():
                break
            rows = slice(None) if 2 * left.sum() > len(left) else np.flatnonzero(left)
            now, low, top, moves = y[rows].copy(), y_low[rows], y_high[rows], left[rows]
            given = (x[rows] for x in ((p, D, s) if warm else (p, D)))
            points, sums = _pass(k, a[rows], np.exp(now), blocks.of_actions(*given))
            value, new = _proposal(now, sums)
            new, inside = roots.narrow(now, value, new, low, top)
            y_low[rows], y_high[rows] = low, top
            new = np.where(inside, np.maximum(new, now - 10), np.where(np.isfinite(low), new, top - 5))
            new = np.where(moves, new, now)
            y[rows], step = new, np.abs(new - now)
            for (block,), moved in zip(blocks.of_actions(s), _moved(k, points, now, new)):
                block[rows] = moved
            del points, moved  # which are as large as s, each
            # Cubic convergence: after a step of 1e-6 the root is exact.
            left[rows] = moves & ~(step <= np.where(inside, 1e-6, 1e-14))
            warm = step.max() < 1
        else:
            raise FloatingPointError(_FAILED)
        v = np.exp(y)
    if tiny.any():
        s[tiny], v[tiny] = _hardly_moved(k, p[tiny], D[tiny], a[tiny])
    return s, v


def _roughly(k, p, D, a, y, s, moves):
    """Move y = log v, and s with it, close to the root by passes in 32 bits. False if they do not lead there."""
    given = [[x.astype(np.float32) for x in block] for block in blocks.of_actions(p, D)]
    new = y
    for _ in range(5):
        now = new
        try:
            points, sums = _pass(k, a, np.exp(now), given)
        except FloatingPointError:
            return False
        new = np.where(moves, _proposal(now, sums)[1], now)
        step, moved = np.abs(new - now).max(initial=0.0), _moved(k, points, now, new)
        if step < 0.02:  # and the next one below 1e-6
            y[:] = new
            for (block,), x in zip(blocks.of_actions(s), moved):
                block[:] = x
            return True
        if not step < 10:
            return False
        given = [(P, T, x) if step < 0.5 else (P, T) for (P, T, *_), x in zip(given, moved)]
        del points, moved  # which are as large as s, each
    return False


def _pass(k, a, v, given):
    """At v: s, −ds/dv and 1/(1 + λ e^s) of each block of actions, and the sums of Ψ, −dΨ/dv and d²Ψ/dv²."""
    points, sums = zip(*(_along(k, a, v, *block) for block in given))
    return points, sum(sums)


def _along(k, a, v, p, D, start=None):
    """`_pass` of one block."""
    v, weight = (x[:, None].astype(p.dtype) for x in (v, k * v + a))
    s, growth = log_ratio(D - v, weight, start)
    inverse = 1 / (1 + weight * (1 + growth))
    pull = inverse + growth * inverse if k else inverse
    weighted = p * pull
    first = np.einsum("nk,nk->n", weighted, growth)
    second = np.einsum("nk,nk->n", weighted * pull, 1 + growth * (inverse + 2 * k))
    return (s, pull, inverse), np.array([_psi(p, s, growth, v[:, 0]), first, second])


def _proposal(y, sums):
    """log Ψ − y, and the next y by Halley's method."""
    v, (psi, first, second) = np.exp(y), sums
    first, second = -v * (first / psi), v * (v * (second / psi))
    value, slope = np.log(psi) - y, first - 1
    curving = value * (first + second - first * first) / (2 * slope * slope)
    return value, y - value / slope / (1 - np.where(np.abs(curving) < 0.5, curving, 0.0))


def _moved(k, points, y, new):
    """s of each block where y = log v has become `new`, to second order."""
    change = (np.exp(y) * np.expm1(new - y))[:, None].astype(points[0][0].dtype)
    for s, pull, inverse in points:
        moved = change * pull
        yield s - moved * (1 - moved * (inverse + (2 * k - 1)) / 2)


def _hardly_moved(k, p, D, a):
    """One fixed-point step v = Ψ(0): the relative error is about E_p|e^s − 1|. Returns s and v."""
    s, growth = log_ratio(D, a[:, None])
    v = _psi(p, s, growth, np.zeros(len(p)))
    s = log_ratio(D - v[:, None], (k * v + a)[:, None])[0]
    equal = ~np.any(D * (p > 0), axis=-1)  # nothing moves, not even by rounding
    s[equal], v[equal] = 0.0, 0.0
    return s, v


def _first_guess(k, a, sd, gain):
    """v is half the variance of small s; of large ones, for λ = v + a, E_p[max(D, 0)]/(1 + a). Between, a fit."""
    half = np.minimum(sd / (1 + a), 1e150) ** 2 / 2
    if k:
        return half * (1 + (half * (1 + a) / gain) ** 1.75) ** (-1 / 1.75)
    return np.minimum(half, sd / 2 * (sd / gain))


def _between(p, D, c, target, log_mass):
    """Newton on 1/E_p[e^s] in λ, for 0 < c < log E_p[e^D]; log_mass is log E_p[e^target]. Returns s and λ."""
    sd = _moments(p, D)[0]
    high = np.minimum(log_mass, target.max(axis=-1, where=p > 0, initial=-np.inf))
    high = np.minimum(high, sd / 8 * (sd / (np.hypot(c / 4, sd / 4) + c / 4)))

    def propose(rows, weight):
        P, v = p[rows], weight + c[rows]
        s, _, surplus, new = _newton_weight(P, target[rows], v, weight)
        spread = np.einsum("nk,nk,nk->n", P, np.exp(np.minimum(s, 700.0)), np.abs(s))
        noise = np.where(v < 1, 1e-15 * v, 1e-15 + 4e-16 * spread)
        return np.where(np.abs(surplus) <= noise, 0.0, surplus), new

    weight = roots.find(propose, high, np.zeros(len(p)), high, geometric=True)
    return log_ratio(target - weight[:, None], weight[:, None])[0], weight


def _above(p, c, target, levels, log_mass):
    """Principal branch for c > log E_p[e^D]: λ < 0. Returns s and λ."""
    s, weight = np.zeros(p.shape), -c  # the solution where D = 0
    # To first order λ = log E_p[e^target]/E_p[ρ²] with the KL update's ρ; −λρ = 1 is the branch point.
    rho = np.exp(np.minimum(target - log_mass[:, None], 350.0))
    first = log_mass / np.einsum("nk,nk,nk->n", p, rho, rho)
    near = -first * rho.max(axis=-1, where=p > 0, initial=0.0) < 1e-3
    varied = target.max(axis=-1, where=p > 0, initial=-np.inf) > target.min(axis=-1, where=p > 0, initial=np.inf)
    rows = np.flatnonzero(varied & near)
    if rows.size:
        P, T, shift, ideal = p[rows], target[rows], c[rows], target[rows] - log_mass[rows, None]

        def propose(i, w):
            v = w + shift[i]
            _, _, surplus, new = _newton_weight(P[i], T[i], v, w, ideal[i])
            rounding = 4.5e-16 * np.where(v < _SMALL, v, 1.0)
            return np.where(np.abs(surplus) <= rounding, 0.0, surplus), new

        weight[rows] = roots.find(propose, first[rows], 2 * first[rows], np.zeros(rows.size))
        s[rows] = log_ratio(T - weight[rows, None], weight[rows, None], ideal)[0]
    rows = np.flatnonzero(varied & ~near)
    s[rows], weight[rows] = overestimated.solve(p[rows], target[rows], levels[rows])
    return s, weight


def _newton_weight(p, target, v, weight, start=None):
    """One Newton step on 1/E_p[e^s] in λ: s, −ds/dλ, E_p[e^s] − 1 and the next λ; v = λ + c."""
    solution, growth = log_ratio(target - weight[:, None], weight[:, None], start)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        small = (_psi(p, solution, growth, v) - v) / (1 + weight)
        mass = np.einsum("nk,nk->n", p, 1 + growth)
        surplus = np.where(v < _SMALL, small, mass - 1)
        pull = (1 + growth) / (1 + weight[:, None] * (1 + growth))
        slope = np.einsum("nk,nk,nk->n", p, 1 + growth, pull)
        new = np.where(np.isfinite(slope), weight + surplus * mass / slope, np.nan)
    return solution, pull, surplus, new


def _ideal(p, measured_from):
    """Mode of the KL update, and its s, which is the solution for λ = 0."""
    x = measured_from(p.argmax(axis=-1))
    with np.errstate(divide="ignore"):
        mode = (np.log(p) + (x - x.max(axis=-1, where=p > 0, initial=-np.inf)[:, None])).argmax(axis=-1)
    x = measured_from(mode)
    return mode, x - log_mean_exp(p, x)[:, None]


def _from_an_action(p, weight, m, measured_from):
    """Newton on log E_p[e^s] in t = s of one action m, λ given: s_i + λ e^{s_i} = x_i + t + λ e^t. Returns s.

    Here x = D − D_m. First m is the action given, the mode of the KL update; then the one whose own t + λ (e^t − 1) is
    smallest, from which the others are known best.
    """
    n, t = np.arange(len(p)), np.zeros(len(p))
    for _ in range(2):
        x, a = measured_from(m), weight[:, None]

        def solve(rows, t, x=x, a=a):
            own = t + a[rows, 0] * np.expm1(t)
            return log_ratio(x[rows] + own[:, None], a[rows])

        def propose(rows, t, solve=solve, a=a):
            growth = solve(rows, t)[1]
            with np.errstate(all="ignore"):  # far from the root only
                q = p[rows] * (1 + growth)
                mass = q.sum(axis=-1)
                value = np.log(mass)
                slope = (q / (1 + a[rows] * (1 + growth))).sum(axis=-1) / mass * (1 + a[rows, 0] * np.exp(t))
                return -value, t - value / slope

        with np.errstate(over="ignore"):  # not every action gains: one whose s ≤ 0 bounds t + λ (e^t − 1) by −x
            high = np.minimum(np.log1p(-x.min(axis=-1) / weight), np.minimum(-np.log(p[n, m]), 709.0))
        low = np.minimum(-np.maximum(log_mean_exp(p, x), 0.0), high)
        t = roots.find(propose, np.clip(t, low, high), low, high, floor=1.0)
        s, growth = solve(n, t)
        m = np.where(p > 0, np.abs(s + a * growth), np.inf).argmin(axis=-1)
        t = s[n, m]
    return s


def _psi(p, s, growth, v):
    """E_p[e^s − 1 − s]; cancellation in its terms matters only where v, which it approaches, is small."""
    psi = np.einsum("nk,nk->n", p, growth - s)
    if v.min(initial=1.0) < 1e-5:
        small = np.flatnonzero(v < 1e-5)
        psi[small] = np.einsum("nk,nk->n", p[small], excess(s[small], growth[small]))
    return psi


def _moments(p, D):
    """Standard deviation and maximum of D, and E_p[max(D, 0)] (E_p[D] = 0, and D = 0 where p = 0)."""
    top = D.max(axis=-1)
    scale = np.maximum(np.maximum(top, -D.min(axis=-1)), _TINY)
    variance, absolute = 0.0, 0.0
    for P, T in blocks.of_actions(p, D):
        x = T / scale[:, None]
        variance = variance + np.einsum("nk,nk->n", P, x * x)
        absolute = absolute + np.einsum("nk,nk->n", P, np.abs(x))
    return scale * np.sqrt(variance), top, scale * absolute / 2
