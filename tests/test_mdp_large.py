"""Many states: iterative solvers against dense ones, far values, and memory that grows with the non-zeros only."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.memory import of_objects
from pmdtheory.mdp import MDP, chain, deep_sea, evaluate, garnet, gridworld, iterate, occupancy, optimal, optimum
from pmdtheory.mdp.cycle import Cycle
from tests.mdps import dense, examples, random_policy

SPARSE = {name: mdp for name, mdp in examples().items() if mdp.is_sparse} | {
    "grid with slip": gridworld(9, 7, slip=0.3, gamma=0.99, walls=[(2, 2), (2, 3), (5, 1)], sparse=True),
    "random graph": garnet(80, 3, 4, np.random.default_rng(2), gamma=0.97, sparse=True),
    "one way": garnet(60, 2, 1, np.random.default_rng(3), gamma=0.9, sparse=True),
    "deep sea": deep_sea(7, sparse=True),
    "chain": chain(150, gamma=0.999, sparse=True),
}
every = pytest.mark.parametrize("name", SPARSE)


@every
def test_iterative_and_dense_values_agree(name):
    """Stochastic and deterministic policies; the error that is stated covers the difference."""
    mdp, rng = SPARSE[name], np.random.default_rng(4)
    same = MDP(dense(mdp), mdp.R, mdp.gamma, mdp.rho)
    for policy in (random_policy(rng, mdp), mdp.uniform_policy(), np.eye(mdp.actions)[mdp.R.argmax(axis=1)]):
        exact, found = evaluate(same, policy), evaluate(mdp, policy, solver="iterative")
        scale = max(1.0, np.abs(exact.V).max())
        np.testing.assert_allclose(found.V, exact.V, rtol=0, atol=1e-10 * scale)
        np.testing.assert_allclose(found.A, exact.A, rtol=0, atol=1e-10 * scale)
        assert np.abs(found.V - exact.V).max() <= found.error + exact.error
        d = occupancy(mdp, policy, solver="iterative")
        np.testing.assert_allclose(d, occupancy(same, policy), rtol=0, atol=1e-10)


@every
def test_the_optimum_is_the_same_by_either_solver(name):
    mdp = SPARSE[name]
    best = [optimal(mdp, solver=solver) for solver in ("direct", "iterative")]
    np.testing.assert_allclose(best[0].V, best[1].V, rtol=0, atol=best[0].certificate + best[1].certificate)
    assert best[1].certificate <= 1e-10 * max(1.0, np.abs(best[1].V).max())


def test_a_residual_that_cannot_be_solved_for_is_refused(monkeypatch):
    """One line says what is left, and what to do; by default the factorisation steps in."""
    mdp = chain(400, gamma=1 - 1e-7, sparse=True)
    policy = mdp.uniform_policy()
    exact = evaluate(mdp, policy, solver="direct")
    monkeypatch.setattr("pmdtheory.mdp.cycle._CYCLES", 1)
    with pytest.raises(ValueError, match=r"^solver 'iterative' left a residual of .* solver='direct' .*$"):
        evaluate(mdp, policy, solver="iterative")
    with pytest.raises(ValueError, match=r"^solver 'iterative' leaves an error of .* occupancy: .*'direct'.*$"):
        occupancy(mdp, policy, solver="iterative")
    monkeypatch.setattr("pmdtheory.mdp.evaluation._NARROW", 0)
    np.testing.assert_allclose(evaluate(mdp, policy).V, exact.V, rtol=1e-12)
    monkeypatch.setattr("pmdtheory.mdp.evaluation._WIDE", 0)
    with pytest.raises(ValueError, match="solver 'iterative' left"):
        evaluate(mdp, policy)


def test_an_unknown_solver_is_named():
    for function in (lambda s: evaluate(chain(3), [[1, 0]] * 3, s), lambda s: optimal(chain(3), solver=s)):
        with pytest.raises(ValueError, match="solver must be one of direct, iterative, got 'lu'"):
            function("lu")


def test_profiles():
    """A chain's rows start beside the diagonal, a grid's a side before it, a random graph's at the first state."""
    assert chain(1000, sparse=True).profile == chain(1000).profile <= 1000
    grid = gridworld(40, 30, sparse=True).profile
    assert 40 * 30 * 30 / 3 < grid < 40 * 30 * 40
    assert garnet(500, 3, 5, np.random.default_rng(0), sparse=True).profile > 500 * 500 / 8


