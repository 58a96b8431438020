"""Dropping groups that are all right or all wrong enlarges the step on hard prompts.

Binary rewards, leave-one-out means (Statement 24). Groups of n rollouts that are all right or all wrong are dropped, as
dynamic sampling does: their advantages are zero anyway, but their pull back to the anchor goes with them. (a, b) What
one step adds to the log-odds of success, for several n, between PMD-mean, which keeps all groups, and the KL update;
curves begin where the law exists. (c) The largest gain over all success rates, in units of the KL update's.
"""

import numpy as np
import pandas as pd

from pmdtheory import kl_update, plotting, pmd_mean_update
from pmdtheory.family import MEMBERS, filtered

FULL = {"taus": (0.2, 1.0), "rollouts": (2, 4, 8, 16, 64), "points": 121}
FAST = FULL
KEYS = ["tau", "rollouts", "index"]
REWARD = np.array([0.0, 1.0])


def compute(taus, rollouts, points):
    """One row per temperature, group size and success rate; NaN where the law does not exist."""
    logit, rows = np.linspace(-7, 7, points), []
    J = 1 / (1 + np.exp(-logit))
    policy = np.stack([1 - J, J], axis=-1)
    for tau in taus:
        ends = {"mean": pmd_mean_update(policy, REWARD, tau), "kl": kl_update(policy, REWARD, tau)}
        for n in rollouts:
            exists = filtered.has_law(policy, REWARD, tau, n)
            odds = np.full(points, np.nan)
            s = MEMBERS["filtered"].law(policy[exists], REWARD, tau, rollouts=n).log_ratio
            odds[exists] = logit[exists] + s[:, 1] - s[:, 0]
            columns = {"tau": tau, "rollouts": n, "index": np.arange(points), "success": J, "odds": odds}
            for name, end in ends.items():
                columns[f"odds_{name}"] = logit + end.log_ratio[:, 1] - end.log_ratio[:, 0]
            rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def plot(table):
    """Gain in log-odds by τ, and where the law begins."""
    taus, sizes = sorted(table.tau.unique()), sorted(table.rollouts.unique())
    figure, axes = plotting.panels(1, len(taus) + 1, height=2.6)
    for axis, tau in zip(axes, taus):
        part = table[table.tau == tau]
        for n, colour in zip(sizes, plotting.shades(len(sizes))):
            curve = part[part.rollouts == n]
            axis.plot(curve.success, curve.odds - _before(curve), color=colour, label=f"groups of {n}, filtered")
        ends = part[part.rollouts == sizes[0]]
        axis.plot(ends.success, ends.odds_mean - _before(ends), **plotting.MEAN, label="PMD-mean, all groups")
        axis.plot(ends.success, ends.odds_kl - _before(ends), **plotting.KL, label="KL update")
        axis.set(xscale="logit", xlabel="success rate $J$", ylim=(0, 1.6 / tau))
        axis.set_title(rf"gain in a step, $\tau={tau:g}$")
        axis.set_xticks([0.01, 0.5, 0.99], ["0.01", r"$\frac{1}{2}$", "0.99"])
        axis.minorticks_off()
    axes[0].set_ylabel("gain in log-odds of success")
    for tau, colour in zip(taus, plotting.tints(plotting.GREY, len(taus))):
        some = _overshoot(table[table.tau == tau])
        axes[-1].loglog(some.index, some, "o-", color=colour, markersize=4, label=rf"$\tau={tau:g}$")
    axes[-1].axhline(1, **plotting.KL | {"linewidth": 1.0}, label="KL update")
    axes[-1].set(xlabel="rollouts in a group", ylabel="in units of the KL update's", title="largest gain")
    axes[-1].set_xticks(sizes, [f"{n}" for n in sizes])
    axes[-1].set_yticks([1, 1.5, 2, 3, 4], ["1", "1.5", "2", "3", "4"])
    axes[-1].minorticks_off()
    axes[-1].legend()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _before(part):
    return np.log(part.success) - np.log1p(-part.success)


def _overshoot(part):
    """Largest gain over that of the KL update, by n."""
    ratio = (part.odds - _before(part)) / (part.odds_kl - _before(part))
    return ratio.groupby(part.rollouts).max()


def finding(table):
    """Steps with and without the filter where it matters most, and where the law ends."""
    tau, n = table.tau.max(), 8
    part = table[(table.tau == tau) & (table.rollouts == n)].dropna(subset="odds")
    gains = {name: part[name] - _before(part) for name in ("odds", "odds_mean", "odds_kl")}
    at = (gains["odds"] / gains["odds_kl"]).idxmax()
    over = (gains["odds"] > gains["odds_kl"] * (1 + 1e-9)).mean()
    most = _overshoot(table[table.tau == table.tau.min()])
    return (
        f"With n = {n} at τ = {tau:g} the filter takes the log-odds up by {gains['odds'][at]:.2f} at J = "
        f"{part.success[at]:.3f}, where all groups give {gains['odds_mean'][at]:.2f} and the KL update "
        f"{gains['odds_kl'][at]:.2f}; the step exceeds the KL update's at {over:.0%} of the success rates. At τ = "
        f"{table.tau.min():g} it is up to {most.iloc[0]:.2g} times the KL update's with n = {most.index[0]}, "
        f"{most[n]:.2g} times with n = {n}, {most.iloc[-1]:.2g} with n = {most.index[-1]}."
    )
