r"""A log-linear policy fitted to sampled targets: generalisation and staleness without a network.

Contexts x, actions a and features φ(x, a) of d numbers give the policies

.. math:: π_θ(a|x) = \frac{p(a|x) e^{θ^⊤φ(x,a)}}{\sum_{a'} p(a'|x) e^{θ^⊤φ(x,a')}}.

Rollouts of a policy π_old (of the same family; stale if an older one) ask for log π_θ = g with the goal
g = log π_old + (r − b)/τ at each of them. With w the share of the rollouts at (x, a) and g their mean goal there, the
regression is over a common θ, normaliser included:

.. math:: L(θ) = \sum_{x,a} w \tfrac12 e^2, \quad e = \log π_θ - g, \qquad
          ∇L = \sum_{x,a} w e (φ - \bar φ), \quad ∇²L = \sum_{x,a} (w - c π_θ) (φ - \bar φ)(φ - \bar φ)^⊤,

where φ̄(x) = E_{π_θ}[φ(x, ·)] and c(x) = Σ_a w e. Weights w = π_t (all actions) make it the population regression.

Unseen actions
--------------
If every (x, a) has a θ of its own, the fit is that of `sampled_update` in each context. Where its targets leave mass
1 − m free, the way to the minimum decides who gets it. Gradient steps follow the softmax-logit flow (rule
``"softmax"`` there). A vanishing ridge picks the θ of least norm: θ_z = η p_z e^{θ_z} on unseen z, by its Lagrangian
with multiplier η of the free mass, and Σ_a θ_a = 0, that is

.. math:: θ_z = -W_0(-η p_z), \qquad q_z = p_z e^{θ_z - C}, \qquad C = \log \sum_a p_a e^{θ_a}, \qquad θ_y = d_y + C
          \text{ on seen } y.

For η > 0 unseen actions gain the more the likelier they were, as in the softmax rule.

References
----------
Statements 13 and 14 of ``pmdtheory/theorems/README.md``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from . import sampled, simplex

__all__ = ["Adam", "LogLinear", "Regression", "fit", "gradient_steps", "iterate", "population", "rollouts"]


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
        if features.ndim < 3 or features.shape[-1] == 0:
            raise ValueError(f"features must have shape (..., contexts, actions, d), got {features.shape}.")
        if policy.shape[-2:] != features.shape[-3:-1]:
            raise ValueError(f"policy must have shape (..., C, K) = {features.shape[:-1]}, got {policy.shape}.")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "policy", policy)

    def log_policy(self, theta):
        """log π_θ, shape (..., C, K), for θ of shape (..., d)."""
        with np.errstate(divide="ignore"):
            logits = np.log(self.policy) + (self.features @ theta[..., None, :, None])[..., 0]
        return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    def at(self, theta):
        """π_θ, shape (..., C, K), for θ of shape (..., d)."""
        return np.exp(self.log_policy(self.parameters(theta)))

    def parameters(self, theta, name="theta"):
        """Return θ as finite floats of shape (..., d)."""
        theta, d = simplex.finite(theta, name), self.features.shape[-1]
        if theta.shape[-1:] != (d,):
            raise ValueError(f"{name} must have shape (..., {d}), one number a feature, got {theta.shape}.")
        return theta


class Regression(NamedTuple):
    """Least squares of log π_θ on goals: Σ weight ½ (log π_θ − goal)²."""

    weight: np.ndarray
    """w, shape (..., C, K), nonnegative; its rows need not sum to 1."""
    goal: np.ndarray
    """g = log π_old + (r − b)/τ, shape (..., C, K), any finite number where w = 0."""

    def loss(self, model, theta):
        """L(θ), shape (...)."""
        return (self.weight * self._error(model.log_policy(theta)) ** 2).sum(axis=(-2, -1)) / 2

    def gradient(self, model, theta):
        """∇L(θ), shape (..., d)."""
        log_policy = model.log_policy(theta)
        pull = self.weight * self._error(log_policy)
        pull -= np.exp(log_policy) * pull.sum(axis=-1, keepdims=True)
        return (pull[..., None, :] @ model.features)[..., 0, :].sum(axis=-2)

    def hessian(self, model, theta):
        """∇²L(θ), shape (..., d, d)."""
        log_policy = model.log_policy(theta)
        policy, pull = np.exp(log_policy), self.weight * self._error(log_policy)
        centred = model.features - policy[..., None, :] @ model.features
        curved = (self.weight - pull.sum(axis=-1, keepdims=True) * policy)[..., None] * centred
        return (np.swapaxes(curved, -1, -2) @ centred).sum(axis=-3)

    def _error(self, log_policy):
        return np.where(self.weight > 0, log_policy, self.goal) - self.goal


def population(policy, reward, tau, baseline=None):
    """Regression over all actions, weighted by the policy: what infinitely many rollouts ask for.

    Parameters
    ----------
    policy, reward : array_like, shape (..., C, K)
        π_t and the mean rewards.
    tau : float or array_like, shape (..., C)
        Temperature, positive, reward units.
    baseline : array_like, shape (..., C), optional
        Reward units; E_p[r] (PMD-mean) by default.

    Returns
    -------
    Regression

    Examples
    --------
    >>> population([[0.5, 0.5]], [[0.0, 1.0]], tau=1.0).goal - np.log(0.5)
    array([[-0.5,  0.5]])
    """
    given = {} if baseline is None else {"baseline": baseline}
    p, r, tau, *b = simplex.problem(policy, reward, tau, **given)
    b = b[0] if b else (p * r).sum(axis=-1)
    goal = np.log(np.where(p > 0, p, 1.0)) + (r - b[..., None]) / tau[..., None]
    return Regression(p / p.shape[-2], goal)


def rollouts(policy, actions, rewards, tau, baseline="loo_mean", part=None):
    """Regression from n rollouts per context, or one for each minibatch of them.

    Parameters
    ----------
    policy : array_like, shape (..., C, K)
        π_old, the policy that drew the rollouts.
    actions, rewards : array_like, shape (..., C, n)
        What was drawn and its reward.
    tau, baseline
        As in `sampled_update`; a named baseline is estimated from all n rollouts of a context.
    part : array of int, shape (..., C, n), optional
        Minibatch of each rollout, 0, …, U − 1. The regression then has a new first axis of length U.

    Returns
    -------
    Regression
        Mean over the rollouts (of the minibatch).

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> rollouts([[0.5, 0.5]], [[0, 1, 1]], [[0.0, 1.0, 1.0]], tau=1.0, baseline="mean").weight.round(3)
    array([[0.333, 0.667]])
    """
    p, y, target, _ = sampled._regression(policy, actions, rewards, tau, baseline)
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
    weight = count / np.maximum(count.sum(axis=(-2, -1), keepdims=True), 1)
    result = Regression(weight, total / np.maximum(count, 1))
    return Regression(*(x[0] for x in result)) if part is None else result


def fit(model, regression, start=None, ridge=0.0, tolerance=1e-10, max_steps=1000):
    """Fit θ to convergence by damped Newton steps, curvatures taken by size so that none leads uphill.

    Parameters
    ----------
    model : LogLinear
    regression : Regression
    start : array_like, shape (..., d), optional
        Where to start, 0 by default.
    ridge : float
        ε ≥ 0: adds ε/2 ‖θ − start‖² to the loss. With 0, what the data leave undetermined depends on the path.
    tolerance : float
        On the Euclidean norm of the gradient, dimensionless.
    max_steps : int

    Returns
    -------
    theta : ndarray, shape (..., d)
        A local minimum. If the targets ask for more mass than there is, unseen actions that have features of their
        own lose theirs without end; the fit stops at the tolerance.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.
    FloatingPointError
        If the gradient is not within `tolerance` after `max_steps`.

    Examples
    --------
    >>> model = LogLinear([np.eye(2)], [[0.5, 0.5]])
    >>> model.at(fit(model, population([[0.5, 0.5]], [[0.0, 1.0]], tau=1.0))).round(4)
    array([[0.2862, 0.7138]])
    """
    ridge = float(simplex.nonnegative(ridge, "ridge"))
    shape, d = _batch(model, regression), model.features.shape[-1]
    start = np.broadcast_to(model.parameters(np.zeros(d) if start is None else start, "start"), (*shape, d))
    theta, damping = start.copy(), np.ones((*shape, 1))

    def loss(theta):
        return regression.loss(model, theta) + ridge / 2 * ((theta - start) ** 2).sum(axis=-1)

    for _ in range(max_steps):
        gradient = regression.gradient(model, theta) + ridge * (theta - start)
        size = np.linalg.norm(gradient, axis=-1)
        if np.all(size <= tolerance):
            return theta
        curvature, axes = np.linalg.eigh(regression.hessian(model, theta) + ridge * np.eye(d))
        along = np.swapaxes(axes, -1, -2) @ gradient[..., None]
        new = theta - (axes @ (along / (np.abs(curvature) + damping)[..., None]))[..., 0]
        now = loss(theta)
        accept = ((loss(new) <= now * (1 + 1e-14)) & (size > tolerance))[..., None]
        theta, damping = np.where(accept, new, theta), np.maximum(np.where(accept, damping / 8, damping * 4), 1e-13)
    raise FloatingPointError(
        f"fit did not converge: gradient norm {size.max():.1e} after max_steps = {max_steps}, tolerance {tolerance:g}."
    )


class Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980) as a function (θ, gradient) → θ that keeps its moments between calls.

    Parameters
    ----------
    learning_rate : float
        Positive.
    beta1, beta2, epsilon : float
        Decay of the two moments, and what is added to the root of the second.
    """

    def __init__(self, learning_rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
        self.learning_rate = float(simplex.positive(learning_rate, "learning_rate"))
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.mean = self.square = 0.0
        self.count = 0

    def __call__(self, theta, gradient):
        self.count += 1
        self.mean = self.beta1 * self.mean + (1 - self.beta1) * gradient
        self.square = self.beta2 * self.square + (1 - self.beta2) * gradient**2
        mean, square = self.mean / (1 - self.beta1**self.count), self.square / (1 - self.beta2**self.count)
        return theta - self.learning_rate * mean / (np.sqrt(square) + self.epsilon)


def gradient_steps(model, theta, regressions, optimiser):
    """One gradient step for each minibatch: the off-policy regime of training.

    Parameters
    ----------
    model : LogLinear
    theta : array_like, shape (..., d)
        Where to start.
    regressions : Regression
        With the minibatches along its first axis, as `rollouts` with `part` returns it.
    optimiser : callable
        (θ, gradient) → θ: `Adam`, or ``lambda theta, gradient: theta - 0.1 * gradient``.

    Returns
    -------
    theta : ndarray, shape (..., d)
    """
    theta = model.parameters(theta)
    for weight, goal in zip(*regressions):
        theta = optimiser(theta, Regression(weight, goal).gradient(model, theta))
    return theta


def iterate(
    model,
    bandits,
    tau,
    steps,
    *,
    rollouts_per_context,
    estimator="loo_mean",
    updates=None,
    learning_rate=0.05,
    ridge=1e-3,
    staleness=0,
    seed=0,
):
    """Train on sampled batches; every run has its own problem and its own random numbers.

    Parameters
    ----------
    model : LogLinear
        ``features`` of shape (C, K, d), or (runs, C, K, d) if each run has its own.
    bandits : sequence of pmdtheory.bandit.Bandit
        The rewards of each run, C contexts with K actions.
    tau : float
        Temperature, positive, reward units.
    steps : int
        T ≥ 0 batches.
    rollouts_per_context : int
        n ≥ 1 (leave-one-out needs 2).
    estimator : str
        Name of a baseline estimator.
    updates : int, optional
        U ≥ 1 Adam steps a batch: the batch is dealt at random into U minibatches, each used once. None: fit to
        convergence, with `ridge`.
    learning_rate : float
        Of Adam, whose moments live through the whole run.
    ridge : float
        Only for the converged fit.
    staleness : int
        k ≥ 0: batch t is drawn from the policy before batch t − k, whose own log-probabilities enter the loss.
    seed : int
        Root of the random numbers; run i uses the i-th spawned stream, so runs can be added later.

    Returns
    -------
    theta : ndarray, shape (steps + 1, runs, d)
        Evaluate it with ``model.at``, or with the model of held-out contexts.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.
    """
    counts = {"steps": (steps, 0), "rollouts_per_context": (rollouts_per_context, 1), "staleness": (staleness, 0)}
    counts |= {} if updates is None else {"updates": (updates, 1)}
    for name, (value, least) in counts.items():
        if value != int(value) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value}.")
    C, K = model.policy.shape[-2:]
    for bandit in bandits:
        if bandit.reward.shape != (C, K):
            raise ValueError(f"bandits must have rewards of shape ({C}, {K}), got {bandit.reward.shape}.")
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(len(bandits))]
    shape, optimiser = (C, rollouts_per_context), Adam(learning_rate)
    if updates is not None and updates > C * rollouts_per_context:
        raise ValueError(f"updates must be at most the {C * rollouts_per_context} rollouts of a batch, got {updates}.")

    history = [np.zeros((len(bandits), model.features.shape[-1]))]
    for t in range(steps):
        old = model.at(history[max(t - staleness, 0)])
        actions = _draw(old, np.stack([stream.random(shape) for stream in streams]))
        rewards = np.stack([b.observe(stream, a) for b, stream, a in zip(bandits, streams, actions)])
        if updates is None:
            batch = rollouts(old, actions, rewards, tau, estimator)
            history.append(fit(model, batch, history[-1], ridge))
        else:
            labels = np.arange(C * rollouts_per_context) % updates
            part = np.stack([stream.permutation(labels).reshape(shape) for stream in streams])
            batch = rollouts(old, actions, rewards, tau, estimator, part)
            history.append(gradient_steps(model, history[-1], batch, optimiser))
    return np.stack(history)


def _draw(policy, uniforms):
    """Invert the distribution functions of `policy`, shape (..., K), at `uniforms`, shape (..., n)."""
    cumulative = np.cumsum(policy, axis=-1)
    cumulative /= cumulative[..., -1:]
    return (cumulative[..., None, :] <= uniforms[..., None]).sum(axis=-1)


def _batch(model, regression):
    try:
        return np.broadcast_shapes(regression.weight.shape, model.features.shape[:-1], model.policy.shape)[:-2]
    except ValueError:
        raise ValueError(
            f"regression must broadcast with the (..., C, K) = {model.features.shape[:-1]} of the model, "
            f"got shape {regression.weight.shape}."
        ) from None
