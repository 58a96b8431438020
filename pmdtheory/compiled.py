r"""The updates compiled by Numba: the equations of `solver`, solved by passes over the actions, each one loop.

For rows of p and r with targets D, E_p[D] = 0, and λ = k v + a, the root v of Ψ(v) = v, Ψ = E_p[e^s − 1 − s], is found
by Halley's method: for k = 1 on log Ψ − log v in log v, but where a < 0, that is 0 < λ < v, on 1/E_p[e^s] in λ; for
k = 0 on log E_p[e^s] in v. Here E_p[e^s] = 1 + (Ψ − v)/(1 + λ).

Each pass has all actions take one Householder step to their s at the present v. The first passes run in 32 bits, twice
as many numbers to an instruction: one from a fit of Wright's ω, which is taken again after large moves, the others from
the last solutions. A pass in 64 bits, mostly one, then finds s, q and v to rounding, and the last change of v moves s
and q by their derivatives, without another exponential. The KL update needs no root: its passes find the action where
p e^{r/τ} is largest, measure exponents from that, and divide by their sum.

A pass is a loop over actions; `_then` does what follows it from the sums alone, and says which pass is next. A long row
is passed over in parts, whose sums are added in one order, so threads may share them and the bits stay the same.

All loops over actions are free of branches and run over blocks that fit the first cache, so that the compiler turns
them into vector instructions; the elementary functions are written out for the same reason. Short rows are laid side by
side, the first action of each before the second of any, so that what is done once a row is a vector instruction too.

Rows at the limits of floating-point numbers, rows with λ < 0 and rows that do not converge at once are not decided
here: they are not `done`, and NumPy's path solves or refuses them.
"""

import os
from contextlib import suppress
from itertools import pairwise
from threading import Barrier, BrokenBarrierError, Thread

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_BLOCK = 256  # actions; a block of everything below fits the first cache
_SIDE = 128  # the most actions of rows that are laid side by side
# Where each quantity begins in a buffer, that of a block's actions or that of the rows in work. Distances that are
# known let the compiler see that they do not overlap.
(
    _V, _WEIGHT, _LOG, _CHANGE, _PSI, _SLOPE, _CURVE, _STEP, _OWN, _TAU, _RATE, _MEAN, _FIRST, _SECOND, _A, _MOVE,
    _MASS,
) = (_BLOCK * i for i in range(17))  # fmt: skip
KL, MIXED, MEAN, BASELINE = range(4)
ALL, START, PASS, BETWEEN = range(4)
_BEST, _AVERAGE, _TARGETS, _ROUGH, _EXACT, _LAST, _LIKELIEST, _EXPONENTS, _IDEAL, _SCALE, _END = range(11)
_STEPS = 20
_NEAR, _THERE = 0.005, 2e-5  # moves of v after which a pass in 64 bits may follow, or none
_PART = 2**15  # actions of a row whose sums are taken together
_SAMPLE = 8  # of long rows, the first pass sees one action of so many
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


@summing
def _plus(x, y):
    """A sum whose terms the compiler may take in another order."""
    return x + y


@loop
def _start(d, weight, log):
    """A solution of s + λ (e^s − 1) = d within 0.05, from one of ω(z).

    That is 1/(1 + t (a + b t))^8, t = 1 − z, for z ≤ 1, and z less a fraction above.
    """
    z = d + weight + log
    high = z > _ONE
    above, t = max(z, _ONE), max(_ONE - z, _ZERO)
    root = _ONE + t * (_F(0.06035273) + _F(0.01334462) * t)
    root *= root
    root *= root
    part = (_F(4.186883) * (above - _ONE) if high else _ONE) / (above + _F(7.708257) if high else root * root)
    omega = above - (part if high else _ZERO)
    log_omega = _bits_as_number(omega) * _F(8.262958e-08) - _F(87.99971)  # the exponent, and the mantissa as it is
    return (log_omega if high else z - part) - log


@loop
def _improved(x, d, growth, rho, tail, k, weight, one, half, sixth):
    """Householder's step to s + λ (e^s − 1) = d at x, where e^x − 1, e^x and e^x − 1 − x are given, and 1, 1/2, 1/6.

    Returns the step, those three after it, −ds/dv and 1/(1 + λ e^s).
    """
    inverse = one / (one + weight * rho)
    newton = (x + weight * growth - d) * inverse
    bend = newton * (weight * rho) * inverse
    step = newton * (one + bend * (half + half * bend - newton * sixth))
    less = step * (half - step * sixth)
    change = rho * step * (one - less)
    tail -= step * (growth - rho * less)
    growth, rho = growth - change, rho - change
    inverse += inverse * inverse * (weight * change)
    return step, growth, rho, tail, (one + k * growth) * inverse, inverse


