"""What takes a network off its law: few rollouts a step, and ordinary training.

The network and f of *network against theory*: f is 1 on the Lambert-W law of the PMD-mean loss and 0 on the KL law of
the log-partition loss. Marks are means over seeds of medians over prompts with 95% intervals. (a) Outer steps in a row,
binary reward, τ = 1: failures, dashed the exact recursion, bands for the difference from it; grey, where Statement 9
puts the failures, given those of the step before. With fitted population losses the network stays on the recursion,
with 16 rollouts per prompt it lags. (b) Ordinary training of the shipped model on its own task, where nothing can be
enumerated: f after four passes over a batch with 16 rollouts per prompt in the third step, pooled over its prompts
(filled) and over test prompts (hollow), from fresh rollouts of the policy before. A few prompts with large ratios
decide a pooled f, and repeated passes over one batch promise neither law; *network training* has the knobs.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting
from pmdtheory.intervals import mean_interval, over_seeds

from .harness import Columns
from .marks import key
from .network import CELLS, LABELS, STUDY, handles, laws, look, points, select

__all__ = ["STUDY", "TABLES", "finding", "plot", "recursion"]

TABLES = {"validate": CELLS, "validate_prompts": Columns("experiment algorithm reward", "tau seed share")}

RECURSIONS = ("pmd-mean", "pmd-mean-loo")
ENDS = ("low", "high")
FACES = {"train": None, "held-out": "white"}


def plot(table, prompts):
    """Two panels, those whose experiment is there."""
    figure, axes = plotting.panels(1, 2, height=2.8)
    if len(select(prompts, "recursion")):
        _failures(axes[0], recursion(prompts))
    rows = select(table, "training")
    if len(rows):
        _training(axes[1], rows[rows.iteration == rows.iteration.max()])
    figure.legend(handles=handles((*RECURSIONS, "pmd-part-loo")), loc="outside lower center", ncols=3)
    return figure


def recursion(prompts):
    """Per seed and outer step: expected reward and failures, exact and fitted, and Statement 9's ends for the failures.

    Expected rewards are means over the prompts, failures medians; step 0 is the base.
    """
    rows = select(prompts, "recursion")
    failed = 1 - rows.expected_reward
    rows = rows.assign(
        fitted=rows.expected_reward + rows.gain, exact=rows.expected_reward_recursion,
        failures=failed * np.exp(rows.failure_log_ratio), exact_failures=1 - rows.expected_reward_recursion,
        low=failed * np.exp(rows.failure_low), high=failed * np.exp(rows.failure_high),
    )  # fmt: skip
    first = rows[rows.iteration == 1]
    failed, start = 1 - first.expected_reward, {"iteration": 0}
    start |= {"fitted": first.expected_reward, "exact": first.expected_reward}
    start |= dict.fromkeys(("failures", "exact_failures", "low", "high"), failed)
    group = pd.concat([first.assign(**start), rows]).groupby(["algorithm", "seed", "iteration"])
    means = group[["fitted", "exact"]].mean()
    return means.join(group[["failures", "exact_failures", "low", "high"]].median()).reset_index()


def _failures(axis, rows):
    for algorithm in RECURSIONS:
        some = rows[rows.algorithm == algorithm]
        ends = [over_seeds(some, "iteration", end, log=True)["mean"] for end in ENDS]
        axis.fill_between(ends[0].index, *ends, color=plotting.GREY, alpha=0.35, linewidth=0)
        exact = over_seeds(some, "iteration", "exact_failures", log=True)["mean"]
        paired = some.assign(failures=some.failures / some.exact_failures * some.iteration.map(exact))
        plotting.band(axis, "iteration", paired, "failures", log=True, **look(algorithm))
        axis.plot(exact.index, exact, color="black", linestyle="--", linewidth=0.8)
    axis.plot([], [], color="black", linestyle="--", linewidth=0.8, label="exact recursion")
    axis.fill_between([], [], [], color=plotting.GREY, alpha=0.35, linewidth=0, label="Statement 9")
    axis.legend(loc="lower left")
    axis.set(yscale="log", xlabel="outer step", ylabel="failures", title="steps in a row")


def _training(axis, rows):
    taus = sorted(rows.tau.unique())
    algorithms = list(dict.fromkeys(rows.algorithm))
    for i, algorithm in enumerate(algorithms):
        for j, (split, face) in enumerate(FACES.items()):
            some = rows[(rows.algorithm == algorithm) & (rows.split == split)]
            place = some.tau.map(taus.index) + 0.3 * (i - (len(algorithms) - 1) / 2) + 0.12 * (j - 0.5)
            style = look(algorithm, markerfacecolor=face or plotting.method(algorithm)["color"])
            points(axis, some.assign(place=place), "place", "share", **style)
    laws(axis)
    key(axis, "on the batch", "on test prompts", loc="lower left")
    axis.set_xticks(range(len(taus)), [rf"$\tau={tau:g}$" for tau in taus])
    axis.set(ylabel="pooled slope $f$", title="ordinary training", xlim=(-0.5, len(taus) - 0.5), ylim=(-2.9, 1.5))


def finding(table, prompts):
    """What is left of the laws in steps in a row and in ordinary training."""
    sentences = [_chained(prompts), _trained(table)]
    return " ".join(filter(None, sentences)) or "none of these experiments is in the tables yet; nothing to compare."


def title(table, prompts):
    """Where f ends in ordinary training, under the PMD-mean loss whose law has f = 1."""
    rows = select(table, "training", split="train", algorithm="pmd-mean-loo")
    rows = rows[(rows.iteration == rows.iteration.max()) & (rows.tau == rows.tau.min())]
    if rows.empty:
        return "Steps in a row from few rollouts lag behind the exact recursion"
    return f"What takes a network off its law: in place of 1 PMD-mean's slope f is {rows.share.mean():.1f} in training"


def _chained(prompts):
    if select(prompts, "recursion").empty:
        return ""
    parts = []
    for algorithm, rows in recursion(prompts).groupby("algorithm"):
        mean = rows.groupby("iteration")[["fitted", "exact"]].mean()
        low, high, failures, exact = (
            over_seeds(rows, "iteration", name, log=True)["mean"] for name in (*ENDS, "failures", "exact_failures")
        )
        left = failures.index[(failures > 1.1 * high) | (1.1 * failures < low)]
        last, gap = failures.index[-1], (mean.fitted - mean.exact).abs().max()
        beyond = f"outside Statement 9's interval from step {left[0]} on" if len(left) else "inside"
        parts.append(
            f"{LABELS[algorithm]}, reward within {gap:.3f}, failures {failures[last]:.1e}, {beyond}"
        )
    return f"After {last} steps of the exact recursion ({exact[last]:.1e} failures): {'; '.join(parts)}."


def _trained(table):
    parts = []
    rows = select(table, "training", split="train")
    for tau, some in rows[rows.iteration == rows.iteration.max()].groupby("tau"):
        each = [
            f"{LABELS[algorithm].partition(',')[0]} {mean_interval(own.share):.2f}"
            for algorithm, own in some.groupby("algorithm")
        ]
        parts.append(f"τ = {tau:g}: {', '.join(each)}")
    return f"f in ordinary training, {'; '.join(parts)}." if parts else ""
