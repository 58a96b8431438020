"""Studies: what is trained and in which order, tables that add up, choice of trials, a check that can fail."""

import itertools
import json
import math
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pmdllm import cli, models, study
from pmdllm.config import Config, parse
from pmdllm.study import Setting, Study, Table, compare, grid, hours, panels
from pmdllm.study.declared import ON_REQUEST, STUDIES
from pmdllm.study.tables import appearing, claim
from pmdllm.tasks import load

DATA = Path(__file__).parent.parent.parent / "figures" / "data"


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


def paths(folder, name="small"):
    """Files of results, curves, tuning."""
    return [folder / f"study_{name}{part}.csv" for part in ("", "_curves", "_tuning")]


def without(path, *columns):
    return pd.read_csv(path).drop(columns=list(columns), errors="ignore")


@pytest.fixture(scope="module")
def once(small, tmp_path_factory):
    """The study, trained once in one process."""
    folder = tmp_path_factory.mktemp("once")
    assert study.run(small, folder, folder / "runs", log=Log()) == []
    return folder


@pytest.fixture
def trained(once, tmp_path):
    """Folder of tables and runs of the trained study, to be changed."""
    return shutil.copytree(once, tmp_path / "trained")


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
    results, curves, tuning = map(pd.read_csv, paths(once))
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
    results, curves, _ = paths(trained)
    before = results.read_bytes(), curves.read_bytes()
    with monkeypatch.context() as patch:
        forbid_training(patch)
        log = Log()
        assert study.run(small, trained, trained / "elsewhere", log=log) == []
        assert (log, study.plan(small, trained)) == ([], ([], []))
        assert (results.read_bytes(), curves.read_bytes()) == before
    more = replace(small, seeds=(0, 1, 2))
    assert [cell.seed for cell in study.plan(more, trained)[0]] == [2, 2]
    short = {"algorithm": "pmd-mean", "tau": 0.7, "iterations": 1}
    other = replace(small, settings=(Setting({"method": "a"}, short),), seeds=(1,))
    log = Log()
    study.run(other, trained, trained / "runs", log=log)
    assert len(log) == 2 and log[0].startswith("1 cell to run, 1 at a time, about 1 min")
    assert log[1].endswith("about 0 min left")
    table = pd.read_csv(results)
    assert len(table) == 4
    assert table[table.options.str.contains("tau=0.7")][["method", "seed"]].to_numpy().tolist() == [["a", 1]]
    drawn = pd.read_csv(curves).query("method == 'a' and seed == 1")
    assert drawn.iteration.to_list() == [0, 1]  # nothing is left of the longer run
    assert [cell.seed for cell in study.plan(small, trained)[0]] == [1]


def test_finished_runs_return_to_an_empty_table(small, trained, monkeypatch):
    """Without the tables the rows come back from the folders of the runs."""
    before = [without(path, "command") for path in paths(trained)]
    for path in paths(trained):
        path.unlink()
    monkeypatch.setattr("pmdllm.train.Run", None)
    study.run(small, trained, trained / "runs", log=Log())
    for path, rows in zip(paths(trained), before):
        pd.testing.assert_frame_equal(without(path, "command"), rows)


def test_processes_and_errors(small, tmp_path):
    """Two processes give the numbers of one; a cell that fails is a line, its whole error a file, and stops nothing."""
    broken = Setting({"method": "broken"}, {"model": str(tmp_path / "nowhere")})
    simple = replace(small, settings=(small.settings[0], broken))
    folder, runs, log = tmp_path / "tables", tmp_path / "runs", Log()
    failed = study.run(simple, folder, runs, jobs=2, log=log)
    assert sorted((cell.columns["method"], cell.seed) for cell in failed) == [("broken", 0), ("broken", 1)]
    assert all("\n" not in line for line in log)
    for cell in failed:
        (report,) = (line for line in log if str(cell) in line)
        assert "FAILED: ValueError" in report and "nowhere" in report
        whole = (runs / cell.folder / "error.log").read_text()
        assert cell.command(runs) in whole and "Traceback" in whole and str(runs / cell.folder) in report
    alone = tmp_path / "alone"
    assert len(study.run(simple, alone, tmp_path / "other-runs", log=Log())) == 2
    for path, other in list(zip(paths(folder), paths(alone)))[:2]:
        a, b = (without(table, "seconds", "cpu_seconds", "command") for table in (path, other))
        pd.testing.assert_frame_equal(a, b)
    assert len(pd.read_csv(paths(folder)[0])) == 2


