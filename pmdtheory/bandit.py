"""Bandits, and policy mirror descent iterated on them.

A bandit is a set of contexts with K actions each: the exact recursion uses the mean rewards, the sampled one draws n
rollouts per context from the current policy, estimates the baseline from their rewards and moves to the exact
minimiser of the sampled regression (Statement 14).

All seeds advance together as one batch. Each has a stream of random numbers of its own, so that its run is the same
whichever others there are; since what is drawn does not depend on the policies, each stream is asked for the numbers of
many steps at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from . import divergences, simplex
from .draws import chances, draw_actions
from .sampled import sampled_update
from .updates import Update, pmd_mean_update

__all__ = ["Bandit", "iterate", "random_bandit"]

_CHANCE = {  # what an observation draws
    "none": (),
    "bernoulli": (np.random.Generator.random,),
    "gaussian": (np.random.Generator.standard_normal,),
}


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
        if self.noise not in _CHANCE:
            raise ValueError(f"noise must be one of {', '.join(_CHANCE)}, got {self.noise!r}.")
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

    @property
    def chance(self) -> tuple[Callable[..., Any], ...]:
        """What an observation draws from a Generator, see ``draws.chances``; `observed` uses it."""
        return _CHANCE[self.noise]

    def observe(self, rng: np.random.Generator, actions: np.ndarray) -> np.ndarray:
        """Rewards of `actions`, shape (..., C, n), as observed with noise from the Generator `rng`."""
        return self.observed(actions, *(draw(rng, actions.shape) for draw in self.chance))

    def observed(self, actions: np.ndarray, *chance: np.ndarray) -> np.ndarray:
        """Rewards of `actions`, shape (..., C, n), given the numbers drawn for each of them."""
        every = np.broadcast_to(self.reward, (*actions.shape[:-1], self.reward.shape[1]))
        mean = np.take_along_axis(every, actions, axis=-1)
        if self.noise == "bernoulli":
            return (chance[0] < mean).astype(float)
        return mean + self.noise_scale * chance[0] if self.noise == "gaussian" else mean


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
    tau : float or array_like, shape (steps,), (problems, 1) or (problems, steps)
        Temperature, constant or of each step, reward units. Two axes make one batch of several problems, which differ
        in temperature and draw the same random numbers.
    steps : int
        T ≥ 0.
    update : callable
        ``update(policy, reward, tau) -> Update`` for the exact recursion: `kl_update`, `pmd_mean_update`, or e.g.
        ``functools.partial(mixed_update, chi2_coef=0.1)``. Not used with `rollouts`.
    rollouts : int, optional
        n rollouts per context and step: then the sampled regression is solved instead.
    estimator : str or callable
        Baseline estimator of the sampled regression: a key of ``baselines.BASELINES``, or one's own
        ``(rewards, tau) -> baselines`` from arrays (seeds, C, n) and (seeds, C) to one (seeds, C, n), with an axis of
        problems before those if `tau` has it.
    unseen : str
        Rule for the mass of unseen actions, see `sampled_update`.
    schedule : callable, optional
        ``(tau, weight) -> tau`` after each step, all of shape ([problems,] seeds): the temperature of the next one,
        from the KL(p‖q) of this one averaged over contexts, which is PMD-mean's λ (Statement 4); with `rollouts` it is
        measured on them, as the mean of ρ − 1 − log ρ, which is biased in sample. Then `tau` is the first temperature,
        a number or of shape (problems, 1).
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
        Columns step[, problem], seed[, context], reward (expected, under the mean rewards), kl, reverse_kl, chi2,
        chi2_weight, min_ratio, max_ratio (of the step that led here; NaN at step 0) and entropy. Averages over contexts
        use their probabilities; the ratios are extremes over contexts.

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
    tau = simplex.positive(tau, "tau")
    per_step, per_problem = tau.shape[-1:] == (steps,) and not schedule, tau.ndim == 2 and tau.shape[1] == 1
    if tau.ndim > 2 or not (tau.ndim == 0 or per_step or per_problem):
        also = "with a schedule or have shape" if schedule else f"or have shape ({steps},), (problems, {steps}) or"
        raise ValueError(f"tau must be a number {also} (problems, 1), got shape {tau.shape}.")
    taus, batch = np.broadcast_to(tau, (*tau.shape[:-1], steps)), (*tau.shape[:-1], seeds)
    start = simplex.distribution(policy)
    try:
        q = np.broadcast_to(start, (*batch, C, K))
    except ValueError:
        raise ValueError(f"policy must have shape ({K},) or ({C}, {K}) for this bandit, got {start.shape}.") from None
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(seeds)]
    draws = np.random.Generator.random, *bandit.chance
    numbers = chances(streams, draws, (C, rollouts), steps) if rollouts is not None else iter(())

    nothing = np.full((*batch, C), np.nan)
    columns = [_columns(bandit, q, divergences.Movement(*[nothing] * 5), nothing, per_context)]
    scheduled = np.broadcast_to(tau, batch) if schedule else None
    for t in _counter(steps, progress):
        p, tau = q, scheduled[..., None] if schedule else taus[:, t, None, None] if taus.ndim == 2 else taus[t]
        if rollouts is None:
            result = update(p, bandit.reward, tau)
        else:
            uniforms, *chance = next(numbers)
            actions = draw_actions(p, uniforms)
            rewards = bandit.observed(actions, *chance)
            result = sampled_update(p, actions, rewards, tau, baseline=estimator, unseen=unseen)
        q, moved = result.policy, divergences.movement(p, result.log_ratio)
        columns.append(_columns(bandit, q, moved, result.chi2_weight, per_context))
        if schedule:
            drawn = None if rollouts is None else np.take_along_axis(result.log_ratio, actions, axis=-1)
            weight = moved.reverse_kl if rollouts is None else (np.expm1(drawn) - drawn).mean(axis=-1)  # type: ignore[arg-type]
            scheduled = schedule(scheduled, weight @ bandit.context_weight)

    axes = {"step": steps + 1} | ({"problem": batch[0]} if taus.ndim == 2 else {}) | {"seed": seeds}
    axes |= {"context": C} if per_context else {}
    keys = dict(zip(axes, np.indices(tuple(axes.values())).reshape(len(axes), -1)))
    return pd.DataFrame(keys | {name: np.concatenate([c[name] for c in columns]) for name in columns[0]})


def _columns(bandit, q, moved, chi2_weight, per_context):
    """What the table says of one step: a vector for each column."""
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
    if not per_context:
        pick = {"min_ratio": lambda x: x.min(axis=-1), "max_ratio": lambda x: x.max(axis=-1)}
        columns = {name: pick.get(name, lambda x: x @ bandit.context_weight)(value) for name, value in columns.items()}
    return {name: value.reshape(-1) for name, value in columns.items()}


def _counter(steps, progress):
    if not progress:
        return range(steps)
    from tqdm import tqdm

    return tqdm(range(steps), desc="steps", unit="step", disable=None, leave=False)
