r"""Mirror descent steps with a penalty of one's own beside the KL one.

With a convex f, f' = φ in reward units, and V, C the numbers that make q sum to 1:

.. math::

    \text{fixed:}\quad & \max_q E_q[r] − τ KL(q‖p) − E_p[f(ρ)], & τ s + φ(ρ) &= r − V \\
    \text{adaptive:}\quad & E_p[w(ρ)(r − \bar r − τ s)^2],\ w = ρ/φ(ρ) \text{ stopped}, & τ s + C φ(ρ) &= r − \bar r

φ = κρ is `pmdtheory.mixed_update`, and φ = ρ, adaptive, PMD-mean: the second line is what a loss with stopped
importance weights w leads to. Both move less than the KL update in likelihood-ratio order, hence in every f-divergence,
and gain at least τ KL(q‖p) (Statement 19). Where φ jumps the law holds with a value within the jump.

q is accurate to rounding of 1, not of itself: an action whose mass stays below 1e-16 is only known to.

References
----------
Statements 3 and 19.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import elementwise

from . import partition, simplex
from .updates import Update, centred_targets

__all__ = ["penalised_update"]

_GRID = np.exp(np.linspace(-700, 700, 5601))
_FEW = np.arange(2700, 2900, 10).reshape(4, 5)  # around 1, as an array of two dimensions
_SEEN = np.abs(np.log(_GRID)) <= 30 + 1e-9  # ratios at which a derivative has to be a number or infinite


def penalised_update(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, derivative: Callable[..., Any], adaptive: bool = False
) -> Update:
    """Return the update with a penalty f of the ratio.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.kl_update`.
    derivative : callable
        φ = f' of an array of ratios ρ > 0 of any shape, elementwise, nondecreasing, reward units. It may overflow;
        where that leaves no number it is held constant.
    adaptive : bool
        Whether φ, then positive and in any units, is scaled by the C that makes r̄ the baseline.

    Returns
    -------
    pmdtheory.Update
        With ``baseline`` V or r̄, and ``chi2_weight`` 1/τ or C/τ: what stands before φ in s + (…) φ(ρ) = (r − V)/τ.

    Raises
    ------
    ValueError
        Also if φ is not such a function, or the problem is too extreme for it.

    Examples
    --------
    KL(p‖q)/2, that is f = −log(ρ)/2; and PMD-mean:

    >>> penalised_update([0.5, 0.5], [0.0, 1.0], 1.0, lambda rho: -0.5 / rho).policy.round(4)
    array([0.3428, 0.6572])
    >>> penalised_update([0.5, 0.5], [0.0, 1.0], 1.0, lambda rho: rho, adaptive=True).policy.round(4)
    array([0.2862, 0.7138])
    """
    p, r, tau = simplex.problem(policy, reward, tau)
    phi = _checked(derivative, adaptive)
    shape, K = p.shape[:-1], p.shape[-1]
    D, own, m = centred_targets(p, r, tau)
    flat, D, t, mean = p.reshape(-1, K), D.reshape(-1, K), tau.reshape(-1), (own + tau * m).reshape(-1)
    unit = float(phi(np.zeros(1))[0])  # φ(1): where it is fixed, V takes it up
    top = D.max(axis=1, where=flat > 0, initial=0.0)

    def log_ratios(x, rows):
        """s at the shift or coefficient x of these contexts."""
        level, scale = (D[rows], x[:, None]) if adaptive else (D[rows] - x[:, None], 1.0)
        return _solve(level, scale, t[rows, None], phi if adaptive else lambda s: phi(s) - unit)

    def surplus(x, rows):
        """Logarithm of the mass, which falls in x."""
        rows = np.asarray(rows, dtype=int)
        return partition.log_mean_exp(flat[rows], log_ratios(x, rows))

    if adaptive:
        low, high = np.zeros(len(t)), top * t / unit
    else:
        low, high = D.min(axis=1, where=flat > 0, initial=0.0), top
    margin = 1e-9 * (1 + np.abs(low) + np.abs(high))
    low, high = (low if adaptive else low - margin), high + margin
    moves = top > 0
    x = np.where(moves, low, 0.0)
    if moves.any():
        rows = np.flatnonzero(moves)
        exact = {"fatol": 2e-16}
        found = elementwise.find_root(surplus, (low[rows], high[rows]), args=(rows,), maxiter=500, tolerances=exact)
        x[rows] = np.where(found.success, found.x, low[rows])  # no change of sign if a policy hardly moves
    s = np.where(flat > 0, log_ratios(x, np.arange(len(t))), 0.0)
    s[~moves] = 0.0
    with np.errstate(all="ignore"):
        q = flat * np.exp(s)
        total = q.sum(axis=1, keepdims=True)
        wrong = np.flatnonzero(~(np.abs(total[:, 0] - 1) < 1e-9))
    if wrong.size:
        index = tuple(int(i) for i in np.unravel_index(wrong[0], shape)) if shape else ()
        raise ValueError(
            "policy, reward / tau and derivative must be less extreme: a policy with this penalty was not found"
            f"{f' at index {index}' if index else ''}."
        )
    q, s = q / total, np.where(flat > 0, s - np.log(total), 0.0)
    weight = x / t if adaptive else 1 / t
    baseline = mean if adaptive else mean + t * x - unit
    return Update(q.reshape(p.shape), s.reshape(p.shape), weight.reshape(shape), baseline.reshape(shape),
                  np.zeros(shape, dtype=bool))  # fmt: skip


def _solve(level, scale, tau, phi):
    """s with s + scale φ(e^s)/τ = level, (N, K): between 0 and where φ stays at φ(1)."""
    far = level - scale * phi(np.zeros(1))[0] / tau
    edge = 1e-9 * (1 + np.abs(far))
    low, high = np.minimum(far, 0.0) - edge, np.maximum(far, 0.0) + edge

    def excess(s, level, weight):
        with np.errstate(over="ignore"):
            return s + weight * phi(s) - level

    weight = np.broadcast_to(scale / tau, level.shape)
    return elementwise.find_root(excess, (low, high), args=(level, weight), maxiter=500).x


def _checked(derivative, adaptive):
    """φ as a function of s = log ρ, after a look at its values."""
    accepted = "derivative must be a function that maps an array of ratios, of any shape, to their φ, elementwise"
    if not callable(derivative):
        raise ValueError(f"{accepted}, got {derivative!r}.")
    try:
        with np.errstate(all="ignore"):
            values, few = np.asarray(derivative(_GRID.copy())), np.asarray(derivative(_GRID[_FEW]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{accepted}: {error}.") from None
    if values.dtype.kind not in "biuf" or values.shape != _GRID.shape or few.shape != _FEW.shape:
        raise ValueError(f"{accepted}; of {_GRID.shape} numbers it made {values.shape} of type {values.dtype}.")
    values = values.astype(float)
    if not np.allclose(few.astype(float), values[_FEW].astype(float), rtol=1e-9, atol=0, equal_nan=True):
        raise ValueError(f"{accepted}: its values depend on the other ratios of the array.")
    good = np.flatnonzero(np.isfinite(values))
    falls = np.any(np.diff(values[good]) < -1e-12 * np.abs(values[good[1:]])) if good.size else True
    if falls or np.isnan(values[_SEEN]).any() or not np.isfinite(values[_GRID.size // 2]):
        raise ValueError("derivative must be a number and nondecreasing for ratios from e^-30 to e^30, finite at 1.")
    if adaptive and not np.all(values[_SEEN] > 0):
        raise ValueError("derivative must be positive where it is adaptive: ρ/φ(ρ) is a weight.")
    low, high = np.log(_GRID[good[0]]), np.log(_GRID[good[-1]])

    def phi(s):
        with np.errstate(all="ignore"):
            return np.asarray(derivative(np.exp(np.clip(s, low, high))), dtype=float)

    return phi
