"""The map of ordinary training: fresh rollouts of the policy before, judged against the laws; a study like others."""

import copy
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
from pmdllm.validation.training_map import CORNER, MAP, Judged, Knobs, TrainingMap

TABLES = Path(__file__).parent.parent.parent / "figures" / "data"
SMALL = TrainingMap(
    seeds=(0,), rollouts=(4,), rates=(), taus=(1.0,), prompts=8, judged_by=16, updates=(2, 3)
)  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    assert study.run(SMALL, folder, folder / "runs", log=lambda line: None) == []
    return folder, pd.read_csv(folder / "training_map.csv")


def test_a_row_for_each_setting_split_and_number_of_updates(table):
    folder, rows = table
    assert len(rows) == 2 * 2 * 2 and set(rows.updates) == {2, 3} and set(rows.tau) == {0.1, 1.0}
    assert study.plan(SMALL, folder) == ([], [])
    assert len(study.plan(replace(SMALL, judged_by=17), folder)[0]) == 2
    assert (rows.share_low <= rows.share_high).all() and (rows.r2_reward <= 1).all() and (rows.reverse_kl > 0).all()


def test_a_cell_made_anew_is_the_same(table, tmp_path):
    _, rows = table
    step = SMALL.cells()[0]
    step.run(tmp_path)
    again = step.rows(tmp_path)["results"].drop(columns="cpu_seconds")
    before = rows[rows.tau == step.knobs.tau].reset_index(drop=True)[list(again)]
    keys = ["split", "updates"]
    pd.testing.assert_frame_equal(
        again.sort_values(keys).reset_index(drop=True), before.sort_values(keys).reset_index(drop=True), rtol=1e-6
    )


def test_rollouts_are_judged_under_the_policy_they_were_drawn_from(tmp_path):
    """E_p[e^s] = 1 only if the rollouts are p's and s = log q/p; and p itself has moved nowhere."""
    config = from_preset(Config, "tiny-cpu", output=str(tmp_path), test_prompts=1)
    run = Run(config, RunFolder(config))
    judged = Judged(run, run.task.held_out("test", 8), 64, torch.Generator().manual_seed(0))
    assert 0.05 < judged.rewards.mean() < 0.6
    moved, seen = copy.deepcopy(run.model), {}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        name = "pmdllm.validation.training_map.pooled_r2"
        patch.setattr(name, lambda s, reward, tau: seen.update(s=s, reward=reward) or {})
        found = judged(moved, 0.1, np.random.default_rng(0))
        ratio = np.exp(seen["s"])
        assert ratio.std() > 0.05 and abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(ratio.size)
        assert seen["reward"] is judged.rewards and found["reverse_kl"] > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            judged(run.model, 0.1, np.random.default_rng(0))
        assert np.abs(seen["s"]).max() < 1e-4


def test_the_map_crosses_rollouts_and_updates_and_varies_the_rest_at_a_corner():
    knobs = [step.knobs for step in MAP.cells() if step.seed == 0]
    assert len(set(knobs)) == len(knobs) and CORNER in knobs
    assert {(k.n, k.tau, k.learning_rate) for k in knobs if k.n != 64} == {(n, 0.1, 6e-4) for n in (4, 16, 256)}
    assert all(k.tau == CORNER.tau or k.learning_rate == CORNER.learning_rate for k in knobs)
    assert len(MAP.seeds) >= 3 and Knobs() == CORNER


def test_the_committed_map_is_complete():
    assert study.plan(MAP, TABLES) == ([], [])


def test_hours_that_no_piece_tells_are_said_to_be_those_of_the_rows(tmp_path):
    assert "no piece" in study.outline(MAP, tmp_path, tmp_path)["untimed"]
    assert study.outline(MAP, TABLES, tmp_path)["untimed"] is None
