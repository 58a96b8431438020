r"""The updates compiled by Numba: the equations of `solver`, solved by passes over the actions, each one loop.

For rows of p and r with targets D, E_p[D] = 0, and λ = k v + a, the root v of Ψ(v) = v, Ψ = E_p[e^s − 1 − s], is found
by Halley's method: for k = 1 on log Ψ − log v in log v, for k = 0 on log E_p[e^s] = log(1 + (Ψ − v)/(1 + λ)) in v.
Each pass has all actions take one Householder step to their s at the present v. The first passes run in 32 bits, twice
as many numbers to an instruction: one from a fit of Wright's ω, which is taken again after large moves, the others from
the last solutions. A pass in 64 bits, mostly one, then finds s, q and v to rounding, and the last change of v moves s
and q by their derivatives, without another exponential.

All loops over actions are free of branches and run over blocks that fit the first cache, so that the compiler turns
them into vector instructions; the elementary functions are written out for the same reason. Short rows are laid side by
side, the first action of each before the second of any, so that what is done once a row is a vector instruction too.

Rows at the limits of floating-point numbers and rows that do not converge at once are not decided here: they are not
`done`, and NumPy's path solves or refuses them.
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
_SIDE = 128  # the most actions of rows that are laid side by side
# Where each quantity begins in a buffer, that of a block's actions or that of the rows in work. Distances that are
# known let the compiler see that they do not overlap.
_V, _WEIGHT, _LOG, _CHANGE, _PSI, _SLOPE, _CURVE, _STEP, _OWN, _TAU, _MEAN, _FIRST, _SECOND, _A, _MOVE, _MASS = (
    _BLOCK * i for i in range(16)
)
_STEPS = 20
_SHARE = 2**18  # numbers that a thread is worth starting for
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG_SHIFT = 64 * 0.6931471805599453
_ROUND = 6755399441055744.0  # 1.5 · 2^52: a number added to it is rounded to an integer, which the low bits then hold
_F = np.float32
_ROUND_32 = _F(12582912.0)
_ONE, _TWO, _HALF, _SIXTH, _ZERO = _F(1.0), _F(2.0), _F(0.5), _F(1 / 6), _F(0.0)


def _fit(function, degree, low, high):
    """Coefficients of the polynomial through `function` at Chebyshev points, lowest degree first."""
    fit = np.polynomial.Chebyshev.interpolate(function, degree, [low, high])
    return tuple(fit.convert(kind=np.polynomial.Polynomial).coef)


def _exp_tail(x):
    """(e^x − 1 − x)/x² by its series."""
    return np.polynomial.polynomial.polyval(x, 1 / np.cumprod(np.arange(1.0, 20.0))[1:])


e0, e1, e2, e3, e4, e5, e6, e7, e8, e9 = _fit(_exp_tail, 9, -0.347, 0.347)
f0, f1, f2, f3, f4 = (_F(x) for x in _fit(_exp_tail, 4, -0.347, 0.347))
a0, a1, a2, a3, a4, a5, a6, a7, a8 = (2 / (2 * n + 3) for n in range(9))


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


@intrinsic
def _power_of_two(typing, rounded):
    """2^n of n + _ROUND_32."""

    def code(context, builder, signature, arguments):
        integer = ir.IntType(32)
        exponent = builder.add(builder.bitcast(arguments[0], integer), integer(127))
        return builder.bitcast(builder.shl(exponent, integer(23)), ir.FloatType())

    return types.float32(types.float32), code


@intrinsic
def _bits_as_number(typing, number):
    def code(context, builder, signature, arguments):
        return builder.sitofp(builder.bitcast(arguments[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.float32), code


@loop
def _log_of_one_more(x):
    """log(1 + x), 1 + x positive and normal, as 2 artanh((m − 1)/(m + 1)) of its mantissa m in [√½, √2)."""
    bits = _as_bits(1.0 + x) - 0x3FE6A09E667F3BCD  # of √½
    exponent = _as_float(((bits >> 52) + 1024) | 0x4330000000000000) - 4503599627371520.0  # 2^52 + 1024
    m = _as_float((bits & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD)
    less = x if exponent == 0.0 else m - 1.0
    z = less / (less + 2.0)
    y = z * z
    series = (((((((a8 * y + a7) * y + a6) * y + a5) * y + a4) * y + a3) * y + a2) * y + a1) * y + a0
    return exponent * 0.6931471805599453 + (2.0 * z + z * y * series)


@loop
def _start(D, s, pull, b):
    """Solutions within 0.05: of ω(z), 1/(1 + t (a + b t))^8, t = 1 − z, for z ≤ 1, and z less a fraction above."""
    for j in range(D.size):
        z = D[j] - b[j + _V] + b[j + _WEIGHT] + b[j + _LOG]
        high = z > _ONE
        above, t = max(z, _ONE), max(_ONE - z, _ZERO)
        root = _ONE + t * (_F(0.06035273) + _F(0.01334462) * t)
        root *= root
        root *= root
        part = (_F(4.186883) * (above - _ONE) if high else _ONE) / (above + _F(7.708257) if high else root * root)
        omega = above - (part if high else _ZERO)
        log_omega = _bits_as_number(omega) * _F(8.262958e-08) - _F(87.99971)  # the exponent, and the mantissa as it is
        s[j], pull[j] = (log_omega if high else z - part) - b[j + _LOG], _ZERO


@loop
def _rough(p, D, s, pull, k, b):
    """In 32 bits: s moved with v, Householder's step to s + λ (e^s − 1) = D − v, and the terms of `_step`."""
    for j in range(p.size):
        weight, x = b[j + _WEIGHT], s[j] - b[j + _CHANGE] * pull[j]
        clipped = min(max(x, _F(-86.0)), _F(88.0))
        t = clipped * _F(1.442695) + _ROUND_32
        f = clipped - (t - _ROUND_32) * _F(0.6931472)
        scale = _power_of_two(t)
        tail = f * f * ((((f4 * f + f3) * f + f2) * f + f1) * f + f0)
        growth, rho = scale * (f + tail) + (scale - _ONE), scale * (f + tail) + scale
        tail = scale * tail + ((scale * f - x) + (scale - _ONE))
        inverse = _ONE / (_ONE + weight * rho)
        newton = (x + weight * growth - (D[j] - b[j + _V])) * inverse
        bend = newton * (weight * rho) * inverse
        step = newton * (_ONE + bend * (_HALF + _HALF * bend - newton * _SIXTH))
        half = step * (_HALF - step * _SIXTH)
        change = rho * step * (_ONE - half)
        tail -= step * (growth - rho * half)
        growth, rho = growth - change, rho - change
        inverse += inverse * inverse * (weight * change)
        slope = (_ONE + k * growth) * inverse
        s[j], pull[j] = x - step, slope
        b[j + _PSI] = p[j] * tail
        b[j + _SLOPE] = p[j] * (growth * slope)
        b[j + _CURVE] = p[j] * (slope * (rho * slope + growth * inverse * (_TWO * k * rho - weight * rho * slope)))


