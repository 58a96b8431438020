"""One context regressed at several baselines: what Statements 10 and 11 share."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import updates
from ..updates import Update
from . import moments


class Regressions(NamedTuple):
    """A policy and its targets at B baselines.

    Attributes
    ----------
    p, D : ndarray, shape (..., 1, K)
        Policy and centred targets (r − r̄)/τ.
    shift : ndarray, shape (..., B)
        (b − r̄)/τ.
    gap : ndarray, shape (..., 1)
        (τ log Z − r̄)/τ = log E_p[e^D].
    rounding : ndarray, shape (..., B)
        What rounding may have done to `shift`.
    """

    p: np.ndarray
    D: np.ndarray
    shift: np.ndarray
    gap: np.ndarray
    rounding: np.ndarray


def describe(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Regressions:
    """Return the `Regressions` of a problem at baselines of shape (..., B)."""
    p, D = moments.targets(policy, reward, tau)
    b, tau = np.asarray(baseline, float), np.asarray(tau, float)[..., None]
    mean, size = (moments.mean(p, x)[..., None] for x in (np.asarray(reward, float), np.abs(reward)))
    rounding = 1e-14 * (np.abs(b) + size) / tau
    gap = moments.jensen_gap(p, D)[..., None]
    return Regressions(p[..., None, :], D[..., None, :], (b - mean) / tau, gap, rounding)


def solve(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline: ArrayLike) -> Update:
    """`baseline_update` at baselines of shape (..., B)."""
    p, r, tau = np.asarray(policy, float), np.asarray(reward, float), np.asarray(tau, float)
    return updates.baseline_update(p[..., None, :], r[..., None, :], tau[..., None], baseline)
