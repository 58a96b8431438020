r"""The exact update from n rollouts: what a policy that could fit anything would do with one batch.

One context has a policy p over K actions. Rollout i drew action y_i with reward r_i and has target (r_i − b_i)/τ, with
b_i its baseline. Over all policies q on the actions, `sampled_update` minimises the sampled regression

.. math:: \frac{1}{n} \sum_i \tfrac12 \left( \log\frac{q(y_i)}{p(y_i)} - \frac{r_i - b_i}{τ} \right)^2
          = \text{const} + \sum_{y \in S} w_y \tfrac12 (s_y - d_y)^2,

S being the seen actions, w_y the share of the rollouts that drew y, d_y the mean target of those. Rewards of one action
may differ (noise), and so may leave-one-out baselines. The mass m = Σ_S p_y e^{d_y} that the targets ask for decides:

============================  ======================================================================================
m ≤ 1, and 1 − m has a place  s = d on S exactly; the unseen actions share 1 − m by the named rule below
m > 1                         s + μ (p/w) e^s = d with μ > 0 and Σ_S q = 1: the stationarity equation of every other
                              update, with weights w and targets t = d + log(p/w) of σ = log(q/w); unseen mass is 0
m < 1, everything seen        the same equation with μ < 0, not convex: at most one action has U = −μ q/w > 1
============================  ======================================================================================

In the last case U_y − log U_y = −log(−μ) − t_y has two solutions for each action. Either all are at most 1, the
principal branch of `overestimated`, or one action k takes the other solution (W₋₁): mass is dumped on it. With x = U_k
as the unknown, q_k grows with x and the mass R(x) of the others falls. Solutions of Σ q = 1 are found by halving cells
of x, keeping those that can hold one with less loss than the best policy known. What makes them few: the loss is at
least w_k x²/2 and at least μ²/2, and q_k ≤ 1. One coordinate may have several solutions; those where Σ q falls through
1 as x grows are no minima.

Unseen actions
--------------
A fitted batch says nothing of how 1 − m is shared. ``"proportional"`` to p minimises KL(q‖p) and KL(p‖q), and is where
the natural-gradient flow of the loss goes, since it moves the logits of all unseen actions alike. ``"softmax"`` is
where gradient flow on softmax logits θ goes from θ = log p. There θ_z' = q_z G on unseen z, with G the sum over S of
w (s − d), so all e^{−θ_z} move by one amount T, and Σ θ is conserved. With s = d on S at the end, q_y = e^{θ_y − C},

.. math:: q_z ∝ \frac{p_z}{1 - T p_z}, \qquad
          C = \frac{1}{|S|} \Big[ \sum_z \log(1 - T p_z) - \sum_S d_y \Big], \qquad
          \sum_z \frac{p_z}{1 - T p_z} = (1 - m) e^C,

sums over unseen z: one unknown T < 1/max p_z, one monotone equation. The weights w drop out. For T > 0 the flow favours
the unseen actions that were likely already. Where these are equally likely, and at T = 0, the two rules agree.

References
----------
Statements 12–14 of ``pmdtheory/theorems/README.md``.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import baselines, overestimated, roots, simplex, solver
from .updates import Update, normalised

__all__ = ["UNSEEN_RULES", "sampled_loss", "sampled_update"]

_HALVINGS = 10  # of the range of x; solutions closer than such a cell are not told apart
_BLOCK = 2**18  # numbers per array
_SLACK = 1 + 1e-9  # so that rounding never excludes the solution


def sampled_update(
    policy: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    tau: ArrayLike,
    baseline: Any = "loo_mean",
    unseen: str = "proportional",
) -> Update:
    r"""Global minimiser of the regression sampled from n rollouts, over all policies on the actions.

    Parameters
    ----------
    policy : array_like, shape (..., K)
        Policy p that the rollouts were drawn from; rows sum to 1, zeros allowed.
    actions : array_like of int, shape (..., n)
        Action of each rollout, in 0, …, K − 1 and with p > 0.
    rewards : array_like, shape (..., n)
        Reward of each rollout, finite. Two rollouts of one action may have different rewards. Where the rewards of a
        context and their baselines are equal up to rounding, the targets are 0.
    tau : array_like, shape (...)
        Temperature, positive, reward units. The batch axes of all four broadcast.
    baseline : str, callable or array_like
        Key of ``baselines.BASELINES``, or one's own ``(rewards, tau) -> baselines``, or baselines in reward units: one
        per rollout if the array has one axis more than the batch, else one per context.
    unseen : {"proportional", "softmax"}
        How unseen actions share the mass that the targets leave free (module docstring).

    Returns
    -------
    Update
        ``chi2_weight`` is the multiplier μ of the normalisation: 0 where the targets are fitted exactly, positive where
        they ask for too much mass, negative where they ask for too little and everything is seen. ``baseline`` is the
        mean over the rollouts. ``local`` is False throughout: where the problem is not convex, all candidates are
        compared. Unseen actions whose mass tends to 0 have ``policy`` 0 and ``log_ratio`` −inf (no finite logits
        attain the minimum); actions with p = 0 have 0 for both.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    References
    ----------
    Statement 14.

    Examples
    --------
    >>> update = sampled_update([0.2, 0.3, 0.1, 0.4], actions=[0, 1], rewards=[1.0, 0.0], tau=1.0, baseline="mean")
    >>> update.policy.round(4)
    array([0.3297, 0.182 , 0.0977, 0.3906])
    """
    if unseen not in UNSEEN_RULES:
        raise ValueError(f"unseen must be one of {', '.join(UNSEEN_RULES)}, got {unseen!r}.")
    p, y, target, b = regression(policy, actions, rewards, tau, baseline)
    batch, K = p.shape[:-1], p.shape[-1]
    p, y, target = p.reshape(-1, K), y.reshape(-1, y.shape[-1]), target.reshape(-1, y.shape[-1])

    action, w, d = _distinct(y, target)
    rows = np.arange(len(p))[:, None]
    with np.errstate(divide="ignore"):
        log_p = np.log(p[rows, action])
        log_a = np.where(w > 0, log_p + d, -np.inf)  # log(p e^d)
    rest = p.copy()
    rest[rows, action] = 0.0
    unseen_mass = rest.sum(axis=-1)
    excess, rounding = _excess(p[rows, action], w, d, log_a)

    s, mu = d.copy(), np.zeros(len(p))
    over = np.flatnonzero(excess - unseen_mass > np.where(unseen_mass > 0, 0.0, rounding))
    s[over], mu[over] = _too_much(w[over], d[over], log_p[over])
    dumping = np.flatnonzero((unseen_mass == 0) & (excess < -rounding))
    s[dumping], mu[dumping] = _too_little(w[dumping], d[dumping], log_p[dumping], log_a[dumping])

    log_ratio = np.where(p > 0, -np.inf, 0.0)
    free = np.flatnonzero(unseen_mass > excess.clip(min=0))
    log_ratio[free] = np.where(rest[free] > 0, UNSEEN_RULES[unseen](rest[free], excess[free], d[free], w[free]), 0.0)
    seen_row, slot = np.nonzero(w > 0)
    log_ratio[seen_row, action[seen_row, slot]] = s[seen_row, slot]
    q = normalised(p, log_ratio)
    shape = (*batch, K)
    return Update(q.reshape(shape), log_ratio.reshape(shape), mu.reshape(batch), b, np.zeros(batch, dtype=bool))


def sampled_loss(
    policy: ArrayLike,
    new_policy: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    tau: ArrayLike,
    baseline: Any = "loo_mean",
) -> np.ndarray:
    r"""Mean of ½ (log(q/p) − (r − b)/τ)² over the rollouts of each context: what `sampled_update` minimises.

    Parameters
    ----------
    policy, actions, rewards, tau, baseline
        As in `sampled_update`.
    new_policy : array_like, shape (..., K)
        Policy q to be judged.

    Returns
    -------
    ndarray, shape (...)
        Dimensionless; infinite where q excludes an action that was drawn.

    Raises
    ------
    ValueError
        As `sampled_update`.

    References
    ----------
    Statement 14.

    Examples
    --------
    >>> sampled_loss([0.5, 0.5], [0.5, 0.5], actions=[0, 1], rewards=[1.0, 0.0], tau=1.0, baseline="mean")
    np.float64(0.125)
    """
    p, y, target, _ = regression(policy, actions, rewards, tau, baseline)
    q = simplex.distribution(new_policy, "new_policy")
    try:
        q = np.broadcast_to(q, p.shape)
    except ValueError:
        raise ValueError(f"new_policy must broadcast to shape {p.shape}, got shape {q.shape}.") from None
    with np.errstate(divide="ignore"):
        s = np.log(np.take_along_axis(q, y, axis=-1)) - np.log(np.take_along_axis(p, y, axis=-1))
    return ((s - target) ** 2).mean(axis=-1) / 2


def _proportional(rest, excess, d, w):
    """Log-ratio of the unseen actions: all the same."""
    mass = rest.sum(axis=-1)
    with np.errstate(over="ignore"):  # of a subnormal mass
        gain = -excess / mass
    return np.where(np.isinf(gain), np.log(np.maximum(-excess, 1e-300)) - np.log(mass), np.log1p(gain))[:, None]


def _softmax(rest, excess, d, w):
    """Log-ratio of the unseen actions where softmax-logit gradient flow ends; Newton on y = log(1 − T max p)."""
    log_free, seen = _proportional(rest, excess, d, w), (w > 0).sum(axis=-1, keepdims=True)
    x = rest / rest.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        log_x, log_complement, log_share = np.log(x), np.log1p(-x), np.log(rest / rest.sum(axis=-1, keepdims=True))

    def at(rows, y):
        log_c = np.logaddexp(log_complement[rows], y[:, None] + log_x[rows])  # log(1 − T p)
        log_sum = np.logaddexp.reduce(log_share[rows] - log_c, axis=-1)
        free = (log_c.sum(axis=-1) - d[rows].sum(axis=-1)) / seen[rows, 0]
        return log_c, log_sum, log_sum - log_free[rows, 0] - free

    def propose(rows, y):
        log_c, log_sum, value = at(rows, y)
        pull = np.exp(y[:, None] + log_x[rows] - log_c)
        shares = np.exp(log_share[rows] - log_c - log_sum[:, None])
        return value, y + value / (pull * (shares + 1 / seen[rows])).sum(axis=-1)

    n, zero = np.arange(len(d)), np.zeros(len(d))
    reach = seen[:, 0] * at(n, zero)[2]  # the slope is at most −1/|S|
    y = roots.find(propose, zero, np.minimum(reach, 0.0), np.maximum(reach, 0.0), floor=1.0)
    log_c, log_sum, _ = at(n, y)
    return log_free - log_c - log_sum[:, None]


UNSEEN_RULES = {"proportional": _proportional, "softmax": _softmax}


def regression(policy, actions, rewards, tau, baseline):
    """Check everything; p (..., K), actions and targets (..., n), mean baseline (...), one batch shape."""
    p, r, tau = simplex.distribution(policy), simplex.finite(rewards, "rewards"), simplex.positive(tau, "tau")
    y, K = np.asarray(actions), p.shape[-1]
    if y.dtype.kind not in "iu":
        raise ValueError(f"actions must be integers, got {y.dtype} numbers.")
    if y.ndim == 0 or r.ndim == 0 or y.shape[-1] != r.shape[-1] or y.shape[-1] == 0:
        raise ValueError(
            "actions and rewards must have the same n >= 1 rollouts in their last axis, "
            f"got shapes {y.shape} and {r.shape}."
        )
    outside = (y < 0) | (y >= K)
    if outside.any():
        raise ValueError(f"actions must be in 0, ..., {K - 1} (policy has {K} actions), got {y[outside][0]}.")
    try:
        batch = np.broadcast_shapes(p.shape[:-1], y.shape[:-1], r.shape[:-1], tau.shape)
    except ValueError:
        raise ValueError(
            "the leading axes of policy, actions and rewards and the whole of tau must broadcast together, "
            f"got shapes {p.shape}, {y.shape}, {r.shape} and {tau.shape}."
        ) from None
    p, y, r = (np.broadcast_to(a, (*batch, a.shape[-1])) for a in (p, y, r))
    tau = np.broadcast_to(tau, batch)
    impossible = np.take_along_axis(p, y, axis=-1) == 0
    if impossible.any():
        raise ValueError(f"actions must have positive probability under policy, got {y[impossible][0]}, which has 0.")
    b = _baseline(baseline, r, tau)
    with np.errstate(over="ignore"):
        target = (r - b) / tau[..., None]
        if not np.isfinite(target * target).all():
            raise ValueError(
                f"tau must be large enough for the square of (rewards - baseline) / tau to be finite, got {tau.min()}."
            )
    constant = np.ptp(r, axis=-1) <= simplex.EQUAL * np.abs(r).max(axis=-1)
    target[constant & simplex.equal_up_to_rounding(r, b).all(axis=-1)] = 0.0
    return p, y, target, b.mean(axis=-1)


def _baseline(baseline, r, tau):
    """Baseline of every rollout, shape of r."""
    if isinstance(baseline, str):
        baseline = baselines.by_name(baseline)
        if baseline.needs_target:
            raise ValueError(
                f"baseline {baseline.name!r} needs a target: give functools.partial(BASELINES[{baseline.name!r}], "
                "target_kl=...) instead of its name."
            )
    b = simplex.finite(baseline(r, tau) if callable(baseline) else baseline, "baseline")
    try:
        return np.broadcast_to(b if b.ndim == r.ndim else b[..., None], r.shape)
    except ValueError:
        raise ValueError(
            f"baseline must be of shape {r.shape[:-1]} (one per context) or {r.shape} (one per rollout), "
            f"got shape {b.shape}."
        ) from None


def _distinct(y, target):
    """Seen actions of each row, their share of the rollouts (0 in slots left over), mean target; (N, slots)."""
    order = np.argsort(y, axis=-1, kind="stable")
    y, target = np.take_along_axis(y, order, axis=-1), np.take_along_axis(target, order, axis=-1)
    slot = np.zeros(y.shape, dtype=np.intp)
    np.cumsum(y[:, 1:] != y[:, :-1], axis=-1, out=slot[:, 1:])
    N, L = len(y), slot.max(initial=0) + 1
    flat = (np.arange(N)[:, None] * L + slot).ravel()
    count = np.bincount(flat, minlength=N * L).reshape(N, L)
    total = np.bincount(flat, weights=target.ravel(), minlength=N * L).reshape(N, L)
    action = np.repeat(y[:, :1], L, axis=-1)
    np.put_along_axis(action, slot, y, axis=-1)
    return action, count / y.shape[-1], total / np.maximum(count, 1)


def _excess(p, w, d, log_a):
    """Σ_S p (e^d − 1), which is m − 1 plus the unseen mass, and its rounding error."""
    a = np.exp(np.minimum(log_a, 300.0))
    terms = np.where(d < 1, p * np.expm1(np.minimum(d, 1.0)), a - p)
    unsettled = np.where(log_a < 1, a * np.abs(np.minimum(d, 1e3)), 0.0)  # beyond, m > 1 whatever rounding does
    return np.where(w > 0, terms, 0.0).sum(axis=-1), 4e-16 * (1 + unsettled.sum(axis=-1))


def _targets(w, d, log_p):
    """log(p/w), targets t = d + log(p/w) of log(q/w), their mean under w, and D = t − mean; 0 in slots left over."""
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = np.where(w > 0, log_p - np.log(w), 0.0)
    t = np.where(w > 0, d + offset, 0.0)
    mean = (w * t).sum(axis=-1)
    return offset, t, mean, np.where(w > 0, t - mean[:, None], 0.0)


def _too_much(w, d, log_p):
    """s and μ > 0 for m > 1."""
    offset, t, mean, D = _targets(w, d, log_p)
    sigma, mu = solver.with_shift(w, D, -mean, t, rounding=4e-16 * (1 + (w * np.abs(t)).sum(axis=-1)))
    return sigma - offset, mu


def _too_little(w, d, log_p, log_a):
    """s and μ < 0 of least loss for m < 1 and everything seen."""
    offset, t, mean, D = _targets(w, d, log_p)
    s, mu, loss = np.zeros(w.shape), np.zeros(len(w)), np.full(len(w), np.inf)
    rows = np.flatnonzero(-mean <= overestimated.largest_shift(w, D))
    sigma, mu[rows] = overestimated.solve(w[rows], t[rows], D[rows])
    s[rows] = sigma - offset[rows]
    loss[rows] = (w * (s - d) ** 2)[rows].sum(axis=-1) / 2
    size = max(1, _BLOCK // w.shape[1] ** 2)
    for start in range(0, len(w), size):
        block = slice(start, start + size)
        row, U, dump_mu, dump_loss = _dumps(w[block], t[block], log_a[block], loss[block])
        order = np.lexsort((dump_loss, row))
        least = order[np.append(True, np.diff(row[order]) > 0)[: len(order)]]  # of each row that has any
        least = least[dump_loss[least] < loss[start + row[least]]]
        j = start + row[least]
        s[j], mu[j], loss[j] = d[j] + U[least], dump_mu[least], dump_loss[least]
    if np.isinf(loss).any():
        raise FloatingPointError("the sampled regression was not solved; please report the arguments.")
    return s, mu


class _Point(NamedTuple):
    """A policy for each cell with U_k = x, as `_dump` returns it."""

    U: np.ndarray
    q: np.ndarray
    R: np.ndarray
    fall: np.ndarray


class _Cells(NamedTuple):
    """Ranges of x = U_k in a row, and the policies at their ends."""

    row: np.ndarray
    k: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_low: _Point
    at_high: _Point

    def only(self, keep):
        """Some of the cells."""
        plain = [values[keep] for values in self[:4]]
        return _Cells(*plain, *(_Point(*(values[keep] for values in point)) for point in self[4:]))

    def halves(self, middle, at_middle):
        """The lower halves, then the upper ones."""
        ends = [np.append(self.low, middle), np.append(middle, self.high)]
        points = [(self.at_low, at_middle), (at_middle, self.at_high)]
        joined = [_Point(*(np.concatenate(pair) for pair in zip(a, b))) for a, b in points]
        return _Cells(np.tile(self.row, 2), np.tile(self.k, 2), *ends, *joined)


def _dumps(w, t, log_a, loss):
    """Solutions with one U_k > 1 and less than the `loss` known: their row, U, μ and loss."""
    cells, best = _first_cells(w, t, log_a, loss)
    for _ in range(_HALVINGS):
        cells = _halve(w, t, log_a, cells, best)
    row, k, x = _roots(w, t, log_a, cells)
    U, q, _, _ = _dump(w, t, log_a, row, k, x)
    return row, U, -w[row, k] * x / q, _loss(w[row], U)


def _first_cells(w, t, log_a, loss):
    """One cell for each possible dump, and the least loss known in each row."""
    seen, log_m = w > 0, np.logaddexp.reduce(log_a, axis=-1)
    top = t.max(axis=-1, where=seen, initial=-np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        free = np.log(-np.expm1(log_m))[:, None]
        all_on_one = np.where(seen, w * (np.logaddexp(log_a, free) - log_a) ** 2 / 2, np.inf).min(axis=-1)
        best = _SLACK * np.minimum(np.minimum(loss, log_m**2 / 2), all_on_one)
        log_mu = np.minimum(-1 - top, np.log(2 * best) / 2)[:, None]  # no larger than this
        xi = np.maximum(-1 - log_mu - t, 0.0)
        low = 1 + np.sqrt(2 * xi) + 2 / 3 * xi  # below the larger solution of x − log x = 1 + ξ
        high = np.where(seen, np.minimum(-log_a, np.sqrt(2 * best[:, None] / w)), 0.0)
    row, k = np.nonzero(low < high)
    low, high = low[row, k], high[row, k]
    at_low, at_high = (_Point(*_dump(w, t, log_a, row, k, x)) for x in (low, high))
    _lower(best, w, row, at_low)
    return _Cells(row, k, low, high, at_low, at_high), best


def _halve(w, t, log_a, cells, best):
    """Halve the cells; keep those where Σ q may be 1 and the loss below `best`, which is lowered on the way."""
    middle = (cells.low + cells.high) / 2
    at_middle = _Point(*_dump(w, t, log_a, cells.row, cells.k, middle))
    _lower(best, w, cells.row, at_middle)
    cells = cells.halves(middle, at_middle)
    U = cells.at_high.U.copy()
    U[np.arange(len(cells.k)), cells.k] = cells.low
    keep = (cells.at_low.q + cells.at_high.R <= _SLACK) & (cells.at_high.q + cells.at_low.R >= 2 - _SLACK)
    return cells.only(keep & (_loss(w[cells.row], U) <= best[cells.row]))


def _lower(best, w, row, point):
    """Lower the least loss known of each row to those of these policies, where they have mass enough to be scaled."""
    total = np.maximum(point.q + point.R, 1e-300)
    scaled = np.where(point.q + point.R < total, np.inf, _SLACK * _loss(w[row], point.U - np.log(total)[:, None]))
    np.minimum.at(best, row, scaled)


def _roots(w, t, log_a, cells):
    """Row, k and x where Σ q rises through 1 in a cell (where it falls there is no minimum), by safeguarded Newton."""

    def residual(row, k, x, R):
        return x + log_a[row, k] - np.log(np.maximum(1 - R, 1e-300))

    row, k, low, high = cells[:4]
    rises = (residual(row, k, low, cells.at_low.R) <= 0) & (residual(row, k, high, cells.at_high.R) >= 0)
    row, k, low, high = row[rises], k[rises], low[rises], high[rises]

    def propose(i, x):
        _, _, R, fall = _dump(w, t, log_a, row[i], k[i], x)
        value, slope = residual(row[i], k[i], x, R), 1 - fall / np.maximum(1 - R, 1e-300)
        with np.errstate(divide="ignore", invalid="ignore"):
            return -value, x - value / slope

    return row, k, roots.find(propose, high, low, high)


def _dump(w, t, log_a, row, k, x):
    """U of every action when U_k = x; q_k, R = Σ q of the others, and −dR/dx."""
    cell = np.arange(len(x))
    xi = np.where(w[row] > 0, (x - np.log(x) - 1 + t[row, k])[:, None] - t[row], 0.0)
    U, Y = overestimated.principal_branch(np.maximum(xi, 0.0))
    U[cell, k] = x
    q = np.exp(log_a[row] + U)
    q_k, q[cell, k] = q[cell, k], 0.0
    fall = (q * U / np.maximum(Y, 1e-300)).sum(axis=-1) * (1 - 1 / x)  # Y is 0 at the branch point, which is x = 1
    return U, q_k, q.sum(axis=-1), fall


def _loss(w, residual):
    return (w * residual**2).sum(axis=-1) / 2
