"""`PMDTrainer` against the lean loop, fed the same rollouts: losses, gradients, weights; and what it refuses.

Rollouts are the lean loop's own, handed to TRL by its ``rollout_func``; TRL's shuffle within a generation is left out,
so that both make the same minibatches.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from pmdllm import integrations, models, tasks
from pmdllm.batch import Batch
from pmdllm.config import Config
from pmdllm.integrations.trl import PMDConfig, PMDTrainer
from pmdllm.logp import token_logp
from pmdllm.losses import Settings
from pmdllm.rollout import sample
from pmdllm.run.folder import RunFolder
from pmdllm.train import Run

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
P, N, LENGTH = 4, 4, 12
EPS = 1e-4  # with AdamW's usual 1e-8, a gradient that is 0 but for rounding becomes a step
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


def make_trainer(model, tokenizer, feed, folder, optimizer=None, peft_config=None, **changes):
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
        peft_config=peft_config,
    )  # fmt: skip


def lean_config(**changes):
    options = {"prompts_per_batch": P, "rollouts_per_prompt": N, "updates_per_batch": 2, "truncated": "drop"}
    return Config(**(options | changes))


def ragged(model, tokenizer, prompts, n, max_new_tokens, generator, **prompting):
    """Rollouts of the lean loop, cut at lengths from 3 on; they end there but for one in each of two groups."""
    rollouts = sample(model, tokenizer, prompts, n, max_new_tokens, generator, **prompting)
    B, T = rollouts.tokens.shape
    lengths, place = torch.randint(3, T + 1, (B, 1), generator=generator), torch.arange(T)
    rollouts.ended = ~torch.isin(torch.arange(B), torch.tensor([1, n]))
    rollouts.mask = place < lengths
    rollouts.tokens[torch.isin(rollouts.tokens, torch.tensor(tokenizer.all_special_ids))] = 5
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
        for group in self.run.optimizer.param_groups:
            group["eps"] = EPS
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
        adam = torch.optim.AdamW(ours.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, eps=EPS)
        trainer = make_trainer(ours, tokenizer, lean, tmp_path / "trl", adam, max_steps=40, **changes)
        trainer.train()
        assert lean.run.updates == 40 and lean.run.iteration == 20
    moved = (weights(model) - start).norm()
    distance = (weights(ours) - weights(model)).norm() / moved
    assert moved > 1 and distance < 3e-5


def test_one_update_a_generation_has_no_old_logp_and_the_lean_loops_gradient(tmp_path):
    model, tokenizer = base()
    feed, config = Feed(), lean_config(updates_per_batch=1, algorithm="pmd-part")
    batch = draw(feed, model, tokenizer, config, seed=3)
    options = {"algorithm": "pmd-part", "steps_per_generation": 2, "per_device_train_batch_size": 8}
    trainer = make_trainer(deepcopy(model), tokenizer, feed, tmp_path, **options)
    trainer.model.train()
    trainer._prepare_inputs([{"prompt": "1+1="}] * P * N)
    (minibatch,) = batch.minibatches(IN_ORDER)
    minibatch.backward(model, config.method, settings_of(config), nullcontext)
    for piece in trainer._buffered_inputs:
        assert "old_per_token_logps" not in piece
        trainer._compute_loss(trainer.model, piece).backward()
    torch.testing.assert_close(gradient(trainer.model), gradient(model), atol=1e-6, rtol=1e-5)


def test_completions_without_reward_leave_their_group(tmp_path):
    """TRL's None, in a group of its own and beside others; a group left with one has no leave-one-out baseline."""
    model, tokenizer = base()
    feed = Feed()
    draw(feed, model, tokenizer, lean_config(), seed=4)
    feed.rollouts.tokens[[1, N], feed.rollouts.mask[[1, N]].sum(1) - 1] = tokenizer.eos_token_id
    rewards = [[1.0, None, 0.0, 0.5], [None, None, 1.0, None], [None] * N, [0.0, 1.0, 1.0, 0.0]]
    feed.reward = lambda completions, **_: [reward for group in rewards for reward in group]
    feed.reward.__name__ = "partial"
    trainer = make_trainer(model, tokenizer, feed, tmp_path, algorithm="pmd-mean-loo")
    trainer.model.train()
    trainer._prepare_inputs([{"prompt": "1+1="}] * P * N)
    joined = {name: torch.cat([p[name] for p in trainer._buffered_inputs]) for name in ("advantages", "counted")}
    expected = [0.75, 0, -0.75, 0] + [0] * 8 + [-2 / 3, 2 / 3, 2 / 3, -2 / 3]
    torch.testing.assert_close(joined["advantages"], torch.tensor(expected))
    assert joined["counted"].tolist() == [True, False, True, True] + [False] * 8 + [True] * 4
    assert [piece["count"].item() for piece in trainer._buffered_inputs] == [3, 3, 4, 4]
    assert list(trainer._logs["advantages"]) == pytest.approx(expected)


