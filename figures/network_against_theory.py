"""A fitted network follows the law of the loss it minimised, on every prompt.

A small transformer completes sums: 101 actions, a base p that errs, rewards binary or graded. It is fitted by one outer
step from p to q to the PMD-mean loss or to the log-partition loss. f is 1 on the Lambert-W law of the first and 0 on
the KL law of the second (*network laws*). (a) f of every prompt, reward, τ and seed; what lies beyond the axis is
counted at its end. (b) KL divergence from both laws while L-BFGS goes on, graded reward, τ = 0.1: median over the
prompts of a seed, then mean of the logarithms over the seeds with its 95% interval.
"""

import numpy as np

from pmdtheory import plotting
from pmdtheory.intervals import over_seeds

from .harness import Columns
from .network import CELLS, LABELS, LOSSES, OTHER, OWN, SHARES, SHOWN, STUDY, handles, select

__all__ = ["STUDY", "TABLES", "finding", "plot"]

TABLES = {
    "validate": CELLS,
    "validate_prompts": Columns("experiment algorithm reward", "tau seed share"),
    "validate_steps": Columns("experiment algorithm reward", "tau seed evaluations"),
}

NEAR = 0.02
"""How near f has to be to that of a law."""


def plot(table, prompts, steps):
    """Two panels, those whose experiment is there."""
    figure, axes = plotting.panels(1, 2, height=2.7)
    for axis, rows, draw in (
        (axes[0], select(prompts, "population"), _histogram),
        (axes[1], select(steps, "population", **SHOWN), _over_steps),
    ):
        if len(rows):
            draw(axis, rows)
    figure.legend(handles=handles(LOSSES, marker=""), loc="outside lower center", ncols=2)
    return figure


def _histogram(axis, rows):
    edges = np.arange(-0.11, 1.12, 0.02)
    for algorithm in LOSSES:
        share = rows[rows.algorithm == algorithm].share.clip(-0.1, 1.1)
        axis.hist(share, edges, color=plotting.method(algorithm)["color"], alpha=0.85)
    for law, name, shift, side in (("lambert", "Lambert-W law", -0.06, "right"), ("kl_law", "KL law", 0.06, "left")):
        where = {"transform": axis.get_xaxis_transform(), "color": plotting.LAWS[law]["color"], "fontsize": 7.5}
        axis.text(SHARES[law] + shift, 0.9 + shift, name, ha=side, **where)
    axis.set(yscale="log", ylim=(0.7, None), xlabel="slope $f$", ylabel="prompts", title="every prompt")


def _over_steps(axis, rows):
    for algorithm in LOSSES:
        some, own = rows[rows.algorithm == algorithm], OWN[algorithm]
        for law, dashes in ((own, "-"), (OTHER[own], ":")):
            style = {"color": plotting.method(algorithm)["color"], "linestyle": dashes}
            plotting.band(axis, "evaluations", some, f"from_{law}", log=True, **style)
    for dashes, text in (("-", "its own law"), (":", "the other law")):
        axis.plot([], [], dashes, color="black", label=text)
    axis.set(yscale="log", xlabel="gradients", ylabel="KL divergence", title="distance from a law while fitting")
    axis.legend(loc="center right")


def finding(table, prompts, steps):
    """How near single prompts are to the law of their loss, and to the other, and what fitting does to the distance."""
    seeds = f"{table.seed.nunique()} seeds"
    rows, path = within(prompts), select(steps, "population", **SHOWN)
    sentences = []
    if len(rows):
        sentences.append(f"{rows.near.mean():.0%} of the prompts have f within {NEAR} of their law's ({seeds})")
        worst = rows.groupby("tau").near.mean()
        sentences.append(f"By temperature: {', '.join(f'{x:.0%} at τ = {tau:g}' for tau, x in worst.items())}")
    for algorithm, some in path.groupby("algorithm"):
        if algorithm in LOSSES:
            own = over_seeds(some, "evaluations", f"from_{OWN[algorithm]}", log=True)["mean"]
            ends = f"{own.iloc[0]:.0e} at first, {own.iloc[-1]:.0e} at last"
            sentences.append(f"{LABELS[algorithm]}: KL from its law {ends}")
    return ". ".join(sentences or [f"no fit over all actions is in the tables yet, of {seeds}"]) + "."


def title(table, prompts, steps):
    """The share of prompts on the law of their loss."""
    rows = within(prompts)
    if rows.empty:
        return "No network has been fitted to a loss averaged over all actions yet"
    return f"On {rows.near.mean():.0%} of the prompts a fitted network is on the law of the loss it minimised"


def within(prompts):
    """Prompts of the population fits; `near` says whether f is within 0.02 of their law's."""
    rows = select(prompts, "population")
    own = rows.algorithm.map(OWN).map(SHARES).astype(float)
    return rows.assign(near=(rows.share - own).abs() < NEAR)
