"""What an update costs and how that grows: ours, what a user would take instead, and the floor."""

import pandas as pd

from pmdtheory import plotting

from .updates import COMPILED, NUMPY, PEERS, PER_CONTEXT, SOFTMAX

__all__ = ["picture"]

LINES = {
    COMPILED: ("o-", plotting.VERMILION),
    NUMPY: ("s-", plotting.BLUE),
    **dict(zip(PEERS, (("D--", plotting.GREEN), ("v--", plotting.PURPLE), ("P--", plotting.ORANGE)))),
    SOFTMAX: ("^:", plotting.GREY),
}
"""Marks and colors of what is compared; the softmax of the same array is the floor."""
OURS, THEIRS = "optimal", "QuantEcon"


def picture(table):
    """Nanoseconds per action of PMD-mean, seconds of an optimum by states, and how many softmaxes an update costs."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10.5, 7.0), layout="constrained")
    rows = shaped(table)
    growth(axes[0, 0], rows[rows.contexts == 1], "actions", "actions of one context")
    growth(axes[0, 1], rows[rows.actions == 10], "contexts", "contexts of ten actions")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    states(axes[1, 0], table)
    wide = rows[(rows.contexts * rows.actions == 10**6) & rows.path.isin([COMPILED, NUMPY]) & (rows.peer == SOFTMAX)]
    softmaxes(axes[1, 1], wide)
    of = {path: wide.ratio[(wide.what == "PMD-mean") & (wide.path == path)] for path in (COMPILED, NUMPY)}
    cost = [f"{path} {ratio.min():.0f} to {ratio.max():.0f}" for path, ratio in of.items() if len(ratio)]
    figure.suptitle(f"Softmaxes that a PMD-mean update of a million numbers costs: {', '.join(cost)}")
    return figure


def shaped(table):
    """Rows of updates with their numbers of contexts and actions, and τ."""
    shape = table["size"].str.extract(r"^([\d,]+) × ([\d,]+), tau ([\d.]+)$")
    shape = shape.apply(lambda column: pd.to_numeric(column.str.replace(",", "")))
    return table.assign(contexts=shape[0], actions=shape[1], tau=shape[2]).dropna(subset=["contexts"])


def growth(axis, rows, x, label):
    """Nanoseconds per action at small τ, against the number of actions or of contexts."""
    rows = rows[(rows.tau < 0.1) & rows.what.isin(["PMD-mean", PER_CONTEXT])]
    for path, (line, color) in LINES.items():
        own = rows[rows.path.str.startswith(path) & (rows.what == (PER_CONTEXT if path in PEERS else "PMD-mean"))]
        own = own.drop_duplicates(["contexts", "actions"]).sort_values(x)
        numbers = own.actions if path in PEERS else own.contexts * own.actions
        axis.plot(own[x], 1e9 * own.seconds / numbers, line, color=color, label=path)
    axis.set(xscale="log", yscale="log", xlabel=label, ylabel="PMD-mean, ns per action")


def states(axis, table):
    """Seconds of the optimum of a gridworld."""
    rows = table[table.what == "optimum of a gridworld"]
    rows = rows.assign(states=pd.to_numeric(rows["size"].str.extract(r"^([\d,]+)")[0].str.replace(",", "")))
    for path, (line, color) in {OURS: LINES[COMPILED], THEIRS: LINES["CVXPY, one batched problem"]}.items():
        own = rows[rows.path.str.startswith(path)].sort_values("states")
        certificates = own.path.str.extract(r"certificate (\S+)$")[0].astype(float)
        axis.plot(own.states, own.seconds, line, color=color, label=f"{path}, to {certificates.max():.0e}")
    axis.set(xscale="log", yscale="log", xlabel="states of a gridworld", ylabel="optimum, seconds")
    axis.legend()


def softmaxes(axis, rows):
    """What each update costs at all shapes and temperatures of a million numbers."""
    whats = list(dict.fromkeys(rows.what))
    for path in (COMPILED, NUMPY):
        own, (line, color) = rows[rows.path == path], LINES[path]
        axis.plot(own.ratio, [len(whats) - whats.index(what) for what in own.what], line[0], color=color, alpha=0.7)
    axis.axvline(1, color=plotting.GREY, linestyle=":")
    axis.set(xscale="log", xlabel="times a softmax, a million numbers", yticks=range(len(whats), 0, -1))
    axis.set_yticklabels(whats)
