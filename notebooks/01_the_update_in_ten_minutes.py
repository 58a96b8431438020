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
# # The update in ten minutes
#
# Policy mirror descent (PMD) moves a policy $p$ towards reward without moving it far. Its ideal step needs a
# log-partition function, which a handful of rollouts cannot estimate. Kimi's recipe puts the mean reward in its
# place. This notebook follows what the exchange does to the step: a regression, then a Lambert W function, then a
# second regulariser that nobody asked for.
#
# It goes with Xu, Lu, Yu, Zhao, *Approximation of Log-Partition Function in Policy Mirror Descent Induces Implicit
# Regularization for LLM Post-Training*, [arXiv 2602.05933](https://arxiv.org/abs/2602.05933). "Statement 4" and the
# like are proved in [the README of the theorems](../pmdtheory/theorems/README.md).
#
# Everything can be read as it stands. To move the sliders, run `make lab` in the repository.

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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from ipywidgets import SelectionSlider, interact

from figures import adaptive_weight, baseline_knob, conservatism, log_partition_laboratory, population
from pmdtheory import (
    baseline_update,
    baselines,
    convex,
    divergences,
    kl_update,
    mixed_update,
    plotting,
    pmd_mean_update,
    stationarity,
)


@plotting.style()
def show(plot, *arguments):
    """Draw ``plot(*arguments)`` in the style of the figures, display it and let go of it."""
    figure = plot(*arguments)
    display(figure)
    plt.close(figure)


# %% [markdown]
# ## 1. The ideal step, and the number it needs
#
# One prompt, one policy $p$ over its answers, a reward $r$ for each, a temperature $\tau$. The ideal step maximises
# $\mathbb{E}_q[r]-\tau\,\mathrm{KL}(q\Vert p)$ and has a closed form (Statement 1):
#
# $$\log\frac{q}{p}=\frac{r-\tau\log Z}{\tau},\qquad Z=\mathbb{E}_p\big[e^{r/\tau}\big].$$
#
# So fit the log-ratio to $(r-b)/\tau$ by regression, with the baseline $b=\tau\log Z$. But $Z$ is a mean of
# exponentials. Below, rewards are 0 or 1, one answer in ten succeeds, $\tau=0.1$, and eight groups of 16 rollouts
# each estimate both the mean reward and $\tau\log Z$. The errors are those of the regression target, that is, divided
# by $\tau$.

# %%
J, tau, n = 0.1, 0.1, 16
log_partition = kl_update([1 - J, J], [0, 1], tau).baseline
rewards = np.random.default_rng(3).random((8, n)) < J
print(f"truth: mean reward {J}, tau log Z {log_partition:.3f}")
pd.DataFrame(
    {
        "successes of 16": rewards.sum(axis=1),
        "mean reward": baselines.mean(rewards),
        "its target error": (baselines.mean(rewards) - J) / tau,
        "τ log Z, estimated": baselines.log_partition(rewards, tau),
        "its target error ": (baselines.log_partition(rewards, tau) - log_partition) / tau,
    }
).round(2)

# %% [markdown]
# A group without a success estimates $\tau\log Z$ as 0, and its targets are off by almost 8 nats. This befalls
# $0.9^{16}\approx19\%$ of all groups. The same groups put the mean off by 1.
#
# ## 2. The trick: put the mean where $\tau\log Z$ was
#
# PMD-mean regresses on $\Delta=(r-\bar r)/\tau$ with $\bar r=\mathbb{E}_p[r]$. The targets now ask for the
# impossible: the ratio $q/p=e^{\Delta}$ would have $\mathbb{E}_p[e^{\Delta}]>1$ by Jensen's inequality, and $q$ would
# not be a distribution. Five graded answers show by how much.

# %%
p = np.array([0.35, 0.25, 0.20, 0.12, 0.08])
r = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
tau = 0.2
kl, mean = kl_update(p, r, tau), pmd_mean_update(p, r, tau)
target = (r - p @ r) / tau
print(f"sum of p exp(target): {p @ np.exp(target):.3f}")
pd.DataFrame(
    {"reward": r, "p": p, "target Δ": target, "log q/p, PMD-mean": mean.log_ratio, "log q/p, KL": kl.log_ratio}
).round(3)

