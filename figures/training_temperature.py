"""PMD-part against PMD-mean on a language model: temperature and rollouts per prompt.

Preset tiny-cpu with leave-one-out estimators; every batch has 512 rollouts, of 128 prompts × 4 or of 32 × 16, and 8
updates; the learning rate is the preset's, not tuned. Left and middle: accuracy on 500 test prompts after 60
iterations against the temperature τ, avg@8 above and greedy below, mean and 95% interval over the seeds, which are the
small dots. Dotted: before training; a random digit would be right one time in ten. (c) Share of the seeds that end
below the base. (f) Validation avg@8 of PMD-part over training with n = 16, mean and 95% interval.
"""

from pmdtheory import plotting
from pmdtheory.intervals import half_width

STUDY = "temperature"
TABLES = ("study_temperature", "study_temperature_curves")

ROLES = {
    "pmd-mean-loo": {"color": plotting.VERMILION, "linestyle": "-"},
    "pmd-part-loo": {"color": plotting.BLUE, "linestyle": "--"},
}
LABELS = {"pmd-mean-loo": "PMD-mean", "pmd-part-loo": "PMD-part"}
ROLLOUTS = (4, 16)


def summary(rows, x, column):
    """Mean and half-width of the 95% interval of a column for each value of `x`; NaN for a single seed."""
    group = rows.groupby(x)[column]
    return group.mean(), half_width(group.std(ddof=1), group.count())


def said(mean, half):
    """Mean and interval in words."""
    return f"{mean:.2f} ± {half:.2f}" if half == half else f"{mean:.2f} (one seed)"


def points(axis, rows, x, column, **style):
    """Draw a mean with its 95% interval for each value of `x`, and every seed as a small dot."""
    mean, half = summary(rows, x, column)
    axis.errorbar(mean.index, mean, half, marker="o", markersize=3.5, elinewidth=0.9, capsize=2, **style)
    axis.plot(rows[x], rows[column], ".", color=style["color"], markersize=2.5, alpha=0.5)


def plot(table, curves):
    """Final accuracy over τ, collapse, and PMD-part's training curves."""
    figure, axes = plotting.panels(2, 3, height=2.3)
    for i, name in enumerate(("avg@8", "greedy")):
        for j, n in enumerate(ROLLOUTS):
            axis, rows = axes[3 * i + j], table[table.n == n]
            for estimator, role in ROLES.items():
                points(axis, rows[rows.estimator == estimator], "tau", f"test/{name}", **role)
            axis.axhline(table[f"before/{name}"].mean(), **plotting.BOUND)
            axis.set(title=f"$n={n}$", ylabel=f"{name}, test", ylim=(0, 1))
    for n, marks in zip(ROLLOUTS, ({"marker": "s", "markersize": 7, "markerfacecolor": "none"}, {"marker": "o"})):
        for estimator, role in ROLES.items():
            share = collapsed(table[(table.n == n) & (table.estimator == estimator)])
            axes[2].plot(share.index, share, **{"markersize": 4} | role | marks)
        axes[2].plot([], [], color="black", linestyle="none", label=f"$n={n}$", **{"markersize": 4} | marks)
    axes[2].set(ylabel="seeds ending below the base", ylim=(-0.05, 1.05))
    axes[2].legend()
    for axis in axes[:5]:
        axis.set(xscale="log", xlabel=r"temperature $\tau$")
        axis.set_xticks(ticks := sorted(table.tau.unique()), [f"{tau:g}" for tau in ticks], minor=False)
        axis.minorticks_off()
    part = curves[(curves.estimator == "pmd-part-loo") & (curves.n == ROLLOUTS[-1])].dropna(subset="validation/avg@8")
    taus = sorted(part.tau.unique())
    for tau, colour in zip(taus, plotting.shades(len(taus))):
        label = rf"$\tau={tau:g}$"
        plotting.band(
            axes[5], "iteration", part[part.tau == tau], "validation/avg@8", by="seed", color=colour, label=label
        )
    axes[5].set(xlabel="iteration", ylabel="avg@8, validation", title=f"PMD-part, $n={ROLLOUTS[-1]}$", ylim=(0, 1))
    if taus:
        axes[5].legend()
    handles = [axes[0].plot([], [], marker="o", markersize=3.5, **role)[0] for role in ROLES.values()]
    figure.legend(handles, LABELS.values(), loc="outside lower center", ncols=2)
    return figure


def collapsed(rows):
    """Share of the seeds that end below the base, for each τ."""
    return (rows["test/avg@8"] < rows["before/avg@8"]).groupby(rows.tau).mean()


def finding(table, curves):
    """Accuracy of both estimators in every setting, and where seeds end below the base."""
    parts = []
    for n in sorted(table.n.unique()):
        both = []
        for estimator, label in LABELS.items():
            rows = table[(table.n == n) & (table.estimator == estimator)]
            mean, half = summary(rows, "tau", "test/avg@8")
            both.append(f"{label} " + ", ".join(f"{said(mean[tau], half[tau])} at {tau:g}" for tau in mean.index))
        parts.append(f"n = {n}: " + "; ".join(both))
    below = table[table["test/avg@8"] < table["before/avg@8"]]
    counts = [
        f"{label} {int((below.estimator == estimator).sum())} of {int((table.estimator == estimator).sum())} runs"
        for estimator, label in LABELS.items()
    ]
    before = table["before/avg@8"]
    return (
        f"test avg@8, {before.mean():.2f} before training and after it, by tau, with 95% intervals: "
        + ". ".join(parts)
        + f". Below the base end: {', '.join(counts)}."
    )
