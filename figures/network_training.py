"""When is a practitioner's PMD-mean the paper's? Rollouts, updates, rate and temperature of one outer step.

The shipped model of 73,000 parameters draws n rollouts for each of 32 prompts of its own task and is updated on them by
the leave-one-out PMD-mean loss, 4 prompts an update, at a constant rate; then fresh rollouts of the policy before tell
which law it obeys, 128 for each of these prompts. Above, f: 1 is the paper's Lambert-W law, 0 the KL law; below 0,
log-ratios vary mostly with what rewards do not explain. Below, R²: the share of the variance of log(q/p) that the
Lambert-W law explains. Numbers are means over seeds, bold where PMD-mean is the paper's: f's 95% interval
lies within 0.25 of 1, that of R² above 0.9. (a, d) Rollouts n against updates U at rate 6e-4 and τ = 0.1. (b, e) The
rate, and (c, f) τ, at n = 64.
"""

import numpy as np

from pmdtheory import plotting

from .harness import Columns
from .network import on_law

__all__ = ["CORNER", "STUDY", "TABLES", "finding", "is_the_papers", "plot", "settings"]

STUDY = "training_map"
KNOBS = ["n", "tau", "learning_rate"]
TABLES = {
    "training_map": Columns("algorithm split", "tau n learning_rate seed updates share r2_lambert r2_kl_law r2_reward")
}
CORNER = {"n": 64, "tau": 0.1, "learning_rate": 6e-4}
NAMES = {"n": "rollouts $n$", "learning_rate": "learning rate", "tau": r"temperature $\tau$"}
TITLES = {"n": "rollouts", "learning_rate": "rate", "tau": "temperature"}
SHOWN = {"share": ("slope $f$", "RdBu", (-1.0, 3.0)), "r2_lambert": ("$R^2$", "viridis", (0.0, 1.0))}
NEAR, R2 = 0.25, 0.9
"""Tolerances of `network.on_law`."""


def is_the_papers(rows):
    """Whether seeds of one setting obey the paper's law."""
    return on_law(rows, "lambert", NEAR, R2, "r2_lambert") > 0


def lines(table, knob):
    """Rows of the panels of a knob: the others have their values at the corner."""
    rows = table[table.split == "train"]
    for name, value in CORNER.items():
        rows = rows if name == knob else rows[np.isclose(rows[name], value)]
    return rows


def settings(table):
    """Rows of each setting on the batch's prompts, by number of updates, n, τ and rate."""
    return table[table.split == "train"].groupby(["updates", *KNOBS])


def plot(table):
    """Six maps: f and R² over updates and one knob."""
    figure, axes = plotting.panels(2, 3, height=2.1)
    for line, (column, (label, colours, (low, high))) in zip((axes[:3], axes[3:]), SHOWN.items()):
        for axis, knob in zip(line, NAMES):
            rows = lines(table, knob)
            image = rows.pivot_table(index=knob, columns="updates", values=column)
            drawn = axis.imshow(image, cmap=colours, vmin=low, vmax=high, aspect="auto", origin="lower")
            groups = dict(list(rows.groupby([knob, "updates"])))
            for y, value in enumerate(image.index):
                for x, updates in enumerate(image.columns):
                    mean = image.iloc[y, x]
                    bold = is_the_papers(groups[value, updates])
                    dark = abs(mean - 1) > 1.3 if column == "share" else mean < 0.5
                    axis.text(
                        x, y, f"{mean:.1f}" if abs(mean) >= 9.95 else f"{mean:.2f}", ha="center", va="center",
                        fontsize=6.5, color="white" if dark else "black", fontweight="bold" if bold else "normal",
                    )  # fmt: skip
            axis.set_xticks(range(len(image.columns)), image.columns)
            axis.set_yticks(range(len(image)), [f"{value:g}" for value in image.index])
            words = f"{label.split()[-1]} by {TITLES[knob]}"
            axis.set(xlabel="updates $U$", ylabel=NAMES[knob], title=words)
            axis.grid(visible=False)
        bar = figure.colorbar(drawn, ax=list(line), pad=0.01, aspect=14, extend="both", label=label)
        if column == "share":
            bar.set_ticks([0, 1], labels=["KL law", "Lambert-W"])
    return figure


def title(table):
    """Where on the map the law is the paper's, else what comes nearest."""
    found = [name for name, rows in settings(table) if is_the_papers(rows)]
    _, rows = max(settings(table), key=lambda item: item[1].r2_lambert.mean())
    if found:
        fewest, count = min(n for _, n, *_ in found), settings(table).ngroups
        return f"PMD-mean in training is the paper's in {len(found)} of {count} settings, from {fewest} rollouts on"
    return (
        "PMD-mean in training obeys the paper's law nowhere on this map; many rollouts and passes come nearest, "
        f"f {rows.share.mean():.2f}, R² {rows.r2_lambert.mean():.2f}"
    )


def finding(table):
    """f and R² at the ends of the map, what the other knobs do at the most updates, and on other prompts."""
    corner, last = lines(table, "n"), table.updates.max()
    parts = [
        f"n = {n}, U = {updates}: {_told(corner[(corner.n == n) & (corner.updates == updates)])}"
        for n in (corner.n.min(), corner.n.max()) for updates in (corner.updates.min(), last)
    ]  # fmt: skip
    knobs = []
    for knob, name in (("learning_rate", "rate"), ("tau", "τ")):
        rows = lines(table, knob)
        ends = [rows[(rows[knob] == value) & (rows.updates == last)] for value in (rows[knob].min(), rows[knob].max())]
        knobs += [f"{_told(own)} at {name} {own[knob].iloc[0]:g}" for own in ends]
    most = corner[(corner.n == corner.n.max()) & (corner.updates == last)]
    elsewhere = table[table.split == "held-out"].groupby(["updates", *KNOBS]).r2_lambert.mean().max()
    return (
        f"f (R²) on the batch's prompts, {table.seed.nunique()} seeds: {'; '.join(parts)}. "
        f"At n = {CORNER['n']}, U = {last}: {'; '.join(knobs)}. At n = {most.n.max()} the KL law's R² is "
        f"{most.r2_kl_law.mean():.2f}, what rewards explain {most.r2_reward.mean():.2f}. On other prompts R² is "
        f"at most {elsewhere:.2f}."
    )


def _told(rows):
    return f"{rows.share.mean():.2f} ({rows.r2_lambert.mean():.2f})"
