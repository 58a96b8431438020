"""Rollouts with the log-probabilities of the law they were drawn from, and the log-probabilities a policy gives them.

A group is the n completions y_1, ..., y_n of one prompt x. A completion is a token sequence that ends with one
of the model's end tokens, or is truncated after ``max_new_tokens`` without one. Its log-probability is a sum over its
tokens, the end token included (Statement 17)::

    log π(y|x) = Σ_t mask_t · log π(y_t | x, y_<t)

π_old is the law sampled from: log-probabilities are recorded while sampling, after temperature and truncation, in
float32 whatever the type of the model's arithmetic. On CPU they agree with a fresh forward pass to float32 rounding.

Prompts are padded on the left, completions on the right. A prompt is read once for its whole group. Keys and values
are cached in buffers of their final length, in the type that the model multiplies. Where the model is large,
completions that have ended leave the batch.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, TopPLogitsWarper
from transformers.cache_utils import DynamicLayer

from .logp import positions
from .models import is_large

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Rollouts", "encode", "end_tokens", "fitting", "longest_sequence", "padded", "sample"]

SCORING = 32  # bytes that drawing a token takes for each token of the vocabulary
LEFT = 0.75  # share of the batch at which those that have ended leave it


@dataclass
class Rollouts:
    """B completions with their prompts, group after group.

    Attributes
    ----------
    prompt_ids, prompt_mask : int64 and bool tensor (B, P)
        Prompts, padded on the left, and where their own tokens are.
    tokens, mask : int64 and bool tensor (B, T)
        Completions, padded on the right, and where their own tokens are, the end token included.
    logp : float32 tensor (B, T)
        log π_old of each token, in nats; 0 where masked.
    ended : bool tensor (B,)
        Whether the completion ended by itself; False where truncated.
    """

    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor
    logp: torch.Tensor
    ended: torch.Tensor

    def __len__(self):
        return len(self.tokens)

    def rows(self, index: Any) -> "Rollouts":
        """Return the rows `index` (a slice, indices or booleans)."""
        return Rollouts(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def trimmed(self) -> "Rollouts":
        """Return the same without columns that are padding in every row."""
        prompt, completion = self.prompt_mask.any(0), self.mask.any(0)
        return Rollouts(
            self.prompt_ids[:, prompt], self.prompt_mask[:, prompt],
            self.tokens[:, completion], self.mask[:, completion], self.logp[:, completion], self.ended,
        )  # fmt: skip

    def texts(self, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
        """Decode the completions, special tokens left out."""
        rows = [row[mask].tolist() for row, mask in zip(self.tokens.cpu(), self.mask.cpu())]
        return tokenizer.batch_decode(rows, skip_special_tokens=True)


@torch.no_grad()
def sample(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[str],
    n: int,
    max_new_tokens: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    chat: str = "auto",
    system_prompt: str | None = None,
    stop: Sequence[str] = (),
    advance: Callable[[int], Any] | None = None,
) -> "Rollouts":
    """Draw n completions of every prompt and record the log-probability of each token.

    Parameters
    ----------
    model, tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        A causal language model, whose dropout is not switched off here; a padding and an end-of-sequence token.
    prompts : list of str
        What the user says.
    n, max_new_tokens : int
        Completions per prompt, and tokens after which one is truncated, at least 1.
    generator : torch.Generator, optional
        On the model's device. Without one completions are greedy (temperature → 0) and `logp` is the model's own.
    temperature, top_p : float
        Logits are divided by `temperature`, then all but the nucleus of mass `top_p` is cut off. Training samples from
        the policy itself: both 1.
    chat, system_prompt
        As in `encode`.
    stop : sequence of str
        Texts at which a completion ends, besides the end tokens; they are the last it holds.
    advance : callable, optional
        Told how many completions were drawn, whenever some were.

    Returns
    -------
    Rollouts
        ``len(prompts) * n`` completions, the group of the first prompt first.

    Raises
    ------
    ValueError
        No prompts, a number out of its range, a prompt that the tokenizer cannot encode, a completion that would
        exceed the model's longest sequence, or a tokenizer without padding or end-of-sequence token.
    FloatingPointError
        The model's logits are not numbers: its weights have diverged or are damaged.
    """
    if not prompts:
        raise ValueError("prompts is empty, but at least one prompt is needed.")
    for name, count in (("n", n), ("max_new_tokens", max_new_tokens)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}.")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive, got {temperature}; greedy completions take generator=None.")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}.")
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise ValueError("tokenizer needs a padding and an end-of-sequence token: set pad_token and eos_token.")
    prompt_ids, prompt_mask = (
        tensor.to(model.device)
        for tensor in padded(encode(tokenizer, prompts, chat, system_prompt), tokenizer.pad_token_id, "left")
    )
    room = longest_sequence(model) - prompt_ids.shape[1]
    if max_new_tokens > room:
        raise ValueError(
            f"max_new_tokens must be at most {room:g}, got {max_new_tokens}: the model reads "
            f"{longest_sequence(model):g} tokens and the longest prompt has {prompt_ids.shape[1]}."
        )
    settings = max_new_tokens, generator, temperature, TopPLogitsWarper(top_p) if top_p < 1 else None, stop
    step = int(min(len(prompts), max(1, _rows_at_once(model, prompt_ids.shape[1] + max_new_tokens) / n)))
    starts = range(0, len(prompts), step)
    drawn = []
    for some in (slice(start, start + step) for start in starts):
        drawn.append(_draw(model, tokenizer, prompt_ids[some], prompt_mask[some], n, *settings))
        if advance:
            advance(len(drawn[-1]))
    return _joined(drawn, tokenizer.pad_token_id)


def _draw(model, tokenizer, prompt_ids, prompt_mask, n, max_new_tokens, generator, temperature, cut, stop):
    """Sample completions of some prompts (P, length) at once."""
    ends = torch.tensor(end_tokens(model, tokenizer), device=model.device)
    logits, cache = _prefill(model, prompt_ids, prompt_mask, n, max_new_tokens)
    prompt_ids, prompt_mask = prompt_ids.repeat_interleave(n, 0), prompt_mask.repeat_interleave(n, 0)
    place = positions(prompt_mask)[:, -1:]
    shape = len(prompt_ids), max_new_tokens
    tokens = torch.full(shape, tokenizer.pad_token_id, device=model.device)
    mask, logp = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros(shape, device=model.device)
    running = torch.ones(len(tokens), dtype=torch.bool, device=model.device)
    rows = torch.arange(len(tokens), device=model.device)  # whose next tokens are computed
    closing = _closing(tokenizer, logits.shape[-1], tuple(stop)).to(model.device) if stop else None
    large = is_large(model)
    leaves = large and all(isinstance(layer, DynamicLayer) for layer in cache.layers)
    for step in range(max_new_tokens):
        if step:
            attention = torch.cat([prompt_mask[rows], mask[rows, :step]], 1)
            logits = _last_logits(model, tokens[rows, step - 1 : step], attention, place[rows] + step, cache)
        logits = logits.float() / temperature
        law = torch.log_softmax(logits if cut is None else cut(None, logits), -1)
        if not torch.isfinite(law.amax(-1)).all():
            raise FloatingPointError("the model's logits are not numbers: its weights have diverged or are damaged")
        if generator is None:
            chosen = law.argmax(-1, keepdim=True)
        elif large:
            level = torch.rand(shape[0], 1, dtype=torch.float64, device=model.device, generator=generator)
            chosen = _quantile(law.exp(), level[rows])
        else:
            chosen = torch.multinomial(law.exp(), 1, generator=generator)
        live = running[rows]
        tokens[rows, step] = torch.where(live, chosen[:, 0], tokenizer.pad_token_id)
        logp[rows, step] = torch.where(live, law.gather(1, chosen)[:, 0], 0.0)
        mask[rows, step] = live
        running[rows] = live & ~torch.isin(chosen[:, 0], ends)
        if stop:
            maybe = running.clone()
            maybe[rows] &= closing[chosen[:, 0]]
            running[maybe] = ~_stopped(tokenizer, tokens[maybe, : step + 1], stop)
        left = int(running.sum())
        if left == 0:
            break
        if leaves and left <= LEFT * len(rows):
            cache.batch_select_indices(running[rows].nonzero()[:, 0])
            rows = running.nonzero()[:, 0]
    width = step + 1
    return Rollouts(prompt_ids, prompt_mask, tokens[:, :width], mask[:, :width], logp[:, :width], ~running)


def _joined(batches, pad):
    """One batch of several whose prompts have the same width."""
    if len(batches) == 1:
        return batches[0]
    width = max(batch.tokens.shape[1] for batch in batches)
    fill = {"tokens": pad, "mask": False, "logp": 0.0}
    return Rollouts(**{
        name: torch.cat([
            torch.nn.functional.pad(column, (0, width - column.shape[1]), value=fill[name]) if name in fill else column
            for column in (getattr(batch, name) for batch in batches)
        ])
        for name in (field.name for field in fields(Rollouts))
    })  # fmt: skip


def _rows_at_once(model, length):
    """Sequences of a large model for whose keys, values and scores there is memory: 0.5 GiB, or half of a GPU."""
    if not is_large(model):
        return math.inf
    config, gpu = model.config.get_text_config(), model.device.type == "cuda"
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    state = (2 if torch.is_autocast_enabled(model.device.type) else 4) * 2 * config.num_hidden_layers * heads * width
    memory = torch.cuda.get_device_properties(model.device).total_memory / 2 if gpu else 2**29
    return memory / (length * state + SCORING * config.vocab_size)


def padded(rows: list[list[int]], pad: int, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Lists of token ids as one tensor (B, length), padded on a side, and the mask of their own tokens."""
    rows = [torch.tensor(ids) for ids in rows]
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side).bool()
    return pad_sequence(rows, batch_first=True, padding_value=pad, padding_side=side), mask


