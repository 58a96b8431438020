"""Random numbers of many runs, and what they draw: all runs as one batch, each from a stream of its own.

With a stream for each run, a run is the same whichever others there are, and runs can be added later. As long as what
is drawn does not depend on what was drawn before, each stream can be asked for the numbers of many steps at once, and
everything computed from them is array arithmetic over runs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["chances", "dealt", "draw_actions", "passed"]

_BLOCK = 2**22  # random numbers at a time


def chances(
    streams: Sequence[np.random.Generator], draws: Sequence[Any], shape: tuple[int, ...], steps: int
) -> Iterator[np.ndarray]:
    """Random numbers of many runs, each from its own stream, a step at a time.

    Parameters
    ----------
    streams : sequence of numpy.random.Generator
        One for each run.
    draws : sequence of callable
        What a step draws, in this order: ``draw(stream, out=array)`` fills an array of floats, for example
        ``numpy.random.Generator.random``, ``numpy.random.Generator.standard_normal``, ``dealt(labels)``.
    shape : tuple of int
        Of each draw.
    steps : int

    Yields
    ------
    ndarray, shape (draws, runs, *shape)
        The same numbers as if each stream were asked in each step.

    Examples
    --------
    >>> streams = [np.random.default_rng(seed) for seed in (1, 2)]
    >>> [numbers.shape for numbers in chances(streams, [np.random.Generator.random], (4,), steps=3)]
    [(1, 2, 4), (1, 2, 4), (1, 2, 4)]
    """
    block = max(1, _BLOCK // max(1, len(streams) * len(draws) * int(np.prod(shape))))
    for first in range(0, steps, block):
        numbers = np.empty((len(streams), min(block, steps - first), len(draws), *shape))
        for stream, own in zip(streams, numbers):
            if len(set(draws)) == 1:
                draws[0](stream, out=own)
                continue
            for step in own:
                for draw, place in zip(draws, step):
                    draw(stream, out=place)
        yield from np.moveaxis(numbers, 0, 2)


def dealt(labels: np.ndarray) -> Callable[..., Any]:
    """A draw for `chances`: `labels`, as many as an array has places, dealt at random over it, over several in turn."""

    def draw(stream, out):
        for hand in out.reshape(-1, len(labels)):
            hand[:] = labels
            stream.shuffle(hand)

    return draw


def draw_actions(policy: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Invert the distribution function of `policy`, shape (..., K), at `uniforms` in [0, 1), shape (..., n).

    Leading axes broadcast.

    Examples
    --------
    >>> draw_actions(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([[0.1, 0.9], [0.1, 0.9]]))
    array([[0, 1],
           [1, 1]])
    """
    batch, K = np.broadcast_shapes(policy.shape[:-1], uniforms.shape[:-1]), policy.shape[-1]
    cumulative = np.cumsum(policy, axis=-1)
    cumulative /= cumulative[..., -1:]  # so that no draw lands beyond the last action of positive probability
    row = np.arange(cumulative[..., 0].size).reshape(*policy.shape[:-1], 1) * K
    uniforms = np.broadcast_to(uniforms, (*batch, uniforms.shape[-1]))
    return passed(cumulative.ravel(), np.broadcast_to(row, uniforms.shape), K, uniforms)


def passed(ends: np.ndarray, first: np.ndarray, count: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How many of the `count` numbers of `ends` from `first` on, which ascend, are at most the point.

    Parameters
    ----------
    ends : ndarray, shape (N,)
    first, count : ndarray of int, broadcast to the shape of `points`
    points : ndarray

    Returns
    -------
    ndarray of int
        By halving, for all points at once.

    Examples
    --------
    >>> passed(np.array([0.2, 1.0, 0.7, 0.9]), np.array([0, 2, 2]), 2, np.array([0.2, 0.6, 0.95]))
    array([1, 0, 2])
    """
    number = np.zeros(points.shape, dtype=np.int64)
    for power in reversed(range(int(np.max(count)).bit_length())):
        further = number + 2**power
        beyond = ends[first + np.minimum(further, count) - 1] <= points
        number = np.where(beyond & (further <= count), further, number)
    return number
