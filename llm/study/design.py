"""What a study is: settings times seeds, cells with everything that identifies a run, and the choice of trials."""

import functools
import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Config, from_preset, preset_values
from ..run.folder import write_atomically
from . import tables
from .hours import rates
from .tables import Stage, Table, accuracy, of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cell", "Setting", "Study", "choose", "grid"]

REGENERATED = "warmup:"
UNIDENTIFYING = ("output", "overwrite", "seed", "device", "threads", "checkpoint_seconds", "report_to", "memory_gb")
OFF = (0, None, False, "auto", "none")
OPTIONAL = frozenset(option.name for option in fields(Config) if option.default is None)
RATE = "learning_rate"
AROUND_A_WARMUP = ("output", "workers", "checkpoint_seconds", "eval_prompts", "eval_samples")  # nothing to its model

SECONDS = 0.0013, 0.0005  # of a training completion and an evaluated one, at tiny-cpu on one core


def grid(**values: Any) -> tuple[dict[str, Any], ...]:
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

    `columns` identify it in the tables, under the same names throughout a study; `options` are the fields of
    `pmdllm.config.Config` that differ from the preset, the model ``warmup:SEED`` its base regenerated from that seed;
    `trials` are candidates of the options to be tuned, as those of the setting with the columns `tuned_as` if given.
    `seeds` says with how many of the study's seeds it is trained, all unless given.
    """

    columns: dict
    options: dict
    trials: tuple = ({},)
    tuned_as: dict | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Cell:
    """One training run of a setting, a cell as in `pmdllm.study`.

    `trial` was chosen by the number `trials` of runs; `guess` is of the seconds per training completion and per
    evaluated one on one core, until the table tells the first.
    """

    study: str
    preset: str
    columns: dict
    options: dict
    seed: int
    trial: dict = field(default_factory=dict)
    trials: int = 0
    guess: tuple = SECONDS

    def __str__(self):
        return f"{self.study}: {', '.join(self._words())}"

    def __hash__(self):
        return hash(self.folder)

    @property
    def folder(self) -> Path:
        """Folder of the run, inside the folder of all runs; other options make another folder."""
        words = [re.sub(r"[^\w.+-]+", "_", word) for word in self._words()]
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:8]
        return Path(self.study) / "-".join([*words, digest])

    @property
    def base_seed(self) -> int | None:
        """Seed from which this cell's model is regenerated, or None."""
        model = str(self.options.get("model", ""))
        return int(model.removeprefix(REGENERATED)) if model.startswith(REGENERATED) else None

    @functools.cached_property
    def resolved(self) -> dict[str, Any]:
        """The preset with the cell's options; read once, so that editing a preset does not change a study that runs."""
        return asdict(from_preset(Config, self.preset, **self.options | self.trial))

    def config(self, runs: Path) -> Config:
        """Return the configuration, for the folder `runs` of all runs."""
        return Config(**self.resolved | self._changes(runs))

    def command(self, runs: Path) -> str:
        """Return the shell command that does the same run."""
        words = [f"--{name} {shlex.quote(str(value))}" for name, value in self._changes(runs).items()]
        command = " ".join([f"pmd-llm train --preset {shlex.quote(self.preset)}", *words])
        if self.base_seed is None:
            return command
        where = shlex.quote(str(self.base(runs)))
        base = f"pmd-llm warmup --preset {self.preset} --seed {self.base_seed} --threads 1 --output {where}"
        return f"{base} && {command}"

    def base(self, runs: Path) -> Path | None:
        """Return the folder of the regenerated model, None if there is none to be made."""
        if self.base_seed is None:
            return None
        return runs / "bases" / f"{Path(self.preset).stem}-{self.base_seed}-{_recipe(self.preset)}"

    def make_base(self, runs: Path) -> None:
        """Regenerate the model in the folder ``base(runs)``."""
        from ..warmup import WarmupConfig, warmup

        with tables.appearing(self.base(runs)) as folder:  # type: ignore[arg-type]
            changes = {"seed": self.base_seed, "threads": 1, "output": str(folder)}
            warmup(from_preset(WarmupConfig, self.preset, kind="warmup", **changes), progress=False)

    def validate(self, runs: Path) -> None:
        """Raise ValueError if the configuration is invalid."""
        self.config(runs)

    def run(self, runs: Path) -> None:
        """Train, or go on training, in the folder of `runs`; a candidate that diverges is a bad one."""
        from ..train import Diverged, train

        try:
            train(self.config(runs), progress=False)
        except Diverged as error:
            if self.trials or not self.trial:
                raise
            write_atomically(runs / self.folder / tables.DIVERGED, f"{error}\n")

    def rows(self, runs: Path) -> dict[str, Any]:
        """Return the rows of the finished run by table."""
        return {"results": tables.results(self, runs), "curves": tables.curves(self, runs)}

    def headline(self, row: "pd.DataFrame") -> str:
        """Accuracies of a row of results."""
        name = accuracy(row, "test")
        return f"{name.removeprefix('test/')} {row[name].iloc[0]:.3f}, greedy {row['test/greedy'].iloc[0]:.3f}"

    def judged(self, rows: "pd.DataFrame") -> dict[str, Any]:
        """Return the numbers of some rows that `pmdllm.study.check` compares, and the least sd of a seed's."""
        names = accuracy(rows, "test"), "test/greedy"
        least = 1 / self.resolved["test_prompts"]
        return {name: (rows[name], max(rows[f"{name}_ci"].mean() / 1.96, least)) for name in names}

    def training(self, table: "pd.DataFrame") -> float:
        """Predict the seconds of training on one core, at the rates of the rows in `table`, or as guessed."""
        options = SimpleNamespace(**self.resolved)
        rollouts = options.iterations * options.prompts_per_batch * options.rollouts_per_prompt
        updates = options.iterations * options.updates_per_batch * options.epochs
        return float(np.dot((rollouts, options.iterations, updates), self._rates(table)))

    def seconds(self, table: "pd.DataFrame") -> float:
        """Predict the seconds on one core: of training, and of evaluations as guessed in comparison."""
        options = SimpleNamespace(**self.resolved)
        validations = 1 + (options.iterations // options.eval_every if options.eval_every else 1)
        prompts = 2 * options.test_prompts + validations * options.eval_prompts
        as_guessed = self.training(table) / self.training(table.iloc[:0])
        return self.training(table) + prompts * (options.eval_samples + 1) * self.guess[1] * as_guessed

    def piece(self, iterations: int) -> "Cell":
        """Return a short run of the same batches, hardly evaluated, whose time tells how fast a machine is."""
        few = {"iterations": iterations, "eval_every": 0, "eval_prompts": 2, "test_prompts": 2, "target_accuracy": 0.0}
        return replace(self, options=self.options | few)

    def spent(self, runs: Path) -> float:
        """Return the seconds of training of a run."""
        return tables.spent(runs / self.folder)

    @functools.cached_property
    def identity(self) -> str:
        """The options that are switched on and decide the outcome, the seed apart; a base of ours by a digest."""
        config = self.resolved | {"model": self._model}
        on = {name: value is not None if name in OPTIONAL else value not in OFF for name, value in config.items()}
        decisive = [name for name in config if on[name] and name not in UNIDENTIFYING]
        return " ".join(f"{name}={config[name]}" for name in decisive)

    @property
    def _model(self):
        model = self.resolved["model"]
        if self.base_seed is not None:
            return f"{model}:{_recipe(self.preset)}"
        return f"base:{_shipped()}" if model == "base" else model

    def _rates(self, table):
        timed = table if table.empty else table[table["seconds"] > 0]  # one that diverged has no time
        return (self.guess[0], 0.0, 0.0) if timed.empty else rates(timed)

    def _words(self):
        return [f"{name} {value}" for name, value in (self.columns | self.trial | {"seed": self.seed}).items()]

    def _changes(self, runs):
        changes = self.options | self.trial | {"seed": self.seed, "threads": 1, "output": str(runs / self.folder)}
        return changes if self.base_seed is None else changes | {"model": str(self.base(runs))}


@functools.cache
def _shipped():
    weights = Path(__file__).parent.parent / "models" / "base" / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:8]


