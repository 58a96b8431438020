"""Executable theorems: each statement of ``README.md`` as functions that evaluate both of its sides.

A file of this folder enters its claims with ``@claims(label, sampler of problems)``; nothing else lists them.
What the functions of claims share is said here::

    policy, reward    array_like, shape (..., K)    current policy p (π₀ of a recursion) and rewards
    tau               array_like, shape (...)       temperature, positive, reward units
    baseline          array_like, shape (..., B)    B baselines per context, in Statement 10 increasing
    returns           Claim                         both sides, shape (...) unless the function says otherwise

Their other parameters are in their own docstrings, once in a file.

`STATEMENTS` maps a statement's label to its claims and to random problems for them; ``check.run`` tries them all.
"""

import importlib
import pkgutil
import re

from .claim import Claim
from .statement import STATEMENTS, Statement

__all__ = ["STATEMENTS", "Claim", "Statement"]


def _place(label):
    """Numbered statements before bounds, each in the order of their numbers."""
    letter, number, rest = re.fullmatch(r"(\D*)(\d+)(.*)", label).groups()
    return letter, int(number), rest


for _module in pkgutil.iter_modules(__path__):
    if _module.name != "check":
        importlib.import_module(f"{__name__}.{_module.name}")
_ordered = {label: STATEMENTS[label] for label in sorted(STATEMENTS, key=_place)}
STATEMENTS.clear()
STATEMENTS.update(_ordered)
