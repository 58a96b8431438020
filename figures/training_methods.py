"""Seven methods on the tiny language model at one budget, the learning rate chosen for each.

Preset tiny-cpu: 60 iterations of 32 prompts × 16 rollouts and 8 updates for every method. The learning rate of each is
the one of 1.5e-4, 3e-4, ..., 2.4e-3 with the highest final validation avg@8, mean of two tuning seeds that are not used
again. PMD-mean and PMD-part subtract leave-one-out estimates; GRPO and GSPO clip at ε = 0.2; clip ranges are not tuned,
temperatures are two. (a) On 500 test prompts after training, interquartile mean with its 95% bootstrap interval over
the seeds, which are the small dots, with the chosen learning rate. (b, c) Means over the seeds while training. The
tables have pass@8 and the spread of the log-ratios too.
"""

from pmdtheory import plotting
from pmdtheory.comparisons import rank_test, signs
from pmdtheory.intervals import interquartile_mean

from .harness import Columns
from .marks import above, accuracies, forest, key, name_of

STUDY = "methods"
TABLES = {
    "study_methods": Columns("method", "seed learning_rate trials test/avg@8 test/greedy"),
    "study_methods_curves": Columns(
        "method", "seed iteration validation/avg@8 entropy"
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
WORDS = {name: label.replace(r"$\tau=", "τ = ").replace("$", "") for name, (label, _) in METHODS.items()}
"""Names of the methods in running text."""
QUANTITIES = {
    "validation/avg@8": ("while training", "validation accuracy"),
    "entropy": ("while training", "entropy of a token, nats"),
}


def plot(table, curves):
    """The final accuracies, and two quantities while training."""
    figure, axes = plotting.panels(1, 3, height=3.1, gridspec_kw={"width_ratios": (1.3, 1, 1)})
    rates = table.groupby("method").learning_rate.first()
    names = {
        name: f"{label}\nrate {rates[name]:g}" if name in rates else label for name, (label, _) in METHODS.items()
    }
    colours = {name: style["color"] for name, (_, style) in METHODS.items()}
    forest(axes[0], table, "method", colours, {"test/avg@8": None, "test/greedy": "white"}, names)
    axes[0].set(xlabel="test accuracy", title="after training", xlim=(0, 1.05))
    key(axes[0], "samples", "greedy", loc="center left")
    for axis, (column, (title, label)) in zip(axes[1:], QUANTITIES.items()):
        for name, (_, style) in METHODS.items():
            rows = curves[curves.method == name].dropna(subset=[column]).groupby("iteration")[column].mean()
            axis.plot(rows.index, rows, **style)
        axis.set(xlabel="iteration", ylabel=label, title=title, ylim=(0, None))
    handles = [plotting.line(label=label, **style) for label, style in METHODS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def apart_from_best(table):
    """The method with the highest interquartile mean, and those that corrected rank tests tell from it."""
    values = {name: rows["test/avg@8"] for name, rows in table.groupby("method")}
    best = max(values, key=lambda name: interquartile_mean([values[name]]).value)
    others = [name for name in values if name != best]
    apart = signs([rank_test(values[best], values[name]) for name in others])
    return best, [name for name, sign in zip(others, apart) if sign]


def title(table, curves):
    """Who can be told from the best."""
    best, apart = apart_from_best(table)
    return (
        f"At one budget, the learning rate tuned for each, {len(apart)} of {table.method.nunique() - 1} methods can be "
        f"told from the best, {name_of(best, WORDS)}"
    )


def finding(table, curves):
    """Final accuracies with intervals, best first, and who can be told from the best."""
    best, apart = apart_from_best(table)
    behind = ", ".join(name_of(name, WORDS) for name in apart) or "none"
    return (
        f"told from {name_of(best, WORDS)}, the best, by corrected exact rank tests: {behind}. Test avg@8 over "
        f"{table.seed.nunique()} seeds, interquartile means: {accuracies(table, 'method', WORDS)}. Each learning rate "
        f"was chosen in {table.trials.max()} runs. A run of PMD-mean τ = 0.1 ends above one of GRPO with probability "
        f"{above(table.assign(all=0), 'pmd-mean tau 0.1', 'grpo', ['all'], 'test/avg@8')}."
    )
