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
# # A network beside the theory
#
# The other notebooks minimise over all policies. A language model is one transformer for all prompts, moved by
# gradients. This notebook trains one, then asks what the theory is worth for it: on a task whose completions can all be
# listed, the policy of a fitted network is known exactly and can be laid beside the two solutions of Xu, Lu, Yu, Zhao,
# [arXiv 2602.05933](https://arxiv.org/abs/2602.05933). That a network ends there is a hypothesis, not a theorem
# (Statement 18 of [the theorems](../pmdtheory/theorems/README.md)). It can fail, and section 6 says where it does.
#
# Everything runs in about a minute on one CPU core. To move the slider, run `make lab` in the repository.

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
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from ipywidgets import SelectionSlider, interact
from pmdllm import models, tasks
from pmdllm.config import Config, from_preset
from pmdllm.losses import ALGORITHMS
from pmdllm.rollout import sample
from pmdllm.study import panels
from pmdllm.train import train
from pmdllm.validation import fit
from pmdllm.validation.declared import ValidateConfig

from figures import harness, network_against_theory, network_laws, network_limits, network_rollouts
from pmdtheory import laws, plotting

torch.set_num_threads(1)  # the networks are so small that a second thread gains little
folder = tempfile.TemporaryDirectory()


@plotting.style()
def show(plot, *arguments):
    """Draw ``plot(*arguments)`` in the style of the figures, display it and let go of it."""
    figure = plot(*arguments)
    display(figure)
    plt.close(figure)


# %% [markdown]
# ## 1. Train a language model
#
# The shipped base has 73,000 parameters and reads one character at a time. It solves sums and products from left to
# right and has yet to learn that a product comes first. An iteration samples $n=16$ completions of each of 32 prompts,
# subtracts the mean reward of the 16, and makes 8 updates on the loss of PMD-mean, $\tfrac\tau2(A/\tau-s)^2$ with
# $A=r-\bar r$, $s=\log\pi/\pi_{\mathrm{old}}$ and $\tau=0.1$. Here are 24 of them; the preset makes 80.

# %%
config = from_preset(
    Config, "tiny-cpu", output=f"{folder.name}/run", threads=1,
    iterations=24, eval_every=4, eval_prompts=64, test_prompts=200,
)  # fmt: skip
result = train(config, progress=False)
kinds = ("avg@8", "greedy", "maj@8", "pass@8")
pd.DataFrame({when: {kind: result[f"{when}/{kind}"] for kind in kinds} for when in ("before", "test")}).round(3)


# %%
def training():
    """Draw the panels of the paper for this one run."""
    curves = pd.read_json(f"{folder.name}/run/metrics.jsonl", lines=True).assign(algorithm="pmd-mean", seed=0)
    figure, axes = plotting.panels(2, 4, height=1.9)
    panels.draw(axes, curves, "algorithm", {"pmd-mean": plotting.MEAN})
    return figure


show(training)

# %% [markdown]
# Reward and accuracies rise, entropy falls, and the policy moves less and less far from the one that sampled, because
# the learning rate falls to 0. What the model writes before and after:

# %%
task = tasks.load("arithmetic")
problems = task.held_out("test", 4)
written = {"prompt": [problem.prompt for problem in problems]}
for when, name in (("before", "base"), ("after", f"{folder.name}/run/model")):
    model, tokenizer = models.load(name)
    rollouts = sample(model, tokenizer, written["prompt"], 1, task.max_new_tokens, torch.Generator().manual_seed(0))
    written[when] = [tokenizer.decode(tokens[mask]) for tokens, mask in zip(rollouts.tokens, rollouts.mask)]
pd.DataFrame(written).assign(answer=[problem.answer for problem in problems])

# %% [markdown]
# So it learns. Does it do what the theory says? A prompt has far too many completions to list, and $\pi$ is known only
# at those that were drawn. We need a task where nothing is hidden.
#
# ## 2. A task where nothing is hidden
#
# A prompt is a sum of two numbers, the answer is taken modulo 100 and written with two digits. So a completion is one
# of $K=101$ actions: the answers 00 to 99, and everything malformed. Teacher forcing along the trie of all digits gives
# the network's whole policy. The base has learned from demonstrations that err. The reward is graded: 1 if right, less
# the farther off.

# %%
base = fit.base(ValidateConfig(output=folder.name, warmup_steps=300), 0)
numbers = [1234, 3456, 5678, 7890]
anchor = fit.anchor(base, numbers, "graded")
p, r = anchor.policy, anchor.rewards.numpy()


