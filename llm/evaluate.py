"""Evaluation of a model on held-out prompts: sampled and greedy accuracy, with intervals over prompts.

Per prompt, k completions are sampled and one is chosen greedily. The random numbers are the evaluation's own, so
evaluating changes nothing in a training run. Means over P prompts come with the half-width of their 95% confidence
interval. Prompts are the independent units, so it covers both their choice and the sampling; it is Student's, hence too
short where nearly all prompts agree, and NaN for a single prompt. Of n samples with c successes, k drawn without
replacement contain one with probability pass@k = 1 − C(n−c, k)/C(n, k), unbiased for k new samples; avg@n and maj@n use
all n samples. Rewards and correctness are arrays (P, n), both at least 1, finite, and 0 or 1 where they mean success;
anything else is a ``ValueError``.

References
----------
Chen et al., arXiv 2107.03374, eq. 1 (pass@k). Wang et al., arXiv 2203.11171 (majority votes).
"""

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from pmdtheory.intervals import half_width

from .rollout import sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .tasks import Task

__all__ = ["Estimate", "avg_at_k", "evaluate", "maj_at_k", "pass_at_k"]


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: "Task",
    split: str,
    prompts: int,
    samples: int,
    max_new_tokens: int,
    seed: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch: int = 0,
    progress: bool = False,
    **prompting: Any,
) -> dict[str, float]:
    """Return accuracies of `model` on the first `prompts` prompts of a split.

    Parameters
    ----------
    model, tokenizer
        As in `pmdllm.rollout.sample`.
    task : Task
        Gives the prompts and judges the completions.
    split : {'validation', 'test'}
        Which prompts.
    prompts, samples, batch : int
        Number of prompts, of completions k per prompt, and of completions sampled at once; 0 for all.
    progress : bool
        Show a progress bar on standard error, where that is a terminal.
    seed, max_new_tokens, temperature, top_p, **prompting
        Of the sampling, as in `pmdllm.rollout.sample`; ``chat``, ``system_prompt`` and ``stop`` are those of greedy
        completions too.

    Returns
    -------
    dict
        ``avg@k``, ``pass@k``, ``maj@k`` and ``greedy`` in [0, 1], each with the half-width of its 95% interval under
        the same name and ``_ci``; of problems of several kinds also ``KIND/avg@k`` and ``KIND/greedy``; the mean
        ``length`` in tokens, and the shares ``truncated`` and ``unparsed`` of the sampled completions.
    """
    problems = task.held_out(split, prompts)
    generator = torch.Generator(model.device).manual_seed(seed)

    def judged(n, **sampling):
        """Sample n completions per problem, in batches of whole groups, and judge them: arrays (prompts, n)."""
        step = max(1, batch // n) if batch else len(problems)
        columns = {"correct": [], "answers": [], "length": [], "truncated": [], "unparsed": []}
        for start in range(0, len(problems), step):
            some = problems[start : start + step]
            rollouts = sample(
                model, tokenizer, [problem.prompt for problem in some], n, max_new_tokens, advance=bar.update,
                **sampling, **prompting,
            )  # fmt: skip
            verdict = task.judge(rollouts.texts(tokenizer), [problem.answer for problem in some for _ in range(n)])
            columns["correct"].append(verdict.correct)
            columns["answers"].append(np.array(verdict.answers, dtype=object))
            columns["length"].append(rollouts.mask.sum(1).cpu().numpy())
            columns["truncated"].append(~rollouts.ended.cpu().numpy())
            columns["unparsed"].append(~verdict.parsed)
        return {name: np.concatenate(values).reshape(len(problems), n) for name, values in columns.items()}

    total, hidden = len(problems) * (samples + 1), not progress or None
    with tqdm(total=total, desc=f"evaluation on {split}", unit="completion", disable=hidden, leave=False) as bar:
        drawn = judged(samples, generator=generator, temperature=temperature, top_p=top_p)
        greedy = judged(1)
    estimates = {
        f"avg@{samples}": avg_at_k(drawn["correct"]),
        f"pass@{samples}": pass_at_k(drawn["correct"], samples),
        f"maj@{samples}": maj_at_k(drawn["answers"], drawn["correct"]),
        "greedy": avg_at_k(greedy["correct"]),
    }
    kinds = np.array([problem.kind for problem in problems])
    for kind in np.unique(kinds) if len(set(kinds)) > 1 else ():
        estimates[f"{kind}/avg@{samples}"] = avg_at_k(drawn["correct"][kinds == kind])
        estimates[f"{kind}/greedy"] = avg_at_k(greedy["correct"][kinds == kind])
    accuracies = {name: estimate.value for name, estimate in estimates.items()}
    accuracies |= {f"{name}_ci": estimate.half_width for name, estimate in estimates.items()}
    return accuracies | {name: float(np.mean(drawn[name])) for name in ("length", "truncated", "unparsed")}


class Estimate(NamedTuple):
    """A mean over prompts and the half-width of its 95% confidence interval."""

    value: float
    half_width: float


def avg_at_k(rewards: Any) -> Estimate:
    """Mean reward of the samples, averaged over prompts: accuracy where rewards are 0 and 1.

    >>> avg_at_k([[1, 1, 0, 0], [1, 0, 0, 0]]).value
    0.375
    """
    return _over_prompts(_rewards(rewards).mean(axis=1))


def pass_at_k(correct: Any, k: int) -> Estimate:
    """Probability that k samples, from 1 to n, contain a correct one, averaged over prompts; unbiased.

    >>> round(pass_at_k([[1, 0, 0, 0]], k=2).value, 4)
    0.5
    """
    correct = _correct(correct)
    n = correct.shape[1]
    if not isinstance(k, int | np.integer) or not 1 <= k <= n:
        raise ValueError(f"k must be an integer from 1 to the number of samples, {n}, got {k}: draw more samples.")
    fails = [math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)]
    return _over_prompts(1 - np.take(fails, correct.sum(axis=1).astype(int)))


def maj_at_k(answers: Any, correct: Any) -> Estimate:
    """Accuracy of the majority vote among all n samples, averaged over prompts: maj@n.

    ``answers`` (P, n) are canonical texts, or None where none could be read. The most frequent answer wins. Samples
    without an answer have no vote unless no sample has one; ties are broken uniformly, of which this is the expected
    value. Where copies of an answer were judged differently, it is as correct as they are on average.

    >>> maj_at_k([["7", "7", "3", None], ["7", "3", None, None]], [[1, 1, 0, 0], [1, 0, 0, 0]]).value
    0.75
    """
    correct = _correct(correct)
    shape = [len(row) for row in answers]
    if shape != len(correct) * [correct.shape[1]]:
        raise ValueError(f"answers must have the shape of correct, {correct.shape}, got rows of lengths {shape}.")
    return _over_prompts(np.array([_majority(*row) for row in zip(answers, correct)]))


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
