r"""What is measured while training: how far the policy has moved from the one that sampled, and how it writes.

Completions are sampled from p = π_old and s = log q/p is the log-ratio of the present policy q. Schulman's three
estimators of KL(p‖q) are means over the samples::

    k1 = −s,    k2 = s²/2,    k3 = e^s − 1 − s.

k1 is unbiased but of either sign; k2 is nonnegative and biased, by the third moment of s and beyond; k3 is nonnegative,
and unbiased because E_p[e^s] = 1: that term is a control variate of k1. The χ² weight λ implied by a PMD-mean update is
that same KL(p‖q) (Statement 4), so k3 over a prompt's rollouts estimates the prompt's λ.

The entropy of a completion is the expected sum of the entropies of its tokens (chain rule), which varies less than
−log π: entropies of the policy that sampled give it unbiasedly.

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


def log_ratio_statistics(log_ratio, clip_low=0.2, clip_high=0.2, mask=None):
    """Mean, standard deviation and largest size of s = log q/p, and how many ratios e^s a clip range excludes.

    Parameters
    ----------
    log_ratio : tensor (...)
        s of completions or of tokens.
    clip_low, clip_high : float
        The range of e^s is [1 − clip_low, 1 + clip_high].
    mask : boolean tensor (...), optional
        False where s does not count, whatever it is. If nothing counts, everything is 0.

    Returns
    -------
    dict of str to tensor ()
        ``log_ratio/mean``, ``log_ratio/std`` (of the samples themselves: divided by their number), ``log_ratio/max``
        (of |s|), and ``ratio/outside_clip``, a share.

    Examples
    --------
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


def kl_estimates(log_ratio, mask=None):
    """Three estimates of KL(p‖q) from samples of p: the means of −s, s²/2 and e^s − 1 − s, s = log q/p.

    Parameters
    ----------
    log_ratio, mask
        As in `log_ratio_statistics`. With the s of tokens these are per token, and unbiased where k1 and k3 are.

    Returns
    -------
    dict of str to tensor ()
        ``kl/k1``, ``kl/k2``, ``kl/k3`` in nats; k3 is infinite if some e^s exceeds 1e308.

    References
    ----------
    Schulman, *Approximating KL Divergence* (2020).

    Examples
    --------
    >>> kl_estimates(torch.tensor([math.log(2.0), math.log(0.5)]))["kl/k3"]
    tensor(0.2500, dtype=torch.float64)
    """
    s, valid = _read(log_ratio, mask)
    return {
        "kl/k1": -_mean(s, valid),
        "kl/k2": _mean(s.square() / 2, valid),
        "kl/k3": _mean(_k3(s), valid),
    }


def implied_lambda(log_ratio, mask=None):
    """Estimate of each prompt's χ² weight λ = KL(p‖q), the mean of e^s − 1 − s over its rollouts.

    A weight is nonnegative, and so is this unbiased estimate in every group, however small; k1 need not be.

    Parameters
    ----------
    log_ratio : tensor (P, n)
        s of n completions for each of P prompts, sampled from p.
    mask : boolean tensor (P, n), optional
        False where there is no rollout.

    Returns
    -------
    tensor (P,)
        λ ≥ 0; it is PMD-mean's χ² weight if q solves that update, and KL(p‖q) in any case. 0 without rollouts.

    References
    ----------
    Statement 4.

    Examples
    --------
    >>> implied_lambda(torch.tensor([[math.log(2.0), math.log(0.5)], [0.0, 0.0]]))
    tensor([0.2500, 0.0000], dtype=torch.float64)
    """
    s, valid = _read(log_ratio, mask)
    return torch.where(valid, _k3(s), 0).sum(-1) / valid.sum(-1).clamp(min=1)


def entropy_statistics(entropy, mask):
    """Entropy of tokens and of completions, in nats.

    Parameters
    ----------
    entropy : tensor (B, T)
        Entropy of the law that each token was sampled from.
    mask : boolean tensor (B, T)
        True on the tokens of the completions.

    Returns
    -------
    dict of str to tensor ()
        ``entropy``, the mean over tokens, and ``entropy/sequence``, the mean over completions of the sum over theirs.

    Examples
    --------
    >>> coins = torch.full((2, 3), math.log(2.0))
    >>> entropy_statistics(coins, torch.ones(2, 3, dtype=torch.bool))["entropy/sequence"].exp()
    tensor(8.0000, dtype=torch.float64)
    """
    entropy, valid = _read(entropy, mask)
    return {"entropy": _mean(entropy, valid), "entropy/sequence": _mean(entropy.sum(-1), valid.any(-1))}


def length_statistics(mask):
    """Mean and largest number of tokens of the completions that have any.

    Parameters
    ----------
    mask : boolean tensor (B, T)
        True on the tokens of the completions.

    Returns
    -------
    dict of str to tensor ()
        ``length`` and ``length/max``.

    Examples
    --------
    >>> length_statistics(torch.tensor([[True, True], [True, False], [False, False]]))["length"]
    tensor(1.5000, dtype=torch.float64)
    """
    length = mask.sum(-1).double()
    return {"length": _mean(length, mask.any(-1)), "length/max": torch.cat([length, length.new_zeros(1)]).max()}


def complaint(length, truncated, unparsed):
    """Say what is wrong with completions nearly all of which cannot be judged, and the likely cause; else None.

    Parameters
    ----------
    length : float
        Mean tokens of a completion.
    truncated, unparsed : float
        Shares of completions without an end, and without a readable answer.

    Examples
    --------
    >>> complaint(length=1.0, truncated=0.0, unparsed=1.0)
    'nearly all completions are empty: the prompt ends the turn (try --chat on, or another task template)'
    >>> complaint(length=12.0, truncated=0.1, unparsed=0.4)
    """
    if unparsed < ALARM:
        return None
    if length < 2:
        return "nearly all completions are empty: the prompt ends the turn (try --chat on, or another task template)"
    if truncated > ALARM:
        return "nearly all completions are truncated before their answer: raise --max_new_tokens"
    return "nearly no completion has a readable answer: compare the task's template with what the model was taught"


def _read(values, mask):
    """Values in double precision, 0 where masked, and where they are valid."""
    values = values.detach().double()
    valid = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    return torch.where(valid, values, 0), valid


def _mean(values, valid):
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)


def _k3(s):
    return torch.expm1(s) - s
