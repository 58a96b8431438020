r"""The scalar equation behind every update: s + λ (e^s − 1) = d.

All updates of this package satisfy, action by action, log ρ + λρ = target with ρ = e^s the ratio to the current
policy and one λ ≥ 0 per context (λ = 0 for the KL update). Writing e^s − 1 instead of e^s keeps small updates exact:
d = 0 gives s = 0. The solution is

.. math:: s = d + λ − ω(\log λ + λ + d), \qquad ω(z) = W_0(e^z) \text{ (Wright omega)},

and is found by a third-order Householder iteration, from a rational fit of ω or from a nearby solution.
"""

from math import factorial

import numpy as np

_SERIES = [1 / factorial(k) for k in range(2, 12)]


def excess(s, expm1_s):
    """e^s − 1 − s ≥ 0 with full relative accuracy; `expm1_s` is np.expm1(s)."""
    result = np.asarray(expm1_s - s)
    small = np.abs(s) < 0.1
    near = s[small]
    result[small] = near * near * np.polynomial.polynomial.polyval(near, _SERIES)
    return result


def log_ratio(d, weight, start=None):
    """Solve s + λ (e^s − 1) = d for s.

    Parameters
    ----------
    d : ndarray, shape (N, K)
        Targets, in 64 or 32 bits, as the others.
    weight : ndarray, shape (N, 1)
        λ ≥ 0 of each row; slightly negative ones need a `start`.
    start : ndarray, shape (N, K), optional
        A nearby solution; without it the iteration starts from the fit, and one step is enough.

    Returns
    -------
    s, expm1_s : ndarray, shape (N, K)
        The solution and e^s − 1.
    """
    precision = np.finfo(d.dtype).eps
    largest = 709.7 if d.dtype == np.float64 else 88.7  # e^s overflows beyond; p e^s is above 1 there for any normal p
    with np.errstate(all="ignore"):  # a start too far away may overflow; then the next one is used
        cancels = weight.max(initial=0.0) > 1e6  # λ (e^s − 1) − d, where d is close to −λ
        for s in (start, None):
            s = _start(d, weight) if s is None else s
            for iteration in range(6):
                growth = np.expm1(s if s.max(initial=0.0) <= largest else np.minimum(s, largest))
                gained = weight * growth
                slope = gained + (1 + weight)
                newton = (gained + s - d) / slope
                if cancels:
                    u = weight * np.exp(np.minimum(s, largest))
                    slope = 1 + u
                    newton = np.where(s < -1, s + u - (d + weight), gained + s - d) / slope
                bend = newton - newton / slope
                step = newton * (1 - bend / 2) / (1 - bend * (1 - newton / 6))
                if iteration > 1:  # huge d and λ leave s uncertain by their rounding: do not chase it
                    noise = 5 * precision * (np.abs(d) + weight) / slope
                    step = np.where((np.abs(step) <= noise) | (s > largest), 0.0, step)
                s = s - step
                if max(step.max(initial=0.0), -step.min(initial=0.0)) < precision**0.25:  # of fourth order: s is exact
                    return s, growth + (1 + growth) * (step * (step * (0.5 - step / 6) - 1))
    raise FloatingPointError("s + weight * (exp(s) - 1) = d did not converge; please report the arguments.")


def _start(d, weight):
    """The solution within 4e-5: a rational fit of W(x) for x = e^z ≤ e; above, one of ω and a Newton step in log ω."""
    log_weight = np.log(weight)
    z = (d + weight) + log_weight
    one = np.ones_like(z)  # comparing with an array, NumPy is several times as fast as with a number
    x = np.exp(np.minimum(z, one))
    omega = x * (1 + x * (1.67666 + 0.351145 * x)) / (1 + x * (2.67666 + x * (1.53565 + 0.126332 * x)))
    s = d + weight - omega
    if z.max(initial=0.0) > 1:
        large = z > 1
        z = np.maximum(z, one)
        omega = z - 4.21463 * ((z - 1) / (z + 7.82567))
        log_omega = np.log(omega)
        np.copyto(s, log_omega + (z - log_omega - omega) / (1 + omega) - log_weight, where=large)
    return s