@loop
def _from_rough(s, pull, b):
    """Give a block the solutions in 64 bits, moved by the last change of v."""
    for j in range(s.size):
        b[j + _FIRST] = s[j] - b[j + _CHANGE] * pull[j]


@loop
def _from_last(s, b):
    for j in range(s.size):
        b[j + _FIRST] = s[j]


@loop
def _step(p, r, s, q, k, b):
    """Halley's step to s + λ (e^s − 1) = D − v, q = e^s, and p times the terms of Ψ, −dΨ/dv and d²Ψ/dv²."""
    for j in range(p.size):
        weight, x = b[j + _WEIGHT], b[j + _FIRST]
        d = (r[j] - b[j + _OWN]) * b[j + _TAU] - b[j + _MEAN]
        d = d if p[j] > 0 else 0.0
        clipped = min(max(x, -708.0), 708.0)
        t = clipped * 1.4426950408889634 + _ROUND
        n = t - _ROUND
        f = (clipped - n * _LN2_HIGH) - n * _LN2_LOW
        e = ((((((((e9 * f + e8) * f + e7) * f + e6) * f + e5) * f + e4) * f + e3) * f + e2) * f + e1) * f + e0
        scale, tail = _as_float((_as_bits(t) + 1023) << 52), f * f * e
        growth, rho = scale * (f + tail) + (scale - 1.0), scale * (f + tail) + scale
        tail = scale * tail + ((scale * f - x) + (scale - 1.0))  # without cancellation: f = x where scale = 1
        inverse = 1.0 / (1.0 + weight * rho)
        newton = (x + weight * growth - (d - b[j + _V])) * inverse
        step = newton * (1.0 + 0.5 * newton * (weight * rho) * inverse)
        change = rho * step * (1.0 - 0.5 * step)
        tail -= step * (growth - rho * step * 0.5)
        growth, rho = growth - change, rho - change
        inverse += inverse * inverse * (weight * change)
        pull = (1.0 + k * growth) * inverse
        s[j], q[j] = x - step, rho
        b[j + _PSI] = p[j] * tail
        b[j + _SLOPE] = p[j] * (growth * pull)
        b[j + _CURVE] = p[j] * (pull * (rho * pull + growth * inverse * (2.0 * k * rho - weight * rho * pull)))
        b[j + _STEP] = abs(step)


