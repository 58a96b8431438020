"""`PMDTrainer` against the lean loop, fed the same rollouts: losses, gradients, weights; and what it refuses.

Rollouts are the lean loop's own, handed to TRL by its ``rollout_func``; TRL's shuffle within a generation is left out, so
that both make the same minibatches.
"""

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from pmdllm import integrations, models, tasks
from pmdllm.batch import Batch
from pmdllm.config import Config
from pmdllm.integrations.trl import PMDConfig, PMDTrainer
from pmdllm.logp import token_logp
from pmdllm.losses import Settings, algorithm
from pmdllm.rollout import sample
from pmdllm.run_folder import RunFolder
from pmdllm.train import Run

FOLDER = Path(__file__).parent
P, N, LENGTH = 4, 4, 12
IN_ORDER = SimpleNamespace(permutation=np.asarray)


@pytest.fixture(scope="module", autouse=True)
def no_shuffle():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trl.trainer.grpo_trainer.shuffle_sequence_dict", lambda batch: batch)
        yield


class Feed:
    """TRL's ``rollout_func`` and reward function: what the lean loop sampled, and how it was judged."""

    __name__ = "fed"

    def __call__(self, prompts, trainer):
        rows = range(len(self.rollouts))
        ids, mask = self.rollouts.prompt_ids, self.rollouts.prompt_mask
        tokens, own = self.rollouts.tokens, self.rollouts.mask
        return {
            "prompt_ids": [ids[i][mask[i]].tolist() for i in rows],
            "completion_ids": [tokens[i][own[i]].tolist() for i in rows],
            "logprobs": None,
        }

    def reward(self, completions, **_):
        return self.rewards.flatten().tolist()


def base(seed=0):
    """The shipped model, moved a little, and its tokenizer."""
    model, tokenizer = models.load("base", torch.device("cpu"))
    move(model, 0.01, seed)
    return model, tokenizer


