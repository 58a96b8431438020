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
# # Which loss is that?
#
# Trainers offer a dozen losses that differ in a line: what is averaged, what is subtracted, what is divided out. Each
# leads to a policy, and that policy, the *law* of the loss, can be computed
# ([the atlas](../docs/family.md), Statements 19 to 33 of [the theorems](../pmdtheory/theorems/README.md)). Here you
# write a loss in five lines, find out its law, change it, and see the law move. The last part goes the other way: a
# regulariser of your own, in one line, and what follows from it.
#
# Everything runs in about a minute on one CPU core. To move the sliders, run `make lab` in the repository.

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from ipywidgets import SelectionSlider, interact

from pmdtheory import bandit, identify, kl_update, mdp, penalised_update, plotting, pmd_mean_update
from pmdtheory.family import MEMBERS
from pmdtheory.instrument.bench import HARD
from pmdtheory.theorems import sensitivity


@plotting.style()
def show(plot, *arguments):
    """Draw ``plot(*arguments)`` in the style of the figures, display it and let go of it."""
    figure = plot(*arguments)
    display(figure)
    plt.close(figure)


# %% [markdown]
# ## 1. Five lines, and what they optimise
#
# A loss is a function of the log-probabilities of a group's completions under the policy that is trained and under the
# one that sampled them, a mask of their tokens, their rewards, and τ. This is PMD-mean.


# %%
def mine(logp, old_logp, mask, rewards, tau):
    """Squares of what the log-ratio s misses of (r − mean)/τ."""
    s = ((logp - old_logp) * mask).sum(-1)
    advantage = rewards - rewards.mean()
    return (advantage - tau * s).square().mean()


print(identify(mine, tau=0.25, name="mine").table())

# %% [markdown]
# `identify` follows the loss's own gradient on two prompts, one hard and one easy, where a group holds every completion
# as often as the policy draws it; it ends at a policy, and that is compared with every law of the atlas. On the command
# line it is `pmd-llm law mine.py:mine`.
#
# ## 2. Change a line


# %%
def follows(logp, old_logp, mask, rewards, tau):
    """The baseline follows the residual: its variance."""
    s = ((logp - old_logp) * mask).sum(-1)
    return (rewards - tau * s).var()


def fresh(logp, old_logp, mask, rewards, tau):
    """Averaged over the policy itself, as fresh rollouts are: weights q/p that are not differentiated."""
    s = ((logp - old_logp) * mask).sum(-1)
    return (s.detach().exp() * (rewards - rewards.mean() - tau * s).square()).mean()


def divided(logp, old_logp, mask, rewards, tau):
    """Divided by length, the default of some trainers."""
    s = ((logp - old_logp) * mask).sum(-1)
    return ((rewards - rewards.mean() - tau * s).square() / mask.sum(-1)).mean()


def clipped(logp, old_logp, mask, rewards, tau):
    """PPO's surrogate."""
    ratio, advantage = (((logp - old_logp) * mask).sum(-1)).exp(), rewards - rewards.mean()
    return -(ratio * advantage).minimum(ratio.clip(0.8, 1.2) * advantage).mean()


def slip(logp, old_logp, mask, rewards, tau):
    """A slip: the square is taken token by token."""
    s = (logp - old_logp) * mask
    return (-(rewards - rewards.mean()) * s.sum(-1) + tau / 2 * s.square().sum(-1)).mean()


for loss in (mine, follows, fresh, divided, clipped, slip):
    print(identify(loss, tau=0.25, name=loss.__name__).sentence())

# %% [markdown]
# Two changes that look like details, `follows` and `fresh`, lead to the ideal KL law: both make the baseline
# irrelevant. What makes PMD-mean cautious is that its average is over the *old* policy and its baseline does not move.
#
# ## 3. Where the average decides
#
# Between the old policy and the new one lie truncated weights min(ρ, c). The cap slides the law from Lambert-W to KL.

# %%
hard = np.array([0.45, 0.3, 0.15, 0.07, 0.03]), np.array([0.0, 0.25, 0.5, 0.75, 1.0])
TAU = 0.25
CAPS = [0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 50.0]


