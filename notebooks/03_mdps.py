# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # PMD-mean in a whole MDP
#
# The first notebook took one step of policy mirror descent on one prompt. Here every state of a Markov decision
# process takes that step at once, again and again: the rewards of a state are its action values $Q^\pi(x,\cdot)$, its
# baseline is $V^\pi(x)$, and both change as the policy does. All is exact: values come from a linear solve. So
# whatever the curves show is the update's doing, not a sample's.
#
# "Statement 15" and the like are proved in [the README of the theorems](../pmdtheory/theorems/README.md).

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
import importlib.util
import sys
from pathlib import Path


def repository():
    """Find the folder of the figure scripts: around the working directory, or around the installed package."""
    package = importlib.util.find_spec("pmdtheory")
    places = [Path.cwd(), *Path.cwd().parents, *(Path(package.origin).parents if package else [])]
    return next(place for place in places if (place / "figures" / "harness.py").exists())


sys.path.insert(0, str(repository()))

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from ipywidgets import SelectionSlider, interact

from figures import harness, inexact_evaluation, mdp_convergence, mdp_lambda_map
from pmdtheory import kl_update, mixed_update, plotting, pmd_mean_update
from pmdtheory.mdp import Euclidean, Tsallis, from_gymnasium, garnet, gridworld, inexact, iterate, optimal
from pmdtheory.theorems import mdp_improvement


@plotting.style()
def show(plot, *arguments):
    """Draw ``plot(*arguments)`` in the style of the figures, display it and let go of it."""
    figure = plot(*arguments)
    display(figure)
    plt.close(figure)


# %% [markdown]
# ## 1. One iteration, all states
#
# A grid of three rooms with one goal, worth 1; moves slip now and then. Iteration $k$ solves for $Q^{\pi_k}$ and takes
# a PMD-mean step in each state. One line runs it; one row of the table describes one policy, from its value to the
# mean and the largest $\lambda$ of the step that led to it.

# %%
rooms = gridworld(
    mdp_lambda_map.HEIGHT, mdp_lambda_map.WIDTH, goal=mdp_lambda_map.GOAL, walls=mdp_lambda_map.WALLS
)
run = iterate(rooms, update=pmd_mean_update, tau=0.03, steps=6, keep=("policy", "V"))
run.table.drop(columns=["tau", "chi2"]).round(4)

# %% [markdown]
# The columns `reverse_kl` and `chi2_weight` are the same: $\lambda=\mathrm{KL}(p\Vert q)$ holds state by state
# (Statement 4). And no state ever loses. With exact values each step improves *every* state, by at least its own
# $\mathbb{E}_{\pi'}[A^\pi]\ge0$ (Statement 15).

# %%
claim = mdp_improvement.improvement_along(rooms, run.kept["policy"], run.kept["V"])
gains = np.diff(run.kept["V"], axis=0)[:, ~rooms.terminal]
held = claim.holds[:, ~rooms.terminal]
print(f"{held.sum()} of {held.size} improvements are at least as large as promised")
pd.DataFrame({"smallest gain": gains.min(axis=1), "largest gain": gains.max(axis=1)}, index=range(1, 7)).round(6)

# %% [markdown]
# ## 2. Where is it being learned? A map of $\lambda$
#
# The same rooms, but the first policy drifts away from the goal. $\lambda$ lights up where the state's actions already
# differ and the policy has not yet settled. That place is a front that starts at the goal and walks through the doors.
# Behind it the policy has settled, ahead of it all actions look alike, and in both places $\lambda\approx0$.
#
# Below the maps are all cells of all iterations. On the front's outer edge the value is low, because the policy hardly
# ever picks the good action; there the KL update leaps (up to 4.6 nats) and PMD-mean takes a short step. On the right
# below, $\tau\lambda$ is close to the mean positive advantage, its limit as $\tau\to0$ (Statement 8).