def problem():
    """Draw policy and reward of the base at every prompt."""
    figure, axes = plotting.panels(1, 4, height=1.9, sharex=True)
    for axis, prompt, policy, reward in zip(axes, anchor.prompts, p, r):
        axis.fill_between(range(101), reward, color="#DDDDDD", step="mid", label="reward")
        axis.plot(policy, color="black", label="base $p$", linewidth=1)
        axis.set(title=f"${prompt}$", xlabel="action", ylim=(0, 1.02))
    axes[2].legend(loc="upper right")
    return figure


show(problem)
pd.DataFrame({"prompt": anchor.prompts, "E_p[r]": (p * r).sum(axis=1), "Σp": p.sum(axis=1)}).round(4)

# %% [markdown]
# ## 3. Two losses, two laws
#
# One outer step regresses $s=\log(q/p)$ on a target, weighted by $p$. Which target decides where it ends:
#
# - **PMD-mean**, target $D=(r-\bar r)/\tau$. The best policy solves $s+\lambda e^s=D$ with the Lambert $W$ function,
#   and $\lambda=\mathrm{KL}(p\Vert q)$ (Statements 2 and 4): the *Lambert-W law*.
# - **log-partition**, target $r/\tau-\log Z$. The best policy is $s=r/\tau-\log Z$ (Statement 1): the *KL law*.
#
# In the first step both losses have the same gradient, so nothing can tell them apart before the fit has come far. We
# therefore fit to a full stop, by L-BFGS on the exact loss over all actions, and note $f$ on the way, of which more
# below. Same base, same prompts, same optimiser; only the baseline differs.

# %%
tau = 0.1
losses = {"PMD-mean": ("pmd-mean", plotting.VERMILION), "log-partition": ("pmd-part", plotting.BLUE)}
log_ratios, found, paths = {}, {}, {}
for name, (algorithm, _) in losses.items():
    law = laws.predict(p, r, tau, ALGORITHMS[algorithm].baseline.name)
    policy, path = base.copy(), {}

    def log_ratio(policy=policy):
        """Compute s of the network, an array (4, 101)."""
        return (fit.anchor(policy, numbers, "graded").logp - anchor.logp).numpy()

    def watch(gradients, path=path, law=law, log_ratio=log_ratio):
        """Note how far the fit has come."""
        path[gradients] = laws.compare(p, r, tau, log_ratio(), law)

    loss = fit.population(policy, anchor, ALGORITHMS[algorithm], tau, law)
    fit.lbfgs(policy, loss, 300, watch, every=10)
    log_ratios[name], found[name], paths[name] = log_ratio(), path[max(path)], path


# %% [markdown]
# ## 4. The network against both laws
#
# One prompt at a time. (a) What the network did to each action, over its reward; lines are the laws, and dots grow with
# $p$. (b) The same against what the law of its loss predicts: on the line is right. (c) No solver and no fit: $D-s$ in
# units of $\mathrm{KL}(p\Vert q)$ against $\rho=q/p$. On the Lambert-W law $D-s=\lambda\rho$ is the diagonal; on the KL
# law $D-s$ is constant.