def test_a_cluster_gives_the_numbers_of_one_process(small, tmp_path):
    """The rows of two Dask workers; a cell that fails there is named, and the others are kept."""
    broken = Setting({"method": "broken"}, {"model": str(tmp_path / "nowhere")})
    simple = replace(small, settings=(small.settings[0], broken), seeds=(0,), tuning_seeds=())
    folder, log = tmp_path / "tables", Log()
    (failed,) = study.run(simple, folder, tmp_path / "runs", jobs=2, log=log, backend="dask")
    assert failed.columns == {"method": "broken"} and any("FAILED: ValueError" in line for line in log)
    study.run(simple, tmp_path / "alone", tmp_path / "other-runs", log=Log())
    a, b = (without(paths(where)[0], "seconds", "command") for where in (folder, tmp_path / "alone"))
    pd.testing.assert_frame_equal(a, b)


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
        Path(config.output, "model").mkdir(parents=True)

    monkeypatch.setattr("pmdllm.warmup.warmup", warmup)
    monkeypatch.setattr("pmdllm.train.train", lambda config, progress: made.append(config) or 1 / 0)
    failed = study.run(declared, tmp_path, tmp_path / "runs", log=Log())
    base, first, second = made
    assert (base.seed, first.seed, second.seed) == (7, 0, 1)
    assert len(failed) == 2
    assert Path(first.model).is_dir()
    assert first.model == second.model
    cell = failed[0]
    words = shlex.split(cell.command(tmp_path / "runs"))
    assert words[:2] == ["pmd-llm", "warmup"]
    assert words[words.index("--output") + 1] == first.model
    assert "model=warmup:7:" in cell.identity
    study.run(declared, tmp_path, tmp_path / "runs", log=Log())
    assert len(made) == 5


def test_a_filter_at_zero_identifies_a_run():
    """A bound of 0 is a filter, no bound is none, so rows of the two are not taken for each other."""

    def identity(**options):
        (cell,) = Study("one", (Setting({"filter": "own"}, options),), seeds=(0,)).final_cells(pd.DataFrame())
        return cell.identity

    assert identity() == identity(filter_low=None) != identity(filter_low=0.0)
    assert identity(filter_low=0.0, filter_high=1.0) != identity(filter_high=1.0)


def test_the_recipe_of_a_base_identifies_a_run(tmp_path):
    """Another number of steps makes another base, in another folder; what only writes it does not."""

    def of(name, **values):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"task": "arithmetic", "learning_rate": 1e-3} | values))
        declared = Study("one", (Setting({}, {"model": "warmup:0"}),), seeds=(0,), preset=str(path))
        (cell,) = declared.final_cells(pd.DataFrame())
        return re.search(r" model=\S+", cell.identity)[0], cell.base(tmp_path).name.removeprefix(name)

    assert of("a", iterations=1) == of("b", iterations=1, checkpoint_seconds=9.0) != of("c", iterations=2)


def test_a_base_that_cannot_be_made_fails_its_cells_alone(preset, tmp_path, monkeypatch):
    """Nothing is left of the base, its cells say why, the others are trained."""

    def fail(cell, runs):
        with appearing(cell.base(runs)) as folder:
            (folder / "half").write_text("")
            raise OSError("No space left on device")

    monkeypatch.setattr(study.Cell, "make_base", fail)
    settings = Setting({"base": "own"}, {}), Setting({"base": "made"}, {"model": "warmup:7"})
    declared = Study("two", settings, seeds=(0,), preset=preset)
    log = Log()
    (failed,) = study.run(declared, tmp_path, tmp_path / "runs", log=log)
    assert failed.columns == {"base": "made"}
    assert "its base could not be made" in log[1] and "No space left" in log[1]
    assert pd.read_csv(tmp_path / "study_two.csv").base.to_list() == ["own"]
    assert not list((tmp_path / "runs" / "bases").iterdir())


