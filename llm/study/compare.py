"""Several algorithms under one budget: a study that is declared on the command line, its table on paper, its panels."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from pmdtheory.comparisons import improvement
from pmdtheory.intervals import Interval, interquartile_mean

from ..config import Config, file_name, from_preset, parse
from .design import Setting, Study
from .panels import panels
from .tables import accuracy

__all__ = ["asked", "check_start", "comparison", "declare", "default_folder", "draw", "estimates", "records", "seeds"]

MOST_SEEDS = 1000
SPENDING = ["rollouts", "updates", "tokens", "seconds"]
# Options of a run that the comparison sets itself, and what to do instead.
OWN = {
    "--seed": "--seeds 0-2 names the seeds",
    "--algorithm": "--algorithms pmd-mean,grpo names the algorithms",
    "--threads": "every run has one CPU thread, and --jobs 2 runs two at a time",
    "--overwrite": "remove the folder, or choose another --output",
}


def seeds(text: str) -> tuple[int, ...]:
    """Read seeds; raises ValueError where they are not as in the example, or not different.

    Examples
    --------
    >>> seeds("0-2,7")
    (0, 1, 2, 7)
    """
    ranges = [re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", word) for word in text.split(",")]
    ends = [(int(match[1]), int(match[2] or match[1])) for match in ranges if match]
    if len(ends) < len(ranges) or any(not 0 <= last - first < MOST_SEEDS for first, last in ends):
        raise ValueError(f"seeds must be as in 0-2 or 0,3,5, got {text!r}.")
    values = tuple(seed for first, last in ends for seed in range(first, last + 1))
    if len(set(values)) < len(values):
        raise ValueError(f"seeds must be different, got {text!r}.")
    return values


def declare(algorithms: str, seeds: tuple[int, ...], preset: str | None, arguments: Sequence[str]) -> Study:
    """Return the study of a comparison of `algorithms`, all with `preset` or None and `arguments` of ``pmd-llm train``.

    A ValueError names the option that is invalid or that the comparison sets itself, and the remedy.
    """
    for word in arguments:
        name = word.partition("=")[0].replace("_", "-")
        if name in OWN:
            raise ValueError(f"{name} is set by the comparison: {OWN[name]}.")
    names = [name.strip() for name in algorithms.split(",")]
    if len(set(names)) < len(names):
        raise ValueError(f"algorithms must be different, got {algorithms!r}.")
    chosen, preset = ["--preset", preset] if preset else [], preset or "tiny-cpu"
    usual, settings = asdict(from_preset(Config, preset)), []
    for name in names:
        config = asdict(parse(Config, [*chosen, "--algorithm", name, *arguments], prog="pmd-llm compare"))
        free = ("output", "seed", "threads", "overwrite")
        options = {key: value for key, value in config.items() if value != usual[key] and key not in free}
        settings.append(Setting({"algorithm": name}, options | {"algorithm": name}))
    return Study("compare", tuple(settings), seeds, preset=preset, files=("results", "curves", "tuning"))


def default_folder(study: Any) -> Path:
    """Return the folder of a comparison that was given none: task, model and algorithms are its name."""
    options = study.cell(study.settings[0], study.seeds[0], {}).resolved
    algorithms = "+".join(setting.columns["algorithm"] for setting in study.settings)
    names = (file_name(text) for text in (options["task"], options["model"], algorithms))
    return Path("runs") / "-".join(["compare", *names])


def check_start(study: Any, folder: Path) -> None:
    """Refuse, before anything is trained, what cannot be loaded and a folder of other settings, by a ValueError."""
    from .. import models, tasks

    cell = study.cell(study.settings[0], study.seeds[0], {})
    tasks.load(cell.resolved["task"])
    models.device(cell.resolved["device"])
    if cell.base_seed is None:
        models.load(cell.resolved["model"], "cpu", cell.resolved["trust_remote_code"])
    table, wanted = study.results(folder).read(), _shared(cell.identity)
    for options in () if table.empty else table["options"].unique():
        earlier = _shared(options)
        if earlier != wanted:
            raise ValueError(
                f"output {folder} holds a comparison with other settings (there {' '.join(sorted(earlier - wanted))}; "
                f"here {' '.join(sorted(wanted - earlier))}): choose another --output."
            )


def _shared(options):
    """Options that all runs of a comparison have in common."""
    return {word for word in re.split(r" (?=\w+=)", options) if not word.startswith("algorithm=")}


def asked(study: Any, folder: Path) -> pd.DataFrame:
    """Return the rows of the algorithms and seeds of `study`, in its order; the folder may hold those of others too."""
    *_, last = study.stages(folder)
    rows, order = last.matched()[1], [setting.columns["algorithm"] for setting in study.settings]
    return rows.sort_values("algorithm", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def estimates(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, dict[str, Interval]]]:
    """Return each algorithm with its rows, and with its estimates over the seeds.

    These are the interquartile mean of each accuracy, and, ``above``, the probability that a run of it ends above one
    of the first algorithm; NaN where a run lacks the accuracy.
    """
    names, found, first = [accuracy(table, "test"), "test/greedy"], [], None
    for algorithm, rows in table.groupby("algorithm", sort=False):
        values = {name: interquartile_mean([rows[name]]) for name in names}
        if first is not None:
            values["above"] = improvement([rows[names[0]]], [first])
        first = rows[names[0]] if first is None else first
        found.append((algorithm, rows, values))
    return found


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a record of each algorithm: its `estimates` with the ends of their intervals, and what a run spent."""
    return [
        {"algorithm": algorithm, "seeds": len(rows)}
        | {f"{name}{end}": at for name, value in values.items() for end, at in zip(("", "_low", "_high"), value)}
        | {name: rows[name].mean() for name in SPENDING}
        for algorithm, rows, values in estimates(table)
    ]


def comparison(table: pd.DataFrame) -> str:
    """Return the `estimates` of each algorithm, and what a run spent, as a table on paper."""
    titles = [accuracy(table, "test").partition("/")[2], "greedy", "above first"]
    width = max(len("algorithm"), *(len(name) for name in table["algorithm"])) + 2
    lines = [f"{'algorithm':<{width}}{'seeds':>5}" + "".join(f"{title:>21}" for title in titles)]
    lines[0] += "".join(f"{name:>11}" for name in SPENDING)
    for algorithm, rows, values in estimates(table):
        cells = [f"{value:.3f}".rjust(21) for value in values.values()]
        spent = "".join(f"{rows[name].mean():>11,.0f}" for name in SPENDING)
        lines.append(f"{algorithm:<{width}}{len(rows):>5}" + "".join(cells).ljust(63) + spent)
    interval = " with 95% bootstrap intervals over seeds" if table["algorithm"].duplicated().any() else ""
    return "\n".join([
        *lines, f"accuracies on test prompts: interquartile means{interval}; above first: probability that a run ends",
        "above one of the first algorithm, ties half; spending: training of one run, mean over seeds",
    ])  # fmt: skip


def draw(folder: Path) -> None:
    """Draw the panels of a comparison in its folder, ``panels.png`` and ``panels.svg``."""
    import matplotlib

    matplotlib.use("Agg")
    from pmdtheory import plotting

    with plotting.style():
        plotting.save(panels(pd.read_csv(folder / "curves.csv"), "algorithm"), folder / "panels")
