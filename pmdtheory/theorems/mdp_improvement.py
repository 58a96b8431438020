r"""Statement 15: one iteration improves the value of every state of an MDP.

In state x the update is applied to π(·|x) with reward Q(x, ·); the baseline of PMD-mean is E_π Q = V. With exact Q,

.. math::

    V^{π'}(x) − V^π(x) ≥ E_{π'} A^π(x, ·) ≥ 0 \quad\text{for PMD-mean and for the KL update,}

and with any Q̂ that is off by at most ε, and the baseline E_π Q̂, V^{π'} ≥ V^π − 2ε/(1 − γ). By the performance
difference lemma V^{π'}(x) − V^π(x) is the mean of E_{π'}A^π over the occupancy of π' from x, divided by 1 − γ; every
term is nonnegative (Statement 5), and x itself has occupancy at least 1 − γ. In the inexact case Statement 5 is about
Q̂, and replacing Q by Q̂ costs at most 2ε in every state. In a terminal state Q = 0, so λ = 0 and π' = π.

Assumptions: none; (b) measures the errors of the oracle it is given, and (c) is about terminal states only.

References
----------
Statement 15; the performance difference lemma: Kakade and Langford, ICML 2002.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import updates
from ..mdp import evaluate, inexact, iterate
from ..mdp.model import MDP
from . import mdp_optimum, mdp_problems
from .claim import Claim
from .statement import claims

_UPDATES = {"PMD-mean": "pmd_mean_update", "KL": "kl_update"}


@claims("15(a)", mdp_problems.mdps)
def pmd_mean_improves(mdp: MDP, policy: ArrayLike, tau: float, steps: int = 5) -> Claim:
    """Every state improves by at least E_{π'}A ≥ 0 in each PMD-mean iteration with exact Q.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        The first policy.
    tau : float
        Temperature, units of Q, positive.
    steps : int
        Number of iterations.

    Returns
    -------
    Claim
        max(E_{π'}A, 0) against V' − V, shape (steps, S).

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> claim = pmd_mean_improves(chain(2, slip=0.0, gamma=0.5), [[0.5, 0.5]] * 2, tau=0.5, steps=1)
    >>> claim.value.round(3), claim.bound.round(3)
    (array([[0.027, 0.462]]), array([[0.36, 0.86]]))
    """
    return _improves("PMD-mean", mdp, policy, tau, steps)


@claims("15(a)", mdp_problems.mdps)
def kl_improves(mdp: MDP, policy: ArrayLike, tau: float, steps: int = 5) -> Claim:
    """Every state improves by at least E_{π'}A ≥ 0 in each KL iteration; as `pmd_mean_improves`."""
    return _improves("KL", mdp, policy, tau, steps)


def improvement_along(
    mdp: MDP, policies: list[np.ndarray], values: ArrayLike, name: str = "V' − V ≥ E_{π'}[A] ≥ 0"
) -> Claim:
    """Evaluate the claim on policies already visited, such as the ones that ``mdp.iterate(keep=…)`` returns.

    Parameters
    ----------
    mdp : MDP
    policies : ndarray, shape (T + 1, S, A)
        ``kept["policy"]``.
    values : ndarray, shape (T + 1, S)
        ``kept["V"]``.
    name : str
        Of the claim.

    Returns
    -------
    Claim
        Shape (T, S).
    """
    Q = np.stack([mdp.backup(V) for V in values[:-1]])
    local = ((policies[1:] - policies[:-1]) * Q).sum(axis=-1)
    gain = np.diff(values, axis=0)
    return Claim(name, np.maximum(local, 0.0), gain, scale=mdp_optimum.scale(mdp, gain))


@claims("15(b)", mdp_problems.mdps_with_errors)
def pmd_mean_improves_inexactly(
    mdp: MDP, policy: ArrayLike, tau: float, error: float, oracle: Any = None, steps: int = 5
) -> Claim:
    """No state loses more than 2ε/(1−γ) in a PMD-mean iteration whose Q̂ is off by at most ε.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        The first policy.
    tau : float
        Temperature, units of Q, positive.
    error : float
        ε ≥ 0, units of Q.
    oracle : callable, optional
        Of `pmdtheory.mdp.inexact`, ``adversarial(error)`` by default. Its errors are measured, and the claim is made
        where they are at most ε.
    steps : int
        Number of iterations.

    Returns
    -------
    Claim
        V − V' against 2ε/(1−γ), shape (steps, S).

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> claim = pmd_mean_improves_inexactly(chain(2, gamma=0.5), [[0.5, 0.5]] * 2, tau=0.5, error=0.5, steps=1)
    >>> claim.value.round(3), claim.bound  # one state does lose
    (array([[ 0.058, -0.144]]), 2.0)
    """
    return _improves_inexactly("PMD-mean", mdp, policy, tau, error, oracle, steps)


@claims("15(b)", mdp_problems.mdps_with_errors)
def kl_improves_inexactly(
    mdp: MDP, policy: ArrayLike, tau: float, error: float, oracle: Any = None, steps: int = 5
) -> Claim:
    """No state loses more than 2ε/(1−γ) in a KL iteration; as `pmd_mean_improves_inexactly`."""
    return _improves_inexactly("KL", mdp, policy, tau, error, oracle, steps)


@claims("15(c)", mdp_problems.episodic_mdps)
def terminal_states_stay(mdp: MDP, policy: ArrayLike, tau: float) -> Claim:
    """In terminal states λ = 0 and q = p, for PMD-mean and for KL.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
    tau : float
        Temperature, units of Q, positive.

    Returns
    -------
    Claim
        The largest change of a probability plus λ, against 0, shape (2, S); assumed in terminal states.

    Examples
    --------
    >>> from pmdtheory.mdp import gridworld
    >>> terminal_states_stay(gridworld(1, 2), [[0.25] * 4] * 2, tau=0.5).value[:, 1]
    array([0., 0.])
    """
    truth = evaluate(mdp, policy)
    steps = [getattr(updates, name)(truth.policy, truth.Q, tau) for name in _UPDATES.values()]
    moved = [np.abs(step.policy - truth.policy).max(axis=-1) + np.abs(step.chi2_weight) for step in steps]
    return Claim("terminal states: q = p, λ = 0", np.stack(moved), 0.0, mdp.terminal, relation="==", scale=1.0)


def _improves(which, mdp, policy, tau, steps):
    run = iterate(mdp, policy, getattr(updates, _UPDATES[which]), tau, steps, keep=["V", "policy"])
    return improvement_along(mdp, run.kept["policy"], run.kept["V"], f"{which}: V' − V ≥ E_{{π'}}[A] ≥ 0")


def _improves_inexactly(which, mdp, policy, tau, error, oracle, steps):
    oracle = inexact.adversarial(error) if oracle is None else oracle
    errors = []

    def measured(mdp, truth, rng):
        Q = oracle(mdp, truth, rng)
        errors.append(np.abs(Q - truth.Q).max())
        return Q

    V = iterate(mdp, policy, getattr(updates, _UPDATES[which]), tau, steps, evaluation=measured, keep=["V"]).kept["V"]
    small = np.array(errors)[:, None] <= error * (1 + 1e-9)
    lost = 2 * error / (1 - mdp.gamma)
    return Claim(
        f"{which}: V − V' ≤ 2ε/(1−γ), error ε in Q",
        -np.diff(V, axis=0),
        lost,
        small,
        scale=mdp_optimum.scale(mdp, lost),
    )
