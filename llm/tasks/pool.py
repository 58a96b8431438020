"""Problems of a task, split by the hash of their prompts into training, validation and test.

`Pool` is the base of tasks: it draws training problems, gives out held-out ones in a fixed order, and leaves out those
that do not fit a model. A task says where its problems come from in one of two ways: it lists them all in ``problems``,
or it generates ``candidates`` one after another. Its own part is `Task.judge`.
"""

import hashlib
import itertools
import warnings
from dataclasses import dataclass

import numpy as np

__all__ = ["Pool", "Problem", "fraction", "split_of"]

OPTIONS = {
    "train": "prompts_per_batch",
    "validation": "eval_prompts (in pmd-llm evaluate: prompts)",
    "test": "test_prompts (in pmd-llm evaluate: prompts)",
}
TRIED = 32


@dataclass(frozen=True)
class Problem:
    """A prompt and what its completion is checked against.

    Attributes
    ----------
    prompt : str
        What the user says, without the markup of any chat format.
    answer : str
        The right answer, as ``Task.judge`` takes it.
    """

    prompt: str
    answer: str


def fraction(text):
    """Map a text to a number that looks uniform on [0, 1), the same on every machine: SHA-256 read as a fraction."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def split_of(text, share):
    """Return the split that a text belongs to by its hash, ``share`` of all texts in each held-out one."""
    x = fraction(text)
    return "validation" if x < share else "test" if x < 2 * share else "train"


class Pool:
    """Problems that are sampled, held out, and restricted to those that fit a model.

    Attributes
    ----------
    spec : str
        The task's name in messages.
    stop : tuple of str
        Texts at which a completion ends.
    problems : dict of list of Problem, or None
        All problems of "train", "validation" and "test", each in its order; None if they are generated.
    attempts : int
        Candidates without a new problem after which there are no more.
    """

    spec, stop, problems, attempts, _fits, _warned = "the task", (), None, 1000, None, False

    def candidates(self, split, rng):
        """Generate problems of a split, or None for each attempt that gave none; without `rng` in a fixed order."""
        raise NotImplementedError("a task must set problems or define candidates.")

    def sample(self, count, rng):
        """Draw `count` different training problems with a NumPy generator; ValueError if there are fewer."""
        if self.problems is None:
            return self._generated("train", count, rng)
        rows = self._listed("train", count)
        return [rows[i] for i in rng.choice(len(rows), count, replace=False)]

    def held_out(self, split, count):
        """Return the first `count` problems of the split "validation" or "test", the same in every process."""
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', got {split!r}.")
        return self._generated(split, count, None) if self.problems is None else self._listed(split, count)[:count]

    def restrict(self, fits):
        """Leave out problems whose prompts do not fit a model, with a warning that counts them and shows the first.

        Parameters
        ----------
        fits : callable
            Tells of a list of prompts which fit: a list of bool.

        Raises
        ------
        ValueError
            No problem is left.
        """
        rows = self.problems
        if rows is None:
            tried = itertools.islice(self.candidates("train", np.random.default_rng(0)), 100 * TRIED)
            rows = {"train": list(itertools.islice(filter(None, tried), TRIED))}
        kept = {split: problems and fits([problem.prompt for problem in problems]) for split, problems in rows.items()}
        out = [problem for split in rows for problem, fit in zip(rows[split], kept[split]) if not fit]
        total = sum(map(len, rows.values()))
        if out and len(out) == total:
            raise ValueError(
                f"task {self.spec} has no prompt that fits the model, the first is {out[0].prompt[:60]!r}: choose a "
                "smaller max_new_tokens, a model that reads longer texts, or another task."
            )
        if out:
            self._warn(f"{len(out)} of {total} prompts" + (" tried" if self.problems is None else ""), out[0])
        self._fits = fits
        if self.problems is not None:
            self.problems = {split: list(itertools.compress(rows[split], kept[split])) for split in rows}

    def _warn(self, count, first):
        self._warned, prompt = True, first.prompt[:60]
        text = f"{count} of {self.spec} do not fit the model and are left out, the first is {prompt!r}."
        warnings.warn(text, stacklevel=3)

    def _listed(self, split, count):
        if count > len(self.problems[split]):
            self._refuse(split, len(self.problems[split]), count)
        return self.problems[split]

    def _generated(self, split, count, rng):
        drawn, attempts, candidates = {}, 0, self.candidates(split, rng)
        while len(drawn) < count:
            problem = next(candidates, self)
            attempts += 1
            if problem is self or attempts > self.attempts:
                self._refuse(split, len(drawn), count)
            if problem and problem.prompt not in drawn:
                if self._fits and not self._fits([problem.prompt])[0]:
                    if not self._warned:
                        self._warn("some prompts", problem)
                    continue
                drawn[problem.prompt], attempts = problem, 0
        return list(drawn.values())

    def _refuse(self, split, available, count):
        raise ValueError(
            f"{OPTIONS[split]} must be at most {available}, the {split} prompts of {self.spec}, got {count}: ask for "
            "fewer, or choose a task with more different prompts."
        )
