"""Log-probabilities of a large model's completions: against the plain pass, in memory and in tokens computed."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from pmdllm import logp, models
from pmdllm.logp import memory_for_passes, passes, token_logp
from pmdllm.rollout import Rollouts
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig

VOCABULARY = 90
CONFIGS = {
    "grouped heads, tied": LlamaConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        vocab_size=VOCABULARY, tie_word_embeddings=True,
    ),
    "sliding window": MistralConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, sliding_window=5,
    ),
    "learned positions": GPT2Config(
        n_embd=24, n_layer=2, n_head=4, n_positions=64, vocab_size=VOCABULARY, resid_pdrop=0, embd_pdrop=0,
        attn_pdrop=0,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def large(monkeypatch):
    monkeypatch.setattr(models, "LARGE", 0)


@pytest.fixture(params=CONFIGS)
def model(request):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def rollouts(prompts=4, n=5, longest=9, seed=0):
    """Groups of random completions of random prompts of different lengths, two prompts of which differ in padding."""
    rng = np.random.default_rng(seed)
    before = np.repeat(rng.integers(2, 7, prompts), n)
    after = rng.integers(1, longest + 1, prompts * n)
    ids = np.repeat(rng.integers(1, VOCABULARY, (prompts, before.max())), n, axis=0)
    prompt_mask = np.arange(before.max()) >= before.max() - before[:, None]
    tokens = rng.integers(1, VOCABULARY, (prompts * n, longest))
    mask = np.arange(longest) < after[:, None]
    ids, tokens = torch.tensor(ids * prompt_mask), torch.tensor(tokens * mask)
    prompt_mask, mask = torch.tensor(prompt_mask), torch.tensor(mask)
    return Rollouts(ids, prompt_mask, tokens, mask, torch.zeros(mask.shape), torch.ones(len(mask), dtype=torch.bool))


def plain(model, rollouts, temperature=1.0):
    """One pass per completion, without padding, cache or anything shared."""
    rows = []
    for i in range(len(rollouts)):
        prompt = rollouts.prompt_ids[i][rollouts.prompt_mask[i]]
        tokens = rollouts.tokens[i][rollouts.mask[i]]
        logits = model(input_ids=torch.cat([prompt, tokens])[None], use_cache=False).logits[0] / temperature
        rows.append(logits[len(prompt) - 1 : -1].log_softmax(-1).gather(1, tokens[:, None])[:, 0])
    return rows


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("scores", [logp.SCORES, 3 * VOCABULARY])
def test_values_and_gradient_are_those_of_the_plain_pass(model, monkeypatch, scores, temperature):
    monkeypatch.setattr(logp, "SCORES", scores)
    batch, weights = rollouts(), torch.randn(20, generator=torch.Generator().manual_seed(3))
    expected = plain(model, batch, temperature)
    values, entropy = token_logp(model, batch, temperature)
    for i, row in enumerate(expected):
        torch.testing.assert_close(values[i][batch.mask[i]], row, atol=2e-5, rtol=1e-5)
    assert (values[~batch.mask] == 0).all() and (entropy[~batch.mask] == 0).all()
    slope = gradient(model, sum(weight * row.sum() for weight, row in zip(weights, expected)))
    own = gradient(model, (weights * token_logp(model, batch, temperature)[0].sum(1)).sum())
    torch.testing.assert_close(own, slope, atol=1e-4 * slope.abs().max().item(), rtol=0)


def test_logits_that_are_not_the_output_layer_alone_are_the_models_own(model):
    """A model that caps its logits, as Gemma does, outside that layer."""
    capped = copy.deepcopy(model)

    def forward(**inputs):
        output = type(capped).forward(capped, **inputs)
        output.logits = 2 * torch.tanh(output.logits / 2)
        return output

    capped.forward = forward
    batch = rollouts()
    values, _ = token_logp(capped, batch)
    for i, row in enumerate(plain(capped, batch)):
        torch.testing.assert_close(values[i][batch.mask[i]], row, atol=2e-5, rtol=1e-5)


def test_recomputed_activations_give_the_same_gradient(model):
    batch = rollouts()
    expected = gradient(model, token_logp(model, batch)[0].sum())
    model.activation_checkpointing_enable()
    own = gradient(model.train(), token_logp(model, batch)[0].sum())
    torch.testing.assert_close(own, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


class Largest(TorchDispatchMode):
    """Notes the rows of the largest tensor with a column for each token of the vocabulary, weights (24, V) apart."""

    rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.shape[-1:] == (VOCABULARY,) and tensor.shape[:-1] != (24,):
                self.rows = max(self.rows, tensor.numel() // VOCABULARY)
        return result


def test_the_output_layer_is_applied_to_scored_tokens_and_a_few_at_a_time(model, monkeypatch):
    batch = rollouts(longest=20)
    for scores, most in ((logp.SCORES, int(batch.mask.sum())), (7 * VOCABULARY, 7)):
        monkeypatch.setattr(logp, "SCORES", scores)
        token_logp(model, batch)  # the check of the output layer is behind
        with Largest() as seen:
            token_logp(model, batch)[0].sum().backward()
        assert 0 < seen.rows <= most


def test_prompts_are_read_once(model):
    batch, lengths = rollouts(), []
    token_logp(model, batch)
    hook = model.base_model.register_forward_pre_hook(
        lambda *given: lengths.append(tuple(given[2]["input_ids"].shape)), with_kwargs=True
    )
    token_logp(model, batch)
    hook.remove()
    assert lengths == [(4, batch.prompt_ids.shape[1]), (20, batch.tokens.shape[1] - 1)]


def computed(batch, cut):
    """Tokens of prompts and of completions that passes compute, padding included."""
    pieces = [batch.rows(rows).trimmed() for rows in cut]
    return [
        len({tuple(row) for row in piece.prompt_ids.tolist()}) * piece.prompt_ids.shape[1] + piece.tokens.numel()
        for piece in pieces
    ]


@pytest.mark.parametrize("tokens", [1, 30, 100, 10_000])
def test_passes_hold_every_row_once_within_their_bound(model, tokens):
    batch = rollouts(prompts=5, n=6, longest=40)
    cut = passes(model, batch, memory=tokens * logp._bytes_per_token(model))
    assert sorted(torch.cat(list(cut)).tolist()) == list(range(30))
    for rows, needed in zip(cut, computed(batch, cut)):
        assert needed <= tokens or len(rows) == 1
    assert max(map(len, passes(model, batch, most_rows=4, memory=1e18))) == 4


def test_passes_compute_less_than_in_the_order_given(model):
    """Long completions of one prompt each, in turn with short ones: sorted by length there is less padding."""
    batch = rollouts(prompts=20, n=2, longest=50)
    memory = 300 * logp._bytes_per_token(model)
    own = sum(computed(batch, passes(model, batch, memory=memory)))
    size = len(passes(model, batch, memory=memory)[0])
    assert own < 0.8 * sum(computed(batch, torch.arange(40).split(size)))


def test_gradients_accumulate_exactly(model):
    batch = rollouts(prompts=5, n=4, longest=20)
    whole = gradient(model, token_logp(model, batch)[0].sum())
    model.zero_grad()
    cut = passes(model, batch, memory=60 * logp._bytes_per_token(model))
    assert len(cut) > 4
    for rows in cut:
        token_logp(model, batch.rows(rows).trimmed())[0].sum().backward()
    own = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(own, whole, atol=1e-4 * whole.abs().max().item(), rtol=0)


def test_passes_remember_what_their_bound_allows(model):
    """What autograd keeps of each pass, the scores of its few completion tokens apart."""
    batch = rollouts(prompts=8, n=8, longest=30)
    memory = 400 * logp._bytes_per_token(model)
    for rows in passes(model, batch, memory=memory):
        sizes = {}

        def note(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            values = token_logp(model, batch.rows(rows).trimmed())[0]
        assert values.requires_grad
        assert 0.4 * memory < sum(sizes.values()) < 1.6 * memory or rows[-1] == 63


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_measuring_what_a_pass_remembers_keeps_nothing(config):
    model = AutoModelForCausalLM.from_config(config)
    embedding = weakref.ref(model.get_input_embeddings().weight)
    assert logp._bytes_per_token(model) > 0
    del model
    gc.collect()
    assert embedding() is None


def test_the_memory_of_passes_leaves_room_for_weights_and_moments(model, monkeypatch):
    gigabyte = 2**30
    more, less = (memory_for_passes(model, bound) for bound in (6, 5))
    assert more - less == pytest.approx(0.65 * gigabyte)
    assert memory_for_passes(model, 0.1) == 0 and 0 < memory_for_passes(model) < 4 * gigabyte
    monkeypatch.setattr(models, "LARGE", 10**9)
    assert memory_for_passes(model, 1) == float("inf")
