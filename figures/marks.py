"""Marks and words that several figures share: means with intervals beside each other, what filled and hollow mean."""

import numpy as np
import pandas as pd

from pmdtheory import plotting
from pmdtheory.comparisons import improvement
from pmdtheory.intervals import ANYTHING, interquartile_mean, over_seeds
from pmdtheory.plotting import NAMES
from pmdtheory.survival import Costs, restricted_mean

UPDATES = {"mean": ("PMD-mean", plotting.MEAN), "kl": ("KL update", plotting.KL)}
"""Name and line of the two exact updates, by their names in the tables."""

LAWS = {
    "on-policy": plotting.KL,
    "pmd-mean": plotting.MEAN,
    **{
        name: {"color": colour, "linewidth": 1.0}
        for name, colour in {
            "two-temperatures": plotting.ORANGE,
            "truncated-importance": plotting.SKY,
            "standardised": plotting.GREEN,
            "quantile": plotting.PURPLE,
            "cfpo": plotting.BLACK,
            "asymre": plotting.OLIVE,
            "kimi-k2.5": plotting.WINE,
        }.items()
    },
    "fixed-chi2": {"color": plotting.TEAL, "linestyle": "-.", "linewidth": 1.0},
}
"""Line of each law of the family that figures draw together."""


def by_temperature(taus):
    """Line of each update at each temperature: its own colour, the darker the colder; the keys are (update, τ)."""
    return {
        (update, tau): role | {"color": tint}
        for update, (_, role) in UPDATES.items()
        for tau, tint in zip(taus, plotting.tints(role["color"], len(taus)))
    }


def legend_by_temperature(taus):
    """Lines for a legend with a column for each temperature and a row for each update."""
    lines = by_temperature(taus)
    return [
        plotting.line(label=rf"{name}, $\tau={tau:.2g}$", **lines[update, tau])
        for tau in taus
        for update, (name, _) in UPDATES.items()
    ]


def name_of_law(law):
    """Name of a law of the family in a picture."""
    return {"on-policy": "KL law", "pmd-mean": "PMD-mean", "cfpo": "CFPO", "asymre": "AsymRE"}.get(law, law)


def name_of(method, names=NAMES):
    """Name of a method; of one that no figure knows, what its table calls it."""
    return names.get(method, method)


def points(axis, rows, x, column, limits=ANYTHING, log=False, dots=True, **style):
    """Draw a mean with its 95% interval over seeds for each value of `x`, and every seed as a small dot."""
    means = over_seeds(rows, x, column, log=log, limits=limits)
    ends = [means["mean"] - means.low, means.high - means["mean"]]
    look = {"marker": "o", "markersize": 3.5, "elinewidth": 0.9, "capsize": 2} | style
    axis.errorbar(means.index, means["mean"], ends, **look)
    if dots:
        axis.plot(rows[x], rows[column], ".", color=style["color"], markersize=2.5, alpha=0.5)


def strata(rows, column, *by):
    """The values of a column in each setting, the runs within it being alike."""
    return [some[column].to_numpy() for _, some in rows.groupby(list(by))] if by else [rows[column].to_numpy()]


def middles(axis, rows, x, column, **style):
    """Draw an interquartile mean with its interval over seeds for each value of `x`, and every seed as a small dot."""
    found = {at: interquartile_mean(strata(some, column)) for at, some in rows.groupby(x)}
    ends = [[at.value - at.low for at in found.values()], [at.high - at.value for at in found.values()]]
    look = {"marker": "o", "markersize": 3.5, "elinewidth": 0.9, "capsize": 2} | style
    axis.errorbar(list(found), [at.value for at in found.values()], ends, **look)
    axis.plot(rows[x], rows[column], ".", color=style["color"], markersize=2.5, alpha=0.5)


def side_by_side(axis, rows, by, methods, column, values, name, **style):
    """Draw a point with its interval for each method, beside each other at each value of a column."""
    for i, method in enumerate(methods):
        own = rows[rows[by] == method]
        place = own[column].map({value: at + 0.18 * (i - (len(methods) - 1) / 2) for at, value in enumerate(values)})
        middles(axis, own.assign(place=place), "place", name, **plotting.method(method) | style)
    axis.set_xticks(range(len(values)), values)
    axis.set(xlim=(-0.5, len(values) - 0.5))