def encode(
    tokenizer: "PreTrainedTokenizerBase", prompts: list[str], chat: str = "auto", system_prompt: str | None = None
) -> list[list[int]]:
    """Encode prompts as the model expects them: in its own chat template, or as they are.

    Without a template the tokenizer's own special tokens are added, but a prompt begins with one beginning-of-sequence
    token at most, even if it spells one, and does not end with an end-of-sequence token that it does not spell.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Of the model.
    prompts : list of str
        What the user says.
    chat : {'auto', 'on', 'off'}
        Whether a prompt is a user's turn in the tokenizer's chat template; auto: if it has one.
    system_prompt : str, optional
        The system's turn before it.

    Returns
    -------
    list of list of int
        Token ids of each prompt.

    Raises
    ------
    ValueError
        The tokenizer has no template or its template refuses, or it cannot encode a prompt.
    """
    templated = tokenizer.chat_template is not None if chat == "auto" else chat == "on"
    if templated and tokenizer.chat_template is None:
        raise ValueError("chat must be auto or off for a model without a chat template, got 'on'.")
    if system_prompt is not None and not templated:
        raise ValueError("system_prompt needs a chat template: set chat to on, with a model that has one.")
    try:
        if templated:
            system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
            turns = [[*system, {"role": "user", "content": prompt}] for prompt in prompts]
            texts = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            return tokenizer(texts, add_special_tokens=False).input_ids
        rows = tokenizer(list(prompts)).input_ids
    except Exception as error:  # the tokenizers library and templates raise nothing narrower
        raise ValueError(
            f"prompts cannot be encoded by the model's tokenizer ({' '.join(str(error).split())}), the first is "
            f"{prompts[0][:40]!r}: choose a model that goes with the task, for instance --model smollm2-135m after "
            "pmd-llm fetch smollm2-135m; the base reads digits, + - * ( ) = only."
        ) from error
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    doubled = [bos is not None and ids[:2] == [bos, bos] for ids in rows]
    spelled = [eos is not None and text.endswith(tokenizer.eos_token) for text in prompts]
    closed = [ids[-1 - own :] == [eos] * (1 + own) for ids, own in zip(rows, spelled)]
    rows = [ids[twice : len(ids) - end] for ids, twice, end in zip(rows, doubled, closed)]
    if not all(rows):
        raise ValueError("prompts must have at least one token each, got an empty prompt.")
    return rows


