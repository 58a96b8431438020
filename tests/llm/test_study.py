"""Studies: what is trained and in which order, tables that add up, choice of trials, a check that can fail."""

import itertools
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pmdllm import models, study
from pmdllm.config import Config, parse
from pmdllm.study import Setting, Study, Tables, grid
from pmdllm.study.declared import GPU_STUDIES, STUDIES
from pmdllm.tasks import load


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A preset whose runs take a tenth of a second, with a random model of some hundred parameters."""
    folder = tmp_path_factory.mktemp("preset")
    tokenizer = models.character_tokenizer(load("arithmetic").alphabet)
    model = models.tiny(tokenizer, hidden_size=16, layers=1, heads=2, max_length=64, seed=1)
    models.save(model, tokenizer, folder / "model")
    values = {
        "task": "arithmetic:terms=4,modulus=6", "model": str(folder / "model"), "max_new_tokens": 4,
        "prompts_per_batch": 4, "rollouts_per_prompt": 2, "updates_per_batch": 2, "iterations": 2, "eval_every": 1,
        "eval_prompts": 4, "test_prompts": 4, "eval_samples": 2, "tau": 0.5,
    }  # fmt: skip
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "small.yaml")


@pytest.fixture(scope="module")
def small(preset):
    """Two methods, one of them tuned."""
    methods = (
        Setting({"method": "a"}, {"algorithm": "pmd-mean"}),
        Setting({"method": "b"}, {"algorithm": "grpo"}, grid(learning_rate=(1e-3, 2e-3))),
    )
    return Study("small", methods, seeds=(0, 1), tuning_seeds=(100,), preset=preset, checked=({"method": "a"},))


@pytest.fixture
def where(tmp_path):
    return Tables.within(tmp_path / "tables", "small"), tmp_path / "runs"


@pytest.fixture(scope="module")
def once(small, tmp_path_factory):
    """The study, trained once in one process."""
    folder = tmp_path_factory.mktemp("once")
    assert study.run(small, Tables.within(folder, "small"), folder / "runs", log=Log()) == []
    return folder


@pytest.fixture
def trained(once, tmp_path):
    """Tables and runs of the trained study, to be changed."""
    folder = shutil.copytree(once, tmp_path / "trained")
    return Tables.within(folder, "small"), folder / "runs"


class Log(list):
    __call__ = list.append


def forbid_training(monkeypatch):
    def fail(config, progress):
        raise AssertionError(f"{config.output} is trained")

    monkeypatch.setattr("pmdllm.train.train", fail)


def test_order_is_settings_within_seeds(small):
    """A prefix of the cells is the whole study with fewer seeds."""
    assert [(cell.columns["method"], cell.trial) for cell in small.tuning_cells()] == [
        ("b", {"learning_rate": 1e-3}), ("b", {"learning_rate": 2e-3}),
    ]  # fmt: skip
    tuning = pd.DataFrame(
        {"method": "b", "learning_rate": [1e-3, 2e-3], "seed": 100, "validation/avg@2": [0.1, 0.2]}
    )
    final = [(cell.seed, cell.columns["method"], cell.trial) for cell in small.final_cells(tuning)]
    chosen = {"learning_rate": 2e-3}
    assert final == [(0, "a", {}), (0, "b", chosen), (1, "a", {}), (1, "b", chosen)]
    assert [cell.columns["method"] for cell in small.final_cells(pd.DataFrame())] == ["a", "a"]


def test_tables_hold_what_the_runs_wrote(once):
    """Each row repeats result.json and the last validation; curves repeat the log; the choice is the better trial."""
    tables = Tables.within(once, "small")
    results, curves, tuning = (study.read(path) for path in (tables.results, tables.curves, tables.tuning))
    assert list(zip(results.method, results.seed)) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert list(zip(tuning.method, tuning.learning_rate, tuning.seed)) == [("b", 1e-3, 100), ("b", 2e-3, 100)]
    for row in results.to_dict("records"):
        folder = Path(shlex.split(row["command"])[-1])
        for name, value in json.loads((folder / "result.json").read_text()).items():
            assert row[name] == pytest.approx(value) if isinstance(value, float) else row[name] == value
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert row["validation/avg@2"] == pytest.approx(lines[-1]["validation/avg@2"])
        drawn = curves[(curves.method == row["method"]) & (curves.seed == row["seed"])]
        assert drawn.iteration.to_list() == [0, 1, 2]
        assert drawn.reward.to_list()[1:] == pytest.approx([line["reward"] for line in lines[1:]], rel=1e-5)
        assert drawn.reward.isna().to_list() == [True, False, False]
        timings = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
        for name in ("seconds", "cpu_seconds"):
            spent = [line[name] for line in timings]
            assert drawn[name].to_list() == pytest.approx([0.0, spent[0], sum(spent)], rel=1e-4)
    best = tuning.learning_rate[tuning["validation/avg@2"].idxmax()]
    assert (results[results.method == "b"].learning_rate == best).all()
    assert results.trials.to_list() == [0, 0, 2, 2]
    assert results.learning_rate.isna().to_list() == [True, True, False, False]


def test_finished_cells_are_not_trained_again(small, trained, monkeypatch):
    """Rows are enough, the folders of the runs may be gone; another seed or option is trained, and replaces its row."""
    tables, runs = trained
    before = tables.results.read_bytes(), tables.curves.read_bytes()
    with monkeypatch.context() as patch:
        forbid_training(patch)
        log = Log()
        assert study.run(small, tables, runs / "elsewhere", log=log) == []
        assert (log, study.plan(small, tables)) == ([], ([], [], []))
        assert (tables.results.read_bytes(), tables.curves.read_bytes()) == before
    more = replace(small, seeds=(0, 1, 2))
    assert [cell.seed for cell in study.plan(more, tables)[1]] == [2, 2]
    other = replace(small, settings=(Setting({"method": "a"}, {"algorithm": "pmd-mean", "tau": 0.7}),), seeds=(1,))
    log = Log()
    study.run(other, tables, runs, log=log)
    assert len(log) == 1
    table = study.read(tables.results)
    assert len(table) == 4
    assert table[table.options.str.contains("tau=0.7")][["method", "seed"]].to_numpy().tolist() == [["a", 1]]
    assert [cell.seed for cell in study.plan(small, tables)[1]] == [1]


def test_finished_runs_return_to_an_empty_table(small, trained, monkeypatch):
    """Without the tables the rows come back from the folders of the runs."""
    tables, runs = trained
    paths = tables.results, tables.curves, tables.tuning
    before = [study.read(path).drop(columns="command", errors="ignore") for path in paths]
    for path in paths:
        path.unlink()
    monkeypatch.setattr("pmdllm.train.Run", None)
    study.run(small, tables, runs, log=Log())
    for path, rows in zip(paths, before):
        pd.testing.assert_frame_equal(study.read(path).drop(columns="command", errors="ignore"), rows)


def test_processes_and_errors(small, where, tmp_path):
    """Two processes give the numbers of one; a cell that fails is reported with its command and stops nothing."""
    tables, runs = where
    broken = Setting({"method": "broken"}, {"model": str(tmp_path / "nowhere")})
    simple = replace(small, settings=(small.settings[0], broken))
    log = Log()
    failed = study.run(simple, tables, runs, jobs=2, log=log)
    assert sorted((cell.columns["method"], cell.seed) for cell in failed) == [("broken", 0), ("broken", 1)]
    reports = [line for line in log if "FAILED" in line]
    for cell in failed:
        (report,) = (report for report in reports if cell.command(runs) in report)
        assert "nowhere" in report.splitlines()[-1]
    alone = Tables.within(tmp_path / "alone", "small")
    assert len(study.run(simple, alone, tmp_path / "other-runs", log=Log())) == 2
    differs = ["seconds", "cpu_seconds", "command"]
    for path, other in ((tables.results, alone.results), (tables.curves, alone.curves)):
        a, b = (study.read(table).drop(columns=differs, errors="ignore") for table in (path, other))
        pd.testing.assert_frame_equal(a, b)
    assert len(study.read(tables.results)) == 2


def test_command_does_the_same_run(small):
    """The recorded command, read by the command line's parser, is the cell's configuration."""
    for cell in small.tuning_cells():
        program, command, *words = shlex.split(cell.command(Path("some runs")))
        assert (program, command) == ("pmd-llm", "train")
        assert parse(Config, words) == cell.config(Path("some runs"))


def test_regenerated_base(tmp_path, monkeypatch):
    """The base is made once, from its seed, before the cells that need it; its folder does not identify a row."""
    setting = Setting({"base": "second"}, {"model": "warmup:7"})
    declared = Study("bases", (setting,), seeds=(0, 1))
    made = []

    def warmup(config, progress):
        made.append(config)
        Path(config.output).mkdir(parents=True)

    monkeypatch.setattr("pmdllm.warmup.warmup", warmup)
    monkeypatch.setattr("pmdllm.train.train", lambda config, progress: made.append(config) or 1 / 0)
    tables = Tables.within(tmp_path, "bases")
    failed = study.run(declared, tables, tmp_path / "runs", log=Log())
    base, first, second = made
    assert (base.seed, first.seed, second.seed) == (7, 0, 1)
    assert len(failed) == 2
    assert Path(first.model).is_dir()
    assert first.model == second.model
    cell = failed[0]
    words = shlex.split(cell.command(tmp_path / "runs"))
    assert words[:2] == ["pmd-llm", "warmup"]
    assert words[words.index("--output") + 1] == first.model
    assert "model=warmup:7" in cell.identity
    study.run(declared, tables, tmp_path / "runs", log=Log())
    assert len(made) == 5


@settings(max_examples=40)
@given(st.data())
def test_choice_is_the_largest_mean(data):
    """Against a loop over trials; trials that lack a tuning seed do not take part, other seeds do not count."""
    trials = grid(learning_rate=(1.0, 2.0, 3.0), tau=(0.1, 0.5))
    setting = Setting({"method": "m"}, {}, trials)
    scores = {
        (number, seed): data.draw(st.integers(0, 50)) / 50
        for number, seed in itertools.product(range(6), (100, 101, 5))
        if data.draw(st.integers(0, 3)) > 0
    }
    rows = [
        {"method": "m", "seed": seed, "validation/avg@8_ci": 9.0, "validation/avg@8": score} | trials[number]
        for (number, seed), score in scores.items()
    ]
    table = pd.DataFrame([*rows, {"method": "other", "seed": 100, "validation/avg@8": 1.0} | trials[0]])
    complete = [n for n in range(6) if {(n, 100), (n, 101)} <= set(scores)]
    chosen = study.choose(setting, table, (100, 101))
    if not complete:
        assert chosen is None
    else:
        means = {n: scores[n, 100] + scores[n, 101] for n in complete}
        assert means[trials.index(chosen)] == max(means.values())


def test_choice_is_taken_over(preset, tmp_path):
    """A setting tuned as another waits for it, makes no runs of its own in the first stage, and gets its choice."""
    trials = ({"tau": 0.1, "learning_rate": 1e-3}, {"clip_low": 0.3, "learning_rate": 2e-3})
    methods = (
        Setting({"method": "later"}, {"algorithm": "grpo"}, trials, tuned_as={"method": "tuned"}),
        Setting({"method": "tuned"}, {"algorithm": "gspo"}, trials),
    )
    declared = Study("shared", methods, seeds=(0,), tuning_seeds=(100,), preset=preset)
    tables = Tables.within(tmp_path, "shared")
    tuning, final, undecided = study.plan(declared, tables)
    assert [cell.columns["method"] for cell in tuning] == ["tuned", "tuned"]
    assert not final
    assert [cell.columns["method"] for cell in undecided] == ["later", "tuned"]
    for score, trial in enumerate(trials):
        row = pd.DataFrame([{"method": "tuned", "seed": 100, "validation/avg@2": score} | trial])
        study.merge(tables.tuning, row, ["method", "tau", "learning_rate", "clip_low", "seed"])
    assert [cell.trial for cell in declared.final_cells(study.read(tables.tuning))] == [trials[1]] * 2


@settings(max_examples=40)
@given(st.permutations(range(6)), st.lists(st.integers(1, 5), max_size=3))
def test_merging_commutes(tmp_path_factory, order, cuts):
    """Rows that come in any order and in any portions give the same file."""
    folder = tmp_path_factory.mktemp("merge")
    rows = pd.DataFrame(
        {"tau": [0.02, 0.1, 0.5] * 2, "seed": [0, 0, 0, 1, 1, 1], "value": np.arange(6) / 3, "note": list("abcdef")}
    )
    study.merge(folder / "whole.csv", rows, ["tau", "seed"])
    ends = [0, *sorted(set(cuts)), 6]
    for start, end in itertools.pairwise(ends):
        study.merge(folder / "parts.csv", rows.iloc[order[start:end]], ["tau", "seed"])
    assert (folder / "parts.csv").read_bytes() == (folder / "whole.csv").read_bytes()
    study.merge(folder / "parts.csv", rows[2:3].assign(value=7.0), ["tau", "seed"])
    changed = study.read(folder / "parts.csv")
    assert changed[(changed.tau == 0.5) & (changed.seed == 0)].value.to_list() == [7.0]
    assert len(changed) == 6


def test_prediction_interval_covers():
    """Of 4,000 sixth normal numbers 95% lie in the interval of the other five; the floor widens it."""
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, size=(4_000, 6))
    low, high = np.array([study.prediction_interval(row[:5], floor=0.0) for row in values]).T
    inside = (low <= values[:, 5]) & (values[:, 5] <= high)
    assert inside.mean() == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / len(values)))
    low, high = study.prediction_interval([0.5, 0.5], floor=0.1)
    assert high - low == pytest.approx(2 * 12.7062 * 0.1 * np.sqrt(1.5), rel=1e-4)


def test_check(small, trained, tmp_path):
    """The same seed comes out identical; a committed table with other numbers or options is found out."""
    tables, runs = trained
    folder = tables.results.parent
    log = Log()
    assert study.check([small], tmp_path / "empty", runs / "check", log=log) == []
    assert "too few" in log[0]
    for _ in range(2):
        log = Log()
        assert study.check([small], folder, runs / "check", log=log) == []
        assert sum("identical to that of this seed" in line for line in log) == 2
    table = study.read(tables.results)
    far = {"test/avg@2": table["test/avg@2"] + 40, "test/avg@2_ci": 0.0}
    table.assign(**far).to_csv(tables.results, index=False)
    (departure,) = study.check([small], folder, runs / "check", log=Log())
    assert "method a, seed 0: test/avg@2" in departure
    table.assign(options="tau=9").to_csv(tables.results, index=False)
    (departure,) = study.check([small], folder, runs / "check", log=Log())
    assert "other options" in departure


def test_prediction_of_time(small):
    """Proportional to the rollouts that are left, at the seconds per rollout of the rows that are there."""
    config = small.tuning_cells()[0].config(Path())
    none = replace(config, iterations=1)
    table = pd.DataFrame({"seconds": [10.0, 30.0], "rollouts": [100, 100]})
    evaluations = study.predicted_seconds([config], pd.DataFrame({"seconds": [0.0], "rollouts": [1]}))
    assert study.predicted_seconds([config] * 3, table) == pytest.approx(3 * (16 * 0.2 + evaluations))
    assert study.predicted_seconds([none], table) < study.predicted_seconds([config], table)


@pytest.mark.filterwarnings("ignore:algorithm .* with one update per rollout batch")
@pytest.mark.parametrize("declared", (STUDIES | GPU_STUDIES).values(), ids=STUDIES | GPU_STUDIES)
def test_declared_studies(declared):
    """Equal budgets, tuning on seeds of its own, at least five seeds, checked settings exist, names are unique."""
    assert not set(declared.seeds) & set(declared.tuning_seeds)
    assert len(declared.seeds) >= 5
    cells = declared.tuning_cells() + [
        declared.cell(setting, seed, setting.trials[0]) for setting in declared.settings for seed in declared.seeds
    ]
    assert len({cell.folder for cell in cells}) >= len(cells) - len(declared.settings)
    configs = [cell.config(Path("runs")) for cell in cells]
    assert {config.threads for config in configs} == {1}
    budgets = {"rollouts": set(), "refreshes": set()}
    for cell, c in zip(cells, configs):
        rollouts = c.iterations * c.prompts_per_batch * c.rollouts_per_prompt
        budget = cell.columns.get("budget", "rollouts")
        spent = c.iterations if budget == "refreshes" else (rollouts, c.iterations * c.updates_per_batch)
        budgets[budget].add(spent)
    assert max(len(spent) for spent in budgets.values()) == 1
    for setting in declared.settings:
        assert setting.tuned_as is None or declared.setting(setting.tuned_as).trials == setting.trials
    for columns in declared.checked:
        assert declared.setting(columns).columns == columns


@pytest.mark.filterwarnings("ignore:algorithm .* with one update per rollout batch")
@pytest.mark.parametrize("declared", STUDIES.values(), ids=STUDIES)
def test_the_committed_tables_are_complete(declared):
    """Nothing is left to train: the tables hold every cell with the options that the study declares."""
    folder = Path(__file__).parent.parent.parent / "figures" / "data"
    assert study.plan(declared, Tables.within(folder, declared.name)) == ([], [], [])
