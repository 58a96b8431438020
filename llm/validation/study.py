"""The validation as a study: what its committed tables lack, and whether they still come out."""

import shutil

import numpy as np

from ..config import from_preset
from ..study import prediction_interval
from ..study.tables import of, read
from .validate import ValidateConfig, missing, validate

__all__ = ["check", "plan", "predicted_seconds", "run"]

PRESET = "full"
SECONDS = 40.0  # of a cell, a first guess; then the committed ones tell
CHECKED = {"rewards": "graded", "taus": "0.3", "experiments": "population", "seeds": "0"}


def run(tables, runs, jobs=1, log=print):
    """Fit the cells that the tables in a folder lack, merging each one.

    Parameters
    ----------
    tables, runs : Path
        Folder of the tables, and of all runs.
    jobs : int
        Processes.
    log : callable
        Takes a line of text for each cell.
    """
    validate(_config(runs, jobs), log, tables)


def plan(tables, runs):
    """Return the cells that `run` would fit."""
    return missing(_config(runs), tables)


def predicted_seconds(cells, tables):
    """Predict the time that cells take on one core from those in the tables that differ in the seed alone."""
    table = read(tables / "validate.csv")
    setting = [name for name in vars(cells[0]) if name != "seed"] if cells else []
    spent = {} if table.empty or not cells else table.groupby(setting)["cpu_seconds"].mean().to_dict()
    return sum(spent.get(tuple(getattr(cell, name) for name in setting), SECONDS) for cell in cells)


def check(tables, runs, jobs=1, log=print, level=0.95):
    """Fit two cells of the population experiment anew, and compare f and R² with the committed rows of all seeds.

    Median f and the logarithm of median 1 − R² have to lie in the prediction interval of one more seed, as in
    `pmdllm.study.check`; for f the standard deviation is at least the error of a median over the prompts.

    Parameters
    ----------
    tables, runs, jobs, log
        As in `run`; what an earlier check left is fitted anew.
    level : float
        Probability that all intervals hold their numbers if nothing has changed.

    Returns
    -------
    list of str
        What departs, in words.
    """
    shutil.rmtree(runs / "validate", ignore_errors=True)
    committed, departures = read(tables / "validate.csv"), []
    for _, row in validate(_config(runs, jobs, **CHECKED), log).iterrows():
        same = ("experiment", "reward", "tau", "algorithm", "n", "size", "options")
        rows = of(committed, {name: row[name] for name in same})
        said = f"validate: graded reward, tau {row['tau']:g}, {row['algorithm']}"
        if len(rows) < 2:
            log(f"{said} has {len(rows)} committed seeds with these options, too few for an interval: not checked")
            continue
        sd = (rows["share_high"] - rows["share_low"]).mean() / (2 * 1.645)
        floors = {"share": 1.2533 * sd / np.sqrt(row["prompts"]), "log(1 - r2_law)": 0.0}
        missed = np.log(1 - row["r2_law"]), np.log(1 - rows["r2_law"])
        for (name, floor), new, old in zip(floors.items(), (row["share"], missed[0]), (rows["share"], missed[1])):
            low, high = prediction_interval(old, floor, 1 - (1 - level) / 4)
            line = f"{said}: {name} {new:.5f}, allowed by {len(rows)} committed seeds: {low:.5f} to {high:.5f}"
            log(line)
            if not low <= new <= high:
                departures.append(line)
    return departures


def _config(runs, jobs=1, **changes):
    return from_preset(ValidateConfig, PRESET, kind="validate", output=str(runs / "validate"), jobs=jobs, **changes)
