r"""Prompts with answers that a program can check: the tasks a policy is trained and evaluated on.

`load` makes a task from one line, its spec: a name, then options after a colon, separated by commas. An option that
contains a comma stands in double quotes, as in CSV; ``\n`` in a template is a new line::

    arithmetic                                              chains of operations modulo 10, nothing to download
    arithmetic:terms=6-8,parentheses=true,modulus=97        the same, harder
    sums    sums:operations=1-3                             sums in English, "What is 7 * 8?"
    word_problems    word_problems:steps=2,largest=99       word problems in English, some templates never trained on
    reasoning_gym:chain_sum,min_terms=3                     a data set of reasoning-gym and its own options
    gsm8k    math    dapo-math-17k                          data sets of the Hugging Face hub
    gsm8k:path=DIRECTORY                                    the same from local files
    file:rows.jsonl,question=question,answer=answer         any table with question and answer columns
    hub:OWNER/NAME,question=problem,answer=answer           the same from the hub
    package.module:Class    path/to/file.py:Class:size=3    your own, a class with the attributes of `Task`

Every task has the option ``shots``, the number of solved training problems that are put before each question
(`pmdllm.tasks.few_shot`): ``word_problems:shots=3``, ``gsm8k:shots=4,template=plain``.

Training prompts are disjoint from validation and test prompts: whoever draws `Task.sample` never meets a held-out
prompt. `Pool` sees to that, and offers all of `Task` but ``max_new_tokens`` and ``judge``. A bad spec is a ValueError
that lists what is accepted, a missing package an ImportError that names it.
"""

import csv
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .answers import Verdict
from .few_shot import FewShot
from .pool import Pool, Problem, boolean, fraction

__all__ = ["Pool", "Problem", "Task", "Verdict", "fraction", "load", "own"]

TASKS = {
    "arithmetic": ("arithmetic", "Arithmetic"),
    "sums": ("sums", "Sums"),
    "word_problems": ("word_problems", "WordProblems"),
    "reasoning_gym": ("reasoning", "ReasoningGym"),
    "gsm8k": ("datasets", "gsm8k"),
    "math": ("datasets", "math"),
    "dapo-math-17k": ("datasets", "dapo_math_17k"),
    "file": ("datasets", "file"),
    "hub": ("datasets", "hub"),
}


class Task(Protocol):
    """What every task offers. Some also have an ``alphabet`` and ``demonstrations(count, rng)`` to warm up a model."""

    spec: str  # the line it was loaded from
    max_new_tokens: int  # a completion is truncated after so many tokens, unless the run says otherwise
    stop: tuple[str, ...]  # texts at which a completion ends; what follows is not judged

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        """Draw `count` different training problems."""

    def held_out(self, split: str, count: int) -> list[Problem]:
        """Return the first `count` problems, in a fixed order, of the split "validation" or "test"."""

    def judge(self, completions: list[str], answers: list[str]) -> Verdict:
        """Compare completions with the answers of their problems."""

    def restrict(self, fits: Callable[[list[str]], list[bool]]) -> None:
        """Leave out problems whose prompts do not fit a model; ``fits(list of str)`` gives a list of bool."""


OWN = set()  # files of the user that `own` has loaded, and what it was asked for in them
NEEDED = ("max_new_tokens", "stop", "sample", "held_out", "judge", "restrict")


def load(spec: str) -> Task:
    """Make the task that a spec describes.

    Examples
    --------
    >>> load("arithmetic").held_out("test", 1)[0].prompt.endswith("=")
    True
    >>> load("arithmetic:term=6")
    Traceback (most recent call last):
    ValueError: arithmetic has no option 'term'; its options are terms, operators, modulus, parentheses, shots.
    """
    name, _, rest = spec.partition(":")
    if name in TASKS:
        module, maker = TASKS[name]
        maker = getattr(importlib.import_module(f".{module}", __name__), maker)
    else:
        class_name, _, rest = rest.partition(":")
        if not name or not class_name:
            forms = ", ".join([*TASKS, "or package.module:Class", "or file.py:Class"])
            raise ValueError(f"task must be one of {forms}, got {spec!r}.")
        name = f"{name}:{class_name}"
        maker = own("task", name)
    options, shots = _options(name, maker, rest)
    try:
        task = maker(**options)
    except Exception as error:
        if name in TASKS and isinstance(error, ValueError | ImportError | OSError | RuntimeError):
            raise
        raise ValueError(f"task {name} cannot be made: {told(error)}.") from error
    missing = [attribute for attribute in NEEDED if not hasattr(task, attribute)]
    if missing:
        raise ValueError(f"task {name} needs {', '.join(missing)}: add what is missing, or derive it from tasks.Pool.")
    task.spec = spec
    return FewShot(task, shots) if shots else task


