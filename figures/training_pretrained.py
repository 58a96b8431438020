"""SmolLM2-135M learns sums in English: what five methods cost, and where they end.

Preset smollm2-135m-comparison: a pretrained model with 135 million parameters, 32 prompts × 4 completions of at most 16
tokens per batch, U updates on each. PMD-mean and PMD-part subtract leave-one-out estimates. The learning rate and the
temperature τ or clip range ε of each method and each U are the best of four trials on one tuning seed that is not used
again. (a, b) Reward of the rollouts, that is the accuracy on training prompts that are new in every batch: means over
the seeds, each seed thin. (c) Generated tokens until that reward reaches 0.9, interpolated between batches, a dot for
each seed; a triangle is a seed that does not get there within the budget; the bar is the restricted mean, of what a
seed spends that stops at the target or at the budget, with its 95% interval. (d) Test avg@4 on held-out sums,
interquartile mean and its 95% bootstrap interval, small dots: seeds. The study is not finished; drawn is what there is.
The tables have the spread of the log-ratios, entropies and lengths too.
"""

import pandas as pd

from pmdtheory import plotting
from pmdtheory.intervals import interquartile_mean

from . import marks
from .harness import Columns
from .marks import before, legend_of, name_of, reaching, side_by_side

STUDY = "pretrained"
TABLES = {
    "study_pretrained": Columns("method", "updates_per_batch seed trials before/avg@4 test/avg@4"),
    "study_pretrained_curves": Columns("method", "updates_per_batch seed iteration tokens reward"),
    "study_pretrained_tuning": Columns("method", "updates_per_batch seed"),
}

METHODS = ("pmd-mean-loo", "pmd-part-loo", "grpo", "gspo", "rloo")
UPDATES, TARGET = (4, 16), 0.9
SEEDS, TRIALS = 5, 4
"""Runs of a method with one U that the study declares: seeds, and trials on its tuning seed."""
RUN = ["method", "updates_per_batch", "seed"]


def plot(table, curves, tuning):
    """Curves of the reward, cost of a target, final accuracies."""
    figure, axes = plotting.panels(2, 2, height=2.3)
    for axis, updates in zip(axes, UPDATES):
        for method in METHODS:
            style, rows = plotting.method(method), _of(curves, method, updates)
            for _, run in rows.groupby("seed"):
                axis.plot(run.iteration, run.reward, **style | {"linewidth": 0.5, "alpha": 0.35})
            mean = rows.groupby("iteration").reward.mean()
            axis.plot(mean.index, mean, **style)
        axis.set(title=f"{updates} updates a batch", xlabel="batch", ylabel="reward of the rollouts", ylim=(0, 1.05))
    costs = reaching(_learning(curves), RUN, "reward", TARGET)
    marks.survivals(axes[2], costs, METHODS, "updates_per_batch", UPDATES, width=0.16)
    axes[2].set(title=f"tokens until the reward is {TARGET}", xlabel="updates per batch")
    side_by_side(axes[3], table, "method", METHODS, "updates_per_batch", UPDATES, "test/avg@4", linestyle="none")
    before(axes[3], table["before/avg@4"].mean(), 0.6, "center")
    axes[3].set(xlabel="updates per batch", ylabel="test accuracy", ylim=(0, 1.05), title="held-out sums")
    handles = [*legend_of(METHODS, marker=""), *marks.survival_marks()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def missing(table, tuning):
    """How many runs the study declares, how many are there, and by U how many of how many are missing, if any are."""
    declared = len(METHODS) * (SEEDS + TRIALS)
    runs = pd.concat([rows[rows.method.isin(METHODS)].updates_per_batch for rows in (table, tuning)]).value_counts()
    lacking = {updates: declared - runs.get(updates, 0) for updates in UPDATES}
    lacking = {updates: (count, declared) for updates, count in lacking.items() if count > 0}
    wanted = declared * len(UPDATES)
    return wanted, wanted - sum(count for count, _ in lacking.values()), lacking


def title(table, curves, tuning):
    """How many of the runs that are there reach the target, and how many cells are there."""
    costs = reaching(_learning(curves), RUN, "reward", TARGET)
    wanted, there, _ = missing(table, tuning)
    part = "" if there == wanted else f" ({there} of {wanted} runs of the study are there)"
    return (
        f"In {costs.tokens.notna().sum()} of {len(costs)} runs SmolLM2-135M gets {TARGET:.0%} of its rollouts of sums "
        f"right{part}"
    )


def finding(table, curves, tuning):
    """What is missing; final accuracies and tokens to the target of each method and U."""
    parts, costs = [], reaching(_learning(curves), RUN, "reward", TARGET)
    for updates in UPDATES:
        rows, words = table[table.updates_per_batch == updates], []
        for method, some in sorted(rows.groupby("method"), key=lambda pair: -pair[1]["test/avg@4"].mean()):
            tokens = costs[(costs.method == method) & (costs.updates_per_batch == updates)].tokens
            reached = f"{tokens.notna().sum()}/{len(tokens)}"
            words.append(f"{name_of(method)} {interquartile_mean([some['test/avg@4']]):.2f} ({reached})")
        if words:
            parts.append(f"U = {updates}: {', '.join(words)}")
    wanted, there, lacking = missing(table, tuning)
    gaps = ", ".join(f"{count} of {most} with U = {updates}" for updates, (count, most) in lacking.items())
    what = f"missing are {wanted - there} of the {wanted} runs of the study, tuning included: {gaps}. " if gaps else ""
    return (
        f"{what}Test avg@4 from {table['before/avg@4'].mean():.2f} (seeds whose reward gets to {TARGET}): "
        f"{'; '.join(parts)}."
    )


def _of(curves, method, updates):
    rows = _learning(curves)
    return rows[(rows.method == method) & (rows.updates_per_batch == updates)]


def _learning(curves):
    return curves.dropna(subset="reward")
