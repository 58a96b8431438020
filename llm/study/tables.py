"""The tables of a study: CSV files that grow row by row, whoever else writes to them, and the rows of a training run.

A table is read, merged and replaced under a lock of its folder, and renamed into place: two processes that fill the
same tables lose nothing, and a process that is killed leaves the table as it was or as it should be.
"""

import contextlib
import fcntl
import io
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..run.folder import write_atomically

__all__ = ["Stage", "Table", "accuracy", "appearing", "claim", "curves", "made_on", "of", "results", "spent"]
__all__ += ["writable"]


@dataclass(frozen=True)
class Table:
    """A CSV file that the rows of cells are merged into, with so many significant `digits`; it need not exist.

    It is sorted by `cell` and `row`, the columns that tell cells, and rows of a cell, apart, and has those `needed`.
    """

    path: Path
    cell: tuple
    row: tuple = ()
    needed: tuple = ("seed",)
    digits: int = 12

    def read(self) -> pd.DataFrame:
        """Return the rows, none if there is no file; a ValueError names file and column of what is no such table."""
        if not self.path.exists():
            return pd.DataFrame()
        remedy = "Move the file away, or name another folder of tables."
        try:
            table = pd.read_csv(self.path)
        except ValueError as error:
            raise ValueError(f"table {self.path} cannot be read: {error} {remedy}") from None
        for name in self.needed:
            if name not in table:
                raise ValueError(f"table {self.path} must have the column {name!r} and has not. {remedy}")
            lines = np.flatnonzero(table[name].isna()) + 2
            if len(lines):
                raise ValueError(f"table {self.path} has no {name!r} in line {lines[0]}: it is damaged. {remedy}")
        if len(table) and not pd.api.types.is_integer_dtype(table["seed"]):
            raise ValueError(f"table {self.path} must have integers in the column 'seed' and has others. {remedy}")
        return table

    def names(self, table: pd.DataFrame, columns: Sequence[str] | None = None) -> list[tuple[str, ...]]:
        """The columns of each row as text, at the precision of the file; by default those of the cell."""
        rows = table.reindex(columns=list(columns or self.cell)).astype(object)
        return [tuple(map(self._text, row)) for row in rows.itertuples(index=False, name=None)]

    def merge(self, rows: pd.DataFrame) -> None:
        """Put `rows` into the file, in place of all rows of the same cells."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.parent):
            table, anew = self.read(), set(self.names(rows))
            if len(table):
                table = table[[name not in anew for name in self.names(table)]]
            table = pd.concat([some for some in (table, rows) if len(some)], ignore_index=True)
            keys = [*self.cell, *self.row]
            table = table.reindex(columns=[*table, *(key for key in keys if key not in table)])
            table = table.drop_duplicates(keys, keep="last").sort_values(keys, kind="stable")
            text = io.StringIO()
            table.to_csv(text, index=False, float_format=f"%.{self.digits}g", lineterminator="\n")
            write_atomically(self.path, text.getvalue())

    def rounded(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return `rows` as they would be read from the file."""
        return rows.map(lambda value: float(self._text(value)) if isinstance(value, float) else value)

    def _text(self, value):
        return f"{value:.{self.digits}g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Stage:
    """Cells in order that can be run side by side, and the tables of their rows, by the names of a cell's ``rows``."""

    cells: list
    tables: dict

    def matched(self) -> tuple[list[Any], pd.DataFrame]:
        """Return the cells without a row of results of their columns, seed and options, and the rows of the others."""
        table, rows = self.tables["results"], self.tables["results"].read()
        columns = [*self.cells[0].columns, "seed", "options"] if self.cells else []
        wanted = pd.DataFrame([cell.columns | {"seed": cell.seed, "options": cell.identity} for cell in self.cells])
        cells, finished = table.names(wanted, columns), table.names(rows, columns)
        lacking, wanted = set(cells) - set(finished), set(cells)
        rows = rows[[name in wanted for name in finished]].reset_index(drop=True)
        return [cell for cell, name in zip(self.cells, cells) if name in lacking], rows

    def unfinished(self) -> list[Any]:
        """Return the cells that the table of results lacks."""
        return self.matched()[0]

    def merge(self, cell: Any, runs: Path) -> pd.DataFrame:
        """Merge the rows of a cell that was run, the results last; return them."""
        rows = cell.rows(runs)
        for name, table in reversed(self.tables.items()):
            if name in rows:
                table.merge(rows[name])
        return rows["results"]


