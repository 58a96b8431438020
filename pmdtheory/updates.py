r"""Exact one-context updates of policy mirror descent, fast and to rounding error.

One context has a policy p over K actions, rewards r, a temperature τ. Every update q = p e^s solves

.. math:: s + λ e^s = (r − b)/τ, \qquad E_p[e^s] = 1,

and the updates differ in which of the χ² weight λ and the baseline b is given:

====================  =====================  ==========================================================
``kl_update``         λ = 0                  max E_q[r] − τ KL(q‖p); then b = τ log Z
``mixed_update``      λ = κ/τ                max E_q[r] − τ KL(q‖p) − (κ/2) χ²(q‖p)
``pmd_mean_update``   b = E_p[r]             Kimi's regression; s = Δ − ω(log λ + Δ), Δ = (r − b)/τ
``baseline_update``   b given                one knob from frozen (b → −∞) to ideal (b = τ log Z)
====================  =====================  ==========================================================

How the root is found is told in ``solver.py``. Where Numba is installed (``pip install pmdtheory[fast]``) the updates
run compiled, several times as fast, large problems on OMP_NUM_THREADS threads; NumPy then does only what
``compiled/`` leaves to it, and everything if ``PMDTHEORY_COMPILED=0`` is in the environment. The very first call
compiles, for about half a minute; the result is kept on disk, and loaded in half a second by later processes.

Rewards of the support that differ by rounding only, 1e-15 of
themselves, count as equal, and a baseline within rounding of such a reward as equal to it: then nothing moves, λ = 0.

References
----------
Xu, Lu, Yu, Zhao, arXiv 2602.05933; Kimi k1.5, arXiv 2501.12599, eq. 3. Statements 1–3, 10 and 11 of
``pmdtheory/theorems/README.md``.
"""

import contextlib
import functools
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import blocks, overestimated, partition, simplex, solver

__all__ = ["Update", "baseline_update", "kl_update", "largest_baseline", "mixed_update", "pmd_mean_update"]


@dataclass(frozen=True)
class Update:
    """One step of policy mirror descent, for a batch of contexts.

    Attributes
    ----------
    policy : ndarray, shape (..., K)
        The updated policy q; zero wherever the current policy p is.
    log_ratio : ndarray, shape (..., K)
        s = log(q/p); 0 where p = 0.
    chi2_weight : ndarray, shape (...)
        λ in s + λ e^s = (r − b)/τ, dimensionless. 0 for the KL update, κ/τ for the mixed one.
    baseline : ndarray, shape (...)
        b in the same equation, reward units. τ log Z for the KL update, E_p[r] for PMD-mean.
    local : ndarray of bool, shape (...)
        True where λ < 0 (a baseline above τ log Z): q is then only a local minimum of the regression (strict below the
        largest baseline, Statement 11).
    certificate : object or None
        Set by ``pmdtheory.convex``: how far the solver's own primal and dual solutions are from optimal.
    """

    policy: np.ndarray
    log_ratio: np.ndarray
    chi2_weight: np.ndarray
    baseline: np.ndarray
    local: np.ndarray
    certificate: Any = None


def _in_blocks(update):
    """The update, run on blocks of contexts."""

    def of_rows(*block):
        found = update(*block)
        return found.policy, found.log_ratio, found.chi2_weight, found.baseline

    @functools.wraps(update)
    def of_batch(p, r, *per_context):
        try:
            return _shaped(p.shape, *blocks.of_rows(of_rows, *_rows(p, r, *per_context)))
        except ValueError:
            update(p, r, *per_context)  # says the same of the right index
            raise

    return of_batch


def _of_levels(update):
    """The update, of one action for each level of the reward if no context has more than two (binary rewards)."""

    def spread(p, r, high, s):
        s = np.where(r == high[:, None], s[:, 1:], s[:, :1])
        np.copyto(s, 0.0, where=p == 0)
        return normalised(p, s), s

    @functools.wraps(update)
    def of_batch(p, r, *per_context):
        flat_p, flat_r = _rows(p, r)
        if p.shape[-1] > 2 and p.size and len(np.unique(flat_r[0, :64][flat_p[0, :64] > 0])) <= 2:
            mass, levels, two = blocks.of_rows(_levels, flat_p, flat_r)
            if two.all():
                found = update(*(x.reshape(*p.shape[:-1], 2) for x in (mass, levels)), *per_context)
                q, s = blocks.of_rows(spread, flat_p, flat_r, levels[:, 1], found.log_ratio.reshape(-1, 2))
                return _shaped(p.shape, q, s, found.chi2_weight, found.baseline)
        return update(p, r, *per_context)

    return of_batch


