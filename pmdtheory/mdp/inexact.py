r"""What a learner believes about Q: exact, perturbed, from a generative model, or from rollouts.

Each oracle is a callable ``(mdp, truth, rng) -> Q`` of shape (S, A); `truth` is the exact `Evaluation` of the current
policy, so that oracles which perturb it need no second solve. Terminal states are known to the learner: there Q = 0.

============================  ==============================================================================
``exact``                     Q̂ = Q
``adversarial(error)``        Q̂ = Q − ε sign(A): the largest error within ±ε that hurts most
``noise(scale)``              Q̂ = Q + independent Gaussian errors
``generative(samples)``       Q of the empirical MDP, n sampled next states for each state and action
``rollouts(episodes, H)``     average of n discounted returns over H steps, for each state and action
============================  ==============================================================================
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from .. import simplex
from .evaluation import Evaluation, evaluate
from .model import MDP, column_sampler

__all__ = ["adversarial", "exact", "generative", "noise", "rollouts"]


def exact(mdp: MDP, truth: Evaluation, rng: np.random.Generator) -> np.ndarray:
    """Return the exact Q of the policy that `truth` evaluates."""
    return truth.Q


def adversarial(error: float) -> Callable[..., np.ndarray]:
    r"""Bounded worst-case error: Q̂ = Q − ε sign(A).

    A short step moves the policy by p (Q̂ − E_p Q̂)/τ and so gains Cov_p(Q̂, Q)/τ. Among all errors within ±ε this is
    least for e = −ε sign(A): good actions look worse and bad ones better, and where ε exceeds \|A\| their order is
    reversed. Over many steps it is a greedy adversary, not a proven worst one.

    Parameters
    ----------
    error : float
        ε ≥ 0, units of Q.

    Returns
    -------
    callable
        An oracle.
    """
    error = float(simplex.nonnegative(error, "error"))

    def oracle(mdp, truth, rng):
        # The advantages of a deterministic policy's own actions are 0 up to rounding, whose sign means nothing.
        certain = np.abs(truth.A) > 1e-12 * np.abs(truth.Q).max()
        return truth.Q - error * np.where(certain, np.sign(truth.A), 0.0)

    return oracle


def noise(scale: float) -> Callable[..., np.ndarray]:
    """Independent Gaussian errors of standard deviation `scale` ≥ 0 (units of Q), drawn afresh for each iteration."""
    scale = float(simplex.nonnegative(scale, "scale"))
    return lambda mdp, truth, rng: np.where(
        mdp.terminal[:, None], 0.0, truth.Q + scale * rng.normal(size=truth.Q.shape)
    )


def generative(samples: int) -> Callable[..., np.ndarray]:
    """Q of the empirical MDP from `samples` next states of every state and action, drawn afresh for each iteration.

    The expected rewards are known. The error is of order γ R_max / ((1 − γ)² √n) at most.

    Parameters
    ----------
    samples : int
        n ≥ 1.

    Returns
    -------
    callable
        An oracle.
    """
    simplex.count(samples, "samples", 1)

    def oracle(mdp, truth, rng):
        pair = np.repeat(np.arange(mdp.R.size), samples)
        drawn = mdp.next_states(rng, *np.divmod(pair, mdp.actions))
        counts = sparse.coo_array((np.full(pair.size, 1 / samples), (pair, drawn)), shape=mdp.rows.shape)
        P = counts if mdp.is_sparse else counts.toarray().reshape(mdp.P.shape)
        return evaluate(MDP(P, mdp.R, mdp.gamma, mdp.rho), truth.policy).Q

    return oracle


def rollouts(episodes: int, horizon: int) -> Callable[..., np.ndarray]:
    r"""Monte Carlo: for every state and action the mean of `episodes` discounted returns over `horizon` steps.

    Cutting off biases Q by at most γ^H max\|R\| / (1 − γ); rewards are observed without noise.

    Parameters
    ----------
    episodes : int
        n ≥ 1.
    horizon : int
        H ≥ 1, steps.

    Returns
    -------
    callable
        An oracle.
    """
    simplex.count(episodes, "episodes", 1)
    simplex.count(horizon, "horizon", 1)

    def oracle(mdp, truth, rng):
        choose = column_sampler(truth.policy)
        state, action = np.divmod(np.repeat(np.arange(mdp.R.size), episodes), mdp.actions)
        total = mdp.R[state, action]
        for t in range(1, horizon):
            state = mdp.next_states(rng, state, action)
            action = choose(rng, state)
            total = total + mdp.gamma**t * mdp.R[state, action]
        return total.reshape(*mdp.R.shape, episodes).mean(axis=-1)

    return oracle
