r"""What is measured: how far the policy has moved from the one that sampled, and how good it is.

**While training**, on tensors. Completions are sampled from p = π_old and s = log q/p is the log-ratio of the present
policy q. Schulman's three estimators of KL(p‖q) are means over the samples::

    k1 = −s,    k2 = s²/2,    k3 = e^s − 1 − s.

k1 is unbiased but of either sign; k2 is nonnegative and biased, by the third moment of s and beyond; k3 is nonnegative,
and unbiased because E_p[e^s] = 1: that term is a control variate of k1. The χ² weight λ implied by a PMD-mean update is
that same KL(p‖q) (Statement 4), so k3 over a prompt's rollouts estimates the prompt's λ.

The entropy of a completion is the expected sum of the entropies of its tokens (chain rule), which varies less than
−log π: entropies of the policy that sampled give it unbiasedly.

**When evaluating**, on arrays (P, n): n samples for each of P prompts. Means over prompts come with the half-width of
their 95% confidence interval. Prompts are the independent units, so it covers both their choice and the sampling; it is
Student's, hence too short where nearly all prompts agree, and NaN for a single prompt. For k of the n samples, drawn
without replacement, and sorted rewards r_(1) ≤ … ≤ r_(n)::

    best@k = E max = Σ_i r_(i) C(i−1, k−1)/C(n, k),    pass@k = 1 − C(n−c, k)/C(n, k) for c successes,

both unbiased for k new samples; the second is the first at rewards 0 and 1. avg@n and maj@n use all n samples.

References
----------
Statement 4 of ``pmdtheory/theorems/README.md``. Schulman, *Approximating KL Divergence* (2020). Chen et al., arXiv
2107.03374, eq. 1 (pass@k). Wang et al., arXiv 2203.11171 (majority votes).
"""

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch

from pmdtheory.intervals import half_width

__all__ = [
    "Estimate",
    "avg_at_k",
    "best_at_k",
    "entropy_statistics",
    "greedy_accuracy",
    "implied_lambda",
    "kl_estimates",
    "length_statistics",
    "maj_at_k",
    "pass_at_k",
    "ratio_statistics",
]


def ratio_statistics(log_ratio, clip_low=0.2, clip_high=0.2, mask=None):
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
        ``ratio/mean``, ``ratio/std`` (of the samples themselves: divided by their number), ``ratio/max`` (of |s|), and
        ``ratio/outside_clip``, a share.

    Examples
    --------
    >>> ratio_statistics(torch.tensor([0.0, 0.3]))["ratio/outside_clip"]
    tensor(0.5000, dtype=torch.float64)
    """
    s, valid = _read(log_ratio, mask)
    mean, ratio = _mean(s, valid), s.exp()
    return {
        "ratio/mean": mean,
        "ratio/std": _mean((s - mean).square(), valid).sqrt(),
        "ratio/max": torch.cat([s.abs().flatten(), s.new_zeros(1)]).max(),
        "ratio/outside_clip": _mean(((ratio < 1 - clip_low) | (ratio > 1 + clip_high)).double(), valid),
    }


def kl_estimates(log_ratio, mask=None):
    """Three estimates of KL(p‖q) from samples of p: the means of −s, s²/2 and e^s − 1 − s, s = log q/p.

    Parameters
    ----------
    log_ratio, mask
        As in `ratio_statistics`. With the s of tokens these are per token, and unbiased where k1 and k3 are.

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


class Estimate(NamedTuple):
    """A mean over prompts and the half-width of its 95% confidence interval."""

    value: float
    half_width: float


def avg_at_k(rewards):
    """Mean reward of the samples, averaged over prompts: avg@n, accuracy where rewards are 0 and 1.

    Parameters
    ----------
    rewards : array_like (P, n)
        Correctness or finite rewards of n samples for each of P prompts.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        The shape is not (P, n) with both at least 1, or a reward is not finite.

    Examples
    --------
    >>> avg_at_k([[1, 1, 0, 0], [1, 0, 0, 0]]).value
    0.375
    """
    return _over_prompts(_rewards(rewards).mean(axis=1))


