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
# # What a handful of rollouts does
#
# The first notebook gave both updates the whole reward function. In training there are $n$ rollouts of a prompt, a
# baseline estimated from their rewards, and a regression on the answers that were drawn. This notebook follows the
# exact minimiser of that regression, first for one batch, then over many seeds, then over many steps. **PMD-mean**
# subtracts the mean reward of the rollouts, **PMD-part** their log-partition $\tau\log\tfrac1n\sum_ie^{r_i/\tau}$.
#
# It goes with Xu, Lu, Yu, Zhao, [arXiv 2602.05933](https://arxiv.org/abs/2602.05933); statements are proved in
# [the README of the theorems](../pmdtheory/theorems/README.md). The policies here are tables: nothing generalises from
# one answer to another. Everything can be read as it stands. To move the sliders, run `make lab` in the repository.

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

from figures import finite_sample_improvement, finite_sample_iterated, harness, three_cases
from pmdtheory import baselines, plotting
from pmdtheory.bandit import iterate
from pmdtheory.sampled import sampled_loss, sampled_update


def show(plot, *arguments):
    """Draw ``plot(*arguments)`` in the style of the figures, display it and let go of it."""
    with plotting.style():
        figure = plot(*arguments)
        display(figure)
        plt.close(figure)


def committed(figure):
    """Read the table that stands behind a figure of the repository."""
    return pd.read_csv(harness.DATA / f"{figure.__name__.split('.')[-1]}.csv")


NAMES = {"mean": "PMD-mean", "log_partition": "PMD-part"}

# %% [markdown]
# ## 1. One batch
#
# Six answers, eight rollouts, two of them successful. The targets $(r-b)/\tau$ of both baselines, and the policy that
# fits them best. Only three answers were drawn; the other three are unseen.

# %%
p = np.array([0.35, 0.25, 0.15, 0.12, 0.08, 0.05])
actions = np.array([0, 0, 0, 0, 1, 1, 3, 3])
rewards = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
tau = 0.3
table = pd.DataFrame({"p": p})
for name, label in NAMES.items():
    target = (rewards - baselines.estimate(name, rewards, tau)) / tau
    step = sampled_update(p, actions, rewards, tau, baseline=name)
    table[f"target, {label}"] = pd.Series(target, actions).groupby(level=0).mean()
    table[f"q, {label}"] = step.policy
    fit = float(sampled_loss(p, step.policy, actions, rewards, tau, baseline=name))
    print(f"{label}: e^target averages {np.exp(target).mean():.2f} over the rollouts; least loss {fit:.3f}")
table.round(3)

# %% [markdown]
# The $e^{\text{target}}$ of PMD-part average exactly 1 over the rollouts, for that is what $\hat Z$ is for. So $k$
# successes among $n$ grow at most $n/k$-fold, and failures are asked to vanish. The targets of PMD-mean know no such
# balance: a success is asked to grow $e^{(1-k/n)/\tau}$-fold.
#
# ## 2. Three cases
#
# Let $m=\sum_Sp\,e^d$ be the mass that the mean targets $d$ ask for on the seen answers $S$ (Statement 14).
#
# - $m<1$ and something is unseen: the targets are fitted, and the unseen answers share the rest.
# - $m>1$: the targets are missed, and the unseen answers lose everything.
# - $m<1$ and everything is seen: mass is left over, and the problem is not convex. The best policy may dump it on an
#   answer that was drawn rarely, since missing its target is cheap.


# %%
some = actions, rewards
successes = {0: (7, 12), 1: (1, 5), 2: (0, 3), 3: (0, 2), 4: (0, 1), 5: (0, 1)}
noisy = np.concatenate([np.arange(n) < k for k, n in successes.values()]).astype(float)
everything = np.repeat(np.arange(6), [n for _, n in successes.values()]), noisy


def cases(tau=0.05, baseline="log_partition"):
    """Draw what two batches ask for and what the minimiser does."""

    def draw():
        figure, axes = plotting.panels(1, 2, width=6.4, height=2.5)
        for axis, (drawn, observed) in zip(axes, (some, everything)):
            b = observed.max() if baseline == "best reward" else baselines.estimate(baseline, observed, tau)
            step = sampled_update(p, drawn, observed, tau, baseline=b)
            asked = p[drawn] * np.exp(pd.Series((observed - b) / tau, drawn).groupby(level=0).transform("mean"))
            asked = asked.groupby(level=0).first()
            axis.bar(range(6), p, width=0.8, color="#DDDDDD", label="$p$")
            axis.plot(asked.index, asked.clip(upper=1), "_", color="black", markersize=14, label="asked for (up to 1)")
            axis.plot(range(6), step.policy, "o", color=plotting.VERMILION, label="$q$")
            axis.set(title=f"$m={asked.sum():.3g}$", xlabel="answer", ylim=(0, 1.05))
        axes[0].set_ylabel("probability")
        axes[0].legend(loc="upper right")
        figure.suptitle(rf"baseline: {baseline.replace('_', '-')}, $\tau={tau:g}$", fontsize=8)
        return figure

    show(draw)


cases()

# %% [markdown]
# Left the batch of section 1. Right one of 24 rollouts in which everything was drawn and rewards are noisy: answer 0
# succeeded in 7 of 12 rollouts, answer 1 in 1 of 5, the others never. PMD-part asks for next to nothing on all of them,
# and the mass ends up on an answer that failed in the only rollout it had. Run the next cell for the sliders.

