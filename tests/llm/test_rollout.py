"""Sampling and scoring, against one-row forward passes without padding or cache and against `model.generate`.

Every test is run twice: as for a small model, and as for a large one.
"""

import copy

import pytest
import torch
from pmdllm import models, rollout
from pmdllm.logp import token_logp
from pmdllm.rollout import Rollouts, encode, fitting, sample

PROMPTS = ["1+2=", "3*4-5+6=", "7="]


@pytest.fixture(autouse=True, params=["small", "large"])
def size(request, monkeypatch):
    if request.param == "large":
        monkeypatch.setattr(models, "LARGE", 0)
    return request.param


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


def test_recorded_log_probabilities_are_the_models(policy):
    rollouts = sample(*policy, PROMPTS, 5, 12, seeded())
    logp, entropy = token_logp(policy[0], rollouts)
    assert len(rollouts) == 15
    assert torch.allclose(rollouts.logp, logp, atol=1e-5)
    for prompt, tokens, i in rows(rollouts, 5):
        expected, uncertainty = by_hand(*policy, prompt, tokens)
        mask = rollouts.mask[i]
        torch.testing.assert_close(rollouts.logp[i][mask].double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(entropy[i][mask].double(), uncertainty, atol=1e-5, rtol=0)
        assert (rollouts.logp[i][~mask] == 0).all() and (entropy[i][~mask] == 0).all()


def test_a_completion_ends_with_its_end_of_sequence_or_is_truncated(policy):
    eos = policy[1].eos_token_id
    rollouts = sample(*policy, PROMPTS, 40, 6, seeded(1))
    ended = rollouts.ended
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
        for step in (3e-4, -6e-4):
            for p, d in zip(parameters, direction):
                p.add_(step * d)
            values.append(token_logp(exact, rollouts)[0].double().sum().item())
    assert (values[0] - values[1]) / 6e-4 == pytest.approx(slope, rel=2e-2)


def test_bad_input(policy):
    model, tokenizer = policy
    with pytest.raises(ValueError, match="prompts is empty"):
        sample(model, tokenizer, [], 2, 4, seeded())
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        sample(model, tokenizer, PROMPTS, 0, 4, seeded())
    with pytest.raises(ValueError, match="temperature must be positive, got 0; greedy"):
        sample(model, tokenizer, PROMPTS, 2, 4, seeded(), temperature=0)
    with pytest.raises(ValueError, match="top_p must be in"):
        sample(model, tokenizer, PROMPTS, 2, 4, seeded(), top_p=0.0)

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


def ending_at(model, place, value):
    """A copy of a model whose generation or model configuration declares end tokens."""
    copied = copy.deepcopy(model)
    getattr(copied, place).eos_token_id = value
    return copied


@pytest.mark.parametrize("place", ["generation_config", "config"])
def test_a_completion_ends_at_every_end_token_that_the_model_declares(policy, place):
    model, tokenizer = policy
    seven = tokenizer("7").input_ids[0]
    for declared in (seven, [tokenizer.eos_token_id, seven]):
        rollouts = sample(ending_at(model, place, declared), tokenizer, PROMPTS, 40, 6, seeded(1))
        last = [tokens[mask][-1].item() for tokens, mask in zip(rollouts.tokens, rollouts.mask)]
        assert {seven, tokenizer.eos_token_id} <= set(last)
        for tokens, mask, ended in zip(rollouts.tokens, rollouts.mask, rollouts.ended):
            inner = tokens[mask][:-1].tolist()
            assert seven not in inner and tokenizer.eos_token_id not in inner
            assert ended == (tokens[mask][-1].item() in (seven, tokenizer.eos_token_id))


@pytest.mark.parametrize("value", ["</s>", [1, "</s>"], -1, 1.5])
@pytest.mark.parametrize("place", ["generation_config", "config"])
def test_an_end_token_that_is_no_token_number_is_named(policy, place, value):
    model = copy.deepcopy(policy[0])
    object.__setattr__(getattr(model, place), "eos_token_id", value)  # past what Transformers checks
    with pytest.raises(ValueError, match=r"eos_token_id of the model's \w+ must be one token number.*, got") as caught:
        sample(model, policy[1], PROMPTS, 2, 4, seeded())
    assert repr(value) in str(caught.value) and place.removeprefix("generation_")[:6] in str(caught.value)


def test_a_completion_ends_with_the_stop_text_and_not_before(policy):
    """The same draws without and with stop texts: each is the other cut after the first of them."""
    model, tokenizer = policy
    whole, cut = (sample(model, tokenizer, PROMPTS, 60, 12, seeded(1), stop=stop) for stop in ((), ("+", "12")))
    stopped = 0
    for text, tokens, mask, ended, free in zip(
        whole.texts(tokenizer), cut.tokens, cut.mask, cut.ended, whole.ended, strict=True
    ):
        places = [text.find(stop) + len(stop) for stop in ("+", "12") if stop in text]
        expected = text[: min(places)] if places else text
        assert tokenizer.decode(tokens[mask], skip_special_tokens=True) == expected
        assert bool(ended) == bool(places or free)
        stopped += bool(places)
    assert 10 < stopped < 170


def test_unused_rows_of_the_vocabulary_may_have_no_probability(policy):
    """Logits of −inf: entropy and its gradient are those over the tokens that are left."""

    model, tokenizer = policy
    nine, masked = tokenizer("9").input_ids[0], copy.deepcopy(model)

    def without_nine(**inputs):
        output = type(masked).forward(masked, **inputs)
        output.logits[..., nine] = -torch.inf
        return output

    masked.forward = without_nine
    rollouts = sample(model, tokenizer, PROMPTS, 3, 5, seeded(1))
    rollouts = rollouts.rows(~(rollouts.tokens == nine).any(1))
    logp, entropy = token_logp(masked, rollouts)
    with torch.no_grad():
        expected_logp, _ = token_logp(model, rollouts)
    assert torch.isfinite(entropy).all() and (entropy[rollouts.mask] > 0).all()
    assert (logp[rollouts.mask] > expected_logp[rollouts.mask]).all()
    logp.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in masked.parameters() if p.grad is not None)