def test_vllm_ratio_and_masks_of_an_environment(updates):
    """TRL's ratio of policy and vLLM is a factor of a completion's loss; tokens not the policy's are left out."""
    trainer, piece = updates.trainer, dict(updates.windows[0][0])
    piece["tool_mask"] = torch.ones_like(piece["completion_mask"])
    piece["tool_mask"][:, 1] = 0
    ratio = torch.tensor([[0.0], [0.5], [1.0], [2.0]])
    s = torch.linspace(-0.5, 0.5, piece["completion_mask"].numel()).view_as(piece["completion_mask"])
    logp = (piece["old_per_token_logps"] + s).requires_grad_()
    real = trainer._get_per_token_logps_and_entropies
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logp, torch.zeros_like(s), None)
    try:
        trainer._compute_loss(trainer.model, piece | {"importance_sampling_ratio": ratio}).backward()
    finally:
        trainer._get_per_token_logps_and_entropies = real
    mask = piece["completion_mask"].bool() & piece["tool_mask"].bool() & piece["counted"][:, None]
    args, weight = trainer.args, piece.get("weight", torch.ones(N)) * ratio[:, 0]
    each = {"none": 1, "seq-mean-token-mean": mask.sum(1).clamp(min=1), "seq-mean-token-sum-norm": LENGTH}
    name = "none" if args.length_normalization == "auto" else args.length_normalization
    fitted = s if args.algorithm == "kimi-token" else (s * mask).sum(1, keepdim=True)
    residual = piece["advantages"][:, None] - args.tau * fitted
    expected = -(weight / each[name] / piece["count"])[:, None] * residual * mask
    torch.testing.assert_close(logp.grad, expected, atol=1e-7, rtol=1e-5)


