"""From every seed and two bases the tiny language model learns operator precedence.

PMD-mean with the preset tiny-cpu: τ = 0.1, 80 iterations of 32 prompts × 16 rollouts and 8 updates. A base is a model
of 73,000 parameters that was taught arithmetic by demonstrations without precedence; the second one is regenerated from
another seed. (a, b) Accuracy on 256 validation prompts, a line for each seed: of samples at temperature 1 (avg@8), and
greedy. (c) On 500 test prompts before training and after, a line for each seed, solid: avg@8, dotted: greedy; grey:
the goal, below 0.4 before and above 0.85 after.
"""

from pmdtheory import plotting

from .harness import Columns
from .marks import span

STUDY = "seeds"
TABLES = {
    "study_seeds": Columns("base", "seed seconds before/avg@8 before/greedy test/avg@8 test/greedy"),
    "study_seeds_curves": Columns("base", "seed iteration validation/avg@8 validation/greedy"),
}

BASES = dict(zip(("shipped", "second"), plotting.tints(plotting.VERMILION, 3)[::2]))
LOW, HIGH = 0.4, 0.85


def plot(table, curves):
    """Validation accuracy over iterations, test accuracy before and after."""
    figure, axes = plotting.panels(1, 3, height=2.5)
    for base, colour in BASES.items():
        for axis, column in zip(axes, ("validation/avg@8", "validation/greedy")):
            for _, rows in curves[curves.base == base].dropna(subset=[column]).groupby("seed"):
                axis.plot(rows.iteration, rows[column], color=colour, linewidth=0.9, alpha=0.8)
        for row in table[table.base == base].to_dict("records"):
            for name, line in (("avg@8", "-"), ("greedy", ":")):
                ends = [row[f"before/{name}"], row[f"test/{name}"]]
                axes[2].plot([0, 1], ends, line, marker="o", markersize=3, color=colour, linewidth=0.9, alpha=0.8)
        axes[0].plot([], [], color=colour, label=f"{base} base")
    axes[0].set(xlabel="iteration", ylabel="accuracy", title="samples, validation", ylim=(0, 1.04))
    axes[1].set(xlabel="iteration", ylabel="accuracy", title="greedy, validation", ylim=(0, 1.04))
    axes[2].set(xlim=(-0.2, 1.2), ylim=(0, 1.04), ylabel="accuracy", title="test prompts")
    axes[2].set_xticks([0, 1], ["before", "after"])
    for x, height in ((0, LOW), (1, HIGH)):
        axes[2].plot([x - 0.15, x + 0.15], [height, height], color=plotting.GREY)
    axes[0].legend(loc="lower right")
    handles = [
        plotting.line(color="black", linestyle=line, label=name) for line, name in (("-", "samples"), (":", "greedy"))
    ]
    handles.append(plotting.line(color=plotting.GREY, label="goal"))
    axes[2].legend(handles=handles, loc="lower right")
    return figure


def reached(rows):
    """Which rows go from below 0.4 to above 0.85, of samples and greedy."""
    after, before = (rows[[f"{when}/avg@8", f"{when}/greedy"]] for when in ("test", "before"))
    return (after > HIGH).all(axis=1) & (before < LOW).all(axis=1)


def title(table, curves):
    """How many runs get from below 0.4 to above 0.85."""
    bases = f"{table.base.nunique()} base{'s' if table.base.nunique() > 1 else ''}"
    return (
        f"In {reached(table).sum()} of {len(table)} runs, from {bases}, the tiny language model learns operator "
        "precedence"
    )


def finding(table, curves):
    """How far the worst and the best seed went, base by base."""
    parts = []
    for base in BASES:
        rows = table[table.base == base]
        if rows.empty:
            continue
        spans = ", ".join(
            f"{name} from {rows[f'before/{name}'].mean():.2f} to {span(rows[f'test/{name}'], 3).replace(' to ', '–')}"
            for name in ("avg@8", "greedy")
        )
        parts.append(
            f"{base} base: {reached(rows).sum()}/{len(rows)} seeds go from below {LOW} to above {HIGH} in both; "
            f"{spans}, in {rows.seconds.mean():.0f} s of training on one core"
        )
    return ". ".join(parts) + "."
