"""The figures' machinery and numbers: fast path from an empty folder, comparison with what is committed."""

import hashlib
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pmdllm.study.declared import STUDIES

from figures import __main__ as command
from figures import harness

ROOT = Path(__file__).parent.parent


def committed(name):
    """The committed table of a figure."""
    return pd.read_csv(harness.DATA / f"{name}.csv")


@pytest.mark.parametrize("name", harness.NAMES)
def test_fast_path_agrees_with_the_committed_table(name, tmp_path):
    """From an empty folder: the reduced table is a subset of the committed one, and both pictures are drawn."""
    outcome = harness.run(name, fast=True, build=tmp_path / "empty")
    assert outcome.differences == []
    assert len(outcome.finding) > 40
    redrawn_only = harness.inputs(harness.module(name))
    for suffix in (".png", ".svg") if redrawn_only else (".csv", ".png", ".svg"):
        assert (tmp_path / "empty" / f"{name}{suffix}").stat().st_size > 500


@pytest.mark.parametrize("name", harness.NAMES)
def test_committed_files_are_there_and_shown(name):
    """Tables, both pictures and an entry in the gallery."""
    tables = harness.inputs(harness.module(name)) or [harness.DATA / f"{name}.csv"]
    assert all(table.exists() for table in tables)
    assert (harness.OUTPUT / f"{name}.png").exists()
    assert "<svg" in (harness.OUTPUT / f"{name}.svg").read_text()
    assert f"output/{name}.png" in (ROOT / "figures" / "README.md").read_text()


def test_two_runs_are_identical(tmp_path):
    """Same table and SVG, byte for byte."""
    digests = []
    for run in ("first", "second"):
        harness.run("baseline_knob", fast=True, build=tmp_path / run)
        files = [tmp_path / run / f"baseline_knob{suffix}" for suffix in (".csv", ".svg", ".png")]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]


def test_comparison_names_what_differs(tmp_path):
    """Changed, new and missing rows are told apart; a relative 1e-10 passes, 1e-9 does not."""
    table = pd.DataFrame({"key": ["a", "b", "c"], "value": [1.0, 2.0, 3.0], "note": ["x", "y", "z"]})
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    table.to_csv(old, index=False)

    def differences(changed, subset=False, tolerance=None):
        changed.to_csv(new, index=False, float_format="%.17g")
        return harness.compare(new, old, ["key"], tolerance or {}, subset)

    assert differences(table) == []
    assert differences(table.assign(value=table.value * (1 + 5e-11))) == []
    (row,) = differences(table.assign(value=[1.0, 2.0 * (1 + 1e-9), 3.0]))
    assert row.startswith("row key=b: value is 2.000000002, committed 2.0")
    assert differences(table.assign(value=table.value * (1 + 1e-9)), tolerance={"value": 1e-8}) == []
    assert differences(table.assign(note=["x", "y", "w"])) == ["row key=c: note is w, committed z"]
    assert differences(table.assign(value=[1.0, np.nan, 3.0])) == ["row key=b: value is nan, committed 2.0"]
    assert differences(table[:2]) == ["row key=c is missing"]
    assert differences(table[:2], subset=True) == []
    assert differences(table.assign(key=["a", "b", "d"]), subset=True) == ["row key=d is new"]
    assert differences(table.rename(columns={"value": "other"}))[0].startswith("columns")
    assert differences(table.assign(key=["a", "a", "c"])) == ["the recomputed table repeats row a"]
    assert harness.compare(new, tmp_path / "none.csv", ["key"], {}, False)[0].startswith("none.csv is not committed")


