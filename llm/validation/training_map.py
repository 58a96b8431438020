r"""When is a practitioner's PMD-mean the paper's? One outer step of ordinary training, over every knob that it has.

The shipped model p draws n rollouts for each of 32 prompts of its own task and is updated on them U times, 4 prompts
an update, eight updates a pass, at one learning rate: what a trainer does between two refreshes of its rollouts. The
policy q is measured after 8, 32, 128 and 512 updates, on 128 fresh rollouts of p for each of the batch's prompts and of
as many prompts of the test set, the same at every U, by what `pmdtheory.laws` estimates from rollouts::

    share                  f, 1 on the Lambert-W law and 0 on the KL law; its 95% bootstrap interval over the prompts
    r2_lambert, r2_kl_law  share of the variance of s = log(q/p) that a law explains, the law of the rewards drawn
    r2_reward              what any law could at most: that of the mean of s over the rollouts of equal reward

Rollouts n and updates U are crossed; at 64 rollouts the rate and then τ are varied. Cells go to ``training_map.csv``,
a row per split and number of updates.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from pmdtheory.laws import pooled_r2, pooled_share

from ..config import Config, from_preset
from ..logp import token_logp
from ..rollout import sample
from ..run.folder import RunFolder
from ..study.tables import Stage, Table, appearing, made_on, of
from ..train import Run

__all__ = ["CORNER", "MAP", "Judged", "Knobs", "Step", "TrainingMap"]

UPDATES, EACH = (8, 32, 128, 512), 4
ROLLOUTS, RATES, TAUS = (4, 16, 64, 256), (1.5e-4, 6e-4, 2.4e-3), (0.03, 0.1, 0.3, 1.0)
SECONDS = {4: 15.0, 16: 20.0, 64: 50.0, 256: 200.0}
DIGITS = 8


@dataclass(frozen=True)
class Knobs:
    """What a trainer sets: algorithm, τ in reward units, rollouts n per prompt, and learning rate."""

    algorithm: str = "pmd-mean-loo"
    tau: float = 0.1
    n: int = 64
    learning_rate: float = 6e-4


CORNER = Knobs()
"""Where rate and τ are varied; the map is at their values."""


class Judged:
    """Fresh rollouts of a policy p on some problems, on which any q is judged."""

    def __init__(self, run: Run, problems: list, count: int, generator: torch.Generator):
        prompts = [problem.prompt for problem in problems]
        self.count = count
        self.rollouts = sample(run.model, run.tokenizer, prompts, count, run.max_new_tokens, generator)
        answers = [problem.answer for problem in problems for _ in range(count)]
        judged = run.task.judge(self.rollouts.texts(run.tokenizer), answers)
        self.rewards = judged.correct.reshape(-1, count).astype(float)

    @torch.no_grad()
    def __call__(self, model: Any, tau: float, rng: np.random.Generator) -> dict[str, Any]:
        """Columns of the table, of a model q."""
        s = (token_logp(model, self.rollouts)[0] - self.rollouts.logp).sum(1)
        s = s.double().cpu().numpy().reshape(-1, self.count)
        found, explained = pooled_share(s, self.rewards, tau, rng), pooled_r2(s, self.rewards, tau)
        shares = {"share": found.value, "share_low": found.low, "share_high": found.high}
        shares |= {"weight": found.weight, "reverse_kl": found.reverse_kl}
        return shares | {f"r2_{name}": value for name, value in explained.items()}


@dataclass(frozen=True)
class Step:
    """One outer step from a seed: a cell as in `pmdllm.study`."""

    study: "TrainingMap"
    knobs: Knobs
    seed: int

    def __str__(self):
        return f"{self.study.name}: {'-'.join(map(str, asdict(self.knobs).values()))}-{self.seed}"

    @property
    def columns(self) -> dict[str, Any]:
        """Columns that identify the setting."""
        return asdict(self.knobs)

    @property
    def identity(self) -> str:
        """The options that decide the outcome besides."""
        names = ("prompts", "judged_by", "updates")
        return " ".join(f"{name}={getattr(self.study, name)}" for name in names).replace(", ", ",")

    @property
    def folder(self) -> Path:
        """Folder of the cell, inside the folder of all runs."""
        sizes = f"{self.study.prompts}-{self.study.judged_by}-{max(self.study.updates)}"
        return Path(self.study.name) / f"{str(self).partition(': ')[2]}-{sizes}"

    def command(self, runs: Path) -> str:
        """Return the command that makes the whole table."""
        return f"pmd-llm study {self.study.name}"

    def base(self, runs: Path) -> None:
        """The shipped model need not be made."""

    def validate(self, runs: Path) -> None:
        """Raise ValueError if the cell cannot be run."""

    def run(self, runs: Path) -> None:
        """Train and measure; the table appears in its folder when it is whole."""
        folder, start = runs / self.folder / "tables", time.process_time()
        if folder.exists():
            return
        table = self._measured()
        made = made_on("cpu") | {"cpu_seconds": time.process_time() - start}
        with appearing(folder) as unfinished:
            table.to_csv(unfinished / "results.csv", index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
            (unfinished / "made.json").write_text(json.dumps(made))

    def _measured(self):
        study, knobs, rows = self.study, self.knobs, []
        torch.set_num_threads(1)
        rng, generator = np.random.default_rng((self.seed, 3)), torch.Generator().manual_seed(self.seed)
        cut = study.prompts // EACH
        with TemporaryDirectory() as path:
            options = from_preset(
                Config, "tiny-cpu", output=path, seed=self.seed, threads=1, device="cpu", algorithm=knobs.algorithm,
                tau=knobs.tau, rollouts_per_prompt=knobs.n, prompts_per_batch=study.prompts, updates_per_batch=cut,
                epochs=-(-max(study.updates) // cut), iterations=1, learning_rate=knobs.learning_rate,
                lr_schedule="constant", eval_every=0, eval_prompts=1, test_prompts=1,
            )  # fmt: skip
            with RunFolder(options) as folder:
                run = Run(options, folder)
                batch, unseen = run.next_batch(), run.task.held_out("test", study.prompts)
                splits = {"train": batch.problems, "held-out": unseen}
                judged = {name: Judged(run, some, study.judged_by, generator) for name, some in splits.items()}
                for minibatch in batch.minibatches(run.rng):
                    run.update(minibatch)
                    for split, judge in judged.items() if run.updates in study.updates else ():
                        place = {"seed": self.seed, "split": split, "updates": run.updates}
                        rows.append(asdict(knobs) | place | judge(run.model, knobs.tau, rng))
        return pd.DataFrame(rows)

    def rows(self, runs: Path) -> dict[str, Any]:
        """Return the rows of the finished cell by table."""
        folder = runs / self.folder / "tables"
        made = json.loads((folder / "made.json").read_text())
        table = pd.read_csv(folder / "results.csv")
        return {"results": table.assign(options=self.identity, **made, command=self.command(runs))}

    def headline(self, rows: pd.DataFrame) -> str:
        """Outcome f and R² on the batch's prompts, after all updates."""
        last = rows[rows["split"] == "train"].iloc[-1]
        return f"f {last['share']:.2f}, R² {last['r2_lambert']:.2f}"

    def judged(self, rows: pd.DataFrame) -> dict[str, Any]:
        """What `check` compares: f after all updates on the batch's prompts; half its bootstrap interval is its sd."""
        last = rows[(rows["split"] == "train") & (rows["updates"] == max(self.study.updates))]
        return {"share": (last["share"], (last["share_high"] - last["share_low"]).mean() / (2 * 1.96))}

    def seconds(self, table: pd.DataFrame) -> float:
        """Predict the seconds on one core: those of the same number of rollouts in `table`."""
        rows = of(table, {"n": self.knobs.n})
        return SECONDS.get(self.knobs.n, 60.0) if rows.empty else rows["cpu_seconds"].mean()


