"""Word problems of one step after a supervised start: what reinforcement learning adds, on templates seen and unseen.

SmolLM2-135M after 12 updates on 16 worked solutions each, `pmd-llm warmup --preset smollm2-135m-word-problems`, which
teach it the form and hardly more. The preset of that name with PMD-mean and with GRPO, at one rate and neither tuned:
16 batches of 32 prompts × 4 completions, 4 updates each. (a) Accuracy of samples on 60 validation prompts, mean over
the seeds, each seed thin. (b) What 120 test prompts gain over the start: all, those whose template occurs in training
with other numbers, and those of templates that never occur; mean, 95% interval, a dot for each seed; grey: the goal for
all.
"""

from pmdtheory import plotting
from pmdtheory.intervals import mean_interval

from .harness import Columns
from .marks import legend_of, name_of, points

STUDY = "word_problems"
PROMPTS = {"avg@4": "all", "seen/avg@4": "template seen", "unseen/avg@4": "template unseen"}
TABLES = {
    "study_word_problems": Columns(
        "method", " ".join(["seed", "seconds", *(f"{when}/{name}" for name in PROMPTS for when in ("before", "test"))])
    ),
    "study_word_problems_curves": Columns("method", "seed iteration validation/avg@4"),
}

METHODS = ("pmd-mean-loo", "grpo")
GAIN = 0.25


def plot(table, curves):
    """Validation accuracy over batches, gain on test prompts."""
    figure, (over_batches, gains) = plotting.panels(1, 2, height=2.6)
    for i, method in enumerate(METHODS):
        style = plotting.method(method)
        rows = curves[curves.method == method].dropna(subset=["validation/avg@4"])
        for _, run in rows.groupby("seed"):
            over_batches.plot(run.iteration, run["validation/avg@4"], **style | {"linewidth": 0.5, "alpha": 0.4})
        mean = rows.groupby("iteration")["validation/avg@4"].mean()
        over_batches.plot(mean.index, mean, **style)
        own = gained(table[table.method == method])
        if len(own):
            places = {name: at + 0.2 * (i - 0.5) for at, name in enumerate(PROMPTS)}
            for name, place in places.items():
                points(gains, own.assign(place=place), "place", name, **style | {"linestyle": "none"})
    over_batches.set(xlabel="batch", ylabel="accuracy of samples", title="validation prompts", ylim=(0, 1))
    gains.plot([-0.4, 0.4], [GAIN, GAIN], color=plotting.GREY)
    gains.axhline(0.0, color="black", linewidth=0.6)
    gains.set_xticks(range(len(PROMPTS)), PROMPTS.values())
    gains.set(xlim=(-0.5, len(PROMPTS) - 0.5), ylabel="gain of avg@4", title="test prompts")
    handles = [*legend_of(METHODS), plotting.line(color=plotting.GREY, label="goal")]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def gained(table):
    """Test accuracy less that of the start, a column for each kind of prompts."""
    return table.assign(**{name: table[f"test/{name}"] - table[f"before/{name}"] for name in PROMPTS})


def title(table, curves):
    """In how many seeds each method reaches the goal."""
    gains = gained(table)
    words = []
    for method in METHODS:
        own = gains[gains.method == method]
        if len(own):
            words.append(f"{name_of(method)} in {(own['avg@4'] >= GAIN).sum()} of {_seeds(own)}")
    return (
        f"SmolLM2-135M gets at least {GAIN:.0%} more of held-out word problems right than after its supervised start: "
        f"{', '.join(words)}"
    )


def finding(table, curves):
    """Accuracy of the start, and what each method gains on each kind of prompts."""
    gains, parts = gained(table), []
    for method in METHODS:
        own = gains[gains.method == method]
        if len(own):
            words = (f"{mean_interval(own[name]):.2f} {kind}" for name, kind in PROMPTS.items())
            parts.append(f"{name_of(method)} {', '.join(words)} ({_seeds(own)})")
    return f"Test avg@4 of the start {table['before/avg@4'].mean():.2f}; gains: {'; '.join(parts)}."


def _seeds(runs):
    return f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
