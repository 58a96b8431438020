"""Prompts that an update does not see obey the law of its loss, once it sees enough others.

A transformer of 70,000 parameters that can add (the sums of *network laws*, the units of an answer before its tens; the
network wider, its warm-up longer and by Muon) is fitted by one outer step, and Muon again, to the PMD-mean or the
log-partition loss on 64, 512 or 5,000 of the 10,000 sums: graded reward, τ = 0.3, population loss, 64 prompts a step.
The warm-up has demonstrations of all sums, so unseen are those that the update leaves out. f is 1 on the Lambert-W law
of the first and 0 on the KL law of the second. A value is the median over 64 prompts of a seed, then the mean over
seeds with its 95% interval. (a, b) On unseen prompts, f and the share of the variance of log(q/p) that the law misses,
while a fit goes on: its rate falls to 0 along a cosine, so a fit of fewer steps would end better than what is drawn at
its step. (c, d) The same at the end, on training prompts (filled) and unseen (hollow).
"""

from pmdtheory import plotting
from pmdtheory.intervals import mean_interval

from .harness import Columns
from .marks import key
from .network import LABELS, LOSSES, OWN, handles, laws, log_ticks, look, on_law, select

__all__ = ["NEAR", "R2", "STUDY", "TABLES", "finding", "last", "plot"]

STUDY = "validate_held_out"
CELL = "tau n size seed share r2_law"
TABLES = {
    "validate_held_out": Columns("experiment algorithm reward split", CELL),
    "validate_held_out_steps": Columns("experiment algorithm reward split", f"{CELL} evaluations"),
}
NEAR, R2 = 0.05, 0.98
"""Tolerances of `network.on_law`."""
ENDS = {"train": None, "held-out": "white"}


def plot(table, steps):
    """Four panels: f and what the law misses, over gradient steps and over training prompts."""
    figure, axes = plotting.panels(2, 2, height=2.3)
    table, steps = (missed(select(rows, "held-out")) for rows in (table, steps))
    unseen = steps[steps.split == "held-out"]
    sizes = sorted(table["size"].unique())
    for algorithm in LOSSES:
        colours = plotting.tints(plotting.method(algorithm)["color"], len(sizes))[::-1]
        for size, colour in zip(sizes, colours):
            rows = unseen[(unseen.algorithm == algorithm) & (unseen["size"] == size)]
            style = look(algorithm, color=colour, marker="", label=f"{LABELS[algorithm]}, {size:,}")
            plotting.band(axes[0], "evaluations", rows, "share", **style)
            plotting.band(axes[1], "evaluations", rows, "missed", log=True, **style)
        for split, face in ENDS.items():
            rows = table[(table.algorithm == algorithm) & (table.split == split)]
            style = look(algorithm, markerfacecolor=face or plotting.method(algorithm)["color"])
            plotting.band(axes[2], "size", rows, "share", **style)
            plotting.band(axes[3], "size", rows, "missed", log=True, **style)
    for axis in axes[::2]:
        laws(axis)
        axis.set(ylabel="slope $f$", ylim=(-1.2, 3.0))
    for axis in axes[1::2]:
        axis.axhline(1 - R2, color="black", linewidth=0.6, linestyle=":")
        axis.set(ylabel="$1-R^2$", yscale="log")
    for axis, title in zip(axes[:2], ("unseen prompts: which law", "unseen prompts: how close")):
        axis.set(xlabel="gradient steps", xscale="log", title=title)
    for axis, title in zip(axes[2:], ("at the end: which law", "at the end: how close")):
        log_ticks(axis, sizes)
        axis.set(xlabel="training prompts", title=title)
    axes[0].legend(loc="upper left", fontsize=6, ncols=2, title="loss, training prompts", title_fontsize=6)
    key(axes[2], "trained on", "unseen", loc="lower right")
    figure.legend(handles=handles(LOSSES), loc="outside lower center", ncols=2)
    return figure


def missed(rows):
    """Rows with what their law misses of the variance."""
    return rows.assign(missed=1 - rows.r2_law)


def last(table, split="held-out"):
    """Rows of the most training prompts on a split."""
    rows = select(table, "held-out", split=split)
    return rows[rows["size"] == rows["size"].max()]


def title(table, steps):
    """Whether f of unseen prompts after the most training prompts is its law's."""
    rows = last(table)
    reached = [on_law(rows[rows.algorithm == name], OWN[name], NEAR, R2) > 0 for name in LOSSES]
    size = f"{rows['size'].max():,.0f}"
    means = [rows[rows.algorithm == name].share.mean() for name in LOSSES]
    f = " and ".join(f"{round(mean, 2) + 0.0:.2f}" for mean in means)  # no −0.00
    what = "obey the law of their loss" if all(reached) else "come near the law of their loss"
    return f"Prompts left out of the update {what} after {size} others: f is {f}, R² at least {rows.r2_law.min():.3f}"


def finding(table, steps):
    """f and R² of unseen prompts by number of training prompts, and of the steps that 5,000 need."""
    parts = []
    for algorithm in LOSSES:
        rows = select(table, "held-out", algorithm=algorithm, split="held-out")
        each = [
            f"{mean_interval(own.share):.2f}, R² {own.r2_law.mean():.3f} ({size:,.0f})"
            for size, own in rows.groupby("size")
        ]
        parts.append(f"{LABELS[algorithm]} {'; '.join(each)}")
    rows = last(steps)
    means = rows.groupby(["evaluations", "algorithm"]).r2_law.mean().unstack().min(axis=1)
    enough = means.index[means >= R2]
    when = f"R² of both passes {R2} by step {enough[0]:,.0f} of {means.index[-1]:,.0f}" if len(enough) else (
        f"R² of both does not pass {R2} within {means.index[-1]:,.0f} steps"
    )  # fmt: skip
    few = select(table, "held-out", split="train")
    few = few[few["size"] == few["size"].min()]
    return (
        f"f on unseen prompts by training prompts: {'. '.join(parts)}. {when} ({rows.seed.nunique()} seeds). "
        f"On the fewest training prompts themselves R² is at least {few.r2_law.min():.3f}."
    )
