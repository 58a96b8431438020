"""A rollout batch: completions with their rewards' advantages, and the minibatches that updates are made of.

A batch holds P prompts and n completions of each, drawn from one policy π_old, with the credit of `pmdllm.credit`. A
minibatch is some whole groups in random order.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import metrics
from .credit import credit
from .logp import passes, token_logp
from .losses import free_advantages
from .rollout import Rollouts
from .tasks import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .config import Config
    from .losses import Algorithm, Settings

__all__ = ["Batch", "Minibatch"]


@dataclass
class Minibatch:
    """Completions of one update.

    Attributes
    ----------
    number : int
        Position among the minibatches of its batch, those that the filter left empty included.
    rollouts : Rollouts
        B valid completions of G groups.
    advantage : tensor (B,)
        A in reward units, or in standard deviations.
    weight : tensor (B,) or None
        Factors of the completions' losses.
    valid : bool tensor (G, n)
        Which of the groups' completions the B are.
    tau, drawn_after
        As in `Batch`.
    """

    number: int
    rollouts: Rollouts
    advantage: torch.Tensor
    weight: torch.Tensor | None
    valid: torch.Tensor
    tau: float
    drawn_after: int

    def backward(
        self,
        model: "PreTrainedModel",
        algorithm: "Algorithm",
        settings: "Settings",
        arithmetic: Callable[[], AbstractContextManager[Any]],
        most_rows: int = 0,
        memory: float = math.inf,
    ) -> torch.Tensor:
        """Accumulate the gradient of the algorithm's loss in the model's weights; return the metrics.

        The forward passes are those of `pmdllm.logp.passes`, in the context that ``arithmetic()`` returns.
        """
        logps, entropies = (torch.zeros_like(self.rollouts.logp) for _ in range(2))
        values = defaultdict(float)
        with arithmetic():
            cut = [rows.to(logps.device) for rows in passes(model, self.rollouts, most_rows, memory)]
        advantage = self.advantage
        if algorithm.is_free:
            advantage = self._free_advantages(model, cut, arithmetic, settings)
        for rows in cut:
            piece = self.rollouts.rows(rows).trimmed()
            with arithmetic():
                logp, entropy = token_logp(model, piece)
            own = replace(settings, weight=None if self.weight is None else self.weight[rows])
            loss, details = algorithm.loss(logp, piece.logp, piece.mask, advantage[rows], own)
            share = len(piece) / len(self.rollouts)
            (loss * share).backward()
            logps[rows, : logp.shape[1]], entropies[rows, : logp.shape[1]] = logp.detach(), entropy
            for name, value in (details | {"loss": loss.detach()}).items():
                values[name] += share * float(value)
        s = (logps - self.rollouts.logp).sum(1)
        weights = metrics.implied_lambda(self._by_group(s), self.valid)
        values |= metrics.log_ratio_statistics(s, settings.clip_low, settings.clip_high) | metrics.kl_estimates(s)
        values |= metrics.entropy_statistics(entropies, self.rollouts.mask)
        return values | {"lambda/mean": weights.mean(), "lambda/max": weights.max()}

    @torch.no_grad()
    def _free_advantages(self, model, cut, arithmetic, settings):
        """Advantages over baselines that follow the policy, (B,): one more reading of the completions."""
        s = torch.zeros_like(self.advantage)
        for rows in cut:
            piece = self.rollouts.rows(rows).trimmed()
            with arithmetic():
                s[rows] = (token_logp(model, piece)[0] - piece.logp).sum(1).to(s.dtype)
        groups = self._by_group(self.advantage), self._by_group(s)
        return free_advantages(*groups, settings.tau, self.valid, settings.chi2_coef)[self.valid]

    def _by_group(self, values):
        return torch.zeros_like(self.valid, dtype=values.dtype).masked_scatter(self.valid, values)


@dataclass
class Batch:
    """P prompts with n completions each.

    Attributes
    ----------
    problems : list of pmdllm.tasks.Problem
        The P problems.
    rollouts : Rollouts
        Their P n completions, group after group.
    advantage : tensor (P n,)
        A = r − b̂; 0 where not valid.
    weight : tensor (P n,) or None
        Importance weights.
    valid : bool tensor (P, n)
        Completions that count: all, or those that ended; at least ``smallest_group`` of a group, or none.
    groups : list of int
        Groups that the filter keeps.
    tau : float
        Temperature τ > 0 of advantages and losses, in reward units.
    drawn_after : int
        Updates that the policy had behind it when it was sampled.
    epochs, updates : int
        Passes over the batch, and minibatches of a pass.
    summary : dict of str to float
        What the iteration's line says of it.
    seconds : float
        Spent on sampling and judging.
    """

    problems: list
    rollouts: Rollouts
    advantage: torch.Tensor
    weight: torch.Tensor | None
    valid: torch.Tensor
    groups: list
    tau: float
    drawn_after: int
    epochs: int
    updates: int
    summary: dict
    seconds: float = 0.0

    @classmethod
    def judged(
        cls,
        config: "Config",
        algorithm: "Algorithm",
        problems: list[Problem],
        rollouts: Rollouts,
        rewards: Any,
        parsed: np.ndarray,
        tau: float,
        drawn_after: int,
    ) -> "Batch":
        """Make a batch of completions with rewards (P n,) and whether an answer could be read in them (P n,)."""
        shape = len(problems), config.rollouts_per_prompt
        rewards = torch.as_tensor(rewards, dtype=torch.float32, device=rollouts.tokens.device).reshape(shape)
        ended = rollouts.ended.reshape(shape)
        valid = ended if config.truncated == "drop" else torch.ones_like(ended)
        given = credit(
            algorithm, rewards, valid, tau, config.target_kl, config.importance_weights, config.filter_low,
            config.filter_high, config.baseline_tau,
        )  # fmt: skip
        valid, kept = given.valid, given.kept
        return cls(
            problems=problems,
            rollouts=rollouts,
            advantage=given.advantage.flatten(),
            weight=None if given.weight is None else given.weight.flatten(),
            valid=valid,
            groups=torch.nonzero(kept)[:, 0].tolist(),
            tau=tau,
            drawn_after=drawn_after,
            epochs=config.epochs,
            updates=config.updates_per_batch,
            summary={
                "reward": float(rewards.mean()),
                "length": float(metrics.length_statistics(rollouts.mask)["length"]),
                "truncated": float(1 - ended.float().mean()),
                "unparsed": float(1 - np.mean(parsed)),
                "groups_kept": float(kept.float().mean()),
                "groups_mixed": float(((rewards.amax(1) > rewards.amin(1)) & valid.any(1)).float().mean()),
            },
        )

    def minibatches(self, rng: np.random.Generator) -> Iterator[Any]:
        """Yield the minibatches, pass after pass; `rng` puts the groups of a pass in order."""
        for epoch in range(self.epochs):
            for cut, groups in enumerate(np.array_split(rng.permutation(self.groups), self.updates)):
                if len(groups):
                    yield self._minibatch(epoch * self.updates + cut, torch.from_numpy(groups.astype(np.int64)))

    def _minibatch(self, number, groups):
        groups = groups.to(self.advantage.device)
        n = self.valid.shape[1]
        valid = self.valid[groups]
        rows = (groups[:, None] * n + torch.arange(n, device=groups.device))[valid]
        weight = None if self.weight is None else self.weight[rows]
        return Minibatch(
            number, self.rollouts.rows(rows).trimmed(), self.advantage[rows], weight, valid, self.tau, self.drawn_after
        )

    def state(self) -> dict[str, Any]:
        """Return the batch as tensors and plain containers."""
        problems = [(problem.prompt, problem.answer) for problem in self.problems]
        return vars(self) | {"problems": problems, "rollouts": vars(self.rollouts)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Batch":
        """Make the batch that `state` was called on."""
        problems = [Problem(*pair) for pair in state["problems"]]
        return cls(**state | {"problems": problems, "rollouts": Rollouts(**state["rollouts"])})
