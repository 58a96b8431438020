r"""Markov decision processes to experiment with: random ones, classics, and those of Gymnasium.

=====================  =====================================================================================
``garnet``             random: every action leads to b random states, rewards uniform in [0, 1]
``chain``              a small reward at hand, a large one at the far end
``gridworld``          four moves with slip, one goal; sparse up to 1e5 states and more
``deep_sea``           one sequence of N costly actions leads to the treasure
``from_gymnasium``     any finite Gymnasium environment with a transition table
=====================  =====================================================================================
"""

import numpy as np
from scipy import sparse as sp

from .. import simplex
from .model import MDP

__all__ = ["chain", "deep_sea", "from_gymnasium", "garnet", "gridworld"]


def garnet(states, actions, branching, rng, gamma=0.9, sparse=False):
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
        Whether P is sparse; the MDP is the same.

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
    P = _transitions(states, actions, pair, successors.ravel(), probability.ravel(), sparse)
    return MDP(P, rng.random((states, actions)), gamma)


def chain(length, slip=0.1, gamma=0.9, distraction=0.01):
    """A corridor of states with actions left (0) and right (1).

    A move goes the other way with probability `slip` and stops at the walls. Going right in the last state earns 1,
    going left in the first `distraction`.

    Parameters
    ----------
    length : int
        At least 2.
    slip, gamma, distraction : float
        Slip and discount in [0, 1), the discount not 1; any finite reward.

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
    left, right = np.eye(length)[np.maximum(x - 1, 0)], np.eye(length)[np.minimum(x + 1, length - 1)]
    P = np.stack([(1 - slip) * left + slip * right, slip * left + (1 - slip) * right], axis=1)
    R = np.zeros((length, 2))
    R[0, 0], R[-1, 1] = distraction, 1.0
    return MDP(P, R, gamma, np.eye(length)[0])


def gridworld(height, width, slip=0.1, gamma=0.95, goal=None, walls=(), start=None, sparse=False):
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
        Whether P is sparse; the MDP is the same.

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
    P = _transitions(S, 4, np.repeat(np.arange(4 * S), 3), successors.ravel(), probability.ravel(), sparse)
    first = ~final if start is None else cell == _cells([start], height, width, "start")[0]
    return MDP(P, R, gamma, first / first.sum())


def deep_sea(size, gamma=0.99):
    """Deep sea: every step dives one row, to the left (0) or right (1), and a treasure lies in the far corner.

    Going right costs 0.01/size, and earns 1 in the last row's last column; every dive ends after `size` steps. State
    row·size + column, and one terminal state.

    Parameters
    ----------
    size : int
        N ≥ 1.
    gamma : float
        Discount, in [0, 1).

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
    P = _transitions(end + 1, 2, np.arange(2 * (end + 1)), successors, np.ones(successors.size), sparse=False)
    return MDP(P, R, gamma, np.eye(end + 1)[0])


def from_gymnasium(env_or_id, gamma, *, sparse=False, **make_kwargs):
    """Read a finite Gymnasium environment from its transition table ``env.unwrapped.P``.

    A transition marked terminated leads to one added terminal state, the last, whatever state the table names: some
    environments name there an ordinary state, which has moves of its own. Time limits are not part of the table, and
    left out.

    Parameters
    ----------
    env_or_id : gymnasium.Env or str
        For example "FrozenLake-v1", "Taxi-v4" or "CliffWalking-v1".
    gamma : float
        Discount, in [0, 1).
    sparse : bool
        Whether P is sparse.
    **make_kwargs
        Passed to ``gymnasium.make``, for example ``map_name="8x8"``.

    Returns
    -------
    MDP
        With the environment's states and one more; starts as the environment does (``initial_state_distrib``, or the
        state after a reset with seed 0).

    Raises
    ------
    ImportError
        If an id is given and Gymnasium is not installed.
    ValueError
        If the environment has no transition table.

    Examples
    --------
    >>> from_gymnasium("FrozenLake-v1", gamma=0.99, map_name="8x8").states
    65
    """
    env = _make(env_or_id, make_kwargs) if isinstance(env_or_id, str) else env_or_id
    table = getattr(env.unwrapped, "P", None)
    if table is None:
        raise ValueError(f"env_or_id must have a transition table env.unwrapped.P, got {env_or_id}, which has none.")
    end, actions = len(table), len(table[0])
    moves = [
        (x * actions + a, end if terminated else int(y), probability, probability * reward)
        for x in range(end)
        for a in range(actions)
        for probability, y, reward, terminated in table[x][a]
    ]
    moves += [(end * actions + a, end, 1.0, 0.0) for a in range(actions)]
    pair, successor, probability, earned = (np.array(column) for column in zip(*moves))
    P = _transitions(end + 1, actions, pair, successor, probability, sparse)
    R = np.bincount(pair, earned).reshape(end + 1, actions)
    start = getattr(env.unwrapped, "initial_state_distrib", None)
    start = np.eye(end)[env.reset(seed=0)[0]] if start is None else np.asarray(start)
    return MDP(P, R, gamma, np.append(start, 0.0))


def _make(name, kwargs):
    try:
        import gymnasium
    except ImportError:
        raise ImportError("env_or_id needs the package gymnasium: pip install 'pmdtheory[gymnasium]'") from None
    return gymnasium.make(name, **kwargs)


def _transitions(S, A, pair, successor, probability, sparse):
    """P from lists of (pair x·A + a, next state, probability); repeated entries add up."""
    P = sp.csr_array((probability, (pair, successor)), shape=(S * A, S))
    return P if sparse else P.toarray().reshape(S, A, S)


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