def move(model, size, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += size * torch.randn(weight.shape, generator=generator)


def make_trainer(model, tokenizer, feed, folder, optimizer=None, **changes):
    options = {
        "algorithm": "pmd-mean", "num_generations": N, "per_device_train_batch_size": N,
        "gradient_accumulation_steps": 2, "steps_per_generation": P, "max_completion_length": LENGTH,
        "mask_truncated_completions": True, "logging_steps": 1, "save_strategy": "no", "max_grad_norm": 1.0,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "gradient_checkpointing": False, "bf16": False,
        "use_cpu": True, "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    return PMDTrainer(
        model, feed.reward, PMDConfig(str(folder), **(options | changes)), processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": ["1+1="] * P}), rollout_func=feed, optimizers=(optimizer, None),
    )  # fmt: skip


def lean_config(**changes):
    options = {"prompts_per_batch": P, "rollouts_per_prompt": N, "updates_per_batch": 2, "truncated": "drop"}
    return Config(**(options | changes))


def ragged(model, tokenizer, prompts, n, max_new_tokens, generator, **prompting):
    """Rollouts of the lean loop, cut at lengths from 3 on; they end there but for one in each of the first two groups."""
    rollouts = sample(model, tokenizer, prompts, n, max_new_tokens, generator, **prompting)
    B, T = rollouts.tokens.shape
    lengths, place = torch.randint(3, T + 1, (B, 1), generator=generator), torch.arange(T)
    rollouts.ended = ~torch.isin(torch.arange(B), torch.tensor([1, n]))
    rollouts.mask = place < lengths
    rollouts.tokens[rollouts.tokens == tokenizer.eos_token_id] = 5
    rollouts.tokens[(place == lengths - 1) & rollouts.ended[:, None]] = tokenizer.eos_token_id
    rollouts.tokens[~rollouts.mask] = tokenizer.pad_token_id
    with torch.no_grad():
        rollouts.logp = torch.where(rollouts.mask, token_logp(model, rollouts)[0], 0)
    return rollouts


def draw(feed, model, tokenizer, config, seed):
    """Make rollouts and judge them as the lean loop does, and leave them for TRL; return the lean loop's batch."""
    problems = tasks.load("arithmetic").sample(P, np.random.default_rng(seed))
    prompts, generator = [problem.prompt for problem in problems], torch.Generator().manual_seed(seed)
    feed.rollouts = ragged(model, tokenizer, prompts, N, LENGTH, generator)
    feed.rewards = torch.rand(P, N, generator=generator)
    feed.rewards[-1] *= 0.1
    return Batch.judged(
        config, config.method, problems, feed.rollouts, feed.rewards, np.ones(P * N), config.tau, drawn_after=0
    )


def settings_of(config):
    normalization = None if config.length_normalization == "auto" else config.length_normalization
    return Settings(config.tau, length_normalization=normalization, max_length=LENGTH)


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def gradient(model):
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


CASES = {
    "mean": {"algorithm": "pmd-mean"},
    "partition, by length": {"algorithm": "pmd-part-loo", "length_normalization": "seq-mean-token-mean"},
    "weighted, constant": {
        "algorithm": "pmd:loo_mean", "importance_weights": True, "length_normalization": "seq-mean-token-sum-norm"
    },
    "token form": {"algorithm": "kimi-token", "tau": 0.3},
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def updates(request, tmp_path_factory):
    """Two updates of one generation, the second after the policy has moved: the lean loop's, and TRL's micro-batches.

    Two completions are truncated and so empty, and the filter leaves out the last group.
    """
    model, tokenizer = base()
    feed, changes = Feed(), CASES[request.param] | {"filter_low": 0.1}
    config = lean_config(**changes)
    batch = draw(feed, model, tokenizer, config, seed=1)
    assert batch.groups == [0, 1, 2] and batch.valid.sum() == P * N - 2
    trainer = make_trainer(deepcopy(model), tokenizer, feed, tmp_path_factory.mktemp("trl"), **changes)
    trainer.model.train()
    trainer._prepare_inputs([{"prompt": "1+1="}] * P * N)
    lean, pieces, start = [], trainer._buffered_inputs, deepcopy(model.state_dict())
    for minibatch in batch.minibatches(IN_ORDER):
        model.zero_grad()
        values = minibatch.backward(model, config.method, settings_of(config), nullcontext, most_rows=3)
        lean.append((values["loss"], gradient(model)))
        move(model, 0.02, seed=2)
    return SimpleNamespace(trainer=trainer, start=start, windows=[pieces[:2], pieces[2:]], lean=lean)


def departure(updates, defect=lambda piece: piece, share=1.0):
    """Largest distance of TRL's losses and gradients from the lean loop's, relative to them."""
    trainer, found = updates.trainer, []
    trainer.model.load_state_dict(updates.start)
    for window, (loss, expected) in zip(updates.windows, updates.lean):
        trainer.model.zero_grad()
        total = 0.0
        for piece in window:
            part = trainer._compute_loss(trainer.model, defect(piece)) * share
            part.backward()
            total += part.item()
        for ours, theirs in ((torch.tensor(total), torch.tensor(loss)), (gradient(trainer.model), expected)):
            found.append((ours - theirs).abs().max().item() / max(1.0, theirs.abs().max().item()))
        move(trainer.model, 0.02, seed=2)
    return max(found)


def test_loss_and_gradient_are_the_lean_loops(updates):
    assert departure(updates) < 1e-6


def of_the_micro_batch(piece):
    return piece | {"count": piece["counted"].sum()}


def pre_multiplied(piece):
    return piece | {"advantages": piece["advantages"] / piece["completion_mask"].sum(1).clamp(min=1)}


def without_old_logp(piece):
    return {name: value for name, value in piece.items() if name != "old_per_token_logps"}


def scaled_rewards(piece):
    return piece | {"advantages": piece["advantages"] / (piece["advantages"].std() + 1e-4)}


@pytest.mark.parametrize("defect", [of_the_micro_batch, pre_multiplied, without_old_logp, scaled_rewards])
def test_every_trap_departs(updates, defect):
    share = 0.5 if defect is of_the_micro_batch else 1.0
    assert departure(updates, defect, share) > 1e-2


class LeanLoop(Feed):
    """The lean loop, one iteration a generation of TRL, which then gets the same rollouts and rewards."""

    def __init__(self, folder, **changes):
        options = {"learning_rate": 1e-3, "eval_every": 0, "eval_prompts": 2, "eval_samples": 1, "test_prompts": 2}
        self.config = lean_config(output=str(folder), max_new_tokens=LENGTH, **(options | changes))
        self.folder = RunFolder(self.config)

    def start(self, stack):
        self.run = Run(self.config, stack.enter_context(self.folder), reward=self.judge)
        return self.run.model, self.run.tokenizer

    def judge(self, completions, answers):
        self.rewards = np.array([len(set(text)) % 5 / 4 for text in completions])
        return self.rewards

    def __call__(self, prompts, trainer):
        batch = self.run.next_batch()
        self.rollouts = batch.rollouts
        for minibatch in batch.minibatches(IN_ORDER):
            self.run.update(minibatch)
        self.run.close(batch)
        return super().__call__(prompts, trainer)


def test_twenty_iterations_leave_the_lean_loops_weights(tmp_path, monkeypatch):
    """40 updates of AdamW on ragged rollouts with truncated ones, two of them a batch, two micro-batches each."""
    monkeypatch.setattr("pmdllm.train.sample", ragged)
    changes = {"algorithm": "pmd-mean-loo", "reset_optimizer_every": 7}
    lean = LeanLoop(tmp_path / "lean", iterations=20, **changes)
    with ExitStack() as stack:
        model, tokenizer = lean.start(stack)
        start, ours = weights(model), deepcopy(model)
        adam = torch.optim.AdamW(ours.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
        trainer = make_trainer(ours, tokenizer, lean, tmp_path / "trl", adam, max_steps=40, **changes)
        trainer.train()
        assert lean.run.updates == 40 and lean.run.iteration == 20
    moved = (weights(model) - start).norm()
    distance = (weights(ours) - weights(model)).norm() / moved
    print("DIST", moved, distance, (weights(ours) - weights(model)).abs().max())
    assert moved > 1 and distance < 1e-4