def fitting(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int,
    chat: str = "auto",
    system_prompt: str | None = None,
) -> Callable[[list[str]], list[bool]]:
    """Return a function that tells which of a list of prompts leave the model room for ``max_new_tokens`` tokens.

    Prompts are encoded one by one only where it matters. A tokenizer makes at most one token of an ASCII character, so
    one text with all their characters tells whether they can be encoded, and what the template adds.
    """
    room = longest_sequence(model) - max_new_tokens

    def lengths(prompts):
        return [len(ids) for ids in encode(tokenizer, prompts, chat, system_prompt)]

    def fits(prompts):
        characters = "".join(sorted(set().union(*prompts)))
        with contextlib.suppress(ValueError):  # which prompt it is, the prompts themselves tell
            if all(prompts) and characters.isascii() and max(map(len, prompts)) + lengths([characters])[0] <= room:
                return [True] * len(prompts)
        return [length <= room for length in lengths(prompts)]

    return fits


def longest_sequence(model: "PreTrainedModel") -> float:
    """Tokens of prompt and completion together that a model can read; infinite if its configuration does not say."""
    return getattr(model.config, "max_position_embeddings", None) or float("inf")


def end_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens that end a completion: those that the tokenizer or either configuration of the model declares.

    A ValueError names the place where something else than token numbers is declared.
    """
    generation, ends = getattr(model, "generation_config", None), set()
    for name, place in {"tokenizer": tokenizer, "configuration": model.config, "generation_config": generation}.items():
        declared = getattr(place, "eos_token_id", None)
        for token in declared if isinstance(declared, list | tuple) else [declared]:
            if token is not None and not (isinstance(token, Integral) and token >= 0):
                what = "must be one token number, at least 0, or a list of them"
                raise ValueError(f"eos_token_id of the model's {name} {what}, got {declared!r}: correct it there.")
            ends.add(token)
    return sorted(int(token) for token in ends if token is not None)


def _prefill(model, ids, mask, n, max_new_tokens):
    """Read each prompt once; return the logits (P n, V) after it, and the keys and values of n copies."""
    cache = DynamicCache(config=model.config)
    room = ids.shape[1] + max_new_tokens
    cache.layers = [_Buffer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    logits = _last_logits(model, ids, mask, positions(mask), cache).repeat_interleave(n, 0)
    cache.batch_repeat_interleave(n)
    return logits, cache


class _Buffer(DynamicLayer):
    """Keys and values of one layer, in tensors (B, heads, room, d) of which the first `length` tokens are used."""

    def __init__(self, room):
        super().__init__()
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states, value_states):
        """Make the buffers."""
        kind = key_states.device.type
        lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        self.keys, self.values = (
            states.new_empty((*states.shape[:-2], self.room, states.shape[-1]), dtype=lower or states.dtype)
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        """Append keys and values (B, heads, T, d); return all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.keys[:, :, start : self.length], self.values[:, :, start : self.length] = key_states, value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self):
        """Tokens so far."""
        return self.length