@loop
def _rough(p, d, x, k, weight):
    """In 32 bits: s and −ds/dv, and p times the terms of Ψ, −dΨ/dv and d²Ψ/dv²."""
    clipped = min(max(x, _F(-86.0)), _F(88.0))
    t = clipped * _F(1.442695) + _ROUND_32
    f = clipped - (t - _ROUND_32) * _F(0.6931472)
    scale = _power_of_two(t)
    tail = f * f * ((((f4 * f + f3) * f + f2) * f + f1) * f + f0)
    growth, rho = scale * (f + tail) + (scale - _ONE), scale * (f + tail) + scale
    tail = scale * tail + ((scale * f - x) + (scale - _ONE))
    step, growth, rho, tail, pull, inverse = _improved(
        x, d, growth, rho, tail, k, weight, _ONE, _HALF, _SIXTH
    )  # fmt: skip
    curve = pull * (rho * pull + growth * inverse * (_TWO * k * rho - weight * rho * pull))
    return x - step, pull, p * tail, p * (growth * pull), p * curve


@loop
def _exact(p, d, x, k, weight):
    """In 64 bits: s, e^s, the last step, and p times the terms of Ψ and −dΨ/dv."""
    clipped = min(max(x, -708.0), 708.0)
    t = clipped * 1.4426950408889634 + _ROUND
    n = t - _ROUND
    f = (clipped - n * _LN2_HIGH) - n * _LN2_LOW
    e = ((((((((e9 * f + e8) * f + e7) * f + e6) * f + e5) * f + e4) * f + e3) * f + e2) * f + e1) * f + e0
    scale, tail = _as_float((_as_bits(t) + 1023) << 52), f * f * e
    growth, rho = scale * (f + tail) + (scale - 1.0), scale * (f + tail) + scale
    tail = scale * tail + ((scale * f - x) + (scale - 1.0))  # without cancellation: f = x where scale = 1
    step, growth, rho, tail, pull, _ = _improved(x, d, growth, rho, tail, k, weight, 1.0, 0.5, 1.0 / 6.0)
    return x - step, rho, abs(step), p * tail, p * (growth * pull)


@loop
def _last(p, s, rho, k, weight, change):
    """s and p e^s after the last change of v, to second order; s = 0 where p = 0."""
    inverse = 1.0 / (1.0 + weight * rho)
    pull = (1.0 + k * (rho - 1.0)) * inverse
    step = change * pull * (0.5 * change * inverse * (2.0 * k * rho - weight * rho * pull) - 1.0)
    return s + step if p > 0 else 0.0, p * (rho + rho * step * (1.0 + step * (0.5 + step * (1.0 / 6.0))))


@loop
def _target(p, r, own, rate, mean):
    d = (r - own) * rate - mean
    return d if p > 0 else 0.0


@loop
def _key(p, r, own, rate):
    """log(p e^x) + 4096 within 0.1 for x = (r − own)/τ; 0 where that is negative or p = 0."""
    key = _as_bits(p) * 1.5390937e-16 - 709.06 + (r - own) * rate + 4096.0
    return key if p > 0 and key > 0 else 0.0


@loop
def _exponent(p, r, own, tau):
    """x = (r − own)/τ, 0 where p = 0, p e^x, p (e^x − 1), and the size of x, down to −645."""
    x = (r - own) / tau if p > 0 else 0.0
    growth, rho = _exponential(x)
    return x, p * rho, p * growth, max(x, min(-x, 645.0))


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


# One row: passes over some of its actions. Sums go to `t`.


@loop
def _best_of_row(p, r, t):
    """The most probable action: its probability and its reward."""
    t[0] = _largest(p)
    t[1] = r[_where(p, t[0])]


@loop
def _mean_of_row(p, r, own):
    total = 0.0
    for j in range(p.size):
        total = _plus(total, p[j] * (r[j] - own))
    return total


@loop
def _targets_of_row(p, r, own, rate, mean, p32, D32, t):
    """p and D in 32 bits, and the sums of E_p[D²], E_p[max(D, 0)] and |D|."""
    square = above = size = 0.0
    for j in range(p.size):
        d = _target(p[j], r[j], own, rate, mean)
        p32[j], D32[j] = p[j], d
        square, above = _plus(square, p[j] * (d * d)), _plus(above, p[j] * max(d, 0.0))
        size = _plus(size, abs(d))
    t[0], t[1], t[2] = square, above, size


@loop
def _start_block(D, s, pull, v, weight, log):
    for j in range(D.size):
        s[j], pull[j] = _start(D[j] - v, weight, log), _ZERO


@loop
def _rough_block(p, D, s, pull, k, v, weight, change):
    psi = slope = curve = _ZERO
    for j in range(p.size):
        s[j], pull[j], x, y, z = _rough(p[j], D[j] - v, s[j] - change * pull[j], k, weight)
        psi, slope, curve = _plus(psi, x), _plus(slope, y), _plus(curve, z)
    return psi, slope, curve


@loop
def _rough_row(p, D, s, pull, k, again, g, t):
    v, weight, log, change = _F(g[_V]), _F(g[_WEIGHT]), _F(g[_LOG]), _F(g[_CHANGE])
    for start in range(0, p.size, _BLOCK):
        end = min(start + _BLOCK, p.size)
        P, T, S, U = p[start:end], D[start:end], s[start:end], pull[start:end]
        if again:
            _start_block(T, S, U, v, weight, log)
        psi, slope, curve = _rough_block(P, T, S, U, k, v, weight, change)
        t[0] += psi
        t[1] += slope
        t[2] += curve