@settings(max_examples=40)
@given(st.data())
def test_choice_is_the_largest_mean(data):
    """Against a loop over trials, none while one of them lacks a tuning seed; other seeds do not count.

    Of two rates each trial stands for itself; of three the middle one is taken, of four one of the two in the middle,
    with its neighbours' mean.
    """
    rates = data.draw(st.permutations((1.0, 2.0, 3.0, 4.0)[: data.draw(st.integers(1, 4))]))
    trials = grid(learning_rate=rates, tau=(0.1, 0.5))
    setting = Setting({"method": "m"}, {}, trials)
    scores = {
        (*trial.values(), seed): data.draw(st.integers(0, 50)) / 50
        for trial, seed in itertools.product(trials, (100, 101, 5))
        if data.draw(st.integers(0, 40)) > 0
    }
    rows = [
        {"method": "m", "seed": seed, "validation/avg@8_ci": 9.0, "validation/avg@8": score}
        | {"learning_rate": rate, "tau": tau}
        for (rate, tau, seed), score in scores.items()
    ]
    table = pd.DataFrame([*rows, {"method": "other", "seed": 100, "validation/avg@8": 1.0} | trials[0]])
    chosen = study.choose(setting, table, (100, 101))
    if not all((*trial.values(), seed) in scores for trial in trials for seed in (100, 101)):
        assert chosen is None
        return
    judged = {}
    for rate, tau in itertools.product(rates, (0.1, 0.5)):
        near = [rate] if len(rates) < 3 else [rate - 1, rate, rate + 1]
        if {*near} <= {*rates}:
            judged[rate, tau] = np.mean([scores[r, tau, seed] for r in near for seed in (100, 101)])
    assert judged[tuple(chosen.values())] == pytest.approx(max(judged.values()))


def test_choice_avoids_the_last_rate_before_the_cliff():
    """The best single rate has a collapsed neighbour: the one below it, between two good ones, is chosen."""
    trials = grid(learning_rate=(1.0, 2.0, 4.0, 8.0))
    accuracies = (0.8, 0.9, 0.95, 0.1)
    rows = [trial | {"seed": 100, "validation/avg@8": value} for trial, value in zip(trials, accuracies)]
    assert study.choose(Setting({}, {}, trials), pd.DataFrame(rows).assign(m="m"), (100,)) == trials[1]


def test_a_run_without_an_accuracy_counts_as_zero():
    """Neither is the other seed's accuracy taken for the trial's, nor does the order of the trials decide."""
    trials = grid(tau=(0.1, 0.5))
    for first, second in itertools.permutations(((0.9, math.nan), (0.6, 0.5))):
        rows = [
            trial | {"m": "m", "seed": seed, "validation/avg@8": value}
            for trial, values in zip(trials, (first, second))
            for seed, value in zip((100, 101), values)
        ]
        chosen = study.choose(Setting({}, {}, trials), pd.DataFrame(rows), (100, 101))
        assert chosen == trials[(first, second).index((0.6, 0.5))]


def test_a_candidate_that_diverges_is_not_chosen(preset, tmp_path):
    """It has a row of accuracy 0 and is not tried again; a chosen one that diverges fails, and says so."""
    trials = ({"learning_rate": 1e-3}, {"learning_rate": 1e9})
    declared = Study("wild", (Setting({"method": "m"}, {}, trials),), (0,), (100,), preset=preset)
    assert not study.run(declared, tmp_path, tmp_path / "runs", log=Log())
    tuning = pd.read_csv(tmp_path / "study_wild_tuning.csv").set_index("learning_rate")
    assert tuning.loc[1e9, "validation/greedy"] == 0 and len(tuning) == 2
    assert pd.read_csv(tmp_path / "study_wild.csv").learning_rate.to_list() == [1e-3]
    assert study.plan(declared, tmp_path) == ([], [])
    alone = Study("lost", (Setting({"method": "m"}, trials[1]),), (0,), preset=preset)
    log = Log()
    assert study.run(alone, tmp_path, tmp_path / "runs", log=log) and "Diverged" in log[1]


