r"""Baselines above τ log Z: the principal-branch stationary point (Statement 11).

With targets Δ = D − c and c above log E_p[e^D] the constraint E_p[e^s] = 1 asks for more mass than e^Δ has, so
λ < 0 in s + λ e^s = Δ. On the principal branch U = −λ e^s lies in (0, 1] and satisfies U − log U = 1 + t, with
t = t₀ + (max Δ − Δ) and t₀ ≥ 0 the one unknown of the context. The constraint then reads

.. math:: G(t₀) = \log E_p[e^s] = \log E_p[e^{D + U}] − c = 0,

G decreasing from c_max − c at t₀ = 0 to log E_p[e^D] − c < 0, so a root exists iff c ≤ c_max. Working with
y = √(2 t₀) removes the square-root singularity at the branch point U = 1.
"""

import numpy as np

from . import roots
from .partition import log_mean_exp

# Y = 1 − U as a series in y = √(2t), from Y²/2 + Y³/3 + Y⁴/4 + … = y²/2.
_SERIES = [0, 1, -1 / 3, 1 / 36, 1 / 270, 1 / 4320, -1 / 17010, -139 / 5443200, -1 / 204120, -571 / 2351462400]


def principal_branch(t):
    """Solve U − log U = 1 + t for U in (0, 1], t ≥ 0; U = −W₀(−e^{−1−t}).

    Returns U and Y = 1 − U, each with full relative accuracy, also near the branch point t = 0 (U = 1).
    """
    near, far = np.minimum(t, 0.02), np.maximum(t, 0.02)
    y = np.polynomial.polynomial.polyval(np.sqrt(2 * near), _SERIES)
    large = np.maximum(y, 0.02)  # below, the series is exact, and Newton's residual would cancel
    y = np.where(y > 0.02, y + (np.log1p(-large) + large + near) * (1 - large) / large, y)
    log_u = -1 - far
    for _ in range(8):  # monotone, quadratic; at t = 0.02 six suffice
        log_u = log_u - (log_u - np.exp(log_u) + 1 + far) / -np.expm1(log_u)
    return np.where(t < 0.02, 1 - y, np.exp(log_u)), np.where(t < 0.02, y, -np.expm1(log_u))


def _below_top(p, D):
    top = D.max(axis=-1, where=p > 0, initial=-np.inf)
    return top, np.where(p > 0, top[:, None] - D, 0.0)


def largest_shift(p, D):
    """The largest c for which D − c has a principal-branch solution, shape (N,), from p and D of shape (N, K)."""
    _, below = _below_top(p, D)
    U, _ = principal_branch(below)
    return log_mean_exp(p, D + U)


def solve(p, target, levels):
    """Principal-branch log-ratios for log E_p[e^Δ] < 0 ≤ `largest_shift(p, Δ)`.

    Parameters
    ----------
    p, target : ndarray, shape (N, K)
        Policies, and targets Δ = D − c.
    levels : ndarray, shape (N, K)
        Targets up to a number per row, whose differences count near the branch point: D, or Δ where that is better.

    Returns
    -------
    s : ndarray, shape (N, K)
        Log-ratios.
    weight : ndarray, shape (N,)
        λ < 0.
    """
    top, _ = _below_top(p, target)
    _, below = _below_top(p, levels)
    with np.errstate(divide="ignore"):
        log_p = np.log(p)

    def at(rows, y):
        U, Y = principal_branch(y[:, None] ** 2 / 2 + below[rows])
        return target[rows] + U, U, Y

    def propose(rows, y):
        s, U, Y = at(rows, y)
        value = log_mean_exp(p[rows], s)
        q = np.exp(log_p[rows] + s - value[:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            return value, y + value / (y * (q * U / Y).sum(axis=-1))

    N = len(p)
    y = roots.find(propose, np.ones(N), np.zeros(N), np.full(N, 38.0), floor=1e-4)
    s, *_ = at(np.arange(N), y)
    return s - log_mean_exp(p, s)[:, None], -np.exp(-1 - y * y / 2 - top)
