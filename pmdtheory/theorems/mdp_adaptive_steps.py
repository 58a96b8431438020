r"""Statement 16, B1 to B3: steps long enough to be nearly greedy converge as fast as policy iteration.

The ideal step of a mirror map h (KL by default), with step sizes η_k = 1/τ_k that satisfy

.. math:: η_k ≥ \max_x \min_{\text{greedy}\ π̃} D_h(π̃\|π^k)(x) / c_k, \qquad c_k = c_0 γ^{2H(k+1)},

greedy being meant for the Q of the step. For KL the minimum is −log π^k(greedy set). With e_k = ‖V* − V^k‖∞,

.. math::

    \text{B1 (exact, H = 1):} \quad e_k &≤ γ^k \Big(e_0 + \frac{c_0}{1−γ}\Big), \\
    \text{B2 (lookahead H, } Q = R + γPT^{H−1}V^k\text{):} \quad
        e_k &≤ γ^{Hk} \Big(e_0 + \frac{c_0 γ^H}{(1−γ)(1−γ^H)}\Big), \\
    \text{B3 (} ‖Q̂ − Q^k‖_∞ ≤ ε, H = 1\text{):} \quad e_k &≤ γ^k \Big(e_0 + \frac{c_0}{1−γ}\Big) + \frac{2ε}{(1−γ)^2}.

B1. The three-point inequality at the greedy policy says that the new policy takes at least max_a Q^k − c_k, so
V^{k+1} ≥ T^{π^{k+1}} V^k ≥ TV^k − c_k and e_{k+1} ≤ γ e_k + c_k; unrolled, the second term is c₀ Σ γ^{i+1} γ^k.

B2 (constant derived here). With Y = T^{H−1}V^k, T^{π^{k+1}} Y ≥ TY − c_k ≥ Y − c_k; applying T^{π^{k+1}} again and
again, V^{k+1} ≥ T^H V^k − c_k/(1−γ), and e_{k+1} ≤ γ^H e_k + c_k/(1−γ).

B3 (constant derived here). Replacing Q by Q̂ costs 2ε in the new policy's T^{π^{k+1}} V^k, once against TV^k and once,
times γ/(1−γ), because that backup may now fall short of V^k: e_{k+1} ≤ γ e_k + c_k + 2ε/(1−γ). Gaps are of exact
values.

Assumptions, all checked on the run itself: γ > 0, every step so far met its condition (it cannot if π⁰ excludes the
greedy actions and D_h is then infinite), and in B3 every error is at most ε.

References
----------
Statement 16; B1 Johnson, Pike-Burke, Rebeschini, arXiv 2302.11381; B2 after Protopapas and Barakat, arXiv 2403.14156.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..mdp import inexact, iterate, lookahead_values, optimal
from ..mdp.mirror_maps import kl_to_greedy
from ..mdp.model import MDP
from . import mdp_optimum, mdp_problems
from .claim import Claim
from .statement import claims


def gamma_linear_bound(gamma: float, first_gap: float, c0: float, steps: int, error: float = 0.0) -> np.ndarray:
    """Bounds B1 and B3 after 1, …, `steps` iterations.

    Parameters
    ----------
    gamma : float
        Discount.
    first_gap : float
        ‖V* − V⁰‖∞.
    c0 : float
        c₀, units of Q.
    steps : int
    error : float
        ε of B3.

    Returns
    -------
    ndarray, shape (steps,)

    Examples
    --------
    >>> gamma_linear_bound(0.5, first_gap=1.0, c0=0.5, steps=3)
    array([1.  , 0.5 , 0.25])
    """
    k = np.arange(1, steps + 1)
    return gamma**k * (first_gap + c0 / (1 - gamma)) + 2 * error / (1 - gamma) ** 2


def lookahead_bound(gamma: float, first_gap: float, c0: float, depth: int, steps: int) -> np.ndarray:
    """Bound B2 after 1, …, `steps` iterations with lookahead `depth`; otherwise as `gamma_linear_bound`.

    Examples
    --------
    >>> lookahead_bound(0.5, first_gap=1.0, c0=1.5, depth=2, steps=2)
    array([0.5  , 0.125])
    """
    k, contraction = np.arange(1, steps + 1), gamma**depth
    return contraction**k * (first_gap + c0 * contraction / ((1 - gamma) * (1 - contraction)))


@claims("B1", mdp_problems.mdps)
def gamma_linear_rate(mdp: MDP, policy: ArrayLike, c0: float, mirror: Any = None, steps: int = 10) -> Claim:
    """Bound B1 on the iteration with adaptive steps.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A)
        π⁰.
    c0 : float
        c₀, units of Q, positive.
    mirror : mirror map, optional
        `Euclidean()` or `Tsallis(…)`; the KL update by default.
    steps : int
        Number of iterations.

    Returns
    -------
    Claim
        ‖V* − V^k‖∞ against its bound, shape (steps,).

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> claim = gamma_linear_rate(chain(4, gamma=0.5), [[0.5, 0.5]] * 4, c0=0.1, steps=3)
    >>> claim.value.round(3), claim.bound.round(3), claim.assumptions
    (array([0.063, 0.   , 0.   ]), array([0.683, 0.341, 0.171]), array([ True,  True,  True]))
    """
    gaps, met, _ = _run(mdp, policy, c0, mirror, steps)
    bound = gamma_linear_bound(mdp.gamma, gaps[0], c0, steps)
    return _claim("adaptive steps: ‖V*−V‖ ≤ γ^k(gap₀ + c₀/(1−γ))", mdp, gaps, bound, met)


@claims("B2", mdp_problems.mdps_with_lookahead)
def lookahead_rate(mdp: MDP, policy: ArrayLike, c0: float, depth: int, mirror: Any = None, steps: int = 10) -> Claim:
    """Bound B2 on the iteration with adaptive steps and lookahead H = `depth` ≥ 1; otherwise as `gamma_linear_rate`."""
    gaps, met, _ = _run(mdp, policy, c0, mirror, steps, depth)
    bound = lookahead_bound(mdp.gamma, gaps[0], c0, depth, steps)
    return _claim("lookahead H: ‖V*−V‖ ≤ γ^{Hk}(gap₀ + c)", mdp, gaps, bound, met)


@claims("B3", mdp_problems.mdps_with_errors)
def inexact_rate(
    mdp: MDP, policy: ArrayLike, c0: float, error: float, oracle: Any = None, mirror: Any = None, steps: int = 10
) -> Claim:
    """Bound B3 on the iteration with adaptive steps and inexact evaluation; otherwise as `gamma_linear_rate`.

    Parameters
    ----------
    error : float
        ε ≥ 0, units of Q.
    oracle : callable, optional
        Of `pmdtheory.mdp.inexact`; ``adversarial(error)`` by default.
    """
    oracle = inexact.adversarial(error) if oracle is None else oracle
    gaps, met, errors = _run(mdp, policy, c0, mirror, steps, oracle=oracle)
    small = np.maximum.accumulate(errors) <= error * (1 + 1e-9)
    bound = gamma_linear_bound(mdp.gamma, gaps[0], c0, steps, error)
    return _claim("error ε in Q: B1 + 2ε/(1−γ)²", mdp, gaps, bound, met & small)


def _run(mdp, policy, c0, mirror, steps, depth=1, oracle=inexact.exact):
    """Return ‖V* − V^k‖∞ for k ≤ steps, whether the first k steps were all long enough, and the errors of Q̂."""
    update = mdp_optimum.step_of(mirror)
    distance = getattr(update, "distance_to_greedy", kl_to_greedy)
    farthest, errors = [], []

    def recorded(mdp, truth, rng):
        Q = oracle(mdp, truth, rng)
        errors.append(np.abs(Q - truth.Q).max())
        farthest.append(distance(truth.policy, lookahead_values(mdp, Q, depth)).max())
        return Q

    with np.errstate(divide="ignore"):  # the distance to a greedy action that the policy excludes is infinite
        table = iterate(
            mdp,
            policy,
            update,
            c0,
            steps,
            step_sizes="adaptive",
            lookahead=depth,
            evaluation=recorded,
            optimal_value=optimal(mdp).V,
        ).table
    allowed = c0 * mdp.gamma ** (2 * depth * np.arange(1, steps + 1))
    long_enough = table.tau.to_numpy()[1:] * farthest <= allowed * (1 + 1e-9)
    met = np.logical_and.accumulate(long_enough) & (mdp.gamma > 0)
    return table.max_gap.to_numpy(), met, np.array(errors)


def _claim(name, mdp, gaps, bound, met):
    return Claim(name, gaps[1:], bound, met, scale=mdp_optimum.scale(mdp, bound))
