"""What every figure goes through: recompute its table, compare it with the committed one, redraw its picture.

A figure is a module of this folder whose docstring is its title, the one message of the picture in a sentence, and its
caption, with

``FULL``, ``FAST``
    Keyword arguments of ``compute``. FAST is a subset: each of its rows must be a row of the full table.
``SAMPLE`` (optional)
    Another subset, where the full table takes minutes: what is recomputed unless the table is to be replaced.
``KEYS``
    Columns that identify a row.
``compute(**settings) -> pandas.DataFrame``
    The tidy table.
``plot(table) -> matplotlib.figure.Figure``
    Draws from the table as read back from the CSV file, at most six panels with a title in words each. Panels to which
    nothing is drawn are removed.
``finding(table) -> str``
    What the picture shows, in at most 90 words, computed from the table: of a reduced table, only what it holds. The
    gallery shows the first sentence and folds the others.
``title(table) -> str`` (optional)
    The message where it is a number or a verdict: computed from the table, it takes the place of the docstring's.
``TOLERANCE`` (optional)
    Column → relative tolerance where 1e-10 is more than an iterative solver promises.

A figure of a training study is redrawn only: its committed tables are inputs that ``make study`` writes. It has

``STUDY``, ``TABLES``
    The name of the study; its tables, files of ``figures/data`` without ``.csv``, each with the `Columns` it needs.
``plot(*tables)``, ``finding(*tables)``, ``title(*tables)``
    As above, from all of them; rows may be missing.

Tables go to ``figures/data``, pictures to ``figures/output``; a run writes to ``build/figures`` and touches the
committed files only when asked to, and then all files of a figure at once (`publish`).
"""

import contextlib
import importlib
import os
import shutil
import tempfile
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
    "family",
    "averaging",
    "filtering",
    "kimi_k25",
    "robustness",
    "baseline_knob",
    "zero_temperature",
    "bandit_convergence",
    "log_partition_laboratory",
    "loglinear_training",
    "better_knob",
    "where_it_pays",
    "finite_sample_improvement",
    "finite_sample_iterated",
    "three_cases",
    "mdp_convergence",
    "mdp_lambda_map",
    "recovery",
    "inexact_evaluation",
    "training_seeds",
    "training_temperature",
    "training_methods",
    "training_staleness",
    "training_knob",
    "training_pretrained",
    "training_sums",
    "training_word_problems",
    "network_laws",
    "network_family",
    "network_against_theory",
    "network_rollouts",
    "network_held_out",
    "network_limits",
    "network_training",
)

RELATIVE = 1e-10


class Outcome(NamedTuple):
    """What one figure's run found."""

    name: str
    finding: str
    differences: list
    seconds: float


class Columns(NamedTuple):
    """Names of the columns that a figure reads of a study's table, divided by blanks."""

    words: str
    numbers: str


def module(name):
    """Return the figure module called `name`; ``ValueError`` lists the names otherwise."""
    if name not in NAMES:
        raise ValueError(f"no figure is called {name!r}; there are {', '.join(NAMES)}.")
    return importlib.import_module(f"figures.{name}")


def run(name, fast=False, update=False, build=BUILD):
    """Recompute, compare, redraw; replace the committed table and pictures if `update`."""
    began = time.perf_counter()
    figure = module(name)
    build.mkdir(parents=True, exist_ok=True)
    new = {}
    if inputs(figure):
        tables = committed(figure)
    else:
        path = build / f"{name}.csv"
        settings = figure.FAST if fast else figure.FULL if update else getattr(figure, "SAMPLE", figure.FULL)
        part = settings is not figure.FULL
        write_table(figure.compute(**settings), path)
        tables, new = [pd.read_csv(path)], {DATA / path.name: path}
    with plotting.style():
        plotting.save(draw(figure, tables), build / name)
    differences = [
        difference
        for target, path in new.items()
        for difference in compare(path, target, figure.KEYS, getattr(figure, "TOLERANCE", {}), part)
    ]
    if update:  # a table that agrees stays as it is, to the byte
        pictures = {OUTPUT / f"{name}{end}": build / f"{name}{end}" for end in (".png", ".svg")}
        publish(name, (new if differences else {}) | pictures)
        differences = []
    return Outcome(name, figure.finding(*tables), differences, time.perf_counter() - began)


def attempt(name, fast=False, update=False):
    """`run`, where an error that one line tells, a ``ValueError`` or ``OSError``, is returned as that line."""
    try:
        return run(name, fast, update)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())


def draw(figure, tables):
    """The picture of a figure, with its message above it."""
    picture = figure.plot(*tables)
    plotting.drop_empty(picture)
    plotting.headline(picture, title(figure, tables))
    return picture


def title(figure, tables):
    """The message of a figure: computed from its tables, or the first lines of its docstring."""
    if hasattr(figure, "title"):
        return figure.title(*tables)
    return " ".join(figure.__doc__.strip().partition("\n\n")[0].split()).removesuffix(".")


