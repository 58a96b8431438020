"""Log-ratio against reward: the line of the KL update and the bent curve of PMD-mean (Statements 1–3).

Three policies over the same 41 rewards in [0, 1], tilted exponentially so that their mean reward is low, middling or
high. Drawn is τ log(q/p), in reward units: the KL update is the line r − τ log Z, PMD-mean is r − E_p[r] − τ λ q/p.
Markers are CVXPY's solutions of the KL problem, the mixed KL–χ² problem and the log-space regression.
"""

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from pmdtheory import convex, kl_update, plotting, pmd_mean_update

FULL = {"means": (0.1, 0.5, 0.9), "taus": (0.05, 0.2, 1.0)}
FAST = {"means": (0.1,), "taus": (0.05, 1.0)}
KEYS = ["mean_reward", "tau", "update", "action"]
TOLERANCE = {"cvxpy_subproblem": 1e-3, "cvxpy_regression": 1e-3}

REWARD = np.linspace(0, 1, 41)


def tilted(mean):
    """The exponential tilt of the uniform policy over REWARD with this mean reward."""
    def policy(slope):
        weight = np.exp(slope * (REWARD - 0.5))
        return weight / weight.sum()

    return policy(brentq(lambda slope: policy(slope) @ REWARD - mean, -200, 200, xtol=1e-14))


def compute(means, taus):
    """One row per mean reward, τ, update and action."""
    rows = []
    for mean in means:
        p = tilted(mean)
        for tau in taus:
            kl, pmd = kl_update(p, REWARD, tau), pmd_mean_update(p, REWARD, tau)
            nothing = np.full(REWARD.shape, np.nan)
            solutions = {
                "kl": (kl, convex.kl(p, REWARD, tau).log_ratio, nothing),
                "mean": (
                    pmd,
                    convex.mixed(p, REWARD, tau, tau * pmd.chi2_weight).log_ratio,
                    convex.regression(p, REWARD, tau).log_ratio,
                ),
            }
            for update, (exact, subproblem, regression) in solutions.items():
                columns = {
                    "mean_reward": mean,
                    "tau": tau,
                    "update": update,
                    "action": np.arange(REWARD.size),
                    "reward": REWARD,
                    "policy": p,
                    "log_ratio": exact.log_ratio,
                    "chi2_weight": exact.chi2_weight,
                    "cvxpy_subproblem": subproblem,
                    "cvxpy_regression": regression,
                }
                rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def plot(table):
    """One panel per mean reward; colour tells τ, dashes tell the update."""
    means, taus = sorted(table.mean_reward.unique()), sorted(table.tau.unique())
    figure, axes = plotting.panels(1, len(means), height=2.7, sharey=True)
    colours = dict(zip(taus, plotting.shades(len(taus))))
    for axis, mean in zip(axes, means):
        for (tau, update), curve in table[table.mean_reward == mean].groupby(["tau", "update"]):
            line = "--" if update == "kl" else "-"
            label = rf"$\tau={tau:g}$" if update == "mean" else None
            axis.plot(curve.reward, tau * curve.log_ratio, line, color=colours[tau], label=label)
            some = curve[curve.action % 5 == 0]
            mark = plotting.CHECK | {"color": colours[tau]}
            axis.plot(some.reward, tau * some.cvxpy_subproblem, **mark)
            axis.plot(some.reward, tau * some.cvxpy_regression, **mark | {"marker": "+", "markersize": 5})
        axis.set(xlabel="reward $r$", title=rf"$E_p[r]={mean:g}$")
        axis.axvline(mean, **plotting.BOUND)
    axes[0].set_ylabel(r"$\tau\,\log(q/p)$")
    handles, labels = axes[0].get_legend_handles_labels()
    for style, text in (
        ({"color": "black", "linestyle": "--"}, "KL update"),
        ({"color": "black", "linestyle": "-"}, "PMD-mean"),
        (plotting.CHECK | {"color": "black"}, "CVXPY, subproblem"),
        (plotting.CHECK | {"color": "black", "marker": "+", "markersize": 5}, "CVXPY, regression"),
    ):
        handles += axes[0].plot([], [], **style)
        labels.append(text)
    figure.legend(handles, labels, loc="outside lower center", ncols=7, columnspacing=1.2)
    return figure


def finding(table):
    """Agreement with CVXPY, and how much less PMD-mean moves where rewards are low."""
    q = table.policy * np.exp(table.log_ratio)
    keys = ["mean_reward", "tau", "update"]

    def distance(column):
        return (table.policy * np.exp(table[column]) - q).abs().groupby([table[k] for k in keys]).sum().max()

    low = table[(table.mean_reward == table.mean_reward.min()) & (table.tau == table.tau.min())]
    best = low[low.action == low.action.max()].set_index("update").log_ratio
    return (
        "CVXPY's subproblem and regression lie on the curves (L1 distance of q at most "
        f"{distance('cvxpy_subproblem'):.0e} and {distance('cvxpy_regression'):.0e}); at mean reward "
        f"{table.mean_reward.min():g} and τ = {table.tau.min():g} the best action is multiplied by "
        f"{np.exp(best['mean']):.0f} under PMD-mean, by "
        f"{np.exp(best['kl']):.0f} under KL."
    )
