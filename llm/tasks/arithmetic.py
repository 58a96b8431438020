"""Chains of operations modulo m, worked out one operation at a time: the task that needs nothing downloaded.

A prompt is an expression and an equals sign; its completion rewrites the expression until one number is left, every
result reduced modulo m. Multiplication comes before addition and subtraction, equals go from left to right::

    7+3*9-9=   →   7+7-9=4-9=5            5*(8+4*6)+2=   →   5*(8+4)+2=5*2+2=0+2=2             (m = 10)

An answer is right if it is exactly the text after the last equals sign. The operands are nonzero. A prompt is kept only
if working from left to right and from right to left, whatever the operators, are both wrong, so no order that ignores
precedence is rewarded. In nested expressions all three orders respect the parentheses.

Demonstrations carry out a *random* possible operation at each step, one whose two operands are numbers. A policy that
imitates them perfectly knows the arithmetic, the notation and the parentheses and has no notion of precedence: what is
left to learn is which operation comes next. Its accuracy is the share of random orders that end at the right answer:

    terms=4, modulus=10                       .33 (a wrong order is right by accident about one time in ten)
    terms=6-8, parentheses, modulus=97        .22 (completions of 38 to 111 characters)

Which prompts are held out is decided by their hash alone (`pmdllm.tasks.fraction`): 5% validation, 5% test. A level
of at most 300,000 expressions without parentheses is enumerated, a larger one is sampled.
"""

import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from .answers import Verdict, exact
from .pool import Pool, Problem, fraction, split_of

__all__ = ["ALPHABET", "Arithmetic", "reductions"]

ALPHABET = "0123456789+-*=()"
HELD_OUT = 0.05
ENUMERABLE = 300_000

OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
POSSIBLE = re.compile(r"(?<!\d)(?=((\d+)([-+*])(\d+)))")
NEXT_OPERATOR = {
    "precedence": lambda operators: operators.index("*") if "*" in operators else 0,
    "left": lambda operators: 0,
    "right": lambda operators: len(operators) - 1,
}


