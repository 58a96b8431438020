"""The validation: theory laid beside networks, declared as a study whose cells are single fits.

A cell is a fit of one of the `pmdllm.validation.experiments` from one seed: that of the base, the prompts and the
rollouts. Its rows go to::

    validate.csv            a row per cell, split and outer step: quantiles over the prompts, options, versions, command
    validate_prompts.csv    a row per prompt: what `pmdtheory.laws.compare` says, and rewards
    validate_steps.csv      medians over the prompts as a fit goes on
    validate_actions.csv    a row per action of three prompts, of the population cells of the first seed
    validate_training.csv   a row per outer step, pass and split of ordinary training: pooled f, λ and KL(p‖q)

Cells made with other budgets are kept apart. With a pretrained network the same tables are called
``validate_pretrained``, ``validate_pretrained_prompts``, ..., those of the held-out experiment alone
``validate_held_out``, ``validate_held_out_prompts``, ...
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pmdtheory.intervals import mean_interval

from .. import models
from ..config import COUNT, COUNT_OR_0, RATE, TEMPERATURE, THREADS, check, from_preset, must_be, option
from ..study.tables import Stage, Table, appearing, made_on, of
from .experiments import EXPERIMENTS, Cell
from .fit import base, base_folder
from .held_out import UNSEEN
from .sums import REWARDS, ChatSums, Sums

__all__ = ["Fit", "ValidateConfig", "Validation", "declared", "departures", "report", "summary"]

PRESETS = {"validate": "full", "validate_held_out": "held-out", "validate_pretrained": "smollm2-135m"}
"""The studies, by the names of their tables, and the presets that declare them."""
WITHIN = {"validate": 0.02, "validate_held_out": 0.05, "validate_pretrained": 0.05}
"""How far f may be from its law, by study."""
TOLD_APART = 5.0
"""How many times as far as its own law PMD-mean's has to be from a network that is fitted to another loss."""
NETWORK = ("hidden_size", "layers", "heads", "warmup_steps", "warmup_batch", "warmup_learning_rate")
PRETRAINED = ("model", "answers", "blocks", "history")
NUMBER = re.compile(r"\d+(\.\d+)?")
DIGITS = 8
CELL = tuple(declared.name for declared in fields(Cell))
ROWS = {
    "prompts": ("split", "iteration", "number"),
    "steps": ("split", "evaluations"),
    "actions": ("number", "action"),
    "training": ("split", "iteration", "epoch"),
}
CHECKED = {"experiment": "population", "reward": "graded", "tau": 0.3}
SECONDS, A_STEP = 40.0, 0.14  # of a cell, or of a step of 64 prompts, first guesses; then the committed cells tell
A_PROMPT, A_BLOCK, BLOCKS = 0.08, 0.07, 30  # of a gradient of SmolLM2-135M: a prompt, and more for each trained block
CPU = "x86_64|aarch64|arm64|AMD64"
"""How the name of a device begins that is no GPU."""


