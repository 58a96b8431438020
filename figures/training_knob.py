"""On the tiny language model no knob is told apart from PMD-mean at its own temperature.

Preset tiny-cpu: 16 iterations of 64 prompts × 16 rollouts and 16 updates, 16,384 rollouts and 256 updates for every
knob, all with leave-one-out estimates. Target KL: the baseline of each prompt lies between mean and log-partition so
that KL(p‖q) is the target, p being the policy before the update and q after it (Statement 10). Scheduled τ: PMD-mean
whose τ is moved after each batch so that the χ² weight λ, measured on its last minibatches, becomes the target.
Annealed τ: PMD-mean whose τ is multiplied by a factor after each batch, nothing measured. The learning rate is 6e-4 for
all; of two candidates for its own option each has the one with the higher final validation avg@8 on two tuning seeds
that are not used again. (a) Test avg@8 after training, mean and 95% interval, small dots: seeds; dotted: before. (b)
Validation avg@8 over training, mean and 95% interval. (c) Temperature over training.
"""

from pmdtheory import plotting
from pmdtheory.intervals import SHARE, mean_interval

from .harness import Columns
from .marks import name_of, points

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
    figure, axes = plotting.panels(1, 3, height=2.6, gridspec_kw={"width_ratios": (1.35, 1, 1)})
    places = {name: i for i, name in enumerate(KNOBS)}
    for name, (label, method) in KNOBS.items():
        rows, over = table[table.knob == name], curves[curves.knob == name]
        if rows.empty:
            continue
        style, place = plotting.method(method), rows.assign(place=rows.knob.map(places))
        points(axes[0], place, "place", "test/avg@8", SHARE, color=style["color"], linestyle="none")
        plotting.band(axes[1], "iteration", over, "validation/avg@8", limits=SHARE, label=label, **style)
        tau = over.assign(tau=over.tau.fillna(rows.tau.iloc[0]))
        plotting.band(axes[2], "iteration", tau[tau.iteration > 0], "tau", **style)
    axes[0].axhline(table["before/avg@8"].mean(), **plotting.BOUND)
    names = [label.replace(" ", "\n").replace("-", "-\n") for label, _ in KNOBS.values()]
    axes[0].set_xticks(range(len(names)), names, fontsize=5.5)
    axes[0].set(ylabel="avg@8, test", ylim=(0, 1), xlim=(-0.5, len(KNOBS) - 0.5))
    axes[1].set(xlabel="iteration", ylabel="avg@8, validation", ylim=(0, 1))
    axes[2].set(xlabel="iteration", ylabel=r"temperature $\tau$", yscale="log")
    axes[1].legend(loc="lower right")
    return figure


def finding(table, curves):
    """Final accuracies with intervals, the chosen options, and whether a knob beats PMD-mean and PMD-part."""
    names = {name: label.replace(r"$\tau$", "τ") for name, (label, _) in KNOBS.items()}
    estimates = {name: mean_interval(rows["test/avg@8"], SHARE) for name, rows in table.groupby("knob")}
    order = sorted(estimates, key=lambda name: -estimates[name].value)
    words = ", ".join(f"{name_of(name, names)} {estimates[name]:.2f} ({_chosen(table, name)})" for name in order)
    fixed = [name for name in order if name.startswith("pmd-")]
    if not fixed:
        return f"test avg@8 over {table.seed.nunique()} seeds: {words}."
    best = estimates[fixed[0]]
    ahead = [name_of(name, names) for name in order if name not in fixed and estimates[name].low > best.high]
    return (
        f"test avg@8 over {table.seed.nunique()} seeds: {words}. Interval above that of {names[fixed[0]]}, the better "
        f"of the two fixed ones: {', '.join(ahead) or 'no knob'}."
    )


def _chosen(table, name):
    row = table[table.knob == name].iloc[0]
    known = {word: row.get(option) for option, word in OPTIONS.items()}
    return " ".join(f"{word} {value:g}" for word, value in known.items() if value is not None and value == value)
