"""Arrays in blocks that fit a cache, so that what one operation leaves is near when the next one asks for it."""

from collections.abc import Callable

import numpy as np

BLOCK = 2**15  # numbers per array


def of_actions(*arrays: np.ndarray) -> list[list[np.ndarray]]:
    """Arrays of shape (N, K) in blocks of actions: views."""
    return [[x[:, start : start + BLOCK] for x in arrays] for start in range(0, arrays[0].shape[1], BLOCK)]


def of_rows(function: Callable[..., tuple[np.ndarray, ...]], *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Run ``function`` on blocks of rows.

    Short rows are laid side by side, the first action of each before the second of any, so that what is done once a row
    is as fast as what is done once an action.

    Parameters
    ----------
    function : callable
        Takes as many arrays and returns a tuple of arrays, all of one length.
    *arrays : ndarray, shape (N, K) or (N,)
        The first is of shape (N, K).

    Returns
    -------
    tuple of ndarray
        What ``function`` returns for all rows.

    Examples
    --------
    >>> of_rows(lambda x, y: (x.sum(axis=-1) + y,), np.ones((2, 3)), np.array([1.0, 2.0]))
    (array([4., 5.]),)
    """
    rows, actions = arrays[0].shape
    size = max(1, BLOCK // max(1, actions))

    def run(part):
        block = [x[part] for x in arrays]
        return function(*(np.asarray(x, order="F") for x in block) if actions < size else block)

    if rows <= size:
        return run(slice(None))
    found = ()
    for start in range(0, rows, size):
        part = slice(start, start + size)
        results = run(part)
        found = found or tuple(np.empty((rows, *x.shape[1:])) for x in results)
        for array, result in zip(found, results):
            array[part] = result
    return found
