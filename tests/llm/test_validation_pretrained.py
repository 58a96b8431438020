"""A pretrained network beside the theory, in small: Llamas made here, a tokenizer that merges some digits, a chat."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pmdllm import models
from pmdllm.cli import main
from pmdllm.config import from_preset
from pmdllm.losses import ALGORITHMS
from pmdllm.rollout import encode, sample
from pmdllm.study import plan, run
from pmdllm.validation import fit
from pmdllm.validation.declared import ValidateConfig, Validation, departures, report
from pmdllm.validation.enumeration import Policy, Trie
from pmdllm.validation.sums import ChatSums
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as algorithms
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pmdtheory import laws

CHAT = (
    "{% for turn in messages %}{{ turn['role'][0] + turn['content'] + '<eos>' }}{% endfor %}"
    "{% if add_generation_prompt %}a{% endif %}"
)


def tokenizer_of(merges, chat_template=CHAT):
    tokens = ["<pad>", "<eos>", *"0123456789+= ua", *map("".join, merges)]
    inner = Tokenizer(algorithms.BPE({token: index for index, token in enumerate(tokens)}, merges))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Split("+", "isolated"), decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", padding_side="left", chat_template=chat_template
    )


TOKENIZER = tokenizer_of([("1", "0"), ("1", "2")])


def llama(seed=0, layers=3):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False, initializer_range=0.2,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, max_position_embeddings=256,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def policy(blocks=0, count=13, seed=0, layers=3):
    return Policy(llama(seed, layers), TOKENIZER, ChatSums(TOKENIZER, count), blocks)


def prompts(policy):
    """Four, of different lengths in tokens."""
    texts = policy.task.prompts([0, 10, 40, 60])
    assert len({len(ids) for ids in encode(TOKENIZER, texts, "off")}) > 1
    return texts


@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
def test_every_answer_has_the_probability_of_its_tokens(blocks):
    """Against one forward pass for each prompt and answer, unpacked and unpadded; malformed is what is left."""
    made = policy(blocks)
    texts = prompts(made)
    with torch.no_grad():
        table = made(texts)
        for row, prompt in zip(table, encode(TOKENIZER, texts, "off")):
            plain = []
            for answer in range(13):
                ids = [*TOKENIZER(str(answer)).input_ids, 1]
                law = torch.log_softmax(made.model(torch.tensor([prompt + ids])).logits[0].double(), -1)
                plain.append(sum(law[len(prompt) - 1 + step, token].item() for step, token in enumerate(ids)))
            assert row[:-1].numpy() == pytest.approx(plain, abs=2e-5)
            assert math.exp(row[-1]) == pytest.approx(1 - sum(map(math.exp, plain)), abs=2e-6)
    assert table.exp().sum(1).numpy() == pytest.approx(1, abs=1e-12)


def test_answers_of_one_and_two_tokens_are_in_the_trie():
    """10 and 12 are tokens here, 11 is two: beginnings are the empty one, 0 to 9, 10, 12, and 1 before 1."""
    trie = policy().trie
    assert [len(answer) for answer in trie.answers] == [2] * 11 + [3, 2]
    assert trie.size == 1 + 10 + 2 + 1


def test_generated_completions_are_read_as_actions():
    """Frequencies of what is sampled, as from any model, against the policy."""
    made = policy(seed=3)
    text = made.task.prompts([5])
    drawn = sample(
        made.model, TOKENIZER, text, 20_000, made.max_new_tokens, torch.Generator().manual_seed(0), chat="off"
    )
    counts = np.bincount(made.actions(drawn), minlength=14)
    with torch.no_grad():
        p = made(text).exp().numpy()[0]
    often = p * 20_000 > 20
    assert often.sum() >= 3 and often[-1]
    assert (np.abs(counts - 20_000 * p) < 4.5 * np.sqrt(20_000 * p * (1 - p)) + 1)[often].all()


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_the_gradient_is_that_of_finite_differences(blocks):
    """Along a direction that is half random and half the gradient's own; the norms of a Llama compute in float32."""
    made = policy(blocks)
    made.model.double()
    texts, generator = prompts(made), torch.Generator().manual_seed(1)
    weight = torch.randn(4, 14, generator=generator, dtype=torch.float64)
    gradient = parameters_to_vector(torch.autograd.grad((made(texts) * weight).sum(), made.trained))
    other = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
    way, start = gradient / gradient.norm() + other / other.norm(), parameters_to_vector(made.trained).detach()

    @torch.no_grad()
    def value(step):
        vector_to_parameters(start + step * way, made.trained)
        return (made(texts) * weight).sum().item()

    slope = (8 * (value(h := 1e-2) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    assert slope == pytest.approx((gradient @ way).item(), rel=1e-3)


def test_frozen_blocks_are_left_out_without_a_change():
    """Values and gradients as through the whole network, for prompts seen before, others and another padding."""
    part, whole = policy(1), policy(0)
    first, second = prompts(part)[:2], prompts(part)[::-1]
    part(first)
    for texts in (first, second, first[1:]):
        ours, plain = part(texts), whole(texts)
        assert ours.detach().numpy() == pytest.approx(plain.detach().numpy(), abs=1e-5)
    block = whole.model.model.layers[-1]
    ours = torch.autograd.grad(part(second).square().sum(), part.trained)
    plain = torch.autograd.grad(whole(second).square().sum(), list(block.parameters()))
    assert len(ours) == len(plain) == len(list(block.parameters()))
    for a, b in zip(ours, plain):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())
    assert len(part.model.model.layers) == 3


def test_a_copy_shares_what_is_not_trained():
    start = policy(1)
    twin = start.copy()
    shared = [a is b for a, b in zip(start.model.parameters(), twin.model.parameters())]
    assert shared == [not parameter.requires_grad for parameter in start.model.parameters()] and not all(shared)
    before = start(prompts(start)).detach()
    with torch.no_grad():
        twin.trained[0].add_(1.0)
    assert torch.equal(start(prompts(start)), before) and not torch.equal(twin(prompts(start)), before)


@pytest.mark.parametrize("algorithm, expected", [("pmd-mean", 1), ("pmd-part", 0)])
def test_the_last_block_alone_reaches_the_law_of_its_loss(algorithm, expected):
    """From a base that has learned to write answers; the laws themselves are tested elsewhere."""
    base, tau = policy(1, seed=1, layers=2), 0.3
    numbers = [3, 60]
    texts = base.task.prompts(numbers)
    fit.lbfgs(base, lambda: -base(texts)[:, :-1].mean(), 10)
    start, fitted = fit.anchor(base, numbers, "graded"), base.copy()
    law = laws.predict(start.policy, start.rewards.numpy(), tau, ALGORITHMS[algorithm].baseline.name)
    fit.lbfgs(fitted, fit.population(fitted, start, ALGORITHMS[algorithm], tau, law), 100, history=20)
    with torch.no_grad():
        log_ratio = (fitted(texts).log_softmax(-1) - start.logp).numpy()
    compared = laws.compare(start.policy, start.rewards.numpy(), tau, log_ratio, law)
    assert start.policy[:, -1].max() < 0.8
    assert np.abs(compared["share"] - expected).max() < 0.05
    assert compared["r2_law"].min() > 0.99
    assert compared["r2_kl_law" if expected else "r2_lambert"].max() < 0.97


def test_what_a_chat_asks_for():
    """All sums below the count but the four that are answered, each behind those; reward by distance."""
    task = ChatSums(TOKENIZER, 13)
    texts = task.prompts(range(task.size))
    assert task.size == ChatSums.how_many(13) == 13 * 14 // 2 - 4 == len(set(texts))
    start = texts[0].rpartition("u")[0]
    turns = [text.removeprefix(start)[1:].removesuffix("=<eos>a").split("+") for text in texts]
    for text, (a, b), reward in zip(texts, turns, task.rewards(range(task.size), "graded")):
        assert f"u{a}+{b}=<eos>a" not in start and text.startswith(start) and int(a) + int(b) < 13
        assert reward[:-1] == pytest.approx([math.exp(-((y - int(a) - int(b)) ** 2) / 18) for y in range(13)])
        assert reward[-1] == 0
    for shot in start.split("u")[1:]:
        question, answer, _ = shot.split("<eos>")
        assert f"a{sum(map(int, question.removesuffix('=').split('+')))}" == answer


def test_what_cannot_be_enumerated_is_refused():
    with pytest.raises(ValueError, match=r"answers must be different .* got \[5, 0\] more than once"):
        Trie([(5, 0), (6, 0), (5, 0)])
    with pytest.raises(ValueError, match=r"none the beginning of another, got \[5\]"):
        Trie([(5,), (5, 0)])
    with pytest.raises(ValueError, match="blocks must be at most 3, the number that the model has, got 4"):
        policy(4)
    with pytest.raises(ValueError, match="model must have a chat template"):
        ChatSums(tokenizer_of([], chat_template=None), 10)


@pytest.mark.parametrize(
    "changes, refusal",
    [
        ({"blocks": 1}, "blocks must be 0 for a network that is trained from scratch"),
        ({"model": "m", "sizes": "5", "experiments": "training"}, "experiments must be others than training"),
        ({"model": "m", "sizes": "5", "experiments": "batch", "prompts": 300}, "prompts must be at most 206"),
        ({"model": "m", "sizes": "200", "experiments": "batch"}, r"sizes must be integers in \[1, 142\]"),
    ],
)
def test_options_that_do_not_go_together(changes, refusal):
    with pytest.raises(ValueError, match=refusal):
        ValidateConfig(**changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a pretrained network, as `pmdllm.models.load` reads it."""
    path = tmp_path_factory.mktemp("pretrained") / "model"
    models.save(llama(), TOKENIZER, path)
    return path


def test_every_experiment_takes_a_pretrained_network(folder, tmp_path):
    config = from_preset(
        ValidateConfig, "smollm2-135m", kind="validate", model=str(folder), output=str(tmp_path), seeds="0,1",
        experiments="population,rollouts,completions,batch,recursion,held-out", prompts=2, evaluations=3, steps=3, n=4,
        rollouts="4", sizes="3", taus="0.3", outer_steps=2, recursion_evaluations=2, recursion_steps=2, threads=1,
        held_out_steps=2, held_out_batch=2,
    )  # fmt: skip
    validation, runs = Validation(config), tmp_path / "runs"
    assert run(validation, tmp_path, runs, log=lambda line: None) == []
    assert plan(validation, tmp_path) == ([], [])
    assert plan(Validation(replace(config, blocks=2)), tmp_path)[0]
    table = pd.read_csv(tmp_path / "validate_pretrained.csv")
    assert set(table["experiment"]) == set(config.values("experiments")) and set(table["seed"]) == {0, 1}
    assert table["options"].str.startswith(f"model={folder} answers=20 blocks=1 ").all()
    assert np.isfinite(table["malformed"]).all()
    actions = pd.read_csv(tmp_path / "validate_pretrained_actions.csv")
    assert np.allclose(actions.groupby(["algorithm", "number"])["policy"].sum(), 1)
    assert len(departures(table)) and "± " in report(table)


def test_a_model_on_the_command_line_brings_its_preset(folder, tmp_path, capsys):
    arguments = ["--evaluations", "2", "--prompts", "1", "--threads", "1", "--seeds", "0", "--jobs", "1", "--output"]
    assert main(["validate", "--model", str(folder), *arguments, str(tmp_path)]) == 1  # far from the law, and says so
    text = capsys.readouterr().out
    assert "DEPARTS" in text and (tmp_path / "validate_pretrained.csv").exists()
    assert set(pd.read_csv(tmp_path / "validate_pretrained.csv")["algorithm"]) == {"pmd-mean", "pmd-part"}