def test_news_of_the_goal_reaches_every_state_at_once(monkeypatch):
    """Without slip V = γ^(distance − 1), also where that is 1e-17 of the largest; two policies are valued at most."""
    valued = []
    monkeypatch.setattr(optimum, "evaluate", lambda *a: valued.append(1) or evaluate(*a))
    mdp = gridworld(60, 60, slip=0.0, gamma=0.72, sparse=True)
    best = optimal(mdp)
    distance = np.add.outer(np.arange(59, -1, -1), np.arange(59, -1, -1)).ravel()
    np.testing.assert_allclose(best.V[:-1], 0.72 ** (distance[:-1] - 1.0), rtol=0, atol=1e-14)
    moves = best.policy.argmax(axis=1)[:-1]
    assert np.isin(moves, [1, 2]).all()  # right or down, in the farthest corner too
    assert len(valued) <= 2


def test_memory_of_an_iteration_is_linear_in_the_states_and_does_not_grow_with_steps():
    sizes = [gridworld(side, side, sparse=True) for side in (40, 80)]
    for mdp in sizes:
        evaluate(mdp, mdp.uniform_policy(), solver="iterative")  # what is computed once
    small, large = (of_objects(lambda m=mdp: iterate(m, tau=0.05, steps=2)) for mdp in sizes)
    assert large / small < 1.2 * sizes[1].states / sizes[0].states
    assert of_objects(lambda: iterate(sizes[0], tau=0.05, steps=6)) < 1.1 * small


def test_memory_of_the_optimum_is_linear_in_the_states():
    sizes = [gridworld(side, side, sparse=True) for side in (60, 120)]
    small, large = (of_objects(lambda m=mdp: optimal(m, solver="iterative")) for mdp in sizes)
    assert large / small < 1.2 * sizes[1].states / sizes[0].states


def test_transitions_are_shared_by_an_mdp_with_other_rewards():
    mdp = garnet(6, 2, 2, np.random.default_rng(1), sparse=True)
    other = mdp.rewarded(mdp.R + 1)
    assert other.P is mdp.P
    policy = mdp.uniform_policy()
    np.testing.assert_allclose(evaluate(other, policy).V, evaluate(MDP(mdp.P, mdp.R + 1, mdp.gamma), policy).V)
    grid = gridworld(2, 2)
    assert not grid.rewarded(grid.R + 1).terminal.any() and grid.terminal.any()
    with pytest.raises(ValueError, match=r"R must have shape \(6, 2\)"):
        mdp.rewarded([1.0])


def test_the_order_of_the_sweep_solves_a_policy_that_heads_for_the_goal():
    """Along one-way paths to the anchor the system is triangular in that order: one sweep is the solution."""
    mdp = gridworld(20, 20, slip=0.0, gamma=0.99, sparse=True)
    down_then_right = np.where(np.arange(400) < 380, 2, 1)
    system = Cycle(mdp, np.eye(4)[down_then_right], "iterative")._solver
    right = np.random.default_rng(0).random(400)
    np.testing.assert_allclose(system.system @ system.sweep(right), right, rtol=0, atol=1e-13)


def test_a_hundred_thousand_states_within_half_a_gibibyte():
    """The optimum, certified, in a process of its own; a child's ru_maxrss may be its parent's, so VmHWM counts."""
    code = (
        "from benchmarks import memory\n"
        "from pmdtheory.mdp import gridworld, optimal\n"
        "best = optimal(gridworld(317, 316, slip=0.1, gamma=0.9, sparse=True))\n"
        "assert best.certificate < 1e-11\n"
        "print(memory.of_process())\n"
    )
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 2**29
