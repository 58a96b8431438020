"""What every loop is made of: how it is compiled, exponentials, logarithms and their bits, sums and maxima.

The functions are written out, free of branches, so that the compiler turns loops over them into vector instructions.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

loop = njit(error_model="numpy", fastmath={"contract"}, _nrt=False)
summing = njit(error_model="numpy", fastmath={"contract", "reassoc", "nsz", "nnan"}, _nrt=False)
checking = njit(error_model="numpy", fastmath={"contract", "reassoc", "nsz"}, _nrt=False)

LARGE = 1e150  # below that, no quotient of two numbers overflows if both are above its inverse
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG_SHIFT = 64 * 0.6931471805599453
ROUND = 6755399441055744.0  # 1.5 · 2^52: a number added to it is rounded to an integer, which the low bits then hold
F = np.float32
ROUND_32 = F(12582912.0)
ONE, TWO, HALF, SIXTH, ZERO = F(1.0), F(2.0), F(0.5), F(1 / 6), F(0.0)


def _fit(function, degree, low, high):
    """Coefficients of the polynomial through `function` at Chebyshev points, lowest degree first."""
    fit = np.polynomial.Chebyshev.interpolate(function, degree, [low, high])
    return tuple(fit.convert(kind=np.polynomial.Polynomial).coef)


def _exp_tail(x):
    """(e^x − 1 − x)/x² by its series."""
    return np.polynomial.polynomial.polyval(x, 1 / np.cumprod(np.arange(1.0, 20.0))[1:])


e0, e1, e2, e3, e4, e5, e6, e7, e8, e9 = _fit(_exp_tail, 9, -0.347, 0.347)
f0, f1, f2, f3, f4 = (F(x) for x in _fit(_exp_tail, 4, -0.347, 0.347))
a0, a1, a2, a3, a4, a5, a6, a7, a8 = (2 / (2 * n + 3) for n in range(9))


@intrinsic
def as_float(typing, bits):
    """Read the bits of an integer as a number."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), code


@intrinsic
def as_bits(typing, number):
    """Read the bits of a number as an integer."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), code


@intrinsic
def power_of_two(typing, rounded):
    """2^n of n + ROUND_32."""

    def code(context, builder, signature, arguments):
        integer = ir.IntType(32)
        exponent = builder.add(builder.bitcast(arguments[0], integer), integer(127))
        return builder.bitcast(builder.shl(exponent, integer(23)), ir.FloatType())

    return types.float32(types.float32), code


@intrinsic
def bits_as_number(typing, number):
    """Round the bits of a number, read as an integer, to a number."""

    def code(context, builder, signature, arguments):
        return builder.sitofp(builder.bitcast(arguments[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.float32), code


@intrinsic
def either(typing, condition, number, other):
    """`number` where the condition holds, else `other`: both are read, and no branch is made of it."""

    def code(context, builder, signature, arguments):
        return builder.select(*arguments)

    return types.float64(types.boolean, types.float64, types.float64), code


@loop
def exponential(x):
    """e^x − 1 and e^x for x ≤ 708, from 2^n and e^f − 1, |f| ≤ log(2)/2; below −700 by way of 2^64 e^x."""
    far = x < -700.0
    x = min(max(x + (_LOG_SHIFT if far else 0.0), -708.0), 708.0)
    t = x * 1.4426950408889634 + ROUND
    n = t - ROUND
    f = (x - n * LN2_HIGH) - n * LN2_LOW
    e = ((((((((e9 * f + e8) * f + e7) * f + e6) * f + e5) * f + e4) * f + e3) * f + e2) * f + e1) * f + e0
    scale = as_float((as_bits(t) + 1023) << 52)
    e = scale * (f + f * f * e)
    whole = e + scale
    return (-1.0 if far else e + (scale - 1.0)), whole * (2.0**-64 if far else 1.0)


@loop
def _parts_of(x):
    """The exponent of a number whose mantissa m lies in [√½, √2), and m − 1."""
    bits = as_bits(x) - 0x3FE6A09E667F3BCD  # of √½
    exponent = as_float(((bits >> 52) + 1024) | 0x4330000000000000) - 4503599627371520.0  # 2^52 + 1024
    return exponent, as_float((bits & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD) - 1.0


@loop
def _log(exponent, less):
    """The logarithm from those, log m as 2 artanh((m − 1)/(m + 1))."""
    z = less / (less + 2.0)
    y = z * z
    series = (((((((a8 * y + a7) * y + a6) * y + a5) * y + a4) * y + a3) * y + a2) * y + a1) * y + a0
    return exponent * 0.6931471805599453 + (2.0 * z + z * y * series)


@loop
def log_of_one_more(x):
    """log(1 + x), 1 + x positive and normal."""
    exponent, less = _parts_of(1.0 + x)
    return _log(exponent, x if exponent == 0.0 else less)


@loop
def log(x):
    """The logarithm of a positive and normal number."""
    exponent, less = _parts_of(x)
    return _log(exponent, less)


@summing
def plus(x, y):
    """A sum whose terms the compiler may take in another order."""
    return x + y


@summing
def total_of(x):
    """Sum of an array."""
    result = 0.0
    for j in range(x.size):
        result += x[j]
    return result


@checking
def checks_of(p, r):
    """What `sound` judges a row by: the sums of its p, of what is below 0 in that, and of the sizes of its rewards."""
    mass = below = size = 0.0
    for j in range(p.size):
        mass, below, size = mass + p[j], below + min(p[j], 0.0), size + abs(r[j])
    return mass, below, size


@loop
def sound(mass, below, size):
    """Whether a row is beyond doubt, by sums, which are no numbers if a term is none."""
    return abs(mass - 1.0) <= 5e-15 and below == 0.0 and size <= LARGE


@loop
def largest_of(x):
    """The largest number of those not below 0, 0 if there is none: as integers, which compilers compare at once."""
    result = 0
    for j in range(x.size):
        result = max(result, as_bits(x[j]))
    return as_float(result)


@loop
def place_of(x, number):
    """The first index of a number that is there."""
    j = 0
    while x[j] != number and j < x.size - 1:
        j += 1
    return j


@loop
def copy(x, b, at):
    """Copy `x` to where it begins in a buffer."""
    for j in range(x.size):
        b[at + j] = x[j]