@loop
def _last(p, s, q, k, b):
    """Move s and e^s, which q holds, by the last change of v, to second order; q = p e^s, and s = 0 where p = 0."""
    for j in range(p.size):
        weight, change, rho = b[j + _WEIGHT], b[j + _CHANGE], q[j]
        inverse = 1.0 / (1.0 + weight * rho)
        pull = (1.0 + k * (rho - 1.0)) * inverse
        step = change * pull * (0.5 * change * inverse * (2.0 * k * rho - weight * rho * pull) - 1.0)
        s[j] = s[j] + step if p[j] > 0 else 0.0
        q[j] = p[j] * (rho + rho * step * (1.0 + step * (0.5 + step * (1.0 / 6.0))))


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
    while x[j] != number and j < x.size - 1:
        j += 1
    return j


@loop
def _add(x, out):
    """Add to each row what its actions have."""
    rows = out.size
    if rows == 1:
        out[0] += _total(x)
    else:
        for start in range(0, x.size, rows):
            for i in range(rows):
                out[i] += x[start + i]


@loop
def _raise(x, out):
    """Raise each row to the largest that its actions have."""
    rows = out.size
    if rows == 1:
        out[0] = max(out[0], _largest(x))
    else:
        for start in range(0, x.size, rows):
            for i in range(rows):
                out[i] = max(out[i], x[start + i])


@loop
def _fill(b, at, x):
    """Give each action of a block the number of its row."""
    rows = x.size
    if rows == 1:
        b[at : at + _BLOCK] = x[0]
    else:
        for start in range(at, at + _BLOCK - rows + 1, rows):
            for i in range(rows):
                b[start + i] = x[i]


@loop
def _own_reward(p, r, best, own):
    """The reward of the most probable action of each row."""
    rows = own.size
    if rows == 1:
        own[0] = r[_where(p, _largest(p))]
    else:
        best[:] = -1.0
        for start in range(0, p.size, rows):
            for i in range(rows):
                better = p[start + i] > best[i]
                best[i] = p[start + i] if better else best[i]
                own[i] = r[start + i] if better else own[i]


@loop
def _distance(p, r, b):
    """The terms of E_p[r] less the reward from which each row is measured."""
    for j in range(p.size):
        b[j + _FIRST] = p[j] * (r[j] - b[j + _OWN])


@loop
def _targets(p, r, p32, D32, b):
    """p and D in 32 bits, and the terms of E_p[D²] and E_p[max(D, 0)]."""
    for j in range(p.size):
        d = (r[j] - b[j + _OWN]) * b[j + _TAU] - b[j + _MEAN]
        d = d if p[j] > 0 else 0.0
        p32[j], D32[j] = p[j], d
        b[j + _FIRST], b[j + _SECOND] = p[j] * (d * d), p[j] * max(d, 0.0)


