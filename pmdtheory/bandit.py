"""Bandits, and policy mirror descent iterated on them.

A bandit is a set of contexts with K actions each: the exact recursion uses the mean rewards, the sampled one draws n
rollouts per context from the current policy, estimates the baseline from their rewards and moves to the exact
minimiser of the sampled regression (Statement 14). All seeds advance together as one batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from . import divergences, simplex
from .sampled import sampled_update
from .updates import Update, pmd_mean_update

__all__ = ["Bandit", "draw_actions", "iterate", "random_bandit"]

_NOISES = ("none", "bernoulli", "gaussian")


@dataclass(frozen=True)
class Bandit:
    """A contextual bandit.

    Attributes
    ----------
    reward : ndarray, shape (C, K)
        Mean reward of each action in each context. A vector (K,) is one context.
    noise : {"none", "bernoulli", "gaussian"}
        Law of an observed reward around its mean. "bernoulli" needs mean rewards in [0, 1].
    noise_scale : float
        Standard deviation of gaussian noise, reward units.
    context_weight : ndarray, shape (C,), optional
        Probability of each context; uniform by default.

    Raises
    ------
    ValueError
        If an attribute is not as described; the message names it.

    Examples
    --------
    >>> Bandit([0.0, 0.5, 1.0], noise="bernoulli").observe(np.random.default_rng(0), np.array([[2, 2, 0]]))
    array([[1., 1., 0.]])
    """

    reward: np.ndarray
    noise: str = "none"
    noise_scale: float = 0.0
    context_weight: np.ndarray | None = None

    def __post_init__(self):
        reward = np.atleast_2d(simplex.finite(self.reward, "reward"))
        if reward.ndim != 2 or reward.size == 0:
            raise ValueError(f"reward must have shape (contexts, actions) or (actions,), got {reward.shape}.")
        if self.noise not in _NOISES:
            raise ValueError(f"noise must be one of {', '.join(_NOISES)}, got {self.noise!r}.")
        if self.noise == "bernoulli" and (reward.min() < 0 or reward.max() > 1):
            raise ValueError(f"reward must lie in [0, 1] for bernoulli noise, got {reward.min()} to {reward.max()}.")
        scale = float(simplex.nonnegative(self.noise_scale, "noise_scale"))
        contexts = len(reward)
        uniform = np.full(contexts, 1 / contexts)
        weight = uniform if self.context_weight is None else self.context_weight
        weight = simplex.distribution(weight, "context_weight")
        if weight.shape != (contexts,):
            raise ValueError(f"context_weight must have shape ({contexts},), got {weight.shape}.")
        for name, value in {"reward": reward, "noise_scale": scale, "context_weight": weight}.items():
            object.__setattr__(self, name, value)

    def observe(self, rng: np.random.Generator, actions: np.ndarray) -> np.ndarray:
        """Rewards of `actions`, shape (..., C, n), as observed with noise from the Generator `rng`."""
        every = np.broadcast_to(self.reward, (*actions.shape[:-1], self.reward.shape[1]))
        mean = np.take_along_axis(every, actions, axis=-1)
        if self.noise == "bernoulli":
            return (rng.random(mean.shape) < mean).astype(float)
        if self.noise == "gaussian":
            return mean + self.noise_scale * rng.normal(size=mean.shape)
        return mean


def random_bandit(
    rng: np.random.Generator,
    contexts: int = 1,
    actions: int = 10,
    kind: Literal["graded", "binary"] = "graded",
    success: float = 0.2,
) -> Bandit:
    """Draw a noiseless bandit: graded rewards uniform in [0, 1], or binary ones.

    Parameters
    ----------
    rng : numpy.random.Generator
    contexts, actions : int
        C and K.
    kind : {"graded", "binary"}
        Uniform rewards, or 1 with probability `success` and 0 otherwise (at least one 1 in each context).
    success : float
        Share of successful actions, in (0, 1].

    Returns
    -------
    Bandit
    """
    simplex.count(contexts, "contexts", 1)
    simplex.count(actions, "actions", 1)
    if kind == "graded":
        return Bandit(rng.random((contexts, actions)))
    if kind != "binary":
        raise ValueError(f"kind must be graded or binary, got {kind!r}.")
    if not 0 < success <= 1:
        raise ValueError(f"success must lie in (0, 1], got {success}.")
    draws = rng.random((contexts, actions))
    return Bandit((draws <= np.maximum(success, draws.min(axis=1, keepdims=True))).astype(float))


def draw_actions(policy: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Invert the distribution function of `policy`, shape (..., K), at `uniforms` in [0, 1), shape (..., n)."""
    K, n = policy.shape[-1], uniforms.shape[-1]
    cumulative = np.cumsum(policy.reshape(-1, K), axis=-1)
    cumulative /= cumulative[:, -1:]  # so that no draw lands beyond the last action of positive probability
    rows = zip(cumulative, uniforms.reshape(-1, n))
    return np.array([np.searchsorted(c, u, side="right") for c, u in rows]).reshape(uniforms.shape)


