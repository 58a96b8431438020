"""Passes over one row, or over a part of it: numbers of the row are single ones, sums go to `t`."""

import numpy as np

from .actions import exact_step, exponent_of, first_solution, key_of, last_step, rough_step, target_of
from .elementary import ZERO, F, as_bits, as_float, copy, exponential, largest_of, loop, place_of, plus, total_of
from .layout import (
    AVERAGE,
    BEST,
    BLOCK,
    CHANGE,
    EXACT,
    EXPONENTS,
    IDEAL,
    LAST,
    LIKELIEST,
    LOG,
    MASS,
    MEAN,
    OWN,
    RATE,
    ROUGH,
    SCALE,
    TARGETS,
    TAU,
    WEIGHT,
    V,
)

_SAMPLE = 8  # of long rows, the first pass sees one action of so many


@loop
def _best_of_row(p, r, t):
    """The most probable action: its probability and its reward."""
    t[0] = largest_of(p)
    t[1] = r[place_of(p, t[0])]


@loop
def _mean_of_row(p, r, own):
    total = 0.0
    for j in range(p.size):
        total = plus(total, p[j] * (r[j] - own))
    return total


@loop
def _targets_of_row(p, r, own, rate, mean, p32, D32, t):
    """p and D in 32 bits, and the sums of E_p[D²], E_p[max(D, 0)] and |D|."""
    square = above = size = 0.0
    for j in range(p.size):
        d = target_of(p[j], r[j], own, rate, mean)
        p32[j], D32[j] = p[j], d
        square, above = plus(square, p[j] * (d * d)), plus(above, p[j] * max(d, 0.0))
        size = plus(size, abs(d))
    t[0], t[1], t[2] = square, above, size


@loop
def _start_block(D, s, pull, v, weight, log):
    for j in range(D.size):
        s[j], pull[j] = first_solution(D[j] - v, weight, log), ZERO


@loop
def _rough_block(p, D, s, pull, k, v, weight, change):
    psi = slope = curve = ZERO
    for j in range(p.size):
        s[j], pull[j], x, y, z = rough_step(p[j], D[j] - v, s[j] - change * pull[j], k, weight)
        psi, slope, curve = plus(psi, x), plus(slope, y), plus(curve, z)
    return psi, slope, curve


@loop
def _rough_row(p, D, s, pull, k, again, g, t):
    v, weight, log, change = F(g[V]), F(g[WEIGHT]), F(g[LOG]), F(g[CHANGE])
    for start in range(0, p.size, BLOCK):
        end = min(start + BLOCK, p.size)
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
        d = target_of(p[j], r[j], own, rate, mean) - v
        s[j], q[j], step, a, b = exact_step(p[j], d, x[j], k, weight)
        psi, slope, far = plus(psi, a), plus(slope, b), max(far, as_bits(step))
    t[0] += psi
    t[1] += slope
    t[3] = max(t[3], as_float(far))


@loop
def _exact_row(p, r, s, q, s32, pull, k, fresh, g, b, t):
    v, weight, own, rate, mean = g[V], g[WEIGHT], g[OWN], g[RATE], g[MEAN]
    change = F(g[CHANGE])
    for start in range(0, p.size, BLOCK):
        end = min(start + BLOCK, p.size)
        x = b[: end - start]  # what is read lies where s and q are to be written
        if fresh:
            _moved_block(s32[start:end], pull[start:end], change, x)
        else:
            copy(s[start:end], b, 0)
        _exact_block(p[start:end], r[start:end], x, s[start:end], q[start:end], k, v, weight, own, rate, mean, t)


@loop
def _moved_block(s, pull, change, x):
    for j in range(x.size):
        x[j] = s[j] - change * pull[j]


@loop
def _last_of_row(p, s, q, k, weight, change):
    mass = 0.0
    for j in range(p.size):
        s[j], q[j] = last_step(p[j], s[j], q[j], k, weight, change)
        mass = plus(mass, q[j])
    return mass


@loop
def _keys_of_block(p, r, own, rate, keys):
    for j in range(p.size):
        keys[j] = key_of(p[j], r[j], own, rate)


@loop
def _most_likely_of_row(p, r, own, rate, b, t):
    """The action with the largest p e^x: its key and its reward."""
    for start in range(0, p.size, BLOCK):
        end = min(start + BLOCK, p.size)
        keys = b[: end - start]
        _keys_of_block(p[start:end], r[start:end], own, rate, keys)
        largest = largest_of(keys)
        if largest > t[0]:
            t[0], t[1] = largest, r[start + place_of(keys, largest)]


@loop
def _exponents_of_row(p, r, s, q, own, tau, t):
    mass = growth = 0.0
    far = 0
    for j in range(p.size):
        s[j], q[j], more, size = exponent_of(p[j], r[j], own, tau)
        growth, mass, far = plus(growth, more), plus(mass, q[j]), max(far, as_bits(size))
    t[0], t[1], t[3] = growth, mass, as_float(far)


@loop
def _ideal_of_row(p, s, q, log_z, scale):
    for j in range(p.size):
        s[j] = s[j] - log_z if p[j] > 0 else 0.0
        q[j] *= scale


@loop
def exponentiated(p, s, q):
    """q = p e^s where p e^x may have vanished."""
    for j in range(p.size):
        _, rho = exponential(s[j])
        q[j] = p[j] * rho


@loop
def _scale(q, factor):
    for j in range(q.size):
        q[j] *= factor


@loop
def pass_of_row(at, k, p, r, s, q, g, b, t):
    """One pass over some actions of a row, whose 32-bit numbers lie where its s and q will."""
    n, own, rate = p.size, g[OWN], g[RATE]
    first, second = s.view(np.float32), q.view(np.float32)
    p32, D32, s32, pull = first[:n], second[:n], first[n:], second[n:]
    for i in range(t.size):
        t[i] = 0.0
    if at[0] == BEST:
        _best_of_row(p, r, t)
    elif at[0] == AVERAGE:
        t[0] = _mean_of_row(p, r, own)
    elif at[0] == TARGETS:
        _targets_of_row(p, r, own, rate, g[MEAN], p32, D32, t)
    elif at[0] == ROUGH:
        size = n // _SAMPLE if at[3] else n
        _rough_row(p32[:size], D32[:size], s32[:size], pull[:size], F(k), at[2], g, t)
        t[3] = total_of(p[:size]) if at[3] else 0.0
    elif at[0] == EXACT:
        _exact_row(p, r, s, q, s32, pull, k, at[2], g, b, t)
    elif at[0] == LAST:
        t[0] = _last_of_row(p, s, q, k, g[WEIGHT], g[CHANGE])
    elif at[0] == LIKELIEST:
        _most_likely_of_row(p, r, own, rate, b, t)
    elif at[0] == EXPONENTS:
        _exponents_of_row(p, r, s, q, own, g[TAU], t)
    elif at[0] == IDEAL:
        _ideal_of_row(p, s, q, g[LOG], g[MASS])
        if at[2]:
            exponentiated(p, s, q)
            t[0] = total_of(q)
    elif at[0] == SCALE:
        _scale(q, 1.0 / g[MASS])
