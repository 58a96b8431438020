"""The validation as a study: what its tables lack, what they keep, what departs from them; and ordinary training."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pmdllm import study
from pmdllm.config import Config, from_preset
from pmdllm.run.folder import RunFolder
from pmdllm.train import Run
from pmdllm.validation import ordinary_training
from pmdllm.validation.declared import SECONDS, WITHIN, ValidateConfig, Validation, declared, departures
from pmdllm.validation.experiments import EXPERIMENTS, Cell

from pmdtheory.intervals import mean_interval

TABLES = Path(__file__).parent.parent.parent / "figures" / "data"
SMALL = Validation(
    ValidateConfig(
        hidden_size=16, heads=2, layers=1, warmup_steps=60, warmup_batch=32, prompts=2, evaluations=6, taus="0.3",
        rewards="graded", training_prompts=4, training_iterations=1, training_epochs=1, n=4, seeds="0,1",
        experiments="population,training",
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Tables of a small validation with two seeds."""
    folder, lines = tmp_path_factory.mktemp("validation"), []
    assert len(study.plan(SMALL, folder)[0]) == 2 * (2 + 4)
    assert study.run(SMALL, folder, folder / "runs", log=lines.append) == []
    assert len(lines) == 1 + 12  # and how many there are
    return folder


def test_the_tables_keep_every_cell(committed, tmp_path):
    """Nothing is left to do, in whatever folder of runs; without tables everything is."""
    assert study.plan(SMALL, committed) == ([], [])
    assert study.plan(SMALL, tmp_path) == (SMALL.cells(), [])
    table = pd.read_csv(committed / "validate.csv")
    assert table.groupby("experiment").seed.nunique().to_dict() == {"population": 2, "training": 2}
    assert table[["options", "torch", "transformers", "device", "command"]].notna().all(axis=None)
    assert set(pd.read_csv(committed / "validate_actions.csv").seed) == {0}


def test_the_committed_tables_are_complete():
    """All cells of the study, at least five seeds of each, and nothing that departs from the laws."""
    assert study.plan(declared("validate"), TABLES) == ([], [])
    table = pd.read_csv(TABLES / "validate.csv")
    setting = ["experiment", "reward", "tau", "algorithm", "n", "size", "split", "iteration"]
    assert (table.groupby(setting).seed.nunique() >= 5).all()
    assert departures(table) == []


def test_the_committed_unseen_prompts_are_complete_and_on_both_laws():
    table = pd.read_csv(TABLES / "validate_held_out.csv")
    assert study.plan(declared("validate_held_out"), TABLES) == ([], [])
    assert departures(table, WITHIN["validate_held_out"]) == []
    assert len(departures(table.assign(r2_law=0.9), 0.05)) == len(departures(table.assign(share=0.5), 0.05)) == 10


def test_the_committed_pretrained_network_is_on_both_laws():
    """The 95% interval of f over the seeds ends within 0.05 of its law, for each loss; no prompt is off by 0.1."""
    table = pd.read_csv(TABLES / "validate_pretrained.csv")
    assert study.plan(declared("validate_pretrained"), TABLES) == ([], [])
    assert departures(table, WITHIN["validate_pretrained"]) == []
    prompts = pd.read_csv(TABLES / "validate_pretrained_prompts.csv")
    for (_, algorithm), rows in table.groupby(["size", "algorithm"]):
        expected = 1 if algorithm == "pmd-mean" else 0
        interval = mean_interval(rows.share)
        assert max(abs(interval.low - expected), abs(interval.high - expected)) < 0.05
        assert (prompts[prompts.algorithm == algorithm].share - expected).abs().max() < 0.1


