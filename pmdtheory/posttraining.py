r"""Post-training in miniature: what a loss gains from a budget of rollouts, in milliseconds a run.

Prompts x with K completions a each, a quarter of them right (reward 1, the others 0), and the log-linear policy

.. math:: π_θ(a|x) \propto p(a|x) e^{θ^⊤φ(x,a)/\sqrt d}

of `pmdtheory.loglinear`: prompts share θ, so that what is learnt on some carries over to others and disturbs them, as
in a network. The success rates J(x) of the start p vary over prompts with mean J. A right completion is one whose
features point along a hidden direction, up to noise, so that unseen prompts can be learnt too.

A run has B batches of U updates of 64 rollouts. The rollouts of a batch, n for each prompt, come from the policy π_old
before it, or from that of ``lag`` batches before; each update has whole groups of its own, as in `pmdllm.batch`. With
s = log(π_θ/π_old) at a rollout the update follows Adam along Σ c ∇log π_θ, and the methods are coefficients c
(Statement 17; ``llm/losses.py``):

============  ============================================  ==================================================
pmd-mean      A − τ s                                       A = r − leave-one-out mean
pmd-part      A − τ s                                       A = r − leave-one-out log-partition
weighted      w (A − τ s), w = e^{r/τ}/Ẑ of its group       A = r − leave-one-out mean (Statement 20)
grpo          ρ A, 0 where ρ = e^s left the clip range      A = (r − mean)/(sd + 1e-4)
rloo          ρ A, 0 where ρ left the clip range            A = r − leave-one-out mean
============  ============================================  ==================================================

Three things make it harder: ``flips``, the chance that a verdict is the wrong one; ``mismatch``, the spread of a noise
on the sampler's logits, fixed for each completion, of which the trainer's π_old knows nothing; ``lag``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from . import simplex
from .baselines import BASELINES
from .draws import draw_actions
from .loglinear import Adam

__all__ = ["METHODS", "Regime", "Trial", "coefficients", "first_policies", "gains"]

MINIBATCH = 64
"""Rollouts of an update."""
FEATURES, PROMPTS, HELD_OUT = 24, 192, 64
METHODS = ("pmd-mean", "pmd-part", "weighted", "grpo", "rloo")


@dataclass(frozen=True)
class Regime:
    """The circumstances of a training run.

    Attributes
    ----------
    rollouts : int
        n, for each prompt of an update; at least 2 and a divisor of 64.
    success : float
        J, the mean success rate of the start, in (0, 1).
    updates : int
        U of a batch.
    batches : int
        B of a run, which spends 64 U B rollouts.
    completions : int
        K ≥ 4 of a prompt; ⌊K/4⌋ of them are right.
    lag : int
        Age of the sampling policy in batches.
    flips : float
        Share of wrong verdicts, in [0, 0.5].
    mismatch : float
        Standard deviation of the sampler's logits around the trainer's, nats.

    Raises
    ------
    ValueError
        If an attribute is not as described; the message names it.
    """

    rollouts: int
    success: float
    updates: int
    batches: int
    completions: int = 16
    lag: int = 0
    flips: float = 0.0
    mismatch: float = 0.0

    def __post_init__(self):
        simplex.count(self.rollouts, "rollouts", 2)
        simplex.count(self.updates, "updates", 1)
        simplex.count(self.batches, "batches", 1)
        simplex.count(self.completions, "completions", 4)
        simplex.count(self.lag, "lag", 0)
        simplex.nonnegative(self.mismatch, "mismatch")
        if MINIBATCH % self.rollouts:
            raise ValueError(f"rollouts must divide {MINIBATCH}, got {self.rollouts}.")
        if not 0 < self.success < 1:
            raise ValueError(f"success must lie between 0 and 1, got {self.success}.")
        if not 0 <= self.flips <= 0.5:
            raise ValueError(f"flips must lie in [0, 0.5], got {self.flips}.")


class Trial(NamedTuple):
    """A method with its settings."""

    method: str
    """A name of `METHODS`."""
    knob: float
    """τ in reward units; of GRPO and RLOO the half-width of the clip range of ρ, ``inf`` for none."""
    rate: float
    """Learning rate of Adam."""


def gains(regime: Regime, trials: Sequence[Trial], seeds: int, seed: int = 0) -> np.ndarray:
    """What each trial gains: success rate on held-out prompts after training, minus that of the start.

    Parameters
    ----------
    regime : Regime
    trials : sequence of Trial
        All of one seed have the same prompts and random numbers, so that they can be compared in pairs.
    seeds : int
        Independent runs, each with its own prompts, features and rewards.
    seed : int
        Root of the random numbers; run i uses the i-th spawned stream.

    Returns
    -------
    ndarray, shape (trials, seeds)
        In (−1, 1).

    Raises
    ------
    ValueError
        There is no trial or no seed, a method is unknown, a knob not positive, or a rate not positive and finite.

    Examples
    --------
    >>> trials = [Trial("pmd-mean", 0.1, 0.1), Trial("grpo", 0.2, 0.1)]
    >>> gains(Regime(rollouts=8, success=0.3, updates=4, batches=2), trials, seeds=3).shape
    (2, 3)
    """
    simplex.count(seeds, "seeds", 1)
    if not trials:
        raise ValueError("trials must hold at least one.")
    for trial in trials:
        if trial.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {trial.method!r}.")
        if not trial.knob > 0:
            raise ValueError(f"knob must be positive, got {trial.knob}.")
        if not 0 < trial.rate < np.inf:
            raise ValueError(f"rate must be positive and finite, got {trial.rate}.")
    streams = [np.random.default_rng(own) for own in np.random.SeedSequence(seed).spawn(seeds)]
    world = _world(regime, streams)
    groups, place = MINIBATCH // regime.rollouts, np.arange(seeds)[:, None]
    theta = np.zeros((seeds, len(trials), FEATURES))
    optimiser, batches = Adam(1.0), [theta]  # the parameters before each batch
    rates = np.array([trial.rate for trial in trials])[:, None]
    for update in range(regime.updates * regime.batches):
        if update and update % regime.updates == 0:
            batches.append(theta)
        old = batches[max(len(batches) - 1 - regime.lag, 0)]
        prompts = np.stack([stream.integers(PROMPTS, size=groups) for stream in streams])
        uniforms = np.stack([stream.random((2, groups, regime.rollouts)) for stream in streams], axis=1)
        features, start = world.features[place, prompts], world.start[place, prompts]
        log_old, log_new = (_log_policy(features, start, parameters) for parameters in (old, theta))
        sampler = log_old + regime.mismatch * world.noise[place, prompts][:, None] if regime.mismatch else log_old
        actions = draw_actions(np.exp(sampler), uniforms[0][:, None])
        right = np.take_along_axis(world.reward[place, prompts][:, None], actions, axis=-1)
        rewards = np.where(uniforms[1][:, None] < regime.flips, 1 - right, right)
        s = np.take_along_axis(log_new - log_old, actions, axis=-1)
        gradient = _along(features, np.exp(log_new), actions, coefficients(trials, rewards, s) / MINIBATCH)
        theta = theta + rates * optimiser(0.0, gradient)
    return _success(world, theta) - _success(world, np.zeros((seeds, 1, FEATURES)))


class _World(NamedTuple):
    """Prompts of every seed, (seeds, prompts, K); the held-out ones come last."""

    features: np.ndarray  # φ/√d, with d numbers in a further axis
    start: np.ndarray  # log p
    reward: np.ndarray
    noise: np.ndarray


def _world(regime, streams):
    """Draw the prompts of every seed."""
    K, prompts = regime.completions, PROMPTS + HELD_OUT
    drawn = []
    for stream in streams:
        features = stream.normal(size=(prompts, K, FEATURES))
        direction = stream.normal(size=FEATURES)
        score = features @ (direction / np.linalg.norm(direction)) + 0.5 * stream.normal(size=(prompts, K))
        start, reward = first_policies(regime, stream, prompts, score)
        drawn.append((features / np.sqrt(FEATURES), np.log(start), reward, stream.normal(size=(prompts, K))))
    return _World(*(np.stack(arrays) for arrays in zip(*drawn)))


def first_policies(
    regime: Regime, stream: np.random.Generator, prompts: int, score: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw policies to start from, and which completions are right.

    Parameters
    ----------
    regime : Regime
        Its ``completions`` and ``success``.
    stream : numpy.random.Generator
    prompts : int
    score : ndarray, shape (prompts, K), optional
        The quarter with the highest scores is right; the first quarter by default.

    Returns
    -------
    policy, reward : ndarray, shape (prompts, K)
        A prompt's success rate has a beta distribution with mean J and a + b = 2, cut to [0.001, 0.999]: most prompts
        are easy or hard. At J = 0.02 the mean is 0.021.

    Examples
    --------
    >>> policy, reward = first_policies(Regime(8, 0.3, 1, 64), np.random.default_rng(0), 100_000)
    >>> (policy * reward).sum(axis=-1).mean().round(2), reward.mean()
    (np.float64(0.3), np.float64(0.25))
    """
    K, right = regime.completions, regime.completions // 4
    score = np.broadcast_to(-np.arange(K), (prompts, K)) if score is None else score
    reward = (score >= np.sort(score, axis=-1)[:, -right, None]).astype(float)
    J = stream.beta(2 * regime.success, 2 * (1 - regime.success), size=(prompts, 1)).clip(0.001, 0.999)
    weight = np.exp(0.5 * stream.normal(size=(prompts, K)))
    parts = ((J, weight * reward), (1 - J, weight * (1 - reward)))
    return sum(mass * part / part.sum(axis=-1, keepdims=True) for mass, part in parts), reward


