"""What takes a network off its law: steps from few rollouts, ordinary training, more prompts than it can fit.

The network and f of *network against theory*: f is 1 on the Lambert-W law of the PMD-mean loss and 0 on the KL law of
the log-partition loss. Lines are means over seeds of medians over prompts with 95% intervals. (a, b) Outer steps in a
row, binary reward, τ = 1: expected reward and failures, dashed the exact recursion, bands for the difference from it;
grey, where Statement 9 puts the failures, given those of the step before. With fitted population losses the network
stays on the recursion, with 16 rollouts per prompt it lags. (c, d) Ordinary training of the shipped model on its own
task, where nothing can be enumerated: f after four passes over a batch with 16 rollouts per prompt, pooled over its
prompts (filled) and over test prompts (hollow), from fresh rollouts of the policy before. A few prompts with large
ratios decide a pooled f, and repeated passes over one batch promise neither law. (e, f) f, and KL divergence from the
law of the loss (solid) and from the other law (dotted), against the number of training prompts, on those (filled) and
on others (hollow), graded reward, τ = 0.3, 1,200 gradients.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting
from pmdtheory.intervals import SHARE, mean_interval, over_seeds

from .harness import Columns
from .marks import key
from .network import CELLS, LABELS, LOSSES, OTHER, OWN, STUDY, handles, laws, log_ticks, look, select

__all__ = ["STUDY", "TABLES", "finding", "plot", "recursion"]

TABLES = {"validate": CELLS, "validate_prompts": Columns("experiment algorithm reward", "tau seed share")}

RECURSIONS = ("pmd-mean", "pmd-mean-loo")
ENDS = ("low", "high")
FACES = {"train": None, "held-out": "white"}


def plot(table, prompts):
    """Six panels, those whose experiment is there."""
    figure, axes = plotting.panels(2, 3, height=2.3)
    if len(select(prompts, "recursion")):
        rows = recursion(prompts)
        _reward(axes[0], rows)
        _failures(axes[1], rows)
    training = select(table, "training")
    for axis, tau in zip(axes[2:4], sorted(training.tau.unique())):
        _training(axis, training[training.tau == tau], tau)
    rows = select(table, "held-out")
    if len(rows):
        _held_out(axes[4], axes[5], rows)
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


def _reward(axis, rows):
    for algorithm in RECURSIONS:
        some = rows[rows.algorithm == algorithm]
        exact = some.groupby("iteration").exact.mean()
        paired = some.assign(fitted=some.fitted - some.exact + some.iteration.map(exact))
        plotting.band(axis, "iteration", paired, "fitted", limits=SHARE, **look(algorithm))
        axis.plot(exact.index, exact, color="black", linestyle="--", linewidth=0.8)
    axis.plot([], [], color="black", linestyle="--", linewidth=0.8, label="exact recursion")
    axis.legend(loc="lower right")
    axis.set(xlabel="outer step", ylabel="expected reward", ylim=(0, 1.02))


def _failures(axis, rows):
    for algorithm in RECURSIONS:
        some = rows[rows.algorithm == algorithm]
        ends = [over_seeds(some, "iteration", end, log=True)["mean"] for end in ENDS]
        axis.fill_between(ends[0].index, *ends, color=plotting.GREY, alpha=0.35, linewidth=0)
        exact = over_seeds(some, "iteration", "exact_failures", log=True)["mean"]
        paired = some.assign(failures=some.failures / some.exact_failures * some.iteration.map(exact))
        plotting.band(axis, "iteration", paired, "failures", log=True, **look(algorithm))
        axis.plot(exact.index, exact, color="black", linestyle="--", linewidth=0.8)
    axis.fill_between([], [], [], color=plotting.GREY, alpha=0.35, linewidth=0, label="Statement 9")
    axis.legend(loc="lower left")
    axis.set(yscale="log", xlabel="outer step", ylabel="failures")


def _training(axis, rows, tau):
    for algorithm in rows.algorithm.unique():
        for split, face in FACES.items():
            some = rows[(rows.algorithm == algorithm) & (rows.split == split)]
            style = look(algorithm, markerfacecolor=face or plotting.method(algorithm)["color"])
            plotting.band(axis, "iteration", some, "share", **style)
    laws(axis, 0.4)
    key(axis, "batch", "test", loc="lower left", ncols=2)
    axis.set(xlabel="outer step", ylabel="pooled slope $f$", xticks=sorted(rows.iteration.unique()))
    axis.set(title=rf"ordinary training, $\tau={tau:g}$", ylim=(-2.1, 1.2))


def _held_out(share, divergence, rows):
    for algorithm in LOSSES:
        for split, face in FACES.items():
            some, own = rows[(rows.algorithm == algorithm) & (rows.split == split)], OWN[algorithm]
            style = look(algorithm, linestyle="-", markerfacecolor=face or plotting.method(algorithm)["color"])
            if some.empty:
                continue
            plotting.band(share, "size", some, "share", **style)
            plotting.band(divergence, "size", some, f"from_{own}", log=True, **style)
            plotting.band(divergence, "size", some, f"from_{OTHER[own]}", log=True, **style | {"linestyle": ":"})
    laws(share)
    key(share, "trained on", "unseen", loc="lower right")
    share.set(ylabel="slope $f$", title="many prompts")
    divergence.set(yscale="log", ylabel="KL from a law", title="many prompts")
    for dashes, text in (("-", "its own law"), (":", "the other law")):
        divergence.plot([], [], dashes, color="black", label=text)
    divergence.legend(loc="best")
    for axis in (share, divergence):
        log_ticks(axis, rows["size"].unique())
        axis.set(xlabel="training prompts")


def finding(table, prompts):
    """What is left of the laws in steps in a row, in ordinary training, and on many prompts."""
    sentences = [_chained(prompts), _trained(table), _unseen(table)]
    return " ".join(filter(None, sentences)) or "none of these experiments is in the tables yet; nothing to compare."


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
        beyond = f"outside Statement 9's interval by 10% from step {left[0]} on" if len(left) else "inside"
        parts.append(
            f"{LABELS[algorithm]}, reward within {gap:.3f}, failures {failures[last]:.1e} after {last} steps, {beyond}"
        )
    return f"Against the exact recursion ({exact[last]:.1e} failures): {'; '.join(parts)}."


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


def _unseen(table):
    parts = []
    for (algorithm, split), rows in select(table, "held-out").groupby(["algorithm", "split"]):
        f = over_seeds(rows, "size", "share")["mean"]
        name = f"{LABELS[algorithm]}, {'trained on' if split == 'train' else 'unseen'}"
        parts.append(f"{name} " + ", ".join(f"{f[size]:.2f} ({size:g})" for size in f.index))
    return f"f by number of prompts: {'; '.join(parts)}." if parts else ""
