"""The figures of a network beside the theory, on tables whose networks were put on their laws, up to a little noise."""

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from pmdllm.validation.declared import ValidateConfig, Validation, summary
from pmdllm.validation.experiments import Cell, actions_table
from pmdllm.validation.fit import Anchor
from pmdllm.validation.held_out import WATCHED

from figures import (
    harness,
    network,
    network_against_theory,
    network_family,
    network_held_out,
    network_laws,
    network_limits,
    network_rollouts,
    network_training,
)
from pmdtheory import laws, pmd_mean_update
from pmdtheory.theorems import binary_reward

EXPERIMENTS = ("population", "rollouts", "completions", "batch", "recursion", "training")
CONFIG = ValidateConfig(
    experiments=",".join(EXPERIMENTS), taus="0.1,1", rollouts="4,16", seeds="0,1,2", outer_steps=3
)
HELD_OUT = ValidateConfig(experiments="held-out", sizes="8,16", seeds="0,1,2")


def rows_of(cell, rng):
    """Tables of a cell whose network is on its law: prompts, steps and actions."""
    reward = np.tile([1.0, 0.0, 0.0] if cell.reward == "binary" else [1.0, 0.5, 0.0], (4, 34))[:, :101]
    anchor = Anchor(["1+1="] * 4, torch.from_numpy(rng.dirichlet(np.ones(101), 4)).log(), torch.from_numpy(reward))
    actions = rng.integers(6, size=(4, 16))
    law, p = cell.law(None, anchor, actions), anchor.policy
    s = law.log_ratio + rng.normal(scale=1e-3, size=p.shape)
    s -= np.log((p * np.exp(s)).sum(axis=1, keepdims=True))
    seen = np.isin(np.arange(101), actions) & np.ones_like(p, dtype=bool) if cell.experiment == "batch" else None
    found = laws.compare(p, reward, cell.effective_tau, s, law, seen)
    found |= {"expected_reward": (p * reward).sum(axis=1), "number": np.arange(4)}
    if cell.experiment == "recursion":
        fails = reward == 0
        found |= {
            "expected_reward_recursion": (law.policy * reward).sum(axis=1),
            "failure_log_ratio": np.log((p * np.exp(s) * fails).sum(axis=1) / (p * fails).sum(axis=1)),
            "failure_low": binary_reward.failure_ratio_from_below(p, reward, cell.tau).value[:, 1],
            "failure_high": binary_reward.failure_ratio_from_above(p, reward, cell.tau).bound,
        }
    splits = ("train", "held-out") if cell.experiment == "held-out" else ("train",)
    iterations = range(1, 4) if cell.experiment == "recursion" else (1,)
    prompts = [
        pd.DataFrame(asdict(cell) | found | {"split": split, "iteration": iteration})
        for split in splits for iteration in iterations
    ]  # fmt: skip
    medians = asdict(cell) | {name: np.median(found[name]) for name in WATCHED}
    steps = [medians | {"split": split, "evaluations": count} for split in splits for count in (50, 100)]
    steps = pd.DataFrame(steps)
    return pd.concat(prompts), steps, actions_table(cell, np.arange(4), anchor, s)


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    cells = [fit.cell for fit in Validation(CONFIG).cells()]
    fits = [cell for cell in cells if cell.experiment != "training"]
    prompts, steps, actions = (pd.concat(parts) for parts in zip(*(rows_of(cell, rng) for cell in fits)))
    training = pd.DataFrame([
        asdict(cell) | {"split": split, "iteration": iteration, "share": 2.0 + iteration}
        for cell in cells if cell.experiment == "training"
        for split in ("train", "held-out") for iteration in (1, 2)
    ])  # fmt: skip
    actions = actions[(actions.experiment == "population") & (actions.seed == 0)]
    return {
        "validate": pd.concat([summary(prompts), training]), "validate_prompts": prompts, "validate_steps": steps,
        "validate_actions": actions,
    }  # fmt: skip


@pytest.mark.parametrize(
    "name, experiments, seeds",
    [
        ("network_against_theory", EXPERIMENTS, 3),
        ("network_against_theory", EXPERIMENTS[:1], 1),
        ("network_against_theory", EXPERIMENTS[1:], 1),
        ("network_rollouts", EXPERIMENTS, 3),
        ("network_rollouts", EXPERIMENTS[:1], 1),
        ("network_rollouts", EXPERIMENTS[1:], 1),
        ("network_laws", EXPERIMENTS, 3),
        ("network_laws", EXPERIMENTS[1:], 1),
        ("network_limits", EXPERIMENTS, 3),
        ("network_limits", EXPERIMENTS[:1], 1),
    ],
)
def test_drawn_from_whatever_is_there(tables, name, experiments, seeds, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "DATA", tmp_path)
    for stem, table in tables.items():
        some = table[table.experiment.isin(experiments) & (table.seed < seeds)]
        filled = some.dropna(axis=1, how="all") if len(some) else some  # other experiments' columns are not there yet
        filled.to_csv(tmp_path / f"{stem}.csv", index=False)
    outcome = harness.run(name, build=tmp_path / "build")
    assert len(outcome.finding) > 40
    assert "nan" not in outcome.finding
    drawn = (tmp_path / "build" / f"{name}.svg").read_text()
    figure = harness.module(name)
    assert f">{harness.title(figure, harness.committed(figure)).partition(' ')[0]} " in drawn
    assert drawn.count('<g id="axes_') <= 3


