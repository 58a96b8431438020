"""Steps of one action, given what its row has: its target, and its s from a fit, in 32 bits, in 64, and at the end."""

from .elementary import (
    HALF,
    LN2_HIGH,
    LN2_LOW,
    ONE,
    ROUND,
    ROUND_32,
    SIXTH,
    TWO,
    ZERO,
    F,
    as_bits,
    as_float,
    bits_as_number,
    e0,
    e1,
    e2,
    e3,
    e4,
    e5,
    e6,
    e7,
    e8,
    e9,
    exponential,
    f0,
    f1,
    f2,
    f3,
    f4,
    loop,
    power_of_two,
)


@loop
def first_solution(d, weight, log):
    """A solution of s + λ (e^s − 1) = d within 0.05, from one of ω(z).

    That is 1/(1 + t (a + b t))^8, t = 1 − z, for z ≤ 1, and z less a fraction above.
    """
    z = d + weight + log
    high = z > ONE
    above, t = max(z, ONE), max(ONE - z, ZERO)
    root = ONE + t * (F(0.06035273) + F(0.01334462) * t)
    root *= root
    root *= root
    part = (F(4.186883) * (above - ONE) if high else ONE) / (above + F(7.708257) if high else root * root)
    omega = above - (part if high else ZERO)
    log_omega = bits_as_number(omega) * F(8.262958e-08) - F(87.99971)  # the exponent, and the mantissa as it is
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
def rough_step(p, d, x, k, weight):
    """In 32 bits: s and −ds/dv, and p times the terms of Ψ, −dΨ/dv and d²Ψ/dv²."""
    clipped = min(max(x, F(-86.0)), F(88.0))
    t = clipped * F(1.442695) + ROUND_32
    f = clipped - (t - ROUND_32) * F(0.6931472)
    scale = power_of_two(t)
    tail = f * f * ((((f4 * f + f3) * f + f2) * f + f1) * f + f0)
    growth, rho = scale * (f + tail) + (scale - ONE), scale * (f + tail) + scale
    tail = scale * tail + ((scale * f - x) + (scale - ONE))
    step, growth, rho, tail, pull, inverse = _improved(
        x, d, growth, rho, tail, k, weight, ONE, HALF, SIXTH
    )  # fmt: skip
    curve = pull * (rho * pull + growth * inverse * (TWO * k * rho - weight * rho * pull))
    return x - step, pull, p * tail, p * (growth * pull), p * curve


@loop
def exact_step(p, d, x, k, weight):
    """In 64 bits: s, e^s, the last step, and p times the terms of Ψ and −dΨ/dv."""
    clipped = min(max(x, -708.0), 708.0)
    t = clipped * 1.4426950408889634 + ROUND
    n = t - ROUND
    f = (clipped - n * LN2_HIGH) - n * LN2_LOW
    e = ((((((((e9 * f + e8) * f + e7) * f + e6) * f + e5) * f + e4) * f + e3) * f + e2) * f + e1) * f + e0
    scale, tail = as_float((as_bits(t) + 1023) << 52), f * f * e
    growth, rho = scale * (f + tail) + (scale - 1.0), scale * (f + tail) + scale
    tail = scale * tail + ((scale * f - x) + (scale - 1.0))  # without cancellation: f = x where scale = 1
    step, growth, rho, tail, pull, _ = _improved(x, d, growth, rho, tail, k, weight, 1.0, 0.5, 1.0 / 6.0)
    return x - step, rho, abs(step), p * tail, p * (growth * pull)


@loop
def last_step(p, s, rho, k, weight, change):
    """s and p e^s after the last change of v, to second order; s = 0 where p = 0."""
    inverse = 1.0 / (1.0 + weight * rho)
    pull = (1.0 + k * (rho - 1.0)) * inverse
    step = change * pull * (0.5 * change * inverse * (2.0 * k * rho - weight * rho * pull) - 1.0)
    return s + step if p > 0 else 0.0, p * (rho + rho * step * (1.0 + step * (0.5 + step * (1.0 / 6.0))))


@loop
def target_of(p, r, own, rate, mean):
    """D = (r − own)/τ − mean, 0 where p = 0."""
    d = (r - own) * rate - mean
    return d if p > 0 else 0.0


@loop
def key_of(p, r, own, rate):
    """log(p e^x) + 4096 within 0.1 for x = (r − own)/τ; 0 where that is negative or p = 0."""
    key = as_bits(p) * 1.5390937e-16 - 709.06 + (r - own) * rate + 4096.0
    return key if p > 0 and key > 0 else 0.0


@loop
def exponent_of(p, r, own, tau):
    """x = (r − own)/τ, 0 where p = 0, p e^x, p (e^x − 1), and the size of x, down to −645."""
    x = (r - own) / tau if p > 0 else 0.0
    growth, rho = exponential(x)
    return x, p * rho, p * growth, max(x, min(-x, 645.0))