class Arithmetic(Pool):
    """A level of the task.

    Parameters
    ----------
    terms : str
        Numbers in an expression: ``"4"``, or ``"6-8"`` for each of 6, 7 and 8 with equal probability.
    operators : str
        Some of ``+-*``, with ``*`` and another one.
    modulus : int
        m from 3 to 1000; operands lie in 1, ..., m − 1 and answers in 0, ..., m − 1.
    parentheses : bool
        Enclose about ``terms / 2`` runs of two or three neighbours, which may be enclosed runs themselves.
    """

    alphabet, attempts = ALPHABET, 20_000

    def __init__(self, terms: str = "4", operators: str = "+-*", modulus: int = 10, parentheses: bool = False):
        least = 5 if parentheses else 4
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(terms), re.ASCII)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not least <= low <= high <= 64:
            raise ValueError(
                f"terms must be a number or range (6-8) within {least} to 64 (fewer leave no prompt on which left "
                f"to right and right to left are both wrong), got {terms!r}."
            )
        if not {"*"} < set(operators) <= set(OPERATIONS) or len(set(operators)) != len(operators):
            raise ValueError(f"operators must be * and + or - or both, each once, got {operators!r}.")
        if not 2 < modulus <= 1000:
            raise ValueError(f"modulus must be an integer from 3 to 1000, got {modulus}.")
        self.terms, self.operators = range(low, high + 1), operators
        self.modulus, self.parentheses = modulus, parentheses
        self.spec = f"arithmetic:terms={terms},operators={operators},modulus={modulus},parentheses={parentheses}"

    @property
    def max_new_tokens(self) -> int:
        """Length of the longest well-formed completion and its end-of-sequence token, and two more."""
        width, most = len(str(self.modulus - 1)), self.terms[-1]
        pairs = most // 2 if self.parentheses else 0
        lengths = [k * width + k - 1 + 2 * min(pairs, max(k - 2, 0)) for k in range(1, most)]
        return sum(lengths) + len(lengths) - 1 + 1 + 2

    def judge(self, completions: list[str], answers: list[str]) -> Verdict:
        """Compare what follows the last equals sign with the answer."""
        return exact(completions, answers)

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Draw training prompts, which may repeat, with completions that take a random possible operation each time."""
        if self.problems is None:
            problems = [self.sample(1, rng)[0] for _ in range(count)]
        else:
            problems = [self.problems["train"][i] for i in rng.integers(len(self.problems["train"]), size=count)]
        return [(p.prompt, "=".join(reductions(p.prompt[:-1], self.modulus, rng))) for p in problems]

    @functools.cached_property
    def problems(self) -> Any:
        """All problems of each split, in the order of their hashes; None at a level too large to enumerate."""
        size = sum((self.modulus - 1) ** n * len(self.operators) ** (n - 1) for n in self.terms)
        return None if self.parentheses or size > ENUMERABLE else _enumerated(self.terms, self.operators, self.modulus)

    def candidates(self, split: str, rng: np.random.Generator) -> Iterator[Problem | None]:
        """Draw expressions; those of the split that defeat both wrong orders are its problems."""
        rng = rng or np.random.default_rng(["validation", "test"].index(split))
        while True:
            expression = self._expression(rng)
            value, kept = _judged(expression, self.modulus)
            prompt = _render(expression) + "="
            yield Problem(prompt, str(value)) if kept and split_of(prompt, HELD_OUT) == split else None


    def _expression(self, rng):
        n = self.terms[rng.integers(len(self.terms))]
        operands = rng.integers(1, self.modulus, size=n).tolist()
        chosen = rng.integers(len(self.operators), size=n - 1).tolist()
        expression = _interleave(operands, [self.operators[i] for i in chosen])
        if self.parentheses:
            for _ in range(rng.integers(n // 2 - 1, n // 2 + 1)):
                _enclose(expression, rng)
        return expression


def reductions(text: str, modulus: int, rng: np.random.Generator) -> list[str]:
    """Rewrite an expression one random possible operation at a time, until it is a number; return all its texts.

    Examples
    --------
    >>> reductions("7-(2+9)", 10, np.random.default_rng(0))
    ['7-1', '6']
    """
    steps = []
    while possible := list(POSSIBLE.finditer(text)):
        match = possible[rng.integers(len(possible))]
        result = OPERATIONS[match[3]](int(match[2]), int(match[4])) % modulus
        text = text[: match.start()] + str(result) + text[match.end(1) :]
        text = re.sub(r"\((\d+)\)", r"\1", text)
        steps.append(text)
    return steps


# An expression is a list [operand, operator, operand, ...]; an operand is a number, an array of numbers, or an
# expression in parentheses.


@functools.lru_cache(maxsize=8)
def _enumerated(terms, operators, modulus):
    """All problems of a level by split, in the order of their hashes."""
    splits = {"train": [], "validation": [], "test": []}
    chains = itertools.chain(*(_chains(n, operators, modulus) for n in terms))
    for problem in sorted(chains, key=lambda problem: fraction(problem.prompt)):
        splits[split_of(problem.prompt, HELD_OUT)].append(problem)
    return splits


def _chains(n, operators, modulus):
    """All problems of n terms, evaluated for all operands at once."""
    operands = np.indices((modulus - 1,) * n).reshape(n, -1) + 1
    for chosen in itertools.product(operators, repeat=n - 1):
        values, kept = _judged(_interleave(list(operands), chosen), modulus)
        for column, answer in zip(operands[:, kept].T.tolist(), values[kept].tolist()):
            yield Problem(_render(_interleave(column, chosen)) + "=", str(answer))


def _judged(expression, modulus):
    """Value of an expression, and whether both wrong orders miss it."""
    value, left, right = (_value(expression, modulus, order) for order in NEXT_OPERATOR)
    return value, (value != left) & (value != right)


def _render(expression):
    return "".join(f"({_render(item)})" if isinstance(item, list) else str(item) for item in expression)


def _interleave(operands, operators):
    return [item for pair in zip(operands, [*operators, None]) for item in pair][:-1]


def _value(expression, modulus, order):
    operands = [_value(x, modulus, order) if isinstance(x, list) else x for x in expression[::2]]
    operators = expression[1::2]
    while operators:
        i = NEXT_OPERATOR[order](operators)
        operands[i : i + 2] = [OPERATIONS[operators.pop(i)](operands[i], operands[i + 1]) % modulus]
    return operands[0] % modulus


def _enclose(expression, rng):
    """Put parentheses around a random run of two or three operands, if they are not all there are."""
    operands = (len(expression) + 1) // 2
    if operands > 2:
        run = rng.integers(2, min(operands, 4))
        start = 2 * rng.integers(operands - run + 1)
        expression[start : start + 2 * run - 1] = [expression[start : start + 2 * run - 1]]
