"""Evaluation of a model on held-out prompts: sampled and greedy accuracy, with intervals over prompts.

Per prompt, k completions are sampled and one is chosen greedily; every mean has a 95% interval over the prompts, which
are the independent units. The random numbers are the evaluation's own, so evaluating changes nothing in a training run.
"""

import numpy as np
import torch

from . import metrics
from .rollout import sample

__all__ = ["evaluate"]


def evaluate(
    model, tokenizer, task, split, prompts, samples, max_new_tokens, seed=0, temperature=1.0, top_p=1.0, batch=0
):
    """Return accuracies of `model` on the first `prompts` prompts of a split.

    Parameters
    ----------
    model, tokenizer
        As in `pmdllm.rollout.sample`.
    task : Task
        Gives the prompts and judges the completions.
    split : {'validation', 'test'}
        Which prompts.
    prompts, samples : int
        Number of prompts, and of completions k per prompt.
    max_new_tokens : int
        Tokens after which a completion is truncated.
    seed : int
        Seed of the sampling.
    temperature, top_p : float
        Of the sampled completions.
    batch : int
        Completions sampled at once; 0 for all.

    Returns
    -------
    dict
        ``avg@k``, ``pass@k``, ``maj@k`` and ``greedy`` in [0, 1], each with the half-width of its 95% interval under
        the same name and ``_ci``; the mean ``length`` in tokens, and the shares ``truncated`` and ``unparsed`` of the
        sampled completions.
    """
    problems = task.held_out(split, prompts)
    generator = torch.Generator(model.device).manual_seed(seed)
    drawn = _judged(model, tokenizer, task, problems, samples, max_new_tokens, generator, temperature, top_p, batch)
    greedy = _judged(model, tokenizer, task, problems, 1, max_new_tokens, None, 1.0, 1.0, batch)
    correct, answers = drawn["correct"], drawn["answers"]
    estimates = {
        f"avg@{samples}": metrics.avg_at_k(correct),
        f"pass@{samples}": metrics.pass_at_k(correct, samples),
        f"maj@{samples}": metrics.maj_at_k(answers, correct),
        "greedy": metrics.greedy_accuracy(greedy["correct"][:, 0]),
    }
    found = {name: estimate.value for name, estimate in estimates.items()}
    found |= {f"{name}_ci": estimate.half_width for name, estimate in estimates.items()}
    return found | {name: float(np.mean(drawn[name])) for name in ("length", "truncated", "unparsed")}


def _judged(model, tokenizer, task, problems, n, max_new_tokens, generator, temperature, top_p, batch):
    """Sample n completions per problem, in batches of whole groups, and judge them: arrays (prompts, n)."""
    step = max(1, batch // n) if batch else len(problems)
    found = {"correct": [], "answers": [], "length": [], "truncated": [], "unparsed": []}
    for start in range(0, len(problems), step):
        part = problems[start : start + step]
        rollouts = sample(
            model, tokenizer, [problem.prompt for problem in part], n, max_new_tokens, generator, temperature, top_p
        )
        verdict = task.judge(rollouts.texts(tokenizer), [problem.answer for problem in part for _ in range(n)])
        found["correct"].append(verdict.correct)
        found["answers"].append(np.array(verdict.answers, dtype=object))
        found["length"].append(rollouts.mask.sum(1).cpu().numpy())
        found["truncated"].append(~rollouts.ended(tokenizer.eos_token_id).cpu().numpy())
        found["unparsed"].append(~verdict.parsed)
    return {name: np.concatenate(parts).reshape(len(problems), n) for name, parts in found.items()}