def best_at_k(rewards, k):
    """Expected largest reward of k samples, averaged over prompts; unbiased for k ≤ n.

    Parameters
    ----------
    rewards
        As in `avg_at_k`.
    k : int
        From 1 to n.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        As `avg_at_k`, and if ``k`` is not an integer from 1 to n.

    Examples
    --------
    >>> round(best_at_k([[0.0, 0.5, 1.0]], k=2).value, 4)
    0.8333
    """
    rewards = _rewards(rewards)
    n = rewards.shape[1]
    if not isinstance(k, int | np.integer) or not 1 <= k <= n:
        raise ValueError(f"k must be an integer from 1 to the number of samples, {n}, got {k}: draw more samples.")
    is_largest = [math.comb(i, k - 1) / math.comb(n, k) for i in range(n)]
    return _over_prompts(np.sort(rewards, axis=1) @ is_largest)


def pass_at_k(correct, k):
    """Probability that k samples contain a correct one, averaged over prompts; unbiased for k ≤ n.

    Parameters
    ----------
    correct : array_like (P, n)
        Whether each sample is correct: booleans, or 0 and 1.
    k : int
        From 1 to n.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        As `best_at_k`, and if ``correct`` has a value other than 0 and 1.

    References
    ----------
    Chen et al., arXiv 2107.03374, eq. 1.

    Examples
    --------
    >>> round(pass_at_k([[1, 0, 0, 0]], k=2).value, 4)
    0.5
    """
    return best_at_k(_correct(correct), k)


def maj_at_k(answers, correct):
    """Accuracy of the majority vote among all n samples, averaged over prompts: maj@n.

    The most frequent answer wins. Samples without an answer have no vote unless no sample has one; ties are broken
    uniformly, of which this is the expected value. Where copies of an answer were judged differently, it is as correct
    as they are on average.

    Parameters
    ----------
    answers : sequence of P sequences of n, each str or None
        Canonical answers; None where no answer could be read.
    correct : array_like (P, n)
        Whether each sample is correct.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        As `avg_at_k`, or ``answers`` does not have the shape of ``correct``, or ``correct`` a value other than 0 and 1.

    References
    ----------
    Wang et al., arXiv 2203.11171.

    Examples
    --------
    >>> maj_at_k([["7", "7", "3", None], ["7", "3", None, None]], [[1, 1, 0, 0], [1, 0, 0, 0]]).value
    0.75
    """
    correct = _correct(correct)
    shape = [len(row) for row in answers]
    if shape != len(correct) * [correct.shape[1]]:
        raise ValueError(f"answers must have the shape of correct, {correct.shape}, got rows of lengths {shape}.")
    return _over_prompts(np.array([_majority(*row) for row in zip(answers, correct)]))


def greedy_accuracy(correct):
    """Accuracy of one greedy completion for each prompt.

    Parameters
    ----------
    correct : array_like (P,)
        Whether each completion is correct.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        ``correct`` is not of shape (P,) with P at least 1, or has a value other than 0 and 1.

    Examples
    --------
    >>> greedy_accuracy([True, False, True, True]).value
    0.75
    """
    return avg_at_k(_correct(np.asarray(correct)[..., None]))


def _read(values, mask):
    """Values in double precision, 0 where masked, and where they are valid."""
    values = values.detach().double()
    valid = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    return torch.where(valid, values, 0), valid


def _mean(values, valid):
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)


def _k3(s):
    return torch.expm1(s) - s


def _rewards(rewards):
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2 or 0 in rewards.shape:
        raise ValueError(
            f"rewards must have shape (P, n), n samples for each of P prompts, both at least 1, got {rewards.shape}."
        )
    if not np.isfinite(rewards).all():
        raise ValueError(f"rewards must be finite, got {rewards[~np.isfinite(rewards)][0]}.")
    return rewards


def _correct(correct):
    correct = _rewards(correct)
    other = (correct != 0) & (correct != 1)
    if other.any():
        raise ValueError(f"correct must be True or False, 1 or 0, got {correct[other][0]}.")
    return correct


def _majority(answers, correct):
    votes = Counter(answer for answer in answers if answer is not None) or Counter(answers)
    most = max(votes.values())
    # All winners have equally many copies, so a mean over the copies is a mean over the winners.
    return np.mean([right for answer, right in zip(answers, correct) if votes[answer] == most])


def _over_prompts(values):
    count = len(values)
    width = half_width(np.std(values, ddof=1), count) if count > 1 else math.nan
    return Estimate(float(np.mean(values)), float(width))