def forest(axis, rows, by, methods, columns, names):
    """Draw a row for each method, the first one on top: an interquartile mean for each column, its interval, the seeds.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    rows : pandas.DataFrame
        A row of each method and seed.
    by : str
        Column that names the method.
    methods : dict
        Method → colour.
    columns : dict
        Column of the accuracy → colour of the marker's face, or None for the method's.
    names : dict
        Method → its name on the axis.
    """
    for place, (method, colour) in enumerate(methods.items()):
        some = rows[rows[by] == method]
        for i, (column, face) in enumerate(columns.items()):
            at = place + 0.24 * (i - (len(columns) - 1) / 2)
            if some[column].notna().any():
                mean = interquartile_mean(strata(some, column))
                ends = [[mean.value - mean.low], [mean.high - mean.value]]
                axis.errorbar(
                    mean.value, at, xerr=ends, fmt="o", markersize=3.5, capsize=2, elinewidth=0.9, color=colour,
                    markerfacecolor=face or colour,
                )  # fmt: skip
                axis.plot(some[column], [at] * len(some), ".", color=colour, markersize=2.5, alpha=0.5)
    axis.set_yticks(range(len(methods)), [names[method] for method in methods])
    axis.set(ylim=(len(methods) - 0.5, -0.5))


def aggregates(axes, rows, methods, by, column, names=NAMES):
    """Draw, over the settings that all methods have, interquartile means, and how likely the first is above each other.

    Parameters
    ----------
    axes : pair of matplotlib.axes.Axes
    rows : pandas.DataFrame
        Runs, a row each, with a column ``method``.
    methods : sequence of str
    by : list of str
        Columns of a setting, within which runs are drawn anew.
    column : str
        What is compared.
    """
    rows = shared(rows, methods, by)
    for place, method in enumerate(methods):
        own, colour = strata(rows[rows.method == method], column, *by), plotting.method(method)["color"]
        drawn = [(axes[0], interquartile_mean(own))]
        if place:
            first = strata(rows[rows.method == methods[0]], column, *by)
            drawn.append((axes[1], improvement(first, own)))
        for axis, found in drawn:
            ends = [[found.value - found.low], [found.high - found.value]]
            look = {"fmt": "o", "markersize": 3.5, "capsize": 2, "elinewidth": 0.9}
            axis.errorbar(found.value, place, xerr=ends, color=colour, **look)
    axes[0].set_yticks(range(len(methods)), [name_of(method, names) for method in methods])
    axes[0].set(ylim=(len(methods) - 0.5, -0.5))
    axes[1].set_yticks(range(1, len(methods)), [name_of(method, names) for method in methods[1:]])
    axes[1].set(ylim=(len(methods) - 0.5, 0.5), xlim=(0, 1))
    axes[1].axvline(0.5, **plotting.BOUND)


def above(rows, ours, theirs, by, column):
    """Probability that a run of one method ends above one of another in the same setting, in words."""
    rows = shared(rows, (ours, theirs), by)
    if rows.empty:
        return "–"
    return f"{improvement(*(strata(rows[rows.method == name], column, *by) for name in (ours, theirs))):.2f}"


def shared(rows, methods, by):
    """Rows of these methods in the settings that all of them have."""
    rows = rows[rows.method.isin(methods)]
    return rows[rows.groupby(by).method.transform("nunique") == len(methods)]


def legend_of(methods, names=NAMES, **style):
    """Lines for a legend of these methods."""
    look = {"marker": "o", "markersize": 3.5}
    return [plotting.line(label=name_of(method, names), **look | plotting.method(method) | style) for method in methods]


def key(axis, filled, hollow, colour="black", **where):
    """Say what filled and hollow markers stand for."""
    for face, text in ((colour, filled), ("none", hollow)):
        axis.plot([], [], "o", color=colour, markersize=3.5, markerfacecolor=face, label=text)
    axis.legend(handletextpad=0.1, borderpad=0.2, **where)


def below_base(rows):
    """Which runs end with a lower test accuracy than they began with."""
    return rows["test/avg@8"] < rows["before/avg@8"]


