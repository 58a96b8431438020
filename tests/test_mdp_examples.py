"""The example MDPs: their laws by counting, Gymnasium's by its own steps and tables."""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import pytest

from pmdtheory.mdp import chain, deep_sea, evaluate, from_gymnasium, garnet, gridworld, optimal
from tests.mdps import dense

GYMNASIUM = {
    "FrozenLake 4x4": ("FrozenLake-v1", {}),
    "FrozenLake 8x8": ("FrozenLake-v1", {"map_name": "8x8"}),
    "FrozenLake dry": ("FrozenLake-v1", {"is_slippery": False}),
    "Taxi": ("Taxi-v4", {}),
    "Taxi in the rain": ("Taxi-v4", {"is_rainy": True}),
    "CliffWalking": ("CliffWalking-v1", {}),
}


def test_garnet():
    """The seed decides; each row has `branching` successors, uniformly chosen, and mean probability 1/branching."""
    mdp = garnet(9, 4, 3, np.random.default_rng(7))
    np.testing.assert_array_equal(mdp.P, garnet(9, 4, 3, np.random.default_rng(7)).P)
    assert np.all((mdp.P > 0).sum(axis=-1) == 3)
    assert mdp.R.min() >= 0 and mdp.R.max() <= 1
    large = garnet(40, 500, 10, np.random.default_rng(0))
    often = (large.P > 0).mean(axis=(0, 1))
    assert np.abs(often - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 20_000)
    # Gaps between 9 uniform points are Dirichlet(1, …, 1): their second moment is 2/(10·11).
    assert (large.P**2).sum() / (20_000 * 10) == pytest.approx(2 / 110, rel=0.02)
    assert garnet(3, 2, 3, np.random.default_rng(0)).P.min() > 0
    np.testing.assert_array_equal(dense(garnet(9, 4, 3, np.random.default_rng(7), sparse=True)), mdp.P)
    for build in (lambda sparse: chain(5, 0.3, sparse=sparse), lambda sparse: deep_sea(4, sparse=sparse)):
        np.testing.assert_array_equal(dense(build(True)), build(False).P)


def test_chain_values():
    """Without slip the best policy walks right: V(x) = γ^{n−1−x}/(1−γ)."""
    np.testing.assert_allclose(optimal(chain(6, slip=0.0)).V, 0.9 ** np.arange(5, -1, -1) / 0.1, rtol=1e-13)
    slippery = chain(4, slip=0.25)
    np.testing.assert_allclose(slippery.P[0, 0], [0.75, 0.25, 0, 0])
    np.testing.assert_allclose(slippery.P[2, 1], [0, 0.25, 0, 0.75])


def test_gridworld_values():
    """Without slip V is γ to the number of steps left before the last, found by breadth-first search around walls."""
    walls = [(0, 1), (1, 1), (3, 3), (2, 3), (1, 3)]
    mdp = gridworld(4, 5, slip=0.0, gamma=0.9, walls=walls)
    distance, frontier = {(3, 4): 0}, [(3, 4)]
    while frontier:
        r, c = frontier.pop(0)
        for cell in [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]:
            if cell not in distance and cell not in walls and 0 <= cell[0] < 4 and 0 <= cell[1] < 5:
                distance[cell] = distance[r, c] + 1
                frontier.append(cell)
    V = optimal(mdp).V.reshape(4, 5)
    for cell, steps in distance.items():
        assert V[cell] == pytest.approx(0.9 ** (steps - 1) if steps else 0.0, abs=1e-13)
    assert all(V[cell] == 0 and mdp.terminal.reshape(4, 5)[cell] for cell in walls)
    assert mdp.rho.reshape(4, 5)[0, 1] == 0 and mdp.rho[0] == pytest.approx(1 / 14)


def test_gridworld_slips_sideways():
    """From the middle of an open grid: forward 1 − slip, slip/2 to each side, never back; edges hold."""
    mdp = gridworld(3, 3, slip=0.2, start=(1, 1), goal=(0, 0))
    middle = mdp.P[4].reshape(4, 3, 3)
    for move, (ahead, sides, behind) in enumerate(
        [
            ((0, 1), [(1, 0), (1, 2)], (2, 1)),
            ((1, 2), [(0, 1), (2, 1)], (1, 0)),
            ((2, 1), [(1, 0), (1, 2)], (0, 1)),
            ((1, 0), [(0, 1), (2, 1)], (1, 2)),
        ]
    ):
        np.testing.assert_allclose(middle[move][ahead], 0.8)
        np.testing.assert_allclose([middle[move][side] for side in sides], 0.1)
        assert middle[move][behind] == 0
    np.testing.assert_allclose(mdp.P[8, 1].reshape(3, 3)[2], [0, 0, 0.9])  # ahead and down is the edge
    np.testing.assert_allclose(mdp.R[1], [0.1, 0.0, 0.1, 0.8])  # beside the goal
    np.testing.assert_array_equal(mdp.rho, np.eye(9)[4])


