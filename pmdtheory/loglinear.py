r"""A log-linear policy fitted to sampled targets: generalisation and staleness without a network.

Contexts x, actions a and features φ(x, a) of d numbers give the policies

.. math:: π_θ(a|x) = \frac{p(a|x) e^{θ^⊤φ(x,a)}}{\sum_{a'} p(a'|x) e^{θ^⊤φ(x,a')}}.

Rollouts of a policy π_old (of the same family; stale if an older one) ask for log π_θ = g with the goal
g = log π_old + (r − b)/τ at each of them. With w the share of the rollouts at (x, a) and g their mean goal there, the
regression is over a common θ, normaliser included:

.. math:: L(θ) = \sum_{x,a} w \tfrac12 e^2, \quad e = \log π_θ - g, \qquad
          ∇L = \sum_{x,a} w e (φ - \bar φ), \quad ∇²L = \sum_{x,a} (w - c π_θ) (φ - \bar φ)(φ - \bar φ)^⊤,

where φ̄(x) = E_{π_θ}[φ(x, ·)] and c(x) = Σ_a w e. Weights π_old/C on all actions make it the population
regression, C being the number of contexts.

Unseen actions
--------------
If every (x, a) has a θ of its own, the fit is that of `sampled_update` in each context. Where its targets leave mass
1 − m free, the way to the minimum decides who gets it. Gradient steps follow the softmax-logit flow (rule
``"softmax"`` there; at small τ it may squeeze them to nothing on the way and stall on that plateau, above the least
loss, and so does `fit`). A vanishing ridge picks the θ of least norm: with a multiplier η of the free mass,
θ_z = η p_z e^{θ_z} on unseen z and Σ_a θ_a = 0, that is

.. math:: θ_z = -W_0(-η p_z), \qquad q_z = p_z e^{θ_z - C}, \qquad C = \log \sum_a p_a e^{θ_a}, \qquad θ_y = d_y + C
          \text{ on seen } y.

For η > 0 unseen actions gain the more the likelier they were, as in the softmax rule.

References
----------
Statements 13 and 14 of ``pmdtheory/theorems/README.md``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import sampled, simplex
from .draws import chances, dealt, draw_actions

__all__ = [
    "Adam", "LogLinear", "Regression", "fit", "gradient_steps", "iterate", "population_regression",
    "sampled_regression",
]  # fmt: skip


@dataclass(frozen=True)
class LogLinear:
    """The family π_θ(a|x) ∝ p(a|x) exp(θᵀφ(x, a)).

    Attributes
    ----------
    features : ndarray, shape (..., C, K, d)
        φ, finite. Leading axes (one problem each) broadcast with those of θ.
    policy : ndarray, shape (..., C, K)
        p, the policy at θ = 0; zeros stay zero.

    Raises
    ------
    ValueError
        If an attribute is not as described; the message names it.

    Examples
    --------
    >>> LogLinear([[[0.0], [1.0]]], [[0.5, 0.5]]).at([np.log(3.0)])
    array([[0.25, 0.75]])
    """

    features: np.ndarray
    policy: np.ndarray

    def __post_init__(self):
        features, policy = simplex.finite(self.features, "features"), simplex.distribution(self.policy)
        if features.ndim < 3 or features.size == 0:
            raise ValueError(f"features must have shape (..., contexts, actions, d), got {features.shape}.")
        if policy.shape[-2:] != features.shape[-3:-1]:
            raise ValueError(f"policy must have shape (..., C, K) = {features.shape[:-1]}, got {policy.shape}.")
        with np.errstate(divide="ignore"):
            log_start = np.log(policy)
        for name, value in {"features": features, "policy": policy, "_log_start": log_start}.items():
            object.__setattr__(self, name, value)

    def log_policy(self, theta: np.ndarray) -> np.ndarray:
        """log π_θ, shape (..., C, K), for θ of shape (..., d)."""
        *_, C, K, d = self.features.shape
        logits = self.features.reshape(*self.features.shape[:-3], C * K, d) @ theta[..., None]
        logits = self._log_start + logits.reshape(*logits.shape[:-2], C, K)  # type: ignore[attr-defined]
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    def at(self, theta: np.ndarray) -> np.ndarray:
        """π_θ, shape (..., C, K), for θ of shape (..., d)."""
        return np.exp(self.log_policy(self.parameters(theta)))

    def parameters(self, theta: ArrayLike, name: str = "theta") -> np.ndarray:
        """Return θ as finite floats of shape (..., d)."""
        theta, d = simplex.finite(theta, name), self.features.shape[-1]
        if theta.shape[-1:] != (d,):
            raise ValueError(f"{name} must have shape (..., {d}), one number a feature, got {theta.shape}.")
        return theta


class Regression(NamedTuple):
    """Least squares of log π_θ on goals: L(θ) = Σ w ½ (log π_θ − g)²."""

    weight: np.ndarray
    """w ≥ 0, shape (..., C, K)."""
    goal: np.ndarray
    """g = log π_old + (r − b)/τ, shape (..., C, K); any finite number where w = 0."""

    def loss(self, model: LogLinear, theta: np.ndarray) -> float:
        """L(θ), shape (...)."""
        return (self.weight * self._error(model.log_policy(theta)) ** 2).sum(axis=(-2, -1)) / 2

    def gradient(self, model: LogLinear, theta: np.ndarray) -> np.ndarray:
        """∇L(θ), shape (..., d)."""
        log_policy = model.log_policy(theta)
        pull = self.weight * self._error(log_policy)
        pull = pull - np.exp(log_policy) * pull.sum(axis=-1, keepdims=True)
        features = model.features.reshape(*model.features.shape[:-3], -1, model.features.shape[-1])
        return (pull.reshape(*pull.shape[:-2], 1, -1) @ features)[..., 0, :]

    def hessian(self, model: LogLinear, theta: np.ndarray) -> np.ndarray:
        """∇²L(θ), shape (..., d, d)."""
        log_policy = model.log_policy(theta)
        policy, c = np.exp(log_policy), (self.weight * self._error(log_policy)).sum(axis=-1, keepdims=True)
        centred = model.features - policy[..., None, :] @ model.features
        return (np.swapaxes((self.weight - c * policy)[..., None] * centred, -1, -2) @ centred).sum(axis=-3)

    def _error(self, log_policy):
        return np.where(self.weight > 0, log_policy, self.goal) - self.goal


def population_regression(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike | None = None
) -> Regression:
    """Regression over all actions, weighted by π_t: what infinitely many rollouts ask for.

    Parameters
    ----------
    policy, reward, tau
        π_t and mean rewards, shape (..., C, K), and temperature, as in `baseline_update`.
    baseline : array_like, shape (..., C), optional
        Reward units; E_p[r] (PMD-mean) by default.

    Examples
    --------
    >>> population_regression([[0.5, 0.5]], [[0.0, 1.0]], tau=1.0).goal - np.log(0.5)
    array([[-0.5,  0.5]])
    """
    b = {} if baseline is None else {"baseline": baseline}
    p, r, tau, *b = simplex.problem(policy, reward, tau, **b)
    advantage = r - (b[0] if b else (p * r).sum(axis=-1))[..., None]
    return Regression(p / p.shape[-2], np.log(np.where(p > 0, p, 1.0)) + advantage / tau[..., None])


def sampled_regression(
    policy: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    tau: ArrayLike,
    baseline: Any = "loo_mean",
    part: ArrayLike | None = None,
) -> Regression:
    """Regression on n rollouts per context, or one for each minibatch of them.

    Parameters
    ----------
    policy, actions, rewards, tau, baseline
        π_old and its rollouts as in `sampled_update`, shapes (..., C, K) and (..., C, n). A named baseline is
        estimated from all rollouts of a context.
    part : array of int, shape (..., C, n), optional
        Minibatch of each rollout, 0, …, U − 1. The regression then has a new first axis, of length U.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> sampled_regression([[0.5, 0.5]], [[0, 1, 1, 1]], [[0.0, 1.0, 1.0, 1.0]], tau=1.0).weight
    array([[0.25, 0.75]])
    """
    p, y, target, _ = sampled.regression(policy, actions, rewards, tau, baseline)
    if p.ndim < 2:
        raise ValueError(f"policy must have shape (..., contexts, actions), got {p.shape}.")
    goal = np.log(np.take_along_axis(p, y, axis=-1)) + target
    parts = np.zeros(y.shape, dtype=int) if part is None else np.asarray(part)
    if parts.shape != y.shape or parts.dtype.kind not in "iu" or parts.min() < 0:
        raise ValueError(f"part must be integers >= 0 of shape {y.shape}, got {parts.dtype} of shape {parts.shape}.")
    shape = (parts.max() + 1, *p.shape)
    cell = np.ravel_multi_index((parts, *np.indices(y.shape)[:-1], y), shape).ravel()
    count = np.bincount(cell, minlength=np.prod(shape)).reshape(shape)
    total = np.bincount(cell, weights=goal.ravel(), minlength=np.prod(shape)).reshape(shape)
    weight, goal = count / np.maximum(count.sum(axis=(-2, -1), keepdims=True), 1), total / np.maximum(count, 1)
    return Regression(weight[0], goal[0]) if part is None else Regression(weight, goal)


def fit(
    model: LogLinear,
    regression: Regression,
    start: ArrayLike | None = None,
    ridge: float = 0.0,
    tolerance: float = 1e-10,
    max_steps: int = 1000,
) -> np.ndarray:
    """Fit θ to convergence by damped Newton steps; curvatures count by size, so that none leads uphill.

    Parameters
    ----------
    model : LogLinear
    regression : Regression
    start : array_like, shape (..., d), optional
        Where to start, 0 by default.
    ridge : float
        ε ≥ 0: adds ε/2 ‖θ − start‖² to the loss. With 0, the path settles what the data leave undetermined.
    tolerance : float
        On the Euclidean norm of the gradient.
    max_steps : int

    Returns
    -------
    theta : ndarray, shape (..., d)
        A stationary point, no worse than the start. If the targets ask for too much mass, unseen actions with features
        of their own lose theirs until the gradient is within the tolerance.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.
    FloatingPointError
        If the gradient is not within `tolerance` after `max_steps`.

    Examples
    --------
    >>> model = LogLinear([np.eye(2)], [[0.5, 0.5]])
    >>> model.at(fit(model, population_regression([[0.5, 0.5]], [[0.0, 1.0]], tau=1.0))).round(4)
    array([[0.2862, 0.7138]])
    """
    ridge, d = float(simplex.nonnegative(ridge, "ridge")), model.features.shape[-1]
    _same_actions(model, "regression", regression.weight)
    start = model.parameters(np.zeros(d) if start is None else start, "start")
    start = np.broadcast_to(start, regression.gradient(model, start).shape)
    theta, damping = start, np.ones((*start.shape[:-1], 1))

    def loss(theta):
        return regression.loss(model, theta) + ridge / 2 * ((theta - start) ** 2).sum(axis=-1)

    for _ in range(max_steps):
        gradient = regression.gradient(model, theta) + ridge * (theta - start)
        size = np.linalg.norm(gradient, axis=-1)
        if np.all(size <= tolerance):
            return theta
        curvature, axes = np.linalg.eigh(regression.hessian(model, theta) + ridge * np.eye(d))
        along = (gradient[..., None, :] @ axes)[..., 0, :] / (np.abs(curvature) + damping)
        new = theta - (axes @ along[..., None])[..., 0]
        accept = ((loss(new) <= loss(theta) * (1 + 1e-14)) & (size > tolerance))[..., None]
        theta, damping = np.where(accept, new, theta), np.maximum(np.where(accept, damping / 8, damping * 4), 1e-13)
    raise FloatingPointError(
        f"fit did not converge: gradient norm {size.max():.1e} after max_steps = {max_steps}, tolerance {tolerance:g}."
    )


class Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980, their defaults): (θ, gradient) → θ, keeping its moments between calls."""

    def __init__(self, learning_rate: float):
        self.learning_rate = float(simplex.positive(learning_rate, "learning_rate"))
        self.first = self.second = self.count = 0

    def __call__(self, theta, gradient):
        """Take one step."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first, second = self.first / (1 - 0.9**self.count), self.second / (1 - 0.999**self.count)
        return theta - self.learning_rate * first / (np.sqrt(second) + 1e-8)


def gradient_steps(
    model: LogLinear,
    theta: np.ndarray,
    regressions: Regression,
    optimiser: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """One gradient step for each minibatch, from θ of shape (..., d): the off-policy regime of training.

    Parameters
    ----------
    model : LogLinear
    theta : array_like, shape (..., d)
    regressions : Regression
        With the minibatches along its first axis, as `sampled_regression` gives it.
    optimiser : callable
        (θ, gradient) → θ: `Adam`, or ``lambda theta, gradient: theta - 0.1 * gradient``.

    Examples
    --------
    >>> model = LogLinear([np.eye(2)], [[0.5, 0.5]])
    >>> batch = sampled_regression([[0.5, 0.5]], [[0, 1]], [[0.0, 1.0]], tau=1.0, part=[[0, 1]])
    >>> gradient_steps(model, [0.0, 0.0], batch, Adam(0.1)).round(3)
    array([-0.199,  0.199])
    """
    _same_actions(model, "regressions", regressions.weight)
    theta = model.parameters(theta)
    for weight, goal in zip(*regressions):
        theta = optimiser(theta, Regression(weight, goal).gradient(model, theta))
    return theta


def iterate(
    model: LogLinear,
    bandits: Sequence[Any],
    tau: ArrayLike,
    steps: int,
    *,
    rollouts: int,
    estimator: str | Callable[..., Any] = "loo_mean",
    updates: int | None = None,
    learning_rate: float = 0.05,
    ridge: float = 1e-2,
    staleness: int = 0,
    schedule: Callable[..., Any] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Train on T sampled batches; each run has its own rewards and random numbers.

    Parameters
    ----------
    model : LogLinear
        Features of shape (C, K, d), or (runs, C, K, d) if each run has its own.
    bandits : sequence of pmdtheory.bandit.Bandit
        Rewards (C, K) of each run.
    tau : float or array_like, shape (runs,)
        Temperature, positive, reward units.
    steps, rollouts : int
        T ≥ 0 batches of n ≥ 1 rollouts per context.
    estimator : str or callable
        A key of ``baselines.BASELINES``, or one's own ``(rewards, tau) -> baselines`` from arrays (runs, C, n) and
        (runs, C) to one (runs, C, n); leave-one-out needs n ≥ 2.
    updates : int, optional
        U ≥ 1 steps of `Adam` a batch, at `learning_rate`: the rollouts are dealt at random into U minibatches.
        None: fit to convergence, with `ridge`.
    staleness : int
        k ≥ 0: batch t comes from the policy after max(t − k, 0) batches, with the log-probabilities of that policy.
    schedule : callable, optional
        ``(tau, weight) -> tau`` after each batch, all of shape (runs,): the temperature of the next one, from the
        KL(π_old‖π) of this one, measured on its rollouts as the mean of ρ − 1 − log ρ (biased in sample): PMD-mean's λ
        (Statement 4).
    seed : int
        Root of the random numbers; run i uses the i-th spawned stream, so runs can be added later.

    Returns
    -------
    theta : ndarray, shape (steps + 1, runs, d)
        To be evaluated by ``model.at``, or by the model of held-out contexts.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> from pmdtheory.bandit import Bandit
    >>> model = LogLinear([np.eye(2)], [[0.5, 0.5]])
    >>> theta = iterate(model, [Bandit([0.0, 1.0])] * 3, 1.0, steps=5, rollouts=8, updates=2)
    >>> theta.shape, bool((model.at(theta[-1])[..., 1] > 0.5).all())
    ((6, 3, 2), True)
    """
    C, parts = model.policy.shape[-2], 1 if updates is None else updates
    for name, value, least, most in (
        ("steps", steps, 0, np.inf),
        ("rollouts", rollouts, 1, np.inf),
        ("updates", parts, 1, C * rollouts),
        ("staleness", staleness, 0, np.inf),
    ):
        if value != int(value) or not least <= value <= most:
            raise ValueError(f"{name} must be an integer from {least} to {most}, got {value}.")
    for bandit in bandits:
        _same_actions(model, "bandits", bandit.reward)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(len(bandits))]
    tau = simplex.positive(tau, "tau")
    if tau.shape not in ((), (len(bandits),)):
        raise ValueError(f"tau must be a number or have shape ({len(bandits)},), got shape {tau.shape}.")
    tau = np.broadcast_to(tau, (len(bandits),))
    optimiser, observed, own = Adam(learning_rate), _observation(bandits), dict(zip(streams, bandits))

    def chance(stream, out):
        for draw in own[stream].chance:
            draw(stream, out=out)

    draws = [np.random.Generator.random, chance]
    if updates is not None:
        draws.append(dealt(np.arange(C * rollouts) % parts))
    numbers = chances(streams, draws, (C, rollouts), steps)

    history = [np.zeros((len(bandits), model.features.shape[-1]))]
    for t in range(steps):
        old, theta = model.at(history[max(t - staleness, 0)]), history[-1]
        uniforms, noise, *deal = next(numbers)
        actions = draw_actions(old, uniforms)
        rewards = observed(actions, noise)
        part = deal[0].astype(int) if deal else None
        batch = sampled_regression(old, actions, rewards, tau[:, None], estimator, part)
        exact = part is None
        history.append(fit(model, batch, theta, ridge) if exact else gradient_steps(model, theta, batch, optimiser))
        if schedule:
            log_ratio = np.take_along_axis(model.log_policy(history[-1]) - np.log(old), actions, axis=-1)
            tau = schedule(tau, (np.expm1(log_ratio) - log_ratio).mean(axis=(-2, -1)))
    return np.stack(history)


def _observation(bandits):
    """(actions, chance) -> rewards of all runs, shapes (runs, C, n): bandits of one noise are one of all contexts."""
    kinds = {}
    for run, bandit in enumerate(bandits):
        kinds.setdefault((bandit.noise, bandit.noise_scale), []).append(run)
    joined = [
        (runs, replace(bandits[runs[0]], reward=np.concatenate([bandits[i].reward for i in runs]), context_weight=None))
        for runs in kinds.values()
    ]

    def observed(actions, chance):
        rewards = np.empty(actions.shape)
        for runs, bandit in joined:
            flat = (numbers[runs].reshape(-1, actions.shape[-1]) for numbers in (actions, chance))
            rewards[runs] = bandit.observed(*flat).reshape(rewards[runs].shape)
        return rewards

    return observed


def _same_actions(model, name, array):
    if array.shape[-2:] != model.policy.shape[-2:]:
        raise ValueError(f"{name} must have (contexts, actions) {model.policy.shape[-2:]}, got shape {array.shape}.")
