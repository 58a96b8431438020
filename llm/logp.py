"""Log-probabilities that a policy gives to completions, with their gradient, at a small cost where the model is large.

A completion's log-probability is a sum over its tokens, the end token included (Statement 17)::

    log π(y|x) = Σ_t mask_t · log π(y_t | x, y_<t)

Where products, not the number of operations, take the time (`pmdllm.models.is_large`), a prompt is read once for all
its completions in a pass: they continue from copies of its keys and values, through which gradients flow back. The
output layer, whose V columns per token are most of what a pass would have to remember, is applied only where a
completion's token is scored, to some of them at a time, and again in the backward pass.

`passes` cuts completions into forward passes that a bound on memory allows. What a pass remembers for its gradient
grows with its tokens, padding included, so completions of similar length go together; in which order is decided by the
number of tokens that are then computed.
"""

import math
import os
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from .models import is_large

if TYPE_CHECKING:
    from transformers import PreTrainedModel


__all__ = ["memory_for_passes", "passes", "positions", "token_logp"]

SCORES = 2**24  # numbers of an output layer at once: 64 MiB in float32, of which about four copies live
PROBED = 128  # tokens of the sequence from which the memory of a token is measured

GB = 2**30
BYTES_PER_WEIGHT = 18  # float32 weight, gradient and two moments, and a bfloat16 copy
PROGRAM = 1.15 * GB  # and what the allocator keeps
MOST_REMEMBERED = 16 * GB

_heads, _remembered = weakref.WeakKeyDictionary(), weakref.WeakKeyDictionary()


