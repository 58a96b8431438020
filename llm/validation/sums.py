r"""A task whose completions can be enumerated, and a network's whole policy over them.

A prompt is a sum ``ab+cd=``, its answer (ab + cd) mod 100 in two digits. A completion is one of K = 101 actions: two
digits and the end-of-sequence token make the answers 0, ..., 99; every other token sequence is malformed, action 100.
Two rewards are known for all actions::

    binary    1 for the right answer                       graded    exp(−e²/18), e the distance to the right answer

where e is measured around the circle of the 100 answers, so 99 is one away from 0. Malformed completions get 0.

Teacher forcing gives the policy: π(y|x) = π(y₁|x) π(y₂|x y₁) π(end|x y₁ y₂), Statement 18 of
``pmdtheory/theorems/README.md``. The prompt, the 10 first digits and the 100 pairs of digits form a trie of
6 + 10 + 100 tokens, packed into one sequence per prompt: a token sees the prompt, its parent and itself, and has the
position it has in its own completion. The probability of the malformed action is the sum over all ways to leave the
trie: no subtraction, and accurate where it is tiny.

Demonstrations err by a rounded normal of standard deviation 0.5 · 1.4^a, a the prompt's first digit, and are malformed
one time in 33. A base that imitates them is right between .03 and .7 of the time, depending on the prompt.
"""

import functools
import re

import numpy as np
import torch

__all__ = ["ACTIONS", "MALFORMED", "PROMPTS", "REWARDS", "Sums", "actions", "log_policy", "prompts", "rewards"]

PROMPTS = 10_000
MALFORMED = 100
ACTIONS = MALFORMED + 1
DIGITS = "0123456789"
REWARDS = {"binary": lambda error: 1.0 * (error == 0), "graded": lambda error: np.exp(-(error**2) / 18)}


def prompts(numbers):
    """Return the prompts of four-digit numbers.

    Examples
    --------
    >>> prompts([1234, 907])
    ['12+34=', '09+07=']
    """
    return [f"{number // 100:02}+{number % 100:02}=" for number in numbers]


def rewards(numbers, kind):
    """Return the reward of every action at P prompts, an array (P, 101) in [0, 1]; a ValueError if there is none such.

    Examples
    --------
    >>> rewards([9901], "graded")[0, [0, 1, 99, 100]].round(3)
    array([1.   , 0.946, 0.946, 0.   ])
    """
    if kind not in REWARDS:
        raise ValueError(f"kind must be one of {', '.join(REWARDS)}, got {kind!r}.")
    distance = np.abs(np.arange(MALFORMED) - _answers(np.asarray(numbers))[:, None])
    graded = REWARDS[kind](np.minimum(distance, MALFORMED - distance))
    return np.concatenate([graded, np.zeros((len(graded), 1))], axis=1)


def actions(rollouts, tokenizer):
    """Return the action of each of B completions of at most 3 tokens, an int array (B,)."""
    texts = [tokenizer.decode(row[mask]) for row, mask in zip(rollouts.tokens, rollouts.mask)]
    answers = [re.fullmatch(rf"(\d\d){tokenizer.eos_token}", text) for text in texts]
    return np.array([int(answer[1]) if answer else MALFORMED for answer in answers])


class Sums:
    """The task that a base learns from: demonstrations whose errors grow with the prompt's first digit."""

    spec = "sums"
    alphabet = DIGITS + "+="
    max_new_tokens = 3

    def demonstrations(self, count, rng):
        """Draw `count` pairs of a prompt and a completion."""
        numbers = rng.integers(PROMPTS, size=count)
        errors = np.rint(rng.normal(scale=0.5 * 1.4 ** (numbers // 1000)))
        answers = (_answers(numbers) + errors.astype(int)) % MALFORMED
        lengths = np.where(rng.random(count) < 0.03, 1, 2)
        completions = [f"{answer:02}"[:length] for answer, length in zip(answers, lengths)]
        return list(zip(prompts(numbers), completions))


def log_policy(model, tokenizer, prompts):
    """Return the log-probability of every action, a float64 tensor (P, 101) in nats, with its gradient.

    The model's attention must accept a boolean mask of four dimensions, as ``sdpa`` does; the tokenizer has one token
    for each digit; the P prompts have equally many tokens. Rows sum to 1 within the model's own rounding.
    """
    prompt = torch.tensor(tokenizer(prompts).input_ids)
    digits = torch.tensor(tokenizer.convert_tokens_to_ids(list(DIGITS)))
    first, second = digits.expand(len(prompt), 10), digits.repeat(10).expand(len(prompt), 100)
    mask, positions = _trie(prompt.shape[1])
    logits = model(
        input_ids=torch.cat([prompt, first, second], 1),
        attention_mask=mask.expand(len(prompt), 1, -1, -1), position_ids=positions.expand(len(prompt), -1),
        use_cache=False, logits_to_keep=111,
    ).logits  # fmt: skip
    law = torch.log_softmax(logits.double(), -1)
    is_digit = torch.zeros(law.shape[-1], dtype=torch.bool)
    is_digit[digits] = True
    eos = torch.arange(law.shape[-1]) == tokenizer.eos_token_id
    root, node, leaf = law[:, 0], law[:, 1:11], law[:, 11:]
    one = root[:, digits]
    two = (one[:, :, None] + node[:, :, digits]).flatten(1)
    after_one, after_two = one[:, :, None] + node[:, :, ~is_digit], two[:, :, None] + leaf[:, :, ~eos]
    leaving = torch.cat([root[:, ~is_digit], after_one.flatten(1), after_two.flatten(1)], 1)
    return torch.cat([two + leaf[:, :, eos][..., 0], torch.logsumexp(leaving, 1, keepdim=True)], 1)


def _answers(numbers):
    return (numbers // 100 + numbers % 100) % MALFORMED


@functools.cache
def _trie(length):
    """What each token of prompt, first digits and pairs attends to, and its position in its own completion."""
    positions = torch.tensor([*range(length), *[length] * 10, *[length + 1] * 100])
    mask = torch.eye(length + 110, dtype=torch.bool)
    mask[:, :length] = positions[:, None] >= torch.arange(length)
    pair = torch.arange(100)
    mask[length + 10 + pair, length + pair // 10] = True
    return mask, positions
