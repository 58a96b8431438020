"""The fits in which a network is laid beside the theory: one cell in, tidy tables out.

What the cells are about is told in `pmdllm.validate`. A fit starts from a base, which is also the anchor p; prompts are
the first of a random order, held-out prompts the last. L-BFGS minimises what does not change between evaluations,
Adam what is drawn anew. R² of a fixed batch is taken over the actions it holds: Statement 14 leaves the others free, or
without mass.
"""

import copy
import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from pmdtheory import pmd_mean_update
from pmdtheory.sampled import sampled_update
from pmdtheory.theorems import binary_reward

from ..losses import ALGORITHMS
from . import fit, laws, sums

__all__ = ["HELD_OUT", "Cell", "run"]

HELD_OUT = 64
SPREAD_TAU = 0.125
WATCHED = ("share", "r2_law", "r2_lambert", "r2_kl_law", "from_law", "from_lambert", "from_kl_law")


@dataclass(frozen=True)
class Cell:
    """One fit: an experiment, its setting, and a seed.

    Parameters
    ----------
    experiment : str
        One of the module's list.
    reward : {'binary', 'graded'}
        Reward of the actions.
    tau : float
        Temperature τ in reward units.
    algorithm : str
        A key of `pmdllm.losses.ALGORITHMS`: pmd-mean, pmd-mean-loo, pmd-part, pmd-part-loo.
    n : float
        Rollouts per prompt and gradient step; infinity for the population loss.
    size : int
        Prompts that are trained on.
    seed : int
        Seed of the base, the prompts and the rollouts.
    """

    experiment: str
    reward: str
    tau: float
    algorithm: str
    n: float
    size: int
    seed: int

    def __str__(self):
        return "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in asdict(self).values())

    @property
    def estimator(self):
        """Baseline of the loss."""
        return ALGORITHMS[self.algorithm].baseline.name

    @property
    def effective_tau(self):
        """Temperature of the expected loss: a plain mean over n fresh rollouts has targets smaller by 1 − 1/n."""
        drawn = self.estimator == "mean" and math.isfinite(self.n) and self.experiment != "batch"
        return self.tau * self.n / (self.n - 1) if drawn else self.tau

    def law(self, anchor, actions=None):
        """Return the update that this cell's loss leads to from an anchor."""
        p, r = anchor.policy, anchor.rewards.numpy()
        if self.experiment == "batch":
            drawn = np.take_along_axis(r, actions, axis=1)
            return sampled_update(p, actions, drawn, self.tau, baseline=self.estimator)
        return laws.predict(p, r, self.tau, self.estimator, self.n)


def run(cell, config, model, tokenizer):
    """Fit the network of one cell.

    Parameters
    ----------
    cell : Cell
        What to fit.
    config : pmdllm.validation.validate.ValidateConfig
        Its budgets.
    model, tokenizer
        The base; it is left as it is.

    Returns
    -------
    dict of str to DataFrame
        ``prompts``, and for single outer steps ``steps`` and ``actions``.
    """
    rng = np.random.default_rng((cell.seed, 1))
    generator = torch.Generator().manual_seed(cell.seed)
    numbers = rng.permutation(sums.PROMPTS)
    if cell.experiment == "recursion":
        return {"prompts": _recursion(cell, config, model, tokenizer, numbers[: cell.size], rng, generator)}

    trained, unseen = numbers[: cell.size], numbers[-HELD_OUT:]
    anchor = fit.anchor(model, tokenizer, trained, cell.reward)
    actions = torch.multinomial(anchor.logp.exp(), config.n, replacement=True, generator=generator)
    judged = {"train": (trained[:HELD_OUT], anchor.rows(range(min(HELD_OUT, cell.size))), actions[:HELD_OUT].numpy())}
    if cell.experiment == "held-out":
        judged["held-out"] = unseen, fit.anchor(model, tokenizer, unseen, cell.reward), None
    steps = []

    def watch(evaluations):
        for split, (_, part, drawn) in judged.items():
            found = _compare(cell, fitted, tokenizer, part, drawn)[0]
            medians = {name: np.median(found[name]) for name in WATCHED}
            steps.append(asdict(cell) | {"split": split, "evaluations": evaluations} | medians)

    fitted = copy.deepcopy(model)
    _fit(cell, config, fitted, model, tokenizer, anchor, actions, rng, generator, watch)
    rows = []
    for split, (shown, part, drawn) in judged.items():
        found, log_ratio, law = _compare(cell, fitted, tokenizer, part, drawn)
        rows.append(_rows(cell, found, split=split, iteration=1, number=shown))
        if cell.experiment == "population":
            table = _actions(cell, shown, part, log_ratio, law)
    tables = {"prompts": pd.concat(rows), "steps": pd.DataFrame(steps)}
    return tables | {"actions": table} if cell.experiment == "population" else tables


