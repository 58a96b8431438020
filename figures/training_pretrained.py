"""SmolLM2-135M learns sums in English: what five methods cost, and where they end.

Preset smollm2-135m-comparison: a pretrained model with 135 million parameters, 32 prompts × 4 completions of at most 16
tokens per batch, U updates on each. PMD-mean and PMD-part subtract leave-one-out estimates. The learning rate and the
temperature τ or clip range ε of each method and each U are the best of four trials on one tuning seed that is not used
again. (a, b) Reward of the rollouts, that is the accuracy on training prompts that are new in every batch: means over
the seeds, each seed thin. (c) Generated tokens until that reward reaches 0.9, interpolated between batches, a dot for
each seed; a triangle is a seed that does not get there within the budget, the bar the mean where all do. (d) Test avg@4
on held-out sums, mean and 95% interval, small dots: seeds. The study is not finished; drawn is what there is. The
tables have the spread of the log-ratios, entropies and lengths too.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting
from pmdtheory.intervals import SHARE, mean_interval

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
    _costs(axes[2], curves)
    side_by_side(
        axes[3], table, "method", METHODS, "updates_per_batch", UPDATES, "test/avg@4", SHARE, linestyle="none"
    )
    before(axes[3], table["before/avg@4"].mean(), 0.6, "center")
    axes[3].set(xlabel="updates per batch", ylabel="test accuracy", ylim=(0, 1.05), title="held-out sums")
    marks, hollow = {"color": "black", "linestyle": "none"}, {"markersize": 3.5, "markerfacecolor": "none"}
    handles = [
        *legend_of(METHODS, marker=""),
        plotting.line(label="mean of all seeds", marker="_", markersize=9, **marks),
        plotting.line(label="seed that does not get there", marker="^", **marks | hollow),
    ]
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
            words.append(f"{name_of(method)} {mean_interval(some['test/avg@4'], SHARE):.2f} ({reached})")
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


def _costs(axis, curves):
    costs = reaching(_learning(curves), RUN, "reward", TARGET)
    for i, method in enumerate(METHODS):
        colour = plotting.method(method)["color"]
        for at, updates in enumerate(UPDATES):
            rows = costs[(costs.method == method) & (costs.updates_per_batch == updates)]
            place, tokens = at + 0.16 * (i - 2), rows.tokens.dropna() / 1e3
            axis.plot([place] * len(tokens), tokens, ".", color=colour, markersize=4)
            late = rows.budget[rows.tokens.isna()] / 1e3 * (1.03 + 0.03 * np.arange(rows.tokens.isna().sum()))
            axis.plot([place] * len(late), late, "^", color=colour, markersize=3.5, markerfacecolor="none")
            if len(rows) and len(tokens) == len(rows):
                axis.plot(place, tokens.mean(), "_", color=colour, markersize=9, markeredgewidth=1.3)
    axis.set_xticks(range(len(UPDATES)), UPDATES)
    axis.set(
        title=f"tokens until the reward is {TARGET}", xlabel="updates per batch", ylabel="thousands",
        xlim=(-0.5, len(UPDATES) - 0.5), ylim=(0, None),
    )  # fmt: skip
