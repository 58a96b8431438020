"""Cold, the KL update turns greedy, while PMD-mean reweights by the positive advantage.

Ten graded rewards. As τ → 0 PMD-mean tends to p A₊/E_p[A₊], A₊ the positive part of r − E_p[r], while the KL update
tends to p on the best action (Statement 8). (a) The policies at a low temperature beside these limits, which are drawn
where they are not 0. (b) L1 distance to them.
"""

import numpy as np
import pandas as pd

from pmdtheory import kl_update, plotting, pmd_mean_update

from . import marks

FULL = {"taus": tuple(float(t) for t in 10.0 ** np.arange(-4, 1.01, 0.25))}
FAST = {"taus": tuple(float(t) for t in 10.0 ** np.arange(-4, 1.01, 1.0))}
KEYS = ["update", "tau", "action"]

REWARD = np.linspace(0, 1, 10)
WEIGHTS = np.array([24, 18, 14, 11, 9, 8, 6, 5, 3, 2])
POLICY = WEIGHTS / WEIGHTS.sum()


def limits():
    """The two limits of Statement 8: advantage-proportional for PMD-mean, greedy for KL."""
    positive = POLICY * np.maximum(REWARD - POLICY @ REWARD, 0)
    greedy = POLICY * (REWARD.max() == REWARD)
    return {"mean": positive / positive.sum(), "kl": greedy / greedy.sum()}


def compute(taus):
    """One row per update, τ and action; τ = 0 holds the limits."""
    rows = []
    for name, update in {"kl": kl_update, "mean": pmd_mean_update}.items():
        result = update(POLICY, REWARD, taus)
        pairs = [*zip(taus, result.policy, result.chi2_weight), (0.0, limits()[name], np.nan)]
        for tau, policy, weight in pairs:
            columns = {
                "update": name,
                "tau": tau,
                "action": np.arange(REWARD.size),
                "reward": REWARD,
                "start": POLICY,
                "policy": np.where(policy < np.finfo(float).tiny, 0.0, policy),  # paths differ in subnormal numbers
                "tau_weight": tau * weight,
            }
            rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def _distances(table, update):
    rows = table[table["update"] == update].pivot(index="tau", columns="action", values="policy")
    return (rows - rows.loc[0.0]).abs().sum(axis=1).drop(0.0)


def plot(table):
    """The cold policies as bars, and the distance to each limit over τ."""
    figure, (left, right) = plotting.panels(1, 2, height=2.6)
    coldest = table.tau[table.tau > 0].min()
    start = table[(table["update"] == "kl") & (table.tau == coldest)]
    left.bar(start.reward, start.start, width=0.095, color="#DDDDDD", label="current policy $p$")
    for (name, (label, role)), offset in zip(marks.UPDATES.items(), (0.02, -0.02)):
        cold = table[(table["update"] == name) & (table.tau == coldest)]
        limit = table[(table["update"] == name) & (table.tau == 0)]
        left.bar(cold.reward + offset, cold.policy, width=0.035, color=role["color"], label=label)
        limit = limit[limit.policy > 0]
        left.plot(limit.reward + offset, limit.policy, **plotting.CHECK | {"color": "black"})
        distance = _distances(table, name)
        right.loglog(distance.index, distance.clip(lower=1e-16), **role, label=label)
    left.plot([], [], **plotting.CHECK | {"color": "black"}, label=r"limit $\tau\to0$")
    mean = float((start.start * start.reward).sum())
    left.axvline(mean, **plotting.BOUND, label="mean reward")
    left.set(xlabel="reward $r$", ylabel="probability", ylim=(0, 1.05), title=rf"the policies at $\tau={coldest:g}$")
    left.legend(loc="upper left")
    right.set(xlabel=r"temperature $\tau$", ylabel="L1 distance to the limit", ylim=(1e-16, 3))
    right.set(title="how near they are to their limits")
    right.legend(loc="lower right")
    return figure


def finding(table):
    """How far each update is from its limit, and how much mass PMD-mean leaves off the best action."""
    coldest = table.tau[table.tau > 0].min()
    mean, kl = _distances(table, "mean")[coldest], _distances(table, "kl")[coldest]
    limit = table[(table["update"] == "mean") & (table.tau == 0)]
    best = limit.policy[limit.action == limit.action.max()].item()
    return (
        f"at τ = {coldest:g} PMD-mean is within {mean:.0e} of p A₊/E_p[A₊] and KL within {max(kl, 1e-16):.0e} of "
        f"greedy (L1). PMD-mean's limit gives the best action only {best:.2f}."
    )