@loop
def _exact_block(p, r, x, s, q, k, v, weight, own, rate, mean, t):
    psi = slope = 0.0
    far = 0
    for j in range(p.size):
        d = _target(p[j], r[j], own, rate, mean) - v
        s[j], q[j], step, a, b = _exact(p[j], d, x[j], k, weight)
        psi, slope, far = _plus(psi, a), _plus(slope, b), max(far, _as_bits(step))
    t[0] += psi
    t[1] += slope
    t[3] = max(t[3], _as_float(far))


@loop
def _copy(x, b, at):
    for j in range(x.size):
        b[at + j] = x[j]


@loop
def _exact_row(p, r, s, q, s32, pull, k, fresh, g, b, t):
    v, weight, own, rate, mean = g[_V], g[_WEIGHT], g[_OWN], g[_RATE], g[_MEAN]
    change = _F(g[_CHANGE])
    for start in range(0, p.size, _BLOCK):
        end = min(start + _BLOCK, p.size)
        x = b[: end - start]  # what is read lies where s and q are to be written
        if fresh:
            _moved_block(s32[start:end], pull[start:end], change, x)
        else:
            _copy(s[start:end], b, 0)
        _exact_block(p[start:end], r[start:end], x, s[start:end], q[start:end], k, v, weight, own, rate, mean, t)


@loop
def _moved_block(s, pull, change, x):
    for j in range(x.size):
        x[j] = s[j] - change * pull[j]


@loop
def _last_of_row(p, s, q, k, weight, change):
    mass = 0.0
    for j in range(p.size):
        s[j], q[j] = _last(p[j], s[j], q[j], k, weight, change)
        mass = _plus(mass, q[j])
    return mass

@loop
def _keys_of_block(p, r, own, rate, keys):
    for j in range(p.size):
        keys[j] = _key(p[j], r[j], own, rate)


@loop
def _most_likely_of_row(p, r, own, rate, b, t):
    """The action with the largest p e^x: its key and its reward."""
    for start in range(0, p.size, _BLOCK):
        end = min(start + _BLOCK, p.size)
        keys = b[: end - start]
        _keys_of_block(p[start:end], r[start:end], own, rate, keys)
        largest = _largest(keys)
        if largest > t[0]:
            t[0], t[1] = largest, r[start + _where(keys, largest)]


@loop
def _exponents_of_row(p, r, s, q, own, tau, t):
    mass = growth = 0.0
    far = 0
    for j in range(p.size):
        s[j], q[j], more, size = _exponent(p[j], r[j], own, tau)
        growth, mass, far = _plus(growth, more), _plus(mass, q[j]), max(far, _as_bits(size))
    t[0], t[1], t[3] = growth, mass, _as_float(far)


@loop
def _ideal_of_row(p, s, q, log_z, scale):
    for j in range(p.size):
        s[j] = s[j] - log_z if p[j] > 0 else 0.0
        q[j] *= scale


@loop
def _again(p, s, q):
    """q = p e^s where p e^x may have vanished."""
    for j in range(p.size):
        _, rho = _exponential(s[j])
        q[j] = p[j] * rho


@loop
def _scale(q, factor):
    for j in range(q.size):
        q[j] *= factor


@loop
def _pass_of_row(at, k, p, r, s, q, g, b, t):
    """One pass over some actions of a row, whose 32-bit numbers lie where its s and q will."""
    n, own, rate = p.size, g[_OWN], g[_RATE]
    first, second = s.view(np.float32), q.view(np.float32)
    p32, D32, s32, pull = first[:n], second[:n], first[n:], second[n:]
    for i in range(t.size):
        t[i] = 0.0
    if at[0] == _BEST:
        _best_of_row(p, r, t)
    elif at[0] == _AVERAGE:
        t[0] = _mean_of_row(p, r, own)
    elif at[0] == _TARGETS:
        _targets_of_row(p, r, own, rate, g[_MEAN], p32, D32, t)
    elif at[0] == _ROUGH:
        size = n // _SAMPLE if at[3] else n
        _rough_row(p32[:size], D32[:size], s32[:size], pull[:size], _F(k), at[2], g, t)
        t[3] = _total(p[:size]) if at[3] else 0.0
    elif at[0] == _EXACT:
        _exact_row(p, r, s, q, s32, pull, k, at[2], g, b, t)
    elif at[0] == _LAST:
        t[0] = _last_of_row(p, s, q, k, g[_WEIGHT], g[_CHANGE])
    elif at[0] == _LIKELIEST:
        _most_likely_of_row(p, r, own, rate, b, t)
    elif at[0] == _EXPONENTS:
        _exponents_of_row(p, r, s, q, own, g[_TAU], t)
    elif at[0] == _IDEAL:
        _ideal_of_row(p, s, q, g[_LOG], g[_MASS])
        if at[2]:
            _again(p, s, q)
            t[0] = _total(q)
    elif at[0] == _SCALE:
        _scale(q, 1.0 / g[_MASS])


# Several rows side by side: what belongs to a row is laid out for the actions of a block, `b` in 64 bits, `c` in 32.


@loop
def _fill(b, at, x):
    """Give each action of a block the number of its row."""
    rows = x.size
    for start in range(at, at + _BLOCK - rows + 1, rows):
        for i in range(rows):
            b[start + i] = x[i]


