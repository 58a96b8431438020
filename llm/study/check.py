"""Do the committed numbers still come out? A few cells trained anew, against prediction intervals."""

import numpy as np

from .runner import train_cells
from .tables import Tables, accuracy, of, read, results

__all__ = ["check", "prediction_interval"]


def check(studies, folder, runs, jobs=1, log=print, level=0.95):
    """Train a few cells anew and compare them with the committed rows of their settings.

    A new number has to lie in mean ± t sd √(1 + 1/m) of the m committed seeds, the prediction interval of one more
    seed; sd is at least the sampling error of the evaluation, so that seeds which agree by chance do not make it
    narrower. The level holds for all numbers together (Bonferroni).

    Parameters
    ----------
    studies : list of Study
        Their `checked` settings are trained, at the first seed and the committed choice of tuned options.
    folder : Path
        Folder of the committed tables.
    runs, jobs, log
        As in `run`; what an earlier check left in `runs` is overwritten.
    level : float
        Probability that all intervals hold their numbers if nothing has changed.

    Returns
    -------
    list of str
        What failed or departs, in words.
    """
    committed, departures = [], []
    for study in studies:
        table = read(Tables.within(folder, study.name).results)
        for columns in study.checked:
            rows = of(table, columns)
            setting = study.setting(columns)
            if len(rows) < 2:
                log(f"{study.name}: {columns} has {len(rows)} committed seeds, too few for an interval: not checked")
                continue
            cells = [study.cell(setting, study.seeds[0], trial) for trial in setting.trials]
            same = [cell for cell in cells if (rows["options"] == cell.identity).all()]
            if same:
                committed.append((same[0], rows))
            else:
                departures.append(f"{study.name}: the committed rows of {columns} have other options than the study's")
    cells = [cell for cell, _ in committed]
    failed = train_cells(cells, runs, jobs, lambda cell: None, log, overwrite=True)
    for cell, rows in committed:
        if cell in failed:
            departures.append(f"{cell}: failed")
            continue
        new = results([cell], runs).iloc[0]
        for name in (accuracy(rows, "test"), "test/greedy"):
            floor = max(rows[f"{name}_ci"].mean() / 1.96, 1 / cell.config(runs).test_prompts)
            low, high = prediction_interval(rows[name], floor, 1 - (1 - level) / (2 * len(cells)))
            said = f"{cell}: {name} {new[name]:.4f}, allowed by {len(rows)} committed seeds: {low:.4f} to {high:.4f}"
            for value in rows[rows["seed"] == cell.seed][name]:
                equal = np.isclose(new[name], value, rtol=1e-9, atol=0)
                said += ", identical to that of this seed" if equal else f", committed for this seed: {value:.4f}"
            log(said)
            if not low <= new[name] <= high:
                departures.append(said)
    return departures


def prediction_interval(values, floor, level=0.95):
    """Interval in which one more value lies with probability `level`, if all are normal.

    Parameters
    ----------
    values : array (m,)
        At least two values.
    floor : float
        Least standard deviation.
    level : float
        In (0, 1).

    Returns
    -------
    low, high : float
        mean ∓ t sd √(1 + 1/m), t the quantile with m − 1 degrees of freedom.

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