def iterate(
    bandit: Bandit,
    policy: ArrayLike,
    tau: ArrayLike,
    steps: int,
    *,
    update: Callable[..., Update] = pmd_mean_update,
    rollouts: int | None = None,
    estimator: str | Callable[..., Any] = "loo_mean",
    unseen: str = "proportional",
    schedule: Callable[..., Any] | None = None,
    seeds: int = 1,
    seed: int = 0,
    per_context: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Run policy mirror descent on a bandit.

    Parameters
    ----------
    bandit : Bandit
    policy : array_like, shape (K,) or (C, K)
        Where every run starts.
    tau : float or array_like, shape (steps,)
        Temperature, constant or of each step, reward units.
    steps : int
        T ≥ 0.
    update : callable
        ``update(policy, reward, tau) -> Update`` for the exact recursion: `kl_update`, `pmd_mean_update`, or e.g.
        ``functools.partial(mixed_update, chi2_coef=0.1)``. Not used with `rollouts`.
    rollouts : int, optional
        n rollouts per context and step: then the sampled regression is solved instead.
    estimator : str or callable
        Baseline estimator of the sampled regression: a key of ``baselines.BASELINES``, or one's own
        ``(rewards, tau) -> baselines`` from arrays (seeds, C, n) and (seeds, C) to one (seeds, C, n).
    unseen : str
        Rule for the mass of unseen actions, see `sampled_update`.
    schedule : callable, optional
        ``(tau, weight) -> tau`` after each step, all of shape (seeds,): the temperature of the next one, from the
        KL(p‖q) of this one averaged over contexts, which is PMD-mean's λ (Statement 4); with `rollouts` it is measured
        on them, as the mean of ρ − 1 − log ρ, which is biased in sample. Then `tau` is the first temperature, a number.
    seeds : int
        Number of independent runs (1 is enough without rollouts: nothing is random).
    seed : int
        Root of the random numbers; run i uses the i-th spawned stream, so runs can be added later.
    per_context : bool
        One row per context instead of their average.
    progress : bool
        Show a progress bar on standard error, where that is a terminal.

    Returns
    -------
    pandas.DataFrame
        Columns step, seed[, context], reward (expected, under the mean rewards), kl, reverse_kl, chi2, chi2_weight,
        min_ratio, max_ratio (of the step that led here; NaN at step 0) and entropy. Averages over contexts use their
        probabilities; the ratios are extremes over contexts.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> table = iterate(Bandit([0.0, 0.5, 1.0]), [0.4, 0.4, 0.2], tau=0.5, steps=3)
    >>> bool(table.reward.is_monotonic_increasing)
    True
    """
    C, K = bandit.reward.shape
    simplex.count(steps, "steps", 0)
    simplex.count(seeds, "seeds", 1)
    if rollouts is not None:
        simplex.count(rollouts, "rollouts", 1)
    start = simplex.distribution(policy)
    try:
        q = np.broadcast_to(start, (seeds, C, K)).copy()
    except ValueError:
        raise ValueError(f"policy must have shape ({K},) or ({C}, {K}) for this bandit, got {start.shape}.") from None
    tau = simplex.positive(tau, "tau")
    if tau.shape != () and (schedule or tau.shape != (steps,)):
        also = "with a schedule" if schedule else f"or have shape ({steps},)"
        raise ValueError(f"tau must be a number {also}, got shape {tau.shape}.")
    taus = np.broadcast_to(tau, (steps,))
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(seeds)]

    nothing = divergences.Movement(*np.full((5, seeds, C), np.nan))
    records = [(q, nothing, np.full((seeds, C), np.nan))]
    scheduled = np.broadcast_to(tau, (seeds,)) if schedule else None
    for t in _counter(steps, progress):
        p, tau = q, scheduled[:, None] if schedule else taus[t]
        if rollouts is None:
            result = update(p, bandit.reward, tau)
        else:
            uniforms = np.stack([stream.random((C, rollouts)) for stream in streams])
            actions = draw_actions(p, uniforms)
            rewards = np.stack([bandit.observe(stream, a) for stream, a in zip(streams, actions)])
            result = sampled_update(p, actions, rewards, tau, baseline=estimator, unseen=unseen)
        q, moved = result.policy, divergences.movement(p, result.log_ratio)
        records.append((q, moved, result.chi2_weight))
        if schedule:
            drawn = None if rollouts is None else np.take_along_axis(result.log_ratio, actions, axis=-1)
            weight = moved.reverse_kl if rollouts is None else (np.expm1(drawn) - drawn).mean(axis=-1)  # type: ignore[arg-type]
            scheduled = schedule(scheduled, weight @ bandit.context_weight)

    rows = []
    weight = bandit.context_weight
    for step, (q, moved, chi2_weight) in enumerate(records):
        columns = {
            "reward": (q * bandit.reward).sum(axis=-1),
            "kl": moved.kl,
            "reverse_kl": moved.reverse_kl,
            "chi2": moved.chi2,
            "chi2_weight": chi2_weight,
            "min_ratio": moved.min_ratio,
            "max_ratio": moved.max_ratio,
            "entropy": divergences.entropy(q),
        }
        keys = {"step": step, "seed": np.arange(seeds)}
        if per_context:
            keys = {"step": step, "seed": np.repeat(keys["seed"], C), "context": np.tile(np.arange(C), seeds)}
            columns = {name: value.reshape(-1) for name, value in columns.items()}
        else:
            pick = {"min_ratio": lambda x: x.min(axis=1), "max_ratio": lambda x: x.max(axis=1)}
            columns = {name: pick.get(name, lambda x: x @ weight)(value) for name, value in columns.items()}
        rows.append(pd.DataFrame(keys | columns))
    return pd.concat(rows, ignore_index=True)


def _counter(steps, progress):
    if not progress:
        return range(steps)
    from tqdm import tqdm

    return tqdm(range(steps), desc="steps", unit="step", disable=None, leave=False)
