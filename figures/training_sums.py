"""SmolLM2-135M learns sums of numbers up to ten in English, in minutes on two cores.

PMD-mean with the preset smollm2-135m, that is what `make pretrained` trains: a pretrained model with 135 million
parameters, one example in the prompt, 48 prompts × 4 completions a batch; groups of equal rewards are left out. (a)
Accuracy on validation prompts that are never trained on, a line for each seed: of samples at temperature 1, and greedy.
(b) On test prompts before training, where each seed samples anew from the same model, and after; grey: the
goal, below 0.3 before and above 0.95 after.
"""

from pmdtheory import plotting
from pmdtheory.intervals import mean_interval

from .harness import Columns
from .marks import span

STUDY = "sums"
TABLES = {
    "study_sums": Columns("method", "seed seconds before/avg@16 before/greedy test/avg@16 test/greedy"),
    "study_sums_curves": Columns("method", "seed iteration validation/avg@16 validation/greedy"),
}

LOW, HIGH = 0.3, 0.95
LINES = {"avg@16": "-", "greedy": ":"}


def plot(table, curves):
    """Validation accuracy over batches, test accuracy before and after."""
    figure, (over_batches, ends) = plotting.panels(1, 2, height=2.5)
    style = {"color": plotting.method("pmd-mean-loo")["color"], "linewidth": 0.9, "alpha": 0.8}
    for name, line in LINES.items():
        for _, rows in curves.dropna(subset=[f"validation/{name}"]).groupby("seed"):
            over_batches.plot(rows.iteration, rows[f"validation/{name}"], line, **style)
        for row in table.to_dict("records"):
            ends.plot([0, 1], [row[f"before/{name}"], row[f"test/{name}"]], line, marker="o", markersize=3, **style)
    over_batches.set(xlabel="batch", ylabel="accuracy", title="validation prompts", ylim=(0, 1.04))
    ends.set(xlim=(-0.2, 1.2), ylim=(0, 1.04), ylabel="accuracy", title="test prompts")
    ends.set_xticks([0, 1], ["before", "after"])
    for x, height in ((0, LOW), (1, HIGH)):
        ends.plot([x - 0.15, x + 0.15], [height, height], color=plotting.GREY)
    names = zip(("samples", "greedy"), LINES.values())
    handles = [plotting.line(color=style["color"], linestyle=line, label=name) for name, line in names]
    ends.legend(handles=[*handles, plotting.line(color=plotting.GREY, label="goal")], loc="lower right")
    return figure


def title(table, curves):
    """In how many seeds samples, and greedy completions, get above 0.95."""
    samples, greedy = ((table[f"test/{name}"] > HIGH).sum() for name in LINES)
    return (
        f"SmolLM2-135M goes from {table['before/avg@16'].mean():.0%} to above {HIGH:.0%} of held-out sums in {samples} "
        f"of {len(table)} seeds, greedily in {greedy}"
    )


def finding(table, curves):
    """Accuracies of samples and greedy before and after, and the time that it took."""
    after = mean_interval(table["test/avg@16"], (0, 1))
    return (
        f"Test avg@16 from {table['before/avg@16'].mean():.2f} to {after:.2f} "
        f"(seeds: {span(table['test/avg@16'], 3)}), greedy from {table['before/greedy'].mean():.2f} "
        f"(seeds end at {span(table['test/greedy'], 2)}), in "
        f"{table.seconds.mean() / 60:.0f} minutes of training on one core."
    )