def test_choice_is_taken_over(preset, tmp_path):
    """A setting tuned as another waits for it, makes no runs of its own in the first stage, and gets its choice."""
    trials = ({"tau": 0.1, "learning_rate": 1e-3}, {"clip_low": 0.3, "learning_rate": 2e-3})
    methods = (
        Setting({"method": "later"}, {"algorithm": "grpo"}, trials, tuned_as={"method": "tuned"}),
        Setting({"method": "tuned"}, {"algorithm": "gspo"}, trials),
    )
    declared = Study("shared", methods, seeds=(0,), tuning_seeds=(100,), preset=preset)
    now, later = study.plan(declared, tmp_path)
    assert [cell.columns["method"] for cell in now] == ["tuned", "tuned"]
    assert [cell.columns["method"] for cell in later] == ["later", "tuned"]
    tuning = next(declared.stages(tmp_path)).tables["results"]
    for score, trial in enumerate(trials):
        row = {"method": "tuned", "seed": 100, "options": f"trial {score}", "validation/avg@2": score}
        tuning.merge(pd.DataFrame([row | trial]))
    assert [cell.trial for cell in declared.final_cells(tuning.read())] == [trials[1]] * 2
    tuning.merge(pd.DataFrame([{"method": "tuned", "seed": 100, "options": "new", "validation/avg@2": 5} | trials[0]]))
    assert len(tuning.read()) == 2  # the row of the same trial is replaced
    assert [cell.trial for cell in declared.final_cells(tuning.read())] == [trials[0]] * 2


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(6)), st.lists(st.integers(1, 5), max_size=3))
def test_merging_commutes(tmp_path_factory, order, cuts):
    """Rows that come in any order and in any portions give the same file."""
    folder = tmp_path_factory.mktemp("merge")
    rows = pd.DataFrame(
        {"tau": [0.02, 0.1, 0.5] * 2, "seed": [0, 0, 0, 1, 1, 1], "value": np.arange(6) / 3, "note": list("abcdef")}
    )
    whole, parts = (Table(folder / name, ("tau", "seed")) for name in ("whole.csv", "parts.csv"))
    whole.merge(rows)
    ends = [0, *sorted(set(cuts)), 6]
    for start, end in itertools.pairwise(ends):
        parts.merge(rows.iloc[order[start:end]])
    assert parts.path.read_bytes() == whole.path.read_bytes()
    parts.merge(rows[2:3].assign(value=7.0))
    changed = parts.read()
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
    (path, *_), runs = paths(trained), tmp_path / "check"
    for _ in range(2):
        log = Log()
        assert study.check([small], trained, runs, log=log) == (2, [])
        assert sum("identical to that of this seed" in line for line in log) == 2
    table = pd.read_csv(path)
    far = {"test/avg@2": table["test/avg@2"] + 40, "test/avg@2_ci": 0.0}
    table.assign(**far).to_csv(path, index=False)
    compared, (departure,) = study.check([small], trained, runs, log=Log())
    assert compared == 2 and "method a, seed 0: test/avg@2" in departure
    table.assign(options="tau=9").to_csv(path, index=False)
    compared, (departure,) = study.check([small], trained, runs, log=Log())
    assert compared == 0 and "other options" in departure


def test_a_check_that_compared_nothing_is_no_success(small, tmp_path):
    """No table, a table of one seed, a study that names no cell: counted, and said."""
    compared, (departure,) = study.check([small], tmp_path / "typo", tmp_path / "check", log=Log())
    assert compared == 0 and "has 0 seeds of it" in departure and "typo" in departure
    log = Log()
    assert study.check([replace(small, checked=())], tmp_path, tmp_path / "check", log=log) == (0, [])
    assert log == ["small: no cell is to be checked"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("a,b\n1,2\n", "must have the column 'method'"),
        ("method,seed\na,0\n", "must have the column 'options'"),
        ("method,seed,options\na,0,x\nb", "has no 'seed' in line 3"),
        ("method,seed,options\na,0,x\nb,1", "has no 'options' in line 3"),
        ("method,seed,options\na,zero,x\n", "must have integers in the column 'seed'"),
        ('method,seed,options\na,0,"x\n', "cannot be read"),
        ("\0\xff\xfe", "must have the column"),
    ],
)
def test_a_damaged_or_foreign_table(small, tmp_path, monkeypatch, text, message):
    """One line with the file and the column, before anything is trained; the table stays as it was."""
    forbid_training(monkeypatch)
    path, *_ = paths(tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=f"table {path} {message}"):
        study.run(replace(small, seeds=(0, 1, 2)), tmp_path, tmp_path / "runs", log=Log())
    assert path.read_text() == text


