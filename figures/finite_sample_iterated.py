"""Forty steps, each from a few rollouts of the policy before: what noise does to either estimate.

Each of the runs draws its own bandit of K = 100 actions as in the figure of one step, and takes the exact minimiser of
the sampled regression again and again, n = 16 rollouts a step from the current policy and τ = 0.1 unless shown
otherwise (Statements 12–14). Mean rewards from Beta(0.6, 1.4) are (a) observed as they are, (b, d) as coins, (c) with
Gaussian noise. Delay d, in the table: step t draws the rollouts from the policy of step t − d (of step 0 before that),
keeping to actions that the policy of step t has not excluded, and fits log(q/π_t) to the targets of their rewards as if
they were fresh. Bands and whiskers are 95% intervals over the runs, exact ones in d.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting
from pmdtheory.bandit import Bandit, iterate
from pmdtheory.draws import draw_actions
from pmdtheory.intervals import proportion
from pmdtheory.sampled import sampled_update

from .finite_sample_improvement import ESTIMATORS, LABELS, PLAIN, ROLES, handles, instances, mean_and_half

FULL = {
    "cases": ("binary", "graded", "noisy"),
    "taus": (0.03, 0.3, 1.0),
    "rollouts": (4, 8, 32, 64),
    "scales": (0.1, 0.2, 0.5, 1.0),
    "delays": (1, 2, 4, 8),
    "runs": 200,
}
FAST = {"cases": ("graded", "noisy"), "taus": (), "rollouts": (64,), "scales": (0.5,), "delays": (8,), "runs": 200}
KEYS = ["sweep", "case", "estimator", "tau", "rollouts", "scale", "delay", "step"]

K, TAU, N, STEPS = 100, 0.1, 16, 40
CASES = {
    "binary": ("binary", 0.05, {"noise": "none"}),
    "graded": ("graded", 0.3, {"noise": "none"}),
    "noisy": ("graded", 0.3, {"noise": "bernoulli"}),
}


def bandit(case, runs, scale=0.0):
    """One context per run, each with its own instance; and the policies to start from."""
    rewards, J, noise = CASES[case]
    policy, reward = instances(rewards, K, J, [np.random.default_rng([run, K]) for run in range(runs)])
    if scale > 0:
        noise = {"noise": "gaussian", "noise_scale": scale}
    return Bandit(reward, **noise), policy


def delayed(problem, policy, tau, steps, delay, rollouts, estimator, seed=0):
    """Policies (steps + 1, C, K) when rollouts are `delay` steps old; with delay 0 those of `bandit.iterate`."""
    policies = [policy]
    stream = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    for step in range(steps):
        old = np.where(policies[-1] > 0, policies[max(step - delay, 0)], 0.0)
        actions = draw_actions(old, stream.random((len(policy), rollouts)))
        rewards = problem.observe(stream, actions)
        policies.append(sampled_update(policies[-1], actions, rewards, tau, baseline=estimator).policy)
    return np.stack(policies)


def compute(cases, taus, rollouts, scales, delays, runs):
    """Every step of each case at τ = 0.1 and n = 16; the last step of the other settings."""
    rows = []
    for case in cases:
        for estimator in ESTIMATORS:
            rows += _fresh("steps", case, estimator, runs, range(STEPS + 1))
    for estimator in PLAIN:
        for tau in taus:
            rows += _fresh("tau", "noisy", estimator, runs, [STEPS], tau=tau)
        for scale in scales:
            rows += _fresh("scale", "graded", estimator, runs, [STEPS], scale=scale)
        for delay in delays:
            problem, policy = bandit("noisy", runs)
            end = delayed(problem, policy, TAU, STEPS, delay, N, estimator)[-1]
            key = {"sweep": "delay", "case": "noisy", "estimator": estimator, "tau": TAU, "rollouts": N, "scale": 0.0}
            reward = (end * problem.reward).sum(axis=-1)
            rows.append(key | {"delay": delay, "step": STEPS} | mean_and_half(reward, "reward"))
    for estimator in ESTIMATORS:
        for n in rollouts:
            rows += _fresh("rollouts", "noisy", estimator, runs, [STEPS], n=n)
    return pd.DataFrame(rows)


def _fresh(sweep, case, estimator, runs, steps, tau=TAU, n=N, scale=0.0):
    problem, policy = bandit(case, runs, scale)
    path = iterate(problem, policy, tau, STEPS, rollouts=n, estimator=estimator, per_context=True)
    start = path.reward[path.step == 0].to_numpy()
    key = {"sweep": sweep, "case": case, "estimator": estimator, "tau": tau, "rollouts": n, "scale": scale, "delay": 0}
    rows = []
    for step in steps:
        at = path[path.step == step]
        gain = at.reward.to_numpy() - start
        rows.append(
            key
            | {"step": step, "runs": runs, "below": int((gain < -1e-12).sum())}
            | mean_and_half(at.reward.to_numpy(), "reward")
            | mean_and_half(np.exp(at.entropy.to_numpy()), "effective")
        )
    return rows


def _last(table, sweep, case="noisy"):
    """Last steps along `sweep`, the plain setting of `case` included."""
    last = table[(table.step == STEPS) & (table.case == case)]
    return last[last["sweep"].isin([sweep, "steps"])].sort_values(sweep)


def _draw(axis, x, rows, value, names=ESTIMATORS):
    for name in names:
        curve = rows[rows.estimator == name]
        half, role = curve[f"{value}_half"], ROLES[name]
        marks = {"markevery": 5} if x == "step" and role["linestyle"] == "none" else {}
        axis.plot(curve[x], curve[value], **role, **marks)
        if role["linestyle"] != "none" or x != "step":
            axis.fill_between(curve[x], curve[value] - half, curve[value] + half, color=role["color"], alpha=0.2, lw=0)


def plot(table):
    """Paths of two cases, where they end with more noise, and how often below their start."""
    figure, axes = plotting.panels(2, 2, height=2.3)
    steps = table[table["sweep"] == "steps"]
    for axis, case, title in zip(axes, ("graded", "noisy"), ("rewards observed exactly", "rewards observed as coins")):
        _draw(axis, "step", steps[steps.case == case], "reward")
        axis.set(title=title, xlabel="step", ylim=(0, 1.02), ylabel="expected reward")
    _draw(axes[2], "scale", _last(table, "scale", "graded"), "reward", PLAIN)
    start = steps[(steps.case == "graded") & (steps.step == 0)].reward.mean()
    axes[2].axhline(start, **plotting.BOUND)
    axes[2].annotate("at the start", (0.02, start), (0, 3), textcoords="offset points", fontsize=7.5)
    axes[2].set(xlabel="standard deviation of the noise", ylim=(0.2, 0.95), title=f"more noise, after {STEPS} steps")
    axes[2].set_ylabel("expected reward")
    _below(axes[3], _last(table, "rollouts"))
    axes[3].set_xscale("log", base=2)
    axes[3].set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
    figure.legend(handles=handles(), loc="outside lower center", ncols=4)
    return figure


def _below(axis, rows):
    """Share of the runs that end below their start, with intervals."""
    for name in ESTIMATORS:
        curve = rows[rows.estimator == name]
        share, (low, high) = curve.below / curve.runs, proportion(curve.below, curve.runs)
        axis.errorbar(curve.rollouts, share, [share - low, high - share], elinewidth=0.8, **ROLES[name])
    axis.set(xlabel="rollouts a step", ylabel="share of the runs", ylim=(0, None))
    axis.set_title("runs that end below their start")


def title(table):
    """Which estimator ends higher without noise and with the Gaussian noise of 0.5."""
    last = table[table.step == STEPS]
    parts = []
    for name, scale in (("without noise", 0.0), ("with noise of 0.5", 0.5)):
        rows = last[(last.case == "graded") & (last.scale == scale)].drop_duplicates("estimator").set_index("estimator")
        best, other = sorted(PLAIN, key=lambda plain: -rows.reward[plain])
        clear = rows.reward[best] - rows.reward[other] > rows.reward_half[best] + rows.reward_half[other]
        parts.append(f"{LABELS[best]} ends higher {name}" if clear else f"both end alike {name}")
    return f"After {STEPS} steps {', '.join(parts)}"


def finding(table):
    """Where either estimator ends, without and with noise, and what more rollouts and delay do."""
    last = table[table.step == STEPS]
    settings = {
        "without noise": {"case": "graded", "scale": 0.0},
        "with Gaussian noise of 0.5": {"sweep": "scale", "scale": 0.5},
        f"with {N} coins a step": {"case": "noisy", "sweep": "steps"},
        "with 64 coins": {"sweep": "rollouts", "rollouts": 64},
        f"with rollouts {last.delay.max()} steps old": {"delay": last.delay.max()},
    }
    parts = []
    for name, setting in settings.items():
        rows = last[(last[list(setting)] == pd.Series(setting)).all(axis=1)].set_index("estimator")
        if set(PLAIN) <= set(rows.index):
            ends = (f"{rows.reward[plain]:.2f} ± {rows.reward_half[plain]:.2f}" for plain in PLAIN)
            parts.append(f"{name} {' against '.join(ends)}")
    small = last[(last.estimator == "loo_log_partition") & (last.case == "noisy")].sort_values("rollouts").iloc[0]
    return (
        f"reward after {STEPS} steps, PMD-mean against PMD-part (95% intervals): {'; '.join(parts[:2])}. "
        f"{'; '.join(parts[2:])}. Leave-one-out "
        f"PMD-part with n = {small.rollouts} coins ends below its start in {small.below:.0f}/{small.runs:.0f} runs."
    )