def test_adapters_get_the_lean_loops_gradient(tmp_path):
    """LoRA by PEFT: W + c (B A)ᵀ, so that ∂L/∂B = c (∂L/∂W)ᵀ Aᵀ, at s = 0 and after B has moved; nothing else moves."""
    model, tokenizer = base()
    config = lean_config()
    batch = draw(feed := Feed(), model, tokenizer, config, seed=1)
    adapters = LoraConfig(r=2, lora_alpha=6, target_modules=["c_attn"], fan_in_fan_out=True)
    trainer = make_trainer(deepcopy(model), tokenizer, feed, tmp_path, peft_config=adapters)
    trainer.model.train()
    trainer._prepare_inputs([{"prompt": "1+1="}] * P * N)
    pieces, layers = trainer._buffered_inputs, [block.attn.c_attn for block in model.transformer.h]
    named = dict(trainer.model.named_parameters())
    trained = [name for name, weight in named.items() if weight.requires_grad]
    assert len(trained) == 2 * len(layers) and all("lora" in name for name in trained)
    A, B = ([named[name] for name in trained if f"lora_{letter}" in name] for letter in "AB")
    for minibatch, window in zip(batch.minibatches(IN_ORDER), (pieces[:2], pieces[2:])):
        model.zero_grad()
        trainer.model.zero_grad()
        loss = minibatch.backward(model, config.method, settings_of(config), nullcontext)["loss"]
        parts = [trainer._compute_loss(trainer.model, piece) for piece in window]
        sum(parts).backward()
        assert sum(part.item() for part in parts) == pytest.approx(loss, rel=1e-5)
        for a, b, layer in zip(A, B, layers):
            torch.testing.assert_close(b.grad, 3 * layer.weight.grad.T @ a.T, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            for a, b, layer in zip(A, B, layers):
                b += 0.1 * torch.randn(b.shape, generator=torch.Generator().manual_seed(3))
                layer.weight += 3 * (b @ a).T


class Resampled(Feed):
    """Rollouts of the trainer's present model, with rewards by their text: a run in its own right."""

    def __call__(self, prompts, trainer):
        generator = torch.Generator().manual_seed(trainer.state.global_step)
        self.rollouts = ragged(trainer.model, trainer.processing_class, prompts[::N], N, LENGTH, generator)
        return super().__call__(prompts, trainer)

    def reward(self, completions, **_):
        return [len(set(text)) % 5 / 4 for text in completions]


def run(folder, checkpoint=None, optimizer=None, **changes):
    model, tokenizer = base()
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "num_iterations": 1} | changes
    trainer = make_trainer(model, tokenizer, Resampled(), folder, optimizer, **options)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def test_a_run_goes_on_from_a_generation_boundary_and_from_no_other(tmp_path):
    whole = run(tmp_path)
    resumed = run(tmp_path, str(tmp_path / "checkpoint-2"))
    assert torch.equal(weights(whole.model), weights(resumed.model))
    state = tmp_path / "checkpoint-2" / "trainer_state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"global_step": 1}))
    with pytest.raises(ValueError, match="multiple of 2 steps, got one after 1"):
        run(tmp_path, str(tmp_path / "checkpoint-2"))
    with pytest.raises(ValueError, match=r"save_steps must come to a multiple of 2.*0.75"):
        run(tmp_path, save_steps=0.75)


def test_the_optimiser_forgets_and_skips_updates_without_completions(tmp_path):
    """Moments count the steps since the last reset; with every group filtered out, nothing moves."""
    steps = {state["step"].item() for state in run(tmp_path, reset_optimizer_every=1).optimizer.state.values()}
    assert steps == set()
    steps = {
        state["step"].item() for state in run(tmp_path, max_steps=3, reset_optimizer_every=1).optimizer.state.values()
    }
    assert steps == {1.0}
    start = weights(base()[0])
    idle = run(tmp_path, filter_low=2.0, weight_decay=0.1)
    assert torch.equal(weights(idle.model), start)
    assert idle.state.log_history[0]["groups_kept"] == 0 and idle.state.log_history[0]["loss"] == 0


def test_evaluation_and_what_is_logged(tmp_path):
    trainer = run(tmp_path, save_strategy="no")
    line = trainer.state.log_history[1]
    assert {"loss", "residual", "log_ratio/std", "kl/k3", "entropy"} <= line.keys() and line["kl/k3"] > 0
    dataset = Dataset.from_dict({"prompt": ["1+1="] * 2})
    assert np.isfinite(trainer.evaluate(dataset)["eval_loss"])