def test_finding_names_what_is_off_its_law(tables):
    table, prompts, steps, actions = tables.values()
    words = network_laws.finding(table, actions)
    assert words.count("in 4/4 settings") == 2
    assert "10 times as far: no fit" in words
    assert "100% of the prompts" in network_against_theory.finding(table, prompts, steps)
    assert network_against_theory.title(table, prompts, steps).startswith("On 100% of the prompts")
    moved = prompts.assign(share=prompts.share.where(prompts.seed > 0, 0.5))  # one seed of three is on neither law
    assert network_against_theory.title(table, moved, steps).startswith("On 67% of the prompts")
    assert "One batch: R² at least 1.0000" in network_rollouts.finding(table, prompts)
    assert network_limits.finding(table, prompts).count("reward within 0.00") == 2
    one = (table.experiment == "population") & (table.reward == "graded") & (table.tau == 0.1) & (table.seed == 2)
    off = table.assign(share=table.share.where(~one, 0.5))
    assert "far: graded τ 0.1 PMD-mean seed 2, graded τ 0.1 log-partition seed 2." in network_laws.finding(off, actions)


def test_the_family_says_which_fit_is_as_near_to_pmd_means_law(tables, tmp_path, monkeypatch):
    """Two losses, two seeds; and a table without any."""
    table = pd.DataFrame({
        "experiment": "family", "algorithm": ["on-policy", "on-policy", "filtered", "filtered"], "tau": 0.3,
        "seed": [0, 1, 0, 1], "r2_law": [0.99, 0.98, 0.999, 0.997], "from_law": [1e-4, 1e-4, 1e-3, 1e-3],
        "from_lambert": [1e-2, 1e-2, 2e-2, 2e-3], "from_kl_law": [1e-4, 1e-4, 3e-3, 3e-3],
    })  # fmt: skip
    words = network_family.finding(table)
    assert "filtered 6, on-policy 100 (2 seeds)" in words
    assert "Less than 5 times: filtered seed 1." in words and "0.980 to 0.999" in words
    monkeypatch.setattr(harness, "DATA", tmp_path)
    for rows, expected in ((table, "on-policy 100"), (tables["validate"].dropna(axis=1, how="all"), "no fit")):
        rows.to_csv(tmp_path / "validate.csv", index=False)
        assert expected in harness.run("network_family", build=tmp_path / "build").finding


def test_axes_of_the_ratio_panel():
    """Written out for two actions: the Lambert-W law is the diagonal, the KL law is at 1."""
    p, r, tau = np.array([0.2, 0.8]), np.array([1.0, 0.0]), 0.1
    q = {"pmd-mean": pmd_mean_update(p, r, tau).policy, "pmd-part": p * np.exp(r / tau) / (p @ np.exp(r / tau))}
    cell = {"experiment": "population", "number": 7, "seed": 0, **network.SHOWN}
    actions = pd.concat(
        pd.DataFrame(cell | {"algorithm": name, "policy": p, "reward_of_action": r, "log_ratio": np.log(q[name] / p)})
        for name in q
    )
    mean, part = (network_laws.shown(actions, name) for name in ("pmd-mean", "pmd-part"))
    assert mean.excess.to_numpy() == pytest.approx(mean.ratio.to_numpy(), rel=1e-9)
    assert part.excess.to_numpy() == pytest.approx(1, rel=1e-9)


def test_recursion_starts_at_the_base_and_follows_its_prompts(tables):
    rows = network_limits.recursion(tables["validate_prompts"])
    cell = Cell("recursion", "binary", CONFIG.recursion_tau, "pmd-mean", math.inf, CONFIG.prompts, 0)
    mine = rows[(rows.algorithm == cell.algorithm) & (rows.seed == 0)].set_index("iteration")
    before = network.select(tables["validate_prompts"], **asdict(cell), iteration=1).expected_reward
    assert mine.fitted[0] == mine.exact[0] == pytest.approx(before.mean())
    assert mine.failures[0] == pytest.approx(1 - before.median())
    assert mine.fitted[1] == pytest.approx(mine.exact[1], abs=1e-3)
    assert mine.low[1] < mine.failures[1] < mine.high[1]


@pytest.fixture
def held_out():
    """Results and steps of networks that are on their law."""
    rng = np.random.default_rng(1)
    cells = [fit.cell for fit in Validation(HELD_OUT).cells()]
    prompts, steps, _ = (pd.concat(parts) for parts in zip(*(rows_of(cell, rng) for cell in cells)))
    return summary(prompts), steps


