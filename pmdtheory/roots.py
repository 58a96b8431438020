r"""Roots of many scalar equations at once, by any fast iteration kept inside a bracket.

The caller knows its equation: at a point it says on which side the root lies and where it would go next, by Newton's
method or better. Proposals outside the bracket, which is narrowed at each point, are replaced by the middle of it.
"""

import numpy as np

_MOST_STEPS = 200


def narrow(x, surplus, proposal, low, high, geometric=False):
    """Narrow the brackets in place, and keep the proposals inside them.

    Parameters
    ----------
    x, surplus, proposal : ndarray, shape (N,)
        Where the equations were evaluated, a number above 0 where the root is above `x`, and where to go next
        (whatever is not a number inside the bracket counts as outside).
    low, high : ndarray, shape (N,)
        The brackets.
    geometric : bool
        The middle of a bracket is its geometric mean, at least `high`/100; both ends are then nonnegative.

    Returns
    -------
    new : ndarray, shape (N,)
    accepted : ndarray of bool, shape (N,)
        False where the middle of the bracket was taken.
    """
    np.copyto(low, x, where=surplus > 0)
    np.copyto(high, x, where=surplus < 0)
    accepted = (proposal >= low) & (proposal <= high)
    middle = np.sqrt(np.maximum(low, high / 1e4)) * np.sqrt(high) if geometric else (low + high) / 2
    return np.where(accepted, proposal, middle), accepted


def find(propose, x, low, high, floor=0.0, geometric=False):
    """Find one root in each bracket.

    Parameters
    ----------
    propose : callable
        ``propose(rows, x) -> surplus, proposal`` as in `narrow`, for the equations `rows`, an array of indices; the
        proposals converge quadratically. A surplus of 0 says that `x` is the root.
    x, low, high : ndarray, shape (N,)
        Where to start, and brackets of the roots.
    floor : float
        Size of `x` below which only the absolute error matters.
    geometric : bool
        As in `narrow`.

    Returns
    -------
    ndarray, shape (N,)

    Raises
    ------
    FloatingPointError
        If 200 steps are not enough.

    Examples
    --------
    >>> square = np.array([2.0, 9.0])
    >>> find(lambda i, x: (square[i] - x * x, (x + square[i] / x) / 2), np.ones(2), np.zeros(2), square)
    array([1.41421356, 3.        ])
    """
    x, low, high = (np.array(a, dtype=float) for a in (x, low, high))
    rows, last, before = np.arange(len(x)), np.full(len(x), np.inf), np.full(len(x), np.inf)
    for _ in range(_MOST_STEPS):
        if not rows.size:
            return x
        now, lower, upper = x[rows], low[rows], high[rows]
        surplus, proposal = propose(rows, now)
        size = np.maximum(np.abs(proposal), floor)
        tiny = np.abs(proposal - now) <= 1e-6 * size
        # Proposals that do not come closer, though not yet close, would go on for ever.
        proposal = np.where(tiny | (np.abs(proposal - now) <= before[rows] / 2), proposal, np.nan)
        new, accepted = narrow(now, surplus, proposal, lower, upper, geometric)
        new = np.where(surplus == 0, now, new)
        x[rows], low[rows], high[rows] = new, lower, upper
        step, size = np.abs(new - now), np.maximum(np.abs(new), floor)
        # The error after a step is about its square; small steps that stop shrinking are rounding.
        converged = accepted & ((step <= 1e-8 * size) | (tiny & (step >= 0.75 * last[rows])))
        before[rows], last[rows] = last[rows], step
        rows = rows[~(converged | (step <= 2e-16 * size))]
    raise FloatingPointError("a root was not found; please report the arguments.")
