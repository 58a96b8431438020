"""Where successes are rare PMD-mean leaves most failures, and the KL update next to none.

Binary rewards with success rate J. (a) The success rate after one step against the one before, at one temperature. (b)
The share of the failures that is left, (1 − J')/(1 − J), at two temperatures: for PMD-mean with its two bounds of
Statement 9, for the KL update with its form e^{−1/τ}/J for small J. The table has two more temperatures.
"""

import numpy as np
import pandas as pd

from pmdtheory import kl_update, plotting, pmd_mean_update

from . import marks

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
    """Success rates on logit axes at one temperature; failure factors on log axes at two."""
    figure, (left, right) = plotting.panels(1, 2, height=2.9)
    taus = [tau for tau in (0.1, 0.3) if tau in set(table.tau)] or [table.tau.iloc[0]]
    lines = marks.by_temperature(taus)
    first = table[table.tau == taus[0]]
    for update, (name, role) in marks.UPDATES.items():
        left.plot(first.success, first[f"{update}_success"], label=name, **role)
        for tau in taus:
            curve, label = table[table.tau == tau], rf"{name}, $\tau={tau:g}$"
            right.loglog(curve.success, curve[f"{update}_factor"], label=label, **lines[update, tau])
    for tau in taus:
        curve, colour = table[table.tau == tau], lines["mean", tau]["color"]
        band = right.fill_between(curve.success, curve.mean_factor_low, curve.mean_factor_high, color=colour, alpha=0.3)
        band.set(linewidth=0, label="PMD-mean's bounds" if tau == taus[0] else None)
        above = curve[curve.kl_factor_small < 1]
        label = r"$e^{-1/\tau}/J$" if tau == taus[0] else None
        right.loglog(above.success, above.kl_factor_small, **plotting.BOUND | {"color": "black"}, label=label)
    left.plot([1e-4, 1 - 1e-4], [1e-4, 1 - 1e-4], **plotting.BOUND, label="no change")
    left.set(xscale="logit", yscale="logit", xlabel="success rate before", ylabel="success rate after")
    left.set(xlim=(1e-4, 1 - 1e-4), ylim=(1e-4, 1 - 1e-6), title=rf"one step at $\tau={taus[0]:g}$")
    for side, values in ((left.xaxis, (0.0001, 0.01, 0.5, 0.99, 0.9999)), (left.yaxis, (0.01, 0.5, 0.99, 0.9999))):
        side.set_ticks(values, [f"{value:g}" for value in values])
    left.minorticks_off()
    left.legend(loc="lower right")
    right.set(xlabel="success rate before", ylabel="share of the failures left", ylim=(1e-7, 2))
    right.set_title("failures left by a step")
    right.legend(loc="lower left")
    return figure


def finding(table):
    """Bounds, and the two updates side by side at a low success rate."""
    inside = (table.mean_factor >= table.mean_factor_low * (1 - 1e-9)) & (
        table.mean_factor <= table.mean_factor_high * (1 + 1e-9)
    )
    row = table[table.tau == 0.1].iloc[(table[table.tau == 0.1].success - 0.01).abs().argmin()]
    return (
        f"at J = {row.success:.3f}, τ = 0.1 one step leaves {row.mean_factor:.1%} of the failures under PMD-mean, "
        f"{row.kl_factor:.1%} under KL. PMD-mean's failures stay between the bounds in {inside.sum()} of {len(table)} "
        "cases."
    )
