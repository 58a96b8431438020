"""The engine: runs the cells that a study's tables lack, in the worker processes of `pmdtheory.sweeps`."""

import shutil
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmdtheory.sweeps import attempt, outcomes

from .hours import known, speed, words
from .tables import claim, writable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compute", "describe", "outline", "plan", "run"]

LARGE_RUN = 100_000_000


def run(
    study: Any, folder: Path, runs: Path, jobs: int = 1, log: Callable[[str], Any] = print, backend: str = "loky"
) -> list[Any]:
    """Run what the tables of a study lack, merging the rows of each cell as it ends; return the cells that failed.

    Before anything is run, a ValueError says that a cell has an invalid configuration, a table is damaged or not of
    this study, a folder cannot be written to, or another process runs this study in `runs`.
    """
    now, later = plan(study, folder)
    for cell in (*now, *later):
        cell.validate(runs)
    failed = []
    if now:
        writable(folder)
        writable(runs)
        with claim(runs, study.name):
            for stage in study.stages(folder):
                failed += compute(stage.unfinished(), runs, jobs, stage.merge, log, known(study, folder), backend)
    return failed


def plan(study: Any, folder: Path) -> tuple[list[Any], list[Any]]:
    """Return the cells that the tables lack, in order, and those whose options some of them will choose."""
    later, now = study.undecided(folder), []
    waiting = {(str(cell.columns), cell.seed) for cell in later}
    for stage in study.stages(folder):
        for table in stage.tables.values():
            table.read()
        now += [cell for cell in stage.unfinished() if (str(cell.columns), cell.seed) not in waiting]
    return now, later


def outline(study: Any, folder: Path, runs: Path, jobs: int = 1, backend: str = "loky") -> dict[str, Any]:
    """Return what `describe` says of one study as a record: its cells with their commands, and the hours predicted.

    These are of this machine if a piece of the first cell can be timed, else of that of the rows: ``untimed`` says why.
    """
    now, later = plan(study, folder)
    rows, times, untimed = known(study, folder), 1.0, None
    if now and not hasattr(now[0], "piece"):
        untimed = "its cells have no piece that could be timed"
    elif now:
        try:
            times = speed(next((cell for cell in now if cell.base_seed is None), now[0]), rows, jobs, backend)
        except ValueError as error:
            untimed = str(error)
    return {
        "study": study.name,
        "cells": [{"cell": str(cell), "command": cell.command(runs)} for cell in now],
        "after_tuning": [cell.columns | {"seed": cell.seed} for cell in later],
        "hours": times * sum(cell.seconds(rows) for cell in (*now, *later)) / jobs / 3600,
        "untimed": untimed,
    }


def describe(
    studies: Sequence[Any],
    folder: Path,
    runs: Path,
    jobs: int = 1,
    log: Callable[[str], Any] = print,
    backend: str = "loky",
) -> None:
    """Log the cells that `run` would run, their commands, and the hours that this is predicted to take."""
    total = 0
    for study in studies:
        planned = outline(study, folder, runs, jobs, backend)
        now, later, hours = (planned[name] for name in ("cells", "after_tuning", "hours"))
        for cell in now:
            log(f"{cell['cell']}\n    {cell['command']}")
        for cell in later:
            columns = {name: value for name, value in cell.items() if name != "seed"}
            log(f"{study.name}: {columns}, seed {cell['seed']}, with the options that tuning chooses")
        total += hours
        where = f", not of this machine ({planned['untimed']})" if planned["untimed"] else ""
        count, lasts = len(now) + len(later), words(3600 * hours)
        log(f"{study.name}: {count} cells, {len(later)} of them after tuning; {lasts}{where}\n")
    log(f"{words(3600 * total)} in all, {jobs} at a time")


def compute(
    cells: Sequence[Any],
    runs: Path,
    jobs: int,
    keep: Callable[..., Any],
    log: Callable[[str], Any],
    told: "pd.DataFrame",
    backend: str = "loky",
) -> list[Any]:
    """Run cells in order, ``keep(cell, runs)`` each that ends well; return the others. Rows `told` predict the time."""
    spent, expected, left = 0.0, 0.0, sum(cell.seconds(told) for cell in cells)
    bases = {cell.base(runs): cell for cell in cells if cell.base(runs) is not None}
    makers = [cell for folder, cell in bases.items() if not folder.exists()]
    broken = {cell.base(runs): error for cell, _, error in outcomes(_make_base, makers, [runs], jobs, backend) if error}
    broken = {folder: (f"its base could not be made: {line}", text) for folder, (line, text) in broken.items()}
    baseless = [(cell, None, broken[cell.base(runs)]) for cell in cells if cell.base(runs) in broken]
    groups, failed = _groups([cell for cell in cells if cell.base(runs) not in broken]), []
    ended = (
        (cell, seconds, error)
        for group, seconds, error in outcomes(_run, groups, [runs], jobs, backend)
        for cell in group
    )
    if cells:
        log(f"{len(cells)} cell{'s' * (len(cells) > 1)} to run, {jobs} at a time, about {words(left / jobs)}")
    for number, (cell, seconds, error) in enumerate(chain(baseless, ended), start=1):
        left -= cell.seconds(told)
        if error is None:
            rows, error = attempt(keep, cell, [runs])
        if error is None:
            drop_weights(runs / cell.folder)
        if error is not None:
            failed.append(cell)
            log(f"[{number}/{len(cells)}] {cell}: FAILED: {error[0]} (all of it: {_write_error(cell, runs, error[1])})")
            continue
        spent, expected = spent + seconds, expected + cell.seconds(told)
        ahead = words(left * spent / expected / jobs)
        log(f"[{number}/{len(cells)}] {cell}: {cell.headline(rows)}; {seconds:.0f} s, about {ahead} left")
    return failed


def _groups(cells):
    """Lists of cells that are run at once, those of one group; all others are alone."""
    groups = {}
    for number, cell in enumerate(cells):
        name = getattr(cell, "group", None)
        groups.setdefault(number if name is None else name, []).append(cell)
    return list(groups.values())


def _run(group, runs):
    """Run the cells of a group; return the seconds that each took."""
    start, (cell, *others) = time.monotonic(), group
    cell.run(runs, *others)
    for cell in group:
        (runs / cell.folder / "error.log").unlink(missing_ok=True)
    return (time.monotonic() - start) / len(group)


def drop_weights(folder):
    """Delete models and checkpoints of `folder` where they take more than LARGE_RUN bytes; its logs stay."""
    weights = [folder / "model", folder / "checkpoints"]
    files = [file for place in weights for file in place.glob("*")]
    if sum(file.stat().st_size for file in files) > LARGE_RUN:
        for place in weights:
            shutil.rmtree(place, ignore_errors=True)


def _make_base(cell, runs):
    cell.make_base(runs)


def _write_error(cell, runs, text):
    """Keep an error in the folder of its run; return where."""
    path = runs / cell.folder / "error.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{cell}\n{cell.command(runs)}\n\n{text}", encoding="utf-8")
    except OSError as error:
        return f"could not be written, {error}"
    return path
