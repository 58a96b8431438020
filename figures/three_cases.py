"""What a fixed batch makes of the policy: its targets are fitted, missed, or mass is dumped.

m is the mass that the targets of the seen actions ask for (Statement 14). (a) m < 1 with unseen actions: the targets p
e^d are fitted and the free mass is shared in proportion. (b) The same batch, colder, m > 1: the unseen mass vanishes
and the targets are missed. (c) m < 1 and everything seen: four actions with rewards 0, 0.3, 0.6, 1, counts 1, 14, 15,
20 and τ = 0.5, under an ever higher baseline: beyond a point the mass is dumped on the worst action, seen once. (d)
Share of the seeds whose batch dumps over n, graded rewards observed exactly (hollow) and as coins (filled), for three
baselines, the last of which overestimates: the best reward of the batch. K = 10, τ = 0.1; bandits as in *finite sample
improvement*. Whiskers are exact 95% intervals. The table also holds the shares of all cases, the leave-one-out
PMD-part, unseen mass shared as softmax gradient flow would, sweeps over τ and K, and the losses of the stationary
points of two actions, w = (0.1, 0.9) and p e^d = (0.001, 0.0099), of which the least puts 99% on the rarely seen
action.
"""

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from pmdtheory import plotting
from pmdtheory.baselines import log_partition
from pmdtheory.intervals import proportion
from pmdtheory.sampled import UNSEEN_RULES, sampled_update

from .finite_sample_improvement import drawn

FULL = {
    "rollouts": (4, 16, 64, 256),
    "taus": (0.03, 0.1, 0.3, 1.0),
    "sizes": (3, 10, 30, 100),
    "levels": tuple(round(0.3 + 0.02 * i, 12) for i in range(101)),
    "seeds": 200,
}
FAST = {"rollouts": (4, 64), "taus": (0.1,), "sizes": (10,), "levels": FULL["levels"][::10], "seeds": 200}
KEYS = ["panel", "estimator", "noisy", "actions", "tau", "rollouts", "baseline", "action", "share_first"]

POLICY = np.array([0.40, 0.25, 0.15, 0.10, 0.06, 0.04])
SUCCESS = np.array([0, 0, 0, 3]), np.array([0.0, 0.0, 0.0, 1.0])
WARM, COLD = 0.5, 0.2
ASKED, COUNTS = np.array([0.001, 0.0099]), np.array([1, 9])
DUMP = np.array([0.02, 0.28, 0.30, 0.40]), np.repeat(np.arange(4), [1, 14, 15, 20]), np.array([0.0, 0.3, 0.6, 1.0])
DUMP_TAU = 0.5
K, TAU, N, J = 10, 0.1, 64, 0.3
ESTIMATORS = ("mean", "log_partition", "loo_log_partition", "best")
CASES = ("fitted", "too_much", "principal", "dumped")


def compute(rollouts, taus, sizes, levels, seeds):
    """Examples action by action, the loss of two actions, the sweep of the baseline, and counts of the cases."""
    rows = [*_examples(), *_two_actions(), *_dump(levels)]
    settings = [("n", K, TAU, n) for n in rollouts]
    settings += [("tau", K, tau, N) for tau in taus] + [("K", size, TAU, N) for size in sizes]
    for panel, size, tau, n in settings:
        for noisy in (False, True):
            policy, actions, rewards = batch(size, n, noisy, seeds)
            for estimator in ESTIMATORS:
                key = {"panel": panel, "estimator": estimator, "noisy": noisy, "actions": size, "tau": tau}
                counts = count_cases(policy, actions, rewards, tau, estimator)
                rows.append(key | {"rollouts": n, "seeds": seeds} | counts)
    table = pd.DataFrame(rows)
    whole = ["noisy", "actions", "rollouts", "action", "seeds", *CASES]
    return table.astype(dict.fromkeys(whole, "Int64"))


def batch(size, n, noisy, seeds):
    """Policies, actions and rewards of n rollouts of every seed's bandit."""
    streams = [np.random.default_rng([seed, size]) for seed in range(seeds)]
    policy, _, actions, rewards = drawn("noisy" if noisy else "graded", size, J, n, streams)
    return policy, actions, rewards