# %% [markdown]
# ## 3. One constraint, one multiplier, one Lambert W
#
# What does the regression settle for? It minimises $\mathbb{E}_p\big[\tfrac12(s-\Delta)^2\big]$ over log-ratios $s$
# that obey $\mathbb{E}_p[e^s]=1$. Give the constraint a multiplier $\lambda$ and set the derivative to zero, answer
# by answer:
#
# $$s+\lambda e^s=\Delta\quad\Longrightarrow\quad\frac{q}{p}=e^s=\frac{W(\lambda e^{\Delta})}{\lambda},$$
#
# with $W$ the Lambert W function, the inverse of $x\mapsto xe^x$ (Statement 2).
#
# On the left, each answer finds its $s$ where the curve $s+\lambda e^s$ reaches its target. High targets are bent
# down and low ones are barely touched. On the right, $\lambda$ is the one weight that makes $q$ sum to 1.


# %%
def stationarity_by_eye():
    """Draw the curve that every answer's log-ratio lies on, and the normalisation that fixes the multiplier."""
    figure, (left, right) = plotting.panels(1, 2, width=6.4, height=2.7)
    weight = mean.chi2_weight
    s = np.linspace(mean.log_ratio.min() - 0.5, mean.log_ratio.max() + 0.7, 200)
    left.plot(s, s + weight * np.exp(s), color=plotting.VERMILION, label=r"$s+\lambda e^s$")
    left.plot(s, s, **plotting.BOUND, label="$s$")
    left.hlines(target, s[0], mean.log_ratio, color=plotting.GREY, linewidth=0.6)
    left.plot(mean.log_ratio, target, "o", color=plotting.VERMILION, markersize=4, label="the five answers")
    left.set(xlabel="log-ratio $s$", ylabel=r"target $\Delta$", xlim=(s[0], s[-1]))
    left.legend()
    weights = np.linspace(0.02, 1.2, 200)
    _, growth = stationarity.log_ratio(target - weights[:, None], weights[:, None])
    right.plot(weights, 1 + growth @ p, color=plotting.VERMILION)
    right.axhline(1, **plotting.BOUND)
    right.plot(weight, 1, "o", color=plotting.VERMILION, markersize=4)
    right.annotate(rf"$\lambda={weight:.3f}$", (weight, 1), xytext=(6, 6), textcoords="offset points")
    right.set(xlabel=r"multiplier $\lambda$", ylabel=r"mass $\mathbb{E}_p[e^s]$")
    return figure


show(stationarity_by_eye)
reached = mean.log_ratio + mean.chi2_weight * np.exp(mean.log_ratio)
print(f"s + lambda e^s meets the targets to {np.abs(reached - target).max():.0e}")
print(f"q sums to 1 to {abs(p @ np.expm1(mean.log_ratio)):.0e}")

# %% [markdown]
# ## 4. The multiplier has a name
#
# Average $s+\lambda q/p=\Delta$ over $p$. The right side vanishes, $\mathbb{E}_p[q/p]=1$, and what remains is
# $\lambda=-\mathbb{E}_p[s]=\mathrm{KL}(p\Vert q)$ (Statement 4): the reverse KL divergence of the very step it
# shapes. It adapts by itself. For binary rewards $\tau\lambda$ tends to $J(1-J)$ as $\tau\to0$, the variance of the
# reward.

# %%
print(f"lambda {mean.chi2_weight:.6f},  KL(p||q) {divergences.kl(p, mean.policy):.6f}")
table = adaptive_weight.compute(**adaptive_weight.FAST)
show(adaptive_weight.plot, table)
print(adaptive_weight.finding(table))

# %% [markdown]
# ## 5. The regulariser that nobody asked for
#
# Maximise instead
#
# $$\mathbb{E}_q[r]-\tau\,\mathrm{KL}(q\Vert p)-\frac{\tau\lambda}{2}\,\chi^2(q\Vert p)$$
#
# with $\lambda$ held at the value found above. Its stationarity condition is
# $\log(q/p)+\lambda q/p=r/\tau+\text{const}$, the equation of section 3 again, and both problems are convex: the
# solutions coincide (Statement 3). PMD-mean is a KL step with an additional $\chi^2$ penalty. CVXPY, which knows
# nothing of Lambert W, gets the two problems separately.