@loop
def _centred(p, r, p32, D32, rows, g, b):
    """p and D in 32 bits; of each row the reward of its most probable action, E_p[r] less that in τ, moments of D."""
    width = _BLOCK // rows * rows
    _own_reward(p, r, g[_MEAN : _MEAN + rows], g[_OWN : _OWN + rows])
    _fill(b, _OWN, g[_OWN : _OWN + rows])
    g[_FIRST : _FIRST + rows] = 0.0
    for start in range(0, p.size, width):
        end = min(start + width, p.size)
        _distance(p[start:end], r[start:end], b)
        _add(b[_FIRST : _FIRST + end - start], g[_FIRST : _FIRST + rows])
    for i in range(rows):
        g[i + _MOVE] = 1.0 / g[i + _TAU]
        g[i + _MEAN] = g[i + _FIRST] * g[i + _MOVE]
    _fill(b, _TAU, g[_MOVE : _MOVE + rows])
    _fill(b, _MEAN, g[_MEAN : _MEAN + rows])
    g[_FIRST : _FIRST + rows] = 0.0
    g[_SECOND : _SECOND + rows] = 0.0
    for start in range(0, p.size, width):
        end = min(start + width, p.size)
        _targets(p[start:end], r[start:end], p32[start:end], D32[start:end], b)
        _add(b[_FIRST : _FIRST + end - start], g[_FIRST : _FIRST + rows])
        _add(b[_SECOND : _SECOND + end - start], g[_SECOND : _SECOND + rows])


@loop
def _equal(D32, row, rows):
    """Whether the targets of a row are all 0; their moments may be 0 too where a probability is near 0."""
    differ = False
    for j in range(row, D32.size, rows):
        differ |= D32[j] != 0.0
    return not differ


@loop
def _begin(k, baselines, given, D32, rows, g, state):
    """Of each row a, a first v, and its state: 1 where v is to be found, 0 where it is 0, −1 if not decided here."""
    for i in range(rows):
        own, tau, variance, above = g[i + _OWN], g[i + _TAU], g[i + _FIRST], g[i + _SECOND]
        a = (own - given[i]) / tau + g[i + _MEAN] if baselines else given[i]
        half = variance / (2.0 * (1.0 + a) * (1.0 + a))
        large = above / (1.0 + a) if k == 1.0 else 0.5 * variance / above
        v = half / np.sqrt(1.0 + (half / large) * (half / large)) if k == 1.0 else min(half, large)
        rounding = 1e-14 * abs(own) / tau
        fine = half > 1e-25 and variance < 1e30 and variance > rounding * rounding
        state[i] = 1 if fine and 0.0 <= a < 1e15 else -1
        if above == 0.0 and 0.0 <= a < 1e300 and _equal(D32, i, rows):  # nothing moves
            equal = baselines and abs(given[i] - own) <= 1e-13 * max(abs(given[i]), abs(own))
            state[i] = -1 if equal else 0  # whether the baseline is that one reward is for others to say
        g[i + _V], g[i + _A] = (v, a) if state[i] == 1 else (1.0, 1.0)
        g[i + _CHANGE] = 0.0


@loop
def _newton_in_log(rows, g):
    """For k = 1, Halley's step of log Ψ − log v in log v, kept where the root lies, between half that value and all."""
    for i in range(rows):
        v, psi = g[i + _V], g[i + _PSI]
        value = _log_of_one_more((psi - v) / v)
        first = -v * g[i + _SLOPE] / psi
        second = first + v * (v * (g[i + _CURVE] / psi)) - first * first
        first -= 1.0
        newton = -value / first
        bend = -0.5 * newton * second / first
        newton /= 1.0 - (bend if abs(bend) < 0.5 else 0.0)
        newton = min(max(newton, min(0.5 * value, value)), max(0.5 * value, value))
        growth, _ = _exponential(newton)
        g[i + _CHANGE], g[i + _MOVE] = v * growth, abs(newton)


