"""Conservative where rewards are low: the success rate after one step, and what is left of the failures (Statement 9).

Binary rewards with success rate J. Left: J' after one step of either update. Right: the failures' remaining share (1 −
J')/(1 − J), between its two bounds for PMD-mean, against the KL update's and its small-J form e^{−1/τ}/J. Dotted: no
change on the left, the small-J form on the right.
"""

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator

from pmdtheory import kl_update, plotting, pmd_mean_update

FULL = {"taus": (0.05, 0.1, 0.3, 1.0), "points": 121}
FAST = {"taus": (0.1, 1.0), "points": 121}
KEYS = ["tau", "index"]


def compute(taus, points):
    """One row per τ and success rate, logit-spaced from 1e-4 to 1 − 1e-4."""
    end = np.log(1e4 - 1)
    success = 1 / (1 + np.exp(-np.linspace(-end, end, points)))
    policy, reward = np.stack([1 - success, success], axis=-1), [0.0, 1.0]
    rows = []
    for tau in taus:
        kl, mean = kl_update(policy, reward, tau), pmd_mean_update(policy, reward, tau)
        weight = mean.chi2_weight
        columns = {
            "tau": tau,
            "index": np.arange(points),
            "success": success,
            "chi2_weight": weight,
            "kl_success": kl.policy[:, 1],
            "mean_success": mean.policy[:, 1],
            "kl_factor": np.exp(kl.log_ratio[:, 0]),
            "mean_factor": np.exp(mean.log_ratio[:, 0]),
            "mean_factor_low": np.exp(-success / tau - weight * np.exp(-success / tau)),
            "mean_factor_high": np.exp(-success / tau),
            "kl_factor_small": np.exp(-1 / tau) / success,
        }
        rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def plot(table):
    """Success rates on logit axes; failure factors on log axes."""
    figure, (left, right) = plotting.panels(1, 2, height=2.9)
    taus = sorted(table.tau.unique())
    for tau, colour in zip(taus, plotting.shades(len(taus))):
        curve = table[table.tau == tau]
        left.plot(curve.success, curve.mean_success, "-", color=colour, label=rf"$\tau={tau:g}$")
        left.plot(curve.success, curve.kl_success, "--", color=colour)
        right.fill_between(curve.success, curve.mean_factor_low, curve.mean_factor_high, color=colour, alpha=0.2, lw=0)
        right.loglog(curve.success, curve.mean_factor, "-", color=colour)
        right.loglog(curve.success, curve.kl_factor, "--", color=colour)
        above = curve[curve.kl_factor_small < 1]
        right.loglog(above.success, above.kl_factor_small, **plotting.BOUND)
    left.plot([1e-4, 1 - 1e-4], [1e-4, 1 - 1e-4], **plotting.BOUND)
    left.set(xscale="logit", yscale="logit", xlabel="success rate $J$", ylabel="after one step $J'$")
    left.set(xlim=(1e-4, 1 - 1e-4), ylim=(1e-4, 1 - 1e-6))
    left.xaxis.set_major_locator(FixedLocator([1e-4, 1e-2, 0.5, 1 - 1e-2, 1 - 1e-4]))
    left.yaxis.set_major_locator(FixedLocator([1e-4, 1e-2, 0.5, 1 - 1e-2, 1 - 1e-4, 1 - 1e-6]))
    left.minorticks_off()
    right.set(xlabel="success rate $J$", ylabel="failures left $(1-J')/(1-J)$", ylim=(1e-9, 2))
    handles, labels = left.get_legend_handles_labels()
    handles += [plotting.line(color="black", linestyle=dashes) for dashes in ("-", "--")]
    handles += [right.fill_between([], [], [], color="grey", alpha=0.3), plotting.line(**plotting.BOUND)]
    labels += ["PMD-mean", "KL update", "PMD-mean, bounds", r"$J'=J$; $e^{-1/\tau}/J$"]
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def finding(table):
    """Bounds, and the two updates side by side at a low success rate."""
    inside = (table.mean_factor >= table.mean_factor_low * (1 - 1e-9)) & (
        table.mean_factor <= table.mean_factor_high * (1 + 1e-9)
    )
    row = table[table.tau == 0.1].iloc[(table[table.tau == 0.1].success - 0.01).abs().argmin()]
    return (
        f"PMD-mean's failures stay between the bounds in {inside.sum()} of {len(table)} cases; at J = "
        f"{row.success:.3f}, τ = 0.1 one step leaves {row.mean_factor:.1%} of the failures under PMD-mean, "
        f"{row.kl_factor:.1%} under KL."
    )
