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
    near = np.clip(s, -0.1, 0.1)
    return np.where(np.abs(s) < 0.1, near * near * np.polynomial.polynomial.polyval(near, _SERIES), expm1_s - s)


def log_ratio(d, weight, start=None):
    """Solve s + λ (e^s − 1) = d for s.

    Parameters
    ----------
    d : ndarray, shape (N, K)
        Targets.
    weight : ndarray, shape (N, 1)
        λ ≥ 0 of each row; slightly negative ones need a `start`.
    start : ndarray, shape (N, K), optional
        A nearby solution; without it the iteration starts from the fit, and one step is enough.

    Returns
    -------
    s, expm1_s : ndarray, shape (N, K)
        The solution and e^s − 1.
    """
    with np.errstate(all="ignore"):  # a start too far away may overflow; then the next one is used
        cancels = weight.max(initial=0.0) > 1e6  # λ (e^s − 1) − d, where d is close to −λ
        for s in (start, None):
            s = _start(d, weight) if s is None else s
            for iteration in range(6):
                growth = np.expm1(np.minimum(s, 709.7))  # e^s overflows beyond; p e^s is above 1 there for any normal p
                u = weight * (growth + 1)
                residual = s + weight * growth - d
                if cancels:
                    rho = np.exp(np.minimum(s, 709.7))
                    u = weight * rho
                    residual = np.where(s < -1, s + u - (d + weight), residual)
                newton = residual / (1 + u)
                bend = newton * u / (1 + u)
                step = newton * (1 - bend / 2) / (1 - bend + newton * bend / 6)
                if iteration > 1:  # huge d and λ leave s uncertain by their rounding: do not chase it
                    noise = 1e-15 * (np.abs(d) + weight) / (1 + u)
                    step = np.where((np.abs(step) <= noise) | (s > 709.7), 0.0, step)
                s = s - step
                if np.all(np.abs(step) < 1e-4):  # fourth-order convergence: s is exact
                    shrink = -step * (1 - step / 2 * (1 - step / 3))
                    return s, growth + (1 + growth) * shrink
    raise FloatingPointError("s + weight * (exp(s) - 1) = d did not converge; please report the arguments.")


def _start(d, weight):
    """The solution within 4e-5: a rational fit of W(x) for x = e^z ≤ e; above, one of ω and a Newton step in log ω."""
    log_weight = np.log(weight)
    z = (d + weight) + log_weight
    x = np.exp(np.minimum(z, 1.0))
    omega = x * (1 + x * (1.67666 + 0.351145 * x)) / (1 + x * (2.67666 + x * (1.53565 + 0.126332 * x)))
    low = d + weight - omega
    if not (large := z > 1).any():
        return low
    z = np.maximum(z, 1.0)
    omega = z - 4.21463 * ((z - 1) / (z + 7.82567))
    log_omega = np.log(omega)
    return np.where(large, log_omega + (z - log_omega - omega) / (1 + omega) - log_weight, low)
