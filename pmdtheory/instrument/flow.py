r"""Follow a loss's own field to where it vanishes.

The field is what the loss does to the logits; it may be no gradient, since losses stop gradients. Implicit Euler steps

.. math:: θ ← θ + (I/Δ − F'(θ))^{-1} F(θ)

with a growing Δ follow the flow at first and become Newton's method; F' is taken by differences. At the stop its rank
tells a point (rank K − 1) from a flat, where a clipped loss just stops pulling.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .bench import Prompt

__all__ = ["Stop", "follow"]

_STEPS, _LARGEST_MOVE = 60, 0.5
_EDGE = -14.0  # a log-ratio below which a completion counts as emptied


class Stop(NamedTuple):
    """Where a flow ended."""

    log_ratio: np.ndarray
    """s of each completion, (K,)."""
    residual: float
    """Size of the field, over that at the anchor."""
    isolated: bool
    """Whether F' has full rank on policies: a point, not a flat."""
    interior: bool
    """Whether no completion is emptied."""


def follow(prompt: Prompt, field: Callable[[np.ndarray], np.ndarray]) -> Stop:
    """Follow ``field(logits) -> array`` from the anchor of a `Prompt` to its end.

    Returns
    -------
    Stop
    """
    theta = prompt.anchor.copy()
    force = field(theta)
    first = max(np.abs(force).max(), 1e-300)
    sizes = []
    for _ in range(_STEPS):
        size = np.abs(force).max()
        sizes.append(size)
        if size <= 1e-11 * first or _slides(sizes):
            break
        slope = _slope(field, theta, force)
        horizon = 0.5 / first * (first / size) ** 1.5
        step = np.linalg.solve(np.eye(len(theta)) / min(horizon, 1e12 / first) - slope, force)
        step *= min(1.0, _LARGEST_MOVE / max(np.abs(step).max(), 1e-300))
        theta = theta + step
        force = field(theta)
        if prompt.log_ratio(theta).min() < 1.5 * _EDGE:
            break
    s = prompt.log_ratio(theta)
    singular = np.linalg.svd(_slope(field, theta, force), compute_uv=False)
    rank = (singular > 1e-7 * first).sum()
    return Stop(s, np.abs(force).max() / first, rank >= len(s) - 1, s.min() > _EDGE)


def _slides(sizes):
    """Whether the force has long been as large as ever: it jumps at the edge of a clip, to and fro."""
    return len(sizes) > 24 and min(sizes[-12:]) > max(0.5 * min(sizes[:-12]), 1e-3 * sizes[0])


def _slope(field, theta, force):
    step = 1e-6
    return np.stack([(field(theta + step * e) - force) / step for e in np.eye(len(theta))], axis=1)
