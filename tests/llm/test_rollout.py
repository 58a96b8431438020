"""Sampling and scoring, against one-row forward passes without padding or cache and against `model.generate`."""

import pytest
import torch
from pmdllm import models
from pmdllm.rollout import Rollouts, sample, token_logp

PROMPTS = ["1+2=", "3*4-5+6=", "7="]


@pytest.fixture(scope="module")
def policy():
    tokenizer = models.character_tokenizer("0123456789+-*=")
    model = models.tiny(tokenizer, hidden_size=16, layers=2, heads=2, max_length=64, seed=0).eval()
    return model, tokenizer


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def by_hand(model, tokenizer, prompt, tokens):
    """log π of each token of one completion from one forward pass over the unpadded text."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    whole = torch.cat([ids, tokens[None]], 1)
    with torch.no_grad():
        law = model(whole).logits[0].double().log_softmax(-1)
    at = torch.arange(ids.shape[1] - 1, whole.shape[1] - 1)
    return law[at].gather(1, tokens[:, None])[:, 0], -(law[at].exp() * law[at]).sum(1)


def rows(rollouts, n):
    for i in range(len(rollouts)):
        yield PROMPTS[i // n], rollouts.tokens[i][rollouts.mask[i]], i


@pytest.mark.parametrize("static", [False, True])
def test_recorded_log_probabilities_are_the_models(policy, static):
    rollouts = sample(*policy, PROMPTS, 5, 12, seeded(), static_cache=static)
    logp, entropy = token_logp(policy[0], rollouts)
    assert len(rollouts) == 15
    assert torch.allclose(rollouts.logp, logp, atol=1e-5)
    for prompt, tokens, i in rows(rollouts, 5):
        expected, uncertainty = by_hand(*policy, prompt, tokens)
        mask = rollouts.mask[i]
        torch.testing.assert_close(rollouts.logp[i][mask].double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(entropy[i][mask].double(), uncertainty, atol=1e-5, rtol=0)
        assert (rollouts.logp[i][~mask] == 0).all() and (entropy[i][~mask] == 0).all()


def test_static_and_growing_caches_draw_the_same(policy):
    growing, static = (sample(*policy, PROMPTS, 4, 12, seeded(3), static_cache=flag) for flag in (False, True))
    assert torch.equal(growing.tokens, static.tokens) and torch.equal(growing.mask, static.mask)


def test_a_completion_ends_with_its_end_of_sequence_or_is_truncated(policy):
    eos = policy[1].eos_token_id
    rollouts = sample(*policy, PROMPTS, 40, 6, seeded(1))
    ended = rollouts.ended(eos)
    assert ended.any() and not ended.all()
    for tokens, mask, finished in zip(rollouts.tokens, rollouts.mask, ended):
        own = tokens[mask]
        assert mask.long().diff().le(0).all()  # the mask is a prefix
        assert (own[:-1] != eos).all()
        assert (own[-1] == eos) if finished else len(own) == 6
        assert (tokens[~mask] == policy[1].pad_token_id).all()


def test_greedy_completions_are_those_of_generate(policy):
    model, tokenizer = policy
    greedy = sample(model, tokenizer, PROMPTS, 1, 10)
    encoded = tokenizer(PROMPTS, padding=True, padding_side="left", return_tensors="pt")
    generated = model.generate(
        input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, do_sample=False, max_new_tokens=10,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )[:, encoded.input_ids.shape[1] :]
    assert torch.equal(greedy.tokens, generated)
    assert greedy.texts(tokenizer) == tokenizer.batch_decode(generated, skip_special_tokens=True)


def test_first_tokens_follow_the_law(policy):
    """Pearson's statistic of 20,000 draws stays below the 1 − 1e-6 quantile of its law."""
    from scipy.stats import chi2

    model, tokenizer = policy
    draws = 20_000
    rollouts = sample(model, tokenizer, PROMPTS[:1], draws, 1, seeded(5))
    with torch.no_grad():
        law = model(**tokenizer(PROMPTS[:1], return_tensors="pt")).logits[0, -1].double().softmax(-1)
    expected = draws * law
    seen = torch.bincount(rollouts.tokens[:, 0], minlength=len(law)).double()
    often = expected > 5
    statistic = ((seen - expected)[often] ** 2 / expected[often]).sum().item()
    assert statistic < chi2.ppf(1 - 1e-6, int(often.sum()))


