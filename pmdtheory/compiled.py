r"""The updates compiled by Numba: the algorithm of `solver`, with each pass over the actions one loop.

For rows of p and r with targets D, E_p[D] = 0, and λ = k v + a, the root v of Ψ(v) = v, Ψ = E_p[e^s − 1 − s], is found
by Halley's method on log Ψ − log v in log v, inside the bracket of `solver`. Each pass solves all actions by one
Householder step of fourth order, from a fit of Wright's ω at first and from the last solutions then. All loops over
actions are free of branches and run over blocks that fit the first cache, of one row or of many short ones, so that
the compiler turns them into vector instructions. The elementary functions are written out for the same reason.

Rows at the limits of floating-point numbers, rows that do not converge at once and whatever is no valid problem are
not decided here: their status is not 0, and NumPy's path solves or refuses them.
"""

import os
from functools import partial
from itertools import pairwise
from threading import Thread

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_BLOCK = 256  # actions; a block of everything below fits the first cache
# Where each quantity begins in a buffer; distances that are known let the compiler see that they do not overlap.
_V, _WEIGHT, _LOG, _INVERSE, _PSI, _SLOPE, _CURVE, _STEP = (_BLOCK * i for i in range(8))
_STEPS = 30
_SHARE = 2**18  # numbers that a thread is worth starting for
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG_SHIFT = 64 * 0.6931471805599453
_ROUND = 6755399441055744.0  # 1.5 · 2^52: a number added to it is rounded to an integer, which the low bits then hold


def _fit(function, degree, low, high):
    """Coefficients of the polynomial through `function` at Chebyshev points, lowest degree first."""
    fit = np.polynomial.Chebyshev.interpolate(function, degree, [low, high])
    return tuple(fit.convert(kind=np.polynomial.Polynomial).coef)


def _exp_tail(x):
    """(e^x − 1 − x)/x² by its series."""
    return np.polynomial.polynomial.polyval(x, 1 / np.cumprod(np.arange(1.0, 20.0))[1:])


e0, e1, e2, e3, e4, e5, e6, e7, e8, e9 = _fit(_exp_tail, 9, -0.347, 0.347)
t0, t1, t2, t3, t4, t5, t6, t7 = _fit(_exp_tail, 7, -0.1, 0.1)
r0, r1, r2, r3, r4, r5, r6 = _fit(np.exp, 6, -0.347, 0.347)
l0, l1, l2, l3, l4, l5, l6 = _fit(np.log, 6, 1.0, 2.0)

loop = njit(error_model="numpy", fastmath={"contract"})
summing = njit(error_model="numpy", fastmath={"contract", "reassoc", "nsz", "nnan"})


_NUMBERS, _ROWS = (types.Array(types.float64, dimensions, "C") for dimensions in (1, 2))
_GIVEN_NUMBERS, _GIVEN_ROWS = (types.Array(types.float64, dimensions, "C", readonly=True) for dimensions in (1, 2))
_FLAGS = types.Array(types.boolean, 1, "C")


def _kept(*arguments):
    """Compile for these types of arguments, and keep the result on disk where there is a place for it."""

    def decorate(function):
        settings = {"error_model": "numpy", "nogil": True}
        try:
            return njit(arguments, cache=True, **settings)(function)
        except RuntimeError:  # no folder can be written
            return njit(arguments, **settings)(function)

    return decorate


@intrinsic
def _as_float(typing, bits):
    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), code


@intrinsic
def _as_bits(typing, number):
    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), code


@loop
def _exponential(x):
    """e^x − 1 and e^x for x ≤ 708, from 2^n and e^f − 1, |f| ≤ log(2)/2; below −700 by way of 2^64 e^x."""
    far = x < -700.0
    x = min(max(x + (_LOG_SHIFT if far else 0.0), -708.0), 708.0)
    t = x * 1.4426950408889634 + _ROUND
    n = t - _ROUND
    f = (x - n * _LN2_HIGH) - n * _LN2_LOW
    e = ((((((((e9 * f + e8) * f + e7) * f + e6) * f + e5) * f + e4) * f + e3) * f + e2) * f + e1) * f + e0
    scale = _as_float((_as_bits(t) + 1023) << 52)
    e = scale * (f + f * f * e)
    whole = e + scale
    return (-1.0 if far else e + (scale - 1.0)), whole * (2.0**-64 if far else 1.0)


