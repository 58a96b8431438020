"""Kimi K2.5's loss has no interior solution for rare successes and leaves more failures.

Its gain is averaged over the policy and its penalty over the anchor, max E_p[ρ A − τ log²ρ] (Statement 27). Binary
rewards. (a) The smallest temperature with a solution in which no ratio exceeds e, against the success rate J; from J =
1/e on any temperature has one, below it one success takes most of the mass. (b) Success rate after one step at several
τ, drawn where the solution exists, beside PMD-mean at 2τ, which has the same first step: bolder while J < J' < 1 − J.
(c) The failures left, which shrink like τ log(1/τ) and not like e^{−J/τ}.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting, pmd_mean_update
from pmdtheory.family import MEMBERS, kimi_k25

FULL = {"taus": (0.02, 0.1, 0.5), "points": 161}
FAST = FULL
KEYS = ["tau", "index"]
REWARD = np.array([0.0, 1.0])


def compute(taus, points):
    """One row per temperature and success rate; NaN where there is no interior solution."""
    J, rows = np.linspace(0, 1, points + 2)[1:-1], []
    policy = np.stack([1 - J, J], axis=-1)
    for tau in taus:
        exists = kimi_k25.has_law(policy, REWARD, tau)
        failure = np.full(points, np.nan)
        failure[exists] = MEMBERS["kimi-k2.5"].law(policy[exists], REWARD, tau).policy[:, 0]
        columns = {"tau": tau, "index": np.arange(points), "success": J, "failure": failure}
        columns["failure_mean"] = pmd_mean_update(policy, REWARD, 2 * tau).policy[:, 0]
        rows.append(pd.DataFrame(columns | {"smallest_tau": kimi_k25.smallest_tau(J)}))
    return pd.concat(rows, ignore_index=True)


def plot(table):
    """The boundary, the step, and the failures left."""
    figure, (left, middle, right) = plotting.panels(1, 3, height=2.6)
    taus = sorted(table.tau.unique())
    edge = table[table.tau == taus[0]]
    left.fill_between(edge.success, edge.smallest_tau, color=plotting.WINE, alpha=0.15, linewidth=0)
    left.plot(edge.success, edge.smallest_tau, color=plotting.WINE)
    left.axvline(1 / np.e, **plotting.BOUND)
    left.text(0.03, 0.15, "no solution", fontsize=7.5)
    left.text(1 / np.e + 0.01, 1.4, "$J=1/e$", fontsize=7.5)
    left.set(xlabel="success rate $J$", ylabel=r"temperature $\tau$", ylim=(0, 1.6), xlim=(0, 0.5))
    left.set_title("where it has a solution")
    own, mean = (plotting.tints(colour, len(taus)) for colour in (plotting.WINE, plotting.VERMILION))
    for tau, colour, other in zip(taus, own, mean):
        part = table[table.tau == tau]
        look = {"color": other, "linestyle": "--", "linewidth": 1.0}
        middle.plot(part.success, 1 - part.failure, color=colour, label=rf"Kimi K2.5, $\tau={tau:g}$")
        middle.plot(part.success, 1 - part.failure_mean, label=rf"PMD-mean, $\tau={2 * tau:g}$", **look)
        right.semilogy(part.success, part.failure, color=colour)
        right.semilogy(part.success, part.failure_mean, **look)
    middle.plot([0, 1], [0, 1], **plotting.BOUND, label="no change")
    middle.set(xlabel="success rate before", ylabel="success rate after", title="a step")
    right.set(xlabel="success rate before", ylabel="failures after", ylim=(1e-12, 1.5), title="failures left by it")
    figure.legend(*middle.get_legend_handles_labels(), loc="outside lower center", ncols=len(taus) + 1)
    return figure


def finding(table):
    """Where the solution ends at each τ, whether the comparison holds on the grid, and failures at the smallest τ."""
    parts = []
    for tau, part in table.groupby("tau"):
        parts.append(f"J ≥ {part.dropna().success.min():.2f} at τ = {tau:g}")
    there = table.dropna()
    bolder = there.failure < there.failure_mean
    predicted = (1 - there.failure > there.success) & (1 - there.failure < 1 - there.success)
    near = np.isclose(there.failure, there.failure_mean, rtol=1e-3)
    wrong = ((bolder != predicted) & ~near).sum()
    last = table[(table.tau == table.tau.min()) & (table.success > 0.5)].iloc[0]
    return (
        f"an interior solution exists for {', '.join(parts)}. K2.5 goes further than PMD-mean at 2τ at "
        f"{bolder.mean():.0%} of these points, and where J < J' < 1 − J at all but {wrong} of them; at J = "
        f"{last.success:.2f} and τ = {last.tau:g} {last.failure:.1e} failures are left, of PMD-mean "
        f"{last.failure_mean:.1e}."
    )