# %%
temperatures = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2)
_ = interact(
    cases,
    tau=SelectionSlider(options=temperatures, value=0.05, description="τ", continuous_update=False),
    baseline=SelectionSlider(options=("mean", "log_partition", "best reward"), value="log_partition"),
)

# %% [markdown]
# How often is mass dumped? Panel d below counts, hollow without and filled with noise in the rewards. With the
# mean as baseline the problem is almost always convex. With PMD-part and noisy rewards, once everything has been seen,
# it hardly ever is: at small $\tau$ an answer that failed in a share $f$ of its rollouts has a mean target near
# $-f/\tau$, however good it is, so too little mass is asked for and the rest goes where it costs least.
#
# ![The three cases](../figures/output/three_cases.png)

# %%
print(three_cases.finding(committed(three_cases)))

# %% [markdown]
# ## 3. One step over many seeds
#
# Now 200 random bandits. Their policies are Zipf's, their success rate is $J$. The first row shows the gain in expected
# reward, with the gain of the exact updates as horizontal lines; the second how much PMD-mean is ahead.
#
# ![One step from n rollouts](../figures/output/finite_sample_improvement.png)

# %%
print(finite_sample_improvement.finding(committed(finite_sample_improvement)))

# %% [markdown]
# With few rollouts, many answers and a small $\tau$, PMD-part hardly improves anything: what it takes from the failures
# goes to unseen answers, which are no better than before. PMD-mean asks for more mass than there is, so everything goes
# to the successes it has seen. That is the larger gain and the larger risk: hardly any exploration is left. Where
# everything is seen, or $\tau$ is moderate, PMD-part comes close to the ideal step and PMD-mean stays behind.


# %%
def one_step(actions=100, J=0.1, tau=0.1, rewards="binary"):
    """Draw the gain over the number of rollouts from 60 seeds."""
    problem = (rewards, actions, J)
    table = finite_sample_improvement.compute((problem,), (tau,), (2, 4, 8, 16, 32, 64, 128), 60)

    def draw():
        figure, (left, right) = plotting.panels(1, 2, width=6.4, height=2.5)
        rows = finite_sample_improvement.select(table, problem, tau)
        for axis, value, label in ((left, "gain", "gain in $E[r]$"), (right, "left", "effective actions left")):
            finite_sample_improvement.draw(axis, rows, value, list(NAMES))
            axis.set(xlabel="rollouts $n$", ylabel=label)
        left.legend(left.get_lines(), list(NAMES.values()))
        figure.suptitle(rf"{rewards}, $K={actions}$, $J={J:g}$, $\tau={tau:g}$", fontsize=8)
        return figure

    show(draw)


one_step()

# %% [markdown]
# Run the next cell for the sliders.

# %%
_ = interact(
    one_step,
    actions=SelectionSlider(options=(10, 100, 1000), value=100, continuous_update=False),
    J=SelectionSlider(options=(0.1, 0.2, 0.5, 0.8), value=0.1, continuous_update=False),
    tau=SelectionSlider(options=temperatures, value=0.1, description="τ", continuous_update=False),
    rewards=SelectionSlider(options=("binary", "graded", "noisy"), value="binary", continuous_update=False),
)

# %% [markdown]
# ## 4. Forty steps
#
# The same again and again, with fresh rollouts from the current policy, or with old ones.
#
# ![Forty steps](../figures/output/finite_sample_iterated.png)

# %%
print(finite_sample_iterated.finding(committed(finite_sample_iterated)))

# %% [markdown]
# Without noise PMD-part has the better end: it goes on exploring while PMD-mean has settled on the best of what it saw
# first. With noise PMD-part unlearns: the log-partition of an answer's rewards exceeds their mean, so an answer that
# fills the batch is pushed down. More rollouts a step make that worse, not better.


# %%
def many_steps(rollouts=16, tau=0.1, case="noisy"):
    """Draw expected reward and effective actions over 25 steps, mean of 40 runs."""
    bandit, start = finite_sample_iterated.bandit(case, 40)
    tables = {
        name: iterate(bandit, start, tau, 25, rollouts=rollouts, estimator=name, per_context=True) for name in NAMES
    }

    def draw():
        figure, (left, right) = plotting.panels(1, 2, width=6.4, height=2.5)
        for (name, label), role in zip(NAMES.items(), (plotting.MEAN, plotting.KL)):
            path = tables[name].assign(effective=np.exp(tables[name].entropy))
            for axis, value in ((left, "reward"), (right, "effective")):
                plotting.band(axis, "step", path, value, by="context", **role, label=label)
        left.set(xlabel="step $t$", ylabel="expected reward", ylim=(0, 1.02))
        right.set(xlabel="step $t$", ylabel="effective actions")
        left.legend()
        figure.suptitle(rf"{case}, $n={rollouts}$, $\tau={tau:g}$", fontsize=8)
        return figure

    show(draw)


many_steps()

# %% [markdown]
# Run the next cell for the sliders.

# %%
_ = interact(
    many_steps,
    rollouts=SelectionSlider(options=(4, 8, 16, 32, 64), value=16, continuous_update=False),
    tau=SelectionSlider(options=temperatures, value=0.1, description="τ", continuous_update=False),
    case=SelectionSlider(options=("binary", "graded", "noisy"), value="noisy", continuous_update=False),
)

# %% [markdown]
# ## Where to go next
#
# - [Statements 12–14](../pmdtheory/theorems/README.md) with their proofs, and [all figures](../figures).
# - `python -m figures finite_sample_improvement finite_sample_iterated three_cases` recomputes these tables.
# - `pmdtheory bandit --kind binary --tau 0.1 --steps 10 --rollouts 16 --seeds 20` runs your own.
