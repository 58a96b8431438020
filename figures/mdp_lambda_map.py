"""PMD-mean's χ² weight is where a gridworld is being learned, and holds its step back there.

Three rooms of a 7 × 9 grid, slip 0.1, γ = 0.95, reward 1 at the star (Statements 4, 8, 15). PMD-mean with τ = 0.03
starts from a policy that drifts left with probability 0.97, and so hardly ever arrives. The maps show, at two
iterations, (a, b) V before the step and (c, d) τλ of the step: the weight travels as a front, dark where the values are
flat and where the policy has settled. Below are all cells of 17 iterations, from the drifting policy and from the
uniform one. (e) The KL(q‖p) that PMD-mean moves against what the KL update would move from the same policy with the
same Q: never further, and held back most where the value is still low. (f) τλ against the mean positive advantage, its
limit as τ → 0.
"""

import numpy as np
import pandas as pd

from pmdtheory import divergences, kl_update, plotting, pmd_mean_update
from pmdtheory.mdp import evaluate, gridworld, iterate

FULL = {"starts": ("drift", "uniform"), "steps": 16}
FAST = {"starts": ("drift",), "steps": 13}
KEYS = ["start", "iteration", "row", "column"]

HEIGHT, WIDTH, GOAL, TAU = 7, 9, (0, 8), 0.03
WALLS = [(row, 3) for row in (0, 1, 2, 3, 5, 6)] + [(3, column) for column in (5, 6, 7, 8)]
SHOWN = (3, 6)


def compute(starts, steps):
    """One row per start, iteration and free cell: values before the PMD-mean step, and what either step does."""
    mdp = gridworld(HEIGHT, WIDTH, slip=0.1, gamma=0.95, goal=GOAL, walls=WALLS)
    policies = {"drift": np.broadcast_to([0.01, 0.01, 0.01, 0.97], mdp.R.shape), "uniform": mdp.uniform_policy()}
    live = np.flatnonzero(~mdp.terminal)
    row, column = np.divmod(live, WIDTH)
    tables = []
    for start in starts:
        visited = iterate(mdp, policies[start], pmd_mean_update, TAU, steps, keep=("policy",)).kept["policy"]
        for iteration, policy in enumerate(visited):
            now = evaluate(mdp, policy)
            mean, kl = (update(now.policy, now.Q, TAU) for update in (pmd_mean_update, kl_update))
            columns = {
                "start": start,
                "iteration": iteration,
                "row": row,
                "column": column,
                "V": now.V[live],
                "positive_advantage": (now.policy * now.A.clip(0)).sum(axis=1)[live],
                "chi2_weight": mean.chi2_weight[live],
                "kl_mean": divergences.movement(now.policy, mean.log_ratio).kl[live],
                "kl_kl": divergences.movement(now.policy, kl.log_ratio).kl[live],
            }
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def plot(table):
    """Maps of two iterations, and two scatter plots of all."""
    figure, axes = plotting.panels(3, 2, height=1.75)
    _maps(figure, axes[:4], table[table.start == "drift"])
    _scatter(figure, axes[4:], table)
    return figure


def _maps(figure, axes, table):
    table = table.assign(penalty=TAU * table.chi2_weight)
    rows = {"V": ("value $V$", "viridis", 1.0), "penalty": (r"$\chi^2$ weight $\tau\lambda$", "magma", 0.25)}
    for line, (column, (label, colours, largest)) in zip((axes[:2], axes[2:]), rows.items()):
        for axis, iteration in zip(line, SHOWN):
            image = np.full((HEIGHT, WIDTH), np.nan)
            cells = table[table.iteration == iteration]
            image[cells.row, cells.column] = cells[column]
            drawn = axis.imshow(image, cmap=colours, vmin=0, vmax=largest, aspect="auto")
            axis.plot(*GOAL[::-1], "*", color="black", markersize=6)
            axis.set(xticks=[], yticks=[], facecolor="#BBBBBB", title=f"{label}, iteration {iteration}")
            axis.grid(visible=False)
        figure.colorbar(drawn, ax=list(line), pad=0.01, aspect=12)


def _scatter(figure, axes, table):
    left, right = axes
    for start, marker in (("drift", "o"), ("uniform", "D")):
        cells = table[table.start == start].sort_values("V")
        if cells.empty:
            continue
        look = {"c": cells.V, "cmap": "viridis", "vmin": 0, "vmax": 1, "s": 11, "marker": marker}
        look |= {"edgecolor": "black", "linewidth": 0.3, "rasterized": True, "label": f"from the {start} policy"}
        left.scatter(cells.kl_kl, cells.kl_mean, **look)
        dots = right.scatter(cells.positive_advantage, TAU * cells.chi2_weight, **look)
    for axis, end in ((left, 2.3), (right, 0.23)):
        axis.plot([0, end], [0, end], **plotting.BOUND, label="equal" if axis is left else None)
    left.set(xlabel="KL moved by the KL update", ylabel="by PMD-mean", title="how far a step moves")
    right.set(xlabel="mean positive advantage", ylabel=r"$\tau\lambda$", title="what the weight is")
    figure.colorbar(dots, ax=list(axes), pad=0.01, aspect=12, label="value $V$")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def finding(table):
    """How local the weight is, and how far PMD-mean moves where the value is low and where it is not."""
    cells = table.groupby(["start", "iteration"]).V.size().iloc[0]
    front = table.groupby(["start", "iteration"]).chi2_weight.agg(lambda w: (w > w.max() / 10).sum())["drift"]
    far = table[table.kl_kl > 1]
    share = (far.kl_mean / far.kl_kl).groupby(far.V < 0.05).median()
    low = table[table.V < 0.05]
    return (
        f"λ exceeds a tenth of its maximum in {front.median():.0f} of {cells} cells (median iteration). Where the "
        f"KL update moves more than 1 nat PMD-mean moves {share[True]:.0%} as far while V < 0.05, {share[False]:.0%} "
        "after (medians). A low value alone does not make it conservative: in "
        f"{(low.kl_kl < 0.01).sum()} of {len(low)} cells with V < 0.05 the actions differ too little for either update "
        "to move 0.01 nats."
    )
