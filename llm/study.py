"""Studies: many training runs of known cost, a row of a table each, kept as soon as it is there.

A `Study` is a list of `Setting` objects times seeds. A `Cell` is one training run of it. Settings may have options to
be tuned: then a study has two stages,

1. every trial of every setting on the tuning seeds; the trial with the largest mean validation avg@k is chosen;
2. the settings with their chosen trials on the seeds of the study, which are others.

In each stage all settings run at the first seed, then all at the second, so a study that is stopped early is a smaller
study. Each finished cell is merged into CSV tables, where it replaces the row of the same setting and seed::

    study_NAME.csv          a row per setting and seed: accuracies, costs, chosen options, versions, device, command
    study_NAME_tuning.csv   the same for the first stage, a row per setting, trial and seed
    study_NAME_curves.csv   a row per setting, seed and iteration

A cell whose row is in the table with the same options is finished, whoever trained it. So short runs on several
machines add up, and an empty folder of tables trains everything anew.
"""

import functools
import hashlib
import json
import platform
import re
import shlex
import traceback
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from .config import Config, from_preset

__all__ = ["Cell", "Setting", "Study", "Tables", "check", "choose", "curves", "grid", "plan", "results", "run"]

REGENERATED = "warmup:"
# What a training completion and an evaluated one cost at tiny-cpu on one core: a first guess, then cells are timed.
SECONDS_PER_ROLLOUT, SECONDS_PER_EVALUATED = 0.0013, 0.0005
UNIDENTIFYING = ("output", "overwrite", "seed", "device", "threads", "checkpoint_seconds", "report_to")
OFF = (0, None, False, "auto", "none")


def grid(**values):
    """Return every combination of options, the last one varying fastest.

    Examples
    --------
    >>> grid(tau=(0.1, 0.5), learning_rate=(1e-3,))
    ({'tau': 0.1, 'learning_rate': 0.001}, {'tau': 0.5, 'learning_rate': 0.001})
    """
    return tuple(dict(zip(values, combination)) for combination in product(*values.values()))


@dataclass(frozen=True)
class Setting:
    """What the seeds of a study are averaged within.

    Parameters
    ----------
    columns : dict
        Names and values that identify it in the tables; the same names throughout a study.
    options : dict
        Fields of `pmdllm.config.Config` that differ from the preset. The model ``warmup:SEED`` is the preset's base
        regenerated from another seed.
    trials : tuple of dict
        Candidates of the options to be tuned.
    """

    columns: dict
    options: dict
    trials: tuple = ({},)

    @property
    def is_tuned(self):
        """Whether there is something to choose."""
        return len(self.trials) > 1


@dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Parameters
    ----------
    study, preset : str
        Names.
    columns : dict
        What identifies the setting.
    options, trial : dict
        Fields of the configuration that differ from the preset: the setting's own and the tuned ones.
    seed : int
        Seed of the run.
    trials : int
        Number of runs by which `trial` was chosen.
    """

    study: str
    preset: str
    columns: dict
    options: dict
    seed: int
    trial: dict = field(default_factory=dict)
    trials: int = 0

    def __str__(self):
        said = self.columns | self.trial | {"seed": self.seed}
        return f"{self.study}: " + ", ".join(f"{name} {value}" for name, value in said.items())

    @property
    def folder(self):
        """Folder of the run, inside the folder of all runs; other options make another folder."""
        said = self.columns | self.trial | {"seed": self.seed}
        words = [re.sub(r"[^\w.+-]+", "_", f"{name} {value}") for name, value in said.items()]
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:8]
        return Path(self.study) / "-".join([*words, digest])

    @property
    def base_seed(self):
        """Seed from which this cell's model is regenerated, or None."""
        model = str(self.options.get("model", ""))
        return int(model.removeprefix(REGENERATED)) if model.startswith(REGENERATED) else None

    @functools.cached_property
    def resolved(self):
        """The preset with the cell's options; read once, so that editing a preset does not change a study that runs."""
        return asdict(from_preset(Config, self.preset, **self.options | self.trial))

    def config(self, runs, **changes):
        """Return the configuration, for the folder `runs` of all runs."""
        return Config(**self.resolved | self._changes(runs) | changes)

    def command(self, runs):
        """Return the shell command that does the same run."""
        words = [f"--{name} {shlex.quote(str(value))}" for name, value in self._changes(runs).items()]
        command = " ".join([f"pmd-llm train --preset {shlex.quote(self.preset)}", *words])
        if self.base_seed is None:
            return command
        where = shlex.quote(str(self.base(runs)))
        base = f"pmd-llm warmup --preset {self.preset} --seed {self.base_seed} --threads 1 --output {where}"
        return f"{base} && {command}"

    def base(self, runs):
        """Return the folder of the regenerated model."""
        return runs / "bases" / f"{self.preset}-{self.base_seed}"

    @functools.cached_property
    def identity(self):
        """The options that decide the outcome, the seed apart, as text; those that are switched off are left out.

        The shipped base is named with the digest of its weights.
        """
        model = self.resolved["model"]
        config = self.resolved | {"model": f"base:{_shipped()}" if model == "base" else model}
        return " ".join(
            f"{name}={value}" for name, value in config.items() if name not in UNIDENTIFYING and value not in OFF
        )

    def _changes(self, runs):
        changes = self.options | self.trial | {"seed": self.seed, "threads": 1, "output": str(runs / self.folder)}
        return changes if self.base_seed is None else changes | {"model": str(self.base(runs))}


