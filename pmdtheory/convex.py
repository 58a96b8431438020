r"""The exact updates again, stated as convex problems for a general solver: the independent reference.

Three problems, none of which knows the closed form of its solution:

====================  ================================================================================
``kl``                max E_q[r] − τ KL(q‖p) over distributions q
``mixed``             max E_q[r] − τ KL(q‖p) − (κ/2) χ²(q‖p) over distributions q
``regression``        min (τ/2) E_p[(s − (r − b)/τ)²] over log-ratios s with E_p[e^s] ≤ 1, b ≤ τ log Z
====================  ================================================================================

What the solver sees is divided by τ, has rewards centred, and has variables in units that keep its curvature
moderate however rare an action is. A batch of contexts is one problem. CVXPY is imported when first used.

Certificates. Let v be the multiplier of the normalisation and let ŝ solve ŝ + λ e^ŝ = (r − b)/τ for the returned λ and
b, which are v up to constants: ŝ optimises the Lagrangian, action by action, so its value there is a bound on
what any policy attains (weak duality). Subtracting it from the value of the returned policy q leaves, in units of τ,

.. math:: \sum_a q \log(q/\hat q) − q + \hat q + (λ/2) E_p[(e^s − e^{\hat s})^2]

for ``kl`` and ``mixed``, where q̂ = p e^ŝ need not sum to 1, and for ``regression``

.. math:: E_p[(s − \hat s)^2]/2 + λ \sum_a \hat q \log(\hat q/q) − \hat q + q.

Both are sums of nonnegative terms, evaluated without cancellation.

References
----------
Statements 1–3, 10 and 11 of ``pmdtheory/theorems/README.md``; Diamond and Boyd, CVXPY, JMLR 17 (2016).
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse, special

from . import simplex
from .updates import Update

__all__ = ["Certificate", "kl", "mixed", "regression"]

_OPTIONS = {
    # Cautious steps, also very short ones: with the default ones about one problem in a hundred jams at the boundary
    # of its cones, short of these tolerances.
    "CLARABEL": {
        "tol_gap_abs": 2e-12,
        "tol_gap_rel": 2e-12,
        "tol_feas": 1e-9,
        "max_iter": 300,
        "max_step_fraction": 0.8,
        "linesearch_backtrack_step": 0.9,
        "min_terminate_step_length": 1e-8,
    },
    "SCS": {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 200_000},
}
_BASELINE_SLACK = 1e-9  # in units of τ: how far above τ log Z a baseline may be by rounding
_TINY = np.finfo(float).tiny


@dataclass(frozen=True)
class Certificate:
    r"""How far a returned update can be from optimal, computed here and not taken from the solver's word.

    Attributes
    ----------
    status : str
        CVXPY's status, ``"optimal"`` or, if accepted, ``"optimal_inaccurate"``.
    solver : str
        The solver's name.
    duality_gap : ndarray, shape (...)
        In reward units. No distribution has an objective better than the returned policy's by more than this,
        rounding aside; the objectives are those of the module's table. It also bounds the distance to the optimal
        policy q*: ``kl`` and ``mixed`` have τ ‖q − q*‖₁² / 2 ≤ gap, ``regression`` has τλ* ‖q − q*‖₁² / 2 ≤ gap, with
        λ* the optimal χ² weight.
    normalisation : ndarray, shape (...)
        \|Σ q − 1\| of the solver's own point, before it was rescaled to sum to 1.
    stationarity : ndarray, shape (...)
        E_q\|s + λ e^s − (r − b)/τ\| of the returned update.
    """

    status: str
    solver: str
    duality_gap: np.ndarray
    normalisation: np.ndarray
    stationarity: np.ndarray


def kl(
    policy: ArrayLike,
    reward: ArrayLike,
    tau: ArrayLike,
    solver: str | None = "CLARABEL",
    accept_inaccurate: bool = False,
    **solver_options: Any,
) -> Update:
    r"""Ideal update by a conic solver: max E_q[r] − τ KL(q‖p).

    With D the centred reward over τ, the loss is Σ q (log q − D − log p). The variables are q in units of p^{1/4}: the
    curvature 1/q lies between 1 and about 1/p, and the unit belongs to their geometric mean.

    Parameters
    ----------
    policy : array_like, shape (..., K)
        Current policy p; rows sum to 1, zeros allowed.
    reward : array_like, shape (..., K)
        Reward of each action, finite.
    tau : array_like, shape (...)
        Temperature, positive, reward units. All three broadcast; the whole batch is one problem.
    solver : {"CLARABEL", "SCS"}
        Interior-point or first-order.
    accept_inaccurate : bool
        Return also what the solver calls ``optimal_inaccurate``; the certificate tells how inaccurate.
    **solver_options
        Passed to the solver in place of our tolerances, for example ``max_iter=500`` (CLARABEL) or
        ``eps_abs=1e-6`` (SCS).

    Returns
    -------
    Update
        With ``baseline`` from the multiplier of Σ q = 1 and a `Certificate`. The log-ratio is log(q/p) of the
        solver's q, whose errors are absolute: it says little where q is below about 1e-10.

    Raises
    ------
    ValueError
        If an argument is not as described, or the solver is not installed; the message names it.
    RuntimeError
        If the solver does not solve the problem; the message gives its status.

    References
    ----------
    Statement 1.

    Examples
    --------
    >>> kl([0.5, 0.5], [0.0, 1.0], tau=1.0).policy.round(4)
    array([0.2689, 0.7311])
    """
    import cvxpy as cp

    batch = _Batch(*simplex.problem(policy, reward, tau))
    unit = batch.p**0.25
    cost, peak = batch.cost(unit)
    x = cp.Variable(batch.p.size)
    normalised = batch.sums(unit) @ x == 1
    loss = cost @ x - unit @ cp.entr(x)
    status = _solve(loss, normalised, solver, accept_inaccurate, solver_options)
    shift = 1 + normalised.dual_value + peak
    s = np.log(np.maximum(unit * x.value, _TINY) / batch.p)
    return _update(batch, s, np.zeros(shift.shape), shift, _policy_gap, status, solver)


def mixed(
    policy: ArrayLike,
    reward: ArrayLike,
    tau: ArrayLike,
    chi2_coef: ArrayLike,
    solver: str | None = "CLARABEL",
    accept_inaccurate: bool = False,
    **solver_options: Any,
) -> Update:
    r"""Mixed update by a conic solver: max E_q[r] − τ KL(q‖p) − (κ/2) χ²(q‖p).

    As `kl`, with q in units of (p^{−1/2} + λ/p)^{−1/2}, λ = κ/τ: the χ² term adds λ/p to the curvature.

    Parameters
    ----------
    policy, reward, tau, solver, accept_inaccurate, **solver_options
        As in `kl`.
    chi2_coef : array_like, shape (...)
        κ ≥ 0, reward units; 0 is the KL update.

    Returns
    -------
    Update
        With ``chi2_weight`` κ/τ, ``baseline`` from the multiplier of Σ q = 1 and a `Certificate`.

    Raises
    ------
    ValueError, RuntimeError
        As in `kl`.

    References
    ----------
    Statement 3.

    Examples
    --------
    >>> mixed([0.5, 0.5], [0.0, 1.0], tau=1.0, chi2_coef=0.1009).policy.round(4)
    array([0.2862, 0.7138])
    """
    import cvxpy as cp

    simplex.nonnegative(chi2_coef, "chi2_coef")
    *problem, kappa = simplex.problem(policy, reward, tau, chi2_coef=chi2_coef)
    batch = _Batch(*problem)
    weight = kappa.ravel() / batch.tau
    curvature = weight[batch.row] / batch.p
    unit = 1 / np.sqrt(1 / np.sqrt(batch.p) + curvature)
    cost, peak = batch.cost(unit)
    scale = 1 / (1 + weight)
    each = scale[batch.row]
    x = cp.Variable(batch.p.size)
    normalised = batch.sums(unit) @ x == 1
    chi2 = cp.sum_squares(cp.multiply(unit * np.sqrt(each * curvature), x))
    loss = (each * cost) @ x - (each * unit) @ cp.entr(x) + chi2 / 2
    status = _solve(loss, normalised, solver, accept_inaccurate, solver_options)
    shift = 1 + normalised.dual_value / scale + peak
    s = np.log(np.maximum(unit * x.value, _TINY) / batch.p)
    return _update(batch, s, weight, shift, _policy_gap, status, solver)


def regression(
    policy: ArrayLike,
    reward: ArrayLike,
    tau: ArrayLike,
    baseline: ArrayLike | None = None,
    solver: str | None = "CLARABEL",
    accept_inaccurate: bool = False,
    **solver_options: Any,
) -> Update:
    r"""PMD-mean, or any baseline b ≤ τ log Z, by a conic solver: min E_p[(s − (r − b)/τ)²] over E_p[e^s] ≤ 1.

    The variables are the log-ratios s. Above τ log Z no policy reaches the targets' mass, the inequality is no
    longer attained and the relaxation says nothing about policies.

    Parameters
    ----------
    policy, reward, tau, solver, accept_inaccurate, **solver_options
        As in `kl`.
    baseline : array_like, shape (...), or None
        b ≤ τ log Z, reward units; None for E_p[r].

    Returns
    -------
    Update
        With ``chi2_weight`` the multiplier of E_p[e^s] ≤ 1 and a `Certificate`.

    Raises
    ------
    ValueError, RuntimeError
        As in `kl`; also if the baseline exceeds τ log Z.

    References
    ----------
    Statements 2, 10 and 11.

    Examples
    --------
    >>> update = regression([0.5, 0.5], [0.0, 1.0], tau=1.0)
    >>> update.policy.round(4), update.chi2_weight.round(4)
    (array([0.2862, 0.7138]), np.float64(0.1009))
    """
    import cvxpy as cp

    given = {} if baseline is None else {"baseline": baseline}
    p, r, tau, *given = simplex.problem(policy, reward, tau, **given)
    batch = _Batch(p, r, tau)
    shift = batch.shift(*given)
    scale = 1 / (1 + np.abs(shift))
    s = cp.Variable(batch.p.size)
    normalised = batch.sums(1.0) @ cp.exp(s + np.log(batch.p)) <= 1
    squares = cp.sum_squares(cp.multiply(np.sqrt(scale[batch.row] * batch.p), s - batch.target))
    loss = squares / 2 + ((scale * shift)[batch.row] * batch.p) @ s
    status = _solve(loss, normalised, solver, accept_inaccurate, solver_options)
    weight = np.maximum(normalised.dual_value / scale, 0.0)
    return _update(batch, s.value, weight, shift, _regression_gap, status, solver)


class _Batch:
    """Contexts side by side: one entry for each action of each support, one row for each context.

    ``target`` is (r − E_p[r])/τ; every other flat array is what it is called in the module docstring.
    """

    def __init__(self, policy, reward, tau):
        self.support = policy > 0
        self.row = np.nonzero(self.support.reshape(-1, policy.shape[-1]))[0]
        self.p, self.tau = policy[self.support], tau.ravel()
        # Rewards are measured from the most probable action first, for the sake of nearly one-hot policies.
        top = np.take_along_axis(reward, policy.argmax(axis=-1)[..., None], axis=-1)
        target = ((reward - top) / tau[..., None])[self.support]
        mean = self.total(self.p * target)
        self.target, self.mean = target - mean[self.row], top.ravel() + self.tau * mean

    def total(self, values):
        """Sum over the actions of each context."""
        return np.bincount(self.row, values, minlength=self.tau.size)

    def largest(self, values):
        """Maximum over the actions of each context."""
        out = np.full(self.tau.size, -np.inf)
        np.maximum.at(out, self.row, values)
        return out

    def cost(self, unit):
        """Return a and c such that Σ q (log q − D − log p + c) = Σ a x + unit x log x for q = unit x."""
        exponent = self.target + np.log(self.p)
        peak = self.largest(exponent)
        return unit * (np.log(unit) + peak[self.row] - exponent), peak

    def sums(self, weights):
        """Sparse matrix that takes weighted sums over the actions of each context."""
        values = np.broadcast_to(weights, self.p.shape)
        return sparse.csr_matrix((values, (self.row, np.arange(self.p.size))), shape=(self.tau.size, self.p.size))

    def shift(self, baseline=None):
        """(b − E_p[r])/τ, zero for no baseline; refuses a baseline above τ log Z."""
        if baseline is None:
            return np.zeros(self.tau.size)
        b = baseline.ravel()
        peak = self.largest(self.target)
        log_z = peak + np.log(self.total(self.p * np.exp(self.target - peak[self.row])))
        shift = (b - self.mean) / self.tau
        above = np.flatnonzero(shift > log_z + _BASELINE_SLACK)
        if above.size:
            n = above[0]
            raise ValueError(
                f"baseline must be at most tau * log Z = {self.mean[n] + self.tau[n] * log_z[n]:.12g} here for the "
                f"regression to be convex (Statement 11), got {b[n]}; baseline_update also solves some larger ones."
            )
        return shift


def _solve(loss, normalised, solver, accept_inaccurate, options):
    """Minimise and return the status, if it is one to accept."""
    import cvxpy as cp

    usable = [name for name in _OPTIONS if name in cp.installed_solvers()]
    if solver not in usable:
        raise ValueError(f"solver must be one of those installed, {' or '.join(usable)}, got {solver!r}.")
    defaults = _OPTIONS[solver]
    if solver == "CLARABEL":  # its central path shares the gap out evenly among the contexts
        defaults = defaults | {"tol_gap_abs": defaults["tol_gap_abs"] * normalised.size}
    problem = cp.Problem(cp.Minimize(loss), [normalised])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the status says the same
        try:
            problem.solve(solver=solver, **defaults | options)
            status = problem.status
        except cp.SolverError as error:
            status = f"solver_error: {error}"
    if status == cp.OPTIMAL or (accept_inaccurate and status == cp.OPTIMAL_INACCURATE):
        return status
    remedies = [f"solver={name!r}" for name in usable if name != solver]
    if status in (cp.OPTIMAL_INACCURATE, cp.USER_LIMIT):
        remedies.insert(0, "a larger " + ("max_iter" if solver == "CLARABEL" else "max_iters"))
    if status == cp.OPTIMAL_INACCURATE:
        remedies.append("accept_inaccurate=True and the certificate")
    raise RuntimeError(
        f"{solver} ended with status {status!r}, so no update is returned; try {', '.join(remedies)}, fewer contexts "
        "at once, or the fast solver in pmdtheory.updates."
    )


def _update(batch, s, weight, shift, gap, status, solver):
    """Normalise the solver's log-ratios and certify them."""
    mass = batch.total(batch.p * np.exp(s))
    s = s - np.log(mass)[batch.row]
    q = batch.p * np.exp(s)
    target = batch.target - shift[batch.row]
    residual = np.abs(s + weight[batch.row] * q / batch.p - target)
    s_hat = _best_response(target, weight[batch.row])
    contexts = batch.support.shape[:-1]
    certificate = Certificate(
        status,
        solver,
        (batch.tau * gap(batch, s, s_hat, weight)).reshape(contexts),
        np.abs(mass - 1).reshape(contexts),
        batch.total(q * residual).reshape(contexts),
    )
    policy, log_ratio = np.zeros((2, *batch.support.shape))
    policy[batch.support], log_ratio[batch.support] = q, s
    baseline = batch.mean + batch.tau * shift
    return Update(
        policy,
        log_ratio,
        weight.reshape(contexts),
        baseline.reshape(contexts),
        np.zeros(contexts, dtype=bool),
        certificate,
    )