@loop
def _add(x, out):
    """Add to each row what its actions have, halves of which are laid upon halves; `x` is used up."""
    rows, left = out.size, x.size // out.size
    while left > 1:
        half = left // 2
        far = (left - half) * rows
        for j in range(half * rows):
            x[j] += x[far + j]
        left -= half
    for i in range(rows):
        out[i] += x[i]


@loop
def _raise(x, out):
    """Raise each row to the largest that its actions have, as `_add`."""
    rows, left = out.size, x.size // out.size
    while left > 1:
        half = left // 2
        far = (left - half) * rows
        for j in range(half * rows):
            x[j] = max(x[j], x[far + j])
        left -= half
    for i in range(rows):
        out[i] = max(out[i], x[i])


@loop
def _best_of_rows(x, r, best, own):
    """The largest x of each row, if it is above `best`, and the reward of that action."""
    rows = own.size
    for start in range(0, x.size, rows):
        for i in range(rows):
            better = x[start + i] > best[i]
            best[i] = x[start + i] if better else best[i]
            own[i] = r[start + i] if better else own[i]


@loop
def _means_of_block(p, r, b):
    for j in range(p.size):
        b[j + _FIRST] = p[j] * (r[j] - b[j + _OWN])


@loop
def _targets_of_block(p, r, p32, D32, b):
    for j in range(p.size):
        d = _target(p[j], r[j], b[j + _OWN], b[j + _RATE], b[j + _MEAN])
        p32[j], D32[j] = p[j], d
        b[j + _FIRST], b[j + _SECOND], b[j + _STEP] = p[j] * (d * d), p[j] * max(d, 0.0), abs(d)


@loop
def _starts_of_block(D, s, pull, c):
    for j in range(D.size):
        s[j], pull[j] = _start(D[j] - c[j + _V], c[j + _WEIGHT], c[j + _LOG]), _ZERO


@loop
def _roughs_of_block(p, D, s, pull, k, c):
    for j in range(p.size):
        s[j], pull[j], c[j + _PSI], c[j + _SLOPE], c[j + _CURVE] = _rough(
            p[j], D[j] - c[j + _V], s[j] - c[j + _CHANGE] * pull[j], k, c[j + _WEIGHT]
        )


@loop
def _moved_of_block(s, pull, b):
    for j in range(s.size):
        b[j + _FIRST] = s[j] - b[j + _CHANGE] * pull[j]


@loop
def _exacts_of_block(p, r, s, q, k, b):
    for j in range(p.size):
        d = _target(p[j], r[j], b[j + _OWN], b[j + _RATE], b[j + _MEAN]) - b[j + _V]
        s[j], q[j], b[j + _STEP], b[j + _PSI], b[j + _SLOPE] = _exact(p[j], d, b[j + _FIRST], k, b[j + _WEIGHT])


@loop
def _lasts_of_block(p, s, q, k, b):
    for j in range(p.size):
        s[j], q[j] = _last(p[j], s[j], q[j], k, b[j + _WEIGHT], b[j + _CHANGE])
        b[j + _FIRST] = q[j]

@loop
def _keys_beside(p, r, b):
    for j in range(p.size):
        b[j + _FIRST] = _key(p[j], r[j], b[j + _OWN], b[j + _RATE])


@loop
def _exponents_of_block(p, r, s, q, b):
    for j in range(p.size):
        s[j], q[j], b[j + _FIRST], b[j + _STEP] = _exponent(p[j], r[j], b[j + _OWN], b[j + _TAU])
        b[j + _SECOND] = q[j]


@loop
def _ideal_of_block(p, s, q, b):
    for j in range(p.size):
        s[j] = s[j] - b[j + _LOG] if p[j] > 0 else 0.0
        q[j] *= b[j + _MASS]


@loop
def _lay_out(stage, rows, g, b, c):
    """Give the actions of a block what a pass reads of their rows, unless an earlier one did."""
    if stage in (_AVERAGE, _LIKELIEST, _EXPONENTS):
        _fill(b, _OWN, g[_OWN : _OWN + rows])
    if stage in (_TARGETS, _LIKELIEST):
        _fill(b, _RATE, g[_RATE : _RATE + rows])
    if stage == _TARGETS:
        _fill(b, _MEAN, g[_MEAN : _MEAN + rows])
    if stage == _ROUGH:
        _fill(c, _V, g[_V : _V + rows])
        _fill(c, _WEIGHT, g[_WEIGHT : _WEIGHT + rows])
        _fill(c, _CHANGE, g[_CHANGE : _CHANGE + rows])
        _fill(c, _LOG, g[_LOG : _LOG + rows])
    if stage == _EXACT:
        _fill(b, _V, g[_V : _V + rows])
        _fill(b, _WEIGHT, g[_WEIGHT : _WEIGHT + rows])
    if stage in (_EXACT, _LAST):
        _fill(b, _CHANGE, g[_CHANGE : _CHANGE + rows])
    if stage == _EXPONENTS:
        _fill(b, _TAU, g[_TAU : _TAU + rows])
    if stage == _IDEAL:
        _fill(b, _LOG, g[_LOG : _LOG + rows])
        _fill(b, _MASS, g[_MASS : _MASS + rows])