# %%
solutions = {
    "PMD-mean, Lambert W": mean,
    "regression, CVXPY": convex.regression(p, r, tau),
    "KL + χ², CVXPY": convex.mixed(p, r, tau, tau * mean.chi2_weight),
    "KL + χ², library": mixed_update(p, r, tau, tau * mean.chi2_weight),
    "KL only": kl,
}
rows = {
    name: [*solution.policy.round(6), f"{np.abs(solution.policy - mean.policy).sum():.0e}"]
    for name, solution in solutions.items()
}
pd.DataFrame.from_dict(rows, orient="index", columns=[*(f"q({x:g})" for x in r), "L1 distance to the first"])

# %% [markdown]
# The same on 41 graded rewards, for two policies and two temperatures. Drawn is $\tau\log(q/p)$ against reward. The
# KL step is a straight line. PMD-mean runs above it and parallel to it among poor answers, then bends and ends below
# it; the colder, the more. Circles and crosses are CVXPY's solutions.

# %%
table = population.compute(means=(0.1, 0.5), taus=(0.05, 1.0))
show(population.plot, table)

# %% [markdown]
# ## 6. Success or failure: move $J$ and $\tau$
#
# With binary rewards only the success rate $J$ matters. One step turns it into $J'$; what is left of the failures is
# $(1-J')/(1-J)$. It is about $e^{-J/\tau}$ for PMD-mean (between the bounds of Statement 9, shaded) and about
# $e^{-1/\tau}/J$ for the ideal step while $e^{-1/\tau}\ll J\ll1$: with few successes PMD-mean is far more careful.


# %%
@plotting.style()
def binary(J=0.1, tau=0.1):
    """Draw both steps against the success rate, and mark J."""
    point = pmd_mean_update([1 - J, J], [0, 1], tau), kl_update([1 - J, J], [0, 1], tau)
    figure = conservatism.plot(conservatism.compute(taus=(tau,), points=121))
    left, right = figure.axes
    for step, role in zip(point, (plotting.MEAN, plotting.KL)):
        failures, after = np.exp(step.log_ratio[0]), step.policy[1]
        left.plot(J, after, "o", color=role["color"], markersize=5, zorder=4)
        right.plot(J, failures, "o", color=role["color"], markersize=5, zorder=4)
    left.axvline(J, **plotting.BOUND)
    right.axvline(J, **plotting.BOUND)
    figure.suptitle(
        rf"$J={J:g}$, $\tau={tau:g}$: $J'$ = {point[0].policy[1]:.4g} (PMD-mean), {point[1].policy[1]:.4g} (KL); "
        rf"failures left {np.exp(point[0].log_ratio[0]):.2g}, {np.exp(point[1].log_ratio[0]):.2g}; "
        rf"$\lambda={point[0].chi2_weight:.3g}$",
        fontsize=8,
    )
    display(figure)
    plt.close(figure)


binary()

# %% [markdown]
# Run the next cell for the sliders.

# %%
rates = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.99)
temperatures = (0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5)
_ = interact(
    binary,
    J=SelectionSlider(options=rates, value=0.1, continuous_update=False),
    tau=SelectionSlider(options=temperatures, value=0.1, description="τ", continuous_update=False),
)

# %% [markdown]
# ## 7. Graded rewards: the bend moves with $J$ and $\tau$
#
# Now 41 rewards between 0 and 1, with $J$ the mean reward. On the left the log-ratios of both steps against reward,
# on the right the policies. As $\tau\to0$ the KL step keeps only the best answer, while PMD-mean keeps everything
# better than average, in proportion to $p$ times the advantage (Statement 8). As $\tau\to\infty$ the two agree.


# %%
@plotting.style()
def graded(J=0.3, tau=0.05):
    """Draw log-ratios and policies of both steps for 41 graded rewards with mean J."""
    reward, policy = population.REWARD, population.tilted(J)
    figure, (left, right) = plotting.panels(1, 2, height=2.7)
    right.fill_between(reward, policy, color="#DDDDDD", label="current policy $p$")
    for update, role, label in ((kl_update, plotting.KL, "KL"), (pmd_mean_update, plotting.MEAN, "PMD-mean")):
        step = update(policy, reward, tau)
        left.plot(reward, step.log_ratio, **role, label=label)
        right.plot(reward, step.policy, **role, label=rf"{label}: $E_q[r]={step.policy @ reward:.3f}$")
    left.axvline(J, **plotting.BOUND)
    right.axvline(J, **plotting.BOUND)
    left.set(xlabel="reward $r$ (dotted: $J$)", ylabel=r"log-ratio $\log(q/p)$")
    right.set(xlabel="reward $r$", ylabel="probability", ylim=(0, None))
    left.legend()
    right.legend()
    figure.suptitle(rf"$J={J:g}$, $\tau={tau:g}$, $\lambda={step.chi2_weight:.3g}$", fontsize=8)
    display(figure)
    plt.close(figure)


