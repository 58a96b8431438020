"""SmolLM2-135M learns sums in English: what five methods cost, and where they end.

Preset smollm2-135m-comparison: a pretrained model with 135 million parameters, 32 prompts × 4 completions of at most 16
tokens per batch, U updates on each. PMD-mean and PMD-part subtract leave-one-out estimates. The learning rate and the
temperature τ or clip range ε of each method and each U are the best of four trials on one tuning seed that is not used
again. (a, b) Reward of the rollouts, that is the accuracy on training prompts that are new in every batch: means over
the seeds, each seed thin. (c) Generated tokens until that reward reaches 0.9, interpolated between batches, a dot for
each seed; a triangle is a seed that does not get there within the budget; the bar is the restricted mean, of what a
seed spends that stops at the target or at the budget, with its 95% interval. (d) Test avg@4 on held-out sums,
interquartile mean and its 95% bootstrap interval, small dots: seeds. What each method costs to a reward of 0.5 and of
0.9, in tokens and in seconds, the spread of its log-ratios, entropies and lengths are in docs/training.md.
"""

import pandas as pd

from pmdtheory import plotting
from pmdtheory.comparisons import rank_test, signs
from pmdtheory.intervals import interquartile_mean
from pmdtheory.survival import restricted_mean

from . import marks
from .harness import Columns
from .marks import before, legend_of, name_of, reaching, side_by_side, span

STUDY = "pretrained"
TABLES = {
    "study_pretrained": Columns("method", "updates_per_batch seed trials before/avg@4 test/avg@4"),
    "study_pretrained_curves": Columns(
        "method", "updates_per_batch seed iteration tokens seconds reward log_ratio/std entropy length"
    ),
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


def compared(table):
    """Sign of PMD-mean against every other method at each U, by rank tests after Holm's correction."""
    cells = {key: rows["test/avg@4"] for key, rows in table.groupby(["updates_per_batch", "method"])}
    tests = {
        (updates, method): rank_test(cells[updates, METHODS[0]], cells[updates, method])
        for updates in UPDATES
        for method in METHODS[1:]
        if {(updates, METHODS[0]), (updates, method)} <= set(cells)
    }
    return dict(zip(tests, signs(list(tests.values()))))


def title(table, curves, tuning):
    """How many of the runs that are there reach the target, whom PMD-mean is told apart from, and what is missing."""
    costs = reaching(_learning(curves), RUN, "reward", TARGET)
    wanted, there, _ = missing(table, tuning)
    part = "" if there == wanted else f" ({there} of {wanted} runs of the study are there)"
    known = compared(table)
    ends = ", ".join(
        f"{place} {count}" for sign, place in ((1, "ahead of"), (-1, "behind"))
        if (count := sum(each == sign for each in known.values()))
    )  # fmt: skip
    return (
        f"SmolLM2-135M gets {TARGET:.0%} of its sums right in {costs.tokens.notna().sum()} of {len(costs)} runs; "
        f"PMD-mean {f'ends {ends}' if ends else 'is told apart from none'} of {len(known)} tuned rivals{part}"
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
    what = f"Missing are {wanted - there} of the {wanted} runs of the study, tuning included: {gaps}. " if gaps else ""
    return (
        f"{what}Test avg@4 from {table['before/avg@4'].mean():.2f}: {span(table['test/avg@4'], 2)} in {len(table)} "
        f"runs. In brackets seeds whose reward gets to {TARGET}; {'; '.join(parts)}."
    )


def costs_table(table, curves):
    """Header and rows of what each method costs, and of how it ends, with each U."""
    header = ["U", "method", "test avg@4"]
    header += [f"{unit} to {target:g}" for unit in ("thousand tokens", "seconds") for target in (0.5, TARGET)]
    header += ["spread of s", "entropy", "tokens a completion"]
    curves, rows = _learning(curves), []
    last = curves[curves.iteration == curves.iteration.max()].groupby(RUN[:2])[["log_ratio/std", "entropy", "length"]]
    last = last.mean()
    costs = {
        (unit, target): reaching(curves, RUN, "reward", target, unit)
        for unit in ("tokens", "seconds")
        for target in (0.5, TARGET)
    }
    for (method, updates), some in sorted(table.groupby(RUN[:2]), key=lambda cell: (cell[0][1], cell[0][0])):
        cells = [updates, name_of(method), f"{interquartile_mean([some['test/avg@4']]):.2f}"]
        for (unit, _), every in costs.items():
            at = every[every.updates_per_batch == updates]
            own = at[at.method == method]
            mean = restricted_mean(marks.costs_of(own, unit), marks.horizon(at, cost=unit))
            mean, half = (x / (1e3 if unit == "tokens" else 1) for x in (mean.value, mean.half_width))
            cells.append(f"{mean:.0f} ± {half:.0f} ({own[unit].notna().sum()}/{len(own)})")
        spread, entropy, length = last.loc[method, updates]
        rows.append([*cells, f"{spread:.2f}", f"{entropy:.2f}", f"{length:.1f}"])
    return header, rows


def _of(curves, method, updates):
    rows = _learning(curves)
    return rows[(rows.method == method) & (rows.updates_per_batch == updates)]


def _learning(curves):
    return curves.dropna(subset="reward")