def drawn(name, tables, folder, monkeypatch):
    """Outcome and picture of a figure on some tables."""
    monkeypatch.setattr(harness, "DATA", folder)
    for stem, table in tables.items():
        table.to_csv(folder / f"{stem}.csv", index=False)
    outcome = harness.run(name, build=folder / "build")
    return outcome.finding, (folder / "build" / f"{name}.svg").read_text()


@pytest.mark.parametrize("seeds, sizes", [(3, (8, 16)), (1, (16,))])
def test_unseen_prompts_are_drawn_from_whatever_is_there(held_out, seeds, sizes, tmp_path, monkeypatch):
    some = [rows[(rows.seed < seeds) & rows["size"].isin(sizes)] for rows in held_out]
    tables = dict(zip(("validate_held_out", "validate_held_out_steps"), some))
    finding, picture = drawn("network_held_out", tables, tmp_path, monkeypatch)
    assert "nan" not in finding and f"passes 0.98 by step 50 of 100 ({seeds} seeds)" in finding
    assert "Prompts" in picture and picture.count('<g id="axes_') <= 4


def scatter(mean, half):
    """Three values with this mean and this half-width of Student's interval, t₀.₉₇₅ = 4.3027 of two degrees."""
    return mean + half * np.array([-1, 0, 1]) * np.sqrt(3) / 4.302652729749464


@pytest.mark.parametrize(
    "f, half, r2, r2_half, expected",
    [
        (1.03, 0.015, 0.99, 0.005, 1),
        (1.03, 0.025, 0.99, 0.005, 0),  # the mean is near, its interval reaches beyond
        (1.07, 0.03, 0.99, 0.005, 0),  # the mean is not, its interval reaches into what is
        (1.07, 0.01, 0.99, 0.005, -1),
        (1.00, 0.01, 0.99, 0.015, 0),
        (1.00, 0.01, 0.96, 0.015, -1),
        (0.00, 0.01, 0.99, 0.005, -1),  # the other law
    ],
)
def test_on_a_law_are_seeds_whose_intervals_lie_within(f, half, r2, r2_half, expected):
    rows = pd.DataFrame({"share": scatter(f, half), "r2_law": scatter(r2, r2_half)})
    assert network.on_law(rows, "lambert", 0.05, 0.98) == expected
    mirrored = rows.assign(share=rows.share - 1)
    assert network.on_law(mirrored, "kl_law", 0.05, 0.98) == expected
    assert network.on_law(rows[:1], "lambert", 0.05, 0.98) == 0


def test_the_title_follows_from_the_unseen_prompts(held_out):
    table, steps = held_out
    assert "left out of the update obey the law of their loss after 16" in network_held_out.title(table, steps)
    unseen, largest = table.split == "held-out", table["size"] == 16
    for changed in (
        table.assign(share=table.share.where(~(unseen & largest & (table.seed == 1)), 1.2)),
        table.assign(r2_law=table.r2_law.where(~(unseen & largest & (table.seed == 1)), 0.9)),
    ):
        assert "come near" in network_held_out.title(changed, steps)
    for harmless in (unseen & ~largest, ~unseen):
        changed = table.assign(share=table.share.where(~harmless, 9.0))
        assert network_held_out.title(changed, steps) == network_held_out.title(table, steps)


def a_map(f, r2):
    """The map's table with f and R² as functions of n, U, τ and the rate."""
    rows = [
        {"n": n, "updates": U, "tau": tau, "learning_rate": rate, "seed": seed, "split": split}
        for n, tau, rate in ((4, 0.1, 6e-4), (64, 0.1, 6e-4), (64, 1.0, 6e-4), (64, 0.1, 1e-3))
        for U in (8, 512) for seed in (0, 1, 2) for split in ("train", "held-out")
    ]  # fmt: skip
    for row in rows:
        row |= {"share": f(row) + 0.01 * row["seed"], "r2_lambert": r2(row) if row["split"] == "train" else 0.3}
    return pd.DataFrame(rows).assign(algorithm="pmd-mean-loo", r2_kl_law=0.1, r2_reward=0.95)


@pytest.mark.parametrize(
    "f, r2, expected",
    [
        (lambda row: 1.0, lambda row: 0.95, "in 8 of 8 settings, from 4 rollouts on"),
        (lambda row: float(row["n"] == 64 and row["tau"] == 0.1), lambda row: 0.95, "in 4 of 8 settings, from 64"),
        (lambda row: 1.0, lambda row: 0.8, "nowhere"),
        (lambda row: 0.5, lambda row: 0.95, "nowhere"),
    ],
)
def test_the_map_says_where_pmd_mean_is_the_papers(f, r2, expected, tmp_path, monkeypatch):
    table = a_map(f, r2)
    assert expected in network_training.title(table)
    finding, picture = drawn("network_training", {"training_map": table}, tmp_path, monkeypatch)
    assert "R² is at most 0.30" in finding and "3 seeds" in finding and "nan" not in finding
    assert picture.count('<g id="axes_') == 8  # six maps and two bars