def test_a_model_whose_weights_are_not_numbers_is_named(policy):
    broken = copy.deepcopy(policy[0])
    next(broken.parameters()).data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="logits are not numbers"):
        sample(broken, policy[1], PROMPTS, 1, 4, seeded())


def with_specials(tokenizer, template="", chat_template=None):
    """A copy of a tokenizer that puts beginning and end of sequence around a text as `template` says."""
    from tokenizers import processors

    copied = copy.deepcopy(tokenizer)
    copied.add_special_tokens({"bos_token": "<bos>"})
    names = [("<bos>", copied.bos_token_id), ("<eos>", copied.eos_token_id)]
    if template:
        copied.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=names)
    copied.chat_template = chat_template
    return copied


def test_prompts_have_one_beginning_and_no_end(policy):
    tokenizer = with_specials(policy[1], "<bos> $A <eos>")
    bos, own = tokenizer.bos_token_id, policy[1]("1+2=").input_ids
    assert tokenizer("1+2=").input_ids == [bos, *own, tokenizer.eos_token_id]
    assert encode(tokenizer, ["1+2=", "<bos>1+2="]) == [[bos, *own]] * 2
    assert encode(tokenizer, ["1+2=<eos>"]) == [[bos, *own, tokenizer.eos_token_id]]  # what the user wrote stays


