r"""Prompts that an update does not see: one outer step of many networks at once, each on prompts of its own.

A network with too few training prompts obeys the law of its loss on those and nothing in particular elsewhere; one that
has learned from many what the reward looks for obeys it everywhere. The base has imitated demonstrations of all
prompts, the unseen ones too: what they lack is the update. The loss is that of `pmdllm.validation.fit.population`, on a
batch of the training prompts at a time; every prompt comes once before one comes again.

Fits that differ in their seeds and losses have networks of one shape, so their parameters, with a leading axis, are one
network, and `pmdllm.muon`, which looks at every matrix by itself, moves it as it would move each. A GPU waits for
instructions where networks are small: ten fits take little longer than one. The prompts are packed with their tries,
the anchor's policy, targets and weights computed before the first step, and all of it lies on the device. What the
network says is compared with the laws now and then.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import fit

__all__ = ["Stack", "batches", "run"]

UNSEEN = 64
"""Prompts that are judged, of those trained on and of the others."""
PARTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
"""Of the steps, after which that is done."""
ENDS = {"low": 0.05, "high": 0.95}
WATCHED = ("share", "r2_law", "r2_lambert", "r2_kl_law", "from_law", "from_lambert", "from_kl_law")
PASS = 512  # prompts, networks times rows, that are enumerated at once where nothing is learned


class Stack:
    """M copies of policies of one shape, each to be trained by itself, as one; prompts are rows of a packed list."""

    def __init__(self, policies: list, prompts: list[str]):
        self.model, self.trie, self.size = policies[0].copy().model, policies[0].trie, len(policies)
        self.packed = policies[0].packed(prompts)
        stacked, _ = stack_module_state([policy.model for policy in policies])
        self.parameters = {name: value.detach().requires_grad_() for name, value in stacked.items()}

    @property
    def trained(self) -> list[torch.Tensor]:
        """The parameters, each (M, ...)."""
        return list(self.parameters.values())

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return log π of every action at rows (M, B) of the prompts: float64 (M, B, K) on the device."""
        if self.size == 1:
            logits = self._logits({name: value[0] for name, value in self.parameters.items()}, rows[0])[None]
        else:
            with sdpa_kernel(SDPBackend.MATH):  # made of operations that take another axis
                logits = vmap(self._logits)(self.parameters, rows)
        return self.trie.log_policy(logits.flatten(0, 1)).unflatten(0, rows.shape)

    def log_policy(self, rows: torch.Tensor) -> torch.Tensor:
        """The same without a gradient, as many rows as one likes."""
        with torch.no_grad():
            return torch.cat([self(some) for some in rows.split(max(1, PASS // self.size), dim=1)], 1)

    def _logits(self, parameters, rows):
        inputs = {name: value if len(value) == 1 else value[rows] for name, value in self.packed.items()}
        options = {"use_cache": False, "logits_to_keep": self.trie.size}
        return functional_call(self.model, parameters, (), inputs | options).logits


def batches(count: int, batch: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Rows (steps, batch) below `count`, of one order of all after another; a step has no row twice.

    Examples
    --------
    >>> batches(4, 2, 2, np.random.default_rng(0)).ravel().tolist()
    [2, 0, 1, 3]
    >>> batches(2, 64, 3, np.random.default_rng(0)).shape
    (3, 2)
    """
    batch = min(batch, count)
    whole = count // batch
    orders = [rng.permutation(count)[: whole * batch] for _ in range(-(-steps // whole))]
    return np.concatenate(orders).reshape(-1, batch)[:steps]


def run(cells: list, config: Any, bases: list) -> list:
    """Fit the networks of cells of one size and temperature; of each, the tables ``prompts`` and ``steps``."""
    first = cells[0]
    task, size, rngs = bases[0].task, first.size, [np.random.default_rng((cell.seed, 1)) for cell in cells]
    orders = [rng.permutation(task.size) for rng in rngs]
    stack = Stack(bases, task.prompts(range(task.size)))
    device = stack.trained[0].device
    splits = {"train": [order[:size] for order in orders], "held-out": [order[-UNSEEN:] for order in orders]}
    rows = {split: torch.tensor(np.array(numbers), device=device) for split, numbers in splits.items()}
    logp = {split: stack.log_policy(some).log_softmax(-1) for split, some in rows.items()}
    judged, advantage = {}, []
    for split in splits:
        for index, cell in enumerate(cells):
            numbers = splits[split][index]
            rewards = torch.from_numpy(task.rewards(numbers, cell.reward))
            anchor = fit.Anchor(task.prompts(numbers), logp[split][index].cpu(), rewards)
            if split == "train":
                law = cell.law(None, anchor)
                advantage.append(anchor.rewards - torch.from_numpy(law.baseline)[:, None])
                anchor = anchor.rows(range(min(UNSEEN, size)))
            judged[split, index] = numbers[:UNSEEN], anchor, cell.law(None, anchor)
    trained, anchored = rows["train"], logp["train"]
    targets, weight = torch.stack(advantage).to(device), anchored.exp() * anchored.shape[-1]
    drawn = [batches(size, config.held_out_batch, config.held_out_steps, rng) for rng in rngs]
    drawn = iter(torch.tensor(np.stack(drawn, 1), device=device))

    def loss():
        some, network = next(drawn), torch.arange(len(cells), device=device)[:, None]
        arguments = stack(trained[network, some]), anchored[network, some], targets[network, some].flatten()
        mean = fit.loss_of_actions(first.loss, *arguments, first.tau, weight[network, some].flatten())
        return len(cells) * mean

    def compared():
        for split in splits:
            now = stack.log_policy(rows[split][:, :UNSEEN]).log_softmax(-1).cpu()
            for index, cell in enumerate(cells):
                numbers, anchor, law = judged[split, index]
                yield index, split, numbers, cell.compared(anchor, now[index], law)

    marks = {fit.WATCHED_EVERY * round(part * config.held_out_steps / fit.WATCHED_EVERY) for part in PARTS}
    marks.add(config.held_out_steps)
    steps, prompts = [[] for _ in cells], [[] for _ in cells]

    def watch(evaluations):
        if evaluations not in marks:
            return
        for index, split, _, statistics in compared():
            place = asdict(cells[index]) | {"split": split, "evaluations": evaluations}
            quantiles = {f"share_{name}": np.quantile(statistics["share"], q) for name, q in ENDS.items()}
            steps[index].append(place | {name: np.median(statistics[name]) for name in WATCHED} | quantiles)

    fit.muon(stack, loss, config.held_out_steps, config.learning_rate, watch)
    for index, split, numbers, statistics in compared():
        place = asdict(cells[index]) | {"split": split, "iteration": 1, "number": numbers}
        prompts[index].append(pd.DataFrame(place | statistics))
    return [{"prompts": pd.concat(some), "steps": pd.DataFrame(line)} for some, line in zip(prompts, steps)]
