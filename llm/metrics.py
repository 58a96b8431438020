r"""What is measured while training: how far the policy has moved from the one that sampled, and how it writes.

Completions are sampled from p = π_old and s = log q/p is the log-ratio of the present policy q. Schulman's three
estimators of KL(p‖q) are means over the samples::

    k1 = −s,    k2 = s²/2,    k3 = e^s − 1 − s.

k1 is unbiased but of either sign; k2 is nonnegative and biased, by the third moment of s and beyond; k3 is nonnegative,
and unbiased because E_p[e^s] = 1: that term is a control variate of k1. The χ² weight λ implied by a PMD-mean update is
that same KL(p‖q) (Statement 4), so k3 over a prompt's rollouts estimates the prompt's λ.

The entropy of a completion is the expected sum of the entropies of its tokens (chain rule), which varies less than
−log π: entropies of the policy that sampled give it unbiasedly.

Arguments are tensors of any shape unless it is given: log-ratios s of completions or tokens, or their entropies. A
boolean ``mask`` of the same shape is False where a value does not count, whatever it is. Statistics are dictionaries of
0-dimensional tensors in double precision, without gradient, and 0 where nothing counts.

References
----------
Statement 4 of ``pmdtheory/theorems/README.md``. Schulman, *Approximating KL Divergence* (2020).
"""


import torch

__all__ = [
    "complaint",
    "entropy_statistics",
    "implied_lambda",
    "kl_estimates",
    "length_statistics",
    "log_ratio_statistics",
]

ALARM = 0.95


def log_ratio_statistics(
    log_ratio: torch.Tensor, clip_low: float = 0.2, clip_high: float = 0.2, mask: torch.Tensor | None = None
) -> dict[str, float]:
    """Mean, standard deviation (of the samples) and largest size of s, and how many ratios clipping excludes.

    Keys ``log_ratio/mean``, ``log_ratio/std``, ``log_ratio/max`` (of |s|); ``ratio/outside_clip``, the share of e^s
    outside [1 − clip_low, 1 + clip_high].

    >>> log_ratio_statistics(torch.tensor([0.0, 0.3]))["ratio/outside_clip"]
    tensor(0.5000, dtype=torch.float64)
    """
    s, valid = _read(log_ratio, mask)
    mean, ratio = _mean(s, valid), s.exp()
    return {
        "log_ratio/mean": mean,
        "log_ratio/std": _mean((s - mean).square(), valid).sqrt(),
        "log_ratio/max": torch.cat([s.abs().flatten(), s.new_zeros(1)]).max(),
        "ratio/outside_clip": _mean(((ratio < 1 - clip_low) | (ratio > 1 + clip_high)).double(), valid),
    }


def kl_estimates(log_ratio: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, float]:
    """The three estimates of KL(p‖q), ``kl/k1``, ``kl/k2``, ``kl/k3``, in nats; k3 is infinite if some e^s is.

    With the s of tokens they are per token, and k1 and k3 unbiased.

    >>> kl_estimates(torch.tensor([2.0, 0.5]).log())["kl/k3"]
    tensor(0.2500, dtype=torch.float64)
    """
    s, valid = _read(log_ratio, mask)
    return {"kl/k1": -_mean(s, valid), "kl/k2": _mean(s.square() / 2, valid), "kl/k3": _mean(_k3(s), valid)}


def implied_lambda(log_ratio: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Estimate of each prompt's χ² weight λ = KL(p‖q) from s (P, n): k3 over its rollouts, (P,); 0 without any.

    A weight is nonnegative, and so is this unbiased estimate in every group, however small; k1 need not be.

    >>> implied_lambda(torch.tensor([[2.0, 0.5], [1.0, 1.0]]).log())
    tensor([0.2500, 0.0000], dtype=torch.float64)
    """
    s, valid = _read(log_ratio, mask)
    return torch.where(valid, _k3(s), 0).sum(-1) / valid.sum(-1).clamp(min=1)


def entropy_statistics(entropy: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """``entropy``, the mean of the tokens' (B, T) in nats; ``entropy/sequence``, the mean of the completions' sums.

    >>> coins = torch.full((2, 3), 2.0).log()
    >>> entropy_statistics(coins, torch.ones(2, 3, dtype=torch.bool))["entropy/sequence"].exp()
    tensor(8.0000, dtype=torch.float64)
    """
    entropy, valid = _read(entropy, mask)
    return {"entropy": _mean(entropy, valid), "entropy/sequence": _mean(entropy.sum(-1), valid.any(-1))}


def length_statistics(mask: torch.Tensor) -> dict[str, float]:
    """``length``, the mean number of tokens of the completions (B, T) that have any, and ``length/max``.

    >>> length_statistics(torch.tensor([[True, True], [True, False], [False, False]]))["length"]
    tensor(1.5000, dtype=torch.float64)
    """
    length = mask.sum(-1).double()
    return {"length": _mean(length, mask.any(-1)), "length/max": torch.cat([length, length.new_zeros(1)]).max()}


def complaint(length: float, truncated: float, unparsed: float) -> str | None:
    """Say what is wrong with completions nearly all of which cannot be judged, and the likely cause; else None.

    From the mean ``length`` in tokens and the shares ``truncated`` and ``unparsed`` (no readable answer).

    >>> complaint(length=1.0, truncated=0.0, unparsed=1.0)
    'nearly all completions are empty: the prompt ends the turn (try --chat on, or another task template)'
    >>> complaint(length=12.0, truncated=0.1, unparsed=0.4)
    """
    if truncated >= ALARM:
        return "nearly all completions are truncated, so what is judged is not where they lead: raise --max_new_tokens"
    if unparsed < ALARM:
        return None
    if length < 2:
        return "nearly all completions are empty: the prompt ends the turn (try --chat on, or another task template)"
    return "nearly no completion has a readable answer: try another --chat, or a task template that the model knows"


def _read(values, mask):
    """Values in double precision, 0 where masked, and where they are valid."""
    values = values.detach().double()
    valid = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    return torch.where(valid, values, 0), valid


def _mean(values, valid):
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)


def _k3(s):
    return torch.expm1(s) - s
