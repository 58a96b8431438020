"""Do the committed numbers still come out? A few cells run anew, against prediction intervals."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .runner import compute
from .tables import claim, of

__all__ = ["check", "prediction_interval"]


def check(
    studies: Sequence[Any],
    folder: Path,
    runs: Path,
    jobs: int = 1,
    log: Callable[[str], Any] = print,
    level: float = 0.95,
    backend: str = "loky",
) -> tuple[int, list[str]]:
    """Run a few cells anew and compare them with the committed rows of their settings.

    Returns how many numbers were compared, and in words what failed, departs, or could not be compared. A new number
    has to lie in the `prediction_interval` of the committed seeds, sd at least the sampling error of the evaluation.
    The level is that of all numbers together (Bonferroni). What an earlier check left in `runs` is deleted.
    """
    numbers, departures = [], []
    for study in studies:
        table, cells, committed = study.results(folder), study.checked_cells(folder), {}
        known = table.read()
        if not cells:
            log(f"{study.name}: no cell is to be checked")
        for cell in cells:
            rows = of(known, cell.columns)
            if len(rows) < 2:
                departures.append(f"{cell}: not compared, {table.path} has {len(rows)} seeds of it and 2 are needed")
            elif not (rows["options"] == cell.identity).all():
                departures.append(f"{cell}: not compared, its rows in {table.path} have other options than the study's")
            else:
                committed[cell] = rows

        def keep(cell, runs, table=table, committed=committed):
            new, rows = table.rounded(cell.rows(runs)["results"]), committed[cell]
            values = cell.judged(new)
            numbers.extend((cell, rows, name, *old, *values[name][0]) for name, old in cell.judged(rows).items())
            return new

        if committed:
            with claim(runs, study.name):
                shutil.rmtree(runs / study.name, ignore_errors=True)
                failed = compute(list(committed), runs, jobs, keep, log, known, backend)
            departures += [f"{cell}: failed" for cell in failed]
    for cell, rows, name, values, floor, value in numbers:
        low, high = prediction_interval(values, floor, 1 - (1 - level) / len(numbers))
        line = f"{cell}: {name} {value:.5f}, allowed by {len(values)} committed seeds: {low:.5f} to {high:.5f}"
        for earlier in values[rows["seed"] == cell.seed]:
            equal = np.isclose(value, earlier, rtol=1e-12, atol=0)
            line += ", identical to that of this seed" if equal else f", committed for this seed: {earlier:.5f}"
        log(line)
        if not low <= value <= high:
            departures.append(line)
    return len(numbers), departures


def prediction_interval(values: Any, floor: float, level: float = 0.95) -> tuple[float, float]:
    """Interval in which one more value lies with probability `level`, if all are normal with sd at least `floor`.

    It is mean ∓ t sd √(1 + 1/m) of m ≥ 2 values, t the quantile with m − 1 degrees of freedom.

    Examples
    --------
    >>> low, high = prediction_interval([0.8, 0.9], floor=0.01)
    >>> round(low, 3), round(high, 3)
    (-0.25, 1.95)
    """
    from scipy.stats import t as student

    values = np.asarray(values, dtype=float)
    m = len(values)
    half = student.ppf((1 + level) / 2, m - 1) * max(values.std(ddof=1), floor) * np.sqrt(1 + 1 / m)
    return float(values.mean() - half), float(values.mean() + half)
