"""The custom loss for prime-rl against the lean loop's, with stand-ins of its published field names.

prime-rl is not on PyPI and was not run: its dataclasses are written here as its documentation gives them, and its sum
over sequences, micro-batches and ranks, divided by the number of tokens under the masks, as it describes it.
"""

import importlib
import math
import sys
from dataclasses import dataclass, fields, replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from pmdllm.losses import ALGORITHMS, Settings

B, T, TAU = 8, 6, 0.3


@dataclass
class LossInputs:
    trainer_logprobs: torch.Tensor
    inference_logprobs: torch.Tensor
    ref_logprobs: torch.Tensor | None
    advantages: torch.Tensor
    loss_mask: torch.Tensor
    loss_weights: torch.Tensor | None = None


@dataclass
class LossOutputs:
    loss: torch.Tensor
    metrics: dict


@pytest.fixture
def pmd_loss(monkeypatch):
    names = "prime_rl", "prime_rl.trainer", "prime_rl.trainer.rl", "prime_rl.trainer.rl.loss"
    modules = [ModuleType(name) for name in names]
    modules[-1].LossInputs, modules[-1].LossOutputs = LossInputs, LossOutputs
    for name, module in zip(names, modules):
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("pmdllm.integrations.prime_rl").pmd_loss
    sys.modules.pop("pmdllm.integrations.prime_rl")


@pytest.fixture(params=[0.0, 0.4], ids=["s = 0", "later"])
def batch(request):
    """Prompts before completions of lengths 1 to T, one completion empty, one with a hole."""
    generator = torch.Generator().manual_seed(5)
    old = -torch.rand(B, T, generator=generator) - 0.1
    mask = (torch.arange(T) > 0) & (torch.arange(T) <= torch.randint(1, T + 1, (B, 1), generator=generator))
    mask[2, 1:4] = torch.tensor([True, False, True])
    mask[5] = False
    logp = old + request.param * torch.randn(B, T, generator=generator)
    rewards = torch.rand(2, B // 2, generator=generator)
    advantage = (rewards - rewards.mean(1, keepdim=True)).flatten()
    return SimpleNamespace(old=old, mask=mask, logp=logp.requires_grad_(), rewards=rewards, advantage=advantage)


def by_engine(pmd_loss, batch, change=lambda inputs: inputs, weight=None, **options):
    """Sum over the sequences of two ranks of two micro-batches, over the tokens of all, times the mean length."""
    logp, total = batch.logp.detach().clone().requires_grad_(), 0.0
    for sequence in range(B):
        inputs = LossInputs(
            trainer_logprobs=logp[sequence], inference_logprobs=batch.old[sequence], ref_logprobs=None,
            advantages=batch.advantage[sequence].expand(T), loss_mask=batch.mask[sequence],
            loss_weights=None if weight is None else weight[sequence].expand(T),
        )  # fmt: skip
        total = total + pmd_loss(change(inputs), **({"tau": TAU} | options)).loss / batch.mask.sum()
    total = total * batch.mask.sum() / batch.mask.any(1).sum()
    total.backward()
    return total.detach(), logp.grad


def by_lean_loop(batch, algorithm="pmd-mean", normalization="none", weight=None):
    logp = batch.logp.detach().clone().requires_grad_()
    advantage = ALGORITHMS[algorithm].advantage(batch.rewards, TAU).flatten()
    settings = Settings(TAU, length_normalization=normalization, max_length=T, weight=weight)
    loss, _ = ALGORITHMS[algorithm].loss(logp, batch.old, batch.mask, advantage, settings)
    loss.backward()
    return loss.detach(), logp.grad


def departure(found, expected):
    return max((a - b).abs().max().item() for a, b in zip(found, expected))


@pytest.mark.parametrize("normalization", ["none", "seq-mean-token-mean", "seq-mean-token-sum-norm"])
def test_sequence_form(pmd_loss, batch, normalization):
    weight = torch.linspace(0.5, 1.5, B)
    found = by_engine(pmd_loss, batch, weight=weight, length_normalization=normalization, max_length=T)
    assert departure(found, by_lean_loop(batch, normalization=normalization, weight=weight)) < 1e-6


def test_token_form_and_leaving_one_out(pmd_loss, batch):
    assert departure(by_engine(pmd_loss, batch, granularity="token"), by_lean_loop(batch, "kimi-token")) < 1e-6
    assert departure(by_engine(pmd_loss, batch, group_size=B // 2), by_lean_loop(batch, "pmd-mean-loo")) < 1e-6


@pytest.mark.parametrize("batch", [0.4], indirect=True)
@pytest.mark.parametrize(
    "defect",
    [
        lambda inputs: replace(inputs, advantages=inputs.advantages / inputs.loss_mask.sum().clamp(min=1)),
        lambda inputs: replace(inputs, inference_logprobs=inputs.trainer_logprobs.detach()),
        lambda inputs: replace(inputs, advantages=inputs.advantages / 0.3),
    ],
    ids=["pre-multiplied advantage", "missing old log-probabilities", "scaled rewards"],
)
def test_every_trap_departs(pmd_loss, batch, defect):
    assert departure(by_engine(pmd_loss, batch, defect), by_lean_loop(batch)) > 1e-2


def test_outputs_and_refusals(pmd_loss, batch):
    inputs = LossInputs(batch.logp[0], batch.old[0], None, batch.advantage[0].expand(T), batch.mask[0])
    outputs = pmd_loss(inputs, tau=TAU)
    assert {field.name for field in fields(outputs)} == {"loss", "metrics"}
    assert outputs.loss.requires_grad and all(not value.requires_grad for value in outputs.metrics.values())
    empty = pmd_loss(replace(inputs, loss_mask=torch.zeros(T, dtype=torch.bool)), tau=TAU)
    assert empty.loss == 0 and empty.loss.requires_grad
    varying = torch.arange(1.0, T + 1)
    for name in ("advantages", "loss_weights"):
        with pytest.raises(ValueError, match=f"{name} must be the same at all tokens"):
            pmd_loss(replace(inputs, loss_mask=torch.ones(T, dtype=torch.bool), **{name: varying}), tau=TAU)
    for tau in (0.0, -TAU, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"tau must be positive and finite, got {tau}"):
            pmd_loss(inputs, tau=tau)
    with pytest.raises(ValueError, match="group_size must be at least 2"):
        pmd_loss(inputs, tau=TAU, group_size=1)
