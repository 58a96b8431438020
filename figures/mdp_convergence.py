"""In MDPs every convergence bound holds, and most are loose by orders of magnitude.

FrozenLake 8×8 (γ = 0.99, τ = 0.01) and a Garnet (20 states, 4 actions, 5 successors, γ = 0.9, τ = 0.1), uniform start
and first policy (Statements 15, 16). (a, b) The KL update with the step sizes that each bound asks for: constant 1/τ
(B4, mean gap over the states), growing geometrically from 1/τ (B5, mean gap), adaptive with c₀ = τ (B1, largest gap).
(c, d) PMD-mean with constant τ: mean gap and B11, largest gap and its certificate B10, and the mean improvement of a
step, with the part that the updated state alone guarantees, which it must exceed. Dotted are the bounds. The rewards of
the lake are perturbed by up to 1e-9, so that no two actions tie and B1's step sizes do not hang on rounding; gaps below
1e-8 are left out.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting, pmd_mean_update
from pmdtheory.mdp import MDP, from_gymnasium, garnet, iterate
from pmdtheory.theorems import (
    mdp_adaptive_steps,
    mdp_certificate,
    mdp_constant_step,
    mdp_geometric_steps,
    mdp_improvement,
    mdp_pmd_mean_rate,
)

FULL = {"problems": ("FrozenLake 8×8", "Garnet"), "steps": 200}
FAST = {"problems": ("Garnet",), "steps": 40}
KEYS = ["problem", "claim", "iteration"]

TAU = {"FrozenLake 8×8": 0.01, "Garnet": 0.1}
SMALLEST = 1e-8
COLOURS = dict(zip(("B1", "B4", "B5"), plotting.tints(plotting.BLUE, 3)))
COLOURS |= dict(zip(("B10", "B11", "15"), plotting.tints(plotting.VERMILION, 3)))
CLAIMS = ("B1", "B4", "B5"), ("B10", "B11", "15")
LABELS = {
    "B1": "KL update, adaptive steps (B1)",
    "B4": "KL update, constant steps (B4)",
    "B5": "KL update, geometric steps (B5)",
    "B10": "PMD-mean, largest gap (B10)",
    "B11": "PMD-mean, mean gap (B11)",
    "15": "PMD-mean, improvement (Statement 15)",
}


def problem(name):
    """The MDP called `name`."""
    rng = np.random.default_rng(2026)
    if name == "Garnet":
        return garnet(20, 4, 5, rng, gamma=0.9)
    lake = from_gymnasium("FrozenLake-v1", 0.99, map_name="8x8")
    return MDP(lake.P, lake.R + 1e-9 * rng.random(lake.R.shape) * ~lake.terminal[:, None], lake.gamma)


def compute(problems, steps):
    """One row per MDP, claim and recorded iteration: means over the states where a claim is of each state.

    `holds` is of all states, in this iteration and all before it.
    """
    recorded = np.unique(np.geomspace(1, FULL["steps"], 60).round().astype(int))
    recorded = recorded[recorded <= steps]
    tables = []
    for name in problems:
        mdp = problem(name)
        for label, claim in _claims(mdp, TAU[name], steps).items():
            value, bound = (side @ mdp.rho if side.ndim == 2 else side for side in (claim.value, claim.bound))
            holds = np.logical_and.accumulate(claim.holds.reshape(steps, -1).all(axis=1))
            columns = {
                "problem": name,
                "claim": label,
                "iteration": recorded,
                "value": value[recorded - 1],
                "bound": bound[recorded - 1],
                "holds": holds[recorded - 1],
            }
            tables.append(pd.DataFrame(columns))
    table = pd.concat(tables, ignore_index=True)
    return table[table.value > SMALLEST]


def _claims(mdp, tau, steps):
    start = mdp.uniform_policy()
    run = iterate(mdp, start, pmd_mean_update, tau, steps, keep=("policy", "V"))
    policies = run.kept["policy"]
    return {
        "B1": mdp_adaptive_steps.gamma_linear_rate(mdp, start, c0=tau, steps=steps),
        "B4": mdp_constant_step.constant_step_rate(mdp, start, tau, steps=steps),
        "B5": mdp_geometric_steps.geometric_step_rate(mdp, start, tau, steps=steps),
        "B10": mdp_certificate.gap_below_certificate(mdp, policies[1:]),
        "B11": mdp_pmd_mean_rate.pmd_mean_rate(mdp, start, tau, steps),
        "15": mdp_improvement.improvement_along(mdp, policies, run.kept["V"]),
    }


def plot(table):
    """Per MDP: KL and its bounds, PMD-mean and its bounds."""
    names = [name for name in FULL["problems"] if name in set(table.problem)]
    figure, axes = plotting.panels(2, len(names), height=2.2, sharex=True, sharey=True)
    for column, name in enumerate(names):
        rows = table[table.problem == name]
        for axis, labels, update in zip(axes[column :: len(names)], CLAIMS, ("KL update", "PMD-mean")):
            for label in labels:
                curve, look = rows[rows.claim == label], {"color": COLOURS[label]}
                value, bound = ("value", "bound") if label != "15" else ("bound", "value")
                axis.loglog(curve.iteration, curve[value], **look, label=LABELS[label])
                axis.loglog(curve.iteration, curve[bound], **look, linestyle=":", linewidth=1.0)
            axis.set_title(f"{update}, {name}")
    for axis in axes[-len(names) :]:
        axis.set_xlabel("iteration")
    for axis, label in zip(axes[:: len(names)], ("gap to the best value", "gap, improvement")):
        axis.set(ylabel=label, ylim=(SMALLEST / 2, 1e5))
    handles = [plotting.line(color=COLOURS[label], label=LABELS[label]) for labels in CLAIMS for label in labels]
    handles.append(plotting.line(color="black", linestyle=":", linewidth=1.0, label="the bound of the same colour"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def finding(table):
    """Violations, and the tightest that each bound gets."""
    ratio = (table.value / table.bound).groupby(table.claim)
    closest = ", ".join(f"{label} {ratio.max()[label]:.2g}" for label in COLOURS)
    return (
        f"every claim holds at {int(table.holds.sum())} of {len(table)} points. Largest value over bound: {closest}. "
        f"The certificate stays within a factor {1 / ratio.min()['B10']:.0f} of the largest gap; the rates fall behind "
        "by orders of magnitude."
    )


def title(table):
    """How often the bounds hold, and how loose the rates are in the end."""
    last = table.sort_values("iteration").groupby(["problem", "claim"]).last()
    rates = last[last.index.get_level_values("claim").isin(["B1", "B4", "B5", "B11"])]
    loose = np.log10(rates.bound / rates.value)
    held = "every bound" if table.holds.all() else f"{table.holds.mean():.0%} of the bounds"
    most = f"{loose.min():.0f} to {loose.max():.0f} powers of ten"
    return f"In MDPs {held} holds, and in the end the rates are {most} too high"
