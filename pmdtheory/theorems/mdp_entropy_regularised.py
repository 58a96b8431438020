r"""Statement 16, B6 and B7: mirror descent in an entropy-regularised MDP converges linearly with any fixed step.

The iteration is that of ``pmdtheory.mdp.regularised``, π^{k+1} ∝ (π^k)^α e^{(1−α)Q^k/μ} with α = 1/(1+ημ), entropy
weight μ > 0 and regularised Q and V; π* is the optimal regularised policy, σ a stationary distribution of it.

.. math::

    \text{B6:} \quad & φ_k ≤ γ^k φ_0, \qquad
        φ_k = E_σ\Big[V^* − V^k + \Big(\frac1η + μ\Big) \mathrm{KL}(π^*\|π^k)\Big], \qquad
        \text{if } η ≥ \frac{1−γ}{γμ}; \\
    \text{B7:} \quad & ‖Q^* − Q^k‖_∞ ≤ γ \big(1 − (1−α)(1−γ)\big)^{k−1}
        \big(‖Q^* − Q^0‖_∞ + 2αμ ‖\log π^* − \log π^0‖_∞\big) \quad (k ≥ 1).

B6: the entropy is 1-strongly convex relative to KL, which adds μ KL(π*‖π^{k+1}) to the left of the three-point
inequality; under σ the performance difference is exactly (1−γ) gap_k, and the local improvement at most gap_k −
gap_{k+1}. So gap_{k+1} + (1/η + μ) D_{k+1} ≤ γ gap_k + D_k/η, and the assumption says 1/η ≤ γ(1/η + μ). (At
equality 1/η + μ = μ/(1−γ), the weight of the published theorem.)

B7: without normalisation Q* − μ log π^{k+1} is the α-mixture of Q* − μ log π^k and Q* − Q^k, and the soft Bellman
operator turns it into the next Q* − Q^{k+1} at a factor γ; the largest eigenvalue of the resulting linear system is
α + (1−α)γ.

Assumptions: π⁰ > 0 (`ValueError` otherwise); in B6 γ > 0 and the step size.

References
----------
Statement 16; B6 Lan, arXiv 2102.00135, Theorem 1; B7 Cen et al., arXiv 2007.06558, Theorem 1, and Zhan et al., arXiv
2105.11066.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..mdp import regularised
from ..mdp.model import MDP
from . import mdp_optimum, mdp_problems
from .claim import Claim
from .statement import claims


@claims("B6", mdp_problems.regularised_mdps)
def lan_rate(mdp: MDP, policy: ArrayLike, weight: float, eta: float, steps: int = 10) -> Claim:
    """Bound B6 on the regularised iteration.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        π⁰, positive.
    weight : float
        μ, units of reward per nat, positive.
    eta : float
        Step size η, inverse units of Q, positive.
    steps : int
        Number of iterations.

    Returns
    -------
    Claim
        φ_k against γ^k φ₀, shape (steps,).

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> claim = lan_rate(chain(3, gamma=0.5), [[0.5, 0.5]] * 3, weight=0.1, eta=10.0, steps=3)
    >>> claim.value.round(4), claim.bound.round(4), claim.assumptions
    (array([0.024 , 0.0012, 0.0002]), array([0.5517, 0.2758, 0.1379]), np.True_)
    """
    best = regularised.optimal(mdp, weight)
    run = regularised.iterate(mdp, policy, weight, eta, steps)
    divergence = (best.policy * (best.log_policy - run.log_policy)).sum(axis=-1)
    potential = (best.V - run.V + (1 / eta + weight) * divergence) @ _stationary(mdp, best.policy)
    bound = mdp.gamma ** np.arange(1, steps + 1) * potential[0]
    long_enough = np.bool_(mdp.gamma > 0) & (eta * mdp.gamma * weight >= (1 - mdp.gamma) * (1 - 1e-9))
    name = "regularised: E_σ[V*−V + (1/η+μ)KL] ≤ γ^k (·)₀"
    return Claim(name, potential[1:], bound, long_enough, scale=mdp_optimum.scale(mdp, bound, weight))


@claims("B7", mdp_problems.regularised_mdps)
def npg_rate(mdp: MDP, policy: ArrayLike, weight: float, eta: float, steps: int = 10) -> Claim:
    """Bound B7 on the regularised iteration.

    Returns
    -------
    Claim
        ‖Q* − Q^k‖∞ against its bound, shape (steps,).

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> claim = npg_rate(chain(3, gamma=0.5), [[0.5, 0.5]] * 3, weight=0.1, eta=10.0, steps=3)
    >>> claim.value.round(4), claim.bound.round(4)
    (array([0.0409, 0.0039, 0.0007]), array([0.9138, 0.6853, 0.514 ]))
    """
    best = regularised.optimal(mdp, weight)
    run = regularised.iterate(mdp, policy, weight, eta, steps)
    value = np.abs(best.Q - run.Q).max(axis=(-2, -1))
    alpha = 1 / (1 + eta * weight)
    first = value[0] + 2 * alpha * weight * np.abs(best.log_policy - run.log_policy[0]).max()
    bound = mdp.gamma * (1 - (1 - alpha) * (1 - mdp.gamma)) ** np.arange(steps) * first
    name = "regularised: ‖Q*−Q‖ ≤ γ(1−(1−α)(1−γ))^{k−1}(·)₀"
    return Claim(name, value[1:], bound, scale=mdp_optimum.scale(mdp, bound, weight))


def _stationary(mdp, policy):
    """A stationary distribution of `policy`: the least-squares solution, which mixes all of them where several are."""
    moves = mdp.induced(policy)
    moves = moves.toarray() if mdp.is_sparse else moves
    equations = np.vstack([moves.T - np.eye(mdp.states), np.ones(mdp.states)])
    solution = np.linalg.lstsq(equations, np.eye(mdp.states + 1)[-1])[0]
    return np.maximum(solution, 0.0) / np.maximum(solution, 0.0).sum()
