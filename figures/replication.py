"""What replicates on networks and what does not: the README's table, computed from the committed tables.

``python -m figures.replication`` rewrites it between its two marks in ``README.md``. Every number is a mean over seeds
with its 95% interval; every verdict follows from the intervals.
"""

import re

import numpy as np
import pandas as pd

from pmdtheory.intervals import half_width

from . import harness
from .training_staleness import METHODS, UPDATES, reaching

README = harness.HERE.parent / "README.md"
MARKS = "<!-- replication: python -m figures.replication -->\n", "<!-- end of replication -->\n"


def table():
    """Return the table as Markdown."""
    rows = [law(), conservative(), finite_samples(), stable(), *better()]
    lines = ["| claim | evidence: mean ± 95% interval over seeds | verdict |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def law():
    """A network fitted to PMD-mean's loss is on the Lambert-W law."""
    cells = _read("validate")
    cells = cells[cells.experiment == "population"]
    said = []
    for algorithm, name, expected in (("pmd-mean", "PMD-mean", 1), ("pmd-part", "log-partition", 0)):
        rows = cells[cells.algorithm == algorithm]
        off = (rows.share - expected).abs().max()
        said.append(f"{name} loss: f within {off:.3f} of {expected}, R² at least {rows.r2_law.min():.3f}")
    held = ((cells.share - (cells.algorithm == "pmd-mean")).abs() < 0.02).all() and (cells.r2_law > 0.99).all()
    settings = cells.groupby(["reward", "tau"]).ngroups
    return (
        "a network trained on the mean-reward loss lands on the Lambert-W law, not on the KL law",
        f"{'; '.join(said)}, in all of {len(cells)} fits ({settings} rewards and temperatures, {cells.seed.nunique()} "
        "seeds, population loss; *network against theory*)",
        "holds" if held else "holds in part",
    )


def conservative():
    """How far the two losses move a network's policy, on prompts with little and with much reward."""
    prompts = _read("validate_prompts")
    rows = prompts[(prompts.experiment == "population") & (prompts.reward == "binary") & (prompts.tau == 0.1)]
    rows = rows.assign(part=np.where(rows.expected_reward < 0.3, "low", "high"))
    moved = rows.pivot_table(index=["seed", "part"], columns="algorithm", values="kl")
    share = (moved["pmd-mean"] / moved["pmd-part"]).unstack("part")
    low, high = (_said(share[part].dropna(), 2) for part in ("low", "high"))
    apart = _interval(share["low"].dropna())[1] < _interval(share["high"].dropna())[0]
    return (
        "conservative where rewards are low",
        f"a fitted network's KL(q‖p) under PMD-mean is {low} of that under the log-partition on prompts solved less "
        f"than 30% of the time, {high} on the others (binary reward, τ = 0.1; *network against theory*)",
        "holds" if apart else "not told apart",
    )


def finite_samples():
    """Training with few rollouts at small τ."""
    runs = _read("study_temperature")
    rows = runs[(runs.tau == runs.tau.min()) & (runs.n == 4)]
    mean, part = (rows[rows.estimator == f"pmd-{name}-loo"]["test/avg@8"] for name in ("mean", "part"))
    wide = runs[(runs.tau == runs.tau.max()) & (runs.n == 4)]
    other = [wide[wide.estimator == f"pmd-{name}-loo"]["test/avg@8"] for name in ("mean", "part")]
    apart = _interval(part)[1] < _interval(mean)[0]
    return (
        "robust to finite samples",
        f"4 rollouts per prompt at τ = {rows.tau.iloc[0]:g}: PMD-mean {_said(mean)}, PMD-part {_said(part)}; at "
        f"τ = {wide.tau.iloc[0]:g} {_said(other[0])} and {_said(other[1])} (*training temperature*; bandits: *finite "
        "sample improvement*)",
        "holds at small τ" if apart else "the means agree with it, their intervals overlap",
    )


def stable():
    """Runs that end below the base."""
    runs, trials = _read("study_temperature"), _read("study_staleness_tuning")
    count = {}
    for name in ("mean", "part"):
        for which, rows in (
            ("small", runs[(runs.estimator == f"pmd-{name}-loo") & (runs.tau <= 0.1)]),
            ("large", runs[(runs.estimator == f"pmd-{name}-loo") & (runs.tau > 0.1)]),
            ("trial", trials[trials.method == f"pmd-{name}-loo"]),
        ):
            count[name, which] = f"{(rows['test/avg@8'] < rows['before/avg@8']).sum()} of {len(rows)}"
    return (
        "stable where PMD-part is not",
        f"runs that end below the base: PMD-mean {count['mean', 'small']}, PMD-part {count['part', 'small']} at "
        f"τ ≤ 0.1; {count['mean', 'large']} and {count['part', 'large']} at τ = 0.5 (*training temperature*); of "
        f"the tuning runs for staleness {count['mean', 'trial']} and {count['part', 'trial']}",
        "holds at small τ",
    )


def better():
    """Against GRPO and GSPO, by final accuracy and by time, for each number of updates per batch."""
    runs, costs = _read("study_staleness"), reaching(_read("study_staleness_curves"))
    runs = runs[(runs.budget == "rollouts") & (runs.lag == 0)]
    for column, rows, claim, sign in (("test/avg@8", runs, "better", 1), ("tokens", costs, "faster", -1)):
        said, verdicts = [], []
        for updates in UPDATES:
            found = {
                method: rows[(rows.method == method) & (rows.updates_per_batch == updates)][column].dropna()
                for method in ("pmd-mean-loo", "grpo", "gspo")
            }
            digits, unit = (2, "") if sign > 0 else (0, "k")
            shown = {method: values / (1 if sign > 0 else 1e3) for method, values in found.items()}
            parts = ", ".join(f"{METHODS[name][0]} {_said(values, digits, unit)}" for name, values in shown.items())
            said.append(f"U = {updates}: {parts}")
            own = _interval(found["pmd-mean-loo"])
            for name in ("grpo", "gspo"):
                low, high = _interval(found[name])
                if sign * own[0 if sign > 0 else 1] > sign * (high if sign > 0 else low):
                    verdicts.append(f"{claim} than {METHODS[name][0]} at U = {updates}")
                if sign * own[1 if sign > 0 else 0] < sign * (low if sign > 0 else high):
                    verdicts.append(f"not so against {METHODS[name][0]} at U = {updates}")
        what = "test avg@8" if sign > 0 else "tokens until validation avg@8 is 0.7, of the seeds that get there"
        yield (
            f"{claim} than GRPO and GSPO",
            f"{what}, every method tuned alike for each U: {'; '.join(said)} (*training staleness*)",
            "; ".join([*verdicts, "else not told apart" if verdicts else "not told apart at this scale"]),
        )


def update(text):
    """Return the text of the README with the present table between its marks."""
    begin, end = map(re.escape, MARKS)
    pattern = re.compile(f"(?<={begin}).*?(?={end})", flags=re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md must hold the marks {MARKS[0].strip()} and {MARKS[1].strip()}.")
    return pattern.sub(lambda _: table(), text)


def _read(name):
    return pd.read_csv(harness.DATA / f"{name}.csv")


def _interval(values):
    half = half_width(values.std(ddof=1), len(values))
    return values.mean() - half, values.mean() + half


def _said(values, digits=2, unit=""):
    low, high = _interval(values)
    return f"{values.mean():.{digits}f}{unit} ± {(high - low) / 2:.{digits}f}" if len(values) > 1 else "–"


if __name__ == "__main__":
    text = update(README.read_text(encoding="utf-8"))
    temporary = README.with_name(f".{README.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(README)
