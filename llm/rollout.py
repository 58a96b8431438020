"""Rollouts with the log-probabilities of the law they were drawn from, and the log-probabilities a policy gives them.

A group is the n completions y_1, ..., y_n of one prompt x. A completion is a token sequence that ends with the
end-of-sequence token, or is truncated after ``max_new_tokens`` without one. Its log-probability is a sum over its
tokens, the end-of-sequence token included (Statement 17)::

    log π(y|x) = Σ_t mask_t · log π(y_t | x, y_<t)

π_old is the law sampled from: log-probabilities are recorded while sampling, after temperature and truncation, in
float32 whatever the type of the model's arithmetic. On CPU they agree with a fresh forward pass to float32 rounding.

Prompts are padded on the left, completions on the right. Keys and values are cached: growing tensors on CPU, where a
copy is cheap, and a static buffer on GPU, where a fixed shape is.
"""

from dataclasses import dataclass, fields

import torch
from transformers import DynamicCache, StaticCache, TopPLogitsWarper

__all__ = ["Rollouts", "sample", "token_logp"]


@dataclass
class Rollouts:
    """B completions with their prompts, group after group.

    Attributes
    ----------
    prompt_ids : int64 tensor (B, P)
        Prompts, padded on the left.
    prompt_mask : bool tensor (B, P)
        True at the prompt's own tokens.
    tokens : int64 tensor (B, T)
        Completions, padded on the right.
    mask : bool tensor (B, T)
        True at the completion's own tokens, the end-of-sequence token included.
    logp : float32 tensor (B, T)
        log π_old of each token, in nats; 0 where masked.
    """

    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor
    logp: torch.Tensor

    def __len__(self):
        return len(self.tokens)

    def rows(self, index):
        """Return the rows `index` (a slice, indices or booleans)."""
        return Rollouts(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def trimmed(self):
        """Return the same without columns that are padding in every row."""
        prompt, completion = self.prompt_mask.any(0), self.mask.any(0)
        return Rollouts(
            self.prompt_ids[:, prompt], self.prompt_mask[:, prompt],
            self.tokens[:, completion], self.mask[:, completion], self.logp[:, completion],
        )

    def ended(self, eos):
        """Tell which completions end with the token `eos`: a bool tensor (B,), False where truncated."""
        return ((self.tokens == eos) & self.mask).any(1)

    def texts(self, tokenizer):
        """Decode the completions, special tokens left out."""
        rows = [row[mask].tolist() for row, mask in zip(self.tokens.cpu(), self.mask.cpu())]
        return tokenizer.batch_decode(rows, skip_special_tokens=True)


@torch.no_grad()
def sample(
    model, tokenizer, prompts, n, max_new_tokens, generator=None, temperature=1.0, top_p=1.0, static_cache=None
):
    """Draw n completions of every prompt and record the log-probability of each token.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model; its dropout is not switched off here.
    tokenizer : PreTrainedTokenizerBase
        With a padding and an end-of-sequence token.
    prompts : list of str
        Prompts, encoded with the tokenizer's own special tokens.
    n : int
        Completions per prompt.
    max_new_tokens : int
        Tokens after which a completion is truncated.
    generator : torch.Generator, optional
        On the model's device. Without one completions are greedy (temperature → 0) and `logp` is the model's own.
    temperature, top_p : float
        Logits are divided by `temperature`, then all but the nucleus of mass `top_p` is cut off. Training samples from
        the policy itself: both 1.
    static_cache : bool, optional
        Static buffers for keys and values; by default on GPU only.

    Returns
    -------
    Rollouts
        ``len(prompts) * n`` completions, the group of the first prompt first.

    Raises
    ------
    ValueError
        No prompts, a prompt that the tokenizer cannot encode, a completion that would exceed the model's longest
        sequence, or a tokenizer without padding or end-of-sequence token.

    References
    ----------
    Statement 17.
    """
    if not prompts:
        raise ValueError("prompts is empty, but at least one prompt is needed.")
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if eos is None or pad is None:
        raise ValueError("tokenizer needs a padding and an end-of-sequence token: set pad_token and eos_token.")
    encoded = _encoded(tokenizer, prompts).to(model.device)
    prompt_ids = encoded.input_ids.repeat_interleave(n, 0)
    prompt_mask = encoded.attention_mask.bool().repeat_interleave(n, 0)
    static = model.device.type != "cpu" if static_cache is None else static_cache
    length = prompt_ids.shape[1] + max_new_tokens
    longest = getattr(model.config, "max_position_embeddings", None) or length
    if length > longest:
        raise ValueError(
            f"max_new_tokens must be at most {longest - prompt_ids.shape[1]}, got {max_new_tokens}: the model reads "
            f"{longest} tokens and the longest prompt has {prompt_ids.shape[1]}."
        )
    cache = StaticCache(config=model.config, max_cache_len=length) if static else DynamicCache(config=model.config)
    cut = TopPLogitsWarper(top_p) if top_p < 1 else None
    ids, attention = prompt_ids, prompt_mask
    positions = _positions(prompt_mask)
    running = torch.ones(len(prompt_ids), dtype=torch.bool, device=model.device)
    tokens, masks, logps = [], [], []
    for _ in range(max_new_tokens):
        logits = model(
            input_ids=ids, attention_mask=attention.long(), position_ids=positions, past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1].float() / temperature
        law = torch.log_softmax(logits if cut is None else cut(None, logits), -1)
        if generator is None:
            chosen = law.argmax(-1, keepdim=True)
        else:
            chosen = torch.multinomial(law.exp(), 1, generator=generator)
        tokens.append(torch.where(running, chosen[:, 0], pad))
        logps.append(torch.where(running, law.gather(1, chosen)[:, 0], 0.0))
        masks.append(running)
        running = running & (chosen[:, 0] != eos)
        if not running.any():
            break
        ids = tokens[-1][:, None]
        attention = torch.cat([attention, masks[-1][:, None]], 1)
        positions = positions[:, -1:] + 1
    return Rollouts(prompt_ids, prompt_mask, *(torch.stack(column, 1) for column in (tokens, masks, logps)))


def token_logp(model, rollouts, temperature=1.0):
    """Return log π(y_t | x, y_<t) of every token, with its gradient, and the entropy of every token's law, without.

    Parameters
    ----------
    model : PreTrainedModel
        The policy π.
    rollouts : Rollouts
        B completions of at most T tokens.
    temperature : float
        That of the sampling, so that π is compared with the law sampled from.

    Returns
    -------
    logp : float32 tensor (B, T)
        In nats; 0 where masked.
    entropy : float32 tensor (B, T)
        −Σ π log π over the vocabulary, in nats; 0 where masked.

    References
    ----------
    Statement 17.
    """
    ids = torch.cat([rollouts.prompt_ids, rollouts.tokens], 1)
    attention = torch.cat([rollouts.prompt_mask, rollouts.mask], 1)
    width = rollouts.tokens.shape[1]
    logits = model(
        input_ids=ids, attention_mask=attention.long(), position_ids=_positions(attention), use_cache=False,
        logits_to_keep=width + 1,
    ).logits[:, -width - 1 : -1].float() / temperature
    law = torch.log_softmax(logits, -1)
    logp = torch.where(rollouts.mask, law.gather(2, rollouts.tokens[..., None])[..., 0], 0.0)
    with torch.no_grad():
        entropy = torch.where(rollouts.mask, -(law.exp() * law).sum(-1), 0.0)
    return logp, entropy


def _encoded(tokenizer, prompts):
    try:
        return tokenizer(list(prompts), padding=True, padding_side="left", return_tensors="pt")
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise ValueError(
            f"prompts cannot be encoded by the model's tokenizer ({error}): choose a model that goes with the task."
        ) from error


def _positions(mask):
    """Position of each token among the unmasked ones, so that padding on the left shifts nothing."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)