def test_deep_sea_values():
    """Only N moves right reach the treasure: V₀ = γ^{N−1} − (0.01/N) Σ γ^t; the all-left policy earns nothing."""
    N, gamma = 7, 0.95
    mdp = deep_sea(N, gamma)
    expected = gamma ** (N - 1) - 0.01 / N * (1 - gamma**N) / (1 - gamma)
    assert optimal(mdp).value == pytest.approx(expected, rel=1e-13)
    left, right = np.eye(2)[np.zeros(mdp.states, int)], np.eye(2)[np.ones(mdp.states, int)]
    assert evaluate(mdp, left).value == 0
    assert evaluate(mdp, right).value == pytest.approx(expected, rel=1e-13)
    assert mdp.terminal.sum() == 1


@pytest.mark.parametrize("name", GYMNASIUM)
def test_gymnasium_against_its_table(name):
    """Value iteration on the raw table, a terminated move worth its reward only, finds the same optimum."""
    kind, options = GYMNASIUM[name]
    gamma = 0.97
    env = gymnasium.make(kind, **options)
    table, states, actions = env.unwrapped.P, len(env.unwrapped.P), len(env.unwrapped.P[0])
    width = max(len(moves) for row in table.values() for moves in row.values())
    prob, reward = np.zeros((2, states, actions, width))
    successor, goes_on = np.zeros((2, states, actions, width), dtype=int)
    for x, a in np.ndindex(states, actions):
        for i, (p, y, r, terminated) in enumerate(table[x][a]):
            prob[x, a, i], successor[x, a, i], reward[x, a, i], goes_on[x, a, i] = p, y, r, not terminated
    V = np.zeros(states)
    for _ in range(1200):
        V = (prob * (reward + gamma * goes_on * V[successor])).sum(axis=-1).max(axis=-1)

    mdp = from_gymnasium(env, gamma)
    np.testing.assert_allclose(optimal(mdp).V, np.append(V, 0.0), atol=1e-10)
    np.testing.assert_allclose(dense(from_gymnasium(kind, gamma, sparse=True, **options)), mdp.P)
    assert mdp.states == states + 1 and mdp.terminal[-1] and mdp.rho[-1] == 0


@pytest.mark.parametrize("name", ["FrozenLake dry", "Taxi", "CliffWalking"])
def test_gymnasium_against_its_own_steps(name):
    """Following the optimal policy in the environment itself earns the computed value, from every seed's start."""
    kind, options = GYMNASIUM[name]
    gamma = 0.97
    mdp = from_gymnasium(kind, gamma, **options)
    best = optimal(mdp)
    env = gymnasium.make(kind, **options)
    for seed in range(10):
        state, _ = env.reset(seed=seed)
        start, total, discount, over = int(state), 0.0, 1.0, False
        assert mdp.rho[start] > 0
        while not over:
            state, reward, terminated, truncated, _ = env.step(int(best.policy[int(state)].argmax()))
            total, discount, over = total + discount * reward, discount * gamma, terminated or truncated
        assert terminated and total == pytest.approx(best.V[start], rel=1e-12)


def test_gymnasium_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"pip install 'pmdtheory\[gymnasium\]'"):
        from_gymnasium("FrozenLake-v1", 0.9)


class Corridor(gymnasium.Env):
    """Three states in a row, a table of one's own, and its start in the second."""

    action_space, observation_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(3)

    def __init__(self, change=lambda table: None):
        self.P = {x: [self.moves(x, max(0, x - 1), False), self.moves(x, min(2, x + 1), x == 2)] for x in range(3)}
        self.P = {x: dict(enumerate(row)) for x, row in self.P.items()}
        change(self.P)

    @staticmethod
    def moves(x, y, terminated):
        return [(0.75, y, float(x), terminated), (0.25, x, 0.5, False)]

    def reset(self, seed=None, options=None):
        return 1, {}


def test_start_without_a_distribution():
    """Without `initial_state_distrib` the start is the state after a reset."""
    np.testing.assert_array_equal(from_gymnasium(Corridor(), 0.9).rho, [0, 1, 0, 0])


class Doubled(gymnasium.RewardWrapper):
    def reward(self, reward):
        return 2 * reward


class Counting(gymnasium.RewardWrapper):
    count = 0

    def reward(self, reward):
        self.count += 1
        return reward * self.count


