"""What every figure goes through: recompute its table, compare it with the committed one, redraw its picture.

A figure is a module of this folder with

``FULL``, ``FAST``
    Keyword arguments of ``compute``. FAST is a subset: each of its rows must be a row of the full table.
``KEYS``
    Columns that identify a row.
``compute(**settings) -> pandas.DataFrame``
    The tidy table, everything that is drawn and nothing else.
``plot(table) -> matplotlib.figure.Figure``
    Draws from the table as read back from the CSV file.
``finding(table) -> str``
    What the picture shows, in one line, computed from the table.
``TOLERANCE`` (optional)
    Column → relative tolerance where 1e-10 is more than an iterative solver promises.

Tables go to ``figures/data``, pictures to ``figures/output``; a run writes to ``build/figures`` and touches the
committed files only when asked to.
"""

import importlib
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pmdtheory import plotting

HERE = Path(__file__).parent
DATA, OUTPUT, BUILD = HERE / "data", HERE / "output", HERE.parent / "build" / "figures"

NAMES = (
    "population",
    "adaptive_weight",
    "conservatism",
    "baseline_knob",
    "zero_temperature",
    "bandit_convergence",
    "log_partition_laboratory",
    "loglinear_training",
    "finite_sample_improvement",
    "finite_sample_iterated",
    "three_cases",
    "mdp_convergence",
    "mdp_lambda_map",
    "inexact_evaluation",
)

RELATIVE = 1e-10


class Outcome(NamedTuple):
    """What one figure's run found."""

    name: str
    finding: str
    differences: list
    seconds: float


def module(name):
    """Return the figure module called `name`; ``ValueError`` lists the names otherwise."""
    if name not in NAMES:
        raise ValueError(f"no figure is called {name!r}; there are {', '.join(NAMES)}.")
    return importlib.import_module(f"figures.{name}")


def run(name, fast=False, update=False, build=BUILD):
    """Recompute, compare, redraw; replace the committed table and picture if `update`."""
    began = time.perf_counter()
    figure = module(name)
    build.mkdir(parents=True, exist_ok=True)
    table_path = build / f"{name}.csv"
    write_table(figure.compute(**(figure.FAST if fast else figure.FULL)), table_path)
    table = pd.read_csv(table_path)
    with plotting.style():
        plotting.save(figure.plot(table), build / name)
    committed = DATA / f"{name}.csv"
    if update:
        for source, folder in ((table_path, DATA), (build / f"{name}.png", OUTPUT), (build / f"{name}.svg", OUTPUT)):
            replace(source, folder / source.name)
    tolerance = getattr(figure, "TOLERANCE", {})
    differences = compare(table_path, committed, figure.KEYS, tolerance, subset=fast)
    return Outcome(name, figure.finding(table), differences, time.perf_counter() - began)


def write_gallery(outcomes):
    """Write ``figures/README.md``: every picture with its caption, exact setting and finding."""
    parts = [
        "# Figures",
        "Written by `make reproduce UPDATE=1`; nothing here is typed by hand. `make reproduce` recomputes every table "
        "in [`data`](data), compares it with the committed one and redraws the picture.",
    ]
    for outcome in outcomes:
        figure = module(outcome.name)
        title, _, caption = figure.__doc__.strip().partition("\n\n")
        settings = ", ".join(f"`{name} = {_short(value)}`" for name, value in figure.FULL.items())
        parts += [
            f"## {outcome.name.replace('_', ' ')}",
            f"**{' '.join(title.split())}**",
            f"![{outcome.name}](output/{outcome.name}.png)",
            " ".join(caption.split()),
            f"*Finding:* {outcome.finding}",
            f"*Setting:* {settings}. *Command:* `python -m figures {outcome.name}`. *Table:* "
            f"[`data/{outcome.name}.csv`](data/{outcome.name}.csv).",
        ]
    temporary = HERE / ".README.md"
    temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    temporary.replace(HERE / "README.md")


def _short(value):
    if isinstance(value, tuple) and len(value) > 8:
        return f"{value[0]} … {value[-1]} ({len(value)} values)"
    return f"{value}"


def write_table(table, path):
    """Write `table` as CSV, twelve significant digits, atomically."""
    temporary = path.with_name(f".{path.name}")
    table.to_csv(temporary, index=False, float_format="%.12g", lineterminator="\n")
    temporary.replace(path)


def replace(source, target):
    """Copy `source` over `target` atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def compare(new, committed, keys, tolerance, subset):
    """List, in words, where table `new` departs from table `committed`.

    Numbers agree when they differ by at most 1e-10 (or the column's tolerance) of their size, or by 1e-12 of
    the column's largest entry: a difference of nearly equal numbers is known no better.

    Parameters
    ----------
    new, committed : Path
        CSV files.
    keys : sequence of str
        Columns that identify a row, compared as written.
    tolerance : dict
        Column → relative tolerance.
    subset : bool
        Whether `new` may lack rows of `committed`.

    Returns
    -------
    list of str
        Empty if the tables agree.
    """
    if not committed.exists():
        return [f"{committed.name} is not committed yet (make reproduce UPDATE=1 writes it)"]
    a, b = (pd.read_csv(path, dtype=dict.fromkeys(keys, str)).set_index(list(keys)) for path in (new, committed))
    if list(a.columns) != list(b.columns):
        return [f"columns {list(a.columns)} instead of {list(b.columns)}"]
    for table, which in ((a, "recomputed"), (b, "committed")):
        if not table.index.is_unique:
            return [f"the {which} table repeats row {table.index[table.index.duplicated()][0]}"]
    differences = [f"row {_name(keys, key)} is new" for key in a.index.difference(b.index)]
    if not subset:
        differences += [f"row {_name(keys, key)} is missing" for key in b.index.difference(a.index)]
    shared = a.index.intersection(b.index)
    for column in a.columns:
        x, y = a.loc[shared, column], b.loc[shared, column]
        if pd.api.types.is_numeric_dtype(x) and pd.api.types.is_numeric_dtype(y):
            x, y = x.to_numpy(float), y.to_numpy(float)
            largest = np.max(np.abs(y), where=np.isfinite(y), initial=0.0)
            close = np.isclose(x, y, rtol=tolerance.get(column, RELATIVE), atol=1e-12 * largest, equal_nan=True)
        else:
            x, y = x.astype(str).to_numpy(), y.astype(str).to_numpy()
            close = x == y
        differences += [
            f"row {_name(keys, shared[i])}: {column} is {x[i]}, committed {y[i]}" for i in np.flatnonzero(~close)
        ]
    return differences


def _name(keys, key):
    return ", ".join(f"{k}={v}" for k, v in zip(keys, key if isinstance(key, tuple) else (key,)))