def count_cases(policy, actions, rewards, tau, estimator):
    """How many rows are in each case; "principal" and "dumped" make up the one that is not convex."""
    baseline = rewards.max(axis=-1) if estimator == "best" else estimator
    step = sampled_update(policy, actions, rewards, tau, baseline=baseline)
    weight = (actions[:, :, None] == np.arange(policy.shape[1])).mean(axis=1)
    pull = -step.chi2_weight[:, None] * step.policy
    dumped = ((weight > 0) & (pull > weight)).any(axis=-1)
    below = step.chi2_weight < 0
    cases = (step.chi2_weight == 0, step.chi2_weight > 0, below & ~dumped, below & dumped)
    return {name: int(case.sum()) for name, case in zip(CASES, cases)}


def _examples():
    actions, rewards = SUCCESS
    for tau in (WARM, COLD):
        steps = {rule: sampled_update(POLICY, actions, rewards, tau, "mean", rule).policy for rule in UNSEEN_RULES}
        target = np.full(POLICY.shape, np.nan)
        target[actions] = (rewards - rewards.mean()) / tau
        columns = {"policy": POLICY, "asked": POLICY * np.exp(target), **steps}
        for action in range(POLICY.size):
            values = {name: column[action] for name, column in columns.items()}
            yield {"panel": "example", "tau": tau, "action": action} | values


def _two_actions():
    """Loss of q = (x, 1 − x): a curve, and the stationary points with their losses."""
    weight = COUNTS / COUNTS.sum()

    def loss(logit):
        q = np.array([1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(logit))])
        return weight @ (np.log(q / ASKED) ** 2) / 2

    def slope(logit):  # by the logit
        q = np.array([1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(logit))])
        return weight * np.log(q / ASKED) @ np.array([q[1], -q[0]])

    grid = np.linspace(-9, 9, 181)
    sign = [slope(x) for x in grid]
    roots = [brentq(slope, a, b, xtol=1e-14) for a, b, u, v in zip(grid, grid[1:], sign, sign[1:]) if u * v < 0]
    actions, policy = np.repeat([0, 1], COUNTS), np.array([0.5, 0.5])
    rewards = np.log(ASKED / policy)[actions]
    answer = sampled_update(policy, actions, rewards, 1.0, baseline=0.0).policy
    for kind, logits in (("curve", grid), ("stationary", roots), ("answer", [np.log(answer[0] / answer[1])])):
        for logit in logits:
            yield {"panel": "loss", "estimator": kind, "share_first": round(logit, 9), "loss": loss(logit)}


def _dump(levels):
    policy, actions, reward = DUMP
    for level in levels:
        step = sampled_update(policy, actions, reward[actions], DUMP_TAU, baseline=level)
        for action, q in enumerate(step.policy):
            yield {"panel": "dump", "baseline": level, "action": action, "answer": q}


LOOKS = {
    "mean": plotting.MEAN | {"label": "PMD-mean"},
    "log_partition": plotting.KL | {"label": "PMD-part"},
    "best": {"color": plotting.BLACK, "label": "best reward"},
}


def plot(table):
    """Three examples, and how often a batch dumps."""
    figure, axes = plotting.panels(2, 2, height=2.4)
    _example(axes[0], table, WARM)
    _example(axes[1], table, COLD)
    _levels(axes[2], table)
    _dumped(axes[3], table[table.panel == "n"])
    return figure


def _example(axis, table, tau):
    rows = table[(table.panel == "example") & (table.tau == tau)]
    place = rows.action.astype(float)
    axis.bar(place, rows.policy, width=0.9, color="#DDDDDD", label="policy before")
    low = rows.asked.where(rows.asked < 1)
    axis.plot(place, low, color=plotting.GREY, marker="_", markersize=16, lw=0, label="target")
    axis.plot(place, rows.proportional, color=plotting.VERMILION, marker="o", markersize=4, lw=0, label="PMD-mean")
    top = rows.asked.max()
    if top > 1:
        axis.annotate(f"target {top:.2f} ↑", (place[rows.asked.idxmax()], 1.02), ha="center", fontsize=7.5)
    axis.set(xlabel="action", ylabel="probability", xticks=place, ylim=(0, 1.2))
    axis.set_title(f"targets add up to {rows.asked.sum():.2f}: {'fitted' if top < 1 else 'missed'}")
    axis.legend(loc="upper right" if top < 1 else (0.62, 0.36))


