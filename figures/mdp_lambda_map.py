"""PMD-mean's χ² weight is where a gridworld is being learned, and holds its step back there (Statements 4, 8, 15).

Three rooms of a 7 × 9 grid, slip 0.1, γ = 0.95, reward 1 at the star. PMD-mean with τ = 0.03 starts from a policy that
drifts left with probability 0.97, and so hardly ever arrives. The maps show, at four iterations, (a) V before the step,
(b) τλ of the step, (c) the KL(q‖p) that it moves, and (d) the KL that the KL update would move from the same policy
with the same Q: the weight travels as a front, dark where the values are flat and where the policy has settled. Below
are all cells of 17 iterations, from the drifting policy and from the uniform one. (e) PMD-mean never moves further than
the KL update, and holds back most where the value is still low. (f) τλ against the mean positive advantage, its limit
as τ → 0.
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
SHOWN = (1, 3, 6, 12)


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
    """Maps of four iterations, and two scatter plots of all."""
    figure = plotting.plt.figure(figsize=(plotting.PAGE, 7.2))
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.3, 1))
    _maps(upper, table[table.start == "drift"])
    _scatter(lower, table)
    return figure


def _maps(figure, table):
    table = table.assign(penalty=TAU * table.chi2_weight)
    rows = {
        "V": ("$V$", "viridis", 1.0),
        "penalty": (r"$\tau\lambda$", "magma", 0.25),
        "kl_mean": ("KL moved:\nPMD-mean", "cividis", 4.7),
        "kl_kl": ("KL moved:\nKL update", "cividis", 4.7),
    }
    axes = figure.subplots(len(rows), len(SHOWN))
    for line, (column, (label, colours, largest)) in zip(axes, rows.items()):
        for axis, iteration in zip(line, SHOWN):
            image = np.full((HEIGHT, WIDTH), np.nan)
            cells = table[table.iteration == iteration]
            image[cells.row, cells.column] = cells[column]
            drawn = axis.imshow(image, cmap=colours, vmin=0, vmax=largest)
            axis.plot(*GOAL[::-1], "*", color="black", markersize=6)
            axis.set(xticks=[], yticks=[], facecolor="#BBBBBB")
            axis.grid(visible=False)
        line[0].set_ylabel(label)
        line[0].set_title("abcd"[list(rows).index(column)], loc="left", fontweight="bold")
        figure.colorbar(drawn, ax=line, pad=0.01, aspect=12)
    for axis, iteration in zip(axes[0], SHOWN):
        axis.set_title(f"iteration {iteration}")


def _scatter(figure, table):
    left, right = figure.subplots(1, 2)
    for start, marker in (("drift", "o"), ("uniform", "D")):
        cells = table[table.start == start].sort_values("V")
        if cells.empty:
            continue
        look = {"c": cells.V, "cmap": "viridis", "vmin": 0, "vmax": 1, "s": 11, "marker": marker, "label": start}
        look |= {"edgecolor": "black", "linewidth": 0.3, "rasterized": True}
        left.scatter(cells.kl_kl, cells.kl_mean, **look)
        dots = right.scatter(cells.positive_advantage, TAU * cells.chi2_weight, **look)
    for axis, end, letter in ((left, 4.7, "e"), (right, 0.23, "f")):
        axis.plot([0, end], [0, end], **plotting.BOUND)
        axis.set_title(letter, loc="left", fontweight="bold")
    left.set(xlabel="KL moved by the KL update", ylabel="KL moved by PMD-mean", ylim=(-0.1, 2.4))
    left.legend(title="start", loc="upper right")
    right.set(xlabel=r"mean positive advantage $E_p[A_+]$", ylabel=r"$\tau\lambda$")
    figure.colorbar(dots, ax=right, pad=0.01, aspect=20, label="$V$")


def finding(table):
    """How local the weight is, and how far PMD-mean moves where the value is low and where it is not."""
    cells = table.groupby(["start", "iteration"]).V.size().iloc[0]
    front = table.groupby(["start", "iteration"]).chi2_weight.agg(lambda w: (w > w.max() / 10).sum())["drift"]
    far = table[table.kl_kl > 1]
    share = (far.kl_mean / far.kl_kl).groupby(far.V < 0.05).median()
    low = table[table.V < 0.05]
    return (
        f"λ exceeds a tenth of its maximum in {front.median():.0f} of {cells} cells (median iteration); where the "
        f"KL update moves more than 1 nat PMD-mean moves {share[True]:.0%} as far while V < 0.05, {share[False]:.0%} "
        "after (medians). A low value alone does not make it conservative: in "
        f"{(low.kl_kl < 0.01).sum()} of {len(low)} cells with V < 0.05 the actions differ too little for either update "
        "to move 0.01 nats."
    )