graded()

# %% [markdown]
# Run the next cell for the sliders.

# %%
_ = interact(
    graded,
    J=SelectionSlider(options=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), value=0.3, continuous_update=False),
    tau=SelectionSlider(options=temperatures, value=0.05, description="τ", continuous_update=False),
)

# %% [markdown]
# ## 8. Never further than the ideal step
#
# The ratio $q/p$ of PMD-mean rises with reward, and so does the KL step's ratio to PMD-mean. That orders everything
# (Statement 7): seen from $p$, every $f$-divergence of PMD-mean is no larger, its extreme ratios are tamer, and the
# expected reward lies between the old one and the KL step's. The gain is known exactly too (Statement 5):
#
# $$\mathbb{E}_q[r]-\mathbb{E}_p[r]=\tau\big[\mathrm{KL}(q\Vert p)+\lambda\,(1+\chi^2(q\Vert p))\big]\ge0.$$

# %%
rows = {
    name: {"E_q[r]": step.policy @ r} | divergences.movement(p, step.log_ratio)._asdict()
    for name, step in (("PMD-mean", mean), ("KL", kl))
}
moved = divergences.movement(p, mean.log_ratio)
gain = tau * (moved.kl + mean.chi2_weight * (1 + moved.chi2))
print(f"reward before {p @ r:.4f};  gain {mean.policy @ r - p @ r:.6f},  by the identity {gain:.6f}")
pd.DataFrame(rows).T.astype(float).round(4)

# %% [markdown]
# ## 9. The baseline is a knob
#
# Any $b\le\tau\log Z$ may serve as baseline: $\lambda=\mathrm{KL}(p\Vert q)+(\bar r-b)/\tau\ge0$, and the reward
# rises with $b$ (Statement 10). Far below the mean the policy is frozen; the mean gives PMD-mean, $\tau\log Z$ the
# ideal step. In the shaded part of the picture $b>\tau\log Z$, $\lambda$ is
# negative and what is drawn is only a local minimum; beyond a largest $b$ there is none of its kind (Statement 11).
# Estimates of $\tau\log Z$ from rollouts can land there. The table is for the five answers of section 2.

# %%
table = baseline_knob.compute(**baseline_knob.FULL)
show(baseline_knob.plot, table[table.knob > -4])
knob = np.array([-10, -1, 0, 0.5, 1])
levels = p @ r + knob * (kl.baseline - p @ r)
steps = baseline_update(p, r, tau, levels)
pd.DataFrame({"knob": knob, "b": levels, "E_q[r]": steps.policy @ r, "λ": steps.chi2_weight}).round(4)

# %% [markdown]
# ## 10. What $n$ rollouts can tell
#
# Back to the reason for the trick. Rewards are binary, $J=0.1$, $n=16$ and $\tau=0.1$ unless swept; the laws are
# exact, and errors are those of the regression target. The mean (solid) has no bias and a spread of
# $\sqrt{J(1-J)/n}/\tau=0.75$. The log-partition (dashed) has two modes (panel a): nearly right, or off by about
# $1/\tau+\log J=7.7$ when no success was seen (Statement 12). The end of the finding is a warning about
# implementations: a clamped leave-one-out log-partition takes most of its advantage from a lone success at small
# $\tau$ (Statement 13).

# %%
some = {name: values[::2] for name, values in log_partition_laboratory.FULL.items()}
table = log_partition_laboratory.compute(**some)
show(log_partition_laboratory.plot, table)
print(log_partition_laboratory.finding(table))

# %% [markdown]
# ## Where to go next
#
# - [Every statement with its proof](../pmdtheory/theorems/README.md); `pmdtheory check` tries them on random problems.
# - `python -m figures` recomputes the tables behind [the figures](../figures) and redraws them.
# - Your own problem: `pmdtheory solve --policy 0.1,0.9 --reward 1,0 --tau 0.1 --certify`.
# - Many steps, exact or from rollouts: `pmdtheory bandit --kind binary --tau 0.1 --steps 10 --rollouts 16 --seeds 20`.
