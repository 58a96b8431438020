"""Seven methods on the tiny language model at one budget, the learning rate chosen for each: most end equal.

Preset tiny-cpu: 60 iterations of 32 prompts × 16 rollouts and 8 updates for every method. The learning rate of each is
the one of 1.5e-4, 3e-4, ..., 2.4e-3 with the highest final validation avg@8, mean of two tuning seeds that are not used
again. PMD-mean and PMD-part subtract leave-one-out estimates; GRPO and GSPO clip at ε = 0.2; clip ranges are not tuned,
temperatures are two. (a–d) Means over the seeds while training; pass@8 is the share of the prompts with a right answer
among 8 samples; the log-ratio is that of whole completions, its spread is over the batch's updates. (e) On 500 test
prompts after training, mean and 95% interval over the seeds, which are the small dots: how far the curves above can be
told apart. Below the names: chosen learning rate.
"""

from pmdtheory import plotting
from pmdtheory.intervals import SHARE, mean_interval

from .harness import Columns
from .marks import accuracies, key, name_of, points

STUDY = "methods"
TABLES = {
    "study_methods": Columns("method", "seed learning_rate trials test/avg@8 test/greedy"),
    "study_methods_curves": Columns(
        "method", "seed iteration validation/avg@8 validation/pass@8 entropy log_ratio/std"
    ),
}

METHODS = {
    "pmd-mean tau 0.1": (r"PMD-mean $\tau=0.1$", plotting.method("pmd-mean") | {"linestyle": "-"}),
    "pmd-mean tau 0.5": (r"PMD-mean $\tau=0.5$", plotting.method("pmd-mean") | {"linestyle": "--"}),
    "pmd-part tau 0.1": (r"PMD-part $\tau=0.1$", plotting.method("pmd-part") | {"linestyle": "-"}),
    "pmd-part tau 0.5": (r"PMD-part $\tau=0.5$", plotting.method("pmd-part") | {"linestyle": "--"}),
    "grpo": ("GRPO", plotting.method("grpo")),
    "gspo": ("GSPO", plotting.method("gspo")),
    "rloo": ("RLOO", plotting.method("rloo")),
}
QUANTITIES = {
    "validation/avg@8": "avg@8, validation",
    "validation/pass@8": "pass@8, validation",
    "entropy": "entropy of a token, nats",
    "log_ratio/std": r"sd of the log-ratio $\log\,\pi/\pi_{\mathrm{old}}$",
}


def plot(table, curves):
    """Curves of four quantities, and the final accuracies."""
    figure, axes = plotting.panels(2, 4, height=2.2)
    for axis, (column, label) in zip(axes, QUANTITIES.items()):
        for name, (_, style) in METHODS.items():
            rows = curves[curves.method == name].dropna(subset=[column]).groupby("iteration")[column].mean()
            axis.plot(rows.index, rows, **style)
        axis.set(xlabel="iteration", ylabel=label)
    for axis in axes[:2]:
        axis.set_ylim(0, 1.02)
    axes[2].set_ylim(bottom=0)
    axes[3].set_yscale("log")
    for axis in axes[5:]:
        axis.remove()
    last = axes[4]
    last.set_subplotspec(last.get_gridspec()[1, :])
    places = {name: i for i, name in enumerate(METHODS)}
    final = table.assign(place=table.method.map(places))
    for name, (_, style) in METHODS.items():
        rows = final[final.method == name]
        for column, shift, face in (("test/avg@8", -0.1, style["color"]), ("test/greedy", 0.1, "white")):
            moved = rows.assign(place=rows.place + shift)
            points(last, moved, "place", column, SHARE, color=style["color"], linestyle="none", markerfacecolor=face)
    key(last, "avg@8", "greedy", loc="lower left")
    rates = final.groupby("method").learning_rate.first()
    names = [
        "\n".join([*label.split(), *([f"{rates[name]:g}"] if name in rates else [])])
        for name, (label, _) in METHODS.items()
    ]
    last.set_xticks(range(len(names)), names)
    last.set(ylabel="accuracy, test", xlim=(-0.5, len(names) - 0.5), ylim=(-0.02, 1.03))
    handles = [plotting.line(label=label, **style) for label, style in METHODS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def finding(table, curves):
    """Final accuracies with intervals, best first, and who can be told from the best."""
    names = {name: label.replace(r"$\tau=", "τ = ").replace("$", "") for name, (label, _) in METHODS.items()}
    estimates = {name: mean_interval(rows["test/avg@8"], SHARE) for name, rows in table.groupby("method")}
    best = max(estimates, key=lambda name: estimates[name].value)
    behind = [name_of(name, names) for name, estimate in estimates.items() if estimate.high < estimates[best].low]
    return (
        f"test avg@8 over {table.seed.nunique()} seeds: {accuracies(table, 'method', names)}. Interval below that of "
        f"{name_of(best, names)}: {', '.join(behind) or 'none'}. Each learning rate was chosen in {table.trials.max()} "
        "runs."
    )
