r"""Markov decision processes to experiment with: random ones and classics.

=====================  =====================================================================================
``garnet``             random: every action leads to b random states, rewards uniform in [0, 1]
``chain``              a small reward at hand, a large one at the far end
``gridworld``          four moves with slip, one goal
``deep_sea``           one sequence of N costly actions leads to the treasure
=====================  =====================================================================================

With ``sparse=True`` P is sparse and the MDP the same; chains, grids and deep seas are then good for 1e5 states and
more.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse as sp

from .. import simplex
from .model import MDP

__all__ = ["chain", "deep_sea", "garnet", "gridworld"]


def garnet(
    states: int, actions: int, branching: int, rng: np.random.Generator, gamma: float = 0.9, sparse: bool = False
) -> MDP:
    """A random MDP: each state and action has `branching` possible next states.

    The next states are a uniformly drawn subset, their probabilities the gaps between uniform points of [0, 1], the
    rewards uniform in [0, 1].

    Parameters
    ----------
    states, actions : int
        S and A.
    branching : int
        From 1 to `states`.
    rng : numpy.random.Generator
    gamma : float
        Discount, in [0, 1).
    sparse : bool
        Whether P is sparse.

    Returns
    -------
    MDP

    References
    ----------
    Bhatnagar, Sutton, Ghavamzadeh, Lee, Automatica 45 (2009).

    Examples
    --------
    >>> garnet(5, 2, 3, np.random.default_rng(0)).P.shape
    (5, 2, 5)
    """
    _at_least(1, states=states, actions=actions, branching=branching)
    if branching > states:
        raise ValueError(f"branching must be at most the number of states, {states}, got {branching}.")
    pairs = states * actions
    # Floyd's algorithm, all pairs at once: the i-th draw is uniform on 0..top, and top itself if already drawn.
    successors = np.empty((pairs, branching), dtype=np.int64)
    for i, top in enumerate(range(states - branching, states)):
        draw = rng.integers(0, top + 1, pairs)
        successors[:, i] = np.where((successors[:, :i] == draw[:, None]).any(axis=1), top, draw)
    cuts = np.sort(rng.random((pairs, branching - 1)), axis=1)
    probability = np.diff(cuts, axis=1, prepend=0.0, append=1.0)
    pair = np.repeat(np.arange(pairs), branching)
    P = transitions(states, actions, pair, successors.ravel(), probability.ravel(), sparse)
    return MDP(P, rng.random((states, actions)), gamma)


def chain(length: int, slip: float = 0.1, gamma: float = 0.9, distraction: float = 0.01, sparse: bool = False) -> MDP:
    """A corridor of states with actions left (0) and right (1).

    A move goes the other way with probability `slip` and stops at the walls. Going right in the last state earns 1,
    going left in the first `distraction`.

    Parameters
    ----------
    length : int
        At least 2.
    slip, gamma, distraction : float
        Slip in [0, 1], discount in [0, 1), any finite reward.
    sparse : bool
        Whether P is sparse.

    Returns
    -------
    MDP
        Starts in the first state.

    Examples
    --------
    >>> chain(3).R
    array([[0.01, 0.  ],
           [0.  , 0.  ],
           [0.  , 1.  ]])
    """
    _at_least(2, length=length)
    _probability(slip, "slip")
    x = np.arange(length)
    beside = np.stack([np.maximum(x - 1, 0), np.minimum(x + 1, length - 1)], axis=1)
    successors = np.stack([beside, beside[:, ::-1]], axis=1)  # of each action, where it aims and where it slips
    probability = np.broadcast_to([1 - slip, slip], successors.shape)
    P = transitions(length, 2, np.repeat(np.arange(2 * length), 2), successors.ravel(), probability.ravel(), sparse)
    R = np.zeros((length, 2))
    R[0, 0], R[-1, 1] = distraction, 1.0
    return MDP(P, R, gamma, only(length, 0))


def gridworld(
    height: int,
    width: int,
    slip: float = 0.1,
    gamma: float = 0.95,
    goal: tuple[int, int] | None = None,
    walls: Sequence[tuple[int, int]] = (),
    start: tuple[int, int] | None = None,
    sparse: bool = False,
) -> MDP:
    """A grid with actions up, right, down, left (0 to 3) and a goal that ends the episode with reward 1.

    A move goes to each side of the intended direction with probability `slip`/2, and stays where a wall or the edge
    is in the way. State row·width + column; walls are terminal states that nothing reaches.

    Parameters
    ----------
    height, width : int
        At least two cells in all.
    slip : float
        In [0, 1].
    gamma : float
        Discount, in [0, 1).
    goal : (int, int), optional
        Row and column; the last cell by default.
    walls : sequence of (int, int)
        Cells that cannot be entered.
    start : (int, int), optional
        Where episodes start; by default anywhere but in walls and the goal.
    sparse : bool
        Whether P is sparse.

    Returns
    -------
    MDP

    Examples
    --------
    >>> grid = gridworld(2, 2, slip=0.0)
    >>> grid.R[1], grid.terminal
    (array([0., 0., 1., 0.]), array([False, False, False,  True]))
    """
    _at_least(1, height=height, width=width)
    _probability(slip, "slip")
    S = height * width
    goal = _cells([(height - 1, width - 1) if goal is None else goal], height, width, "goal")[0]
    wall = np.zeros(S, dtype=bool)
    wall[_cells(walls, height, width, "walls")] = True
    final = wall.copy()
    final[goal] = True
    if wall[goal] or final.all():
        raise ValueError("goal must not be a wall, and walls must leave another cell free.")

    cell = np.arange(S)
    row, column = np.divmod(cell, width)
    toward = np.empty((S, 4), dtype=np.int64)
    for move, (down, right) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
        beside = np.clip(row + down, 0, height - 1) * width + np.clip(column + right, 0, width - 1)
        toward[:, move] = np.where(final | wall[beside], cell, beside)

    moves = np.arange(4)
    turned = np.stack([moves, (moves + 1) % 4, (moves + 3) % 4], axis=1)
    successors = toward[:, turned]  # (S, 4, 3)
    probability = np.broadcast_to([1 - slip, slip / 2, slip / 2], successors.shape)
    R = np.where(final[:, None], 0.0, (probability * (successors == goal)).sum(axis=-1))
    P = transitions(S, 4, np.repeat(np.arange(4 * S), 3), successors.ravel(), probability.ravel(), sparse)
    first = ~final if start is None else cell == _cells([start], height, width, "start")[0]
    return MDP(P, R, gamma, first / first.sum())


def deep_sea(size: int, gamma: float = 0.99, sparse: bool = False) -> MDP:
    """Deep sea: every step dives one row, to the left (0) or right (1), and a treasure lies in the far corner.

    Going right costs 0.01/size, and earns 1 in the last row's last column; every dive ends after `size` steps. State
    row·size + column, and one terminal state.

    Parameters
    ----------
    size : int
        N ≥ 1.
    gamma : float
        Discount, in [0, 1).
    sparse : bool
        Whether P is sparse.

    Returns
    -------
    MDP
        Starts in the first cell.

    References
    ----------
    Osband et al., Behaviour Suite for Reinforcement Learning, arXiv 1908.03568 (here without random action labels).

    Examples
    --------
    >>> deep_sea(2).R.round(3)[:4]
    array([[ 0.   , -0.005],
           [ 0.   , -0.005],
           [ 0.   , -0.005],
           [ 0.   ,  0.995]])
    """
    _at_least(1, size=size)
    end = size * size
    row, column = np.divmod(np.arange(end), size)
    landing = np.stack([np.maximum(column - 1, 0), np.minimum(column + 1, size - 1)], axis=1)
    successors = np.where(row[:, None] == size - 1, end, (row[:, None] + 1) * size + landing)
    successors = np.vstack([successors, [end, end]]).ravel()
    R = np.zeros((end + 1, 2))
    R[:end, 1] = -0.01 / size
    R[end - 1, 1] += 1
    P = transitions(end + 1, 2, np.arange(2 * (end + 1)), successors, np.ones(successors.size), sparse)
    return MDP(P, R, gamma, only(end + 1, 0))


def transitions(S, A, pair, successor, probability, sparse):
    """P from lists of (pair x·A + a, next state, probability); repeated entries add up."""
    P = sp.csr_array((probability, (pair, successor)), shape=(S * A, S))
    return P if sparse else P.toarray().reshape(S, A, S)


def only(size, index):
    """The distribution with all mass on `index`."""
    distribution = np.zeros(size)
    distribution[index] = 1.0
    return distribution


def _cells(cells, height, width, name):
    cells = np.array(cells, dtype=np.int64).reshape(-1, 2)
    outside = (cells < 0).any(axis=1) | (cells >= [height, width]).any(axis=1)
    if outside.any():
        raise ValueError(
            f"{name} must lie on the {height} by {width} grid, got row {cells[outside][0][0]}, "
            f"column {cells[outside][0][1]}."
        )
    return cells[:, 0] * width + cells[:, 1]


def _at_least(least, **counts):
    for name, value in counts.items():
        simplex.count(value, name, least)


def _probability(value, name):
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}.")
