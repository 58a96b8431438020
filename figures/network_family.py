"""Networks fitted to other losses of the family end on the laws of those losses, not on PMD-mean's (Statements 19–27).

Each loss is one of ordinary training, averaged over all 101 actions of a prompt or over fresh groups of four rollouts;
a small transformer is fitted to it from its base, and its policy on 12 prompts is compared with three laws: the one
predicted for the loss, PMD-mean's, and the KL law. Divergence KL(q‖law), median over the prompts, mean of the
logarithms and 95% interval over the seeds. Where a loss has the KL law, its own mark lies beside that of the KL law.
"""

from pmdtheory import plotting
from pmdtheory.intervals import over_seeds

from .harness import Columns
from .marks import points
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
    """A column of marks for each loss."""
    rows = fits(table)
    figure, (axis,) = plotting.panels(1, 1, width=5.0, height=2.9)
    if rows.empty:
        return figure
    names = list(dict.fromkeys(rows.sort_values("from_law").algorithm))
    for column, (colour, marker, label) in MARKS.items():
        face = colour if column == "from_law" else "none"
        place = rows.assign(place=rows.algorithm.map(names.index) + 0.12 * (list(MARKS).index(column) - 1))
        points(axis, place, "place", column, log=True, color=colour, marker=marker, markerfacecolor=face,
               linestyle="none", label=label)  # fmt: skip
    axis.set_yscale("log")
    axis.set_xticks(range(len(names)), names, rotation=25, ha="right", rotation_mode="anchor")
    axis.set(ylabel="divergence of the network")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


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
