"""Few-shot examples before each question, from the training problems of any task: the option ``shots``.

A prompt of ``shots=2`` is two training problems with their worked solutions, and the question::

    Question: Mia has 6 shells and finds 9 more. How many shells does Mia have now?
    Answer: 6 + 9 = 15. The answer is 15.

    Question: Leo bought 3 tickets for 4 dollars each. How many dollars did Leo pay?
    Answer: 3 * 4 = 12. The answer is 12.

    Question: A farmer planted 5 rows of 12 trees. How many trees did the farmer plant?
    Answer:

All prompts of a task have the same examples in the same order, the same in every process. One that is the question
itself gives way to the next. A completion ends where the model asks itself the next question, and at the end of its
line where the examples take one line each.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .answers import Verdict
from .pool import Problem

__all__ = ["FewShot"]

NEXT = "\n\nQuestion:"
TRIED = 20


class FewShot:
    """A task whose prompts begin with `shots` examples; all else is the task's own.

    Solved examples are the task's ``demonstrations``, or its problems' ``solution``, or else their bare answers.
    """

    def __init__(self, task: Any, shots: int):
        self.task, self.shots, self.spec = task, shots, task.spec
        self.examples = _examples(task, shots + 1)
        self.end = NEXT if any("\n" in solution for _, solution in self.examples) else "\n"
        self.stop = (*task.stop, self.end)
        if hasattr(task, "demonstrations"):
            self.demonstrations = self._demonstrations

    def __getattr__(self, name):
        """What a task may have besides: ``max_new_tokens``, ``alphabet``."""
        if name in ("task", "demonstrations"):
            raise AttributeError(name)
        return getattr(self.task, name)

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        """Draw `count` different training problems."""
        return [self._problem(problem) for problem in self.task.sample(count, rng)]

    def held_out(self, split: str, count: int) -> list[Problem]:
        """Return the first `count` problems of a held-out split."""
        return [self._problem(problem) for problem in self.task.held_out(split, count)]

    def judge(self, completions: list[str], answers: list[str]) -> Verdict:
        """Compare completions, up to a next question or line, as the task does."""
        return self.task.judge([completion.partition(self.end)[0] for completion in completions], answers)

    def restrict(self, fits: Callable[[list[str]], list[bool]]) -> None:
        """Leave out problems that do not fit a model together with the examples."""
        self.task.restrict(lambda prompts: fits([self._prompt(prompt) for prompt in prompts]))

    def _demonstrations(self, count, rng):
        """Demonstrations of the task after the examples, each with the space that follows "Answer:"."""
        return [(self._prompt(prompt), f" {completion}") for prompt, completion in self.task.demonstrations(count, rng)]

    def _problem(self, problem):
        return replace(problem, prompt=self._prompt(problem.prompt))

    def _prompt(self, question):
        others = [example for example in self.examples if example[0] != question][: self.shots]
        solved = "".join(f"Question: {asked}\nAnswer: {solution}\n\n" for asked, solution in others)
        return f"{solved}Question: {question}\nAnswer:"


def _examples(task, count):
    """The first `count` different solved training problems of a fixed draw."""
    rng, examples = np.random.default_rng(0), {}
    for _ in range(TRIED):
        try:
            if hasattr(task, "demonstrations"):
                examples |= dict(task.demonstrations(count, rng))
            else:
                examples |= {problem.prompt: problem.solution or problem.answer for problem in task.sample(count, rng)}
        except ValueError:  # there are fewer
            break
        if len(examples) >= count:
            return list(examples.items())[:count]
    raise ValueError(f"shots must be fewer than the training problems of {task.spec}, got {count - 1}.")