def test_the_models_chat_template_is_used_where_there_is_one(policy):
    template = (
        "{{ bos_token }}{% for m in messages %}{{ '1' if m.role == 'system' else '2' }}{{ m.content }}="
        "{% endfor %}{% if add_generation_prompt %}3{% endif %}"
    )
    plain, chatty = policy[1], with_specials(policy[1], "<bos> $A", template)
    bos = [chatty.bos_token_id]
    assert encode(plain, ["7+7"]) == [plain("7+7").input_ids]
    assert encode(chatty, ["7+7"]) == [bos + plain("27+7=3").input_ids]
    assert encode(chatty, ["7+7"], system_prompt="9") == [bos + plain("19=27+7=3").input_ids]
    assert encode(chatty, ["7+7"], chat="off") == [bos + plain("7+7").input_ids]
    with pytest.raises(ValueError, match="chat must be auto or off for a model without a chat template"):
        encode(plain, ["7"], chat="on")
    with pytest.raises(ValueError, match="system_prompt needs a chat template"):
        encode(plain, ["7"], system_prompt="9")
    with pytest.raises(ValueError, match="got an empty prompt"):
        encode(plain, ["7", ""])


def test_prompts_that_leave_no_room_are_told(policy):
    fits = fitting(*policy, max_new_tokens=60)
    assert fits(["1+2=", "1+2+3="]) == [True, False]
    prompts, chatty = ["7" * n for n in range(1, 40)], copy.deepcopy(policy[1])
    chatty.chat_template = "{% for m in messages %}+{{ m.content }}={% endfor %}"
    for tokenizer in (policy[1], chatty):
        lengths = [len(ids) for ids in encode(tokenizer, prompts)]
        for bound in range(20, 64):
            fits = fitting(policy[0], tokenizer, bound)
            for some in (prompts, prompts[:5], prompts[-3:]):
                assert fits(some) == [lengths[len(prompt) - 1] <= 64 - bound for prompt in some]
    with pytest.raises(ValueError, match=r"cannot be encoded .* the first is '7x'"):
        fits(["7x", "7"])


def test_a_prompt_is_read_once_for_its_group(policy, monkeypatch):
    model, sizes = policy[0], []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **inputs: sizes.append(inputs["input_ids"].shape) or forward(**inputs))
    sample(*policy, PROMPTS, 5, 3, seeded())
    assert sizes[0] == (3, 8) and all(size == (15, 1) for size in sizes[1:])


def test_completions_that_have_ended_leave_the_batch_of_a_large_model(policy, monkeypatch, size):
    """What is left to compute never exceeds the running completions by more than a third, and the result is whole."""
    batches = []
    hook = policy[0].register_forward_pre_hook(
        lambda *given: batches.append(len(given[2]["input_ids"])), with_kwargs=True
    )
    running = sample(*policy, PROMPTS, 40, 30, seeded(1)).mask.sum(0).tolist()
    hook.remove()
    assert batches[0] == 3 and running[-1] < 60
    if size == "small":
        assert set(batches[1:]) == {120}
    else:
        assert all(left <= batch <= left / 0.75 + 1 for batch, left in zip(batches[1:], running[1:], strict=True))


def test_a_batch_that_does_not_fit_the_memory_is_drawn_in_pieces(policy, monkeypatch, size):
    """Greedy completions do not depend on the pieces; of sampled ones each is as likely as recorded."""
    whole = sample(*policy, PROMPTS, 2, 12)
    monkeypatch.setattr(rollout, "_rows_at_once", lambda model, length: 2)
    pieces = sample(*policy, PROMPTS, 2, 12)
    assert torch.equal(pieces.tokens, whole.tokens) and torch.equal(pieces.mask, whole.mask)
    assert torch.equal(pieces.prompt_ids, whole.prompt_ids) and torch.equal(pieces.ended, whole.ended)
    drawn = sample(*policy, PROMPTS, 3, 12, seeded(3))
    assert len(drawn) == 9 and drawn.logp.shape == drawn.tokens.shape
    torch.testing.assert_close(drawn.logp, token_logp(policy[0], drawn)[0], atol=1e-5, rtol=0)


def test_what_is_drawn_at_once_is_bounded_for_a_large_model(policy, size):
    rows = [rollout._rows_at_once(policy[0], length) for length in (100, 1000, 10_000)]
    if size == "small":
        assert rows == [float("inf")] * 3
    else:  # float32 keys and values of 2 layers of width 16, and 32 bytes for each of 16 tokens
        assert rows == [2**29 / (length * 4 * 2 * 2 * 16 + 32 * 16) for length in (100, 1000, 10_000)]