@loop
def _pass_of_rows(at, k, p, r, s, q, rows, g, b, c, t):
    """One pass over rows side by side."""
    n, width = p.size, _BLOCK // rows * rows
    first, second = s.view(np.float32), q.view(np.float32)
    p32, D32, s32, pull = first[:n], second[:n], first[n:], second[n:]
    lowest = -1.0 if at[0] in (_BEST, _LIKELIEST) else 0.0
    for i in range(4 * rows):
        t[i] = lowest
    _lay_out(at[0], rows, g, b, c)
    for start in range(0, n, width):
        end = min(start + width, n)
        P, R, S, Q, size = p[start:end], r[start:end], s[start:end], q[start:end], end - start
        A, B, C, D = p32[start:end], D32[start:end], s32[start:end], pull[start:end]
        if at[0] == _BEST:
            _best_of_rows(P, R, t[:rows], t[rows : 2 * rows])
        elif at[0] == _AVERAGE:
            _means_of_block(P, R, b)
            _add(b[_FIRST : _FIRST + size], t[:rows])
        elif at[0] == _TARGETS:
            _targets_of_block(P, R, A, B, b)
            _add(b[_FIRST : _FIRST + size], t[:rows])
            _add(b[_SECOND : _SECOND + size], t[rows : 2 * rows])
            _add(b[_STEP : _STEP + size], t[2 * rows : 3 * rows])
        elif at[0] == _ROUGH:
            if at[2]:
                _starts_of_block(B, C, D, c)
            _roughs_of_block(A, B, C, D, _F(k), c)
            _add(c[_PSI : _PSI + size], t[:rows])
            _add(c[_SLOPE : _SLOPE + size], t[rows : 2 * rows])
            _add(c[_CURVE : _CURVE + size], t[2 * rows : 3 * rows])
        elif at[0] == _EXACT:
            if at[2]:
                _moved_of_block(C, D, b)
            else:
                _copy(S, b, _FIRST)
            _exacts_of_block(P, R, S, Q, k, b)
            _add(b[_PSI : _PSI + size], t[:rows])
            _add(b[_SLOPE : _SLOPE + size], t[rows : 2 * rows])
            _raise(b[_STEP : _STEP + size], t[3 * rows : 4 * rows])
        elif at[0] == _LAST:
            _lasts_of_block(P, S, Q, k, b)
            _add(b[_FIRST : _FIRST + size], t[:rows])
        elif at[0] == _LIKELIEST:
            _keys_beside(P, R, b)
            _best_of_rows(b[_FIRST : _FIRST + size], R, t[:rows], t[rows : 2 * rows])
        elif at[0] == _EXPONENTS:
            _exponents_of_block(P, R, S, Q, b)
            _add(b[_FIRST : _FIRST + size], t[:rows])
            _add(b[_SECOND : _SECOND + size], t[rows : 2 * rows])
            _raise(b[_STEP : _STEP + size], t[3 * rows : 4 * rows])
        elif at[0] == _IDEAL:
            _ideal_of_block(P, S, Q, b)
            if at[2]:
                _again(P, S, Q)
                _copy(Q, b, _FIRST)
                _add(b[_FIRST : _FIRST + size], t[:rows])


# Between the passes: what becomes of the sums of all parts of a row, each of which has its own `t`.


@loop
def _summed(t, at, out):
    """Sums over the parts, always in one order."""
    first = at * out.size
    for i in range(out.size):
        out[i] = t[0, first + i]
    for part in range(1, len(t)):
        for i in range(out.size):
            out[i] += t[part, first + i]


@loop
def _farthest(t, out):
    first = 3 * out.size
    for i in range(out.size):
        out[i] = t[0, first + i]
    for part in range(1, len(t)):
        for i in range(out.size):
            out[i] = max(out[i], t[part, first + i])


@loop
def _choose(t, own):
    """The reward that belongs to the largest number."""
    for i in range(own.size):
        own[i] = t[0, own.size + i]
    for part in range(1, len(t)):
        for i in range(own.size):
            if t[part, i] > t[0, i]:
                t[0, i], own[i] = t[part, i], t[part, own.size + i]