def token_logp(
    model: "PreTrainedModel", rollouts: Any, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log π(y_t | x, y_<t) of every token, with its gradient, and the entropy of every token's law, without.

    Both are float32 tensors (B, T) in nats, 0 where masked. ``temperature`` is that of the sampling, so that the policy
    ``model`` is compared with the law sampled from.
    """
    hidden, head = _hidden(model, rollouts)
    places = rollouts.mask.nonzero(as_tuple=True)
    hidden, tokens = hidden[places], rollouts.tokens[places]

    def score(hidden, tokens):
        law = torch.log_softmax(head(hidden).float() / temperature, -1)
        with torch.no_grad():
            entropy = -torch.where(law > -math.inf, law.exp() * law, 0.0).sum(-1)
        return law.gather(1, tokens[:, None])[:, 0], entropy

    most = max(1, SCORES // model.config.vocab_size)
    if len(tokens) <= most:
        logp, entropy = score(hidden, tokens)
    else:
        pieces = zip(hidden.split(most), tokens.split(most))
        scored = [checkpoint(score, *piece, use_reentrant=False) for piece in pieces]
        logp, entropy = (torch.cat(column) for column in zip(*scored))
    zeros = torch.zeros(rollouts.mask.shape, device=logp.device)
    return zeros.index_put(places, logp), zeros.index_put(places, entropy)


def passes(model: "PreTrainedModel", rollouts: Any, most_rows: int = 0, memory: float = math.inf) -> list[Any]:
    """Cut B completions into passes: index tensors that together hold every row once.

    Parameters
    ----------
    model : PreTrainedModel
        Whose passes they are.
    rollouts : pmdllm.rollout.Rollouts
        The completions.
    most_rows : int
        Completions in a pass; 0 for any number.
    memory : float
        Bytes that a pass may remember for its gradient; one completion is the least.
    """
    count = len(rollouts)
    most_rows = most_rows or count
    if not is_large(model) or math.isinf(memory):
        return torch.arange(count).split(most_rows)
    tokens = memory / _bytes_per_token(model)
    prompts = torch.unique(rollouts.prompt_ids, dim=0, return_inverse=True)[1].tolist()
    before, after = rollouts.prompt_mask.sum(1).tolist(), rollouts.mask.sum(1).tolist()
    orders = [
        sorted(range(count), key=lambda row: (before[row], prompts[row], after[row])),
        sorted(range(count), key=lambda row: (after[row], before[row], prompts[row])),
    ]
    plans = [_cut(order, prompts, before, after, most_rows, tokens, _shares(model)) for order in orders]
    return [torch.tensor(rows) for rows in min(plans, key=lambda plan: plan[0])[1]]


def memory_for_passes(model: "PreTrainedModel", gigabytes: float = 0.0) -> float:
    """Bytes that a pass may remember for its gradient if training may take so many gigabytes (2³⁰ bytes).

    Of 0 it takes 4 on a processor, half of the machine's where that is less, and 0.8 of a GPU's. What weights,
    gradients and AdamW's moments, their copies in bfloat16 and the program itself need is subtracted, and a
    third left for what lives for a moment; of 0 no pass takes more than 16, which no longer makes it faster. A small
    model has no bound.
    """
    if not is_large(model):
        return math.inf
    most = math.inf if gigabytes else MOST_REMEMBERED
    if not gigabytes:
        gpu = model.device.type == "cuda"
        whole = torch.cuda.get_device_properties(model.device).total_memory if gpu else _ram()
        gigabytes = 0.8 * whole / GB if gpu else min(4.0, 0.5 * whole / GB)
    room = gigabytes * GB - BYTES_PER_WEIGHT * model.num_parameters() - PROGRAM - 16 * SCORES
    return min(most, 0.65 * max(0.0, room))


def _ram():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cut(order, prompts, before, after, most_rows, most_tokens, shared):
    """Fill passes in an order of rows; return the tokens that they compute, padding included, and the passes."""
    total, size, cut, read, longest = 0, 0, [], set(), [0, 0]
    for row in order:
        if cut:
            longer = len(cut[-1]) + 1
            read, longest = {*read, prompts[row]}, [max(longest[0], before[row]), max(longest[1], after[row])]
            needed = (len(read) if shared else longer) * longest[0] + longer * longest[1]
        if not cut or longer > most_rows or needed > most_tokens:
            total, read, longest = total + size, {prompts[row]}, [before[row], after[row]]
            needed = sum(longest)
            cut.append([])
        cut[-1].append(row)
        size = needed
    return total + size, cut


def _hidden(model, rollouts):
    """States (B, T, d) from which each token of the completions is predicted, and the layer that does it."""
    body, head = _split(model)
    width = rollouts.tokens.shape[1]
    if body is None or not _shares(model):
        ids = torch.cat([rollouts.prompt_ids, rollouts.tokens], 1)
        mask = torch.cat([rollouts.prompt_mask, rollouts.mask], 1)
        given = {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions(mask), "use_cache": False}
        if body is None:
            return model(**given, logits_to_keep=width + 1).logits[:, -width - 1 : -1], torch.nn.Identity()
        return body(**given).last_hidden_state[:, -width - 1 : -1], head
    both = torch.cat([rollouts.prompt_ids, rollouts.prompt_mask.long()], 1)
    both, rows = torch.unique(both, dim=0, return_inverse=True)
    ids, mask = both.chunk(2, 1)
    place, cache = positions(mask), DynamicCache(config=model.config)
    last = body(input_ids=ids, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True)
    last = last.last_hidden_state[rows, -1:]
    if width == 1:
        return last, head
    cache.batch_select_indices(rows)
    rest = body(
        input_ids=rollouts.tokens[:, :-1],
        attention_mask=torch.cat([rollouts.prompt_mask, rollouts.mask[:, :-1]], 1).long(),
        position_ids=place[rows, -1:] + torch.arange(1, width, device=ids.device),
        past_key_values=cache, use_cache=True,
    ).last_hidden_state  # fmt: skip
    return torch.cat([last, rest], 1), head


def _bytes_per_token(model):
    """What a pass remembers for the gradient of one more token of a sequence, of no meaning and of a usual length."""
    if model not in _remembered:
        longest = int(min(PROBED, getattr(model.config, "max_position_embeddings", None) or PROBED))
        more, less = (_bytes_remembered(model, count) for count in (longest, longest // 2))
        _remembered[model] = (more - less) / (longest - longest // 2)
    return _remembered[model]


def _bytes_remembered(model, count):
    ids, sizes = (torch.arange(count, device=model.device) % model.config.vocab_size)[None], {}

    def note(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a graph that held its own output would never be freed

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    del output
    return sum(sizes.values())


def _shares(model):
    """Whether a prompt is read once for its completions: not where activations are recomputed, without any cache."""
    if not is_large(model) or model.training:
        return False
    return all(isinstance(layer, DynamicLayer) for layer in DynamicCache(config=model.config).layers)


def _split(model):
    """The model without its output layer, and that layer; None, None if its logits are made in another way."""
    if model not in _heads:
        body, head, same = model.base_model, model.get_output_embeddings(), False
        if head is not None and body is not model:
            ids = torch.arange(min(8, model.config.vocab_size), device=model.device)[None]
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
            with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
                logits = head(body(**given).last_hidden_state)
                same = torch.allclose(logits, model(**given).logits, rtol=1e-3, atol=1e-4)
        _heads[model] = same
    return (model.base_model, model.get_output_embeddings()) if _heads[model] else (None, None)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token among the unmasked ones, so that padding on the left shifts nothing."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)
