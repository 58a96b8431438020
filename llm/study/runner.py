"""Training the cells that the tables lack, in worker processes of one CPU thread each."""

import pandas as pd

from ..config import from_preset
from .processes import outcomes
from .tables import accuracy, curves, merge, read, results, unfinished

__all__ = ["plan", "predicted_seconds", "run", "train_cells"]

# What a training completion and an evaluated one cost at tiny-cpu on one core: a first guess, then cells are timed.
SECONDS_PER_ROLLOUT, SECONDS_PER_EVALUATED = 0.0013, 0.0005


def run(study, tables, runs, jobs=1, log=print):
    """Train what `tables` lack of a study, merging each row as it comes.

    Parameters
    ----------
    study : Study
        What to train.
    tables : Tables
        What there is, and where rows go.
    runs : Path
        Folder of all runs; an interrupted one in it is resumed.
    jobs : int
        Processes, each with one CPU thread; with one job (a GPU) the cells are trained in this process.
    log : callable
        Takes a line of text for each cell: number, accuracy, predicted time left.

    Returns
    -------
    list of Cell
        The cells that failed; their commands and errors have been logged.

    Raises
    ------
    ValueError
        A cell has an invalid configuration.
    """

    def keep_tuning(cell):
        merge(tables.tuning, results([cell], runs), [*study.keys, *_tuned(study), "seed"])

    def keep(cell):
        merge(tables.results, results([cell], runs), [*study.keys, "seed"])
        merge(tables.curves, curves([cell], runs), [*study.keys, "seed", "iteration"], digits=6)

    failed = train_cells(unfinished(study.tuning_cells(), read(tables.tuning)), runs, jobs, keep_tuning, log)
    final = unfinished(study.final_cells(read(tables.tuning)), read(tables.results))
    return failed + train_cells(final, runs, jobs, keep, log)


def plan(study, tables):
    """Return what `run` would train, as three lists of cells.

    Returns
    -------
    tuning, final : list of Cell
        Cells of the first and of the second stage.
    undecided : list of Cell
        Cells of the second stage whose options the first one will choose, with the first of their trials.
    """
    tuning = unfinished(study.tuning_cells(), read(tables.tuning))
    waiting = [setting for setting in study.settings if any(cell.columns == setting.tuning for cell in tuning)]
    final = unfinished(study.final_cells(read(tables.tuning)), read(tables.results))
    final = [cell for cell in final if all(cell.columns != setting.columns for setting in waiting)]
    return tuning, final, [study.cell(setting, seed, setting.trials[0]) for seed in study.seeds for setting in waiting]


def _tuned(study):
    return list(dict.fromkeys(name for setting in study.settings for trial in setting.trials for name in trial))


def predicted_seconds(configs, table):
    """Predict the time that runs take on one core: the table's seconds per rollout, and the evaluations.

    Parameters
    ----------
    configs : list of Config
        The runs.
    table : DataFrame
        Results of other runs; a first guess is made if it is empty.
    """
    rate = SECONDS_PER_ROLLOUT if table.empty else table["seconds"].sum() / table["rollouts"].sum()
    return sum(_rollouts(config) * rate + _evaluated(config) * SECONDS_PER_EVALUATED for config in configs)


def _rollouts(config):
    return config.iterations * config.prompts_per_batch * config.rollouts_per_prompt


def _evaluated(config):
    validations = 1 + (config.iterations // config.eval_every if config.eval_every else 1)
    return (2 * config.test_prompts + validations * config.eval_prompts) * (config.eval_samples + 1)


def train_cells(cells, runs, jobs, keep, log, **changes):
    """Train cells in order, `keep` each one that ends well, and return the others."""
    left = [cell.config(runs) for cell in cells]
    failed, rows = [], pd.DataFrame()
    bases = {cell.base_seed: cell for cell in cells if cell.base_seed is not None}
    for _, line, error in outcomes(_make_base, bases.values(), [runs], jobs):
        log(line if error is None else f"a base: FAILED\n{error}")
    trained = outcomes(_train_cell, cells, [runs, changes], jobs)
    for number, (cell, _, error) in enumerate(trained, start=1):
        left.remove(cell.config(runs))
        head = f"[{number}/{len(cells)}] {cell}"
        if error is not None:
            failed.append(cell)
            log(f"{head}: FAILED\n{cell.command(runs)}\n{error}")
            continue
        keep(cell)
        row = results([cell], runs)
        rows = pd.concat([rows, row], ignore_index=True)
        shown = ", ".join(f"{name} {row[f'test/{name}'][0]:.3f}" for name in (accuracy(row, "test")[5:], "greedy"))
        hours = predicted_seconds(left, rows) / jobs / 3600
        log(f"{head}: {shown}, {row['seconds'][0]:.0f} s of training; {hours:.1f} h left")
    return failed


def _train_cell(cell, runs, changes):
    from ..train import train

    train(cell.config(runs, **changes), progress=False)


def _make_base(cell, runs):
    """Regenerate the base of a cell unless it is there; return a line of text."""
    from ..warmup import WarmupConfig, warmup

    folder = cell.base(runs)
    if folder.exists():
        return f"base {folder} is there"
    part = folder.with_name(f"{folder.name}.part")
    changes = {"seed": cell.base_seed, "threads": 1, "output": str(part)}
    warmup(from_preset(WarmupConfig, cell.preset, kind="warmup", **changes), progress=False)
    part.rename(folder)
    return f"base {folder} regenerated"