@pytest.mark.parametrize(("temperature", "top_p"), [(0.5, 1.0), (1.0, 0.6)])
def test_log_probabilities_are_those_of_the_law_sampled_from(policy, temperature, top_p):
    model, tokenizer = policy
    rollouts = sample(model, tokenizer, PROMPTS[:1], 300, 1, seeded(), temperature, top_p)
    with torch.no_grad():
        law = (model(**tokenizer(PROMPTS[:1], return_tensors="pt")).logits[0, -1].double() / temperature).softmax(-1)
    ordered, order = law.sort(descending=True)
    nucleus = order[: int((ordered.cumsum(0) < top_p).sum()) + 1] if top_p < 1 else order
    assert set(rollouts.tokens[:, 0].tolist()) <= set(nucleus.tolist())
    expected = (law / law[nucleus].sum()).log()[rollouts.tokens[:, 0]]
    torch.testing.assert_close(rollouts.logp[:, 0].double(), expected, atol=1e-5, rtol=0)


def test_selected_rows_lose_only_padding(policy):
    rollouts = sample(*policy, PROMPTS, 6, 12, seeded(2))
    for keep in (torch.tensor([16, 2, 13]), torch.tensor([12, 17])):
        chosen = rollouts.rows(keep).trimmed()
        assert chosen.mask.any(0).all() and chosen.prompt_mask.any(0).all()
        for row, i in enumerate(keep):
            assert torch.equal(chosen.tokens[row][chosen.mask[row]], rollouts.tokens[i][rollouts.mask[i]])
        logp, _ = token_logp(policy[0], chosen)
        torch.testing.assert_close(logp.sum(1), rollouts.logp[keep].sum(1), atol=1e-5, rtol=0)


def test_gradient_of_the_log_probability(policy):
    """The directional derivative along a random direction, against a central difference in float64."""
    model, tokenizer = policy
    rollouts = sample(model, tokenizer, PROMPTS, 2, 8, seeded(4))
    exact = models.tiny(tokenizer, hidden_size=16, layers=2, heads=2, max_length=64, seed=0).double().eval()
    exact.load_state_dict(model.state_dict())
    # the logits are rounded to float32, so the step is large enough for them to resolve
    token_logp(exact, rollouts)[0].sum().backward()
    parameters = list(exact.parameters())
    direction = [torch.randn(p.shape, generator=seeded(6), dtype=p.dtype) for p in parameters]
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, direction)).item()
    values = []
    with torch.no_grad():
        for step in (1e-3, -2e-3):
            for p, d in zip(parameters, direction):
                p.add_(step * d)
            values.append(token_logp(exact, rollouts)[0].double().sum().item())
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(slope, rel=2e-2)


def test_bad_input(policy):
    model, tokenizer = policy
    with pytest.raises(ValueError, match="prompts is empty"):
        sample(model, tokenizer, [], 2, 4, seeded())

    class Bare:
        eos_token_id, pad_token_id = 1, None

    with pytest.raises(ValueError, match="set pad_token"):
        sample(model, Bare(), PROMPTS, 2, 4, seeded())


def test_a_prompt_of_another_alphabet_and_a_sequence_that_is_too_long(policy):
    with pytest.raises(ValueError, match="choose a model that goes with the task"):
        sample(*policy, ["What is 2+2?"], 2, 4, seeded())
    with pytest.raises(ValueError, match="max_new_tokens must be at most 56, got 57"):
        sample(*policy, PROMPTS, 1, 57, seeded())
    assert len(sample(*policy, PROMPTS, 1, 56, seeded())) == 3


def test_an_empty_selection_is_empty(policy):
    rollouts = sample(*policy, PROMPTS, 1, 4, seeded())
    empty = rollouts.rows(slice(0, 0)).trimmed()
    assert isinstance(empty, Rollouts) and empty.tokens.shape == (0, 0)
