"""Where rewards are low PMD-mean holds back: the line of the KL update becomes a curve.

Policies over the same 41 rewards in [0, 1], tilted exponentially so that their mean reward is low or middling (the
table holds a high one too, where the two updates nearly agree). Drawn is τ log(q/p), in reward units (Statements 1–3):
the KL update is the line r − τ log Z, PMD-mean is r − E_p[r] − τ λ q/p. Markers are CVXPY's solutions of the KL
problem, the mixed KL–χ² problem and the log-space regression.
"""

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from pmdtheory import convex, kl_update, plotting, pmd_mean_update

from . import marks

FULL = {"means": (0.1, 0.5, 0.9), "taus": (0.05, 0.2, 1.0)}
FAST = {"means": (0.1,), "taus": (0.05, 1.0)}
KEYS = ["mean_reward", "tau", "update", "action"]
TOLERANCE = {"cvxpy_subproblem": 1e-3, "cvxpy_regression": 1e-3}

REWARD = np.linspace(0, 1, 41)
RESOLVED = 1e-4  # of probabilities below, CVXPY's logarithms are its tolerance's


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
            for update, (exact, *numerical) in solutions.items():
                subproblem, regression = (np.where(exact.policy > RESOLVED, s, np.nan) for s in numerical)
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
    """A panel for a low mean reward and one for a middling one."""
    means, taus = sorted(table.mean_reward.unique())[:2], sorted(table.tau.unique())
    figure, axes = plotting.panels(1, len(means), height=2.9, sharey=True)
    lines = marks.by_temperature(taus)
    regression = plotting.CHECK | {"marker": "+", "markersize": 5}
    for axis, mean in zip(axes, means):
        for (tau, update), curve in table[table.mean_reward == mean].groupby(["tau", "update"]):
            axis.plot(curve.reward, tau * curve.log_ratio, **lines[update, tau])
            some, colour = curve[curve.action % 5 == 0], {"color": lines[update, tau]["color"]}
            axis.plot(some.reward, tau * some.cvxpy_subproblem, **plotting.CHECK | colour)
            axis.plot(some.reward, tau * some.cvxpy_regression, **regression | colour)
        axis.set(xlabel="reward $r$", title=f"mean reward {mean:g}")
        axis.axvline(mean, **plotting.BOUND)
    axes[0].set_ylabel(r"$\tau\,\log(q/p)$")
    handles = marks.legend_by_temperature(taus)
    handles += [
        plotting.line(label="CVXPY, subproblem", color="black", **plotting.CHECK),
        plotting.line(label="CVXPY, regression", color="black", **regression),
        plotting.line(label="mean reward", **plotting.BOUND),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(taus) + 2, columnspacing=1.0, handlelength=1.6)
    return figure


def finding(table):
    """How much less PMD-mean moves where rewards are low, and agreement with CVXPY."""
    q = table.policy * np.exp(table.log_ratio)
    keys = ["mean_reward", "tau", "update"]

    def distance(column):
        return (table.policy * np.exp(table[column]) - q).abs().groupby([table[k] for k in keys]).sum().max()

    low = table[(table.mean_reward == table.mean_reward.min()) & (table.tau == table.tau.min())]
    best = low[low.action == low.action.max()].set_index("update").log_ratio
    return (
        f"at mean reward {table.mean_reward.min():g} and τ = {table.tau.min():g} the best action is multiplied by "
        f"{np.exp(best['mean']):.0f} under PMD-mean, by {np.exp(best['kl']):.0f} under KL. "
        f"CVXPY's subproblem and regression lie on the curves (L1 distance of q, where above {RESOLVED:g}, at most "
        f"{distance('cvxpy_subproblem'):.0e} and {distance('cvxpy_regression'):.0e})."
    )
