"""Sums in English, for models that read it: "What is 7 * 8?", "What is 23 + 9 * 2?".

A level is the number of operations, the operators and the largest operand. Multiplication comes first, as usual; its
factors are at most 12, so that products are known by heart or not at all. Answers are integers and, unless asked for,
not negative, nor is what is on the way to them. The answer of a completion is its last number.

Which prompts are held out is decided by their hash (`pmdllm.tasks.fraction`): 10% validation, 10% test. A level of one
operation is enumerated, a longer one is sampled, every number of operations with equal probability.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from .answers import Verdict, turn
from .pool import Pool, Problem, fraction, split_of

__all__ = ["Sums", "last_numbers"]

HELD_OUT = 0.1
FACTOR = 12
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
NUMBER = re.compile(r"(?:(?<![\w.)])[-−])?\d+(?:,\d{3}(?!\d))*(?:\.\d+)?", re.ASCII)


class Sums(Pool):
    """A level of the task.

    Parameters
    ----------
    operations : str
        Operations in a sum: ``"1"``, or ``"1-3"`` for a mixture from easy to hard.
    operators : str
        Some of ``+-*``.
    largest : int
        Largest operand, from 3 to 9999; the least is 1.
    second : int
        Largest operand after the first, from 3 to `largest`; 0: `largest` too.
    negative : bool
        Allow what is below zero.
    """

    attempts = 5_000
    stop = ("\n\n",)

    def __init__(
        self, operations: str = "1", operators: str = "+-*", largest: int = 10, negative: bool = False, second: int = 0
    ):
        match = re.fullmatch(r"(\d)(?:-(\d))?", str(operations), re.ASCII)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high:
            raise ValueError(f"operations must be a number or range (1-3) within 1 to 9, got {operations!r}.")
        if not operators or not set(operators) <= set(OPERATIONS) or len(set(operators)) != len(operators):
            raise ValueError(f"operators must be some of + - *, each once, got {operators!r}.")
        if not 3 <= largest <= 9999:
            raise ValueError(f"largest must be an integer from 3 to 9999, got {largest}.")
        if second and not 3 <= second <= largest:
            raise ValueError(f"second must be 0 or an integer from 3 to largest = {largest}, got {second}.")
        self.operations, self.operators = range(low, high + 1), operators
        self.largest, self.second, self.negative = largest, second or largest, negative
        self.max_new_tokens = 16 * high
        self.spec = f"sums:operations={operations},operators={operators},largest={largest},negative={negative}"
        self.spec += f",second={second}" if second else ""

    def judge(self, completions: list[str], answers: list[str]) -> Verdict:
        """Compare the last number of each completion with the answer."""
        numbers = last_numbers([turn(completion, self.stop) for completion in completions])  # type: ignore[misc]
        return Verdict.of([number == answer for number, answer in zip(numbers, answers)], numbers)

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Draw training prompts with completions that carry out one operation after another."""
        problems = [self.sample(1, rng)[0] for _ in range(count)]
        return [(problem.prompt, solution(problem.prompt[8:-1])) for problem in problems]

    @functools.cached_property
    def problems(self) -> Any:
        """All problems of each split, in the order of their hashes; None at a level of more than one operation."""
        if self.operations != range(1, 2) or self.largest > 100:
            return None
        splits = {"train": [], "validation": [], "test": []}
        pairs = ((o, a, b) for o in self.operators for a in self._operands(o) for b in self._operands(o, self.second))
        problems = filter(None, (self._problem(f"{a} {o} {b}") for o, a, b in pairs))
        for problem in sorted(problems, key=lambda problem: fraction(problem.prompt)):
            splits[split_of(problem.prompt, HELD_OUT)].append(problem)
        return splits

    def candidates(self, split: str, rng: np.random.Generator | None) -> Iterator[Problem | None]:
        """Draw sums; those of the split whose numbers are allowed are its problems."""
        rng = rng or np.random.default_rng(["validation", "test"].index(split))
        while True:
            count = self.operations[rng.integers(len(self.operations))]
            operators = [self.operators[i] for i in rng.integers(len(self.operators), size=count)]
            near = ["".join(operators[max(0, i - 1) : i + 1]) for i in range(count + 1)]
            ranges = [self._operands(near[0]), *(self._operands(some, self.second) for some in near[1:])]
            operands = [str(rng.integers(operand.start, operand.stop)) for operand in ranges]
            problem = self._problem(" ".join(word for pair in zip(operands, [*operators, ""]) for word in pair).strip())
            yield problem if problem and split_of(problem.prompt, HELD_OUT) == split else None

    def _operands(self, operators, largest=None):
        """What a number next to these operators may be."""
        largest = largest or self.largest
        return range(1, (min(FACTOR, largest) if "*" in operators else largest) + 1)

    def _problem(self, text):
        """The problem of a sum, None if something is negative that must not be."""
        values = [step[3] for step in _steps(text)]
        return Problem(f"What is {text}?", str(values[-1])) if self.negative or min(values) >= 0 else None


def last_numbers(texts: list[str]) -> Any:
    """Last number of each text, without commas and a decimal part of zeros; None where there is none.

    Examples
    --------
    >>> last_numbers(["23 - 9 = 14.", "It is **1,056**.", "= -7", "2.50", "none", None])
    ['14', '1056', '-7', '2.50', None, None]
    """
    numbers = [(NUMBER.findall(text or "") or [None])[-1] for text in texts]
    return [number and re.sub(r"\.0+$", "", number.replace(",", "").replace("−", "-")) for number in numbers]


def solution(text):
    """Carry out a sum one operation at a time.

    Examples
    --------
    >>> solution("23 + 9 * 2")
    '9 * 2 = 18. 23 + 18 = 41. The answer is 41.'
    >>> solution("7 * 8")
    '7 * 8 = 56'
    """
    steps = [f"{a} {operator} {b} = {value}" for a, operator, b, value in _steps(text)]
    return steps[0] if len(steps) == 1 else ". ".join([*steps, f"The answer is {steps[-1].rpartition(' ')[2]}."])


def _steps(text):
    """Operations (a, operator, b, value) of a sum in the order in which they are carried out."""
    words, steps = text.split(), []
    while len(words) > 1:
        at = words.index("*") if "*" in words else 1
        a, operator, b = int(words[at - 1]), words[at], int(words[at + 1])
        value = OPERATIONS[operator](a, b)
        steps.append((a, operator, b, value))
        words[at - 1 : at + 2] = [str(value)]
    return steps