def test_a_folder_that_cannot_be_written_to(small, tmp_path, monkeypatch):
    forbid_training(monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file must be a folder that can be written to"):
        study.run(small, tmp_path / "file", tmp_path / "runs", log=Log())
    with pytest.raises(ValueError, match="runs must be a folder that can be written to"):
        study.run(small, tmp_path / "tables", tmp_path / "file" / "runs", log=Log())


def test_an_invalid_cell_is_refused_before_any_other_is_run(small, tmp_path, monkeypatch):
    forbid_training(monkeypatch)
    wrong = Setting({"method": "wrong"}, {"tau": -1.0})
    with pytest.raises(ValueError, match="tau"):
        study.run(replace(small, settings=(*small.settings, wrong)), tmp_path, tmp_path / "runs", log=Log())


def test_a_disk_that_is_full_costs_one_cell(small, tmp_path, monkeypatch):
    """The row that could not be written is a failure; the table keeps the others and no half file is left."""
    simple, write, calls = replace(small, settings=small.settings[:1]), pd.DataFrame.to_csv, []

    def full(table, file, **options):
        calls.append(file)
        if len(calls) == 2:
            file.write("half")
            raise OSError(28, "No space left on device")
        return write(table, file, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    log = Log()
    (failed,) = study.run(simple, tmp_path / "tables", tmp_path / "runs", log=log)
    assert failed.seed == 0 and "No space left" in log[1]
    results, curves, _ = paths(tmp_path / "tables")
    assert pd.read_csv(results).seed.to_list() == [1]
    assert {path.name for path in results.parent.iterdir()} == {results.name, curves.name}
    assert study.run(simple, tmp_path / "tables", tmp_path / "runs", log=log) == []
    assert pd.read_csv(results).seed.to_list() == [0, 1]


def test_two_processes_fill_one_table(tmp_path):
    """Nothing is lost when both merge row after row."""
    code = (
        "import sys, pandas as pd; from pathlib import Path; from pmdllm.study import Table\n"
        "table = Table(Path(sys.argv[1]), ('name', 'seed'))\n"
        "for seed in range(40): table.merge(pd.DataFrame({'name': [sys.argv[2]], 'seed': [seed]}))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "table.csv", name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert len(pd.read_csv(tmp_path / "table.csv").drop_duplicates()) == 80
    assert len(list(tmp_path.iterdir())) == 1


def test_a_second_process_on_the_same_runs_is_refused(small, tmp_path):
    """While a process holds the runs of a study; when it has ended, they are free."""
    with claim(tmp_path / "runs", "small"), pytest.raises(ValueError, match="another process runs small"):
        study.run(small, tmp_path, tmp_path / "runs", log=Log())
    with claim(tmp_path / "runs", "small"):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed 3", "--seed is set by the comparison: --seeds"),
        ("--algorithm=grpo", "--algorithm is set by the comparison: --algorithms"),
        ("--overwrite", "--overwrite is set by the comparison: remove the folder"),
        ("--threads 2", "--threads is set by the comparison: every run has one"),
        ("--seeds 0,0", "seeds must be different"),
        ("--seeds 0-99999999999", "seeds must be as in"),
        ("--seeds -1", "seeds must be as in"),
        ("--algorithms grpo,grpo", "algorithms must be different"),
        ("--algorithms grpo,", "algorithm must be one of"),
        ("--algorithms pmd-mean,pmd-target", "target_kl must be positive for pmd-target"),
        ("--jobs 0", "jobs must be positive"),
        ("--jobs two", "two"),
        ("--task chess", "chess"),
        ("--model nowhere/at/all", "model must be"),
        ("--device cuda:99", "device must be"),
        ("--output file", "file must be a folder that can be written to"),
    ],
)
def test_a_comparison_is_refused_in_one_line_before_it_starts(preset, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    forbid_training(monkeypatch)
    (tmp_path / "file").write_text("")
    try:
        code = cli.main(["compare", "--preset", preset, *words.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    text = capsys.readouterr().err
    assert message in text and text.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_comparison_goes_on_and_refuses_other_settings(preset, tmp_path, monkeypatch, capsys):
    """By default in a folder named after what is compared; what is finished stays, and is not trained again."""
    monkeypatch.chdir(tmp_path)
    words = ["compare", "--preset", preset, "--algorithms", "pmd-mean,grpo", "--seeds", "0"]
    assert cli.main(words) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"compare-arithmetic\S*-pmd-mean\+grpo", folder.name)
    before = {path: path.read_bytes() for path in folder.glob("*.csv")}
    capsys.readouterr()
    with monkeypatch.context() as patch:
        forbid_training(patch)
        assert cli.main(words) == 0
        assert "±" not in (text := capsys.readouterr().out) and "nan" not in text
        assert cli.main([*words, "--tau", "0.7"]) == 2
        text = capsys.readouterr().err
        assert "holds a comparison with other settings" in text and "tau=0.7" in text and "tau=0.5" in text
    assert before == {path: path.read_bytes() for path in folder.glob("*.csv")}


def test_prediction_of_time(small):
    """2 iterations of 8 completions and 2 updates at the rates of rows that cost so much of each, and evaluations."""
    cell, nothing = small.tuning_cells()[0], pd.DataFrame()
    work = {"rollouts": [100, 100, 300, 50], "iteration": [10, 20, 5, 40], "updates": [10, 80, 40, 20]}
    seconds = np.dot((0.2, 0.5, 0.1), list(work.values()))
    table = pd.DataFrame(work | {"seconds": seconds, "device": "here"})
    other = table.assign(seconds=9 * table.seconds, device="elsewhere")[:2]
    assert cell.training(pd.concat([table, other])) == pytest.approx(16 * 0.2 + 2 * 0.5 + 4 * 0.1)
    evaluated = cell.seconds(nothing) - cell.training(nothing)
    assert evaluated == pytest.approx((2 * 4 + 3 * 4) * 3 * cell.guess[1])
    dearer = cell.training(table) / cell.training(nothing)
    assert cell.seconds(table) == pytest.approx(cell.training(table) + evaluated * dearer)
    shorter = replace(cell, options=cell.options | {"iterations": 1})
    assert shorter.seconds(nothing) < cell.seconds(nothing)


COMPARED = {name: declared for name, declared in (STUDIES | ON_REQUEST).items() if len(declared.settings) > 1}


@pytest.mark.parametrize("name", COMPARED)
def test_hours_of_a_setting_are_predicted_by_the_others(name):
    """Each setting of the committed tables left out: the hours of its rows within a factor 1.5."""
    columns = [*COMPARED[name].settings[0].columns]
    if not (path := DATA / f"study_{name}.csv").exists() or pd.read_csv(path)[columns].drop_duplicates().shape[0] < 2:
        pytest.skip("less than two settings have rows")
    table = hours.known(COMPARED[name], DATA)
    for _, own in table.groupby(columns):
        others = table.drop(own.index)
        alike = own[own.device == others.device.mode()[0]]
        predicted = (alike[hours.WORK].to_numpy(dtype=float) @ hours.rates(others)).sum()
        spent = alike.seconds.sum()
        assert spent / 1.5 <= predicted <= 1.5 * spent, own[columns].iloc[0].to_dict()


def test_what_ran_beside_a_run_does_not_count(tmp_path):
    """Seconds are the process's own where the curves tell them, and those of the row elsewhere."""
    declared = Study("beside", (Setting({"method": "m"}, {}),), (0, 1))
    rows = pd.DataFrame({"method": "m", "seed": [0, 1], "options": "o", "seconds": [90.0, 7.0]})
    curves = pd.DataFrame({"method": "m", "seed": [0, 0], "iteration": [1, 2], "cpu_seconds": [3.0, 6.0]})
    rows.to_csv(tmp_path / "study_beside.csv", index=False)
    assert hours.known(declared, tmp_path).seconds.to_list() == [90.0, 7.0]
    curves.to_csv(tmp_path / "study_beside_curves.csv", index=False)
    assert hours.known(declared, tmp_path).seconds.to_list() == [6.0, 7.0]


def test_a_piece_tells_how_fast_this_machine_is(small, tmp_path, monkeypatch):
    """Where the piece takes thrice as long as rows predict the hours are three times theirs."""
    cells = [*small.tuning_cells(), *(small.final_cells(pd.DataFrame()))]
    assert study.outline(small, tmp_path, tmp_path)["hours"] > 0
    monkeypatch.setattr(hours, "_timed", lambda runs, piece: 3 * piece.training(pd.DataFrame()))
    planned = study.outline(small, tmp_path, tmp_path)
    later = small.undecided(tmp_path)
    expected = 3 * sum(cell.seconds(pd.DataFrame()) for cell in (*cells, *later)) / 3600
    assert planned["hours"] == pytest.approx(expected) and planned["untimed"] is None
    assert list(tmp_path.iterdir()) == []


def test_the_time_of_a_piece_is_that_of_its_training(small):
    """The sum of the seconds that its run has logged, within the time that the whole call takes."""
    began = time.monotonic()
    ratio = hours.speed(small.tuning_cells()[0], pd.DataFrame())
    spent = ratio * small.tuning_cells()[0].piece(2).training(pd.DataFrame())
    assert 0 < spent < time.monotonic() - began


def test_what_cannot_be_timed_is_predicted_and_said(small, tmp_path):
    """A model that is not there, and a base that has to be made first: the hours of the rows, and why."""
    for model, reason in ((str(tmp_path / "nowhere"), "nowhere"), ("warmup:7", "its base has to be made first")):
        declared = replace(small, settings=(Setting({"method": "a"}, {"model": model}),))
        log = Log()
        study.describe([declared], tmp_path, tmp_path, log=log)
        assert "not of this machine" in log[-2] and reason in log[-2]


def test_a_piece_that_takes_too_long_is_given_up(small, tmp_path, monkeypatch):
    """As one of a study for a GPU does on a machine without: the hours of the rows, and why; no alarm is left."""
    monkeypatch.setattr(hours, "LONGEST", 0.05)
    log = Log()
    study.describe([small], tmp_path, tmp_path, log=log)
    assert "not of this machine" in log[-2] and "a piece of it takes more than 0.05 s here" in log[-2]
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1e-9, "0 min"), (0, "0 min"), (1, "1 min"), (60, "1 min"), (3540.0, "59 min"), (3541, "1.0 h"), (5400, "1.5 h")],
)
def test_durations_in_words(seconds, said):
    assert hours.words(seconds) == said