def test_a_departure_fails_the_command(tmp_path, monkeypatch, capsys):
    """Exit code 1 and the row named, when a committed number is not what comes out."""
    data = tmp_path / "data"
    data.mkdir()
    table = committed("zero_temperature")
    table.loc[3, "policy"] += 1e-6
    table.to_csv(data / "zero_temperature.csv", index=False, float_format="%.12g")
    monkeypatch.setattr(harness, "DATA", data)
    monkeypatch.setattr(harness, "BUILD", harness.HERE.parent / "build" / "test-departure")
    assert command.main(["zero_temperature"]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS: row update=kl, tau=0.0001, action=3: policy" in out
    assert "1 of 1 tables differ" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "no figure is called 'nonsense'"),
        (["--fast", "--update"], "cannot --update"),
        (["--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_bad_command_lines(words, message, capsys):
    """One clear sentence, exit code 2."""
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help():
    """The command explains itself and lists the figures."""
    out = subprocess.run([sys.executable, "-m", "figures", "--help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert all(name in out for name in harness.NAMES)


STUDY_FIGURES = ("training_seeds", "training_temperature", "training_methods", "training_staleness", "training_knob")


def study_tables(name, seeds=range(5)):
    """Tables as a study writes them, with PMD-part below the base where τ < 0.5: results, curves, tuning."""
    rng = np.random.default_rng(0)
    results, curves, tuning = [], [], []
    for seed in seeds:
        for setting in STUDIES[name].settings:
            options = {"tau": 1.0} | setting.options | setting.trials[0]
            row = setting.columns | {"tau": options["tau"], "seed": seed, "trials": 8, "seconds": 60.0}
            row |= {"learning_rate": 6e-4} | {name: options.get(name) for name in ("clip_low", "target_kl")}
            collapses = "part" in options["algorithm"] and options["tau"] < 0.5
            end = (0.1 if collapses else 0.9) + rng.uniform(-0.03, 0.03)
            row |= {"before/avg@8": 0.3, "before/greedy": 0.35, "test/avg@8": end, "test/greedy": end + 0.05}
            results.append(row)
            tuning.append(row)
            for i in range(0, 61, 10):
                line = {"reward": end, "length": 12.0, "entropy": 0.3, "ratio/std": 0.5} if i else {}
                line |= {} if "tau" in setting.columns else {"tau": None}
                line |= {"iteration": i, "tokens": 100.0 * i, "cpu_seconds": float(i)}
                kinds = ("avg@8", "pass@8", "maj@8", "greedy")
                line |= {f"validation/{kind}": 0.3 + (end - 0.3) * i / 60 for kind in kinds}
                curves.append(setting.columns | {"seed": seed, "iteration": i} | line)
    return pd.DataFrame(results), pd.DataFrame(curves), pd.DataFrame(tuning)


@pytest.mark.parametrize("name", STUDY_FIGURES)
def test_study_figures_are_redrawn_only(name, tmp_path, monkeypatch):
    """From committed tables, whole or only begun; the tables stay as they are, the gallery says how they were made."""
    monkeypatch.setattr(harness, "NAMES", (name,))
    for folder in ("DATA", "OUTPUT", "HERE"):
        monkeypatch.setattr(harness, folder, tmp_path / folder)
        (tmp_path / folder).mkdir()
    figure = harness.module(name)
    for begun in (False, True):
        for path, table in zip(harness.inputs(figure), study_tables(figure.STUDY, range(1 if begun else 5))):
            some = table if not begun else table[table.iloc[:, 0] == table.iloc[0, 0]]
            some.to_csv(path, index=False)
        before = [path.read_bytes() for path in harness.inputs(figure)]
        outcome = harness.run(name, update=True, build=tmp_path / "build")
        assert outcome.differences == []
        assert "nan" not in outcome.finding
        assert [path.read_bytes() for path in harness.inputs(figure)] == before
        assert (tmp_path / "OUTPUT" / f"{name}.svg").stat().st_size > 5000
        harness.write_gallery([outcome])
        text = (tmp_path / "HERE" / "README.md").read_text()
        assert f"make study NAMES={figure.STUDY}" in text
        assert all(f"data/{table}.csv" in text for table in figure.TABLES)


def test_study_findings():
    """Counts and orderings that the tables were made to have."""
    figures = {name: importlib.import_module(f"figures.{name}") for name in STUDY_FIGURES}
    said = {
        name: figure.finding(*study_tables(figure.STUDY)[: len(figure.TABLES)]) for name, figure in figures.items()
    }
    assert said["training_seeds"].count("5 of 5 seeds") == 2
    assert "Below the base end: PMD-mean 0 of 40 runs, PMD-part 30 of 40 runs" in said["training_temperature"]
    behind = said["training_methods"].partition("Their interval lies below")[2]
    assert "pmd-part tau 0.1" in behind
    assert "0.0006" in said["training_methods"]
    assert "Below the base end 25 of 120 runs with chosen options" in said["training_staleness"]
    assert "PMD-part at U = 8: 0 of 5 seeds;" in said["training_staleness"]
    assert "the better of the two fixed ones: no knob" in said["training_knob"]


def test_the_cost_of_a_target_is_interpolated():
    """Between the evaluations around the crossing; NaN where accuracy never gets there."""
    figure = importlib.import_module("figures.training_staleness")
    common = {"method": "grpo", "budget": "rollouts", "lag": 0, "updates_per_batch": 8}
    rows = [
        common | {"seed": seed, "iteration": i, "tokens": 100.0 * i, "cpu_seconds": 10.0 * i, "validation/avg@8": value}
        for seed, values in enumerate(((0.3, 0.6, 0.8, 0.5), (0.3, 0.4, 0.5, 0.6)))
        for i, value in enumerate(values)
    ]
    found = figure.reaching(pd.DataFrame(rows), target=0.7)
    assert found.tokens.to_list() == pytest.approx([150.0, np.nan], nan_ok=True)
    assert found.cpu_seconds.to_list() == pytest.approx([15.0, np.nan], nan_ok=True)


def test_population_markers_lie_on_the_curves():
    """CVXPY against the closed forms: weighted by p, and PMD-mean spreads its log-ratios less (Statement 7)."""
    table = committed("population")
    q = table.policy * np.exp(table.log_ratio)
    keys = [table[k] for k in ("mean_reward", "tau", "update")]
    for column in ("cvxpy_subproblem", "cvxpy_regression"):
        distance = (table.policy * np.exp(table[column]) - q).abs().groupby(keys).sum()
        assert distance.max() < 1e-5
    assert q.groupby(keys).sum().to_numpy() == pytest.approx(1, abs=1e-9)
    spread = table.groupby(["mean_reward", "tau", "update"]).log_ratio.agg(np.ptp).unstack()
    assert (spread["mean"] < spread["kl"]).all()


def test_adaptive_weight_numbers():
    """λ = KL(p‖q) ≤ sd/2 everywhere, and τλ tends to J(1 − J)."""
    table = committed("adaptive_weight")
    assert table.chi2_weight.to_numpy() == pytest.approx(table.reverse_kl.to_numpy(), rel=1e-9)
    assert (table.chi2_weight <= table.bound * (1 + 1e-9)).all()
    binary = table[table.problem == "binary"]
    gap = (binary.tau * binary.chi2_weight - binary.mean_reward * (1 - binary.mean_reward)).abs()
    assert gap.groupby(binary.tau).max().is_monotonic_increasing
    assert gap[binary.tau == 0.01].max() < 0.01


def test_conservatism_numbers():
    """Both bounds of Statement 9; KL's small-J form is an upper bound; PMD-mean leaves more failures."""
    table = committed("conservatism")
    assert (table.mean_factor_low * (1 - 1e-9) <= table.mean_factor).all()
    assert (table.mean_factor <= table.mean_factor_high * (1 + 1e-9)).all()
    assert (table.kl_factor <= table.kl_factor_small * (1 + 1e-9)).all()
    assert (table.mean_factor >= table.kl_factor * (1 - 1e-9)).all()


def test_baseline_knob_numbers():
    """Statement 10: reward, KL and χ² rise and λ falls with b; λ < 0 exactly where marked local."""
    table = committed("baseline_knob").sort_values(["tau", "baseline"])
    convex = table[~table.local].groupby("tau")
    for column in ("reward", "kl", "chi2"):
        assert (convex[column].diff().dropna() > 0).all()
    assert (convex.tau_weight.diff().dropna() < 0).all()
    assert ((table.tau_weight < 0) == table.local).all()


def test_zero_temperature_numbers():
    """Distance to the limits: KL's vanishes exponentially, PMD-mean's at most like τ log(1/τ) (Statement 8)."""
    table = committed("zero_temperature")
    for update, rate in (("kl", 1e-12), ("mean", 5.0)):
        policy = table[table["update"] == update].pivot(index="tau", columns="action", values="policy")
        distance = (policy - policy.loc[0.0]).abs().sum(axis=1).drop(0.0)
        cold = distance[distance.index < 2e-3]
        assert (cold <= rate * cold.index * np.log(1 / cold.index) + 1e-12).all()
    limit = table[(table["update"] == "mean") & (table.tau == 0)]
    assert (limit.policy > 0).sum() > 1


def test_bandit_convergence_numbers():
    """Every bound holds, PMD-mean is never ahead of KL at the same step."""
    table = committed("bandit_convergence")
    assert (table.gap <= table.bound * (1 + 1e-9)).all()
    inside = table.dropna(subset=["step_low"])
    assert (inside.gap >= inside.step_low * (1 - 1e-9)).all()
    assert (inside.gap <= inside.step_high * (1 + 1e-9)).all()
    wide = table.pivot(index=["rewards", "tau", "step"], columns="update", values="gap").dropna()
    assert (wide["mean"] >= wide["kl"] * (1 - 1e-9)).all()


def test_log_partition_laboratory_numbers():
    """Statement 12: the mean is unbiased with variance J(1−J)/(nτ²); the log-partition's far mode and its weight."""
    table = committed("log_partition_laboratory")
    for name, fewer in (("mean", 0), ("loo_mean", 1)):
        rows = table[table.sweep.isin(["rollouts", "success", "tau"]) & (table.estimator == name)]
        assert rows.bias.abs().max() < 1e-9
        sd = np.sqrt(rows.success * (1 - rows.success) / (rows.rollouts - fewer)) / rows.tau
        assert rows.sd.to_numpy() == pytest.approx(sd.to_numpy(), rel=1e-9)
    law = table[(table.sweep == "law") & (table.estimator == "log_partition")].set_index("count")
    assert law.probability[0] == pytest.approx(0.9**16)
    assert law.error[0] == pytest.approx(-np.log(1 + 0.1 * np.expm1(10)))
    partition = table[table.estimator == "log_partition"].dropna(subset=["bias"])
    assert (partition.bias < 0).all()
    clamp = table[table.sweep == "clamp"]
    assert clamp.advantage.to_numpy() == pytest.approx(1)
    assert clamp.advantage_clamped.iloc[0] == pytest.approx(0.184, abs=5e-4)
