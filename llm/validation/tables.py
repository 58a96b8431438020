"""The tables of the validation: a finished cell's folder, and CSV files that every cell is merged into.

::

    validate.csv            a row per cell, split and outer step: quantiles over the prompts, options, versions, command
    validate_prompts.csv    a row per prompt: what `pmdllm.validation.laws.compare` says, and rewards
    validate_steps.csv      medians over the prompts as a fit goes on
    validate_actions.csv    a row per action of three prompts, of the population cells of the first seed
    validate_training.csv   a row per outer step, pass and split of ordinary training: pooled f, λ and KL(p‖q)

The rows of a cell replace those of the same cell, whoever fitted it.
"""

import json
import shutil
from dataclasses import asdict, fields

import pandas as pd

from ..study.tables import merge, read
from .experiments import Cell

__all__ = ["departures", "finished", "publish", "rows_of", "summary", "write"]

CELL = [declared.name for declared in fields(Cell)]
KEYS = {
    "prompts": ("split", "iteration", "number"),
    "steps": ("split", "evaluations"),
    "actions": ("number", "action"),
    "training": ("split", "iteration", "epoch"),
}
DIGITS = 8


def summary(prompts):
    """Quantiles over the prompts of each cell, split and outer step.

    Parameters
    ----------
    prompts : DataFrame
        The table ``validate_prompts.csv``, or part of it.

    Returns
    -------
    DataFrame
        Medians under the names of the prompts' columns; ``share_low`` and ``share_high``, 5% and 95% quantiles of f;
        ``mean_`` divergences from the laws; ``weight_error``, the median of |KL(p‖q)/λ − 1|, λ > 0 the law's χ² weight.
    """
    weight = prompts["weight"].where(prompts["weight"] > 0)
    prompts = prompts.assign(weight_error=(prompts["reverse_kl"] / weight - 1).abs())
    groups = prompts.drop(columns="number").groupby([*CELL, "split", "iteration"])
    found = groups.median()
    found["prompts"] = groups.size()
    found["share_low"], found["share_high"] = groups["share"].quantile(0.05), groups["share"].quantile(0.95)
    for name in ("from_law", "from_lambert", "from_kl_law"):
        found[f"mean_{name}"] = groups[name].mean()
    return found.reset_index()


def departures(table):
    """What in the population experiment is not as the theory says, a line each.

    For every cell, PMD-mean has a median f within 0.02 of 1, the log-partition within 0.02 of 0, both a median R²
    above 0.99 against their own law, and for τ ≤ 0.3 a median divergence from the other law at least 10 times as large.

    Parameters
    ----------
    table : DataFrame
        What `pmdllm.validation.validate.validate` returns.

    Returns
    -------
    list of str
    """
    found = []
    for _, row in table[table["experiment"] == "population"].iterrows():
        own, other, expected = ("lambert", "kl_law", 1) if row["algorithm"] == "pmd-mean" else ("kl_law", "lambert", 0)
        ratio = row[f"from_{other}"] / row[f"from_{own}"]
        held = {
            f"f {row['share']:.4f}": abs(row["share"] - expected) < 0.02,
            f"R² {row[f'r2_{own}']:.4f}": row[f"r2_{own}"] > 0.99,
            f"divergence ratio {ratio:.1f}": ratio >= 10 or row["tau"] > 0.3,
        }
        where = ", ".join(f"{name} {row[name]}" for name in ("reward", "tau", "algorithm", "seed"))
        found += [f"{where}: {said}" for said, holds in held.items() if not holds]
    return found


def finished(tables):
    """Cells of ``validate.csv`` in a folder: a set of their names and options."""
    table = read(tables / "validate.csv")
    return set() if table.empty else {(name, options) for name, options in zip(_names(table), table["options"])}


def rows_of(cells, config, tables):
    """Rows of ``validate.csv`` in a folder that belong to cells of a configuration."""
    wanted = {(str(cell), config.identity(cell.experiment)) for cell in cells}
    table = read(tables / "validate.csv")
    return table[[name in wanted for name in zip(_names(table), table["options"])]].reset_index(drop=True)


def publish(cell, config, tables):
    """Merge what the folder of a cell holds into the tables; return its last row of ``validate.csv``."""
    folder = config.folder(cell)
    parts = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
    if cell.seed != config.values("seeds", int)[0]:
        parts.pop("actions", None)
    made = json.loads((folder / "made.json").read_text())
    rows = summary(parts["prompts"]) if "prompts" in parts else parts["training"]
    rows = rows.groupby(["split", "iteration"]).tail(1).drop(columns="epoch", errors="ignore")
    rows = rows.assign(options=config.identity(cell.experiment), **made, command=_command(cell, config))
    for name, part in parts.items():
        merge(tables / f"validate_{name}.csv", part, [*CELL, *KEYS[name]], DIGITS, replaced=CELL)
    rows = rows[[*CELL, *rows.columns.drop(CELL)]]
    merge(tables / "validate.csv", rows, [*CELL, "split", "iteration"], DIGITS, replaced=CELL)
    return rows.iloc[-1]


def write(tables, folder, made):
    """Write the tables of a finished cell and how it was made to a folder that appears when it is whole."""
    part = folder.with_name(f".{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, table in tables.items():
        table.to_csv(part / f"{name}.csv", index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
    (part / "made.json").write_text(json.dumps(made))
    part.rename(folder)


def _names(table):
    return [str(Cell(**row)) for row in table[CELL].to_dict("records")]


def _command(cell, config):
    """The shell command whose output holds this cell."""
    usual, free = type(config)(), ("output", "experiments", "seeds", "jobs")
    changed = [f"--{name} {value}" for name, value in asdict(config).items() if value != getattr(usual, name)]
    changed = [text for text in changed if text.split()[0].strip("-") not in free]
    return " ".join([f"pmd-llm validate --preset full --experiments {cell.experiment} --seeds {cell.seed}", *changed])
