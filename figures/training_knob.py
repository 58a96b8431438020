"""Knobs that move the baseline or the temperature, on the tiny language model.

Preset tiny-cpu: 16 iterations of 64 prompts × 16 rollouts and 16 updates, 16,384 rollouts and 256 updates for every
knob, all with leave-one-out estimates. Target KL: the baseline of each prompt lies between mean and log-partition so
that KL(p‖q) is the target, p being the policy before the update and q after it (Statement 10). Scheduled τ: PMD-mean
whose τ is moved after each batch so that the χ² weight λ, measured on its last minibatches, becomes the target.
Annealed τ: PMD-mean whose τ is multiplied by a factor after each batch, nothing measured. The learning rate is 6e-4 for
all; of two candidates for its own option each has the one with the higher final validation avg@8 on two tuning seeds
that are not used again. (a) Test avg@8 after training, interquartile mean and its 95% bootstrap interval, small dots:
seeds. (b) Validation avg@8 over training, mean and 95% interval. (c) Temperature over training.
"""

from pmdtheory import plotting
from pmdtheory.comparisons import rank_test, signs
from pmdtheory.intervals import SHARE, interquartile_mean

from .harness import Columns
from .marks import above, forest, name_of

STUDY = "knob"
TABLES = {
    "study_knob": Columns("knob", "tau learning_rate seed before/avg@8 test/avg@8"),
    "study_knob_curves": Columns("knob", "seed iteration tau validation/avg@8"),
}

KNOBS = {
    "pmd-mean": ("PMD-mean", "pmd-mean-loo"),
    "pmd-part": ("PMD-part", "pmd-part-loo"),
    "target-kl": ("target KL", "pmd-target"),
    "scheduled-tau": (r"scheduled $\tau$", "scheduled-tau"),
    "annealed-tau": (r"annealed $\tau$", "annealed-tau"),
}
OPTIONS = {"tau": "τ", "target_kl": "target", "tau_factor": "factor"}


def plot(table, curves):
    """Final accuracies, validation curves, temperatures."""
    figure, axes = plotting.panels(1, 3, height=2.6, gridspec_kw={"width_ratios": (1.2, 1, 1)})
    names = {name: label for name, (label, _) in KNOBS.items()}
    colours = {name: plotting.method(method)["color"] for name, (_, method) in KNOBS.items()}
    forest(axes[0], table, "knob", colours, {"test/avg@8": None}, names)
    start = table["before/avg@8"].mean()
    axes[0].axvline(start, **plotting.BOUND)
    axes[0].annotate("before\ntraining", (start, 0.1), (3, 0), textcoords="offset points", fontsize=7.5)
    axes[0].set(xlabel="test accuracy", xlim=(0, 1), title="after training")
    for name, (label, method) in KNOBS.items():
        rows, over = table[table.knob == name], curves[curves.knob == name]
        if rows.empty:
            continue
        style = plotting.method(method)
        plotting.band(axes[1], "iteration", over, "validation/avg@8", limits=SHARE, label=label, **style)
        tau = over.assign(tau=over.tau.fillna(rows.tau.iloc[0]))
        plotting.band(axes[2], "iteration", tau[tau.iteration > 0], "tau", **style)
    axes[1].set(xlabel="iteration", ylabel="validation accuracy", ylim=(0, 1), title="while training")
    axes[2].set(xlabel="iteration", ylabel=r"temperature $\tau$", yscale="log", title="temperature")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def compared(table):
    """Interquartile means, the better of the two fixed methods or None, and the rank tests of the knobs against it."""
    values = {name: rows["test/avg@8"] for name, rows in table.groupby("knob")}
    estimates = {name: interquartile_mean([some]) for name, some in values.items()}
    fixed = [name for name in values if name.startswith("pmd-")]
    if not fixed:
        return estimates, None, {}
    best = max(fixed, key=lambda name: estimates[name].value)
    return estimates, best, {name: rank_test(values[name], values[best]) for name in values if name not in fixed}


def ahead(table):
    """The better of the two fixed methods, and the knobs that end above it after Holm's correction."""
    _, best, tests = compared(table)
    return best, [name for name, sign in zip(tests, signs(list(tests.values()))) if sign > 0]


def words_of(names):
    """Names of the knobs in running text."""
    return {name: label.replace(r"$\tau$", "τ") for name, (label, _) in names.items()}


def title(table, curves):
    """Whether a knob ends above the better of PMD-mean and PMD-part at a fixed τ."""
    names, (best, better) = words_of(KNOBS), ahead(table)
    who = " and ".join(name_of(name, names) for name in better) or "no knob"
    return f"On the tiny language model {who} ends clearly above {names.get(best, 'a fixed temperature')}"


def finding(table, curves):
    """Final accuracies with intervals, the chosen options, and whether a knob beats PMD-mean and PMD-part."""
    names, (estimates, *_), (best, better) = words_of(KNOBS), compared(table), ahead(table)
    order = sorted(estimates, key=lambda name: -estimates[name].value)
    words = ", ".join(f"{name_of(name, names)} {estimates[name]:.2f} ({_chosen(table, name)})" for name in order)
    accuracies = f"Test avg@8 over {table.seed.nunique()} seeds, interquartile means: {words}."
    if best is None:
        return accuracies
    who = ", ".join(name_of(name, names) for name in better) or "no knob"
    fixed = f"{names[best]}, the better of the two fixed ones"
    knob = next((name for name in order if not name.startswith("pmd-")), best)
    chance = above(table.assign(method=table.knob, all=0), knob, best, ["all"], "test/avg@8")
    return (
        f"ahead of {fixed}, by corrected exact rank tests: {who}. {accuracies} A run of {names.get(knob, knob)} ends "
        f"above one of {names[best]} with probability {chance}."
    )


def _chosen(table, name):
    row = table[table.knob == name].iloc[0]
    known = {word: row.get(option) for option, word in OPTIONS.items()}
    return " ".join(f"{word} {value:g}" for word, value in known.items() if value is not None and value == value)