def _log_policy(features, start, theta):
    """log π_θ, (seeds, trials, prompts, K)."""
    seeds, prompts, K, d = features.shape
    logits = theta @ features.reshape(seeds, prompts * K, d).swapaxes(-1, -2)
    return _normalised(logits.reshape(seeds, -1, prompts, K) + start[:, None])


def _normalised(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _along(features, policy, actions, c):
    """−Σ c ∇log π, (seeds, trials, d)."""
    seeds, trials, prompts, K = policy.shape
    cell = np.arange(seeds * trials * prompts).reshape(seeds, trials, prompts, 1) * K + actions
    pull = np.bincount(cell.ravel(), c.ravel(), policy.size).reshape(policy.shape)
    pull -= policy * c.sum(axis=-1, keepdims=True)
    return -pull.reshape(seeds, trials, -1) @ features.reshape(seeds, prompts * K, -1)


def _success(world, theta):
    """Mean success rate on the held-out prompts, (trials, seeds)."""
    held_out = slice(PROMPTS, None)
    policy = np.exp(_log_policy(world.features[:, held_out], world.start[:, held_out], theta))
    return (policy * world.reward[:, None, held_out]).sum(axis=-1).mean(axis=-1).T


def coefficients(trials: Sequence[Trial], rewards: np.ndarray, log_ratios: np.ndarray) -> np.ndarray:
    """The c of each rollout (module docstring).

    Parameters
    ----------
    trials : sequence of Trial
    rewards, log_ratios : ndarray, shape (..., trials, groups, n)
        r, and s at the present policy.

    Returns
    -------
    ndarray, shape (..., trials, groups, n)

    Examples
    --------
    >>> r, s = np.array([[[1.0, 0.0, 0.0, 0.0]]]), np.zeros((1, 1, 4))
    >>> coefficients([Trial("pmd-mean", 0.1, 0.1)], r, s).round(3)
    array([[[ 1.   , -0.333, -0.333, -0.333]]])
    """
    found = np.empty(rewards.shape)
    methods = np.array([trial.method for trial in trials])
    for method in dict.fromkeys(methods):
        own = methods == method
        knob = np.array([trial.knob for trial in trials])[own, None]
        found[..., own, :, :] = _COEFFICIENTS[method](rewards[..., own, :, :], log_ratios[..., own, :, :], knob)
    return found


def _regression(baseline):
    def c(r, s, tau):
        return r - BASELINES[baseline](r, tau) - tau[..., None] * s

    return c


def _weighted(r, s, tau):
    log_weight = (r - BASELINES["log_partition"](r, tau)) / tau[..., None]
    return np.exp(log_weight) * _regression("loo_mean")(r, s, tau)


def _clipped(advantage):
    def c(r, s, clip):
        A, ratio, clip = advantage(r), np.exp(np.minimum(s, 20.0)), clip[..., None]
        beyond = ((A > 0) & (ratio > 1 + clip)) | ((A < 0) & (ratio < 1 - clip))
        return np.where(beyond, 0.0, ratio * A)

    return c


def _standardised(r):
    return (r - r.mean(axis=-1, keepdims=True)) / (r.std(axis=-1, ddof=1, keepdims=True) + 1e-4)


_COEFFICIENTS = {
    "pmd-mean": _regression("loo_mean"),
    "pmd-part": _regression("loo_log_partition"),
    "weighted": _weighted,
    "grpo": _clipped(_standardised),
    "rloo": _clipped(lambda r: r - BASELINES["loo_mean"](r, 1.0)),
}
