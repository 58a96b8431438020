r"""Prompts with answers that a program can check: the tasks a policy is trained and evaluated on.

`load` makes a task from one line, its spec: a name, then options after a colon, separated by commas. An option that
contains a comma stands in double quotes, as in CSV::

    arithmetic                                              chains of operations modulo 10, nothing to download
    arithmetic:terms=6-8,parentheses=true,modulus=97        the same, harder
    reasoning_gym:chain_sum,min_terms=3                     a data set of reasoning-gym and its own options
    gsm8k    math    dapo-math-17k                          data sets of the Hugging Face hub
    gsm8k:path=DIRECTORY                                    the same from local files
    file:rows.jsonl,question=question,answer=answer         any table with question and answer columns
    hub:OWNER/NAME,question=problem,answer=answer           the same from the hub

Every task has the attributes of `Task`. Training prompts are disjoint from validation and test prompts: whoever draws
`Task.sample` never meets a held-out prompt.
"""

import csv
import hashlib
import importlib
import inspect
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .answers import Verdict

__all__ = ["Problem", "Task", "fraction", "load"]

TASKS = {
    "arithmetic": ("arithmetic", "Arithmetic"),
    "reasoning_gym": ("reasoning", "ReasoningGym"),
    "gsm8k": ("datasets", "gsm8k"),
    "math": ("datasets", "math"),
    "dapo-math-17k": ("datasets", "dapo_math_17k"),
    "file": ("datasets", "file"),
    "hub": ("datasets", "hub"),
}


@dataclass(frozen=True)
class Problem:
    """A prompt and what its completion is checked against.

    Attributes
    ----------
    prompt : str
        Text before the completion.
    answer : str
        The right answer, as ``Task.judge`` takes it.
    """

    prompt: str
    answer: str


class Task(Protocol):
    """What every task offers.

    Attributes
    ----------
    spec : str
        The line it was loaded from.
    """

    spec: str

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        """Draw `count` different training prompts."""

    def held_out(self, split: str, count: int) -> list[Problem]:
        """Return the first `count` prompts, in a fixed order, of the split "validation" or "test"."""

    def judge(self, completions: list[str], answers: list[str]) -> Verdict:
        """Compare completions with the answers of their problems."""


def load(spec):
    """Make the task that a spec describes.

    Parameters
    ----------
    spec : str
        ``NAME`` or ``NAME:option=value,...`` as in the module's examples.

    Returns
    -------
    Task

    Raises
    ------
    ValueError
        The task or an option is unknown, or a value is not accepted; the message lists what is.
    ImportError
        A package the task needs is missing; the message names it.

    Examples
    --------
    >>> load("arithmetic").held_out("test", 1)[0].prompt.endswith("=")
    True
    >>> load("arithmetic:term=6")
    Traceback (most recent call last):
    ValueError: arithmetic has no option 'term'; its options are terms, operators, modulus, parentheses.
    """
    name, _, rest = spec.partition(":")
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r} in {spec!r}.")
    module, maker = TASKS[name]
    maker = getattr(importlib.import_module(f".{module}", __name__), maker)
    task = maker(**_options(name, maker, next(csv.reader([rest]), [])))
    task.spec = spec
    return task


def fraction(text):
    """Map a text to a number that looks uniform on [0, 1), the same one on every machine: SHA-256 read as a fraction.

    Examples
    --------
    >>> round(fraction("7+3*9-9="), 6)
    0.316593
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _options(name, maker, parts):
    """Options as keyword arguments, each in the type its parameter is annotated with."""
    parameters = inspect.signature(maker).parameters
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [key for key, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
    required = [key for key in known if parameters[key].default is inspect.Parameter.empty]
    options = dict(zip(required, parts))
    if len(options) < len(required) or not all(options.values()):
        raise ValueError(f"{name} needs its {required[0]} right after the colon, as in {name}:{required[0].upper()}.")
    for part in parts[len(required) :]:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"options of {name} have the form option=value, got {part!r}.")
        if key not in known and not accepts_any:
            raise ValueError(f"{name} has no option {key!r}; its options are {', '.join(known) or 'none'}.")
        options[key] = _typed(key, value, parameters[key].annotation) if key in known else value
    return options


def _typed(key, value, kind):
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{key} must be true or false, got {value!r}.")
        return value.lower() == "true"
    if kind is int:
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"{key} must be an integer, got {value!r}.") from None
    return value
