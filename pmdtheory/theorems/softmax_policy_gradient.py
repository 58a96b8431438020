r"""Statement 16, B9: exact policy gradient on softmax logits in a bandit, for comparison.

Rewards in [0, 1], logits θ with π = softmax(θ), step 2/5,

.. math:: θ_{t+1} = θ_t + \tfrac25 π_t (r − E_{π_t}[r]), \qquad
    gap_t = r^* − E_{π_t}[r] ≤ \frac{5}{c_t^2\, t} \quad (t ≥ 1), \qquad c_t = \min_{s<t} π_s(a^*),

a* a best action. The expected reward is 5/2-smooth in θ, so a step gains at least ‖∇‖²/5, and ‖∇‖ is at least its
coordinate π_t(a*) gap_t: 1/gap_{t+1} ≥ 1/gap_t + π_t(a*)²/5. The published c is the infimum over all t; the proof needs
only the steps taken, which can be computed, and is then the smaller bound.

Assumptions: rewards in [0, 1], step 2/5. r* is the largest reward on the support of π₀.

References
----------
Statement 16; Mei, Xiao, Szepesvári, Schuurmans, arXiv 2005.06392, Theorem 2.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex
from . import mdp_problems
from .claim import Claim
from .statement import claims


@claims("B9", mdp_problems.unit_contexts)
def softmax_gradient_rate(policy: ArrayLike, reward: ArrayLike, steps: int = 50, step: ArrayLike=0.4) -> Claim:
    """Bound B9 on the policy-gradient recursion.

    Parameters
    ----------
    policy, reward : array_like, shape (..., K)
        First policy π₀ and rewards.
    steps : int
        Number T of steps.
    step : float
        Step size; the bound is for 2/5.

    Returns
    -------
    Claim
        The reward gap against its bound after 1, …, T steps; shape (..., T).

    Examples
    --------
    >>> claim = softmax_gradient_rate([0.5, 0.5], [0.0, 1.0], steps=2)
    >>> claim.value.round(3), claim.bound.round(3)
    (array([0.45 , 0.402]), array([20., 10.]))
    """
    p, r, _ = simplex.problem(policy, reward, 1.0)
    best = r.max(axis=-1, where=p > 0, initial=-np.inf)[..., None]
    loss = np.where(p > 0, best - r, 0.0)
    favourite = np.where(r == best, p, 0.0).argmax(axis=-1)[..., None]  # the most likely best action
    with np.errstate(divide="ignore"):
        logits = np.log(p)
    gaps, mass = [], []
    for _ in range(steps):
        mass.append(np.take_along_axis(p, favourite, axis=-1)[..., 0])
        logits = logits + step * p * ((p * loss).sum(axis=-1, keepdims=True) - loss)
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
        p = p / p.sum(axis=-1, keepdims=True)
        gaps.append((p * loss).sum(axis=-1))
    least = np.minimum.accumulate(np.stack(mass, axis=-1), axis=-1)
    with np.errstate(over="ignore", divide="ignore"):
        bound = 5 / np.arange(1, steps + 1) / least / least
    assumed = ((r >= 0) & (r <= 1) | (p == 0)).all(axis=-1, keepdims=True) & (step == 0.4)
    scale = np.where(np.isfinite(bound), bound, 1.0)
    return Claim("softmax policy gradient: gap_t ≤ 5/(c²t)", np.stack(gaps, axis=-1), bound, assumed, scale=scale)