def _best_response(target, weight):
    """Solve ŝ + λ e^ŝ = target, the stationarity of the Lagrangian: λ e^ŝ = ω(target + log λ)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_weight = np.log(weight)
        omega = special.wrightomega(target + log_weight)
        return np.where(omega > 1, np.log(omega) - log_weight, target - omega)


def _policy_gap(batch, s, s_hat, weight):
    """Duality gap of `kl` and `mixed` in units of τ."""
    q, q_hat = batch.p * np.exp(s), batch.p * np.exp(s_hat)
    return batch.total(_kl_terms(q, q_hat, s - s_hat)) + weight / 2 * batch.total((q - q_hat) ** 2 / batch.p)


def _regression_gap(batch, s, s_hat, weight):
    """Duality gap of `regression` in units of τ."""
    q, q_hat = batch.p * np.exp(s), batch.p * np.exp(s_hat)
    return batch.total(batch.p * (s - s_hat) ** 2) / 2 + weight * batch.total(_kl_terms(q_hat, q, s_hat - s))


def _kl_terms(a, b, log_ratio):
    """Return a log(a/b) − a + b ≥ 0, log(a/b) given."""
    near = a * (log_ratio + np.expm1(-np.clip(log_ratio, -1, 1)))
    return np.where(np.abs(log_ratio) < 1, near, a * (log_ratio - 1) + b)