def test_a_cell_made_anew_leaves_nothing_behind(committed, tmp_path):
    """Rows that its first making had and its second has not are gone; other cells keep theirs."""
    for path in committed.glob("*.csv"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "validate_steps.csv"
    table = pd.read_csv(path)
    stale = table.iloc[:1].assign(evaluations=99_999)
    pd.concat([table, stale]).to_csv(path, index=False)
    (stage,), name = SMALL.stages(tmp_path), Cell(**table.loc[0, list(Cell.__dataclass_fields__)])
    stage.merge(next(fit for fit in stage.cells if fit.cell == name), committed / "runs")
    pd.testing.assert_frame_equal(pd.read_csv(path), table)


def test_predicted_time_is_that_of_the_same_cells(committed):
    table = pd.read_csv(committed / "validate.csv")
    spent = table.drop_duplicates(["experiment", "tau", "algorithm", "seed"]).cpu_seconds.sum()
    assert sum(fit.seconds(table) for fit in SMALL.cells()) == pytest.approx(spent, rel=1e-6)
    assert SMALL.cells()[0].seconds(pd.DataFrame()) == SECONDS


@pytest.mark.parametrize("preset", ["smollm2-135m", "smollm2-135m-all-blocks"])
def test_a_pretrained_networks_first_guess_is_within_a_factor_of_two(preset):
    """Of what the committed cells took, of one block and of all."""
    fits = Validation(from_preset(ValidateConfig, preset, kind="validate"))
    took = fits.rows(TABLES).cpu_seconds
    assert len(took) == len(fits.cells()) == 6
    assert 0.5 < fits.cells()[0].seconds(pd.DataFrame()) / took.mean() < 2


def test_check_finds_the_committed_numbers_and_names_others(committed, tmp_path):
    lines = []
    assert study.check([SMALL], committed, tmp_path, log=lines.append) == (4, [])
    assert sum("allowed by 2 committed seeds" in line and "identical" in line for line in lines) == 4
    changed = pd.read_csv(committed / "validate.csv")
    changed.loc[changed.algorithm == "pmd-mean", "r2_law"] -= 1e9
    (tmp_path / "changed").mkdir()
    changed.to_csv(tmp_path / "changed" / "validate.csv", index=False)
    compared, (departure,) = study.check([SMALL], tmp_path / "changed", tmp_path, log=lines.append)
    assert compared == 4 and "pmd-mean" in departure and "log(1 - r2_law)" in departure


def test_a_fit_that_fails_takes_no_other_down(tmp_path, monkeypatch):
    """The same engine: a line, a file with the whole error, and the next run makes what is missing."""
    record = EXPERIMENTS["training"]
    monkeypatch.setitem(EXPERIMENTS, "training", replace(record, run=lambda cell, config: 1 / 0))
    small, lines = Validation(replace(SMALL.config, seeds="0")), []
    failed = study.run(small, tmp_path, tmp_path / "runs", log=lines.append)
    assert [fit.cell.experiment for fit in failed] == ["training"] * 4
    assert sum("FAILED: ZeroDivisionError" in line for line in lines) == 4
    assert "Traceback" in (tmp_path / "runs" / failed[0].folder / "error.log").read_text()
    monkeypatch.setitem(EXPERIMENTS, "training", record)
    assert study.run(small, tmp_path, tmp_path / "runs", log=lines.append) == []
    assert not (tmp_path / "runs" / failed[0].folder / "error.log").exists()


def test_ordinary_training_is_measured_on_rollouts_of_the_old_policy(tmp_path, monkeypatch):
    """E_p[e^s] = 1 only if the rollouts are p's and s = log q/p; rewards are the task's."""
    config = from_preset(
        Config, "tiny-cpu", output=str(tmp_path), rollouts_per_prompt=64, prompts_per_batch=8, test_prompts=1
    )
    run, seen, estimate = Run(config, RunFolder(config)), {}, ordinary_training.pooled_share
    policy = copy.deepcopy(run.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)

    def record(log_ratio, reward, tau, rng):
        seen.update(log_ratio=log_ratio, reward=reward, tau=tau)
        return estimate(log_ratio, reward, tau, rng)

    monkeypatch.setattr(ordinary_training, "pooled_share", record)
    problems = run.task.held_out("test", 16)
    found = ordinary_training.measure(run, policy, problems, np.random.default_rng(0))
    ratio = np.exp(seen["log_ratio"])
    assert ratio.shape == (16, 64) and seen["tau"] == config.tau
    assert ratio.std() > 0.05
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(ratio.size)
    assert 0.05 < seen["reward"].mean() < 0.6
    assert found["prompts"] == 16 and found["reverse_kl"] > 0
