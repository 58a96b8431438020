"""Seven methods on the tiny language model at one budget, the learning rate chosen for each.

Preset tiny-cpu: 60 iterations of 32 prompts × 16 rollouts and 8 updates for every method. The learning rate of each is
the one of 1.5e-4, 3e-4, ..., 2.4e-3 with the highest final validation avg@8, mean of two tuning seeds that are not
used again. PMD-mean and PMD-part subtract leave-one-out estimates; GRPO and GSPO clip at ε = 0.2; clip ranges are not
tuned, temperatures are two. (a–h) Over training, mean and 95% interval over the seeds; best@8 is the share of the
prompts with a right answer among 8 samples; the ratio is that of whole completions, pooled over the batch's updates.
(i) On 500 test prompts after training, mean and 95% interval, small dots: seeds. Below the names: chosen learning rate.
"""

from pmdllm.study import panels

from pmdtheory import plotting

from .training_temperature import points, said, summary

STUDY = "methods"
TABLES = ("study_methods", "study_methods_curves")

METHODS = {
    "pmd-mean tau 0.1": (r"PMD-mean $\tau=0.1$", {"color": plotting.VERMILION, "linestyle": "-"}),
    "pmd-mean tau 0.5": (r"PMD-mean $\tau=0.5$", {"color": plotting.VERMILION, "linestyle": "--"}),
    "pmd-part tau 0.1": (r"PMD-part $\tau=0.1$", {"color": plotting.BLUE, "linestyle": "-"}),
    "pmd-part tau 0.5": (r"PMD-part $\tau=0.5$", {"color": plotting.BLUE, "linestyle": "--"}),
    "grpo": ("GRPO", {"color": plotting.GREEN, "linestyle": "-"}),
    "gspo": ("GSPO", {"color": plotting.ORANGE, "linestyle": "-"}),
    "rloo": ("RLOO", {"color": plotting.PURPLE, "linestyle": "-"}),
}


def plot(table, curves):
    """The paper's panels, and the final accuracies."""
    figure, axes = plotting.panels(3, 4, height=2.0)
    lines = panels.draw(axes, curves, "method", {name: style for name, (_, style) in METHODS.items()})
    axes[6].set_ylim(bottom=0)
    axes[7].set(yscale="log", ylim=(1e-3, None))
    for axis in axes[9:]:
        axis.remove()
    last = axes[8]
    last.set_subplotspec(last.get_gridspec()[2, :])
    places = {name: i for i, name in enumerate(METHODS)}
    final = table.assign(place=table.method.map(places))
    for name, (_, style) in METHODS.items():
        rows = final[final.method == name]
        for column, shift, face in (("test/avg@8", -0.1, style["color"]), ("test/greedy", 0.1, "white")):
            moved = rows.assign(place=rows.place + shift)
            points(last, moved, "place", column, color=style["color"], linestyle="none", markerfacecolor=face)
    for label, face in (("avg@8", "black"), ("greedy", "white")):
        last.plot([], [], "ko", markersize=3.5, markerfacecolor=face, label=label)
    rates = final.groupby("method").learning_rate.first()
    names = [
        "\n".join([*label.split(), *([f"{rates[name]:g}"] if name in rates else [])])
        for name, (label, _) in METHODS.items()
    ]
    last.set_xticks(range(len(names)), names)
    last.set(ylabel="accuracy, test", xlim=(-0.5, len(names) - 0.5), ylim=(-0.02, 1.02))
    last.legend(loc="lower left")
    figure.legend(lines, [METHODS[line.get_label()][0] for line in lines], loc="outside lower center", ncols=4)
    return figure


def finding(table, curves):
    """Final accuracies with intervals, best first, the chosen learning rates, and who can be told from the best."""
    mean, half = summary(table, "method", "test/avg@8")
    order = mean.sort_values(ascending=False).index
    rates = table.groupby("method").learning_rate.first()
    seeds = table.groupby("method").seed.nunique()
    accuracies = [f"{name} {said(mean[name], half[name])} (lr {rates[name]:g})" for name in order]
    best = order[0]
    behind = [name for name in order[1:] if mean[name] + half[name] < mean[best] - half[best]]
    return (
        f"test avg@8 with 95% intervals over {seeds.max()} seeds: {', '.join(accuracies)}. Their interval lies below "
        f"that of {best}: {', '.join(behind) or 'none'}. Each learning rate was chosen in {table.trials.max()} runs."
    )