@dataclass(frozen=True)
class ValidateConfig:
    """What is fitted, with which budgets, and where the tables go; a ValueError names field, value and remedy."""

    output: str = option("runs/validate", "folder of the tables; finished cells in it are kept")
    experiments: str = option(",".join(EXPERIMENTS), "which experiments")
    seeds: str = option("0", "seeds of base, prompts and rollouts")
    rewards: str = option("binary,graded", "rewards of the population experiment")
    taus: str = option("0.05,0.1,0.3,1", "temperatures of the population experiment, in reward units")
    rollouts: str = option("4,16,64,256", "rollouts n per prompt and gradient step of the rollouts experiment")
    sizes: str = option("64,512,5000", "training prompts of the held-out experiment")
    outer_steps: int = option(12, "outer steps of the recursion", **COUNT)

    prompts: int = option(12, "prompts of a cell, except in the held-out experiment", at_least=1, at_most=Sums.size)
    tau: float = option(0.3, "temperature of graded rewards, except in the population experiment", **TEMPERATURE)
    recursion_tau: float = option(1.0, "temperature of binary rewards, and of kimi-k2.5", **TEMPERATURE)
    n: int = option(16, "rollouts per prompt of completions, batch and recursion", at_least=2, at_most=10_000)
    evaluations: int = option(1000, "gradients of L-BFGS in a step: population and batch; more for τ < 0.125", **COUNT)
    history: int = option(100, "steps that L-BFGS remembers, 8 bytes each per trained parameter", **COUNT)
    steps: int = option(1000, "gradient steps of Adam in an outer step: rollouts and completions", **COUNT)
    family_steps: int = option(2000, "gradient steps of Adam in an outer step of the family experiment", **COUNT)
    recursion_evaluations: int = option(400, "gradients of L-BFGS in an outer step of the recursion", **COUNT)
    recursion_steps: int = option(300, "gradient steps of Adam in an outer step of the recursion", **COUNT)
    held_out_steps: int = option(1200, "gradient steps of Muon in the held-out experiment", **COUNT)
    held_out_batch: int = option(16, "prompts per gradient step in the held-out experiment", **COUNT)
    training_prompts: int = option(128, "prompts per batch of training, 4 per update", at_least=4, at_most=10_000)
    training_iterations: int = option(3, "rollout batches of the training experiment", **COUNT)
    training_epochs: int = option(4, "passes over each of these batches", **COUNT)
    training_learning_rate: float = option(6e-4, "step size of the training experiment", **RATE)
    learning_rate: float = option(3e-3, "largest step size of Adam and Muon", **RATE)

    model: str = option("", "a pretrained network, named as in pmd-llm train; empty: one trained from scratch")
    answers: int = option(20, "sums that a pretrained network is asked for are below this", at_least=10, at_most=1000)
    blocks: int = option(0, "trained blocks of a pretrained network, the last ones; 0: all of it", **COUNT_OR_0)
    device: str = option("cpu", "of the fits: auto, cpu, cuda, cuda:1, ...")
    hidden_size: int = option(32, "width of the network's residual stream, a multiple of heads", **COUNT)
    layers: int = option(2, "layers of the network", **COUNT)
    heads: int = option(2, "attention heads per layer", **COUNT)
    warmup_steps: int = option(1200, "updates of the base's supervised warm-up", **COUNT)
    warmup_batch: int = option(128, "demonstrations per update of the warm-up", **COUNT)
    warmup_learning_rate: float = option(6e-3, "largest step size of the warm-up", **RATE)
    warmup_optimizer: str = option("adamw", "of the warm-up", choices=("adamw", "muon"))
    threads: int = option(1, "CPU threads; 0: PyTorch's choice", **THREADS)
    jobs: int = option(1, "processes", **COUNT)

    def __post_init__(self):
        check(self)
        for name, accepted in {"experiments": tuple(EXPERIMENTS), "rewards": tuple(REWARDS)}.items():
            must_be(self, name, f"some of {', '.join(accepted)}", set(self.values(name)) <= set(accepted))
        size = ChatSums.how_many(self.answers) if self.model else Sums.size
        limits = {"seeds": (0, 2**31), "rollouts": (2, 10_000), "sizes": (1, size - UNSEEN)}
        for name, (lower, upper) in limits.items():
            valid = all(text.isdecimal() and lower <= int(text) <= upper for text in self.values(name))
            must_be(self, name, f"integers in [{lower}, {upper}], separated by commas", valid)
        valid = all(NUMBER.fullmatch(text) and 1e-6 <= float(text) <= 1e6 for text in self.values("taus"))
        must_be(self, "taus", "numbers in [1e-06, 1000000.0], separated by commas", valid)
        for name in ("experiments", "rewards", "taus", *limits):
            must_be(self, name, "different values", len(set(self.values(name))) == len(self.values(name)))
        must_be(self, "prompts", f"at most {size}, all that there are", self.prompts <= size)
        scratch = "for a network that is trained from scratch: name a model"
        for name, usual in {"blocks": 0, "history": 100}.items():
            must_be(self, name, f"{usual} {scratch}", self.model or getattr(self, name) == usual)
        if "training" in self.values("experiments"):
            must_be(self, "experiments", "others than training for a pretrained network", not self.model)
            must_be(self, "n", "at least 3 for the experiment training", self.n >= 3)

    def values(self, name: str, kind: Callable[[str], Any] = str) -> list[Any]:
        """Return a list option as a list."""
        return [kind(value) for value in getattr(self, name).split(",")]

    def decides(self, experiment: str) -> dict[str, Any]:
        """The options that decide the outcome of an experiment's cells, besides those that name the cell."""
        network = PRETRAINED if self.model else NETWORK
        network += ("warmup_optimizer",) * (self.warmup_optimizer != "adamw")
        names = (*(network if EXPERIMENTS[experiment].base else ()), *EXPERIMENTS[experiment].options)
        return {name: getattr(self, name) for name in names}

    @property
    def study(self) -> str:
        """Name of the study, and of its tables."""
        if self.model:
            return "validate_pretrained"
        return "validate_held_out" if self.experiments == "held-out" else "validate"


