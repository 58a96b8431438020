"""Policy-gradient comparators against the trainers of TRL: its advantages, losses, gradients and clip fractions.

The trainers are real ones on a tiny model. TRL samples and scores a batch, the model is moved so that ratios leave 1,
and TRL computes its loss, with the log-probabilities it used kept for comparison.
"""

from types import SimpleNamespace

import pytest
import torch
from pmdllm.losses import ALGORITHMS, Settings

LETTERS = "abcdefgh"
PROMPTS = ["ab", "c", "fade", "hah"]
ROLLOUTS = 6
SETTINGS = Settings(tau=0.1, clip_low=0.2, clip_high=0.28, max_length=10)

CASES = {
    "grpo": {"loss_type": "grpo", "scale_rewards": "group"},
    "dr-grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "gspo": {"loss_type": "grpo", "scale_rewards": "group", "importance_sampling_level": "sequence"},
    "rloo": {},
}


def make_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *LETTERS])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=characters, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def make_trainer(name, reward, folder):
    from datasets import Dataset
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "initializer_range": 0.2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    tokens = {"vocab_size": len(LETTERS) + 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config, trainer = (RLOOConfig, RLOOTrainer) if name == "rloo" else (GRPOConfig, GRPOTrainer)
    arguments = config(
        output_dir=str(folder),
        beta=0.0,
        epsilon=SETTINGS.clip_low,
        epsilon_high=SETTINGS.clip_high,
        num_generations=ROLLOUTS,
        num_iterations=2,  # off-policy, so that TRL keeps the old log-probabilities
        per_device_train_batch_size=ROLLOUTS * len(PROMPTS),
        max_completion_length=SETTINGS.max_length,
        bf16=False,
        use_cpu=True,
        report_to="none",
        **CASES[name],
    )
    return trainer(
        Qwen3ForCausalLM(Qwen3Config(**size, **heads, **tokens)),
        reward,
        arguments,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=make_tokenizer(),
    )


def token_logp(trainer, batch):
    """TRL's log-probabilities (B, T) of the sampled tokens under the trainer's present model."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, batch["completion_ids"].shape[1])[0]


@pytest.fixture(scope="module", params=CASES)
def step(request, tmp_path_factory):
    """A trainer of TRL that has sampled a batch and moved since, and the rewards (P, n) it scored the batch with."""
    rewards = []

    def reward(completion_ids, **_):
        rewards.extend(ids.count(2) / len(ids) for ids in completion_ids)
        return rewards

    torch.manual_seed(0)
    trainer = make_trainer(request.param, reward, tmp_path_factory.mktemp("trl"))
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions([{"prompt": p} for p in PROMPTS for _ in range(ROLLOUTS)])
    with torch.no_grad():
        old_logp = token_logp(trainer, batch)
        for parameter in trainer.model.parameters():
            parameter += 0.04 * torch.randn_like(parameter)
    rewards = torch.tensor(rewards).reshape(-1, ROLLOUTS)
    return SimpleNamespace(name=request.param, trainer=trainer, batch=batch, rewards=rewards, old_logp=old_logp)


def loss_of_trl(step, batch):
    """TRL's loss, its gradient with respect to log π_θ (B, T), log π_θ itself, and the clip fraction TRL logs."""
    measure, seen = step.trainer._get_per_token_logps_and_entropies, []

    def watch(*arguments, **options):
        logp, *rest = measure(*arguments, **options)
        seen.append(logp)
        return logp, *rest

    step.trainer._get_per_token_logps_and_entropies = watch
    loss = step.trainer._compute_loss(step.trainer.model, batch)
    step.trainer._get_per_token_logps_and_entropies = measure
    (gradient,) = torch.autograd.grad(loss, seen)
    return loss.detach(), gradient, seen[0].detach(), step.trainer._metrics["train"]["clip_ratio/region_mean"][-1]


def loss_of_ours(step, batch, logp):
    logp = logp.requires_grad_()
    mask = batch["completion_mask"].bool()
    loss, metrics = ALGORITHMS[step.name].loss(logp, step.old_logp, mask, batch["advantages"], SETTINGS)
    loss.backward()
    return loss.detach(), logp.grad, metrics["clip_fraction"].item()


def test_advantages(step):
    assert len(step.rewards) == len(PROMPTS) and (step.rewards.std(1) > 0).all()
    advantage = ALGORITHMS[step.name].advantage(step.rewards, SETTINGS.tau).flatten()
    torch.testing.assert_close(advantage, step.batch["advantages"], rtol=1e-5, atol=1e-6)


def test_loss_and_gradient(step):
    loss, gradient, logp, clip_fraction = loss_of_trl(step, step.batch)
    ours, our_gradient, our_clip_fraction = loss_of_ours(step, step.batch, logp)
    assert step.batch["completion_mask"].sum(1).unique().numel() > 2
    assert 0.02 < clip_fraction < 0.98
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-4, atol=1e-7)
    if step.name != "gspo":  # TRL counts clipped completions there, we count their tokens
        assert our_clip_fraction == pytest.approx(clip_fraction, rel=1e-5)


def test_completions_without_tokens_count_in_the_mean_of_trl_and_not_in_ours(step):
    mask, B = step.batch["completion_mask"].clone(), len(step.batch["completion_mask"])
    mask[[3, 8]] = 0
    batch = step.batch | {"completion_mask": mask}
    if step.name == "rloo":
        batch["old_logps"] = (step.old_logp * mask).sum(1)
        batch["advantages"] = batch["advantages"] * mask.any(1)
    loss, gradient, logp, _ = loss_of_trl(step, batch)
    ours, our_gradient, _ = loss_of_ours(step, batch, logp)
    torch.testing.assert_close(ours * (B - 2) / B, loss, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(our_gradient * (B - 2) / B, gradient, rtol=1e-4, atol=1e-7)
