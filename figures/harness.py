"""What every figure goes through: recompute its table, compare it with the committed one, redraw its picture.

A figure is a module of this folder whose docstring is its title and caption, with

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

A figure of a training study is redrawn only: its committed tables are inputs that ``make study`` writes. It has

``STUDY``, ``TABLES``
    The name of the study, and those of its tables: files of ``figures/data`` without ``.csv``.
``plot(*tables)``, ``finding(*tables)``
    As above, from all of them; rows may be missing.

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
    "better_knob",
    "finite_sample_improvement",
    "finite_sample_iterated",
    "three_cases",
    "mdp_convergence",
    "mdp_lambda_map",
    "inexact_evaluation",
    "training_seeds",
    "training_temperature",
    "training_methods",
    "training_staleness",
    "training_knob",
    "network_against_theory",
    "network_laws",
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
    paths = inputs(figure)
    if not paths:
        paths = [build / f"{name}.csv"]
        write_table(figure.compute(**(figure.FAST if fast else figure.FULL)), paths[0])
    tables = [pd.read_csv(path) for path in paths]
    with plotting.style():
        plotting.save(figure.plot(*tables), build / name)
    if update:
        for picture in (build / f"{name}.png", build / f"{name}.svg"):
            replace(picture, OUTPUT / picture.name)
    differences = [] if inputs(figure) else _settled(figure, paths[0], fast, update)
    return Outcome(name, figure.finding(*tables), differences, time.perf_counter() - began)


def inputs(figure):
    """Paths of the committed tables that a study's figure draws; none for a figure that computes its own."""
    return [DATA / f"{table}.csv" for table in getattr(figure, "TABLES", ())]


def _settled(figure, path, fast, update):
    """Replace the committed table if `update`; list where the one at `path` departs from it."""
    if update:
        replace(path, DATA / path.name)
    return compare(path, DATA / path.name, figure.KEYS, getattr(figure, "TOLERANCE", {}), subset=fast)


def write_gallery(outcomes):
    """Write ``figures/README.md``: every picture with its caption, exact setting and finding."""
    parts = [
        "# Figures",
        "Written by `make reproduce UPDATE=1`; nothing here is typed by hand. `make reproduce` recomputes every table "
        "in [`data`](data), compares it with the committed one and redraws the picture. Tables of training runs are "
        "inputs: `make study` writes them, and only the picture is redrawn.",
    ]
    for outcome in outcomes:
        figure = module(outcome.name)
        title, _, caption = figure.__doc__.strip().partition("\n\n")
        parts += [
            f"## {outcome.name.replace('_', ' ')}",
            f"**{' '.join(title.split())}**",
            f"![{outcome.name}](output/{outcome.name}.png)",
            " ".join(caption.split()),
            f"*Finding:* {outcome.finding}",
            _origin(outcome.name, figure),
        ]
    temporary = HERE / ".README.md"
    temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    temporary.replace(HERE / "README.md")


def _origin(name, figure):
    """Setting, command and tables of a figure, as the gallery says them."""
    if inputs(figure):
        command = f"*Trained by:* `make study NAMES={figure.STUDY}`. *Drawn by:* `python -m figures {name}`. *Tables:* "
        return command + ", ".join(f"[`data/{path.name}`](data/{path.name})" for path in inputs(figure)) + "."
    settings = ", ".join(f"`{key} = {_short(value)}`" for key, value in figure.FULL.items())
    return (
        f"*Setting:* {settings}. *Command:* `python -m figures {name}`. *Table:* [`data/{name}.csv`](data/{name}.csv)."
    )


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