@dataclass(frozen=True)
class Fit:
    """What is fitted, with its budgets: a cell as in `pmdllm.study`."""

    cell: Cell
    config: ValidateConfig

    def __str__(self):
        return f"{self.config.study}: {self.cell}"

    @property
    def columns(self) -> dict[str, Any]:
        """Columns that identify the setting."""
        return {name: value for name, value in asdict(self.cell).items() if name != "seed"}

    @property
    def seed(self) -> int:
        """Seed of the cell."""
        return self.cell.seed

    @cached_property
    def identity(self) -> str:
        """The options that decide the outcome, as text."""
        return " ".join(f"{name}={value}" for name, value in self.config.decides(self.cell.experiment).items())

    @property
    def folder(self) -> Path:
        """Folder of the fit, inside the folder of all runs."""
        options = json.dumps(self.config.decides(self.cell.experiment))
        return Path(self.config.study) / f"{self.cell}-{hashlib.sha256(options.encode()).hexdigest()[:8]}"

    def command(self, runs: Path) -> str:
        """Return a shell command whose tables hold this cell."""
        preset = PRESETS[self.config.study]
        usual = from_preset(ValidateConfig, preset, kind="validate")
        free = ("output", "experiments", "seeds", "jobs", "device")
        words = [f"--{name} {value}" for name, value in asdict(self.config).items() if value != getattr(usual, name)]
        words = [text for text in words if text.split()[0].strip("-") not in free]
        start = f"pmd-llm validate --preset {preset} --experiments {self.cell.experiment} --seeds {self.seed}"
        return " ".join([start, *words])

    def base(self, runs: Path) -> Path | None:
        """Return the folder of the base, None if it need not be made."""
        made = self.cell.kind.base and not self.config.model
        return base_folder(self.config, self.seed, runs / self.config.study, self.cell.task) if made else None

    def make_base(self, runs: Path) -> tuple[Any, ...]:
        """Return the base, made if need be, in a tuple; from here on this process has the threads of the cell."""
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        if not self.cell.kind.base:
            return ()
        return (base(self.config, self.seed, runs / self.config.study, self.cell.task),)

    def validate(self, runs: Path) -> None:
        """Raise ValueError if its device is not there; the rest of its configuration has been checked."""
        models.device(self.config.device)

    @property
    def group(self) -> Any:
        """What cells have in common whose networks a GPU fits side by side; None: this one is fitted alone."""
        beside = self.cell.kind.many and self.config.device != "cpu"
        return replace(self.cell, algorithm="", seed=0) if beside else None

    def run(self, runs: Path, *others: "Fit") -> None:
        """Fit the network, and those of `others` of its group; tables appear in their folder when all are whole."""
        fits = [fit for fit in (self, *others) if not (runs / fit.folder / "tables").exists()]
        start, run = time.process_time(), self.cell.kind.run
        if not fits:
            return
        bases = [fit.make_base(runs) for fit in fits]
        if self.cell.kind.many:
            made = run([fit.cell for fit in fits], self.config, [own for (own,) in bases])
        else:
            made = [run(self.cell, self.config, *bases[0])]
        how = made_on(self.config.device) | {"cpu_seconds": (time.process_time() - start) / len(fits)}
        for fit, tables in zip(fits, made):
            with appearing(runs / fit.folder / "tables") as unfinished:
                for name, table in tables.items():
                    path = unfinished / f"{name}.csv"
                    table.to_csv(path, index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
                (unfinished / "made.json").write_text(json.dumps(how))

    def rows(self, runs: Path) -> dict[str, Any]:
        """Return the rows of the finished fit by table."""
        folder = runs / self.folder / "tables"
        tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
        if self.seed != self.config.values("seeds", int)[0]:
            tables.pop("actions", None)
        made = json.loads((folder / "made.json").read_text())
        rows = summary(tables["prompts"]) if "prompts" in tables else tables["training"]
        rows = rows.groupby(["split", "iteration"]).tail(1).drop(columns="epoch", errors="ignore")
        rows = rows.assign(options=self.identity, **made, command=self.command(runs))
        return {"results": rows[[*CELL, *rows.columns.drop(list(CELL))]]} | tables

    def headline(self, rows: pd.DataFrame) -> str:
        """Median f of the last row of results."""
        return f"f {rows['share'].iloc[-1]:.4f}"

    def judged(self, rows: pd.DataFrame) -> dict[str, Any]:
        """Median f and log of median 1 − R², and the least sd of a seed's: that of f is a median's over the prompts."""
        sd = (rows["share_high"] - rows["share_low"]).mean() / (2 * 1.645)
        missed = np.log(1 - rows["r2_law"])
        return {"share": (rows["share"], 1.2533 * sd / np.sqrt(self.cell.size)), "log(1 - r2_law)": (missed, 0.0)}

    def seconds(self, table: pd.DataFrame) -> float:
        """Predict the seconds on one core: those of the same setting in `table`, on whatever was no GPU."""
        rows = of(table, self.columns)
        rows = rows if rows.empty else rows[rows["device"].str.match(CPU)]
        if not rows.empty:
            return rows["cpu_seconds"].mean()
        if self.cell.kind.many:
            return A_STEP * self.config.held_out_steps
        if self.config.model and self.config.device == "cpu":
            trained = self.config.blocks or BLOCKS
            return (A_PROMPT + A_BLOCK * trained) * self.cell.size * self.config.evaluations
        return SECONDS


@dataclass(frozen=True)
class Validation:
    r"""The study of all fits of a configuration: every experiment at the first seed, then at the second.

    Examples
    --------
    >>> config = ValidateConfig(experiments="population", rewards="graded", taus="1")
    >>> print(*Validation(config).cells(), sep="\n")
    validate: population-graded-1-pmd-mean-inf-12-0
    validate: population-graded-1-pmd-part-inf-12-0
    """

    config: ValidateConfig

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.config.study

    def cells(self) -> list[Fit]:
        """Return the cells in order."""
        return [
            Fit(Cell(experiment, *setting, seed), self.config)  # type: ignore[call-arg]
            for seed in self.config.values("seeds", int)
            for experiment in self.config.values("experiments")
            for setting in EXPERIMENTS[experiment].settings(self.config)
        ]

    def results(self, folder: Path) -> Table:
        """Return the table of results in a folder of tables."""
        return next(self.stages(folder)).tables["results"]

    def stages(self, folder: Path) -> Iterator[Stage]:
        """Yield the only stage."""
        path, tables = Path(folder), {}
        tables["results"] = Table(path / f"{self.name}.csv", CELL, ("split", "iteration"), (*CELL, "options"), DIGITS)
        for name, row in ROWS.items():
            tables[name] = Table(path / f"{self.name}_{name}.csv", CELL, row, (*CELL, *row), DIGITS)
        yield Stage(self.cells(), tables)

    def undecided(self, folder: Path) -> list[Any]:
        """No cell waits for others."""
        return []

    def checked_cells(self, folder: Path) -> list[Fit]:
        """Both losses on graded rewards at one temperature, at the first seed."""
        first = self.config.values("seeds", int)[0]
        return [cell for cell in self.cells() if CHECKED.items() <= cell.columns.items() and cell.seed == first]

    def rows(self, folder: Path) -> pd.DataFrame:
        """Return the rows of results that belong to this configuration."""
        return next(self.stages(folder)).matched()[1]


def declared(name: str) -> Validation:
    """Return the study of a name of `PRESETS`."""
    return Validation(from_preset(ValidateConfig, PRESETS[name], kind="validate"))


def summary(prompts: pd.DataFrame) -> pd.DataFrame:
    """Medians of the rows of ``validate_prompts.csv`` over the prompts of each cell, split and outer step.

    Besides ``share_low`` and ``share_high``, 5% and 95% quantiles of f; ``mean_`` divergences from the laws; and
    ``weight_error``, the median of |KL(p‖q)/λ − 1|, λ > 0 the law's χ² weight.
    """
    weight = prompts["weight"].where(prompts["weight"] > 0)
    prompts = prompts.assign(weight_error=(prompts["reverse_kl"] / weight - 1).abs())
    groups = prompts.drop(columns="number").groupby([*CELL, "split", "iteration"])
    extreme = {"share_low": groups["share"].quantile(0.05), "share_high": groups["share"].quantile(0.95)}
    means = {f"mean_{name}": groups[name].mean() for name in ("from_law", "from_lambert", "from_kl_law")}
    return groups.median().assign(prompts=groups.size(), **extreme, **means).reset_index()


def departures(table: pd.DataFrame, within: float = WITHIN["validate"]) -> list[str]:
    """What is not as the theory says, a line each, of rows of ``validate.csv`` and tables like it.

    For every cell of the population experiment, PMD-mean has a median f `within` so much of 1, the log-partition of 0,
    both a median R² above 0.99 against their own law, and for τ ≤ 0.3 a median divergence from the other law at least
    10 times as large. Of the family's cells, that from PMD-mean's law is at least `TOLD_APART` times that from the law
    of the loss. On prompts held out from the most training prompts f is `within` as much, R² at least 0.98.
    """
    departing = []
    for _, row in of(table, {"experiment": "population"}).iterrows():
        own, other, expected = ("lambert", "kl_law", 1) if row["algorithm"] == "pmd-mean" else ("kl_law", "lambert", 0)
        ratio = row[f"from_{other}"] / row[f"from_{own}"]
        claims = {
            f"f {row['share']:.4f}": abs(row["share"] - expected) < within,
            f"R² {row[f'r2_{own}']:.4f}": row[f"r2_{own}"] > 0.99,
            f"divergence ratio {ratio:.1f}": ratio >= 10 or row["tau"] > 0.3,
        }
        where = ", ".join(f"{name} {row[name]}" for name in ("reward", "tau", "algorithm", "seed"))
        departing += [f"{where}: {claim}" for claim, holds in claims.items() if not holds]
    for _, row in of(table, {"experiment": "family"}).iterrows():
        ratio = row["from_lambert"] / row["from_law"]
        if not ratio >= TOLD_APART:
            departing.append(f"family, loss {row['algorithm']}, seed {row['seed']}: divergence ratio {ratio:.1f}")
    held_out = of(table, {"experiment": "held-out"})
    most = {} if held_out.empty else {"split": "held-out", "size": held_out["size"].max()}
    for _, row in of(held_out, most).iterrows() if most else ():
        off = abs(row["share"] - (row["algorithm"] == "pmd-mean"))
        if not (off < within and row["r2_law"] >= 0.98):
            numbers = f"f {row['share']:.4f}, R² {row['r2_law']:.4f}"
            departing.append(f"held out, loss {row['algorithm']}, seed {row['seed']}: {numbers}")
    return departing


def report(table: pd.DataFrame) -> str:
    """Return f and R² of each row of results as a table on paper, and f over the seeds of a setting."""
    setting = [*(name for name in CELL if name != "seed"), "split", "iteration"]
    columns = [*CELL, "split", "iteration", "share", "share_low", "share_high", "r2_lambert", "r2_kl_law"]
    text = table.reindex(columns=columns).to_string(index=False, float_format="%.3f", na_rep="")
    lines = [text, "share: f, 1 on the Lambert-W law of PMD-mean, 0 on the KL law; medians over the prompts"]
    lines += ["share_low, share_high: 5% and 95% of the prompts; of ordinary training, the 95% interval of f"]
    for _, rows in table.groupby(setting):
        if len(rows) > 1:
            where = " ".join(str(value) for value in rows[setting].iloc[0])
            lines += [f"{where}: f {mean_interval(rows['share']):.3f}, mean of {len(rows)} seeds and 95% interval"]
    return "\n".join(lines)
