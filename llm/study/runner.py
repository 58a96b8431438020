"""The engine: runs the cells that a study's tables lack, in the worker processes of `pmdtheory.sweeps`."""

import shutil
import time
from itertools import chain

from pmdtheory.sweeps import attempt, outcomes

from .tables import claim, writable

__all__ = ["compute", "describe", "plan", "run"]

LARGE_RUN = 100_000_000


def run(study, folder, runs, jobs=1, log=print, backend="loky"):
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
                known = stage.tables["results"].read()
                failed += compute(stage.unfinished(), runs, jobs, stage.merge, log, known, backend)
    return failed


def plan(study, folder):
    """Return the cells that the tables lack, in order, and those whose options some of them will choose."""
    later, now = study.undecided(folder), []
    waiting = {(str(cell.columns), cell.seed) for cell in later}
    for stage in study.stages(folder):
        for table in stage.tables.values():
            table.read()
        now += [cell for cell in stage.unfinished() if (str(cell.columns), cell.seed) not in waiting]
    return now, later


def describe(studies, folder, runs, jobs=1, log=print):
    """Log the cells that `run` would run, their commands, and the hours that this is predicted to take."""
    total = 0
    for study in studies:
        now, later = plan(study, folder)
        for cell in now:
            log(f"{cell}\n    {cell.command(runs)}")
        for cell in later:
            log(f"{study.name}: {cell.columns}, seed {cell.seed}, with the options that tuning chooses")
        known = study.results(folder).read()
        hours = sum(cell.seconds(known) for cell in (*now, *later)) / jobs / 3600
        total += hours
        log(f"{study.name}: {len(now) + len(later)} cells, {len(later)} of them after tuning; {hours:.1f} h\n")
    log(f"{total:.1f} h in all, {jobs} at a time")


def compute(cells, runs, jobs, keep, log, known, backend="loky"):
    """Run cells in order, ``keep(cell, runs)`` each that ends well; return the others. `known` rows tell the time."""
    spent, expected, left = 0.0, 0.0, sum(cell.seconds(known) for cell in cells)
    bases = {cell.base(runs): cell for cell in cells if cell.base(runs) is not None}
    makers = [cell for folder, cell in bases.items() if not folder.exists()]
    broken = {cell.base(runs): error for cell, _, error in outcomes(_make_base, makers, [runs], jobs, backend) if error}
    broken = {folder: (f"its base could not be made: {line}", text) for folder, (line, text) in broken.items()}
    baseless = [(cell, None, broken[cell.base(runs)]) for cell in cells if cell.base(runs) in broken]
    started, failed = [cell for cell in cells if cell.base(runs) not in broken], []
    ended = chain(baseless, outcomes(_run, started, [runs], jobs, backend))
    for number, (cell, seconds, error) in enumerate(ended, start=1):
        left -= cell.seconds(known)
        if error is None:
            rows, error = attempt(keep, cell, [runs])
        if error is None:
            drop_weights(runs / cell.folder)
        if error is not None:
            failed.append(cell)
            log(f"[{number}/{len(cells)}] {cell}: FAILED: {error[0]} (all of it: {_write_error(cell, runs, error[1])})")
            continue
        spent, expected = spent + seconds, expected + cell.seconds(known)
        hours = left * spent / expected / jobs / 3600
        log(f"[{number}/{len(cells)}] {cell}: {cell.headline(rows)}; {seconds:.0f} s, about {hours:.1f} h left")
    return failed


def _run(cell, runs):
    start = time.monotonic()
    cell.run(runs)
    (runs / cell.folder / "error.log").unlink(missing_ok=True)
    return time.monotonic() - start


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