@contextlib.contextmanager
def _locked(path, refusal=None):
    """Hold the lock of a file or folder, waiting for it unless there is a refusal; it ends with the process at last."""
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError:
            raise ValueError(refusal) from None
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def claim(runs: Path, name: str) -> Iterator[Any]:
    """Be the only process that runs the cells of a study in a folder of runs."""
    path = Path(runs) / f".{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with _locked(path, f"another process runs {name} in {runs}: wait for it, or name another folder of runs."):
        yield


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Any]:
    """A folder to fill, which has its name from the moment it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def writable(folder: Path) -> None:
    """Make a folder and try to write to it; raises ValueError."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b" ")
    except OSError as error:
        raise ValueError(f"{folder} must be a folder that can be written to, but: {error.strerror}.") from None


def accuracy(table: Any, split: str) -> str:
    """Name of the column of `table` with the accuracy avg@k on a split ('validation', 'before' or 'test')."""
    return next(name for name in table if name.startswith(f"{split}/avg@") and not name.endswith("_ci"))


def of(table: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    """Rows of `table` with these values in these columns; none if the table is empty."""
    if table.empty:
        return table
    return table[np.logical_and.reduce([table[name] == value for name, value in values.items()])]


DIVERGED = "diverged.txt"


def results(cell: Any, runs: Path) -> pd.DataFrame:
    """Return the row of a finished training run: its setting, ``result.json``, last validation, and how it was made.

    Of one that diverged, which the file DIVERGED says, the accuracies are 0.
    """
    folder = runs / cell.folder
    last = _lines(folder)[-1]
    if (folder / DIVERGED).exists():
        result = {name: value for name, value in last.items() if not name.startswith("validation/")}
        names = f"avg@{cell.resolved['eval_samples']}", "greedy"
        last = {f"{split}/{name}": 0.0 for split in ("validation", "test") for name in names}
    else:
        result = json.loads((folder / "result.json").read_text())
        last = {name: value for name, value in last.items() if name.startswith("validation/")}
    row = {"study": cell.study} | cell.columns | cell.trial | {"trials": cell.trials, "seed": cell.seed} | last
    row |= result | {"options": cell.identity}
    return pd.DataFrame([row | made_on(cell.config(runs).device) | {"command": cell.command(runs)}])


def made_on(device: str) -> dict[str, str]:
    """Return versions and the name of a device, as the tables hold them."""
    import torch
    import transformers

    from .. import models

    where = models.device(device)
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else cpu
    return {"torch": torch.__version__, "transformers": transformers.__version__, "device": name}


CURVES = (
    *("iteration", "updates", "rollouts", "tokens", "reward", "length", "truncated", "entropy", "grad_norm"),
    *("log_ratio/mean", "log_ratio/std", "log_ratio/max", "kl/k1", "kl/k3", "lambda/mean", "tau"),
)


def curves(cell: Any, runs: Path) -> pd.DataFrame:
    """Return a row for each iteration of a finished run; its seconds are those of training up to there."""
    folder = runs / cell.folder
    timings = pd.DataFrame([{"seconds": 0.0, "cpu_seconds": 0.0}, *_lines(folder, "timings")])
    rows = []
    for line, spent in zip(_lines(folder), timings[["seconds", "cpu_seconds"]].cumsum().to_dict("records")):
        row = cell.columns | {"seed": cell.seed} | {name: line.get(name) for name in CURVES if name not in cell.columns}
        validation = [name for name in line if name.startswith("validation/") and not name.endswith("_ci")]
        rows.append(row | spent | {name: line[name] for name in validation})
    return pd.DataFrame(rows)


def spent(folder: Path) -> float:
    """Return the seconds of training of a run."""
    return sum(line["seconds"] for line in _lines(folder, "timings"))


def _lines(folder, name="metrics"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