@loop
def _rough_exp(x):
    """e^x within 1e-7 of itself, for |x| ≤ 708."""
    x = min(max(x, -708.0), 708.0)
    t = x * 1.4426950408889634 + _ROUND
    f = x - (t - _ROUND) * 0.6931471805599453
    e = (((((r6 * f + r5) * f + r4) * f + r3) * f + r2) * f + r1) * f + r0
    return e * _as_float((_as_bits(t) + 1023) << 52)


@loop
def _rough_log(x):
    """log x within 4e-6 for normal x > 0."""
    bits = _as_bits(x)
    exponent = _as_float((bits >> 52) | 0x4330000000000000) - 4503599627371519.0  # 2^52 + 1023
    m = _as_float((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000)  # in [1, 2)
    series = (((((l6 * m + l5) * m + l4) * m + l3) * m + l2) * m + l1) * m + l0
    return exponent * 0.6931471805599453 + series


@loop
def _wright(z):
    """ω(z) and its logarithm within 1e-6: a rational fit of W(x)/x, x = e^z ≤ e; above, one and a Halley step."""
    x = _rough_exp(min(z, 1.0))
    low = x * (1 + x * (2.66746362 + x * (1.58510434 + x * 0.1596718)))
    low /= 1 + x * (3.66744217 + x * (3.75316069 + x * (1.07200223 + x * 0.05037889)))
    above = max(z, 1.0)
    omega = above - 4.21463 * ((above - 1) / (above + 7.82567))
    log_omega = _rough_log(omega)
    inverse = 1 / (1 + omega)
    newton = (above - log_omega - omega) * inverse
    log_omega += newton * (1 - 0.5 * newton * omega * inverse)
    high, log_low = above - log_omega, z - low
    return (high if z > 1.0 else low), (log_omega if z > 1.0 else log_low)


@loop
def _first(p, D, s, k, b):
    """Write the solutions within 1e-6, and the terms of `_step` as far as they can be known from them."""
    for j in range(p.size):
        d = D[j] - b[j + _V] + b[j + _WEIGHT]
        omega, log_omega = _wright(d + b[j + _LOG])
        x = log_omega - b[j + _LOG]
        inverse = 1.0 / (1.0 + omega)
        rho = omega * b[j + _INVERSE]
        growth = rho - 1.0
        pull = (1.0 + k * growth) * inverse
        s[j] = x
        b[j + _PSI] = p[j] * (growth - x)
        b[j + _SLOPE] = p[j] * (growth * pull)
        b[j + _CURVE] = p[j] * (pull * (rho * pull + growth * inverse * (2.0 * k * rho - omega * pull)))


@loop
def _step(p, D, s, k, b):
    """Householder's step to s + λ (e^s − 1) = D − v, and the terms of Ψ, −dΨ/dv, d²Ψ/dv² times p."""
    for j in range(p.size):
        weight = b[j + _WEIGHT]
        growth, rho = _exponential(s[j])
        inverse = 1.0 / (1.0 + weight * rho)
        newton = (s[j] + weight * growth - (D[j] - b[j + _V])) * inverse
        bend = newton * (weight * rho) * inverse
        step = newton * (1.0 + bend * (0.5 + 0.5 * bend - newton * (1.0 / 6.0)))
        change = rho * step * (1.0 - step * (0.5 - step * (1.0 / 6.0)))
        growth, rho = growth - change, rho - change
        x = s[j] - step
        inverse += inverse * inverse * (weight * rho) * step  # at the new s, to second order
        pull = (1.0 + k * growth) * inverse
        s[j] = x
        b[j + _PSI] = p[j] * (growth - x)
        b[j + _SLOPE] = p[j] * (growth * pull)
        b[j + _CURVE] = p[j] * (pull * (rho * pull + growth * inverse * (2.0 * k * rho - weight * rho * pull)))
        b[j + _STEP] = abs(step)


@loop
def _small(p, s, b):
    """The terms of Ψ without cancellation."""
    for j in range(p.size):
        x = min(max(s[j], -0.1), 0.1)
        tail = ((((((t7 * x + t6) * x + t5) * x + t4) * x + t3) * x + t2) * x + t1) * x + t0
        b[j + _PSI] = p[j] * (x * x * tail) if abs(s[j]) < 0.1 else b[j + _PSI]


@loop
def _last(p, D, s, q, b):
    """Householder's step at the root, and q = p e^s; s = 0 where p = 0."""
    for j in range(p.size):
        weight = b[j + _WEIGHT]
        growth, rho = _exponential(s[j])
        inverse = 1.0 / (1.0 + weight * rho)
        newton = (s[j] + weight * growth - (D[j] - b[j + _V])) * inverse
        step = newton * (1.0 + 0.5 * newton * (weight * rho) * inverse)
        s[j] = s[j] - step if p[j] > 0 else 0.0
        q[j] = p[j] * (rho - rho * step * (1.0 - 0.5 * step))


@summing
def _total(x):
    result = 0.0
    for j in range(x.size):
        result += x[j]
    return result


@loop
def _largest(x):
    """The largest number of those not below 0, 0 if there is none: as integers, which compilers compare at once."""
    result = 0
    for j in range(x.size):
        result = max(result, _as_bits(x[j]))
    return _as_float(result)


@loop
def _where(x, number):
    """The first index of a number that is there."""
    j = 0
    while x[j] != number:
        j += 1
    return j


@loop
def _size(x):
    """The largest absolute value."""
    result = 0
    for j in range(x.size):
        result = max(result, _as_bits(abs(x[j])))
    return _as_float(result)


@loop
def _no_sign(x):
    """Whether no number has a minus sign."""
    result = 0
    for j in range(x.size):
        result |= _as_bits(x[j])
    return result >= 0


@loop
def _fill(b, K, v, weight):
    """Give each action of a block the v, λ and log λ of its row."""
    width = K if v.size > 1 else min(K, _BLOCK)
    for i in range(v.size):
        start = i * width
        log_weight = np.log(weight[i])
        for j in range(start, start + width):
            b[j + _V] = v[i]
            b[j + _WEIGHT] = weight[i]
            b[j + _LOG] = log_weight
            b[j + _INVERSE] = 1.0 / weight[i]


@loop
def _pass(p, D, s, K, k, v, weight, fresh, exact, b, sums):
    """Solve all actions of some rows at their v; sums are Ψ, −dΨ/dv, d²Ψ/dv² and the largest step of each row."""
    rows = v.size
    _fill(b, K, v, weight)
    small = v.min() < 1e-5
    sums[:] = 0.0
    for start in range(0, p.size, _BLOCK):
        n = min(_BLOCK, p.size - start)
        P, S = p[start : start + n], s[start : start + n]
        if fresh:
            _first(P, D[start : start + n], S, k, b)
        if exact:
            _step(P, D[start : start + n], S, k, b)
            if small:
                _small(P, S, b)
        width = n // rows
        for i in range(rows):
            j = i * width
            sums[0, i] += _total(b[_PSI + j : _PSI + j + width])
            sums[1, i] += _total(b[_SLOPE + j : _SLOPE + j + width])
            sums[2, i] += _total(b[_CURVE + j : _CURVE + j + width])
            if exact:
                sums[3, i] = max(sums[3, i], _largest(b[_STEP + j : _STEP + j + width]))


@loop
def _targets_from(p, r, own, tau, D):
    """(r − own)/τ on the support."""
    for j in range(p.size):
        D[j] = (r[j] - own) / tau if p[j] > 0 else 0.0


@summing
def _mean(p, x):
    result = 0.0
    for j in range(p.size):
        result += p[j] * x[j]
    return result


@loop
def _less(p, m, D):
    for j in range(p.size):
        D[j] = D[j] - m if p[j] > 0 else 0.0


@summing
def _variance(p, x):
    result = 0.0
    for j in range(p.size):
        result += p[j] * x[j] * x[j]
    return result


@summing
def _rough_growth(p, x, scale):
    result = 0.0
    for j in range(p.size):
        result += p[j] * (_rough_exp(x[j] * scale) - 1.0)
    return result


@loop
def _centred(p, r, tau, D):
    """Write D; returns the reward of the most probable action, the mean of D less that, and whether all is valid."""
    total = _total(p)
    if not (_no_sign(p) and abs(total - 1.0) <= 1e-12):
        return 0.0, 0.0, False
    own = r[_where(p, _largest(p))]
    _targets_from(p, r, own, tau, D)
    top = _size(D)
    if not (top < 1e290 and abs(_total(r)) < 1e300):
        return 0.0, 0.0, False
    if top * tau <= 1e-15 * abs(own):
        D[:] = 0.0
    m = _mean(p, D)
    _less(p, m, D)
    return own, m, True


@loop
def _bracket(p, D, k, a):
    """A guess of v, an upper bound, and whether v is worth finding: 1, 0 if it is 0, −1 if it is not decided here."""
    top, variance = _largest(D), _variance(p, D)
    if top == 0.0 and _size(D) == 0.0:
        return 0.0, 0.0, 0
    half = variance / (2 * (1 + a) * (1 + a))
    growth = _rough_growth(p, D, 1 / (1 + a))
    if not (variance < 1e290 and half > 1e-40 and growth < 1e290 and top < 700):
        return 0.0, 0.0, -1
    log_z = np.log1p(growth) if growth > 1e-2 else half
    guess = 2 * log_z / (1 + np.sqrt(1 + 8 * k * log_z))
    sd = np.sqrt(variance)
    if k == 1.0:
        quarter = np.hypot(a / 4, sd / 4) + a / 4
        high = min(sd / 8 * (sd / quarter), top)
    else:
        high = top
    return min(guess, high), high, 1


@loop
def _solve_rows(p, D, s, q, K, k, a, v, low, y, high, state, b, sums, weight):
    """Solve some rows. Their state: 1 to be found, 0 found, −1 not decided."""
    rows = v.size
    fresh = True
    for _ in range(_STEPS):
        active = False
        for i in range(rows):
            active |= state[i] == 1
            weight[i] = max(k * v[i] + a[i], 1e-300)
        if not active:
            break
        rough = fresh and v.min() > 0.05
        _pass(p, D, s, K, k, v, weight, fresh, not rough, b, sums)
        fresh = False
        for i in range(rows):
            if state[i] != 1:
                continue
            psi, largest = sums[0, i], sums[3, i]
            if not (psi > 0.0 and psi < 1e290):
                state[i] = -1
                continue
            slope, curve = -v[i] * sums[1, i] / psi - 1.0, v[i] * (v[i] * (sums[2, i] / psi))
            value = np.log(psi) - y[i]
            bend = value * (slope + 1.0 + curve - (slope + 1.0) ** 2) / (2 * slope * slope)
            new = y[i] - value / slope / (1.0 - (bend if abs(bend) < 0.5 else 0.0))
            exact = not rough and largest < 1e-3  # fourth order: the error of v is 1e-14
            if exact:
                if value > 0:
                    low[i] = max(low[i], y[i])
                else:
                    high[i] = min(high[i], y[i])
            inside = low[i] <= new <= high[i]
            if not inside:
                new = (low[i] + high[i]) / 2 if low[i] > -np.inf else high[i] - 3.0
            move = new - y[i]
            y[i] = new
            v[i] = np.exp(new)
            if abs(move) > 0.05 or largest > 0.05:
                fresh = True
            elif inside and exact and abs(move) <= 3e-5:
                state[i] = 0
    for i in range(rows):
        weight[i] = max(k * v[i] + a[i], 1e-300)
    _fill(b, K, v, weight)
    for start in range(0, p.size, _BLOCK):
        n = min(_BLOCK, p.size - start)
        _last(p[start : start + n], D[start : start + n], s[start : start + n], q[start : start + n], b)


@loop
def _scale(q, factor):
    for j in range(q.size):
        q[j] *= factor


@_kept(
    types.float64, types.boolean, _GIVEN_ROWS, _GIVEN_ROWS, _GIVEN_NUMBERS, _GIVEN_NUMBERS,
    _ROWS, _ROWS, _NUMBERS, _NUMBERS, _NUMBERS, _FLAGS,
)  # fmt: skip
def _solve(k, baselines, p, r, tau, a, q, s, v, weight, mean, done):
    """Solve s + λ(e^s − 1) = D − v, λ = k v + a, on rows of policies and rewards.

    Parameters
    ----------
    k : float
    baselines : bool
        Whether `a` are baselines b instead, so that λ = k v + (E_p[r] − b)/τ.
    p, r : ndarray, shape (N, K)
    tau, a : ndarray, shape (N,)
    q, s : ndarray, shape (N, K)
        Written.
    v, weight, mean : ndarray, shape (N,)
        Written: v = KL(p‖q), λ and E_p[r].
    done : ndarray of bool, shape (N,)
        Written.
    """
    N, K = p.shape
    together = max(1, _BLOCK // K)
    D, b, sums = np.empty((together, K)), np.zeros(8 * _BLOCK), np.empty((4, together))
    low, y, high, now = np.empty(together), np.empty(together), np.empty(together), np.empty(together)
    state = np.empty(together, dtype=np.int64)
    for start in range(0, N, together):
        end = min(start + together, N)
        for i in range(start, end):
            own, m, fine = _centred(p[i], r[i], tau[i], D[i - start])
            mean[i] = own + tau[i] * m
            weight[i] = (own - a[i]) / tau[i] + m if baselines else a[i]
            guess, top, found = 0.0, 0.0, -1
            if fine and weight[i] >= 0.0:
                guess, top, found = _bracket(p[i], D[i - start], k, weight[i])
                if found == 0 and baselines and abs(a[i] - own) <= 1e-13 * max(abs(a[i]), abs(own)):
                    found = -1  # whether the baseline is that one reward is for others to say
            if found != 1:
                D[i - start], s[i] = 0.0, 0.0
                guess, top = 1e-300, 1.0
            state[i - start], v[i] = found, guess
            low[i - start], y[i - start], high[i - start] = -np.inf, np.log(guess), np.log(top) + 1e-12
        rows, size = end - start, (end - start) * K
        _solve_rows(
            p[start:end].reshape(size), D[:rows].reshape(size), s[start:end].reshape(size), q[start:end].reshape(size),
            K, k, weight[start:end], v[start:end], low[:rows], y[:rows], high[:rows], state[:rows], b, sums[:, :rows],
            now[:rows],
        )  # fmt: skip
        for i in range(start, end):
            if v[i] == 1e-300:  # it stood for 0
                v[i], s[i] = 0.0, 0.0
            mass = _total(q[i])
            done[i] = state[i - start] == 0 and abs(mass - 1.0) < 1e-12 and (v[i] < 256.0 or k == 1.0)
            weight[i] += k * v[i]
            _scale(q[i], 1.0 / mass)


@loop
def _rough_powers(p, x, top, q):
    for j in range(p.size):
        q[j] = p[j] * _rough_exp(x[j] - top)


@loop
def _power_terms(p, x, q, terms):
    for j in range(p.size):
        growth, rho = _exponential(x[j])
        terms[j] = p[j] * growth
        q[j] = p[j] * rho


@loop
def _powers(p, x, q, terms):
    """Write q = p e^x and return E_p[e^x − 1]."""
    result = 0.0
    for start in range(0, p.size, _BLOCK):
        end = min(start + _BLOCK, p.size)
        _power_terms(p[start:end], x[start:end], q[start:end], terms)
        result += _total(terms[: end - start])
    return result


@_kept(_GIVEN_ROWS, _GIVEN_ROWS, _GIVEN_NUMBERS, _ROWS, _ROWS, _NUMBERS, _FLAGS)
def _kl(p, r, tau, q, s, baseline, done):
    """The KL update of rows of policies and rewards: writes q, s, τ log Z and `done`, as `_solve`."""
    terms = np.empty(_BLOCK)
    for i in range(len(p)):
        done[i] = False
        P, x, Q = p[i], s[i], q[i]
        own, _, fine = _centred(P, r[i], tau[i], x)
        if not fine:
            continue
        top = _largest(x)
        if _size(x) > 0.0:  # measured from the mode of q, differences of rewards lose nothing where q has its mass
            _rough_powers(P, x, top, Q)
            own = r[i, _where(Q, _largest(Q))]
            _targets_from(P, r[i], own, tau[i], x)
        else:
            x[:] = 0.0
        growth, mass = _powers(P, x, Q, terms), _total(Q)
        if not (mass > 1e-290 and _largest(x) < 700.0):
            continue
        log_z = np.log1p(growth) if growth > -0.5 else np.log(mass)
        far = _size(x) > 600.0 or mass < 1e-10  # p e^x may vanish where p e^{x − log Z} does not
        _less(P, log_z, x)
        if far:
            _powers(P, x, Q, terms)
        _scale(Q, 1.0 / (_total(Q) if far else mass))
        baseline[i], done[i] = own + tau[i] * log_z, True


@_kept(_GIVEN_ROWS, _GIVEN_ROWS)
def _levels(p, r):
    """Merge the actions of rows with at most two rewards on their support.

    Returns
    -------
    mass, reward : ndarray, shape (N, 2)
        Total probability and reward of the lower and the higher level.
    two : bool
        False if some row has more levels; then the rest means nothing.
    """
    N, K = p.shape
    mass, reward = np.zeros((N, 2)), np.zeros((N, 2))
    for i in range(N):
        low, high = np.inf, -np.inf
        for j in range(K):
            if p[i, j] > 0:
                low, high = min(low, r[i, j]), max(high, r[i, j])
        others = 0
        upper = lower = 0.0
        for j in range(K):
            upper += p[i, j] if r[i, j] == high else 0.0
            lower += p[i, j] if r[i, j] == low else 0.0
            others += p[i, j] > 0 and r[i, j] != high and r[i, j] != low
        if others:
            return mass, reward, False
        reward[i, 0], reward[i, 1] = low, high
        mass[i, 0], mass[i, 1] = lower if low < high else 0.0, upper
    return mass, reward, True


@_kept(*[_GIVEN_ROWS] * 6)
def _spread(p, r, reward, q_levels, s_levels, mass):
    """q and s of all actions from those of the two levels that `_levels` made of them."""
    N, K = p.shape
    q, s = np.empty((N, K)), np.empty((N, K))
    for i in range(N):
        low, high = s_levels[i]
        factor_low = q_levels[i, 0] / mass[i, 0] if mass[i, 0] > 0 else 0.0
        factor_high = q_levels[i, 1] / mass[i, 1] if mass[i, 1] > 0 else 0.0
        top = reward[i, 1]
        for j in range(K):
            s[i, j] = (high if r[i, j] == top else low) if p[i, j] > 0 else 0.0
            q[i, j] = p[i, j] * (factor_high if r[i, j] == top else factor_low)
    return q, s


def kl(p, r, tau):
    """The KL update of rows of checked problems.

    Parameters
    ----------
    p, r : ndarray, shape (N, K)
    tau : ndarray, shape (N,)

    Returns
    -------
    q, s : ndarray, shape (N, K)
    weight, baseline : ndarray, shape (N,)
    done : ndarray of bool, shape (N,)
        Where the others mean something.
    """
    q, s, baseline, done = _over_threads(_kl, (p, r, tau), numbers=1)
    return q, s, np.zeros(len(p)), baseline, done


def pmd_mean(p, r, tau):
    """The PMD-mean update, as `kl`."""
    q, s, _, weight, mean, done = _of_levels(1.0, False, p, r, tau, np.zeros(len(p)))
    return q, s, weight, mean, done


def with_baseline(p, r, tau, b):
    """The update with baseline `b`, shape (N,), up to the mean; those above it are not done."""
    q, s, _, weight, _, done = _of_levels(1.0, True, p, r, tau, b)
    return q, s, weight, b.copy(), done


def mixed(p, r, tau, a):
    """The update with χ² weight λ = `a`, shape (N,)."""
    q, s, v, _, mean, done = _of_levels(0.0, False, p, r, tau, a)
    return q, s, a.copy(), mean + tau * (v - a), done


def _of_levels(k, baselines, p, r, tau, a):
    """`_solve`, for the two levels of the reward if there are no more."""

    def solve(p, r):
        return _over_threads(partial(_solve, k, baselines), (p, r, tau, a), numbers=3)

    if p.shape[1] > 2 and np.unique(r[0, :64][p[0, :64] > 0]).size <= 2:
        mass, reward, two = _levels(p, r)
        if two:
            q, s, *rest = solve(mass, reward)
            return *_spread(p, r, reward, q, s, mass), *rest
    return solve(p, r)


def threads():
    """How many threads large problems are spread over: OMP_NUM_THREADS, or one for each processor."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1


def _over_threads(kernel, inputs, numbers):
    """Call the kernel, on some rows in each thread; return q, s, `numbers` arrays of a number a row, and done.

    Rows that are solved together stay together, so that the bits of the result are the same for any number of threads.
    """
    N, K = inputs[0].shape
    outputs = [np.empty((N, K)), np.empty((N, K)), *(np.empty(N) for _ in range(numbers)), np.empty(N, dtype=bool)]
    together = max(1, _BLOCK // K)
    groups = -(-N // together)
    workers = min(threads(), groups, N * K // _SHARE)
    if workers < 2:
        kernel(*inputs, *outputs)
        return outputs
    edges = together * np.linspace(0, groups, workers + 1).astype(int)
    started = []
    for pair in pairwise(edges):
        arguments = [x[slice(*pair)] for x in (*inputs, *outputs)]
        thread = Thread(target=kernel, args=arguments)
        try:
            thread.start()
            started.append(thread)
        except RuntimeError:  # no thread starts while the interpreter ends
            kernel(*arguments)
    for thread in started:
        thread.join()
    return outputs
