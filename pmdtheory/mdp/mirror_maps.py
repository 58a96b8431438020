r"""Other mirror maps than the entropy, for comparison: Euclidean and Tsallis steps.

A mirror map h gives the step argmax_q E_q[r] − τ D_h(q‖p) with the Bregman divergence

.. math:: D_h(q‖p) = h(q) − h(p) − ∇h(p)^⊤ (q − p).

The Tsallis family h(q) = Σ_a (q^α − q)/(α(α−1)) contains the negative entropy as its limit α → 1 (the KL update) and
half the squared norm as α = 2 (the Euclidean step). Its step is

.. math:: q = \big[p^{α−1} + (α−1)(r − b)/τ\big]_+^{1/(α−1)}, \qquad \sum_a q = 1,

for α = 2 the projection of p + r/τ onto the simplex. For α > 1 an action can lose all its mass, and regain it later.

A mirror map here is an object that is called like an update of ``pmdtheory.updates`` and knows its divergence, from
which adaptive step sizes are computed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex
from ..updates import Update

__all__ = ["Euclidean", "Tsallis", "kl_to_greedy"]


def kl_to_greedy(policy: ArrayLike, reward: ArrayLike) -> np.ndarray:
    """Smallest KL(q‖p) over the policies q that only take actions of the largest reward: −log p(greedy set).

    Parameters
    ----------
    policy, reward : ndarray, shape (..., K)

    Returns
    -------
    ndarray, shape (...)
        In nats.
    """
    greedy = reward == reward.max(axis=-1, keepdims=True)
    return -np.log(np.minimum((policy * greedy).sum(axis=-1), 1.0))


class _MirrorMap:
    def distance_to_greedy(self, policy, reward):
        """Smallest D_h(q‖p) over the deterministic greedy policies q, shape (..., K), (..., K) → (...).

        With ties a mixture may be nearer still; step sizes from this number are then longer than they need to be.
        """
        distances = self.divergence(np.eye(policy.shape[-1]), policy[..., None, :])
        greedy = reward == reward.max(axis=-1, keepdims=True)
        return np.where(greedy, distances, np.inf).min(axis=-1)

    @staticmethod
    def _update(p, q, baseline):
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratio = np.where(p > 0, np.log(q) - np.log(p), 0.0)
        return Update(q, log_ratio, np.full(baseline.shape, np.nan), baseline, np.zeros(baseline.shape, bool))


@dataclass(frozen=True)
class Euclidean(_MirrorMap):
    """The step argmax_q E_q[r] − (τ/2) ‖q − p‖², a projection onto the simplex.

    Called with (policy, reward, tau) as the updates of `pmdtheory`. The returned `Update` has no χ² weight (NaN), and
    as ``baseline`` the b for which q = [p + (r − b)/τ]₊; ``log_ratio`` is −∞ for actions that lose all their mass.

    References
    ----------
    Held, Wolfe, Crowder, Mathematical Programming 6 (1974), for the projection by sorting.

    Examples
    --------
    >>> Euclidean()([0.5, 0.5], [0.0, 1.0], tau=2.0).policy
    array([0.25, 0.75])
    """

    def __call__(self, policy, reward, tau):
        """Take the step; arguments as in `pmdtheory.kl_update`."""
        p, r, tau = simplex.problem(policy, reward, tau)
        top = r.max(axis=-1)
        point = p + (r - top[..., None]) / tau[..., None]
        descending = -np.sort(-point, axis=-1)
        thresholds = (np.cumsum(descending, axis=-1) - 1) / np.arange(1, p.shape[-1] + 1)
        # The support is the longest prefix whose members exceed its threshold.
        last = (descending > thresholds).sum(axis=-1, keepdims=True) - 1
        threshold = np.take_along_axis(thresholds, last, axis=-1)
        return self._update(p, np.maximum(point - threshold, 0.0), top + tau * threshold[..., 0])

    def divergence(self, a: ArrayLike, b: ArrayLike) -> np.ndarray:
        """Half the squared distance of a and b, shape (..., K) → (...)."""
        return ((a - b) ** 2).sum(axis=-1) / 2


@dataclass(frozen=True)
class Tsallis(_MirrorMap):
    """The step argmax_q E_q[r] − τ D_h(q‖p) of the Tsallis entropy with exponent α.

    Called with (policy, reward, tau) as the updates of `pmdtheory`; the returned `Update` is like that of `Euclidean`.

    Attributes
    ----------
    exponent : float
        α in (0, 1) or (1, 2].

    Examples
    --------
    >>> Tsallis(0.5)([0.5, 0.5], [0.0, 1.0], tau=1.0).policy.round(4)
    array([0.3354, 0.6646])
    """

    exponent: float = 0.5

    def __post_init__(self):
        if not 0 < self.exponent <= 2 or self.exponent == 1:
            raise ValueError(f"exponent must lie in (0, 1) or (1, 2] (1 is kl_update), got {self.exponent}.")

    def __call__(self, policy, reward, tau):
        """Take the step; arguments as in `pmdtheory.kl_update`."""
        p, r, tau = simplex.problem(policy, reward, tau)
        slope = self.exponent - 1
        top = r.max(axis=-1)
        with np.errstate(divide="ignore"):
            dual = p**slope / slope + (r - top[..., None]) / tau[..., None]
        peak = dual.max(axis=-1)
        dual = dual - peak[..., None]

        def mass(shift):
            return np.maximum(slope * (dual - shift[..., None]), 0.0) ** (1 / slope)

        # Here one action alone has all the mass. The total is convex and decreases in the shift: Newton from the left.
        shift = np.full(peak.shape, -1 / slope)
        for _ in range(200):
            q = mass(shift)
            step = (q.sum(axis=-1) - 1) / (q ** (2 - self.exponent)).sum(axis=-1, where=q > 0)
            shift = shift + step
            if np.all(np.abs(step) <= 4 * np.finfo(float).eps * np.abs(shift)):
                break
        q = mass(shift)
        return self._update(p, q / q.sum(axis=-1, keepdims=True), top + tau * (peak + shift))

    def divergence(self, a: ArrayLike, b: ArrayLike) -> np.ndarray:
        """Bregman divergence D_h(a‖b), shape (..., K) → (...)."""
        alpha = self.exponent
        with np.errstate(divide="ignore", invalid="ignore"):
            linear = np.where(a == b, 0.0, b ** (alpha - 1) * (a - b))
        return ((a**alpha - b**alpha) / alpha - linear).sum(axis=-1) / (alpha - 1)
