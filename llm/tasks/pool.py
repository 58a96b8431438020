"""Problems of a task, split by the hash of their prompts into training, validation and test.

`Pool` is the base of tasks: it draws training problems, gives out held-out ones in a fixed order, and leaves out those
that do not fit a model. A task says where its problems come from in one of two ways: it lists them all in ``problems``,
or it generates ``candidates`` one after another. Its own part is `Task.judge`.
"""

import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Pool", "Problem", "boolean", "fraction", "split_of"]

OPTIONS = {
    "train": "prompts_per_batch",
    "validation": "eval_prompts (in pmd-llm evaluate: prompts)",
    "test": "test_prompts (in pmd-llm evaluate: prompts)",
}
TRIED = 32


@dataclass(frozen=True)
class Problem:
    """A prompt, without the markup of any chat format, and its right answer as ``Task.judge`` takes it.

    ``solution`` is a completion to imitate, empty where there is none. Accuracies are also told apart by ``kind``, a
    word, where the problems are of several.
    """

    prompt: str
    answer: str
    solution: str = field(default="", repr=False, compare=False)
    kind: str = field(default="", repr=False, compare=False)


def boolean(text: str) -> bool:
    """Read "true" or "false" in any case; ValueError for other texts."""
    return ("false", "true").index(text.lower()) == 1  # of a tuple: ValueError where there is none


def fraction(text: str) -> float:
    """Map a text to a number that looks uniform on [0, 1), the same on every machine: SHA-256 read as a fraction."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def split_of(text: str, share: float) -> str:
    """Return the split that a text belongs to by its hash, ``share`` of all texts in each held-out one."""
    x = fraction(text)
    return "validation" if x < share else "test" if x < 2 * share else "train"


class Pool:
    """Problems that are sampled, held out, and restricted to those that fit a model.

    ``problems`` lists those of "train", "validation" and "test", each in its order; it is None if they are generated,
    and then there are no more after ``attempts`` candidates without a new one.
    """

    spec: str = "the task"
    stop: tuple[str, ...] = ()
    problems: Any = None
    attempts = 1000
    _fits: Any = None
    _warned = False

    def candidates(self, split: str, rng: Any) -> Iterator[Problem | None]:
        """Generate problems of a split, or None for each attempt that gave none; without `rng` in a fixed order."""
        raise NotImplementedError("a task must set problems or define candidates.")

    def sample(self, count: int, rng: Any) -> list[Problem]:
        """Draw `count` different training problems with a NumPy generator; ValueError if there are fewer."""
        if self.problems is None:
            return self._generated("train", count, rng)
        rows = self._listed("train", count)
        return [rows[i] for i in rng.choice(len(rows), count, replace=False)]

    def held_out(self, split: str, count: int) -> list[Problem]:
        """Return the first `count` problems of the split "validation" or "test", the same in every process."""
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', got {split!r}.")
        return self._generated(split, count, None) if self.problems is None else self._listed(split, count)[:count]

    def restrict(self, fits: Callable[[list[str]], list[bool]]) -> None:
        """Leave out problems whose prompts do not fit a model, with a warning that counts them and shows the first.

        ``fits`` maps a list of prompts to a list of bool; ValueError if no problem is left.
        """
        rows, generated = self.problems, self.problems is None
        if generated:
            tried = itertools.islice(self.candidates("train", np.random.default_rng(0)), 100 * TRIED)
            rows = {"train": list(itertools.islice(filter(None, tried), TRIED))}
        kept = {split: problems and fits([problem.prompt for problem in problems]) for split, problems in rows.items()}
        out = [problem for split in rows for problem, fit in zip(rows[split], kept[split]) if not fit]
        total = sum(len(each) for each in rows.values())
        if out and len(out) == total:
            raise ValueError(
                f"task {self.spec} has no prompt that fits the model, the first is {out[0].prompt[:60]!r}: choose a "
                "smaller max_new_tokens, a model that reads longer texts, or another task."
            )
        if out:
            self._warn(f"{len(out)} of {total} prompts{' tried' if generated else ''}", out[0])
        self._fits = fits
        if not generated:
            self.problems = {split: list(itertools.compress(rows[split], kept[split])) for split in rows}

    def _warn(self, count, first):
        self._warned, example = True, f"the first is {first.prompt[:60]!r}"
        warnings.warn(f"{count} of {self.spec} do not fit the model and are left out, {example}.", stacklevel=3)

    def _listed(self, split, count):
        rows = self.problems[split]
        return rows if count <= len(rows) else self._refuse(split, len(rows), count)

    def _generated(self, split, count, rng):
        drawn, attempts, candidates = {}, 0, self.candidates(split, rng)
        while len(drawn) < count:
            problem = next(candidates, self)
            attempts += 1
            if problem is self or attempts > self.attempts:
                self._refuse(split, len(drawn), count)
            if problem and problem.prompt not in drawn:
                if not self._fits or self._fits([problem.prompt])[0]:
                    drawn[problem.prompt], attempts = problem, 0
                elif not self._warned:
                    self._warn("some prompts", problem)
        return list(drawn.values())

    def _refuse(self, split, available, count):
        raise ValueError(
            f"{OPTIONS[split]} must be at most {available}, the {split} prompts of {self.spec}, got {count}: ask for "
            "fewer, or choose a task with more different prompts."
        )
