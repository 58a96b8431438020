"""Networks fitted at once on prompts of their own: each as it would be alone, judged on prompts that none has seen."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pmdllm.config import from_preset
from pmdllm.losses import ALGORITHMS
from pmdllm.study import plan, run
from pmdllm.validation import fit, held_out
from pmdllm.validation.declared import ValidateConfig, Validation, declared
from pmdllm.validation.experiments import Cell
from pmdllm.validation.sums import Sums

from pmdtheory import laws

TINY = ValidateConfig(
    hidden_size=16, heads=2, layers=1, warmup_steps=60, warmup_batch=32, experiments="held-out", seeds="0,1",
    sizes="7", held_out_steps=60, held_out_batch=4, learning_rate=3e-3,
)  # fmt: skip
CELLS = [fit.cell for fit in Validation(TINY).cells()]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return [fit.base(TINY, cell.seed, folder, cell.task) for cell in CELLS]


@pytest.fixture(scope="module")
def together(bases):
    return held_out.run(CELLS, TINY, bases)


def test_a_stack_has_the_policies_of_its_networks(bases):
    numbers = np.array([[12, 9999], [4321, 7]])
    stack = held_out.Stack(bases[::2], Sums(units_first=True).prompts(range(10_000)))
    with torch.no_grad():
        found = stack(torch.from_numpy(numbers))
        for one, base, some in zip(found, bases[::2], numbers):
            assert torch.allclose(one, base(base.task.prompts(some)), atol=1e-5)
    assert torch.equal(stack.log_policy(torch.from_numpy(numbers)), found)
    assert found.shape == (2, 2, 101) and torch.allclose(found.exp().sum(-1), torch.ones(2, 2).double())


def test_networks_are_fitted_as_each_would_be_alone(together, bases):
    for cell, base, tables in zip(CELLS, bases, together):
        (alone,) = held_out.run([cell], TINY, [base])
        for name in ("prompts", "steps"):
            pd.testing.assert_frame_equal(tables[name], alone[name], rtol=0.02, atol=1e-3)


def test_the_first_step_is_that_of_the_population_loss(bases):
    """The gradient of a stack's loss is each network's own, that of `fit.population` on its batch."""
    cell, base, seen = CELLS[0], bases[0], []
    config = replace(TINY, held_out_steps=1, held_out_batch=7)

    class SeenError(Exception):
        pass

    def stop(stack, loss, *arguments):
        loss().backward()
        seen.extend(value.grad[0] for value in stack.trained)
        raise SeenError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SeenError):
        patch.setattr(fit, "muon", stop)
        held_out.run([cell], config, [base])
    numbers = np.random.default_rng((cell.seed, 1)).permutation(10_000)[:7]
    anchor, policy = fit.anchor(base, numbers, "graded"), base.copy()
    law = laws.predict(anchor.policy, anchor.rewards.numpy(), cell.tau, "mean")
    fit.population(policy, anchor, ALGORITHMS["pmd-mean"], cell.tau, law)().backward()
    for value, found in zip(policy.trained, seen):
        assert torch.allclose(value.grad, found, atol=1e-6)


def test_both_splits_are_judged_at_the_steps_declared(together):
    for cell, tables in zip(CELLS, together):
        prompts = tables["prompts"]
        numbers = {split: set(rows.number) for split, rows in prompts.groupby("split")}
        assert len(numbers["train"]) == cell.size and len(numbers["held-out"]) == held_out.UNSEEN
        assert not numbers["train"] & numbers["held-out"]
        assert set(tables["steps"].evaluations) == {50, 60}
        last = tables["steps"][tables["steps"].evaluations == 60].set_index("split").share
        assert last.to_dict() == pytest.approx(prompts.groupby("split").share.median().to_dict())


def test_every_prompt_comes_once_before_one_comes_again():
    drawn = held_out.batches(10, 3, 7, np.random.default_rng(0))
    assert drawn.shape == (7, 3)
    for start in (0, 3):
        assert len(set(drawn[start : start + 3].ravel())) == 9


def test_a_group_is_run_at_once_and_kept_cell_by_cell(tmp_path):
    """On a device that may be a GPU; the same rows then stand in the table of the study on a CPU."""
    study, lines = Validation(replace(TINY, device="auto", sizes="3,7", held_out_steps=4)), []
    groups = {fit.group for fit in study.cells()}
    assert len(groups) == 2 and None not in groups
    assert {fit.group for fit in Validation(TINY).cells()} == {None}
    assert run(study, tmp_path, tmp_path / "runs", log=lines.append) == []
    assert len(lines) == 1 + 8
    table = pd.read_csv(tmp_path / "validate_held_out.csv")
    assert len(table) == 8 * 2 and set(table.algorithm) == {"pmd-mean", "pmd-part"}
    assert plan(Validation(replace(study.config, device="cpu")), tmp_path) == ([], [])


def test_a_group_that_fails_is_told_cell_by_cell(tmp_path, monkeypatch):
    study = Validation(replace(TINY, device="auto", held_out_steps=2))
    monkeypatch.setattr(held_out.Stack, "__call__", lambda self, rows: 1 / 0)
    failed = run(study, tmp_path, tmp_path / "runs", log=lambda line: None)
    assert [fit.cell for fit in failed] == CELLS
    assert all((tmp_path / "runs" / fit.folder / "error.log").exists() for fit in failed)


def test_the_declared_study_is_of_both_losses_and_five_seeds():
    cells = [fit.cell for fit in declared("validate_held_out").cells()]
    assert {(cell.algorithm, cell.size) for cell in cells} == {
        (loss, size) for loss in ("pmd-mean", "pmd-part") for size in (64, 512, 5000)
    }
    assert len({cell.seed for cell in cells}) == 5 and all(math.isinf(cell.n) for cell in cells)
    assert from_preset(ValidateConfig, "held-out", kind="validate").study == "validate_held_out"


def test_predicted_time_is_not_that_of_a_gpu():
    fit = Validation(TINY).cells()[0]
    rows = pd.DataFrame([fit.columns | {"cpu_seconds": 1.0, "device": "NVIDIA H100"}] * 2)
    guess = fit.seconds(pd.DataFrame())
    assert fit.seconds(rows) == guess > 1 and fit.seconds(rows.assign(device="x86_64 AVX2")) == 1
    longer = Validation(replace(TINY, held_out_steps=120)).cells()[0]
    assert longer.seconds(pd.DataFrame()) == 2 * guess


def test_units_may_come_first():
    task = Sums(units_first=True)
    assert task.answers[12] == "21" and task.answers[5] == "50" and Sums(True, True).answers[13] == "31+++"
    assert Cell("held-out", "graded", 0.3, "pmd-mean", math.inf, 7, 0).task.answers[1] == "10"
    assert Sums().spec != task.spec != Sums(True, True).spec
    (prompt, completion), *_ = task.demonstrations(1, np.random.default_rng(0))
    assert prompt == Sums().demonstrations(1, np.random.default_rng(0))[0][0]
    assert completion[::-1] == Sums().demonstrations(1, np.random.default_rng(0))[0][1]
