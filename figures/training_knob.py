"""A better knob on the tiny language model: baselines that aim at a KL divergence, temperatures that move.

Preset tiny-cpu: 16 iterations of 64 prompts × 16 rollouts and 16 updates, 16,384 rollouts and 256 updates for every
knob, all with leave-one-out estimates. Target KL: the baseline of each prompt lies between mean and log-partition so
that KL(p‖q) is the target (Statement 10). Scheduled τ: PMD-mean whose τ is moved after each batch so that λ, measured
on its last minibatches, becomes the target. Annealed τ: PMD-mean whose τ is multiplied by a factor after each batch,
nothing measured. The learning rate is 6e-4 for all; of two candidates for its own option each has the one with the
higher final validation avg@8 on two tuning seeds that are not used again. (a) Test avg@8 after training, mean and 95%
interval, small dots: seeds; dotted: before. (b) Validation avg@8 over training, mean and 95% interval. (c) Temperature
over training.
"""

from pmdtheory import plotting

from .training_temperature import points, said, summary

STUDY = "knob"
TABLES = ("study_knob", "study_knob_curves")

KNOBS = {
    "pmd-mean": ("PMD-mean", {"color": plotting.VERMILION, "linestyle": "-"}),
    "pmd-part": ("PMD-part", {"color": plotting.BLUE, "linestyle": "--"}),
    "target-kl": ("target KL", {"color": plotting.GREEN, "linestyle": "-."}),
    "scheduled-tau": (r"scheduled $\tau$", {"color": plotting.BLACK, "linestyle": "-"}),
    "annealed-tau": (r"annealed $\tau$", {"color": plotting.ORANGE, "linestyle": ":"}),
}
OPTIONS = {"tau": "τ", "target_kl": "target", "tau_factor": "factor", "learning_rate": "lr"}


def plot(table, curves):
    """Final accuracies, validation curves, temperatures."""
    figure, axes = plotting.panels(1, 3, height=2.6)
    places = {name: i for i, name in enumerate(KNOBS)}
    for name, (label, style) in KNOBS.items():
        rows, over = table[table.knob == name], curves[curves.knob == name]
        if rows.empty:
            continue
        place = rows.assign(place=rows.knob.map(places))
        points(axes[0], place, "place", "test/avg@8", color=style["color"], linestyle="none")
        judged = over.dropna(subset="validation/avg@8")
        plotting.band(axes[1], "iteration", judged, "validation/avg@8", by="seed", label=label, **style)
        tau = over.assign(tau=over.tau.fillna(rows.tau.iloc[0]))
        plotting.band(axes[2], "iteration", tau[tau.iteration > 0], "tau", by="seed", **style)
    axes[0].axhline(table["before/avg@8"].mean(), **plotting.BOUND)
    names = [label.replace(" ", "\n").replace("-", "-\n") for label, _ in KNOBS.values()]
    axes[0].set_xticks(range(len(names)), names, fontsize=6)
    axes[0].set(ylabel="avg@8, test", ylim=(0, 1), xlim=(-0.5, len(KNOBS) - 0.5))
    axes[1].set(xlabel="iteration", ylabel="avg@8, validation", ylim=(0, 1))
    axes[2].set(xlabel="iteration", ylabel=r"temperature $\tau$", yscale="log")
    axes[1].legend(loc="lower right")
    return figure


def finding(table, curves):
    """Final accuracies with intervals, the chosen options, and whether a knob beats PMD-mean and PMD-part."""
    mean, half = summary(table, "knob", "test/avg@8")
    order = mean.sort_values(ascending=False).index
    told = [f"{KNOBS[name][0]} {said(mean[name], half[name])} ({_chosen(table, name)})" for name in order]
    fixed = mean[[name for name in ("pmd-mean", "pmd-part") if name in mean]]
    if fixed.empty:
        return ", ".join(told).replace("$\\tau$", "τ")
    best = fixed.idxmax()
    knobs = mean.index.drop(fixed.index)
    ahead = [name for name in knobs if mean[name] - half[name] > mean[best] + half[best]]
    verdict = ", ".join(KNOBS[name][0] for name in ahead) or "no knob"
    return (
        f"test avg@8 with 95% intervals over {table.seed.nunique()} seeds: {', '.join(told)}. Their interval lies "
        f"above that of {KNOBS[best][0]}, the better of the two fixed ones: {verdict}."
    ).replace("$\\tau$", "τ")


def _chosen(table, name):
    row = table[table.knob == name].iloc[0]
    known = {word: row.get(option) for option, word in OPTIONS.items()}
    return " ".join(f"{word} {value:g}" for word, value in known.items() if value is not None and value == value)
