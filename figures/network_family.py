"""Networks fitted to other losses of the family end on the laws of those losses, not on PMD-mean's.

Each loss is one of ordinary training, averaged over all 101 actions of a prompt or over fresh groups of four rollouts;
a small transformer is fitted to it from its base, and its policy on 12 prompts is compared with three laws (Statements
19–27): the one predicted for the loss, PMD-mean's, and the KL law. Divergence KL(q‖law), median over the prompts, mean
of the logarithms and 95% interval over the seeds. Where a loss has the KL law, its own mark lies beside that of the KL
law.
"""

import numpy as np

from pmdtheory import plotting
from pmdtheory.intervals import over_seeds

from .harness import Columns
from .network import STUDY

__all__ = ["STUDY", "TABLES", "finding", "fits", "plot"]

TABLES = {"validate": Columns("experiment algorithm", "tau seed r2_law from_law from_lambert from_kl_law")}
MARKS = {
    "from_lambert": (plotting.VERMILION, "s", "PMD-mean's law"),
    "from_kl_law": (plotting.BLUE, "D", "KL law"),
    "from_law": ("black", "o", "law of the loss"),
}
LEAST = 5.0
"""How many times as far PMD-mean's law has to be as the loss's own, for a fit to tell them apart."""


def fits(table):
    """Rows of the family, with how many times as far PMD-mean's law is as the loss's own."""
    rows = table[table.experiment == "family"]
    return rows.assign(ratio=rows.from_lambert / rows.from_law)


def plot(table):
    """A row of marks for each loss."""
    rows = fits(table)
    figure, (axis,) = plotting.panels(1, 1, height=3.2)
    if rows.empty:
        return figure
    names = list(dict.fromkeys(rows.sort_values("from_law", ascending=False).algorithm))
    for i, (column, (colour, marker, label)) in enumerate(MARKS.items()):
        means = over_seeds(rows, "algorithm", column, log=True).reindex(names)
        ends = [means["mean"] - means.low, means.high - means["mean"]]
        axis.errorbar(
            means["mean"], np.arange(len(names)) + 0.2 * (i - 1), xerr=ends, fmt=marker, color=colour, capsize=2,
            markersize=4, linewidth=0.9, markerfacecolor=colour if column == "from_law" else "none", label=label,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="divergence of the network from the law", ylim=(-0.6, len(names) - 0.4))
    axis.set_ylabel("loss that it was fitted to")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def title(table):
    """How many fits are nearer to their own law than to PMD-mean's, and by how much at least."""
    rows = fits(table)
    if rows.empty:
        return "No network has been fitted to another loss of the family yet"
    near = (rows.ratio >= LEAST).sum()
    return (
        f"In {near} of {len(rows)} fits to other losses PMD-mean's law is at least {LEAST:g} times as far as the "
        "loss's own law"
    )


def finding(table):
    """How far each network is from its own law, and from PMD-mean's."""
    rows = fits(table)
    if rows.empty:
        return "no fit to a loss of the family is in the tables yet."
    ratios = over_seeds(rows, "algorithm", "ratio", log=True)["mean"].sort_values()
    listed = ", ".join(f"{name} {value:.0f}" for name, value in ratios.items())
    off = rows[rows.ratio < LEAST]
    few = ", ".join(f"{row.algorithm} seed {row.seed}" for row in off.itertuples()) or "no fit"
    return (
        f"PMD-mean's law is so many times as far as the loss's own: {listed} ({rows.seed.nunique()} seeds). Less than "
        f"{LEAST:g} times: {few}. p-weighted R² on the own law {rows.r2_law.min():.3f} to {rows.r2_law.max():.3f}."
    )
