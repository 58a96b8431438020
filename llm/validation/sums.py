r"""Tasks whose completions can be enumerated: sums, for a small network trained from scratch and for a pretrained one.

Both ask for a sum of two numbers, number by number of `size` prompts, and have K − 1 answers; everything else that a
model may write is malformed, action K − 1. Two rewards are known for all actions::

    binary    1 for the right answer                       graded    exp(−e²/18), e the distance to the right answer

Malformed completions get 0. `Sums` are strings ``ab+cd=`` with (ab + cd) mod 100 in two digits, K = 101; e is measured
around the circle of the 100 answers, so 99 is one away from 0. Its demonstrations err by a rounded normal of standard
deviation 0.5 · 1.4^a, a the prompt's first digit, and are malformed one time in 33. A base that imitates them is right
between .03 and .7 of the time, depending on the prompt.

`ChatSums` are turns ``a + b =`` of a chat, in the template of the model's own tokenizer, after a few that have been
answered: an instructed model writes sentences otherwise, and nearly all of its mass is malformed. Of all sums below
`count` those already answered are left out.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["REWARDS", "ChatSums", "Sums"]

DIGITS = "0123456789"
REWARDS = {"binary": lambda error: 1.0 * (error == 0), "graded": lambda error: np.exp(-(error**2) / 18)}


class Sums:
    """Two-digit sums modulo 100, and the demonstrations, whose errors grow with the first digit, that a base learns.

    If `uneven`, three plus signs follow an odd answer: near answers then differ in length. If `units_first`, the units
    of an answer come before its tens, as its sum is made: a small network learns this to the last digit, and else long
    misjudges answers across a ten.
    """

    alphabet = DIGITS + "+="
    size = 10_000

    def __init__(self, uneven: bool = False, units_first: bool = False):
        options = {"uneven": uneven, "units_first": units_first}
        self.spec = ":".join(["sums", *(f"{name}=True" for name, value in options.items() if value)])
        digits = [f"{answer:02}"[:: -1 if units_first else 1] for answer in range(100)]
        self.answers = tuple(text + "+" * (3 * (answer % 2) if uneven else 0) for answer, text in enumerate(digits))
        self.max_new_tokens = max(map(len, self.answers)) + 1

    def prompts(self, numbers: Any) -> list[str]:
        """Return the prompts of four-digit numbers.

        Examples
        --------
        >>> Sums().prompts([1234, 907])
        ['12+34=', '09+07=']
        """
        return [f"{number // 100:02}+{number % 100:02}=" for number in numbers]

    def rewards(self, numbers: Any, kind: str) -> np.ndarray:
        """Return the reward of every action at P prompts, an array (P, 101) in [0, 1]; a ValueError if none is such.

        Examples
        --------
        >>> Sums().rewards([9901], "graded")[0, [0, 1, 99, 100]].round(3)
        array([1.   , 0.946, 0.946, 0.   ])
        """
        distance = np.abs(np.arange(100) - self._right(np.asarray(numbers))[:, None])
        return _rewards(np.minimum(distance, 100 - distance), kind)

    def demonstrations(self, count: int, rng: Any) -> list[tuple[str, str]]:
        """Draw `count` pairs of a prompt and a completion."""
        numbers = rng.integers(self.size, size=count)
        errors = np.rint(rng.normal(scale=0.5 * 1.4 ** (numbers // 1000)))
        answers = (self._right(numbers) + errors.astype(int)) % 100
        malformed = rng.random(count) < 0.03
        completions = [self.answers[answer][: 1 if cut else None] for answer, cut in zip(answers, malformed)]
        return list(zip(self.prompts(numbers), completions))

    def _right(self, numbers):
        return (numbers // 100 + numbers % 100) % 100


class ChatSums:
    """Sums below `count`, at least 10, asked in the chat template of a tokenizer; a ValueError if it has none."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", count: int):
        if tokenizer.chat_template is None:
            raise ValueError("model must have a chat template to be asked for sums, and its tokenizer has none.")
        self._tokenizer = tokenizer
        self._shots, self._pairs = self._split(count)
        self.answers = tuple(map(str, range(count)))

    @classmethod
    def _split(cls, count):
        """Pairs of numbers that are answered beforehand, and those that are asked for."""
        pairs = [(a, b) for a in range(count) for b in range(count - a)]
        shots = [pairs[len(pairs) * part // 10] for part in (5, 1, 8, 3)]
        return shots, [pair for pair in pairs if pair not in shots]

    @classmethod
    def how_many(cls, count: int) -> int:
        """Number of prompts."""
        return len(cls._split(count)[1])

    @property
    def size(self) -> int:
        """Number of prompts."""
        return len(self._pairs)

    def prompts(self, numbers: Any) -> list[str]:
        """Return the prompts of numbers below `size`: whole texts, in the template already."""
        turns = [[*self._shots, self._pairs[number]] for number in numbers]
        return [self._text(pairs) for pairs in turns]

    def rewards(self, numbers: Any, kind: str) -> np.ndarray:
        """Return the reward of every action at P prompts, an array (P, count + 1) in [0, 1]."""
        right = np.array([sum(self._pairs[number]) for number in numbers])
        return _rewards(np.abs(np.arange(len(self.answers)) - right[:, None]), kind)

    def _text(self, pairs):
        turns = []
        for a, b in pairs:
            turns += [{"role": "user", "content": f"{a} + {b} ="}, {"role": "assistant", "content": str(a + b)}]
        return self._tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, tokenize=False)


def _rewards(distance, kind):
    if kind not in REWARDS:
        raise ValueError(f"kind must be one of {', '.join(REWARDS)}, got {kind!r}.")
    graded = REWARDS[kind](distance)
    return np.concatenate([graded, np.zeros((len(graded), 1))], axis=1)