@loop
def _begin(k, law, given, rows, g, state):
    """Of each row a, a first v, and its state: 1 where v is to be found, 0 where it is 0, −1 if not decided here."""
    active = False
    for i in range(rows):
        own, tau, variance, above = g[i + _OWN], g[i + _TAU], g[i + _FIRST], g[i + _SECOND]
        a = (own - given[i]) / tau + g[i + _MEAN] if law == BASELINE else given[i]
        c = max(-a, 0.0)
        half = 0.5 * variance / ((1.0 + a) * (1.0 + a) if c == 0.0 else c + np.sqrt(c * c + variance))
        large = above / (1.0 + a + c) if k == 1.0 else 0.5 * variance / above
        v = c + half / np.sqrt(1.0 + (half / large) * (half / large)) if k == 1.0 else min(half, large)
        rounding = 1e-14 * abs(own) / tau
        fine = half > 1e-25 and variance < 1e30 and variance > rounding * rounding
        state[i] = 1 if fine and -256.0 < a < 1e15 else -1
        if above == 0.0 and 0.0 <= a < 1e300 and g[i + _STEP] == 0.0:  # all targets are 0: nothing moves
            equal = law == BASELINE and abs(given[i] - own) <= 1e-13 * max(abs(given[i]), abs(own))
            state[i] = -1 if equal else 0  # whether the baseline is that one reward is for others to say
        g[i + _V], g[i + _A] = (v, a) if state[i] == 1 else (1.0, 1.0)
        g[i + _CHANGE] = 0.0
        active |= state[i] == 1
    return active


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
def _newton_in_weight(least, rows, g):
    """Where a < 0, Halley's step of 1/E_p[e^s] in λ, which stays above 0; moves are relative to λ or `least` v."""
    for i in range(rows):
        if g[i + _A] < 0.0:
            v, excess, over = g[i + _V], g[i + _PSI] - g[i + _V], 1.0 + g[i + _WEIGHT]
            weight, mass = g[i + _WEIGHT], 1.0 + excess / over
            first = -(g[i + _SLOPE] + mass) / over
            second = (g[i + _CURVE] - 2.0 * first) / over
            newton = -(excess / over) * (mass / first)
            bend = newton * (first / mass - 0.5 * second / first)
            newton /= 1.0 - (bend if abs(bend) < 0.5 else 0.0)
            beyond = newton < 0.0 and weight < 1e-6 * min(v, 1.0)
            newton = min(max(newton, -0.9 * weight), 9.0 * weight)
            g[i + _CHANGE], g[i + _MOVE] = newton, np.nan if beyond else abs(newton) / max(weight, least * v)


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
        far = max(g[i + _MOVE], 0.1 * g[i + _STEP])
        state[i] = -1 if state[i] == 1 and not far < 1e30 else state[i]
        change = g[i + _CHANGE] if state[i] == 1 else 0.0
        g[i + _CHANGE] = change
        g[i + _V] += change
        g[i + _MOVE] = far if state[i] == 1 else 0.0
        farthest = max(farthest, g[i + _MOVE])
    return farthest


@loop
def _move(k, least, rows, g, state):
    """Move v by what the sums say; returns how far the farthest row went."""
    if k == 1.0:
        _newton_in_log(rows, g)
        _newton_in_weight(least, rows, g)
    else:
        _newton(rows, g)
    return _moved(rows, g, state)


@loop
def _log_z(rows, g):
    """log Z of each row and what q is to be multiplied by; whether p e^x may have vanished somewhere."""
    again = False
    for i in range(rows):
        growth, mass = g[i + _FIRST], g[i + _MASS]
        again |= g[i + _STEP] > 600.0 or not mass > 1e-10
        g[i + _LOG] = _log_of_one_more(growth) if growth > -0.5 else np.log(mass)
        g[i + _FIRST], g[i + _MASS] = mass, 1.0 / mass
    return again


@loop
def _then(at, law, k, given, rows, g, t, state):
    """What follows a pass: `at` has the next one, how many of its kind there were, and how it is to start."""
    stage, following = at[0], at[0]
    at[1] += 1
    if stage == _BEST:
        _choose(t, g[_OWN : _OWN + rows])
        following = _LIKELIEST if law == KL else _AVERAGE
    elif stage == _AVERAGE:
        _summed(t, 0, g[_MEAN : _MEAN + rows])
        for i in range(rows):
            g[i + _MEAN] *= g[i + _RATE]
        following = _TARGETS
    elif stage == _TARGETS:
        _summed(t, 0, g[_FIRST : _FIRST + rows])
        _summed(t, 1, g[_SECOND : _SECOND + rows])
        _summed(t, 2, g[_STEP : _STEP + rows])
        following = _ROUGH if _begin(k, law, given, rows, g, state) else _END
        g[_STEP : _STEP + rows] = 0.0
        at[2] = 1
    elif stage == _ROUGH:
        _summed(t, 0, g[_PSI : _PSI + rows])
        _summed(t, 1, g[_SLOPE : _SLOPE + rows])
        _summed(t, 2, g[_CURVE : _CURVE + rows])
        if at[3]:
            _summed(t, 3, g[_FIRST : _FIRST + rows])
            g[_PSI], g[_SLOPE], g[_CURVE] = g[_PSI] / g[_FIRST], g[_SLOPE] / g[_FIRST], g[_CURVE] / g[_FIRST]
        farthest = _move(k, 1e-4, rows, g, state)
        at[2] = at[3] == 1 or farthest > 0.2
        if (farthest < _NEAR and at[3] == 0) or at[1] == _STEPS:
            following, at[2] = _EXACT, 1
        at[3] = 0
    elif stage == _EXACT:
        _summed(t, 0, g[_PSI : _PSI + rows])
        _summed(t, 1, g[_SLOPE : _SLOPE + rows])
        _farthest(t, g[_STEP : _STEP + rows])
        at[2] = 0
        if _move(k, 0.0, rows, g, state) < _THERE or at[1] == _STEPS:
            following = _LAST
    elif stage == _LIKELIEST:
        _choose(t, g[_OWN : _OWN + rows])
        following = _EXPONENTS
    elif stage == _EXPONENTS:
        _summed(t, 0, g[_FIRST : _FIRST + rows])
        _summed(t, 1, g[_MASS : _MASS + rows])
        _farthest(t, g[_STEP : _STEP + rows])
        at[2] = _log_z(rows, g)
        following = _IDEAL
    else:  # the masses, of which a single row's is divided away by one more pass
        if stage == _LAST or at[2]:
            _summed(t, 0, g[_MASS : _MASS + rows])
        else:
            g[_MASS : _MASS + rows] = 1.0
        off = abs(g[_MASS] - 1.0) > (1e-15 if stage == _LAST else 0.0)
        following = _SCALE if rows == 1 and off and stage != _SCALE else _END
    if following in (_ROUGH, _EXACT):
        for i in range(rows):
            g[i + _WEIGHT] = k * g[i + _V] + g[i + _A]
            if at[2]:
                g[i + _LOG] = np.log(g[i + _WEIGHT] + 1e-30)
    at[0] = following
    at[1] = at[1] if following == stage else 0


