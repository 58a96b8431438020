r"""Statement 20: weights e^{r/τ}/Z switch the regulariser off.

The weighted loss E_{q_KL}[(r − V − τ s)²]/2 has q_KL as a stationary point for every V; it is a local minimum where
V < τ (log Z + 1) and a local maximum where V > τ (log Z + 1). With weights e^{r/τ}/Ẑ_n of the group itself the law is
another one.

Assumptions: rewards 0 and 1.

References
----------
Statement 20.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import family, updates
from ..family import exponential_weights
from . import family_problems, moments
from .claim import Claim
from .statement import claims

_EXCESS = np.array([-2.0, -0.5, 0.5, 0.9, 1.1, 2.0])  # (V − τ log Z)/τ
_GROUP = 4


@claims("20", family_problems.binary)
def kl_law_is_best_nearby(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, seed: int = 0) -> Claim:
    """Second difference of the weighted loss at q_KL, signed: positive below V = τ (log Z + 1), negative above.

    Parameters
    ----------
    seed : int
        Of the direction.

    Returns
    -------
    Claim
        Minus the second difference times the sign of 1 − (V − τ log Z)/τ, against 0; shape (..., 6).

    Examples
    --------
    >>> kl_law_is_best_nearby([0.5, 0.5], [0.0, 1.0], 1.0).holds.all()
    np.True_
    """
    ideal = updates.kl_update(policy, reward, tau)
    q = ideal.policy
    direction = np.random.default_rng(seed).normal(size=q.shape)
    direction -= moments.mean(q, direction)[..., None]
    direction /= np.sqrt(moments.mean(q, direction**2))[..., None]
    step = 1e-3 / np.maximum(np.abs(direction).max(axis=-1, keepdims=True), 1.0)
    up, down = (np.log1p(sign * step * direction) for sign in (1, -1))  # log of policies over q_KL, of mass 1
    squares = moments.mean(q, up**2 + down**2)[..., None] / 2
    second = (squares + _EXCESS * moments.mean(q, np.log1p(-((step * direction) ** 2)))[..., None]) / step**2
    return Claim("e^{r/τ}/Z: a minimum iff V < τ(log Z + 1)", -second * np.sign(1 - _EXCESS), 0.0, scale=1.0)


@claims("20", family_problems.binary)
def own_partition_is_stationary(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """The law of weights e^{r/τ}/Ẑ_n is stationary for the loss of all groups of four, one by one."""
    p, r, t = np.asarray(policy, float), np.asarray(reward, float), np.asarray(tau, float)
    weight, advantage, *_ = exponential_weights.expected(p, r, t, _GROUP)
    convex = moments.mean(p, np.exp(np.minimum(advantage / weight / t[..., None], 700.0))) > 1
    safe = np.where(convex, t, 1e3 * (1 + np.abs(advantage / weight).max(axis=-1)))
    inside = convex & (safe == t)
    law = family.MEMBERS["exponential-weights"].law(p[inside], r[inside], t[inside], rollouts=_GROUP)
    s = np.zeros(p.shape)
    s[inside] = law.log_ratio
    q = p * np.exp(s)
    J, small = moments.mean(p, r), np.exp(-1 / t)
    gradient = np.zeros(p.shape)
    for group in range(2**_GROUP):  # outcome of each rollout; the first is the action itself
        outcome = np.array([group >> i & 1 for i in range(_GROUP)])
        chance = np.prod(np.where(outcome[1:] == 1, J[..., None], 1 - J[..., None]), axis=-1)
        each = np.where(outcome == 1, 1.0, small[..., None])
        w = each[..., 0] / each.mean(axis=-1)
        residual = outcome[0] - outcome[1:].mean() - t[..., None] * s
        gradient += np.where(r == outcome[0], (chance * w)[..., None] * p * residual, 0.0)
    gradient -= q * gradient.sum(axis=-1, keepdims=True)
    size = 1 + t * np.abs(s).max(axis=-1)
    return Claim("e^{r/τ}/Ẑ_n: stationary over all groups", np.abs(gradient).sum(axis=-1), 0.0, inside, "==", size)