REFUSED = {
    "scale_rewards": ("group", "'none': tau is measured in reward units, got 'group'"),
    "beta": (0.04, "0.0: the penalty of PMD is to the policy that sampled, and tau its weight, got 0.04"),
    "loss_type": ("dapo", "'pmd': algorithm chooses the loss"),
    "top_p": (0.9, "1.0: log-probabilities are those of the whole distribution"),
    "generation_kwargs": ({"top_k": 5}, "without top_k"),
    "epsilon_high": (0.28, "None: the loss of PMD does not read it"),
    "disable_dropout": (False, "True: dropout enters log-ratios"),
    "tau": (0.0, "positive and finite"),
    "algorithm": ("grpo", "a regression"),
    "target_kl": (0.0, "positive for pmd-target"),
    "length_normalization": ("token-mean", "one of auto, none"),
    "filter_low": (1.0, "below filter_high = 0.5"),
    "reset_optimizer_every": (-1, "at least 0"),
    "vllm_importance_sampling_mode": ("token_mask", "a completion has one log-ratio"),
    "steps_per_generation": (3, "a multiple of gradient_accumulation_steps = 2"),
    "save_steps": (3, "a multiple of 2, the updates per generation"),
}
BESIDES = {
    "target_kl": {"algorithm": "pmd-target"},
    "filter_low": {"filter_high": 0.5},
    "vllm_importance_sampling_mode": {"vllm_importance_sampling_correction": True},
    "save_steps": {"save_strategy": "steps"},
    "steps_per_generation": {"per_device_train_batch_size": 8, "num_generations": 8},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unsafe_options_are_refused(name, tmp_path):
    value, message = REFUSED[name]
    with pytest.raises(ValueError) as refusal:
        make_trainer(*base(), Feed(), tmp_path, **{name: value}, **BESIDES.get(name, {}))
    text = str(refusal.value)
    assert text.startswith(f"{name} must be ") and message in text and "\n" not in text


def test_warnings_and_other_refusals(tmp_path, monkeypatch):
    model, tokenizer = base()
    with pytest.warns(UserWarning, match="tau has no effect"):
        make_trainer(model, tokenizer, Feed(), tmp_path, steps_per_generation=2)
    with pytest.warns(UserWarning, match="half precision"):
        make_trainer(model.bfloat16(), tokenizer, Feed(), tmp_path)
    with pytest.raises(ValueError, match=r"args must be a PMDConfig.*GRPOConfig"):
        PMDTrainer(model, Feed().reward, trl.GRPOConfig(str(tmp_path), use_cpu=True, bf16=False))
    path = Path(integrations.__file__).parent / "trl.py"
    monkeypatch.setattr(trl, "__version__", "1.15.9")
    specification = importlib.util.spec_from_file_location("pmdllm.integrations.another", path)
    with pytest.raises(ImportError, match=r"trl >= 1.16.0, < 1.17.*found 1.15.9: pip install"):
        specification.loader.exec_module(importlib.util.module_from_spec(specification))


def test_two_processes_give_the_loss_curve_of_one(tmp_path):
    """Launched by accelerate on CPUs (gloo), with the example before; the same total batch."""
    from tests.llm.two_processes import losses

    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    ports = ["--main_process_port", "0"]
    run = subprocess.run(
        [*launch, *ports, FOLDER / "two_processes.py", tmp_path], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert np.isfinite(found["example"]["loss"])
    one = losses(tmp_path / "one", processes=1)
    assert len(one) == 4 and found["curve"] == pytest.approx(one, rel=1e-4)
    assert max(abs(np.subtract(found["defective"], one))) > 1e-2


@pytest.mark.parametrize("name", ["arithmetic", "sums", "word_problems"])
def test_the_example_draws_as_many_prompts_as_it_likes(name):
    """Also of a task with 205 of them."""
    from examples.trl_pmd import draw

    drawn = draw(tasks.load(name), 1000, seed=0)
    assert len(drawn) == 1000 and drawn == draw(tasks.load(name), 1000, seed=0) != draw(tasks.load(name), 1000, seed=1)


def test_ten_lines_of_the_page_run(tmp_path, monkeypatch):
    """The block of docs/engines.md, as it stands."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "engines.md").read_text(), flags=re.DOTALL)
    assert len(block.strip().splitlines()) <= 12
    exec(compile(block, "engines.md", "exec"), {})
