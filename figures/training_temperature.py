"""PMD-mean learns at every temperature; PMD-part fails at low ones, with many rollouts per prompt at more of them.

Preset tiny-cpu with leave-one-out estimators; every batch has 512 rollouts, of 128 prompts × 4 or of 32 × 16, and 8
updates; the learning rate is the preset's, not tuned. Left and middle: accuracy on 500 test prompts after 60
iterations against the temperature τ, avg@8 above and greedy below, n rollouts per prompt, mean and 95% interval over
the seeds, which are the small dots. Dotted: before training; a random digit would be right one time in ten. (c) Share
of the seeds that end below the base. (f) Validation avg@8 of PMD-part over training with n = 16, mean and 95% interval.
"""

from pmdtheory import plotting
from pmdtheory.intervals import SHARE, mean_interval

from .harness import Columns
from .marks import below_base, legend_of, name_of, points

STUDY = "temperature"
TABLES = {
    "study_temperature": Columns("estimator", "tau n seed before/avg@8 before/greedy test/avg@8 test/greedy"),
    "study_temperature_curves": Columns("estimator", "tau n seed iteration validation/avg@8"),
}

ESTIMATORS = ("pmd-mean-loo", "pmd-part-loo")
ROLLOUTS = (4, 16)


def plot(table, curves):
    """Final accuracy over τ, collapse, and PMD-part's training curves."""
    figure, axes = plotting.panels(2, 3, height=2.3)
    for i, name in enumerate(("avg@8", "greedy")):
        for j, n in enumerate(ROLLOUTS):
            axis, rows = axes[3 * i + j], table[table.n == n]
            for estimator in ESTIMATORS:
                mine = rows[rows.estimator == estimator]
                points(axis, mine, "tau", f"test/{name}", SHARE, **plotting.method(estimator))
            axis.axhline(table[f"before/{name}"].mean(), **plotting.BOUND)
            axis.set(title=f"$n={n}$", ylabel=f"{name}, test", ylim=(0, 1.03))
    for n, marks in zip(ROLLOUTS, ({"marker": "s", "markersize": 7, "markerfacecolor": "none"}, {"marker": "o"})):
        for estimator in ESTIMATORS:
            rows = table[(table.n == n) & (table.estimator == estimator)]
            share = below_base(rows).groupby(rows.tau).mean()
            axes[2].plot(share.index, share, **{"markersize": 4} | plotting.method(estimator) | marks)
        axes[2].plot([], [], color="black", linestyle="none", label=f"$n={n}$", **{"markersize": 4} | marks)
    axes[2].set(ylabel="seeds ending below the base", ylim=(-0.05, 1.05))
    axes[2].legend()
    for axis in axes[:5]:
        axis.set(xscale="log", xlabel=r"temperature $\tau$")
        axis.set_xticks(ticks := sorted(table.tau.unique()), [f"{tau:g}" for tau in ticks], minor=False)
        axis.minorticks_off()
    part = curves[(curves.estimator == "pmd-part-loo") & (curves.n == ROLLOUTS[-1])]
    taus = sorted(part.tau.unique())
    for tau, colour in zip(taus, plotting.shades(len(taus))):
        rows, label = part[part.tau == tau], rf"$\tau={tau:g}$"
        plotting.band(axes[5], "iteration", rows, "validation/avg@8", limits=SHARE, color=colour, label=label)
    axes[5].set(xlabel="iteration", ylabel="avg@8, validation", title=f"PMD-part, $n={ROLLOUTS[-1]}$", ylim=(0, 1))
    if taus:
        axes[5].legend(ncols=2, loc=(0.34, 0.52), handlelength=1, columnspacing=0.8)
    figure.legend(handles=legend_of(ESTIMATORS), loc="outside lower center", ncols=2)
    return figure


def finding(table, curves):
    """Accuracy of both estimators at the ends of the temperatures, and where seeds end below the base."""
    coldest, warmest = table.tau.min(), table.tau.max()
    parts = []
    for n in sorted(table.n.unique()):
        both = []
        for tau in dict.fromkeys((coldest, warmest)):
            rows = table[(table.n == n) & (table.tau == tau)].groupby("estimator")["test/avg@8"]
            words = (f"{name_of(name)} {mean_interval(values, SHARE):.2f}" for name, values in rows)
            both.append(f"{', '.join(words)} at τ = {tau:g}")
        parts.append(f"n = {n}: " + "; ".join(both))
    ends = below_base(table).groupby(table.estimator)
    counts = [f"{name_of(name)} {rows.sum()}/{len(rows)}" for name, rows in ends]
    return (
        f"test avg@8, {table['before/avg@8'].mean():.2f} before training. {'. '.join(parts)}. Runs that end below the "
        f"base: {', '.join(counts)}."
    )
