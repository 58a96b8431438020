"""SmolLM2-135M on sums in English, five methods, few and many updates per batch: what each costs and where it ends.

Preset smollm2-135m: a pretrained model with 135 million parameters, 32 prompts × 4 completions of at most 16 tokens per
batch, U updates on each. PMD-mean and PMD-part subtract leave-one-out estimates. The learning rate and the
temperature τ or clip range ε of each method and each U are the best of four trials on one tuning seed that is not used
again. (a, b) Reward of the rollouts, that is the accuracy on training prompts that are new in every batch: means over
the seeds, each seed thin. (c, d) Generated tokens until that reward reaches 0.5 and 0.9, interpolated between batches,
a dot for each seed; a triangle is a seed that does not get there within the budget, the bar the mean where all do. (e)
Test avg@4 on held-out sums, mean and 95% interval, small dots: seeds; dotted: before. (f) Standard deviation of the
completions' log-ratio, averaged over training. (g, h) Entropy of a token and length while training, solid U = 4, dashed
U = 16.
"""

import numpy as np

from pmdtheory import plotting
from pmdtheory.intervals import SHARE, mean_interval

from .harness import Columns
from .marks import legend_of, name_of, reaching, side_by_side

STUDY = "pretrained"
TABLES = {
    "study_pretrained": Columns("method", "updates_per_batch seed trials before/avg@4 test/avg@4"),
    "study_pretrained_curves": Columns(
        "method", "updates_per_batch seed iteration tokens seconds reward length entropy log_ratio/std"
    ),
}

METHODS = ("pmd-mean-loo", "pmd-part-loo", "grpo", "gspo", "rloo")
UPDATES, TARGETS = (4, 16), (0.5, 0.9)
RUN = ["method", "updates_per_batch", "seed"]


def plot(table, curves):
    """Curves of the reward, cost of two targets, final accuracies, spread of the log-ratio, entropy and length."""
    figure, axes = plotting.panels(2, 4, height=2.3)
    for axis, updates in zip(axes, UPDATES):
        for method in METHODS:
            style, rows = plotting.method(method), _of(curves, method, updates)
            for _, run in rows.groupby("seed"):
                axis.plot(run.iteration, run.reward, **style | {"linewidth": 0.5, "alpha": 0.35})
            mean = rows.groupby("iteration").reward.mean()
            axis.plot(mean.index, mean, **style)
        axis.set(title=f"$U={updates}$", xlabel="batch", ylabel="reward of the rollouts", ylim=(0, 1.03))
    for axis, target in zip(axes[2:4], TARGETS):
        _costs(axis, curves, target)
    side_by_side(axes[4], table, "method", METHODS, "updates_per_batch", UPDATES, "test/avg@4", SHARE)
    axes[4].axhline(table["before/avg@4"].mean(), **plotting.BOUND)
    axes[4].set(xlabel="updates per batch $U$", ylabel="avg@4, test", ylim=(0, 1.03))
    spread = curves.groupby(RUN)["log_ratio/std"].mean().reset_index()
    side_by_side(axes[5], spread, "method", METHODS, "updates_per_batch", UPDATES, "log_ratio/std")
    axes[5].set(xlabel="updates per batch $U$", ylabel="sd of the log-ratio", ylim=(0, None))
    labels = {"entropy": "entropy of a token, nats", "length": "length, tokens"}
    for axis, (column, label) in zip(axes[6:], labels.items()):
        for method in METHODS:
            for updates, line in zip(UPDATES, ("-", "--")):
                mean = _of(curves, method, updates).groupby("iteration")[column].mean()
                axis.plot(mean.index, mean, **plotting.method(method) | {"linestyle": line})
        axis.set(xlabel="batch", ylabel=label, ylim=(0, None))
    figure.legend(handles=legend_of(METHODS), loc="outside lower center", ncols=5)
    return figure


def finding(table, curves):
    """Final accuracies, and tokens and seconds to the higher target, of each method and U."""
    parts = []
    for updates in UPDATES:
        rows = table[table.updates_per_batch == updates]
        costs = reaching(_learning(curves), RUN, "reward", TARGETS[-1])
        words = []
        for method, some in sorted(rows.groupby("method"), key=lambda pair: -pair[1]["test/avg@4"].mean()):
            tokens = costs[(costs.method == method) & (costs.updates_per_batch == updates)].tokens / 1e3
            there = tokens.notna()
            reached = f"{tokens.mean():.0f}k" if len(tokens) and there.all() else f"{there.sum()} seeds"
            words.append(f"{name_of(method)} {mean_interval(some['test/avg@4'], SHARE):.2f} ({reached})")
        if words:
            parts.append(f"U = {updates}: {', '.join(words)}")
    return (
        f"test avg@4 from {table['before/avg@4'].mean():.2f}, {table.seed.nunique()} seeds (tokens to reward "
        f"{TARGETS[-1]}, or the seeds that get there): {'; '.join(parts)}."
    )


def _of(curves, method, updates):
    rows = _learning(curves)
    return rows[(rows.method == method) & (rows.updates_per_batch == updates)]


def _learning(curves):
    return curves.dropna(subset="reward")


def _costs(axis, curves, target):
    costs = reaching(_learning(curves), RUN, "reward", target)
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
        title=f"until the reward is {target}", xlabel="updates per batch $U$", ylabel="tokens, thousands",
        xlim=(-0.5, len(UPDATES) - 0.5), ylim=(0, None),
    )  # fmt: skip