@loop
def _report(law, k, p, r, given, q, s, v, weight, mean, done, g, state):
    """Write the numbers of some rows, and the rows in which nothing moves."""
    for i in range(len(p)):
        own, tau, far = g[i + _OWN], g[i + _TAU], g[i + _MOVE]
        if law == KL:
            v[i], weight[i], mean[i] = 0.0, 0.0, own + tau * g[i + _LOG]
            done[i] = g[i + _FIRST] > 1e-290 and g[i + _STEP] < 650.0 and abs(g[i + _LOG]) < 1e300
            still = g[i + _STEP] * tau <= 1e-15 * abs(own)
            mean[i] = own if still else mean[i]
        else:
            v[i], weight[i] = g[i + _V], k * g[i + _V] + g[i + _A]
            mean[i] = own + tau * g[i + _MEAN]
            near = far < _THERE and abs(g[i + _MASS] - 1.0) < 1e-12
            cancels = v[i] > 256.0 and (k == 0.0 or g[i + _A] < 0.0)  # D − v
            still = state[i] == 0
            done[i] = still or (state[i] == 1 and near and not cancels)
            if still:
                v[i], weight[i] = 0.0, (own - given[i]) / tau + g[i + _MEAN] if law == BASELINE else given[i]
        if still:
            s[i], q[i] = 0.0, p[i]


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