def own(option: str, text: str) -> Callable[..., Any]:
    """Return what `text`, ``package.module:name`` or ``path/file.py:name``, names; messages call it `option`."""
    place, _, name = text.partition(":")
    try:
        if place.endswith(".py"):
            file = importlib.util.spec_from_file_location(f"own_{Path(place).stem}", place)
            module = sys.modules[file.name] = importlib.util.module_from_spec(file)  # type: ignore[arg-type]
            file.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except FileNotFoundError:
        raise ValueError(f"{option} must name a file that exists, got {place!r} in {text!r}.") from None
    except ModuleNotFoundError as error:
        if error.name is None or not (place + ".").startswith(error.name + "."):
            raise ImportError(f"{option} {place} needs a module that is missing: {error.name}.") from error
        why = f"there is no module {place!r}"
        raise ValueError(f"{option} must be package.module:name or file.py:name, got {text!r}: {why}.") from None
    except Exception as error:
        raise ValueError(f"{option} {place} cannot be loaded: {told(error)}.") from error
    OWN.update((module.__file__, name))
    if not callable(getattr(module, name, None)):
        raise ValueError(f"{option} {text!r}: {place} has no class or function {name!r}.")
    return getattr(module, name)


def told(error):
    """Return an error of a user's code in one line: its class, what it says if anything, and where in their file."""
    line = " ".join(": ".join(filter(None, [type(error).__name__, str(error)])).split()).rstrip(".")
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in OWN]
    return f"{line} ({places[-1].filename}, line {places[-1].lineno})" if places else line


def is_own(error):
    """Whether an error comes from a file that `own` has loaded, or says that what was found there is called wrongly."""
    called = str(error).partition("(")[0] if isinstance(error, TypeError) else None
    return called in OWN or any(frame.filename in OWN for frame in traceback.extract_tb(error.__traceback__))


def _options(name, maker, text):
    """Options as keyword arguments, each in the type its parameter is annotated with, and the number of ``shots``."""
    try:
        parts = next(csv.reader([text.replace("\r\n", "\n").replace("\n", r"\n")], strict=True), [])
        parameters = inspect.signature(maker).parameters
    except (csv.Error, ValueError, TypeError) as error:
        raise ValueError(f"options of {name} cannot be read ({error}), got {text!r}: check the quotes.") from None
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [key for key, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    required = [key for key in known if parameters[key].default is inspect.Parameter.empty]
    options = dict(zip(required, parts))
    if len(options) < len(required) or not all(options.values()):
        raise ValueError(f"{name} needs its {required[0]} right after the colon, as in {name}:{required[0].upper()}.")
    for part in parts[len(required) :]:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"options of {name} have the form option=value, got {part!r}.")
        if key not in known and key != "shots" and not accepts_any:
            raise ValueError(f"{name} has no option {key!r}; its options are {', '.join([*known, 'shots'])}.")
        options[key] = value
    shots = 0 if "shots" in known else _typed("shots", options.pop("shots", "0"), int)
    if not 0 <= shots <= 64:
        raise ValueError(f"shots must be an integer from 0 to 64, got {shots}.")
    typed = {k: _typed(k, value, parameters[k].annotation) if k in known else value for k, value in options.items()}
    return typed, shots


def _typed(key, value, kind):
    kind = {"int": int, "float": float, "bool": bool}.get(kind, kind)  # as text in modules that delay annotations
    if key == "template":
        return value.replace(r"\n", "\n")
    kinds = {bool: ("true or false", boolean), int: ("an integer", int), float: ("a number", float)}
    name, read = kinds.get(kind, ("a text", str))
    try:
        return read(value)
    except ValueError:
        raise ValueError(f"{key} must be {name}, got {value!r}.") from None
