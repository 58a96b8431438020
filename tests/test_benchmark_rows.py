"""The benchmarks of simulators and large MDPs at small sizes: whole rows, and solvers that agree."""

import time

import numpy as np
import pandas as pd
import pytest

from benchmarks import __main__ as main
from benchmarks import differentiable, large_mdp, picture, simulators, updates
from benchmarks.rows import repeated, row, show, taking_turns

SMALL = {
    "sweep": lambda: simulators.bandit_sweep(seeds=3, contexts=2, actions=3, steps=2, rollouts=4, rounds=1),
    "minimiser": lambda: simulators.sampled_minimiser(groups=12, actions=4, rollouts=8, alone=6, rounds=1),
    "optimum": lambda: large_mdp.optimum(side=6, rounds=1),
    "evaluation": lambda: large_mdp.evaluation(side=6, rounds=1),
    "memory": lambda: large_mdp.update_memory(10_000),
    "process": lambda: large_mdp.million(side=6),
    "solvers": lambda: updates.growth_of_solvers(shapes=[(1, 10), (3, 10)]),
    "PyTorch": lambda: differentiable.rows(shapes=((3, 5),), rounds=1),
}


@pytest.mark.parametrize("name", SMALL)
def test_rows_are_whole(name, capsys):
    rows = SMALL[name]()
    assert rows
    for each in rows:
        assert list(each) == list(row("", "", ""))
        assert (each["seconds"] or 0) > 0 or (each["bytes"] or 0) > 0
        assert (each["ratio"] is None) == (each["peer"] is None)
        assert each["ratio"] is None or each["ratio"] > 0
    show(rows)
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_the_loops_of_a_user_solve_the_same_problem():
    """`brentq` and BFGS, group by group, end where the batch does, to what their tolerances promise."""
    policy, drawn, rewards = simulators.problems(20, 5, 12, seed=3)
    target = (rewards - rewards.mean(axis=-1, keepdims=True)) / 0.3
    batch = simulators.sampled_update(policy, drawn, rewards, 0.3, "mean").policy
    for solve, tolerance in ((simulators.by_brentq, 1e-9), (simulators.by_minimize, 1e-4)):
        alone = np.stack([solve(p, y, t) for p, y, t in zip(policy, drawn, target)])
        assert np.median(np.abs(alone - batch).max(axis=-1)) < tolerance


def test_turns_are_taken():
    """Each function is called once to warm up and once a round, and the last one's ratio is 1."""
    calls = []
    seconds, ratio = taking_turns([lambda: calls.append("a"), lambda: calls.append("b")], rounds=3)
    assert calls == ["a", "b"] * 4 and seconds.shape == (2,) and ratio[1] == 1


def test_short_calls_are_repeated_until_a_turn_takes_milliseconds():
    seen = []
    calls, turn = repeated(lambda: seen.append(time.sleep(1e-3)), least=3e-3)
    before = len(seen)
    turn()
    assert len(seen) - before == calls and calls in (1, 2, 4)


def test_rows_of_a_gpu_that_is_not_there_are_kept(tmp_path, monkeypatch):
    """A benchmark's own rows are replaced, and those of a GPU only by the same GPU's."""
    gpu = differentiable.ON_GPU + "A"
    rows = {"benchmark": ["updates", *["differentiable"] * 3], "path": ["NumPy", "PyTorch", gpu, gpu + "B"]}
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    monkeypatch.setattr(main, "TABLE", tmp_path / "results.csv")
    (left,) = main.kept("differentiable", {"PyTorch", gpu + "B"})
    assert left.path.tolist() == ["NumPy", gpu]


def test_the_picture_shows_every_path():
    """From the committed table: what we compute, each peer and the floor, as lines, against actions and contexts."""
    table = pd.read_csv(main.TABLE)
    figure = picture.picture(table)
    for axis in figure.axes[:2]:
        ours = [line for line in axis.lines if line.get_label() not in updates.PEERS]
        assert all(len(line.get_xdata()) >= 2 for line in ours)
        assert [line.get_label() for line in axis.lines] == list(picture.LINES)
    assert len(figure.axes[2].lines[0].get_xdata()) >= 2


def test_a_peer_that_takes_long_is_not_asked_for_more():
    rows = updates.growth_of_solvers(shapes=[(1, 10), (2, 10)], longest=0.0)
    assert {each["size"] for each in rows} == {"1 × 10, tau 0.0333"}