@loop
def _newton(rows, g):
    """For k = 0, Halley's step of log E_p[e^s] in v."""
    for i in range(rows):
        v, excess, over = g[i + _V], g[i + _PSI] - g[i + _V], 1.0 + g[i + _A]
        value, mass = _log_of_one_more(excess / over), over + excess
        first = -(g[i + _SLOPE] + 1.0) / mass
        second = g[i + _CURVE] / mass - first * first
        newton = -value / first
        bend = -0.5 * newton * second / first
        newton /= 1.0 - (bend if abs(bend) < 0.5 else 0.0)
        newton = min(max(newton, -0.9 * v), 9.0 * v)
        g[i + _CHANGE], g[i + _MOVE] = newton, abs(newton) / min(v, 1.0)


@loop
def _moved(rows, g, state):
    """Change v where it is to be found; returns the farthest move or step. Numbers that are none decide nothing."""
    farthest = 0.0
    for i in range(rows):
        far = max(g[i + _MOVE], g[i + _STEP])
        state[i] = -1 if state[i] == 1 and not far < 1e30 else state[i]
        change = g[i + _CHANGE] if state[i] == 1 else 0.0
        g[i + _CHANGE] = change
        g[i + _V] += change
        g[i + _MOVE] = far if state[i] == 1 else 0.0
        farthest = max(farthest, g[i + _MOVE])
    return farthest


@loop
def _prepare(k, rows, g, b):
    """Give each action of a block the v, λ, log λ and last change of v of its row, and begin new sums."""
    for i in range(rows):
        g[i + _WEIGHT] = k * g[i + _V] + g[i + _A]
        g[i + _PSI], g[i + _SLOPE], g[i + _CURVE], g[i + _STEP] = 0.0, 0.0, 0.0, 0.0
    _fill(b, _V, g[_V : _V + rows])
    _fill(b, _WEIGHT, g[_WEIGHT : _WEIGHT + rows])
    _fill(b, _CHANGE, g[_CHANGE : _CHANGE + rows])


@loop
def _sum_up(b, n, rows, g):
    _add(b[_PSI : _PSI + n], g[_PSI : _PSI + rows])
    _add(b[_SLOPE : _SLOPE + n], g[_SLOPE : _SLOPE + rows])
    _add(b[_CURVE : _CURVE + n], g[_CURVE : _CURVE + rows])


@loop
def _solve_rows(k, baselines, given, p, r, s, q, p32, D32, s32, pull, rows, g, state, b, c):
    """Solve some rows, whose actions alternate; g has their τ, and then their v, a and the mass of q."""
    width = _BLOCK // rows * rows
    _centred(p, r, p32, D32, rows, g, b)
    _begin(k, baselines, given, D32, rows, g, state)
    active = False
    for i in range(rows):
        active |= state[i] == 1
    farthest = 1.0
    for _ in range(_STEPS if active else 0):
        _prepare(k, rows, g, c)
        if farthest > 0.2:
            for i in range(rows):
                g[i + _LOG] = np.log(g[i + _WEIGHT] + 1e-30)
            _fill(c, _LOG, g[_LOG : _LOG + rows])
        for start in range(0, p.size, width):
            end = min(start + width, p.size)
            P, T, S, U = p32[start:end], D32[start:end], s32[start:end], pull[start:end]
            if farthest > 0.2:
                _start(T, S, U, c)
            _rough(P, T, S, U, _F(k), c)
            _sum_up(c, end - start, rows, g)
        if k == 1.0:
            _newton_in_log(rows, g)
        else:
            _newton(rows, g)
        farthest = _moved(rows, g, state)
        if farthest < 0.005:
            break
    fresh = True
    for _ in range(_STEPS if active else 0):
        _prepare(k, rows, g, b)
        for start in range(0, p.size, width):
            end = min(start + width, p.size)
            if fresh:
                _from_rough(s32[start:end], pull[start:end], b)
            else:
                _from_last(s[start:end], b)
            _step(p[start:end], r[start:end], s[start:end], q[start:end], k, b)
            _sum_up(b, end - start, rows, g)
            _raise(b[_STEP : _STEP + end - start], g[_STEP : _STEP + rows])
        fresh = False
        if k == 1.0:
            _newton_in_log(rows, g)
        else:
            _newton(rows, g)
        farthest = _moved(rows, g, state)
        if farthest < 2e-5:
            break
    _fill(b, _CHANGE, g[_CHANGE : _CHANGE + rows])
    g[_MASS : _MASS + rows] = 0.0
    for start in range(0, p.size, width):
        end = min(start + width, p.size)
        _last(p[start:end], s[start:end], q[start:end], k, b)
        _add(q[start:end], g[_MASS : _MASS + rows])


