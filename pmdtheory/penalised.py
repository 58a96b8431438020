r"""Mirror descent steps with a penalty of one's own beside the KL one.

With a convex f, f' = φ in reward units, and V, C the numbers that make q sum to 1:

.. math::

    \text{fixed:}\quad & \max_q E_q[r] − τ KL(q‖p) − E_p[f(ρ)], & τ s + φ(ρ) &= r − V \\
    \text{adaptive:}\quad & E_p[w(ρ)(r − \bar r − τ s)^2],\ w = ρ/φ(ρ) \text{ stopped}, & τ s + C φ(ρ) &= r − \bar r

φ = κρ is `pmdtheory.mixed_update`, and φ = ρ, adaptive, PMD-mean: the second line is what a loss with stopped
importance weights w leads to. Both move less than the KL update in likelihood-ratio order, hence in every f-divergence,
and gain at least τ KL(q‖p) (Statement 19).

References
----------
Statements 3 and 19.
"""

import numpy as np
from scipy.optimize import elementwise

from . import simplex
from .updates import Update, centred_targets

__all__ = ["penalised_update"]

_LARGEST = 700.0  # of a logarithm, so that ρ and φ stay finite


def penalised_update(policy, reward, tau, derivative, adaptive=False):
    """Return the update with a penalty f of the ratio.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.kl_update`.
    derivative : callable
        φ = f' of an array of ratios ρ > 0, elementwise, nondecreasing, reward units.
    adaptive : bool
        Whether φ, then positive and in any units, is scaled by the C that makes r̄ the baseline.

    Returns
    -------
    pmdtheory.Update
        With ``baseline`` V or r̄, and ``chi2_weight`` 1/τ or C/τ: what stands before φ in s + (…) φ(ρ) = (r − V)/τ.

    Raises
    ------
    ValueError
        Also if φ is not such a function.

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
    D = np.where(p > 0, centred_targets(p, r, tau)[0], 0.0).reshape(-1, K)
    flat, t = p.reshape(-1, K), tau.reshape(-1)
    mean = np.einsum("nk,nk->n", flat, np.broadcast_to(r, p.shape).reshape(-1, K))
    unit = float(phi(np.ones(1))[0]) / t
    top = D.max(axis=1, where=flat > 0, initial=0.0)

    def log_ratios(x, rows):
        """s at the shift or coefficient x of these contexts."""
        level, scale = (D[rows], x[:, None]) if adaptive else (D[rows] - x[:, None], 1.0)
        return _solve(level, scale, t[rows, None], phi)

    def surplus(x, rows):
        """Logarithm of the mass, which falls in x."""
        rows = np.asarray(rows, dtype=int)
        s = log_ratios(x, rows)
        with np.errstate(divide="ignore"):
            logs = np.log(flat[rows]) + s
        highest = logs.max(axis=1)
        return highest + np.log(np.exp(logs - highest[:, None]).sum(axis=1))

    if adaptive:
        low, high = np.zeros(len(t)), top / unit
    else:
        low, high = D.min(axis=1, where=flat > 0, initial=0.0) - unit, top - unit
    margin = 1e-9 * (1 + np.abs(low) + np.abs(high))
    low, high = (low if adaptive else low - margin), high + margin
    moves = top > 0
    x = np.where(moves, low, 0.0 if adaptive else -unit)
    if moves.any():
        rows = np.flatnonzero(moves)
        found = elementwise.find_root(surplus, (low[rows], high[rows]), args=(rows,), maxiter=500)
        x[rows] = np.where(found.success, found.x, low[rows])  # no change of sign: a policy that does not move
    s = np.where(flat > 0, log_ratios(x, np.arange(len(t))), 0.0)
    s[~moves] = 0.0
    with np.errstate(under="ignore"):
        q = flat * np.exp(s)
    total = q.sum(axis=1, keepdims=True)
    q, s = q / total, np.where(flat > 0, s - np.log(total), 0.0)
    weight = x / t if adaptive else 1 / t
    baseline = mean if adaptive else mean + t * x
    return Update(q.reshape(p.shape), s.reshape(p.shape), weight.reshape(shape), baseline.reshape(shape),
                  np.zeros(shape, dtype=bool))  # fmt: skip


def _solve(level, scale, tau, phi):
    """s with s + scale φ(e^s)/τ = level, (N, K): between 0 and where φ stays at φ(1)."""
    far = level - scale * phi(np.ones(1))[0] / tau
    edge = 1e-9 * (1 + np.abs(far))
    low, high = np.minimum(far, 0.0) - edge, np.maximum(far, 0.0) + edge

    def excess(s, level, weight):
        return s + weight * phi(np.exp(np.clip(s, -_LARGEST, _LARGEST))) - level

    weight = np.broadcast_to(scale / tau, level.shape)
    return elementwise.find_root(excess, (low, high), args=(level, weight), maxiter=500).x


def _checked(derivative, adaptive):
    """The function, after a look at its values from e^-30 to e^30."""
    grid = np.exp(np.linspace(-30, 30, 241))
    with np.errstate(all="ignore"):
        values = np.asarray(derivative(grid), dtype=float)
    if values.shape != grid.shape:
        raise ValueError(f"derivative must map an array of ratios to one of the same shape, got {values.shape}.")
    if not np.all(np.isfinite(values)) or np.any(np.diff(values) < -1e-12 * np.abs(values[1:])):
        raise ValueError("derivative must be finite and nondecreasing in the ratio, as of a convex penalty.")
    if adaptive and not np.all(values > 0):
        raise ValueError("derivative must be positive where it is adaptive: ρ/φ(ρ) is a weight.")

    def phi(rho):
        with np.errstate(over="ignore"):
            return np.nan_to_num(np.asarray(derivative(rho), dtype=float), posinf=1e300, neginf=-1e300)

    return phi