def _recursion(cell, config, model, tokenizer, numbers, rng, generator):
    """Outer steps in a row: each starts from the network that the one before led to."""
    rows, exact = [], None
    for iteration in range(1, config.outer_steps + 1):
        anchor = fit.anchor(model, tokenizer, numbers, cell.reward)
        fitted = copy.deepcopy(model)
        _fit(cell, config, fitted, model, tokenizer, anchor, None, rng, generator, None)
        found, log_ratio, _ = _compare(cell, fitted, tokenizer, anchor)
        p, r = anchor.policy, anchor.rewards.numpy()
        exact = pmd_mean_update(p if exact is None else exact, r, cell.effective_tau).policy
        fails = r == 0
        found |= {
            "expected_reward_recursion": (exact * r).sum(axis=1),
            "failure_log_ratio": np.log((p * np.exp(log_ratio) * fails).sum(axis=1) / (p * fails).sum(axis=1)),
            "failure_low": binary_reward.failure_ratio_from_below(p, r, cell.effective_tau).value[:, 1],
            "failure_high": binary_reward.failure_ratio_from_above(p, r, cell.effective_tau).bound,
        }
        rows.append(_rows(cell, found, split="train", iteration=iteration, number=numbers))
        model = fitted
    return pd.concat(rows)


def _fit(cell, config, fitted, base, tokenizer, anchor, actions, rng, generator, watch):
    """Minimise the loss of a cell in the weights of `fitted`."""
    problem = fitted, tokenizer, anchor, ALGORITHMS[cell.algorithm], cell.tau
    chained = cell.experiment == "recursion"
    if cell.experiment == "held-out":
        loss = fit.population(*problem, cell.law(anchor), min(config.held_out_batch, cell.size), rng)
        fit.adam(fitted, loss, config.held_out_steps, config.learning_rate, watch)
    elif math.isinf(cell.n):
        loss = fit.population(*problem, cell.law(anchor))
        fit.lbfgs(fitted, loss, config.recursion_evaluations if chained else _evaluations(cell, config), watch)
    elif cell.experiment == "batch":
        fit.lbfgs(fitted, fit.fixed_batch(*problem, actions), _evaluations(cell, config), watch)
    else:
        if cell.experiment == "completions":
            loss = fit.fresh_completions(fitted, base, *problem[1:], cell.n, generator)
        else:
            loss = fit.fresh_rollouts(*problem, cell.n, generator)
        fit.adam(
            fitted, loss, config.recursion_steps if chained else config.steps, config.learning_rate, watch
        )


def _evaluations(cell, config):
    """Budget of L-BFGS: targets lie up to 1/τ apart, and rare actions, which weigh little, are far off for long."""
    return round(config.evaluations * max(1, SPREAD_TAU / cell.tau))


def _compare(cell, fitted, tokenizer, anchor, actions=None):
    """What `laws.compare` and the rewards say of a fitted network, its log-ratio (P, 101), and the law."""
    with torch.no_grad():
        logp = sums.log_policy(fitted, tokenizer, anchor.prompts).log_softmax(-1)
    log_ratio, p, r = (logp - anchor.logp).numpy(), anchor.policy, anchor.rewards.numpy()
    law, seen = cell.law(anchor, actions), None
    if cell.experiment == "batch":
        seen = (actions[:, :, None] == np.arange(sums.ACTIONS)).any(axis=1)
    found = laws.compare(p, r, cell.effective_tau, log_ratio, law, seen)
    found |= {"expected_reward": (p * r).sum(axis=1), "expected_reward_law": (law.policy * r).sum(axis=1)}
    return found, log_ratio, law


def _rows(cell, found, **columns):
    return pd.DataFrame(asdict(cell) | columns | found)


def _actions(cell, numbers, anchor, log_ratio, law):
    """A row per action of the prompts with least, median and most reward."""
    p, r = anchor.policy, anchor.rewards.numpy()
    order = np.argsort((p * r).sum(axis=1))
    lambert = pmd_mean_update(p, r, cell.tau).log_ratio
    kl_law = laws.predict(p, r, cell.tau, "log_partition").log_ratio
    tables = [
        pd.DataFrame(
            asdict(cell)
            | {"number": numbers[i], "action": np.arange(sums.ACTIONS), "policy": p[i], "reward_of_action": r[i]}
            | {"log_ratio": log_ratio[i], "lambert": lambert[i], "kl_law": kl_law[i]}
        )
        for i in dict.fromkeys(order[[0, len(order) // 2, -1]])
    ]
    return pd.concat(tables)