def accuracies(rows, by, names=NAMES):
    """Interquartile mean of test avg@8 of each method in words, best first."""
    estimates = {name: interquartile_mean(strata(some, "test/avg@8")) for name, some in rows.groupby(by)}
    order = sorted(estimates, key=lambda name: -estimates[name].value)
    return ", ".join(f"{name_of(name, names)} {estimates[name]:.2f}" for name in order)


def before(axis, height, x=0.98, side="right"):
    """Draw the accuracy before training, and name it."""
    axis.axhline(height, **plotting.BOUND)
    where = {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points", "fontsize": 7.5, "ha": side}
    axis.annotate("before training", (x, height), (0, 2), **where)


def span(values, digits):
    """The range of some numbers in words; one number if both ends read the same."""
    low, high = (f"{end:.{digits}f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def reaching(curves, keys, column, target, cost="tokens"):
    """Cost at which a column of the curves first reaches a target, interpolated between its values, a row for each run.

    Returns
    -------
    pandas.DataFrame
        The columns `keys`, which identify a run; the column `cost`, NaN if the target is not reached; ``budget``, the
        cost of the whole training.
    """
    costs = []
    for key, rows in curves.dropna(subset=column).groupby(list(keys)):
        rows = rows.sort_values("iteration")
        x, y = rows[cost].to_numpy(dtype=float), rows[column].to_numpy()
        first = int(np.argmax(y >= target))
        if y[first] < target:
            spent = np.nan
        else:
            spent = np.interp(target, y[first - 1 : first + 1], x[first - 1 : first + 1]) if first else x[0]
        costs.append([*key, spent, x[-1]])
    return pd.DataFrame(costs, columns=[*keys, cost, "budget"])


def costs_of(rows, cost="tokens"):
    """The costs of some rows of `reaching`, those that are cut short among them."""
    return Costs.of(rows[cost], rows.budget)


def horizon(rows, by=("method",), cost="tokens"):
    """How far the restricted means of all cells are known: to the largest budget of one whose last run is cut short."""
    spent = rows.assign(spent=rows[cost].fillna(rows.budget))
    last = spent.sort_values(["spent", cost]).groupby(list(by)).tail(1)  # of equal ones one that is cut short
    return last.budget[last[cost].isna()].min() if last[cost].isna().any() else rows.budget.max()


def restricted(rows, end, cost="tokens"):
    """Restricted mean in thousands, its interval, and k of m that reach the target, in words."""
    if rows.empty:
        return "–"
    found = restricted_mean(Costs.of(rows[cost] / 1e3, rows.budget / 1e3), end / 1e3)
    return f"{found:.0f} ({rows[cost].notna().sum()}/{len(rows)})"


def survivals(axis, rows, methods, column, values, width=0.18, cost="tokens"):
    """Draw restricted means of costs with their intervals, in thousands, a dot for each run that reaches the target.

    A triangle above its budget is a run that does not; methods lie beside each other at each value of a column.
    """
    for at, value in enumerate(values):
        cells = rows[rows[column] == value]
        for i, method in enumerate(methods):
            colour, some = plotting.method(method)["color"], cells[cells.method == method]
            place = at + width * (i - (len(methods) - 1) / 2)
            if some.empty:
                continue
            there, late = some[cost].dropna() / 1e3, some.budget[some[cost].isna()] / 1e3
            axis.plot([place] * len(there), there, ".", color=colour, markersize=3, alpha=0.6)
            heights = late.max() * (1.04 + 0.035 * np.arange(len(late)))
            axis.plot([place] * len(late), heights, "^", color=colour, markersize=3.5, markerfacecolor="none")
            found = restricted_mean(costs_of(some, cost), horizon(cells, cost=cost))
            ends = [[(found.value - found.low) / 1e3], [(found.high - found.value) / 1e3]]
            look = {"marker": "_", "markersize": 9, "markeredgewidth": 1.3, "elinewidth": 0.9}
            axis.errorbar(place, found.value / 1e3, ends, color=colour, **look)
    axis.set_xticks(range(len(values)), values)
    axis.set(xlim=(-0.5, len(values) - 0.5), ylim=(0, None), ylabel="thousands")


def survival_marks():
    """Lines for a legend of `survivals`."""
    look = {"color": "black", "linestyle": "none"}
    return [
        plotting.line(label="restricted mean", marker="_", markersize=9, **look),
        plotting.line(label="seed that does not get there", marker="^", markersize=3.5, markerfacecolor="none", **look),
    ]
