r"""Entropy-regularised MDPs: soft values, their mirror descent, and the optimal regularised policy.

With weight μ > 0 and the entropy H(π(·|x)) = −Σ_a π log π, every step also earns μ times the entropy,

.. math:: V^π(x) = E\Big[\sum_{t≥0} γ^t \big(R(x_t, a_t) + μ H(π(·|x_t))\big) \,\Big|\, x_0 = x\Big], \qquad
    Q^π = R + γ P V^π, \quad V^π = E_π[Q^π − μ \log π],

so V is the plain value for the rewards R + μH. One step with step size η is, in every state,

.. math:: π_{k+1} = \mathrm{argmax}_π\ ⟨Q_k, π⟩ + μ H(π) − \tfrac1η \mathrm{KL}(π\|π_k)
    \ ∝\ π_k^{α}\, e^{(1−α) Q_k/μ}, \qquad α = \frac{1}{1 + ημ}.

η = ∞ is soft policy iteration, π ∝ e^{Q/μ}, which converges quadratically and whose fixed point is optimal:
V* = μ log Σ_a e^{Q*/μ}. Policies are kept as log-probabilities, so none underflows. No state is terminal here: a
state that every action leaves where it is goes on earning entropy.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from .. import simplex
from .evaluation import evaluate as evaluate_plain
from .model import MDP

__all__ = ["SoftEvaluation", "evaluate", "iterate", "optimal"]


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
    """

    log_policy: np.ndarray
    V: np.ndarray
    Q: np.ndarray

    @property
    def policy(self):
        """π, shape (..., S, A)."""
        return np.exp(self.log_policy)


def evaluate(mdp, policy, weight):
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


def iterate(mdp, policy, weight, eta, steps):
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
    return SoftEvaluation(*(np.stack([getattr(e, name) for e in visited]) for name in ("log_policy", "V", "Q")))


def optimal(mdp, weight):
    """Optimal regularised policy, by soft policy iteration until no value rises beyond rounding.

    Parameters
    ----------
    mdp : MDP
    weight : float
        μ, units of reward per nat, positive.

    Returns
    -------
    SoftEvaluation
    """
    weight = _weight(weight)
    current = _evaluate(mdp, np.log(mdp.uniform_policy()), weight)
    while True:
        better = _evaluate(mdp, _step(current, weight, np.inf), weight)
        rounding = 16 * np.finfo(float).eps * np.abs(current.Q).max() / (1 - mdp.gamma)
        if (better.V - current.V).max() <= rounding:
            return better
        current = better


def _evaluate(mdp, log_policy, weight):
    policy = np.exp(log_policy)
    entropy = -(policy * log_policy).sum(axis=-1, keepdims=True)
    V = evaluate_plain(MDP(mdp.P, mdp.R + weight * entropy, mdp.gamma), policy).V
    return SoftEvaluation(log_policy, V, mdp.backup(V))


def _step(current, weight, eta):
    alpha = 1 / (1 + eta * weight)
    return log_softmax(alpha * current.log_policy + (1 - alpha) * current.Q / weight, axis=-1)


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