def _levels(axis, table):
    rows, (_, actions, reward) = table[table.panel == "dump"], DUMP
    for action, colour in zip(range(4), plotting.shades(4)):
        curve, seen = rows[rows.action == action], (actions == action).sum()
        axis.plot(curve.baseline, curve.answer, color=colour, label=f"reward {reward[action]:g}, seen {seen}×")
    marked = (
        (reward[actions].mean(), "mean", plotting.MEAN, (-3, 0), "right"),
        (log_partition(reward[actions], DUMP_TAU), "log-partition", plotting.KL, (3, 0), "left"),
    )
    for baseline, name, role, shift, side in marked:
        axis.axvline(baseline, **role | {"linewidth": 0.9})
        where = {"textcoords": "offset points", "ha": side, "va": "center", "fontsize": 7.5, "color": role["color"]}
        axis.annotate(name, (baseline, 0.4), shift, **where)
    axis.set(xlabel="baseline", ylabel="probability after", ylim=(0, 1), title="all seen, baseline too high: dumped")
    axis.legend(loc=(0.57, 0.3), borderpad=0.1, handlelength=1.2)


def _dumped(axis, rows):
    """Share of the seeds that dump, by estimator; coins filled, exact rewards hollow."""
    values = sorted(rows.rollouts.unique())
    for i, (estimator, look) in enumerate(LOOKS.items()):
        for noisy in (0, 1):
            some = rows[(rows.estimator == estimator) & (rows.noisy == noisy)].sort_values("rollouts")
            counts = [column.to_numpy(float) for column in (some.dumped, some.seeds)]
            share, place = counts[0] / counts[1], np.arange(len(values)) + 0.08 * (i - 1)
            error = np.abs(np.array(proportion(*counts)) - share)
            face = look["color"] if noisy else "white"
            dashes = {"linestyle": "-" if noisy else ":", "linewidth": 1.0, "label": look["label"] if noisy else None}
            axis.errorbar(place, share, error, marker="o", markersize=4, markerfacecolor=face, elinewidth=0.8,
                          **look | dashes)  # fmt: skip
    hollow = {"color": plotting.GREY, "markersize": 4, "markerfacecolor": "white"}
    axis.plot([], [], "o:", label="exact rewards", **hollow)
    axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axis.set(xlabel="rollouts", ylabel="share of the batches", ylim=(-0.03, 1.03), title="how often mass is dumped")
    axis.legend(loc="upper left")


def title(table):
    """Which estimators ever dump."""
    dumped = table[table.panel.isin(["n", "tau", "K"])].groupby("estimator").dumped.sum()
    words = {"mean": "PMD-mean", "log_partition": "PMD-part"}
    never, ever = ([words[name] for name in words if (dumped[name] > 0) == yes] for yes in (False, True))
    parts = [f"{' and '.join(never)} never dumps mass on a rare action"] if never else []
    parts += [f"{' and '.join(ever)} does where all actions are seen"] if ever else []
    return f"Fitted to a fixed batch {', '.join(parts)}"


def finding(table):
    """How often each estimator dumps, where dumping begins in the example, losses of the other one."""
    losses = table[(table.panel == "loss") & (table.estimator == "stationary")].loss.sort_values()
    rare = table[(table.panel == "dump") & (table.action == 0)]
    actions, reward = DUMP[1:]
    estimate = log_partition(reward[actions], DUMP_TAU)
    jump = rare.baseline[rare.answer > 0.5].min()
    many = table[(table.panel == "n") & (table.rollouts == table.rollouts[table.panel == "n"].max())]
    share = {(row.estimator, row.noisy): row.dumped / row.seeds for row in many.itertuples()}
    convex = {(row.estimator, row.noisy): 1 - (row.principal + row.dumped) / row.seeds for row in many.itertuples()}
    return (
        f"at n = {many.rollouts.max():.0f}, K = {K}, τ = {TAU} PMD-part dumps in {share['log_partition', 1]:.0%} of "
        f"the seeds with coins (exact rewards: {share['log_partition', 0]:.0%}), PMD-mean in {share['mean', 1]:.0%}. "
        f"With coins the problem is convex in {convex['mean', 1]:.0%} of the seeds with PMD-mean, in "
        f"{convex['log_partition', 1]:.0%} with PMD-part; the best reward of the batch as a baseline dumps in "
        f"{share['best', 1]:.0%}. The example dumps from b = {jump:.2f} on (its log-partition estimate is "
        f"{estimate:.2f}). Of the stationary points on two actions (losses "
        f"{', '.join(f'{loss:.2f}' for loss in losses)}) the least dumps."
    )
