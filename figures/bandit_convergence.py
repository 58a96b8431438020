"""PMD-mean ends as fast as the KL update but takes off later; both stay under their bounds.

The gap to the best expected reward over the steps, exact recursions from the same policy, at two temperatures. (a)
Graded rewards, ten actions with rewards 0, 1/9, …, 1, most mass on the bad ones. (b) Binary rewards, success rate 0.001
at the start; the short bars are the ends of what Statement 9 allows of each PMD-mean step given the policy it started
from. The bounds are B8 for the KL update and B11 for PMD-mean (Statement 16). The later start, the more so the smaller
τ, is conservatism while rewards are low.
"""

import numpy as np
import pandas as pd

from pmdtheory import kl_update, plotting, pmd_mean_update
from pmdtheory.theorems import bandit_rates, binary_reward

from . import marks

FULL = {"taus": (0.05, 0.2, 1.0), "steps": 100}
FAST = {"taus": (0.05, 1.0), "steps": 30}
KEYS = ["rewards", "update", "tau", "step"]

WEIGHTS = np.array([24, 18, 14, 11, 9, 8, 6, 5, 3, 2])
PROBLEMS = {
    "graded": (WEIGHTS / WEIGHTS.sum(), np.linspace(0, 1, 10)),
    "binary": (np.array([0.999, 0.001]), np.array([0.0, 1.0])),
}
FLOOR = 1e-12
STEP = {"color": "black", "linestyle": "none", "marker": "_", "markersize": 7, "markeredgewidth": 0.7}


def compute(taus, steps):
    """One row per reward kind, update, τ and step: the gap, its bound, and the band of Statement 9."""
    rows = []
    for kind, (policy, reward) in PROBLEMS.items():
        for tau in taus:
            for name, update, rate in (
                ("kl", kl_update, bandit_rates.kl_rate),
                ("mean", pmd_mean_update, bandit_rates.pmd_mean_rate),
            ):
                claim = rate(policy, reward, tau, steps)
                columns = {
                    "rewards": kind,
                    "update": name,
                    "tau": tau,
                    "step": np.arange(1, steps + 1),
                    "gap": claim.value,
                    "bound": claim.bound,
                    "holds": claim.holds,
                    "step_low": np.nan,
                    "step_high": np.nan,
                }
                if kind == "binary" and name == "mean":
                    columns |= _step_band(update, policy, reward, tau, steps)
                rows.append(pd.DataFrame(columns))
    table = pd.concat(rows, ignore_index=True)
    return table[table.gap > FLOOR]


def _step_band(update, policy, reward, tau, steps):
    """Failures after each step as Statement 9 bounds them from the policy before it."""
    before = [policy]
    while len(before) < steps:
        before.append(update(before[-1], reward, tau).policy)
    before = np.stack(before)
    low = binary_reward.failure_ratio_from_below(before, reward, tau).bound
    high = binary_reward.failure_ratio_from_above(before, reward, tau).bound
    low = np.reshape(low, (steps, -1)).max(axis=-1)
    return {"step_low": before[:, 0] * np.exp(low), "step_high": before[:, 0] * np.exp(high)}


def plot(table):
    """Gap over steps, one panel per kind of reward; dotted bounds."""
    figure, axes = plotting.panels(1, 2, height=3.0, sharex=True, sharey=True)
    taus = sorted(table.tau.unique())[-2:]
    lines = marks.by_temperature(taus)
    for axis, kind in zip(axes, PROBLEMS):
        for (update, tau), style in lines.items():
            curve = table[(table.rewards == kind) & (table["update"] == update) & (table.tau == tau)]
            axis.loglog(curve.step, curve.gap, marker=".", markersize=3, **style)
            axis.loglog(curve.step, curve.bound, **style | {"linestyle": ":", "linewidth": 1.0})
            for end in (curve.step_low, curve.step_high):
                axis.loglog(curve.step, end, **STEP)
        axis.set(title=f"{kind} rewards", xlabel="step")
    axes[0].set(ylim=(1e-6, 2e3), ylabel="gap to the best expected reward")
    handles = marks.legend_by_temperature(taus)
    handles += [
        plotting.line(label="bound of the same colour", color="black", linestyle=":", linewidth=1.0),
        plotting.line(label="allowed by Statement 9", **STEP),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def finding(table):
    """Violations, and the steps that each recursion needs."""
    binary = table[table["rewards"] == "binary"]
    inside = binary.dropna(subset=["step_low"])
    kept = (inside.gap >= inside.step_low * (1 - 1e-9)) & (inside.gap <= inside.step_high * (1 + 1e-9))
    coldest = binary[binary.tau == binary.tau.min()]
    needed = {name: int(rows[rows.gap < 0.1].step.min()) for name, rows in coldest.groupby("update")}
    mean = table[table["update"] == "mean"]
    ratio = (mean.gap / mean.bound).max()
    return (
        f"from J = 0.001 at τ = {binary.tau.min():g} PMD-mean needs {needed['mean']} steps to pass 0.9, KL "
        f"{needed['kl']}. Bounds hold at {int(table.holds.sum())} of {len(table)} points and Statement 9 at "
        f"{int(kept.sum())} of {len(inside)} steps; PMD-mean's gap is at most {ratio:.0%} of B11."
    )