# %%
@plotting.style()
def look(prompt=3456):
    """Draw both networks at one prompt."""
    i = numbers.index(prompt)
    figure, axes = plotting.panels(1, 3, height=2.5)
    some = p[i] > 1e-3
    size, reward, order = 4 + 80 * p[i][some], r[i][some], np.argsort(r[i])
    D = (reward - p[i] @ r[i]) / tau
    for name, (algorithm, colour) in losses.items():
        s, law = log_ratios[name][i], laws.predict(p, r, tau, ALGORITHMS[algorithm].baseline.name)
        reverse_kl = found[name]["reverse_kl"][i]
        excess = (D - s[some]) / reverse_kl
        axes[0].plot(r[i][order], law.log_ratio[i][order], color=colour, linewidth=0.8)
        axes[0].scatter(reward, s[some], size, color=colour, alpha=0.7, label=f"{name} loss")
        axes[1].scatter(law.log_ratio[i][some], s[some], size, color=colour, alpha=0.7)
        axes[2].scatter(np.exp(s[some]), excess, size, color=colour, alpha=0.7)
    axes[1].axline((0, 0), slope=1, color="black", linewidth=0.8, zorder=0)
    axes[2].axline((0, 0), slope=1, color=plotting.VERMILION, linewidth=0.8, zorder=0)
    axes[2].axhline(1, color=plotting.BLUE, linewidth=0.8, zorder=0)
    axes[0].set(xlabel="reward", ylabel=r"$s=\log(q/p)$")
    axes[1].set(xlabel="$s$ of the law", ylabel="$s$ of the network")
    axes[2].set(xlabel=r"$\rho=q/p$", ylabel=r"$(D-s)\,/\,\mathrm{KL}(p\|q)$")
    figure.suptitle(f"${anchor.prompts[i]}$, actions with $p>0.001$", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    display(figure)
    plt.close(figure)


look()

# %% [markdown]
# Run the next cell for the slider.

# %%
_ = interact(look, prompt=SelectionSlider(options=numbers, value=3456, continuous_update=False))

# %% [markdown]
# ## 5. The same in numbers
#
# $f$ is the slope in panel (c): the covariance of $D-s$ and $\rho$ under $p$, divided by
# $\mathrm{Var}_p(\rho)\,\mathrm{KL}(p\Vert q)$. It is 1 on the Lambert-W law and 0 on the KL law. $R^2$ is that of $s$
# on each law, weighted by $p$, with no slope or intercept to fit. Then $\mathrm{KL}(p\Vert q)$ of the network beside
# the $\lambda$ that the solver found before anything was trained, and the gain in expected reward beside the one that
# the improvement identity makes of the network's divergences (Statement 5).

# %%
columns = {
    "share": "f", "r2_lambert": "R² Lambert-W", "r2_kl_law": "R² KL", "reverse_kl": "KL(p‖q)", "weight": "λ",
    "gain": "gain", "identity": "identity",
}  # fmt: skip
identity = {"PMD-mean": "gain_lambert", "log-partition": "gain_kl_law"}
rows = {
    name: pd.DataFrame(values | {"identity": values[identity[name]]}, index=anchor.prompts)
    for name, values in found.items()
}
pd.concat(rows)[list(columns)].rename(columns=columns).round(3)

# %% [markdown]
# Each network is on the law of its own loss and far from the other. Note $\lambda$: nobody programmed a $\chi^2$
# penalty, yet the network of PMD-mean pays one, with the weight that theory gives. And note the gain: from the same
# rewards the KL law makes more, and it moves farther. That is what *conservative* means.
#
# How long does it take? $f$ tells the losses apart after a few gradients. Getting close to a law takes many more, and
# for the first of them the network of the log-partition is nearer to the other law.


# %%
def on_the_way():
    """Draw f and the divergence from both laws over the gradients of the fit, medians over the prompts."""
    figure, axes = plotting.panels(1, 2, width=6.4, height=2.5)
    for name, (_, colour) in losses.items():
        path = paths[name]
        medians = pd.DataFrame({k: {c: np.median(v[c]) for c in v} for k, v in path.items()}).T
        axes[0].plot(medians.index, medians.share, color=colour, label=f"{name} loss")
        own, other = ("lambert", "kl_law") if name == "PMD-mean" else ("kl_law", "lambert")
        axes[1].plot(medians.index, medians[f"from_{own}"], color=colour)
        axes[1].plot(medians.index, medians[f"from_{other}"], color=colour, linestyle=":")
    axes[0].set(xlabel="gradients", ylabel="$f$")
    axes[1].set(yscale="log", xlabel="gradients", ylabel="KL from a law (dotted: the other)")
    axes[0].legend()
    return figure


show(on_the_way)

# %% [markdown]
# ## 6. The full evidence, and where it ends
#
# Four prompts, one seed and one temperature are an illustration. `pmd-llm validate --preset full` repeats this for
# binary and graded rewards, four temperatures and five seeds, then with $n$ fresh rollouts per gradient step, with
# completions that the network generates, with one fixed batch, and over many outer steps. Its tables are in
# [`figures/data`](../figures/data), and this is what they say:

# %%
for figure in (network_laws, network_against_theory, network_rollouts, network_limits):
    print(f"{figure.finding(*harness.committed(figure))}\n")

# %% [markdown]
# ![A network against the theory](../figures/output/network_against_theory.png)
#
# ![A network from few rollouts at a time](../figures/output/network_rollouts.png)
#
# ![What takes a network off its law](../figures/output/network_limits.png)
#
# Read it with care. The laws are those of a loss that is weighted by $p$ and fitted to a full stop: actions that the
# base hardly ever takes weigh nothing in it, and the network may do anything to them. With few rollouts the noise of
# the gradients keeps the fit from getting there. And whether prompts that were not trained on obey a law is a matter of
# how the network generalises.
#
# ## Where to go next
#
# - `pmd-llm validate` makes a small version of these tables in about a minute.
# - [Statements 17 and 18](../pmdtheory/theorems/README.md): language models, and the hypothesis that was tested here.
# - `pmd-llm train --algorithm grpo --output runs/grpo` trains the model of section 1 by another method.