# %%
table = mdp_lambda_map.compute(**mdp_lambda_map.FULL)
show(mdp_lambda_map.plot, table)
print(mdp_lambda_map.finding(table))

# %% [markdown]
# Low value by itself does not make PMD-mean careful. Far from the goal the value is lowest, but there is nothing to be
# careful about yet. Move the temperature and the iteration:


# %%
@plotting.style()
def look(tau=0.03, iteration=3):
    """Draw V, τλ of the step that led here, and the probability of the likeliest action."""
    drift = np.broadcast_to([0.01, 0.01, 0.01, 0.97], rooms.R.shape)
    kept = iterate(rooms, drift, tau=tau, steps=iteration, keep=("policy", "V", "chi2_weight")).kept
    maps = {
        "$V$": kept["V"][-1],
        r"$\tau\lambda$": tau * kept["chi2_weight"][-1],
        r"$\max_a\pi(a|x)$": kept["policy"][-1].max(axis=1),
    }
    figure, axes = plotting.panels(1, 3, height=1.7)
    for axis, (name, values) in zip(axes, maps.items()):
        image = np.where(rooms.terminal, np.nan, values).reshape(mdp_lambda_map.HEIGHT, mdp_lambda_map.WIDTH)
        drawn = axis.imshow(image, vmin=0)
        axis.plot(*mdp_lambda_map.GOAL[::-1], "*", color="black")
        axis.set(title=name, xticks=[], yticks=[], facecolor="#BBBBBB")
        axis.grid(visible=False)
        figure.colorbar(drawn, ax=axis, shrink=0.8)
    display(figure)
    plt.close(figure)


look()

# %% [markdown]
# Run the next cell for the sliders.

# %%
_ = interact(
    look,
    tau=SelectionSlider(options=(0.003, 0.01, 0.03, 0.1, 0.3, 1), value=0.03, description="τ", continuous_update=False),
    iteration=SelectionSlider(options=(1, 2, 3, 5, 8, 13, 21, 34), value=3, continuous_update=False),
)

# %% [markdown]
# ## 3. When to stop: a certificate that needs no oracle
#
# How far is a policy from optimal if the optimum is not known? Let $g$ be its largest advantage. Then
#
# $$g\le\max_x\big(V^*-V^\pi\big)(x)\le\frac{g}{1-\gamma}$$
#
# (Statement 16, B10). So `tolerance=1e-6` means what it says: the run ends when no state can be further than $10^{-6}$
# from its optimal value. Policy iteration, which the runs know nothing of, agrees.

# %%
games = {
    "FrozenLake 8×8": (from_gymnasium("FrozenLake-v1", 0.99, map_name="8x8", sparse=True), 0.01),
    "Taxi": (from_gymnasium("Taxi-v4", 0.99, sparse=True), 1.0),
}
rows = []
for game, (mdp, tau) in games.items():
    best = optimal(mdp)
    for name, update in (("PMD-mean", pmd_mean_update), ("KL", kl_update)):
        last = iterate(
            mdp, update=update, tau=tau, step_sizes="geometric", tolerance=1e-6, optimal_value=best.V
        ).table.iloc[-1]
        rows.append(
            {
                "MDP": game,
                "update": name,
                "iterations": int(last.iteration),
                "value": f"{last.value:.7f}",
                "by policy iteration": f"{best.value:.7f}",
                "largest gap": f"{last.max_gap:.1e}",
                "certified": f"{last.certificate:.1e}",
            }
        )
pd.DataFrame(rows)

# %% [markdown]
# ## 4. Published bounds, and how loose they are
#
# Rates are known for the KL update: $\gamma^k$ with steps that grow as the policy sharpens (B1), $1/k$ with constant
# steps (B4), linear with geometric ones (B5). For PMD-mean with constant steps there is B11, also $1/k$. They are drawn
# dotted over the runs they speak of, each with its own step sizes. All hold. The certificate,
# which sees the policy, stays close; the rates, which must cover every MDP, do not.

