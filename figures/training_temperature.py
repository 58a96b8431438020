"""PMD-mean and PMD-part at four temperatures, with few and many rollouts per prompt.

Preset tiny-cpu with leave-one-out estimators; every batch has 512 rollouts, of 128 prompts × 4 or of 32 × 16, and 8
updates; the learning rate is the preset's, not tuned. (a, b) Accuracy of samples (avg@8) on 500 test prompts after 60
iterations against the temperature τ, interquartile mean and its 95% bootstrap interval over the seeds, which are the
small dots; a random digit would be right one time in ten. (c) Share of the seeds that end below the base, with exact
95% intervals. (d) Validation avg@8 of PMD-part over training with 16 rollouts per prompt, mean and 95% interval. The
tables have greedy accuracies too.
"""

import numpy as np

from pmdtheory import plotting
from pmdtheory.intervals import SHARE, interquartile_mean, proportion

from .harness import Columns
from .marks import above, before, below_base, legend_of, middles, name_of

STUDY = "temperature"
TABLES = {
    "study_temperature": Columns("estimator", "tau n seed before/avg@8 before/greedy test/avg@8 test/greedy"),
    "study_temperature_curves": Columns("estimator", "tau n seed iteration validation/avg@8"),
}

ESTIMATORS = ("pmd-mean-loo", "pmd-part-loo")
ROLLOUTS = (4, 16)
SETTING = ["tau", "n"]


def plot(table, curves):
    """Final accuracy over τ, collapse, and PMD-part's training curves."""
    figure, axes = plotting.panels(2, 2, height=2.2)
    for axis, n in zip(axes, ROLLOUTS):
        rows = table[table.n == n]
        for estimator in ESTIMATORS:
            mine = rows[rows.estimator == estimator]
            middles(axis, mine, "tau", "test/avg@8", **plotting.method(estimator))
        before(axis, table["before/avg@8"].mean())
        axis.set(title=f"{n} rollouts per prompt", ylabel="test accuracy", ylim=(0, 1.05))
    for n, marks in zip(ROLLOUTS, ({"marker": "s", "markersize": 5, "markerfacecolor": "white"}, {"marker": "o"})):
        for shift, estimator in zip((0.94, 1.06), ESTIMATORS):
            rows = table[(table.n == n) & (table.estimator == estimator)]
            ends = below_base(rows).groupby(rows.tau).agg(["sum", "size", "mean"])
            error = abs(np.array(proportion(ends["sum"], ends["size"])) - ends["mean"].to_numpy())
            look = {"markersize": 4, "elinewidth": 0.8} | plotting.method(estimator) | marks
            place = ends.index * shift * (0.98 if n == ROLLOUTS[0] else 1.02)
            axes[2].errorbar(place, ends["mean"], error, **look)
        label = f"{n} rollouts per prompt"
        axes[2].plot([], [], color="black", linestyle="none", label=label, **{"markersize": 4} | marks)
    axes[2].set(ylabel="share of the seeds", title="runs that end below the base", ylim=(-0.07, 1.45))
    axes[2].set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes[2].legend(loc="upper right")
    for axis in axes[:3]:
        axis.set(xscale="log", xlabel=r"temperature $\tau$")
        axis.set_xticks(ticks := sorted(table.tau.unique()), [f"{tau:g}" for tau in ticks], minor=False)
        axis.minorticks_off()
    part = curves[(curves.estimator == "pmd-part-loo") & (curves.n == ROLLOUTS[-1])]
    taus = sorted(part.tau.unique())
    for tau, colour in zip(taus, plotting.tints(plotting.BLUE, len(taus))):
        rows, label = part[part.tau == tau], rf"$\tau={tau:g}$"
        plotting.band(axes[3], "iteration", rows, "validation/avg@8", limits=SHARE, color=colour, label=label)
    title = f"PMD-part while training, {ROLLOUTS[-1]} rollouts"
    axes[3].set(xlabel="iteration", ylabel="validation accuracy", title=title, ylim=(0, 1.4))
    axes[3].set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    if taus:
        axes[3].legend(ncols=2, loc="upper left")
    figure.legend(handles=legend_of(ESTIMATORS), loc="outside lower center", ncols=2)
    return figure


def title(table, curves):
    """How many runs of either estimator end above the base, and up to which temperature one ends below it."""
    parts, low = [], table[below_base(table)]
    for estimator in ESTIMATORS:
        above = ~below_base(table[table.estimator == estimator])
        if len(above):
            parts.append(f"with {name_of(estimator)} {above.sum()} of {len(above)}")
    none = f"; none at τ > {low.tau.max():g} ends below" if len(low) and low.tau.max() < table.tau.max() else ""
    return f"Of the runs at {table.tau.nunique()} temperatures {', '.join(parts)} end above their base{none}"


def finding(table, curves):
    """Accuracy of both estimators at the ends of the temperatures, and where seeds end below the base."""
    coldest, warmest = table.tau.min(), table.tau.max()
    parts = []
    for n in sorted(table.n.unique()):
        both = []
        for tau in dict.fromkeys((coldest, warmest)):
            rows = table[(table.n == n) & (table.tau == tau)].groupby("estimator")["test/avg@8"]
            words = (f"{name_of(name)} {interquartile_mean([values]):.2f}" for name, values in rows)
            both.append(f"{', '.join(words)} at τ = {tau:g}")
        parts.append(f"n = {n}: " + "; ".join(both))
    ends = below_base(table).groupby(table.estimator)
    counts = [f"{name_of(name)} {rows.sum()}/{len(rows)}" for name, rows in ends]
    return (
        f"interquartile means of test avg@8, {table['before/avg@8'].mean():.2f} before training; {'. '.join(parts)}. "
        f"Runs that end below the base: {', '.join(counts)}. A run of PMD-mean ends above one of PMD-part in the same "
        f"setting with probability {above(table.assign(method=table.estimator), *ESTIMATORS, SETTING, 'test/avg@8')}."
    )