def caption(figure):
    """What a figure's picture shows and how it was made, in words."""
    return " ".join(figure.__doc__.strip().partition("\n\n")[2].split())


def inputs(figure):
    """Paths of the committed tables that a study's figure draws; none for a figure that computes its own."""
    return [DATA / f"{table}.csv" for table in getattr(figure, "TABLES", ())]


def committed(figure):
    """The committed tables of a figure; ``ValueError`` if one is not such a table."""
    name = figure.__name__.rpartition(".")[2]
    paths = inputs(figure) or [DATA / f"{name}.csv"]
    tables = [read(path, columns) for path, columns in zip(paths, getattr(figure, "TABLES", {name: None}).values())]
    if tables[0].empty:
        raise ValueError(f"{_short_path(paths[0])} holds no row yet: make study or make reproduce UPDATE=1 writes it.")
    return tables


def read(path, columns=None, **options):
    """Read a CSV file with these `Columns`; ``ValueError`` names what is wrong with it, in one line."""
    try:
        table = pd.read_csv(path, **options)
    except (ValueError, OSError) as error:  # a parser's and a decoder's errors are ValueErrors
        raise ValueError(f"{_short_path(path)} cannot be read as a table: {' '.join(str(error).split())}.") from error
    words, numbers = (names.split() for names in columns or Columns("", ""))
    lacking = [name for name in words + numbers if name not in table]
    if lacking:
        raise ValueError(f"{_short_path(path)} has no column {lacking[0]!r}: it is not the table of this figure.")
    for name in numbers:
        values = pd.to_numeric(table[name], errors="coerce")
        wrong = table[name][values.isna() & table[name].notna()]
        if len(wrong):
            raise ValueError(f"{_short_path(path)}: column {name} must hold numbers, got {wrong.iloc[0]!r}.")
    return table


def _short_path(path):
    return os.path.relpath(path, HERE.parent)


def publish(name, files):
    """Replace committed files of a figure, all or none, whenever the process is killed.

    The new files are copied into a folder of their own, which is renamed to ``.update-NAME`` once it is whole: from
    then on the update counts as made, and the files are moved to their places, by this call or, if it is killed, by
    `finish` at the start of the next run. A folder that was not renamed is of no consequence; it lies in the build.

    Parameters
    ----------
    name : str
        Of the figure.
    files : dict of Path to Path
        Committed file → new file.
    """
    whole = HERE / f".update-{name}"
    _move(whole)
    BUILD.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=BUILD))
    try:
        for target, source in files.items():
            shutil.copyfile(source, staging / os.path.relpath(target, HERE.parent).replace(os.sep, "|"))
        staging.rename(whole)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _move(whole)


def finish():
    """Complete the updates that a killed process has begun."""
    for folder in HERE.glob(".update-*"):
        _move(folder)


def _move(folder):
    """Move the files of an update to their places; another process may be at it too."""
    for copy in folder.glob("*"):
        target = HERE.parent / copy.name.replace("|", os.sep)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            copy.replace(target)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def gallery():
    """Text of ``figures/README.md``: every picture with its caption, exact setting and finding, of committed tables."""
    parts = [
        "# Figures",
        "Written by `make reproduce UPDATE=1`; nothing here is typed by hand. `make reproduce` recomputes every table "
        "in [`data`](data), compares it with the committed one and redraws the picture. Tables of training runs are "
        "inputs: `make study` writes them, and only the picture is redrawn. A ± is half of a 95% interval of a mean "
        "over seeds; brackets are the ends of one: of an interquartile mean, of a restricted mean, of a proportion, or "
        "of a mean, cut to the range of a share.",
        " · ".join(f"[{name.replace('_', ' ')}](#{name.replace('_', '-')})" for name in NAMES),
    ]
    for name in NAMES:
        figure = module(name)
        tables = committed(figure)
        shown, _, details = figure.finding(*tables).partition(". ")
        parts += [
            f"## {name.replace('_', ' ')}",
            f"**{title(figure, tables)}.**",
            f"![{name}](output/{name}.png)",
            f"*Finding:* {_capital(shown.removesuffix('.'))}.",
            "<details><summary>How it was made, and more numbers</summary>",
            caption(figure),
            *([f"*Further:* {_capital(details)}"] if details else []),
            _origin(name, figure),
            "</details>",
        ]
    return "\n\n".join(parts) + "\n"


def _capital(text):
    """A sentence with a capital; a symbol at its beginning stays as it is."""
    return text[0].upper() + text[1:] if text[:2].isascii() and text[:2].isalpha() else text


def write_text(text, path):
    """Write a text file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


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
    write_text(table.to_csv(index=False, float_format="%.12g", lineterminator="\n"), path)


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
    a, b = (read(path, dtype=dict.fromkeys(keys, str)) for path in (new, committed))
    if list(a.columns) != list(b.columns):
        return [f"columns {list(a.columns)} instead of {list(b.columns)}"]
    a, b = a.set_index(list(keys)), b.set_index(list(keys))
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