def laws(cap):
    """Log-ratios of the two ends and of the law in between."""
    figure, (axis,) = plotting.panels(1, 1, width=3.4, height=2.4)
    p, r = hard
    between = MEMBERS["truncated-importance"].law(p, r, TAU, cap=cap)
    axis.plot(r, kl_update(p, r, TAU).log_ratio, **plotting.KL, label="KL law")
    axis.plot(r, pmd_mean_update(p, r, TAU).log_ratio, **plotting.MEAN, label="PMD-mean")
    axis.plot(r, between.log_ratio, "o", color="black", markersize=4, label=rf"weights $\min(\rho, {cap:g})$")
    axis.set(xlabel="reward", ylabel="log-ratio $s$", title=f"mean reward {p @ r:.2f} → {between.policy @ r:.2f}")
    axis.legend(loc="lower right")
    return figure


show(laws, 1.5)

# %%
cap_slider = interact(lambda cap: show(laws, cap), cap=SelectionSlider(options=CAPS, value=1.5, description="cap"))

# %% [markdown]
# ## 4. One wrong reward
#
# What is caution good for? Let one action's reward be wrong by δ = τ. The more probable an action, the more its reward
# may matter; a rare one should not. Statement 31: PMD-mean's update moves by O(√p δ/τ) at most, whatever the rewards
# are; the KL update can move by 2 tanh(δ/4τ) however small p is. Here the reward is the worst one for each.


# %%
def worst(update, p):
    """Largest L1 change of an update of two actions when the rare one's reward, whatever it is, changes by τ."""
    rewards = np.linspace(-2, 3 * np.log(1 / p) + 5, 1500)
    policy = np.broadcast_to([1 - p, p], (len(rewards), 2))
    pair = [update(policy, np.stack([0 * rewards, rewards + change], -1), 1.0).policy for change in (0.0, 1.0)]
    return np.abs(pair[1] - pair[0]).sum(-1).max()


rare = 10.0 ** -np.arange(0.5, 6.1, 0.5)
table = pd.DataFrame(
    {"KL": [worst(kl_update, p) for p in rare], "PMD-mean": [worst(pmd_mean_update, p) for p in rare]}, index=rare
)
table["bound"] = 2 * (sensitivity.largest_weight(rare) + rare)
assert (table["PMD-mean"] <= table["bound"]).all()


def sensitivities():
    """Worst change against the action's probability."""
    figure, (axis,) = plotting.panels(1, 1, width=3.4, height=2.4)
    axis.loglog(table.index, table.KL, **plotting.KL, label="KL update")
    axis.loglog(table.index, table["PMD-mean"], **plotting.MEAN, label="PMD-mean")
    axis.loglog(table.index, table.bound, **plotting.BOUND, label="Statement 31")
    axis.set(xlabel="probability $p$ of the action", ylabel="worst change, L1")
    axis.legend()
    return figure


show(sensitivities)

# %% [markdown]
# ## 5. Your own regulariser
#
# Any convex penalty E_p[f(ρ)] of the ratio can stand beside the KL one; `penalised_update` takes its derivative φ = f′.
# **This is the line to change.**

# %%
phi = lambda ratio: ratio**1.5  # noqa: E731


# %% [markdown]
# With `adaptive=True` φ is scaled by the C that keeps the mean reward as the baseline, τ s + C φ(ρ) = r − r̄, as
# PMD-mean's χ² is (φ = ρ). By Statement 19 that is the law of a loss: squares with weights w = ρ/φ(ρ) that are not
# differentiated. So the regulariser is also a loss, and the instrument can be asked where that ends.


# %%
def own(policy, reward, tau):
    """The update with this penalty."""
    return penalised_update(policy, reward, tau, phi, adaptive=True)


def own_loss(logp, old_logp, mask, rewards, tau):
    """The loss that leads to it."""
    s = ((logp - old_logp) * mask).sum(-1)
    ratio = s.detach().exp()
    return (ratio / phi(ratio) * (rewards - rewards.mean() - tau * s).square()).mean()


found = identify(own_loss, tau=TAU, name="own_loss")
predicted = own(HARD.policy, HARD.reward, TAU).log_ratio
print(found.sentence())
print(f"From the update's own law it is {np.abs(found.stops[0].log_ratio - predicted).max():.0e} away, in log-ratios.")

