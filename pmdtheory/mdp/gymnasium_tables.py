"""Finite Gymnasium environments as MDPs, read from their transition tables."""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import simplex
from .examples import only, transitions
from .model import MDP

__all__ = ["from_gymnasium"]

_HARMLESS = [
    "Autoreset",
    "HumanRendering",
    "OrderEnforcing",
    "PassiveEnvChecker",
    "RecordEpisodeStatistics",
    "RecordVideo",
    "RenderCollection",
    "TimeLimit",
]


def from_gymnasium(env_or_id: Any, gamma: float, *, sparse: bool = False, **make_kwargs: Any) -> MDP:
    """Read a finite Gymnasium environment from its transition table ``env.unwrapped.P``.

    A transition marked terminated leads to one added terminal state, the last, whatever state the table names: some
    environments name there an ordinary state, which has moves of its own. Time limits are not part of the table, and
    left out.

    Wrappers that change rewards (``gymnasium.RewardWrapper``) are applied to those of the table. Others must leave
    the dynamics alone: those of observations do, since states are the table's, and Gymnasium's own that only record,
    render, check or limit time.

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
        If Gymnasium cannot make the environment; if it has no transition table, or one that is malformed or lacks an
        action in some state; or if a wrapper may change the dynamics.

    Examples
    --------
    >>> from_gymnasium("FrozenLake-v1", gamma=0.99, map_name="8x8").states
    65
    """
    env = _make(env_or_id, make_kwargs) if isinstance(env_or_id, str) else env_or_id
    bare = getattr(env, "unwrapped", None)
    table = getattr(bare, "P", None)
    if table is None:
        raise ValueError(f"env_or_id must have a transition table env.unwrapped.P, got {env_or_id}, which has none.")
    earn = _reward_of(env)
    end, actions = _size(table)
    moves = [(x * actions + a, *move) for x in range(end) for a in range(actions) for move in _moves(table, x, a, end)]
    moves += [(end * actions + a, 1.0, end, 0.0) for a in range(actions)]
    pair, probability, successor, reward = (np.array(column) for column in zip(*moves))
    P = transitions(end + 1, actions, pair, successor, probability, sparse)
    R = np.bincount(pair, probability * [earn(r) for r in reward]).reshape(end + 1, actions)
    R[end] = 0.0
    return MDP(P, R, gamma, np.append(_start_of(bare, end), 0.0))


def _make(name, kwargs):
    try:
        import gymnasium
    except ImportError:
        raise ImportError("env_or_id needs the package gymnasium: pip install 'pmdtheory[gymnasium]'") from None
    try:
        return gymnasium.make(name, **kwargs)
    except Exception as error:  # of many kinds: its own, and whatever an environment raises on bad arguments
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"env_or_id must be an environment that gymnasium can make, got {name!r}: {reason}") from None




def _reward_of(env):
    """The function of a reward that the environment's wrappers apply, inner ones first."""
    steps = []
    while env is not env.unwrapped:
        import gymnasium

        if isinstance(env, gymnasium.RewardWrapper):
            steps.insert(0, env)
        elif not isinstance(env, gymnasium.ObservationWrapper) and not any(
            type(env) is getattr(gymnasium.wrappers, name, None) for name in _HARMLESS
        ):
            raise ValueError(
                f"env_or_id must have no wrapper that may change its dynamics, got {type(env).__name__}: take it off."
            )
        env = env.env

    def earn(reward):
        for wrapper in steps:
            before, reward = reward, float(wrapper.reward(reward))
            if float(wrapper.reward(before)) != reward:
                raise ValueError(
                    f"env_or_id must have no reward wrapper with a memory, got {type(wrapper).__name__}: take it off."
                )
        return reward

    return earn


def _size(table):
    """Number of states and of actions, which must be numbered from 0."""
    states = _keys(table)
    actions = set().union(*(_keys(table[x]) for x in states))
    for name, keys in (("states", states), ("actions", actions)):
        if not keys or keys != set(range(len(keys))):
            raise ValueError(
                f"env_or_id must number its {name} 0, 1, ... in env.unwrapped.P, got {_short(sorted(keys, key=str))}."
            )
    return len(states), len(actions)


def _keys(container):
    try:
        return set(container) if isinstance(container, Mapping) else set(range(len(container)))
    except TypeError:
        raise ValueError(
            f"env_or_id must have a table env.unwrapped.P[state][action], got {_short(container)} in it."
        ) from None


def _moves(table, x, a, end):
    """The transitions of one state and action: (probability, next state, reward), `end` where terminated."""
    if a not in _keys(table[x]):
        raise ValueError(f"env_or_id must have every action in every state, got no action {a} in state {x}.")
    moves = []
    try:
        for probability, y, reward, terminated in table[x][a]:
            moves.append((float(probability), end if terminated else operator.index(y), float(reward)))
    except (TypeError, ValueError):
        raise ValueError(
            "env_or_id must list (probability, next state, reward, terminated) in env.unwrapped.P, got "
            f"{_short(table[x][a])} in state {x}, action {a}."
        ) from None
    for probability, y, _ in moves:
        if not 0 <= probability <= 1 or not 0 <= y <= end:
            raise ValueError(
                f"env_or_id must move with a probability in [0, 1] to one of its {end} states, got probability "
                f"{probability} and state {y} in state {x}, action {a}."
            )
    return moves


def _start_of(bare, states):
    start = getattr(bare, "initial_state_distrib", None)
    if start is None:
        start = bare.reset(seed=0)[0]
        if not isinstance(start, (int, np.integer)) or not 0 <= start < states:
            raise ValueError(f"env_or_id must start in one of its {states} states, got {_short(start)} from reset().")
        return only(states, start)
    start = simplex.distribution(start, "initial_state_distrib of env_or_id")
    if start.shape != (states,):
        raise ValueError(f"initial_state_distrib of env_or_id must have shape ({states},), got {start.shape}.")
    return start


def _short(value):
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
