r"""Statement 21: a baseline re-estimated from the residual gives the KL law.

A loss Σ_{i<j} w_ij (x_i − x_j)², x = r − τ s, with positive symmetric weights, is a convex quadratic in the logits
that vanishes at the KL law alone.

Assumptions: none.

References
----------
Statement 21.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import family
from . import family_problems
from .claim import Claim
from .statement import claims


@claims("21", family_problems.contexts)
def gradient_vanishes(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, seed: int = 0) -> Claim:
    """The gradient of the pair loss in the logits, with random symmetric weights, at the law.

    Parameters
    ----------
    seed : int
        Of the weights.

    Examples
    --------
    >>> gradient_vanishes([0.5, 0.5], [0.0, 1.0], tau=1.0).holds
    np.True_
    """
    pairs, x, size = _pairs(policy, reward, tau, seed)
    gradient = (pairs * (x[..., :, None] - x[..., None, :])).sum(axis=-1)
    return Claim("pairs: the gradient vanishes at the KL law", np.abs(gradient).max(axis=-1), 0.0, True, "==", size)


@claims("21", family_problems.contexts)
def convex_in_the_logits(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, seed: int = 0) -> Claim:
    """Between a random policy and the law the loss falls along the straight line of the logits, as the square.

    Returns
    -------
    Claim
        Loss at 1/4, 1/2 and 3/4 of the way from the law, over the loss at the end, against 1/16, 1/4, 9/16.
    """
    pairs, x, _ = _pairs(policy, reward, tau, seed)
    rng = np.random.default_rng(seed + 1)
    logits = rng.normal(size=x.shape) * np.asarray(tau, dtype=float)[..., None]
    parts = np.array([0.25, 0.5, 0.75, 1.0])
    moved = x[..., None, :] - parts[:, None] * logits[..., None, :]
    gaps = moved[..., :, None] - moved[..., None, :]
    losses = (pairs[..., None, :, :] * gaps**2).sum(axis=(-1, -2))
    value = losses[..., :3] / losses[..., 3:]
    return Claim("pairs: a quadratic in the logits", value, parts[:3] ** 2, relation="==", scale=1.0)


def _pairs(policy, reward, tau, seed):
    """Pair weights, x = r − τ s of the law, and the size of x."""
    law = family.MEMBERS["free-baseline"].law(policy, reward, tau)
    x = np.asarray(reward, float) - np.asarray(tau, float)[..., None] * law.log_ratio
    K = x.shape[-1]
    pairs = np.random.default_rng(seed).uniform(0.1, 1, (K, K))
    size = np.abs(np.asarray(reward, float)).max(axis=-1) + np.asarray(tau) * np.abs(law.log_ratio).max(axis=-1)
    return np.broadcast_to((pairs + pairs.T) / 2, (*x.shape[:-1], K, K)), x, size
