"""The statements of ``README.md``: every file of claims enters its own here."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from . import problems
from .claim import Claim

Function = TypeVar("Function", bound=Callable[..., Claim])


class Statement(NamedTuple):
    """The claims of one statement, and the sampler of problems whose arguments they all take (see ``problems.py``)."""

    claims: tuple[Callable[..., Claim], ...]
    sample: Callable = problems.contexts


STATEMENTS = {}


def claims(label: str, sample: Callable[..., Any] = problems.contexts) -> Callable[[Function], Function]:
    """Decorate a function that evaluates a claim of the statement called `label`, to be tried on `sample`'s problems.

    Raises
    ------
    ValueError
        If other claims of the statement take other problems.
    """

    def enter(function):
        statement = STATEMENTS.get(label, Statement((), sample))
        if statement.sample is not sample:
            raise ValueError(f"the claims of statement {label} must share a sampler; {function.__name__} has another.")
        STATEMENTS[label] = Statement((*statement.claims, function), sample)
        return function

    return enter
