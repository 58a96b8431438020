r"""Entropy-regularised MDPs: soft values, their mirror descent, and the optimal regularised policy.

With weight μ > 0 and the entropy H(π(·|x)) = −Σ_a π log π, every step also earns μ times the entropy,

.. math:: V^π(x) = E\Big[\sum_{t≥0} γ^t \big(R(x_t, a_t) + μ H(π(·|x_t))\big) \,\Big|\, x_0 = x\Big], \qquad
    Q^π = R + γ P V^π, \quad V^π = E_π[Q^π − μ \log π],

so V is the plain value for the rewards R + μH. One step with step size η is, in every state,

.. math:: π_{k+1} = \mathrm{argmax}_π\ ⟨Q_k, π⟩ + μ H(π) − \tfrac1η \mathrm{KL}(π\|π_k)
    \ ∝\ π_k^{α}\, e^{(1−α) Q_k/μ}, \qquad α = \frac{1}{1 + ημ}.

η = ∞ is soft policy iteration, π ∝ e^{Q/μ}, which converges quadratically and whose fixed point is optimal:
V* = μ log Σ_a e^{Q*/μ}. As in ``evaluation.py``, V* − V^π is at most max_x s(x)/(1 − γ), up to rounding, with the soft
advantage s = μ log Σ_a e^{(Q − V)/μ} ≥ 0 by which one soft backup raises V. Policies are kept as log-probabilities, so
none underflows. No state is terminal here: a state that every action leaves where it is goes on earning entropy.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp

from .. import simplex
from .evaluation import evaluate as evaluate_plain
from .model import MDP
from .optimum import certified

__all__ = ["SoftEvaluation", "evaluate", "iterate", "optimal"]

_MOST_STEPS = 1000  # each is a step of policy iteration, which needs a handful


@dataclass(frozen=True, eq=False)
class SoftEvaluation:
    """Exact regularised values of a policy, or of several along a leading axis.

    Attributes
    ----------
    log_policy : ndarray, shape (..., S, A)
        log π.
    V : ndarray, shape (..., S)
        Regularised value of each state.
    Q : ndarray, shape (..., S, A)
        R + γ P V: the regularisation of the state itself not included.
    A : ndarray, shape (..., S, A)
        Q − V, computed without that subtraction.
    certificate : ndarray, shape (...)
        No state is further than this below its optimal regularised value, rounding included.
    rounding : ndarray, shape (...)
        A bound on the rounding error of s.
    """

    log_policy: np.ndarray
    V: np.ndarray
    Q: np.ndarray
    A: np.ndarray
    certificate: np.ndarray
    rounding: np.ndarray

    @property
    def policy(self) -> np.ndarray:
        """π, shape (..., S, A)."""
        return np.exp(self.log_policy)


def evaluate(mdp: MDP, policy: ArrayLike, weight: float) -> SoftEvaluation:
    """Regularised values of one policy.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        Positive.
    weight : float
        μ, units of reward per nat, positive.

    Returns
    -------
    SoftEvaluation

    Raises
    ------
    ValueError
        If `policy` is not a positive policy of `mdp`, or `weight` not positive.

    Examples
    --------
    >>> bandit = MDP(P=[[[1], [1]]], R=[[0, 1]], gamma=0.5)
    >>> evaluate(bandit, [[0.5, 0.5]], weight=1.0).V.round(4)  # (1/2 + log 2)/(1 − γ)
    array([2.3863])
    """
    return _evaluate(mdp, np.log(_positive_policy(mdp, policy)), _weight(weight))


def iterate(mdp: MDP, policy: ArrayLike, weight: float, eta: float, steps: int) -> SoftEvaluation:
    """Run regularised mirror descent, which is the natural policy gradient of the regularised value.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        Where to start, positive.
    weight : float
        μ, units of reward per nat, positive.
    eta : float
        Step size η, inverse units of Q, positive; infinite for soft policy iteration.
    steps : int
        Number of steps.

    Returns
    -------
    SoftEvaluation
        Of the policies visited, the first included: leading axis steps + 1.

    References
    ----------
    Lan, arXiv 2102.00135, algorithm PMD; Cen et al., arXiv 2007.06558, entropy-regularised NPG.

    Examples
    --------
    >>> bandit = MDP(P=[[[1], [1]]], R=[[0, 1]], gamma=0.5)
    >>> iterate(bandit, [[0.5, 0.5]], weight=1.0, eta=1.0, steps=3).V[:, 0].round(3)
    array([2.386, 2.571, 2.613, 2.623])
    >>> optimal(bandit, weight=1.0).V.round(3)  # log(1 + e)/(1 − γ)
    array([2.627])
    """
    weight = _weight(weight)
    if not eta > 0:
        raise ValueError(f"eta must be positive, got {eta}.")
    visited = [_evaluate(mdp, np.log(_positive_policy(mdp, policy)), weight)]
    for _ in range(steps):
        visited.append(_evaluate(mdp, _step(visited[-1], weight, eta), weight))
    return SoftEvaluation(*(np.stack([getattr(e, field.name) for e in visited]) for field in fields(SoftEvaluation)))


def optimal(mdp: MDP, weight: float, tolerance: float | None = None) -> SoftEvaluation:
    """Optimal regularised policy, by soft policy iteration until no soft advantage exceeds rounding.

    Parameters
    ----------
    mdp : MDP
    weight : float
        μ, units of reward per nat, positive.
    tolerance : float, optional
        Largest certificate to accept, units of value; 1e-6 of the largest value by default.

    Returns
    -------
    SoftEvaluation
        Optimal to within its `certificate`.

    Raises
    ------
    ValueError
        If rounding leaves a larger certificate than `tolerance`; the message gives the one reached.
    """
    weight = _weight(weight)
    current = _evaluate(mdp, np.log(mdp.uniform_policy()), weight)
    for _ in range(_MOST_STEPS):
        if _soft_advantage(current.A, weight).max() <= 2 * current.rounding:
            break
        current = _evaluate(mdp, _step(current, weight, np.inf), weight)
    return certified(mdp, current, tolerance)


def _evaluate(mdp, log_policy, weight):
    policy = np.exp(log_policy)
    entropy = -(policy * log_policy).sum(axis=-1, keepdims=True)
    plain = evaluate_plain(MDP(mdp.P, mdp.R + weight * entropy, mdp.gamma), policy)
    A = plain.A - weight * entropy
    log_actions = 1 + np.log(mdp.actions)
    rounding = plain.rounding + np.finfo(float).eps * weight * (mdp.actions + 8) * log_actions**2
    certificate = (_soft_advantage(A, weight).max() + rounding) / (1 - mdp.gamma) + plain.error
    return SoftEvaluation(log_policy, plain.V, plain.V[:, None] + A, A, certificate, rounding)


def _soft_advantage(A, weight):
    return weight * logsumexp(A / weight, axis=-1)


def _step(current, weight, eta):
    alpha = 1 / (1 + eta * weight)
    return log_softmax(alpha * current.log_policy + (1 - alpha) * current.A / weight, axis=-1)


def _positive_policy(mdp, policy):
    policy = simplex.positive(mdp.check_policy(policy), "policy")
    if policy.shape != mdp.R.shape:
        raise ValueError(f"policy must have shape {mdp.R.shape}, got {policy.shape}.")
    return policy


def _weight(weight):
    weight = simplex.positive(weight, "weight")
    if weight.ndim:
        raise ValueError(f"weight must be one number, got shape {weight.shape}.")
    return float(weight)
