"""What a study is: settings times seeds, cells with everything that identifies a run, and the choice of trials."""

import functools
import hashlib
import re
import shlex
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

from ..config import Config, from_preset
from .tables import accuracy, of

__all__ = ["Cell", "Setting", "Study", "choose", "grid"]

REGENERATED = "warmup:"
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
    tuned_as : dict, optional
        Columns of another setting with the same trials whose choice is taken over, instead of an own one.
    """

    columns: dict
    options: dict
    trials: tuple = ({},)
    tuned_as: dict | None = None

    @property
    def is_tuned(self):
        """Whether there is something to choose."""
        return len(self.trials) > 1

    @property
    def tuning(self):
        """Columns of the setting whose runs decide the choice."""
        return self.tuned_as or self.columns


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
    weights = Path(__file__).parent.parent / "base" / "model.safetensors"
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
            if setting.is_tuned and setting.tuned_as is None
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
        rows = of(tuning, setting.tuning | trial)
        if set(seeds) <= set(rows.get("seed", ())):
            scores.append((rows[rows["seed"].isin(seeds)][accuracy(rows, "validation")].mean(), trial))
    return max(scores, key=lambda scored: scored[0])[1] if scores else None