@pytest.mark.parametrize(("variable", "option"), [("DRY", "--dry-run"), ("FAST", "--check")])
def test_make_study_has_a_variable_for_each_option(variable, option):
    """What `make` would run; its own --dry-run is another thing."""
    command = ["make", "--dry-run", "study", "NAMES=seeds"]
    plain, with_it = (
        subprocess.run([*command, *more], cwd=DATA.parent.parent, capture_output=True, text=True).stdout
        for more in ([], [f"{variable}=1"])
    )
    assert option not in plain and re.search(rf"pmd-llm study seeds --jobs 2 +{option}", with_it)


@pytest.mark.filterwarnings("ignore:algorithm .* with one update per rollout batch")
@pytest.mark.parametrize("declared", (STUDIES | ON_REQUEST).values(), ids=STUDIES | ON_REQUEST)
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
    budgets = defaultdict(set)  # where U distinguishes settings, for each U
    for cell, c in zip(cells, configs):
        rollouts = c.iterations * c.prompts_per_batch * c.rollouts_per_prompt
        budget = cell.columns.get("budget", cell.columns.get("updates_per_batch"))
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
    assert study.plan(declared, DATA) == ([], [])


def test_a_comparison_is_drawn_in_six_panels_with_the_names_of_pictures():
    """Two forms of one method are told apart, and what nobody has measured has no panel."""
    names = ["pmd-mean-loo", "pmd-mean", "grpo", "free-baseline"]
    numbers = ["reward", "length", "entropy", "log_ratio/std"]
    numbers += [f"validation/{name}" for name in ("avg@4", "pass@4", "maj@4", "greedy")]
    curves = pd.DataFrame([
        {"algorithm": name, "seed": seed, "iteration": step} | dict.fromkeys(numbers, 0.1 * seed + 0.2 * step)
        for name in names for seed in (0, 1) for step in (1, 2)
    ])  # fmt: skip
    figure = panels.panels(curves, "algorithm")
    assert len(figure.axes) == 6
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "PMD-mean", "PMD-mean (pmd-mean)", "GRPO", "free-baseline",
    ]  # fmt: skip
    assert len(panels.panels(curves.assign(entropy=np.nan), "algorithm").axes) == 5


def test_a_run_without_an_accuracy_is_not_passed_over():
    """Its estimates are missing, on paper and as records; the others stay."""
    rows = [
        {"algorithm": name, "test/avg@4": value, "test/greedy": 0.5} | dict.fromkeys(compare.SPENDING, 1.0)
        for name, values in {"a": (0.4, 0.6), "b": (0.5, np.nan)}.items() for value in values
    ]  # fmt: skip
    first, second = compare.records(pd.DataFrame(rows))
    assert first["test/avg@4"] == 0.5 and second["test/greedy"] == 0.5
    assert all(math.isnan(second[name]) for name in ("test/avg@4", "test/avg@4_low", "above", "above_high"))
    line = next(line for line in compare.comparison(pd.DataFrame(rows)).splitlines() if line.startswith("b "))
    assert line.split()[2:5] == ["nan", "0.500", "[0.500,"] and line.count("nan") == 2