@functools.cache
def _recipe(preset):
    """Digest of the warm-up of a preset, as far as it decides the model."""
    decisive = {name: value for name, value in preset_values(preset, "warmup").items() if name not in AROUND_A_WARMUP}
    return hashlib.sha256(repr(sorted(decisive.items())).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Study:
    """Settings and seeds, a study as in `pmdllm.study`.

    `checked` are the columns of the settings that `pmdllm.study.check` trains again, `guess` is that of `Cell`, `files`
    are the stems of the tables.
    """

    name: str
    settings: tuple
    seeds: tuple
    tuning_seeds: tuple = ()
    preset: str = "tiny-cpu"
    checked: tuple = ()
    guess: tuple = SECONDS
    files: tuple = ("study_{}", "study_{}_curves", "study_{}_tuning")

    def results(self, folder: Path) -> Table:
        """Return the table of the second stage in a folder of tables."""
        return self._tables(folder)[0]

    def stages(self, folder: Path) -> Iterator[Stage]:
        """Yield the two stages; the second has the settings whose options the first has chosen by then."""
        results, curves, tuning = self._tables(folder)
        yield Stage(self.tuning_cells(), {"results": tuning})
        yield Stage(self.final_cells(tuning.read()), {"results": results, "curves": curves})

    def undecided(self, folder: Path) -> list[Cell]:
        """Cells of the second stage whose options the first one will choose, with the first of their trials."""
        tuning = [cell.columns for cell in next(self.stages(folder)).unfinished()]
        waiting = [setting for setting in self.settings if (setting.tuned_as or setting.columns) in tuning]
        return self._cells(self.seeds, [(setting, setting.trials[0]) for setting in waiting])

    def checked_cells(self, folder: Path) -> list[Cell]:
        """Cells of the checked settings at the first seed, with the options that the table of tuning chooses."""
        chosen = self._chosen(map(self.setting, self.checked), self._tables(folder)[2].read())
        return self._cells(self.seeds[:1], [(setting, trial or setting.trials[0]) for setting, trial in chosen])

    def tuning_cells(self) -> list[Cell]:
        """Cells of the first stage, in order."""
        tuned = [setting for setting in self.settings if len(setting.trials) > 1 and setting.tuned_as is None]
        return self._cells(self.tuning_seeds, [(setting, trial) for setting in tuned for trial in setting.trials])

    def final_cells(self, tuning: "pd.DataFrame") -> list[Cell]:
        """Cells of the second stage, in order, of the settings whose trials the table `tuning` can compare."""
        chosen = [pair for pair in self._chosen(self.settings, tuning) if pair[1] is not None]
        return self._cells(self.seeds, chosen, self.tuning_seeds)

    def setting(self, columns: Any) -> Setting:
        """Return the setting with these columns."""
        return next(setting for setting in self.settings if setting.columns == columns)

    def cell(self, setting: Setting, seed: int, trial: dict[str, Any], tuned_on: Any = ()) -> Cell:
        """Return the cell of a setting with one of its trials, chosen on the seeds `tuned_on`."""
        trials = len(tuned_on) * len(setting.trials) if len(setting.trials) > 1 else 0
        return Cell(self.name, self.preset, setting.columns, setting.options, seed, trial, trials, self.guess)

    def _cells(self, seeds, chosen, tuned_on=()):
        return [
            self.cell(setting, seed, trial, tuned_on)
            for number, seed in enumerate(seeds)
            for setting, trial in chosen
            if setting.seeds is None or number < setting.seeds
        ]

    def _chosen(self, settings, tuning):
        return [(setting, choose(setting, tuning, self.tuning_seeds)) for setting in settings]

    def _tables(self, folder):
        """Tables of results, curves and tuning."""
        results, curves, tuning = (Path(folder) / f"{stem.format(self.name)}.csv" for stem in self.files)
        columns = tuple(self.settings[0].columns)
        cell, identified = (*columns, "seed"), (*columns, "seed", "options")
        tuned = dict.fromkeys(name for setting in self.settings for trial in setting.trials for name in trial)
        curves = Table(curves, cell, ("iteration",), (*cell, "iteration"), digits=6)
        return Table(results, cell, (), identified), curves, Table(tuning, (*columns, *tuned, "seed"), (), identified)


def choose(setting: Setting, tuning: "pd.DataFrame", seeds: Sequence[int]) -> dict[str, Any] | None:
    """Return the trial that the table `tuning` speaks for; None while one lacks a seed.

    It has the largest mean validation avg@k over the seeds, itself and the trials with the next smaller and the next
    larger learning rate: the best single rate is often the last one before the runs collapse. So the smallest and the
    largest rate of three or more are not chosen; with less than three a trial stands for itself. A run without an
    accuracy counts as one that has 0.
    """
    if len(setting.trials) == 1:
        return setting.trials[0]
    scores = []
    for trial in setting.trials:
        rows = of(tuning, (setting.tuned_as or setting.columns) | trial)
        if not set(seeds) <= set(rows.get("seed", ())):
            return None
        scores.append(rows[rows["seed"].isin(seeds)][accuracy(rows, "validation")].fillna(0.0).mean())
    means = {number: sum(scores[i] for i in near) / len(near) for number, near in _neighbours(setting.trials)}
    return setting.trials[max(means, key=means.__getitem__)]


def _neighbours(trials):
    """Yield the number of each trial that may be chosen, and of those that are averaged for it."""
    for number, trial in enumerate(trials):
        line = [i for i, other in enumerate(trials) if other | {RATE: None} == trial | {RATE: None}]
        line.sort(key=lambda i: trials[i].get(RATE, 0))
        place = line.index(number)
        if len(line) < 3:
            yield number, [number]
        elif 0 < place < len(line) - 1:
            yield number, line[place - 1 : place + 2]
