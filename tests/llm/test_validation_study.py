"""The validation as a study: what its tables lack, what they keep, what departs from them; and ordinary training."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pmdllm.config import Config, from_preset
from pmdllm.run_folder import RunFolder
from pmdllm.train import Run
from pmdllm.validation import ordinary_training
from pmdllm.validation import study as validation_study
from pmdllm.validation.experiments import Cell
from pmdllm.validation.tables import departures, publish
from pmdllm.validation.validate import ValidateConfig

TABLES = Path(__file__).parent.parent.parent / "figures" / "data"
TINY = {
    "hidden_size": 16, "heads": 2, "layers": 1, "warmup_steps": 60, "warmup_batch": 32, "prompts": 2, "evaluations": 6,
    "taus": "0.3", "rewards": "graded", "training_prompts": 4, "training_iterations": 1, "training_epochs": 1, "n": 4,
    "experiments": "population,training",
}  # fmt: skip


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Tables of a small validation with two seeds, made in two processes; its runs."""
    folder, patch = tmp_path_factory.mktemp("validation"), pytest.MonkeyPatch()
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"seeds": "0,1"}))
    patch.setattr(validation_study, "PRESET", str(folder / "tiny.yaml"))
    tables, runs, lines = folder / "tables", folder / "runs", []
    assert len(validation_study.plan(tables, runs)) == 2 * (2 + 4)
    validation_study.run(tables, runs, jobs=2, log=lines.append)
    assert len(lines) == 12
    yield tables, runs
    patch.undo()


def test_the_tables_keep_every_cell(committed, tmp_path):
    """Nothing is left to do, in whatever folder of runs; without tables everything is."""
    tables, runs = committed
    assert validation_study.plan(tables, tmp_path) == []
    assert len(validation_study.plan(tmp_path, runs)) == 12
    table = pd.read_csv(tables / "validate.csv")
    assert table.groupby("experiment").seed.nunique().to_dict() == {"population": 2, "training": 2}
    assert table[["options", "torch", "transformers", "device", "command"]].notna().all(axis=None)
    assert set(pd.read_csv(tables / "validate_actions.csv").seed) == {0}


def test_the_committed_tables_are_complete(tmp_path):
    """All cells of the study, at least five seeds of each, and nothing that departs from the laws."""
    assert validation_study.missing(from_preset(ValidateConfig, "full", kind="validate"), TABLES) == []
    table = pd.read_csv(TABLES / "validate.csv")
    setting = ["experiment", "reward", "tau", "algorithm", "n", "size", "split", "iteration"]
    assert (table.groupby(setting).seed.nunique() >= 5).all()
    assert departures(table) == []


def test_a_cell_made_anew_leaves_nothing_behind(committed, tmp_path):
    """Rows that its first making had and its second has not are gone; other cells keep theirs."""
    tables, runs = committed
    shutil.copytree(tables, tmp_path / "tables")
    path = tmp_path / "tables" / "validate_steps.csv"
    table = pd.read_csv(path)
    stale = table.iloc[:1].assign(evaluations=99_999)
    pd.concat([table, stale]).to_csv(path, index=False)
    config = validation_study._config(runs)
    name = Cell(**table.loc[0, list(Cell.__dataclass_fields__)])
    publish(name, config, tmp_path / "tables")
    pd.testing.assert_frame_equal(pd.read_csv(path), table)


def test_predicted_time_is_that_of_the_same_cells(committed):
    tables, runs = committed
    table = pd.read_csv(tables / "validate.csv").drop_duplicates(["experiment", "tau", "algorithm", "seed"])
    cells = validation_study.plan(tables.parent / "none", runs)
    assert validation_study.predicted_seconds(cells, tables) == pytest.approx(table.cpu_seconds.sum(), rel=1e-6)
    assert validation_study.predicted_seconds(cells[:2], tables.parent / "none") == 2 * validation_study.SECONDS
    assert validation_study.predicted_seconds([], tables) == 0


def test_check_finds_the_committed_numbers_and_names_others(committed, tmp_path):
    tables, _ = committed
    lines = []
    assert validation_study.check(tables, tmp_path, log=lines.append) == []
    assert sum("allowed by 2 committed seeds" in line for line in lines) == 4
    changed = pd.read_csv(tables / "validate.csv")
    changed.loc[changed.algorithm == "pmd-mean", "r2_law"] -= 1e9
    (tmp_path / "changed").mkdir()
    changed.to_csv(tmp_path / "changed" / "validate.csv", index=False)
    (departure,) = validation_study.check(tmp_path / "changed", tmp_path, log=lines.append)
    assert "pmd-mean: log(1 - r2_law)" in departure


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