@functools.cache
def _shipped():
    weights = Path(__file__).parent / "base" / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:8]


@dataclass(frozen=True)
class Study:
    """Settings and seeds.

    Parameters
    ----------
    name : str
        The name on the command line and in the tables' file names.
    settings : tuple of Setting
        What is compared.
    seeds, tuning_seeds : tuple of int
        Seeds of the second and of the first stage.
    preset : str
        The preset that the settings change.
    checked : tuple of dict
        Columns of the settings that `check` trains again.
    """

    name: str
    settings: tuple
    seeds: tuple
    tuning_seeds: tuple = ()
    preset: str = "tiny-cpu"
    checked: tuple = ()

    @property
    def keys(self):
        """Columns that identify a setting."""
        return list(self.settings[0].columns)

    def tuning_cells(self):
        """Cells of the first stage, in order."""
        return [
            self.cell(setting, seed, trial)
            for seed in self.tuning_seeds
            for setting in self.settings
            if setting.is_tuned
            for trial in setting.trials
        ]

    def final_cells(self, tuning):
        """Cells of the second stage, in order, of the settings whose trials the table `tuning` can compare."""
        chosen = [(setting, choose(setting, tuning, self.tuning_seeds)) for setting in self.settings]
        return [
            self.cell(setting, seed, trial, len(self.tuning_seeds) * len(setting.trials) if setting.is_tuned else 0)
            for seed in self.seeds
            for setting, trial in chosen
            if trial is not None
        ]

    def setting(self, columns):
        """Return the setting with these columns."""
        return next(setting for setting in self.settings if setting.columns == columns)

    def cell(self, setting, seed, trial, trials=0):
        """Return the cell of a setting with one of its trials."""
        return Cell(self.name, self.preset, setting.columns, setting.options, seed, trial, trials)


@dataclass(frozen=True)
class Tables:
    """Where a study's tables are, and how they grow.

    Parameters
    ----------
    results, curves, tuning : Path
        CSV files; they need not exist.
    """

    results: Path
    curves: Path
    tuning: Path

    @classmethod
    def within(cls, folder, name):
        """Return the tables of the study called `name` in `folder`."""
        return cls(*(Path(folder) / f"study_{name}{part}.csv" for part in ("", "_curves", "_tuning")))


def choose(setting, tuning, seeds):
    """Return the trial with the largest mean validation avg@k; None if there is none with all tuning seeds.

    Parameters
    ----------
    setting : Setting
        With one trial there is nothing to choose.
    tuning : DataFrame
        Results of the first stage.
    seeds : sequence of int
        The tuning seeds.
    """
    if not setting.is_tuned:
        return setting.trials[0]
    scores = []
    for trial in setting.trials:
        rows = of(tuning, setting.columns | trial)
        if set(seeds) <= set(rows.get("seed", ())):
            scores.append((rows[rows["seed"].isin(seeds)][accuracy(rows, "validation")].mean(), trial))
    return max(scores, key=lambda scored: scored[0])[1] if scores else None


