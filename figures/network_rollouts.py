"""A network that sees only a few rollouts at a time still ends near the law of its loss.

A small transformer completes sums: 101 actions, a base p that errs, rewards binary or graded. It is fitted by one outer
step from p to q to the PMD-mean loss or to the log-partition loss. f is 1 on the Lambert-W law of the first and 0 on
the KL law of the second (*network laws*). A value is the median over the prompts of a seed, then the mean over seeds
with its 95% interval (of logarithms, where the axis is logarithmic). (a, b) n fresh rollouts at every gradient step,
graded reward, τ = 0.3: f, dashed the prediction (Statements 2 and 10; the law's λ over the network's KL(p‖q)), and the
divergence from the law of the estimator. Hollow: completions that the network generated. Dotted: the leave-one-out log-
partition from the KL law. (c) One fixed batch of rollouts: share of the variance of log(q/p), on the actions drawn,
that Statement 14 (filled) and the population law (hollow) miss.
"""

import pandas as pd

from pmdtheory import plotting
from pmdtheory.intervals import mean_interval

from .harness import Columns
from .marks import key
from .network import CELLS, LABELS, LOSSES, OWN, STUDY, handles, laws, log_ticks, look, points, select

__all__ = ["STUDY", "TABLES", "finding", "plot"]

TABLES = {"validate": CELLS, "validate_prompts": Columns("experiment algorithm reward", "tau seed share")}

DRAWN = "pmd-mean", "pmd-mean-loo", "pmd-part-loo"
ROUNDING = 1e-8
"""Of an R² near 1, as the tables hold it."""


def plot(table, prompts):
    """Three panels, those whose experiment is there."""
    figure, axes = plotting.panels(1, 3, height=2.7)
    if len(select(table, "rollouts")):
        _share_over_rollouts(axes[0], table, prompts)
        _divergence_over_rollouts(axes[1], table)
    rows = select(table, "batch")
    if len(rows):
        _fixed_batch(axes[2], rows)
    hollow = {"marker": "o", "markersize": 3.5, "linestyle": "none", "markerfacecolor": "white"}
    shown = [*handles(DRAWN), plotting.line(label="completions that the network generated", color="black", **hollow)]
    figure.legend(handles=shown, loc="outside lower center", ncols=2)
    return figure


def _share_over_rollouts(axis, table, prompts):
    for algorithm in LABELS:
        plotting.band(axis, "n", select(table, "rollouts", algorithm=algorithm), "share", **look(algorithm))
        made = select(table, "completions", algorithm=algorithm)
        points(axis, made, "n", "share", **look(algorithm, markerfacecolor="white"))
    part = select(prompts.assign(predicted=prompts.weight / prompts.reverse_kl), "rollouts", algorithm="pmd-part-loo")
    predicted = part.groupby("n").predicted.median()
    axis.plot(predicted.index, predicted, color="black", linestyle="--", linewidth=0.8, label="predicted")
    axis.axhline(1, color="black", linestyle="--", linewidth=0.8, zorder=1)
    laws(axis, up=-10)
    log_ticks(axis, select(table, "rollouts").n.unique())
    axis.legend(loc="center right")
    axis.set(xlabel="rollouts a gradient", ylabel="slope $f$", title="which law", ylim=(-0.2, None))


def _divergence_over_rollouts(axis, table):
    for algorithm in LABELS:
        rows, made = (select(table, name, algorithm=algorithm) for name in ("rollouts", "completions"))
        plotting.band(axis, "n", rows, "from_law", log=True, **look(algorithm))
        points(axis, made, "n", "from_law", True, **look(algorithm, markerfacecolor="white"))
    rows = select(table, "rollouts", algorithm="pmd-part-loo")
    style = plotting.method("pmd-part-loo") | {"linestyle": ":"}
    plotting.band(axis, "n", rows, "from_kl_law", log=True, **style, label="from the KL law")
    log_ticks(axis, rows.n.unique())
    axis.set(xlabel="rollouts a gradient", yscale="log", ylabel="KL divergence", title="distance from the law")
    axis.legend(loc="upper right")


def _fixed_batch(axis, rows):
    names = [name for name in LABELS if (rows.algorithm == name).any()]
    for place, name in enumerate(names):
        some = rows[rows.algorithm == name]
        for column, face in (("r2_law", plotting.method(name)["color"]), (f"r2_{OWN[name]}", "white")):
            missed = some.assign(place=place, missed=(1 - some[column]).clip(lower=ROUNDING))
            points(axis, missed, "place", "missed", True, **look(name, markerfacecolor=face))
    axis.set_xticks(range(len(names)), [LABELS[name].replace(", leave", ",\nleave") for name in names])
    key(axis, "Statement 14", "population law", loc="center")
    axis.set(yscale="log", ylabel="$1-R^2$", title="one fixed batch", xlim=(-0.5, len(names) - 0.5))


def finding(table, prompts):
    """Fresh rollouts and a fixed batch against their laws."""
    sentences = [_rollouts(table), _batch(table)]
    return " ".join(filter(None, sentences)) or "no fit from rollouts is in the tables yet; nothing to compare."


def title(table, prompts):
    """R² against the predicted law from the fewest and the most rollouts, both losses together."""
    rows = select(table, "rollouts")
    if rows.empty:
        return "No network has been fitted to rollouts yet"
    fit = rows.groupby("n").r2_law.min()
    few, many = (f"{fit[n]:.2f} with {n:g}" for n in (fit.index.min(), fit.index.max()))
    return f"A network that sees few rollouts at a time ends near the law of its loss: R² at least {few}, {many}"


def _rollouts(table):
    parts = []
    for experiment, how in (("rollouts", ""), ("completions", ", generated")):
        for algorithm, rows in select(table, experiment).groupby("algorithm"):
            if algorithm in LOSSES:  # like its leave-one-out form
                continue
            each = [
                f"{mean_interval(some.share):.2f} (R² {some.r2_law.mean():.3f}) at n = {n:g}"
                for n, some in rows[rows.n.isin([rows.n.min(), rows.n.max()])].groupby("n")
            ]
            parts.append(f"{LABELS[algorithm].partition(',')[0]}{how} {', '.join(each)}")
    if not parts:
        return ""
    words = f"from fresh rollouts: {parts[0]} ({table.seed.nunique()} seeds). {'; '.join(parts[1:])}"
    return f"f and R² against the predicted law {words}."


def _batch(table):
    rows = select(table, "batch")
    if rows.empty:
        return ""
    population = pd.concat([part[f"r2_{OWN[name]}"] for name, part in rows.groupby("algorithm")])
    return (
        f"One batch: R² at least {rows.r2_law.min():.4f} against Statement 14, at most {population.max():.4f} "
        "against the population law."
    )