def _together(K):
    """How many rows of K actions are solved side by side."""
    return min(_BLOCK, 8 * max(1, 64 // K)) if K <= _SIDE else 1


_side = loop(_together)


@_kept(
    types.int64, types.int64, types.int64, types.int64, _GIVEN_ROWS, _GIVEN_ROWS, _GIVEN_NUMBERS, _GIVEN_NUMBERS,
    _ROWS, _ROWS, _NUMBERS, _NUMBERS, _NUMBERS, _FLAGS, _NUMBERS, _ROWS, types.Array(types.int64, 1, "C"),
)  # fmt: skip
def _solve(part, low, high, law, p, r, tau, a, q, s, v, weight, mean, done, g, t, at):
    """Solve a law on rows of policies and rewards, or do a part of that.

    Parameters
    ----------
    part : int
        ALL; or, for one row whose passes several threads share, START, one PASS over the parts of the row from `low`
        up to `high`, or what is to be done BETWEEN two passes.
    law : int
        KL, MIXED (λ = a), MEAN (λ = v, that is a = 0) or BASELINE (`a` is b, and λ = v + (E_p[r] − b)/τ).
    p, r : ndarray, shape (N, K)
    tau, a : ndarray, shape (N,)
    q, s : ndarray, shape (N, K)
        Written.
    v, weight, mean : ndarray, shape (N,)
        Written: v = KL(p‖q), λ and E_p[r]; for KL 0, 0 and τ log Z.
    done : ndarray of bool, shape (N,)
        Written.
    g, t, at : ndarray
        Of `_workspace`: numbers of the rows in work, sums of each part, and which pass is next.
    """
    k = 1.0 if law in (MEAN, BASELINE) else 0.0
    N, K = p.shape
    most = min(_side(K), N)
    b, c = np.empty(17 * _BLOCK), np.empty(17 * _BLOCK, dtype=np.float32)
    columns = np.empty((4, most * K if most > 1 else 0))
    state = at[4:]
    for start in range(0, N, most):
        end = min(start + most, N)
        rows = end - start
        size = rows * K if most > 1 else 0
        P, R, S, Q = columns[0, :size], columns[1, :size], columns[2, :size], columns[3, :size]
        if part in (ALL, START):
            at[0], at[1], at[2], at[3] = _BEST, 0, 0, K > _PART
            for i in range(rows):
                g[i + _TAU], g[i + _RATE], g[i + _MASS] = tau[start + i], 1.0 / tau[start + i], 1.0
            if rows > 1:
                _side_by_side(p[start:end], P)
                _side_by_side(r[start:end], R)
        while at[0] != _END:
            if part in (ALL, PASS):
                if rows > 1:
                    _pass_of_rows(at, k, P, R, S, Q, rows, g, b, c, t[0])
                else:
                    for i in range(low, high):
                        x, y = i * _PART, min((i + 1) * _PART, K)
                        _pass_of_row(at, k, p[start, x:y], r[start, x:y], s[start, x:y], q[start, x:y], g, b, t[i])
            if part in (ALL, BETWEEN):
                _then(at, law, k, a[start:end], rows, g, t, state)
            if part != ALL and at[0] != _END:
                return
        if rows > 1:
            _apart(S, Q, g[_MASS : _MASS + rows], s[start:end], q[start:end])
        _report(
            law, k, p[start:end], r[start:end], a[start:end], q[start:end], s[start:end], v[start:end],
            weight[start:end], mean[start:end], done[start:end], g, state,
        )  # fmt: skip


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
    q, s, _, weight, baseline, done = _over_threads(KL, p, r, tau, tau)
    return q, s, weight, baseline, done


def pmd_mean(p, r, tau):
    """The PMD-mean update, as `kl`."""
    q, s, _, weight, mean, done = _of_levels(MEAN, p, r, tau, np.zeros(len(p)))
    return q, s, weight, mean, done


def with_baseline(p, r, tau, b):
    """The update with baseline `b`, shape (N,); those above τ log Z are not done."""
    q, s, _, weight, _, done = _of_levels(BASELINE, p, r, tau, b)
    return q, s, weight, b.copy(), done


def mixed(p, r, tau, a):
    """The update with χ² weight λ = `a`, shape (N,)."""
    q, s, v, _, mean, done = _of_levels(MIXED, p, r, tau, a)
    return q, s, a.copy(), mean + tau * (v - a), done


def _of_levels(law, p, r, tau, a):
    """The law, for the two levels of the reward if there are no more."""
    if p.shape[1] > 2:
        mass, reward = _levels(p, r)
        if len(mass):
            q_levels, s_levels, *rest = _over_threads(law, mass, reward, tau, a)
            q, s = np.empty(p.shape), np.empty(p.shape)  # NumPy asks for large pages, Numba does not
            _spread(p, r, reward, q_levels, s_levels, mass, q, s)
            return q, s, *rest
    return _over_threads(law, p, r, tau, a)


def threads():
    """How many threads large problems are spread over: OMP_NUM_THREADS, or one for each processor."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1


def _parts(K):
    """How many parts a row has, whose sums are added up in one order by however many threads."""
    return -(-K // _PART)


def _workspace(N, K):
    """What `_solve` works in."""
    together = min(_together(K), N)
    return np.empty(17 * _BLOCK), np.empty((_parts(K), 4 * together)), np.zeros(4 + together, dtype=np.int64)


def _over_threads(law, p, r, tau, a):
    """`_solve`, on some rows in each thread, or on some parts of each row; returns what that writes.

    Rows that are solved together stay together, so that the bits of the result are the same for any number of threads.
    """
    N, K = p.shape
    inputs, outputs = (p, r, tau, a), [np.empty((N, K)), np.empty((N, K)), *np.empty((3, N)), np.empty(N, dtype=bool)]
    shares, together = N * K // _SHARE, _together(K)
    groups = -(-N // together)
    workers = min(threads(), shares) if shares > 1 else 1
    if workers > groups and K > _PART:
        for i in range(N):
            _one_row(min(workers, _parts(K)), law, *(x[i : i + 1] for x in (*inputs, *outputs)))
        return outputs

    def solve(rows):
        arguments = [x[rows] for x in (*inputs, *outputs)]
        _solve(ALL, 0, _parts(K), law, *arguments, *_workspace(*arguments[0].shape))

    workers = min(workers, groups)
    if workers < 2:
        solve(slice(None))
        return outputs
    edges = together * np.linspace(0, groups, workers + 1).astype(int)
    shares = [slice(*pair) for pair in pairwise(edges)]
    started = _started(solve, shares[1:])
    for rows in (shares[0], *shares[1 + len(started) :]):
        solve(rows)
    for thread in started:
        thread.join()
    return outputs


def _one_row(workers, law, *arrays):
    """`_solve` on one row, the parts of which are shared by threads in every pass."""
    parts, (g, t, at) = _parts(arrays[0].shape[1]), _workspace(*arrays[0].shape)
    arguments = law, *arrays, g, t, at
    _solve(START, 0, 0, *arguments)
    all_there = Barrier(workers, action=lambda: _solve(BETWEEN, 0, 0, *arguments))

    def share(pair):
        with suppress(BrokenBarrierError):
            while at[0] != _END:
                _solve(PASS, *pair, *arguments)
                all_there.wait()

    pairs = list(pairwise(np.linspace(0, parts, workers + 1).astype(int)))
    started = _started(share, pairs[1:])
    if len(started) == workers - 1:
        share(pairs[0])
    else:
        all_there.abort()
    for thread in started:
        thread.join()
    if len(started) < workers - 1:
        _solve(ALL, 0, parts, *arguments)


def _started(function, arguments):
    """Threads that call the function with each argument, up to the first that does not start.

    None starts while the interpreter ends.
    """
    threads = []
    with suppress(RuntimeError):
        for argument in arguments:
            thread = Thread(target=function, args=(argument,))
            thread.start()
            threads.append(thread)
    return threads