def _levels(p, r):
    """Mass and reward of the lowest and the highest level of the reward, (n, 2), and whether there are no others."""
    high = np.where(p > 0, r, -np.inf).max(axis=-1, keepdims=True)
    low = np.where(p > 0, r, np.inf).min(axis=-1, keepdims=True)
    is_high = r == high
    two = (is_high | (r == low) | (p == 0)).all(axis=-1)
    mass = np.stack([(p * ~is_high).sum(axis=-1), (p * is_high).sum(axis=-1)], axis=-1)
    return mass, np.concatenate([low, high], axis=-1), two


def kl_update(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Update:
    r"""Ideal update: argmax_q E_q[r] − τ KL(q‖p), that is q ∝ p e^{r/τ}.

    Parameters
    ----------
    policy : array_like, shape (..., K)
        Current policy p; rows sum to 1, zeros allowed.
    reward : array_like, shape (..., K)
        Reward of each action, finite.
    tau : array_like, shape (...)
        Temperature, positive, reward units. All three broadcast.

    Returns
    -------
    Update
        With ``chi2_weight`` 0 and ``baseline`` τ log E_p[e^{r/τ}].

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    References
    ----------
    Statement 1.

    Examples
    --------
    >>> kl_update([0.5, 0.5], [0.0, 1.0], tau=1.0).policy.round(4)
    array([0.2689, 0.7311])
    """
    return _of_any("kl", _kl, policy, reward, tau)


@_in_blocks
def _kl(p, r, tau):
    with np.errstate(divide="ignore"):
        logits = np.log(p)
    x = r - r.max(axis=-1, keepdims=True)
    x /= tau[..., None]
    logits += x
    # Measured from the mode of q, differences of rewards lose nothing where q has its mass.
    s, mode = _measured_from(p, r, np.argmax(logits, axis=-1), tau, out=x)
    q = _times_exp(p, s, out=logits)
    mass = q.sum(axis=-1)
    log_z = np.log(mass)
    near, tiny = np.abs(mass - 1) < 0.5, mass < 1e-10  # small log Z, and terms that may be denormal
    if (again := near | tiny).any():
        log_z[again] = partition.log_mean_exp(p[again], s[again])
    s -= log_z[..., None]
    np.copyto(s, 0.0, where=p == 0)
    q = normalised(p, s) if tiny.any() else np.divide(q, mass[..., None], out=q)
    return Update(q, s, np.zeros(tau.shape), mode + tau * log_z, np.zeros(tau.shape, dtype=bool))


def pmd_mean_update(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Update:
    r"""PMD-mean: regress log(q/p) on (r − E_p[r])/τ over normalised policies.

    Solves min_q E_p[½ (log(q/p) − Δ)²] with Δ = (r − E_p[r])/τ, equivalently
    max_q E_q[r] − τ KL(q‖p) − (τλ/2) χ²(q‖p) with λ = KL(p‖q) found together with q.

    Parameters
    ----------
    policy, reward, tau
        As in `kl_update`.

    Returns
    -------
    Update
        With ``baseline`` E_p[r] and ``chi2_weight`` λ = KL(p‖q) ≥ 0, zero iff the reward is constant on the support.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    References
    ----------
    Statements 2–9; arXiv 2602.05933.

    Examples
    --------
    >>> update = pmd_mean_update([0.5, 0.5], [0.0, 1.0], tau=1.0)
    >>> update.policy.round(4), update.chi2_weight.round(4)
    (array([0.2862, 0.7138]), np.float64(0.1009))
    """
    return _of_any("pmd_mean", _pmd_mean, policy, reward, tau)


@_of_levels
@_in_blocks
def _pmd_mean(p, r, tau):
    D, top, m = centred_targets(p, r, tau)
    with _failure_named(p, r, tau):
        s, weight = solver.with_shift(*_rows(p, D, np.zeros(tau.shape)))
        return _update(p, s, weight, top + tau * m)


def baseline_update(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Update:
    r"""Regress log(q/p) on (r − b)/τ over normalised policies, for any baseline b.

    b = E_p[r] is PMD-mean, b = τ log Z the KL update, b → −∞ leaves the policy where it is. Above τ log Z
    the problem is not convex: the stationary point on the principal branch is returned, marked ``local``.

    Parameters
    ----------
    policy, reward, tau
        As in `kl_update`.
    baseline : array_like, shape (...)
        b, finite, reward units.

    Returns
    -------
    Update
        With λ = KL(p‖q) + (E_p[r] − b)/τ.

    Raises
    ------
    ValueError
        If an argument is not as described, or b exceeds the largest baseline with a principal-branch solution
        (the message gives it).

    References
    ----------
    Statements 10 and 11.

    Examples
    --------
    >>> baseline_update([0.5, 0.5], [0.0, 1.0], tau=1.0, baseline=0.0).policy.round(4)
    array([0.3425, 0.6575])
    """
    return _of_any("with_baseline", _with_baseline, policy, reward, tau, baseline=baseline)


@_of_levels
@_in_blocks
def _with_baseline(p, r, tau, b):
    D, top, m = centred_targets(p, r, tau)
    same = ~D.any(axis=-1) & simplex.equal_up_to_rounding(b, top)
    with np.errstate(over="ignore"):
        shift = np.where(same, 0.0, (b - top) / tau - m)
        simplex.finite(shift, "(baseline - reward) / tau")
        target = np.where(p > 0, (r - b[..., None]) / tau[..., None], 0.0) if shift.max(initial=0.0) > 1 else D
        rounding = 4e-16 * (np.abs(b - top) / tau + np.abs(m))
    try:
        with _failure_named(p, r, tau):
            s, weight = solver.with_shift(*_rows(p, D, shift, target, rounding))
            return _update(p, s, weight, b.copy())
    except solver.BeyondPrincipalBranchError as error:
        index = np.unravel_index(error.index, tau.shape)
        largest = _below(top[index] + tau[index] * (m[index] + error.largest))
        where = f" at index {tuple(int(i) for i in index)}" if index else ""
        raise ValueError(
            f"baseline must be at most {float(largest)} for a principal-branch solution to exist (Statement 11), "
            f"got {b[index]}{where}; any baseline up to tau * log Z is solvable."
        ) from None


def largest_baseline(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> np.ndarray:
    r"""The largest baseline with a principal-branch solution, b_max ≥ τ log Z.

    .. math:: b_\max = r_\max + τ (1 + \log E_p[-W_0(-e^{-1-(r_\max-r)/τ})])

    Parameters
    ----------
    policy, reward, tau
        As in `kl_update`.

    Returns
    -------
    ndarray, shape (...)
        b_max, reward units.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    References
    ----------
    Statement 11.

    Examples
    --------
    >>> largest_baseline([0.001, 0.999], [0.0, 1.0], tau=1.0).round(4)
    np.float64(1.9992)
    """
    p, r, tau = simplex.problem(policy, reward, tau)
    D, top, m = centred_targets(p, r, tau)
    return _below(top + tau * (m + overestimated.largest_shift(*_rows(p, D)).reshape(tau.shape)))


def mixed_update(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, chi2_coef: ArrayLike) -> Update:
    r"""Mixed update: argmax_q E_q[r] − τ KL(q‖p) − (κ/2) χ²(q‖p).

    Parameters
    ----------
    policy, reward, tau
        As in `kl_update`.
    chi2_coef : array_like, shape (...)
        κ ≥ 0, reward units; 0 is the KL update.

    Returns
    -------
    Update
        With ``chi2_weight`` κ/τ and ``baseline`` the normalising b.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    References
    ----------
    Statement 3.

    Examples
    --------
    >>> mixed_update([0.5, 0.5], [0.0, 1.0], tau=1.0, chi2_coef=0.1009).policy.round(4)
    array([0.2862, 0.7138])
    """
    simplex.nonnegative(chi2_coef, "chi2_coef")
    p, r, tau, kappa = simplex.problem(policy, reward, tau, chi2_coef=chi2_coef)
    with np.errstate(over="ignore"):
        a = simplex.finite(kappa / tau, "chi2_coef / tau")
    return _fastest("mixed", _mixed, p, r, tau, a)


@_of_levels
@_in_blocks
def _mixed(p, r, tau, a):
    D, top, m = centred_targets(p, r, tau)
    p2, r2, D, a, flat_tau = _rows(p, r, D, a, tau)

    def measured_from(rows, actions):
        own = np.take_along_axis(r2[rows], actions[:, None], axis=-1)
        moves = (p2[rows] > 0) & D[rows].any(axis=-1, keepdims=True)
        return np.where(moves, (r2[rows] - own) / flat_tau[rows, None], 0.0)

    with _failure_named(p, r, tau):
        s, v = solver.with_weight(p2, D, a, measured_from)
        return _update(p, s, a, top + tau * (m + (v - a).reshape(tau.shape)))


@functools.cache
def _compiled():
    """The compiled updates; None without a Numba that works, or where PMDTHEORY_COMPILED is 0."""
    if os.environ.get("PMDTHEORY_COMPILED") == "0" or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return None
    try:
        from . import compiled
    except ImportError:
        return None
    return compiled


def _of_any(name, plain, policy, reward, tau, **per_context):
    """The update of arguments as they were given."""
    update = _unchecked(name, plain, policy, reward, tau, *per_context.values())
    return update or _fastest(name, plain, *simplex.problem(policy, reward, tau, **per_context))


def _unchecked(name, plain, *arguments):
    """The update where compiled code finds its arguments beyond doubt, which spares the checks; otherwise None."""
    if (compiled := _compiled()) is None or (problem := simplex.plain_problem(*arguments)) is None:
        return None
    found = getattr(compiled, name)(*map(np.ascontiguousarray, _rows(*problem)), checked=False)
    return None if found[-1] is None else _completed(plain, found, *problem)


def _fastest(name, plain, p, r, *per_context):
    """The compiled update called `name`, and `plain` where that is not there or does not decide."""
    if (compiled := _compiled()) is None or not p.size:
        return plain(p, r, *per_context)
    found = getattr(compiled, name)(*map(np.ascontiguousarray, _rows(p, r, *per_context)))
    return _completed(plain, found, p, r, *per_context)


def _completed(plain, found, p, r, *per_context):
    """The update, of which `plain` does what the compiled one has not done."""
    *found, done = found
    if not done.all():
        if not done.any():
            return plain(p, r, *per_context)
        left = np.flatnonzero(~done)
        try:
            rest = plain(*(x[left] for x in _rows(p, r, *per_context)))
        except ValueError:
            plain(p, r, *per_context)  # says the same of the right index
            raise
        for array, more in zip(found, (rest.policy, rest.log_ratio, rest.chi2_weight, rest.baseline)):
            array[left] = more
    return _shaped(p.shape, *found)


def _shaped(shape, q, s, weight, baseline):
    """The update of contexts that were laid in a row."""
    weight = weight.reshape(shape[:-1])
    q, s = (np.ascontiguousarray(x).reshape(shape) for x in (q, s))
    return Update(q, s, weight, baseline.reshape(shape[:-1]), weight < 0)


@contextlib.contextmanager
def _failure_named(p, r, tau):
    """If a solver fails at the limits of floating-point numbers, say which argument is at them."""
    try:
        yield
    except FloatingPointError:
        tiny = np.finfo(float).tiny
        smallest, spread = p.min(where=p > 0, initial=1.0), (r.max(axis=-1) - r.min(axis=-1)) / tau
        if smallest < tiny:
            problem = f"policy must have no probability between 0 and {tiny} here, got {smallest}: set it to 0."
        elif spread.max() > 1e15:
            problem = f"tau must be at least 1e-15 of the reward range here, got {tau.flat[spread.argmax()]}."
        else:
            raise
        raise ValueError(problem) from None


def _below(largest):
    """The next number below, so that rounding does not lift a largest baseline above itself."""
    return np.nextafter(largest, -np.inf)


def centred_targets(p, r, tau):
    """D = (r − E_p[r])/τ (0 where p = 0), the reward r₀ of the most probable action, and m = (E_p[r] − r₀)/τ.

    Measured from r₀, D and m keep their relative accuracy when p is nearly one-hot.
    """
    D, top = _measured_from(p, r, np.argmax(p, axis=-1), tau)
    m = np.einsum("...k,...k->...", p, D)
    D -= m[..., None]
    np.copyto(D, 0.0, where=p == 0)
    return D, top, m


def _measured_from(p, r, action, tau, out=None):
    """(r − r₀)/τ (0 where p = 0, and everywhere if the rewards are equal up to rounding) and r₀, that of `action`."""
    own = np.take_along_axis(r, action[..., None], axis=-1)
    x = np.subtract(r, own, out=out)
    np.copyto(x, 0.0, where=p == 0)
    equal = np.maximum(x.max(axis=-1), -x.min(axis=-1)) <= simplex.EQUAL * np.abs(own[..., 0])
    if equal.any():
        x[equal] = 0.0
    x /= tau[..., None]
    return x, own[..., 0]


def _rows(p, *arrays):
    """Flatten the batch axes: arrays like p to (N, K), the others to (N,)."""
    K = p.shape[-1]
    return p.reshape(-1, K), *(a.reshape(-1, K) if a.ndim == p.ndim else a.reshape(-1) for a in arrays)


def _update(p, s, weight, baseline):
    s = s.reshape(p.shape)
    np.copyto(s, 0.0, where=p == 0)
    weight = weight.reshape(p.shape[:-1])
    return Update(normalised(p, s), s, weight, baseline, weight < 0)


def normalised(p, s):
    """q = p e^s, whose mass must be 1 up to rounding, which is divided away."""
    q = _times_exp(p, s)
    mass = q.sum(axis=-1, keepdims=True)
    if not np.all(np.abs(mass - 1) < 1e-9):
        raise FloatingPointError("the updated policy is not normalised; please report the arguments.")
    q /= mass
    return q


def _times_exp(p, s, out=None):
    """p e^s, also where e^s overflows and that does not."""
    with np.errstate(over="ignore"):
        q = np.exp(s, out=out)
        q *= p
        if s.max(initial=0.0) > 700 and (large := s > 700).any():
            q[large] = np.exp(np.log(p[large]) + s[large])
    return q
