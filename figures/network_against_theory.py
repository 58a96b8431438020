"""A fitted network follows the law of the loss it minimised: on every prompt, and from few rollouts at a time.

A small transformer completes sums: 101 actions, a base p that errs, rewards binary or graded. It is fitted by one outer
step from p to q to the PMD-mean loss or to the log-partition loss. f is 1 on the Lambert-W law of the first and 0 on
the KL law of the second (*network laws*). Where nothing else is said, a value is the median over the prompts of a seed,
then the mean over seeds with its 95% interval (of logarithms, where the axis is logarithmic). (a) f of every prompt,
reward, τ and seed; what lies beyond the axis is counted at its end. (b) KL divergence from both laws while L-BFGS goes
on, graded reward, τ = 0.1. (c, d) n fresh rollouts at every gradient step, graded reward, τ = 0.3: f, dashed the
prediction (Statements 2 and 10; the law's λ over the network's KL(p‖q)), and the divergence from the law of the
estimator. Hollow: completions that the network generated. Dotted: the leave-one-out log-partition from the KL law. (e)
One fixed batch of rollouts: share of the variance of log(q/p), on the actions drawn, that Statement 14 (filled) and the
population law (hollow) miss.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting
from pmdtheory.intervals import mean_interval

from .harness import Columns
from .marks import key
from .network import (
    CELLS,
    LABELS,
    LOSSES,
    OTHER,
    OWN,
    SHARES,
    SHOWN,
    STUDY,
    handles,
    laws,
    log_ticks,
    look,
    points,
    select,
)  # fmt: skip

__all__ = ["STUDY", "TABLES", "finding", "plot"]

TABLES = {
    "validate": CELLS,
    "validate_prompts": Columns("experiment algorithm reward", "tau seed share"),
    "validate_steps": Columns("experiment algorithm reward", "tau seed evaluations"),
}

ROUNDING = 1e-8
"""Of an R² near 1, as the tables hold it."""


def plot(table, prompts, steps):
    """Five panels, those whose experiment is there."""
    figure, axes = plotting.panels(2, 3, height=2.3)
    axes[5].axis("off")
    axes[5].set_title("", loc="left")
    axes[5].legend(handles=handles(), loc="center left")
    for axis, rows, draw in (
        (axes[0], select(prompts, "population"), _histogram),
        (axes[1], select(steps, "population", **SHOWN), _over_steps),
        (axes[4], select(table, "batch"), _fixed_batch),
    ):
        if len(rows):
            draw(axis, rows)
    if len(select(table, "rollouts")):
        _share_over_rollouts(axes[2], table, prompts)
        _divergence_over_rollouts(axes[3], table)
    return figure


def _histogram(axis, rows):
    edges = np.arange(-0.11, 1.12, 0.02)
    for algorithm in LOSSES:
        share = rows[rows.algorithm == algorithm].share.clip(-0.1, 1.1)
        axis.hist(share, edges, color=plotting.method(algorithm)["color"], alpha=0.85)
    for law, name, shift, side in (("lambert", "Lambert-W law", -0.06, "right"), ("kl_law", "KL law", 0.06, "left")):
        where = {"transform": axis.get_xaxis_transform(), "color": plotting.LAWS[law]["color"], "fontsize": 7}
        axis.text(SHARES[law] + shift, 0.9 + shift, name, ha=side, **where)
    axis.set(yscale="log", ylim=(0.7, None), xlabel="slope $f$ of a prompt", ylabel="prompts")


def _over_steps(axis, rows):
    for algorithm in LOSSES:
        some, own = rows[rows.algorithm == algorithm], OWN[algorithm]
        for law, dashes in ((own, "-"), (OTHER[own], ":")):
            style = {"color": plotting.method(algorithm)["color"], "linestyle": dashes}
            plotting.band(axis, "evaluations", some, f"from_{law}", log=True, **style)
    for dashes, text in (("-", "its own law"), (":", "the other law")):
        axis.plot([], [], dashes, color="black", label=text)
    axis.set(yscale="log", xlabel="gradients", ylabel="KL from a law")
    axis.legend(loc="center right")


def _share_over_rollouts(axis, table, prompts):
    for algorithm in LABELS:
        plotting.band(axis, "n", select(table, "rollouts", algorithm=algorithm), "share", **look(algorithm))
        made = select(table, "completions", algorithm=algorithm)
        points(axis, made, "n", "share", **look(algorithm, markerfacecolor="white"))
    part = select(prompts.assign(predicted=prompts.weight / prompts.reverse_kl), "rollouts", algorithm="pmd-part-loo")
    predicted = part.groupby("n").predicted.median()
    axis.plot(predicted.index, predicted, color="black", linestyle="--", linewidth=0.8, label="predicted")
    axis.axhline(1, color="black", linestyle="--", linewidth=0.8, zorder=1)
    laws(axis, 0.95)
    log_ticks(axis, select(table, "rollouts").n.unique())
    axis.legend(loc="center right")
    axis.set(xlabel="rollouts $n$", ylabel="slope $f$")


def _divergence_over_rollouts(axis, table):
    for algorithm in LABELS:
        rows, made = (select(table, name, algorithm=algorithm) for name in ("rollouts", "completions"))
        plotting.band(axis, "n", rows, "from_law", log=True, **look(algorithm))
        points(axis, made, "n", "from_law", True, **look(algorithm, markerfacecolor="white"))
    rows = select(table, "rollouts", algorithm="pmd-part-loo")
    style = plotting.method("pmd-part-loo") | {"linestyle": ":"}
    plotting.band(axis, "n", rows, "from_kl_law", log=True, **style, label="from the KL law")
    log_ticks(axis, rows.n.unique())
    axis.set(xlabel="rollouts $n$", yscale="log", ylabel="KL from the predicted law")
    axis.legend(loc="upper right")


def _fixed_batch(axis, rows):
    names = [name for name in LABELS if (rows.algorithm == name).any()]
    for place, name in enumerate(names):
        some = rows[rows.algorithm == name]
        for column, face in (("r2_law", plotting.method(name)["color"]), (f"r2_{OWN[name]}", "white")):
            missed = some.assign(place=place, missed=(1 - some[column]).clip(lower=ROUNDING))
            points(axis, missed, "place", "missed", True, **look(name, markerfacecolor=face))
    axis.set_xticks(range(len(names)), [LABELS[name].replace(", ", ",\n") for name in names])
    key(axis, "Statement 14", "population law", loc="center")
    axis.set(yscale="log", ylabel="$1-R^2$, one batch", xlim=(-0.5, len(names) - 0.5))


def finding(table, prompts, steps):
    """Single prompts, fresh rollouts and a fixed batch against their laws."""
    sentences = [_single(prompts), _rollouts(table), _batch(table)]
    return f"{table.seed.nunique()} seeds. " + " ".join(filter(None, sentences))


def _single(prompts):
    rows = select(prompts, "population")
    if rows.empty:
        return ""
    within = (rows.share - rows.algorithm.map(OWN).map(SHARES)).abs() < 0.02
    return f"{within.mean():.0%} of the prompts have f within 0.02 of their law's."


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
    return f"f and R² against the predicted law from fresh rollouts: {'; '.join(parts)}." if parts else ""


def _batch(table):
    rows = select(table, "batch")
    if rows.empty:
        return ""
    population = pd.concat([part[f"r2_{OWN[name]}"] for name, part in rows.groupby("algorithm")])
    return (
        f"One batch: R² at least {rows.r2_law.min():.4f} against Statement 14, at most {population.max():.4f} "
        "against the population law."
    )