# %% [markdown]
# **Population.** The law, beside its neighbours, with two bounds that every such penalty obeys: it gains at least
# τ KL(q‖p), and no more than the KL update.

# %%
UPDATES = {
    "KL": (kl_update, plotting.KL),
    "PMD-mean": (pmd_mean_update, plotting.MEAN),
    "own": (own, {"color": plotting.GREEN}),
}
p, r = hard
rows = {}
for name, (update, _) in UPDATES.items():
    step = update(p, r, TAU)
    gain, kl = (step.policy - p) @ r, step.policy @ step.log_ratio
    rows[name] = {"gain": gain, "at least τ KL(q‖p)": TAU * kl, "λ or C/τ": float(step.chi2_weight)}
    assert TAU * kl <= gain + 1e-9 and gain <= (kl_update(p, r, TAU).policy - p) @ r + 1e-9
print(pd.DataFrame(rows).T.round(4).to_string())

# %% [markdown]
# **Finite samples.** Each update on the empirical policy of n rollouts with noisy rewards, 400 draws: the mean reward
# that is really reached, with its 95% interval. Unseen actions keep their share.


# %%
def sampled(update, n, draws=400):
    """True mean reward after a step from n rollouts: its mean over draws and the interval's half-width."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n, p, size=draws)
    noisy = r + rng.normal(scale=0.5, size=counts.shape) / np.sqrt(np.maximum(counts, 1))
    seen = (p * (counts > 0)).sum(-1, keepdims=True)
    q = seen * update(counts / n, noisy, TAU).policy + p * (counts == 0)
    return (q @ r).mean(), 1.96 * (q @ r).std() / np.sqrt(draws)


SIZES = (2, 4, 8, 16, 64, 256)


def finite():
    """Reward after a step against the number of rollouts."""
    figure, (axis,) = plotting.panels(1, 1, width=3.4, height=2.4)
    for name, (update, style) in UPDATES.items():
        means, widths = zip(*(sampled(update, n) for n in SIZES))
        axis.errorbar(SIZES, means, widths, label=name, **style)
        axis.axhline(update(p, r, TAU).policy @ r, **style | {"linewidth": 0.5, "linestyle": ":"})
    axis.set(xscale="log", xlabel="rollouts $n$", ylabel="mean reward after a step")
    axis.legend()
    return figure


show(finite)

# %% [markdown]
# **A bandit and an MDP.** The same function iterated. In a bandit the dotted line is a bound on the gap of PMD-mean
# (Statement 32); the penalty of your own need not obey it, unless it is weaker.

# %%
world = mdp.gridworld(3, 4, slip=0.1, gamma=0.9)
best = mdp.optimal(world).V


def iterated():
    """Reward gap in the bandit, largest value gap in a gridworld."""
    figure, (left, right) = plotting.panels(1, 2, height=2.4)
    for name, (update, style) in UPDATES.items():
        path = bandit.iterate(bandit.Bandit(r), p, TAU, 12, update=update)
        left.semilogy(path.step, 1 - path.reward, label=name, **style)
        run = mdp.iterate(world, update=update, tau=0.01, steps=15, optimal_value=best)
        right.semilogy(run.table.iteration, run.table.max_gap.clip(lower=1e-12), label=name, **style)
    gaps = 1 - bandit.iterate(bandit.Bandit(r), p, TAU, 12).reward.to_numpy()
    clock = np.cumsum(1 / (TAU + gaps[:-1]))
    bound = [(p * (1 - r) * np.exp(-(1 - r) * time)).sum() / p[-1] for time in clock]
    left.semilogy(range(1, 13), bound, **plotting.BOUND, label="Statement 32")
    left.set(xlabel="step", ylabel="reward gap", title="bandit")
    right.set(xlabel="iteration", ylabel="largest value gap", title="gridworld")
    left.legend()
    return figure


show(iterated)

# %% [markdown]
# To go on: `pmdtheory.theorems` tries a claim of yours on random problems, `pmd-llm law` takes a loss from a file, and
# [docs/extend.md](../docs/extend.md) shows how a loss becomes an algorithm of `pmd-llm train` and how a law joins the
# atlas. The network's side is notebook 04 and `pmd-llm validate --preset full --experiments family`: eight losses of
# the family, each on its own law.