@loop
def _scale(q, factor):
    for j in range(q.size):
        q[j] *= factor


@loop
def _side_by_side(x, out):
    """Lay rows side by side: the first action of each before the second of any."""
    rows, K = x.shape
    for j in range(K):
        for i in range(rows):
            out[j * rows + i] = x[i, j]


@loop
def _apart(s_beside, q_beside, mass, s, q):
    """Lay rows that were side by side into arrays again, q divided by its mass."""
    rows, K = s.shape
    for i in range(rows):
        scale = 1.0 / mass[i]
        for j in range(K):
            s[i, j], q[i, j] = s_beside[j * rows + i], q_beside[j * rows + i] * scale


@loop
def _together(K):
    """How many rows of K actions are solved side by side."""
    return min(_BLOCK, 8 * max(1, 64 // K)) if K <= _SIDE else 1


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
    most = min(_together(K), N)
    g, b, c = np.empty(16 * _BLOCK), np.empty(16 * _BLOCK), np.empty(16 * _BLOCK, dtype=np.float32)
    size = most * K if most > 1 else 0
    state = np.empty(most, dtype=np.int64)
    columns, halves = np.empty((4, size)), np.empty((4, size), dtype=np.float32)
    for start in range(0, N, most):
        end = min(start + most, N)
        rows, size = end - start, (end - start) * K
        g[_TAU : _TAU + rows] = tau[start:end]
        given = a[start:end]
        if rows == 1:
            first, second = s[start].view(np.float32), q[start].view(np.float32)  # their second halves are written last
            _solve_rows(
                k, baselines, given, p[start], r[start], s[start], q[start], first[:K], second[:K], first[K:],
                second[K:], rows, g, state, b, c,
            )  # fmt: skip
            if abs(g[_MASS] - 1.0) > 1e-15:
                _scale(q[start], 1.0 / g[_MASS])
        else:
            P, R, S, Q = columns[0, :size], columns[1, :size], columns[2, :size], columns[3, :size]
            _side_by_side(p[start:end], P)
            _side_by_side(r[start:end], R)
            _solve_rows(
                k, baselines, given, P, R, S, Q, halves[0, :size], halves[1, :size], halves[2, :size],
                halves[3, :size], rows, g, state, b, c,
            )  # fmt: skip
            _apart(S, Q, g[_MASS : _MASS + rows], s[start:end], q[start:end])
        for i in range(rows):
            row, own, m = start + i, g[i + _OWN], g[i + _MEAN]
            v[row], weight[row], mean[row] = g[i + _V], k * g[i + _V] + g[i + _A], own + tau[row] * m
            near = g[i + _MOVE] < 2e-5 and abs(g[i + _MASS] - 1.0) < 1e-12 and (v[row] < 256.0 or k == 1.0)
            done[row] = state[i] == 0 or (state[i] == 1 and near)
            if state[i] == 0:
                s[row], q[row], v[row] = 0.0, p[row], 0.0
                weight[row] = (own - a[row]) / tau[row] + m if baselines else a[row]


@loop
def _likelihoods(p, r, keys, b):
    """log(p e^x) + 4096 within 0.1 for x = (r − own)/τ; 0 where that is negative or p = 0."""
    for j in range(p.size):
        log_p = _as_bits(p[j]) * 1.5390937e-16 - 709.06
        key = log_p + (r[j] - b[j + _OWN]) * b[j + _TAU] + 4096.0
        keys[j] = key if p[j] > 0 and key > 0 else 0.0


@loop
def _exponents(p, r, s, q, b):
    """s = (r − own)/τ, 0 where p = 0, q = p e^s, and the terms of E_p[e^s − 1] and of the size of s, down to −645."""
    for j in range(p.size):
        x = (r[j] - b[j + _OWN]) / b[j + _TAU]
        x = x if p[j] > 0 else 0.0
        growth, rho = _exponential(x)
        s[j], q[j] = x, p[j] * rho
        b[j + _FIRST], b[j + _STEP] = p[j] * growth, max(x, min(-x, 645.0))


@loop
def _ideal(p, s, q, b, again):
    """Less log Z; q = p e^s again where p e^x may have vanished, else divided by Z, its mass."""
    for j in range(p.size):
        s[j] = s[j] - b[j + _LOG] if p[j] > 0 else 0.0
        q[j] *= b[j + _MASS]
    if again:
        for j in range(p.size):
            _, rho = _exponential(s[j])
            q[j] = p[j] * rho


@loop
def _kl_rows(p, r, s, q, rows, g, b):
    """The KL update of some rows, whose actions alternate; g has their τ, and then own, log Z and the mass of q."""
    width = _BLOCK // rows * rows
    _own_reward(p, r, g[_MOVE : _MOVE + rows], g[_OWN : _OWN + rows])
    for i in range(rows):
        g[i + _MOVE] = 1.0 / g[i + _TAU]
    _fill(b, _OWN, g[_OWN : _OWN + rows])
    _fill(b, _TAU, g[_MOVE : _MOVE + rows])
    for start in range(0, p.size, width):
        end = min(start + width, p.size)
        _likelihoods(p[start:end], r[start:end], s[start:end], b)
    _own_reward(s, r, g[_MOVE : _MOVE + rows], g[_OWN : _OWN + rows])
    _fill(b, _OWN, g[_OWN : _OWN + rows])
    _fill(b, _TAU, g[_TAU : _TAU + rows])
    g[_FIRST : _FIRST + rows] = 0.0
    g[_STEP : _STEP + rows] = 0.0
    g[_MASS : _MASS + rows] = 0.0
    for start in range(0, p.size, width):
        end = min(start + width, p.size)
        _exponents(p[start:end], r[start:end], s[start:end], q[start:end], b)
        _add(b[_FIRST : _FIRST + end - start], g[_FIRST : _FIRST + rows])
        _raise(b[_STEP : _STEP + end - start], g[_STEP : _STEP + rows])
        _add(q[start:end], g[_MASS : _MASS + rows])
    again = False
    for i in range(rows):
        growth, mass = g[i + _FIRST], g[i + _MASS]
        again |= g[i + _STEP] > 600.0 or not mass > 1e-10
        g[i + _LOG] = _log_of_one_more(growth) if growth > -0.5 else np.log(mass)
        g[i + _FIRST], g[i + _MASS] = mass, 1.0 / mass
    _fill(b, _LOG, g[_LOG : _LOG + rows])
    _fill(b, _MASS, g[_MASS : _MASS + rows])
    g[_MASS : _MASS + rows] = 1.0
    if again:
        g[_MASS : _MASS + rows] = 0.0
    for start in range(0, p.size, width):
        end = min(start + width, p.size)
        _ideal(p[start:end], s[start:end], q[start:end], b, again)
        if again:
            _add(q[start:end], g[_MASS : _MASS + rows])


@_kept(_GIVEN_ROWS, _GIVEN_ROWS, _GIVEN_NUMBERS, _ROWS, _ROWS, _NUMBERS, _FLAGS)
def _kl(p, r, tau, q, s, baseline, done):
    """The KL update of rows of policies and rewards: writes q, s, τ log Z and `done`, as `_solve`."""
    N, K = p.shape
    most = min(_together(K), N)
    g, b = np.empty(16 * _BLOCK), np.empty(16 * _BLOCK)
    columns = np.empty((4, most * K if most > 1 else 0))
    for start in range(0, N, most):
        end = min(start + most, N)
        rows, size = end - start, (end - start) * K
        g[_TAU : _TAU + rows] = tau[start:end]
        if rows == 1:
            _kl_rows(p[start], r[start], s[start], q[start], rows, g, b)
            if g[_MASS] != 1.0:
                _scale(q[start], 1.0 / g[_MASS])
        else:
            P, R, S, Q = columns[0, :size], columns[1, :size], columns[2, :size], columns[3, :size]
            _side_by_side(p[start:end], P)
            _side_by_side(r[start:end], R)
            _kl_rows(P, R, S, Q, rows, g, b)
            _apart(S, Q, g[_MASS : _MASS + rows], s[start:end], q[start:end])
        for i in range(rows):
            row, own = start + i, g[i + _OWN]
            baseline[row] = own + tau[row] * g[i + _LOG]
            done[row] = g[i + _FIRST] > 1e-290 and g[i + _STEP] < 650.0 and abs(g[i + _LOG]) < 1e300
            if g[i + _STEP] * tau[row] <= 1e-15 * abs(own):
                s[row], q[row], baseline[row] = 0.0, p[row], own


@summing
def _extremes(p, r):
    """The least and the largest reward of the support."""
    low, high = 1e308, -1e308
    for j in range(p.size):
        low, high = min(low, r[j] if p[j] > 0 else 1e308), max(high, r[j] if p[j] > 0 else -1e308)
    return low, high


@summing
def _masses(p, r, low, high):
    """The probabilities of two rewards, and of all others."""
    lower = upper = others = 0.0
    for j in range(p.size):
        lower += p[j] if r[j] == low else 0.0
        upper += p[j] if r[j] == high else 0.0
        others += p[j] if r[j] != low and r[j] != high else 0.0
    return lower, upper, others


@_kept(_GIVEN_ROWS, _GIVEN_ROWS)
def _levels(p, r):
    """Merge the actions of rows with at most two rewards on their support.

    Returns
    -------
    mass, reward : ndarray, shape (N, 2)
        Total probability and reward of the lower and the higher level; empty if some row has more levels.
    """
    N, K = p.shape
    none = np.empty((0, 2))
    head, head_r = p[0, : min(K, 64)], r[0, : min(K, 64)]
    low, high = _extremes(head, head_r)
    if _masses(head, head_r, low, high)[2] > 0.0:
        return none, none
    mass, reward = np.empty((N, 2)), np.empty((N, 2))
    for i in range(N):
        low, high = _extremes(p[i], r[i])
        lower, upper, others = _masses(p[i], r[i], low, high)
        if others > 0.0:
            return none, none
        reward[i, 0], reward[i, 1] = low, high
        mass[i, 0], mass[i, 1] = lower if low < high else 0.0, upper
    return mass, reward


@loop
def _spread_row(p, r, high, s_low, s_high, factor_low, factor_high, q, s):
    for j in range(p.size):
        s[j] = (s_high if r[j] == high else s_low) if p[j] > 0 else 0.0
        q[j] = p[j] * (factor_high if r[j] == high else factor_low)


@_kept(*[_GIVEN_ROWS] * 6, _ROWS, _ROWS)
def _spread(p, r, reward, q_levels, s_levels, mass, q, s):
    """Write q and s of all actions from those of the two levels that `_levels` made of them."""
    for i in range(len(p)):
        factor_low = q_levels[i, 0] / mass[i, 0] if mass[i, 0] > 0 else 0.0
        factor_high = q_levels[i, 1] / mass[i, 1] if mass[i, 1] > 0 else 0.0
        s_low, s_high = s_levels[i]
        _spread_row(p[i], r[i], reward[i, 1], s_low, s_high, factor_low, factor_high, q[i], s[i])


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

    if p.shape[1] > 2:
        mass, reward = _levels(p, r)
        if len(mass):
            q_levels, s_levels, *rest = solve(mass, reward)
            q, s = np.empty(p.shape), np.empty(p.shape)  # NumPy asks for large pages, Numba does not
            _spread(p, r, reward, q_levels, s_levels, mass, q, s)
            return q, s, *rest
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
    shares, together = N * K // _SHARE, _together.py_func(K)
    groups = -(-N // together)
    workers = min(threads(), groups, shares) if shares > 1 else 1
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