@dataclass(frozen=True)
class TrainingMap:
    """The study: rollouts at one rate and temperature, then temperatures and rates at one number of rollouts."""

    name: str = "training_map"
    seeds: tuple = (0, 1, 2)
    rollouts: tuple = ROLLOUTS
    rates: tuple = RATES
    taus: tuple = TAUS
    prompts: int = 32
    judged_by: int = 128
    updates: tuple = UPDATES

    def cells(self) -> list[Step]:
        """Return the cells in order: all settings at the first seed, then at the second."""
        settings = [replace(CORNER, n=n) for n in self.rollouts]
        settings += [replace(CORNER, tau=tau) for tau in self.taus]
        settings += [replace(CORNER, learning_rate=rate) for rate in self.rates]
        return [Step(self, knobs, seed) for seed in self.seeds for knobs in dict.fromkeys(settings)]

    def results(self, folder: Path) -> Table:
        """Return the table of results in a folder of tables."""
        cell = (*(declared.name for declared in fields(Knobs)), "seed")
        return Table(Path(folder) / f"{self.name}.csv", cell, ("split", "updates"), (*cell, "options"), DIGITS)

    def stages(self, folder: Path) -> Iterator[Stage]:
        """Yield the only stage."""
        yield Stage(self.cells(), {"results": self.results(folder)})

    def undecided(self, folder: Path) -> list[Any]:
        """No cell waits for others."""
        return []

    def checked_cells(self, folder: Path) -> list[Step]:
        """The fewest rollouts at the first seed."""
        return [self.cells()[0]]


MAP = TrainingMap()
