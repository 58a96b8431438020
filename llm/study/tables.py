"""The tables of a study: tidy rows from finished runs, merged into CSV files that only ever gain by it."""

import json
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["Tables", "accuracy", "curves", "made_on", "merge", "of", "read", "results", "unfinished"]


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


def merge(path, rows, keys, digits=12, replaced=None):
    """Put `rows` into the table at `path`, atomically, for those that share `replaced`, by default the `keys`."""
    path, table = Path(path), read(path)
    if replaced and len(table):
        old, new = (pd.MultiIndex.from_frame(rows_[replaced]) for rows_ in (table, rows))
        table = table[~old.isin(new)]
    table = pd.concat([some for some in (table, rows) if len(some)], ignore_index=True)
    table = table.reindex(columns=[*table, *(key for key in keys if key not in table)])
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
    rows = [
        {"study": cell.study} | cell.columns | cell.trial | {"trials": cell.trials, "seed": cell.seed}
        | {name: value for name, value in _lines(runs / cell.folder)[-1].items() if name.startswith("validation/")}
        | json.loads((runs / cell.folder / "result.json").read_text()) | {"options": cell.identity}
        | made_on(cell.config(runs).device) | {"command": cell.command(runs)}
        for cell in cells
        if (runs / cell.folder / "result.json").exists()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def made_on(device):
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
    *("ratio/mean", "ratio/std", "ratio/max", "kl/k1", "kl/k3", "lambda/mean", "tau"),
)


def curves(cells, runs):
    """Return a row for each iteration of each finished cell: spending, reward, length, entropy, ratios, validation.

    ``seconds`` and ``cpu_seconds`` are those of training up to there, evaluations apart.

    Parameters
    ----------
    cells, runs
        As in `results`.
    """
    rows = [
        cell.columns | {"seed": cell.seed}
        | {name: line.get(name) for name in CURVES if name not in cell.columns} | spent
        | {name: value for name, value in line.items() if name.startswith("validation/") and not name.endswith("_ci")}
        for cell in cells
        if (runs / cell.folder / "result.json").exists()
        for line, spent in zip(_lines(runs / cell.folder), _spent(runs / cell.folder))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _spent(folder):
    """Seconds of training up to the start and to the end of each iteration."""
    timings = [{"seconds": 0.0, "cpu_seconds": 0.0}, *_lines(folder, "timings")]
    return pd.DataFrame(timings)[["seconds", "cpu_seconds"]].cumsum().to_dict("records")


def _lines(folder, name="metrics"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