def _quantile(weights, level):
    """Column of each row (B, V) at a level (B, 1) of its distribution: one random number a draw, and not V."""
    cumulative = weights.double().cumsum(-1)
    return torch.searchsorted(cumulative, level * cumulative[:, -1:], right=True).clamp(max=weights.shape[-1] - 1)


@functools.lru_cache(maxsize=8)
def _closing(tokenizer, size, stop):
    """Tokens of a vocabulary (size,) that may complete a text of `stop`: those that hold the last character of one.

    A token on its own may be decoded without its space, or be a part of a character that is not ASCII: then any may.
    """
    last = {text[-1] for text in stop}
    if not all(character.isascii() and character != " " for character in last):
        return torch.ones(size, dtype=torch.bool)
    texts = tokenizer.batch_decode([[token] for token in range(size)], skip_special_tokens=True)
    return torch.tensor([not last.isdisjoint(text) for text in texts])


def _stopped(tokenizer, tokens, stop):
    """Whether one of the texts in `stop` has just been completed, a character being four tokens at most."""
    tails = tokens[:, -4 * max(map(len, stop)) :].tolist()
    texts = tokenizer.batch_decode(tails, skip_special_tokens=True)
    return torch.tensor([any(text in tail for text in stop) for tail in texts], dtype=torch.bool, device=tokens.device)


def _last_logits(model, ids, attention, positions, cache):
    return model(
        input_ids=ids, attention_mask=attention.long(), position_ids=positions, past_key_values=cache,
        logits_to_keep=1,
    ).logits[:, -1]  # fmt: skip

