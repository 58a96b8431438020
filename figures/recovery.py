"""Cold, PMD-mean drops an action whose worth shows late, and takes it up again late.

State 0 ends with reward ½ or leads to state 1, which ends with reward 0 or 1; γ = 0.9. Leading on is optimal but looks
bad while state 1 is played badly (probability 0.1 of the reward at the start). (a) Probability of leading on over the
iterations; at τ = 0 PMD-mean removes it for good. (b) Iterations until it is back at ½, with Statement 32's lower
bound: the KL update returns as fast as it left, PMD-mean raises a rare action at most to p + √(2pA/τ) in a step.
"""

import numpy as np
import pandas as pd

from pmdtheory import kl_update, plotting, pmd_mean_update
from pmdtheory.mdp import MDP, iterate

from . import marks

FULL = {"taus": tuple(float(tau) for tau in 10.0 ** -np.arange(0, 2.76, 0.125))}
FAST = {"taus": FULL["taus"][::8]}
KEYS = ["update", "tau", "iteration"]

START = np.array([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5]])
STEPS, SHOWN = 20, (0.1, 0.01, 10**-2.75)  # lower temperatures meet the smallest probability that `iterate` keeps
UPDATES = {"kl": (kl_update, plotting.KL, "KL update"), "mean": (pmd_mean_update, plotting.MEAN, "PMD-mean")}


def detour(gamma=0.9):
    """The MDP: in state 0 action 1 leads to state 1, where action 1 has reward 1; state 2 is the end."""
    P = np.zeros((3, 2, 3))
    P[:, :, 2], P[0, 1] = 1.0, [0.0, 1.0, 0.0]
    return MDP(P, [[0.5, 0.0], [0.0, 1.0], [0.0, 0.0]], gamma, [1.0, 0.0, 0.0])


def bound(tau):
    """Iterations, at least, until the probability of leading on is ½ again, for τ ≤ 4 (Statement 32(e))."""
    least = np.log(16 / tau)
    return 1 + np.log2((0.205 / tau + least) / least)


def compute(taus):
    """One row per update, temperature and iteration."""
    rows = []
    for name, (update, *_) in UPDATES.items():
        for tau in taus:
            run = iterate(detour(), START, update, tau, STEPS, keep=("policy",))
            columns = {"update": name, "tau": tau, "iteration": run.table.iteration}
            rows.append(pd.DataFrame(columns | {"probability": run.kept["policy"][:, 0, 1]}))
    return pd.concat(rows, ignore_index=True)


def returns(table):
    """Iteration from which on the probability is at least ½ again, by update and temperature."""
    low = table[(table.iteration > 0) & (table.probability < 0.5)]
    return low.groupby(["update", "tau"]).iteration.max() + 1


def plot(table):
    """The probability over the iterations, and when it is back."""
    figure, (left, right) = plotting.panels(1, 2, height=2.6)
    shown = sorted(tau for tau in table.tau.unique() if np.isclose(tau, SHOWN, rtol=1e-6).any())
    lines = marks.by_temperature(shown)
    for (name, tau), style in lines.items():
        curve = table[(table["update"] == name) & (table.tau == tau) & (table.iteration <= 9)]
        left.semilogy(curve.iteration, curve.probability, marker="o", markersize=3, **style)
    left.set(xlabel="iteration", ylabel="probability", ylim=(1e-105, 10), title="probability of the late action")
    back = returns(table)
    for name, (_, style, label) in UPDATES.items():
        right.semilogx(back[name].index, back[name], label=label, marker="o", markersize=3, **style)
    taus = np.geomspace(table.tau.min(), 1, 100)
    bound_look = plotting.BOUND | {"color": plotting.VERMILION}
    right.semilogx(taus, bound(taus), **bound_look, label="least for PMD-mean\n(Statement 32)")
    right.set(xlabel=r"temperature $\tau$", ylabel="iterations", ylim=(0, 8.4), title="until it is back at ½")
    right.legend(loc="upper center")
    figure.legend(handles=marks.legend_by_temperature(shown), loc="outside lower center", ncols=3)
    return figure


def finding(table):
    """When either update is back at the lowest temperature, and whether any run broke the bound."""
    back, coldest = returns(table), table.tau.min()
    runs = back["mean"]
    early = sum(runs[tau] < bound(tau) for tau in runs.index)
    return (
        f"At τ = {coldest:.2g} the KL update leads on again after {back['kl'][coldest]} iterations, PMD-mean after "
        f"{runs[coldest]}, at least {bound(coldest):.1f} by Statement 32; {early} of {len(runs)} runs are below it."
    )