# %%
table = pd.read_csv(harness.DATA / "mdp_convergence.csv")
show(mdp_convergence.plot, table)
print(mdp_convergence.finding(table))

# %% [markdown]
# Those curves come from the committed table. Recomputing a part of it takes a moment and gives the same numbers:

# %%
again = mdp_convergence.compute(**mdp_convergence.FAST)
both = again.merge(table, on=mdp_convergence.KEYS, suffixes=("", " committed"))
print(f"{len(both)} points, largest difference {(both.value - both['value committed']).abs().max():.0e}")

# %% [markdown]
# ## 5. Values that are only estimated
#
# Hand `iterate` another oracle and it learns from estimates, while the table still records the exact values. Below 16
# next states per state and action are sampled afresh in each iteration, for one Garnet (a random MDP).

# %%
random_mdp = garnet(20, 4, 5, np.random.default_rng(7))
best = optimal(random_mdp)
rows = {}
for rule, tau in (("constant", 0.03), ("adaptive", 1.0)):
    for name, update in (("PMD-mean", pmd_mean_update), ("KL", kl_update)):
        gaps = [
            iterate(
                random_mdp,
                update=update,
                tau=tau,
                steps=40,
                step_sizes=rule,
                evaluation=inexact.generative(16),
                optimal_value=best.V,
                seed=seed,
            ).table.max_gap[21:]
            for seed in range(8)
        ]
        floors = np.mean(gaps, axis=1)
        rows[rule, name] = {"floor, mean of 8 seeds": floors.mean(), "smallest": floors.min(), "largest": floors.max()}
pd.DataFrame(rows).T.map("{:.1e}".format)

# %% [markdown]
# With constant steps both updates add up all the estimates they ever saw, and the noise averages out. With steps that
# grow without limit the KL update turns greedy: it believes the last estimate and forgets the others. PMD-mean never
# turns greedy (Statement 8), and its floor is lower. The figure shows the same over 24 Garnets and four kinds of
# error, beside the floor that B3 allows.

# %%
table = pd.read_csv(harness.DATA / "inexact_evaluation.csv")
show(inexact_evaluation.plot, table)
print(inexact_evaluation.finding(table))

# %% [markdown]
# ## 6. Another regulariser is one word away
#
# The update is an argument. KL, PMD-mean, KL with a fixed $\chi^2$ penalty, the squared distance, the Tsallis entropy:
# nothing else changes. Equal $\tau$ does not mean equally long steps, so the comparison is of shapes, not of speed.

# %%
updates = {
    "KL": kl_update,
    "PMD-mean": pmd_mean_update,
    r"KL + $\chi^2$, $\kappa=0.1$": partial(mixed_update, chi2_coef=0.1),
    "Euclidean": Euclidean(),
    "Tsallis, α = 1/2": Tsallis(0.5),
}
runs = {name: iterate(random_mdp, update=update, tau=0.1, steps=60).table for name, update in updates.items()}


def compare():
    """Draw the certificates and the entropies of the runs."""
    figure, (left, right) = plotting.panels(1, 2, height=2.5)
    for name, line in zip(runs, ("--", "-", "-.", ":", (0, (5, 1, 1, 1)))):
        table = runs[name]
        left.semilogy(table.iteration, table.certificate.clip(1e-12), linestyle=line, label=name)
        right.plot(table.iteration, table.entropy, linestyle=line)
    left.set(xlabel="iteration", ylabel="certified gap", ylim=(1e-11, None))
    right.set(xlabel="iteration", ylabel="entropy, mean over the states")
    left.legend()
    return figure


show(compare)

# %% [markdown]
# ## Where to go next
#
# - `pmdtheory mdp --env FrozenLake-v1 --size 8 --gamma 0.99 --tau 0.01 --steps 200` does section 3 on the command line.
# - `pmdtheory check` tries every bound on random MDPs.
# - `python -m figures mdp_convergence mdp_lambda_map inexact_evaluation` recomputes [these figures](../figures).