def accuracy(table, split):
    """Name of the column of `table` with the accuracy avg@k on a split ('validation', 'before' or 'test')."""
    return next(name for name in table if name.startswith(f"{split}/avg@") and not name.endswith("_ci"))


def of(table, values):
    """Rows of `table` with these values in these columns; none if the table is empty."""
    if table.empty:
        return table
    return table[np.logical_and.reduce([table[name] == value for name, value in values.items()])]


def read(path):
    """Read a table; an empty one if there is no such file."""
    return pd.read_csv(path) if Path(path).exists() else pd.DataFrame()


def merge(path, rows, keys, digits=12):
    """Put `rows` into the table at `path`, in the place of those with the same `keys`, atomically."""
    path = Path(path)
    table = pd.concat([table for table in (read(path), rows) if len(table)], ignore_index=True)
    table = table.drop_duplicates(keys, keep="last", ignore_index=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    table.sort_values(keys, kind="stable").to_csv(part, index=False, float_format=f"%.{digits}g", lineterminator="\n")
    part.replace(path)


def unfinished(cells, table):
    """Return the cells that have no row with the same setting, seed and options in `table`."""
    if table.empty or not cells:
        return cells
    names = [*cells[0].columns, "seed", "options"]
    there = set(table[names].itertuples(index=False, name=None))
    return [cell for cell in cells if (*cell.columns.values(), cell.seed, cell.identity) not in there]


def results(cells, runs):
    """Return a tidy row for each finished cell.

    Parameters
    ----------
    cells : list of Cell
        Those that are not finished are left out.
    runs : Path
        Folder of all runs.

    Returns
    -------
    DataFrame
        Study, setting, tuned options and their number of trials, seed, the last validation, ``result.json``, options,
        versions, device, command.
    """
    import torch
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    rows = [
        {"study": cell.study} | cell.columns | cell.trial | {"trials": cell.trials, "seed": cell.seed}
        | {name: value for name, value in _lines(runs / cell.folder)[-1].items() if name.startswith("validation/")}
        | json.loads((runs / cell.folder / "result.json").read_text()) | {"options": cell.identity} | versions
        | {"device": _device(cell.config(runs).device), "command": cell.command(runs)}
        for cell in cells
        if (runs / cell.folder / "result.json").exists()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _device(name):
    import torch

    from . import models

    if models.device(name).type == "cuda":
        return torch.cuda.get_device_name(models.device(name))
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


CURVES = (
    *("iteration", "updates", "rollouts", "tokens", "reward", "length", "truncated", "entropy", "grad_norm"),
    *("ratio/mean", "ratio/std", "ratio/max", "kl/k1", "kl/k3", "lambda/mean"),
)


def curves(cells, runs):
    """Return a row for each iteration of each finished cell: spending, reward, length, entropy, ratios, validation.

    Parameters
    ----------
    cells, runs
        As in `results`.
    """
    rows = [
        cell.columns | {"seed": cell.seed}
        | {name: line.get(name) for name in CURVES}
        | {name: value for name, value in line.items() if name.startswith("validation/") and not name.endswith("_ci")}
        for cell in cells
        if (runs / cell.folder / "result.json").exists()
        for line in _lines(runs / cell.folder)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(study, tables, runs, jobs=1, log=print):
    """Train what `tables` lack of a study, merging each row as it comes.

    Parameters
    ----------
    study : Study
        What to train.
    tables : Tables
        What there is, and where rows go.
    runs : Path
        Folder of all runs; an interrupted one in it is resumed.
    jobs : int
        Processes, each with one CPU thread; with one job (a GPU) the cells are trained in this process.
    log : callable
        Takes a line of text for each cell: number, accuracy, predicted time left.

    Returns
    -------
    list of Cell
        The cells that failed; their commands and errors have been logged.

    Raises
    ------
    ValueError
        A cell has an invalid configuration.
    """

    def keep_tuning(cell):
        merge(tables.tuning, results([cell], runs), [*study.keys, *_tuned(study), "seed"])

    def keep(cell):
        merge(tables.results, results([cell], runs), [*study.keys, "seed"])
        merge(tables.curves, curves([cell], runs), [*study.keys, "seed", "iteration"], digits=6)

    failed = _train(unfinished(study.tuning_cells(), read(tables.tuning)), runs, jobs, keep_tuning, log)
    final = unfinished(study.final_cells(read(tables.tuning)), read(tables.results))
    return failed + _train(final, runs, jobs, keep, log)


def plan(study, tables):
    """Return what `run` would train, as three lists of cells.

    Returns
    -------
    tuning, final : list of Cell
        Cells of the first and of the second stage.
    undecided : list of Cell
        Cells of the second stage whose options the first one will choose, with the first of their trials.
    """
    tuning = unfinished(study.tuning_cells(), read(tables.tuning))
    waiting = [setting for setting in study.settings if any(cell.columns == setting.columns for cell in tuning)]
    final = unfinished(study.final_cells(read(tables.tuning)), read(tables.results))
    final = [cell for cell in final if all(cell.columns != setting.columns for setting in waiting)]
    return tuning, final, [study.cell(setting, seed, setting.trials[0]) for seed in study.seeds for setting in waiting]


def _tuned(study):
    return list(dict.fromkeys(name for setting in study.settings for trial in setting.trials for name in trial))


def predicted_seconds(configs, table):
    """Predict the time that runs take on one core: the table's seconds per rollout, and the evaluations.

    Parameters
    ----------
    configs : list of Config
        The runs.
    table : DataFrame
        Results of other runs; a first guess is made if it is empty.
    """
    rate = SECONDS_PER_ROLLOUT if table.empty else table["seconds"].sum() / table["rollouts"].sum()
    return sum(_rollouts(config) * rate + _evaluated(config) * SECONDS_PER_EVALUATED for config in configs)


def _rollouts(config):
    return config.iterations * config.prompts_per_batch * config.rollouts_per_prompt


def _evaluated(config):
    validations = 1 + (config.iterations // config.eval_every if config.eval_every else 1)
    return (2 * config.test_prompts + validations * config.eval_prompts) * (config.eval_samples + 1)


def _train(cells, runs, jobs, keep, log, **changes):
    """Train cells in order, `keep` each one that ends well, and return the others."""
    left = [cell.config(runs) for cell in cells]
    failed, rows = [], pd.DataFrame()
    for number, (cell, error) in enumerate(_outcomes(cells, runs, jobs, log, changes), start=1):
        left.remove(cell.config(runs))
        head = f"[{number}/{len(cells)}] {cell}"
        if error is not None:
            failed.append(cell)
            log(f"{head}: FAILED\n{cell.command(runs)}\n{error}")
            continue
        keep(cell)
        row = results([cell], runs)
        rows = pd.concat([rows, row], ignore_index=True)
        shown = ", ".join(f"{name} {row[f'test/{name}'][0]:.3f}" for name in (accuracy(row, "test")[5:], "greedy"))
        hours = predicted_seconds(left, rows) / jobs / 3600
        log(f"{head}: {shown}, {row['seconds'][0]:.0f} s of training; {hours:.1f} h left")
    return failed


def _outcomes(cells, runs, jobs, log, changes):
    """Yield each cell as it ends, with its error (a text, or None)."""
    bases = {cell.base_seed: cell for cell in cells if cell.base_seed is not None}
    if jobs == 1:
        for cell in bases.values():
            log(_make_base(cell, runs))
        for cell in cells:
            yield cell, _train_cell(cell, runs, changes)
        return
    from pebble import ProcessPool

    pool = ProcessPool(jobs, context=get_context("spawn"))
    try:
        for future in [pool.schedule(_make_base, args=[cell, runs]) for cell in bases.values()]:
            log(future.result())
        futures = {pool.schedule(_train_cell, args=[cell, runs, changes]): cell for cell in cells}
        for future in as_completed(futures):
            died = future.exception()
            yield futures[future], f"its process ended with code {died.exitcode}" if died else future.result()
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _train_cell(cell, runs, changes):
    """Train one cell; return its error, a text, or None."""
    from .train import train

    try:
        train(cell.config(runs, **changes), progress=False)
    except Exception:
        return traceback.format_exc()
    return None


def _make_base(cell, runs):
    """Regenerate the base of a cell unless it is there; return a line of text."""
    from .warmup import WarmupConfig, warmup

    folder = cell.base(runs)
    if folder.exists():
        return f"base {folder} is there"
    part = folder.with_name(f"{folder.name}.part")
    changes = {"seed": cell.base_seed, "threads": 1, "output": str(part)}
    warmup(from_preset(WarmupConfig, cell.preset, kind="warmup", **changes), progress=False)
    part.rename(folder)
    return f"base {folder} regenerated"


def check(studies, folder, runs, jobs=1, log=print, level=0.95):
    """Train a few cells anew and compare them with the committed rows of their settings.

    A new number has to lie in mean ± t sd √(1 + 1/m) of the m committed seeds, the prediction interval of one more
    seed; sd is at least the sampling error of the evaluation, so that seeds which agree by chance do not make it
    narrower. The level holds for all numbers together (Bonferroni).

    Parameters
    ----------
    studies : list of Study
        Their `checked` settings are trained, at the first seed and the committed choice of tuned options.
    folder : Path
        Folder of the committed tables.
    runs, jobs, log
        As in `run`; what an earlier check left in `runs` is overwritten.
    level : float
        Probability that all intervals hold their numbers if nothing has changed.

    Returns
    -------
    list of str
        What failed or departs, in words.
    """
    committed, departures = [], []
    for study in studies:
        table = read(Tables.within(folder, study.name).results)
        for columns in study.checked:
            rows = of(table, columns)
            setting = study.setting(columns)
            if len(rows) < 2:
                log(f"{study.name}: {columns} has {len(rows)} committed seeds, too few for an interval: not checked")
                continue
            cells = [study.cell(setting, study.seeds[0], trial) for trial in setting.trials]
            same = [cell for cell in cells if (rows["options"] == cell.identity).all()]
            if same:
                committed.append((same[0], rows))
            else:
                departures.append(f"{study.name}: the committed rows of {columns} have other options than the study's")
    cells = [cell for cell, _ in committed]
    failed = _train(cells, runs, jobs, lambda cell: None, log, overwrite=True)
    for cell, rows in committed:
        if cell in failed:
            departures.append(f"{cell}: failed")
            continue
        new = results([cell], runs).iloc[0]
        for name in (accuracy(rows, "test"), "test/greedy"):
            floor = max(rows[f"{name}_ci"].mean() / 1.96, 1 / cell.config(runs).test_prompts)
            low, high = prediction_interval(rows[name], floor, 1 - (1 - level) / (2 * len(cells)))
            said = f"{cell}: {name} {new[name]:.4f}, allowed by {len(rows)} committed seeds: {low:.4f} to {high:.4f}"
            for value in rows[rows["seed"] == cell.seed][name]:
                equal = np.isclose(new[name], value, rtol=1e-9, atol=0)
                said += ", identical to that of this seed" if equal else f", committed for this seed: {value:.4f}"
            log(said)
            if not low <= new[name] <= high:
                departures.append(said)
    return departures


def prediction_interval(values, floor, level=0.95):
    """Interval in which one more value lies with probability `level`, if all are normal.

    Parameters
    ----------
    values : array (m,)
        At least two values.
    floor : float
        Least standard deviation.
    level : float
        In (0, 1).

    Returns
    -------
    low, high : float
        mean ∓ t sd √(1 + 1/m), t the quantile with m − 1 degrees of freedom.

    Examples
    --------
    >>> low, high = prediction_interval([0.8, 0.9], floor=0.01)
    >>> round(low, 3), round(high, 3)
    (-0.25, 1.95)
    """
    from scipy.stats import t as student

    values = np.asarray(values, dtype=float)
    m = len(values)
    half = student.ppf((1 + level) / 2, m - 1) * max(values.std(ddof=1), floor) * np.sqrt(1 + 1 / m)
    return float(values.mean() - half), float(values.mean() + half)