def test_reward_wrappers_are_honoured():
    """In the order of the environment's own steps; the terminal state earns nothing whatever they do to 0."""
    wrapped = gymnasium.wrappers.TransformReward(Doubled(Corridor()), lambda r: r - 1)
    plain, mdp = from_gymnasium(Corridor(), 0.9), from_gymnasium(wrapped, 0.9)
    np.testing.assert_allclose(mdp.R, np.where(plain.terminal[:, None], 0, 2 * plain.R - 1), rtol=1e-15)
    np.testing.assert_array_equal(mdp.P, plain.P)
    recorded = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.wrappers.TimeLimit(Corridor(), 5))
    seen = gymnasium.wrappers.TransformObservation(recorded, lambda x: -x, recorded.observation_space)
    np.testing.assert_array_equal(from_gymnasium(seen, 0.9).R, plain.R)


def lacks(table):
    del table[1][1]


def broken(x, a, moves):
    return lambda table: table[x].__setitem__(a, moves)


BAD_ENVIRONMENTS = {
    "no table": ("CartPole-v1", r"env\.unwrapped\.P.*CartPole"),
    "no environment": (7, r"env\.unwrapped\.P, got 7"),
    "unknown name": ("Nonsense-v0", r"gymnasium can make, got 'Nonsense-v0': NameNotFound.*Nonsense"),
    "unknown module": ("no_such_module:X-v0", "can make, got 'no_such_module:X-v0': ModuleNotFoundError"),
    "malformed name": ("///", "can make, got '///'"),
    "missing action": (Corridor(lacks), "every action in every state, got no action 1 in state 1"),
    "missing state": (Corridor(lambda table: table.pop(1)), r"number its states 0, 1, ... .*\[0, 2\]"),
    "named actions": (Corridor(lambda table: table[2].update(up=[])), r"number its actions .*\[0, 1, 'up'\]"),
    "no states": (Corridor(dict.clear), r"number its states .*\[\]"),
    "a state that is a number": (Corridor(lambda table: table.update({1: 5})), "table .*, got 5 in it"),
    "short moves": (Corridor(broken(0, 1, [(1.0, 1)])), r"got \[\(1.0, 1\)\] in state 0, action 1"),
    "words": (Corridor(broken(0, 1, [("often", 1, 0.0, False)])), "'often'.* in state 0, action 1"),
    "half a state": (Corridor(broken(0, 1, [(1.0, 1.5, 0.0, False)])), "1.5.* in state 0, action 1"),
    "off the table": (Corridor(broken(2, 0, [(1.0, 9, 0.0, False)])), "1.0 and state 9 in state 2, action 0"),
    "negative": (
        Corridor(broken(2, 0, [(-0.5, 1, 0.0, False), (1.5, 1, 0.0, False)])),
        "probability -0.5 and state 1 in state 2",
    ),
    "no moves": (Corridor(broken(1, 0, [])), r"P must sum to 1 .* 0.0 in state 1, action 0"),
    "nan reward": (Corridor(broken(1, 0, [(1.0, 0, np.nan, False)])), "R must be finite, got nan"),
    "sticky actions": (gymnasium.wrappers.StickyAction(Corridor(), 0.3), "wrapper that may change .* StickyAction"),
    "a running mean": (gymnasium.wrappers.NormalizeReward(Corridor()), "wrapper that may change .* NormalizeReward"),
    "rewards that count": (Counting(Corridor()), "reward wrapper with a memory, got Counting"),
}


@pytest.mark.parametrize("case", BAD_ENVIRONMENTS)
def test_bad_environments(case):
    """One line that names what is wrong, where."""
    environment, message = BAD_ENVIRONMENTS[case]
    with pytest.raises(ValueError, match=message) as refusal:
        from_gymnasium(environment, 0.9)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="can make, got 'FrozenLake-v1': "):
        from_gymnasium("FrozenLake-v1", 0.9, map_name="9x9")


BAD = {
    "branching too large": (lambda: garnet(3, 2, 4, np.random.default_rng(0)), "branching .*3, got 4"),
    "no states": (lambda: garnet(0, 2, 1, np.random.default_rng(0)), "states .*got 0"),
    "chain of one": (lambda: chain(1), "length .*got 1"),
    "slip above 1": (lambda: gridworld(3, 3, slip=1.5), r"slip .*1\.5"),
    "goal off the grid": (lambda: gridworld(3, 3, goal=(3, 0)), "goal .*row 3, column 0"),
    "wall off the grid": (lambda: gridworld(3, 3, walls=[(1, 1), (0, -1)]), "walls .*row 0, column -1"),
    "goal in a wall": (lambda: gridworld(3, 3, goal=(1, 1), walls=[(1, 1)]), "goal must not be a wall"),
    "half a sea": (lambda: deep_sea(2.5), r"size .*2\.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    """The message names the argument and the value."""
    build, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build()
