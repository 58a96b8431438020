r"""General LaTeX, read and compared by Math-Verify; the worker's side, called through `pmdllm.tasks.checker`.

Math-Verify reads generously: it drops what it does not know, so that ``\neg 1`` is 1. Only texts made of what it is
known to understand are given to it (`notation.is_latex`). Its rounding of decimals is absolute; here real numbers are
compared by `pmdllm.tasks.notation`, and decimals inside expressions become fractions.
"""

import functools
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse, verify

from . import notation

__all__ = ["compare", "make", "survives"]

DIGITS, LETTER = re.compile(r"\d+"), re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")


def make() -> Callable[..., Any]:
    """Return the function that a worker calls."""
    _parse(r"\sqrt{4}")  # what Math-Verify loads when first used, outside the limits
    return lambda name, *texts: {"compare": compare, "survives": survives}[name](*texts)


def compare(text: Any, answer: Any) -> tuple[Any, ...]:
    """Return whether the texts mean the same, and a canonical form of the first, or None if it cannot be read."""
    a, b = _meaning(text), _meaning(answer)
    if a is None:
        return False, None
    capitals = [set(re.findall("[A-Z]", re.sub(r"\\[A-Za-z]+", "", x))) for x in (text, answer)]
    return capitals[0] == capitals[1] and b is not None and _equal(a, b), _canonical(a)  # Math-Verify lowers letters


def survives(answer: Any) -> Any:
    """Return why a right answer cannot be trusted, or None: it must equal itself and differ from changed copies."""
    meaning = _meaning(answer)
    if meaning is None:
        return "it cannot be read"
    if not _equal(meaning, meaning):
        return "it does not equal itself"
    return "a part of it is not read" if any(_meaning(copy) == meaning for copy in _changed(answer)) else None


def _changed(text):
    """Copies with another number or another variable in one place, four at most."""
    copies = [text[: m.start()] + str(int(m[0]) + 1) + text[m.end() :] for m in DIGITS.finditer(text)]
    unused = next(letter for letter in "qwzvkhjy" if letter not in text)
    copies += [text[: m.start()] + unused + text[m.end() :] for m in LETTER.finditer(text) if m[0] not in "ei"]
    return copies[:: max(1, len(copies) // 4)][:4]


@functools.lru_cache(maxsize=4096)
def _meaning(text):
    """What a tidy text means: a `notation.Number` or SymPy's object, or None; of an equation in numbers, its value."""
    own = notation.read(text)
    if isinstance(own, notation.Number):
        return own
    if "=" in text and not re.search(r"[<>]|\\[gln]e", text):
        sides = [_meaning(notation.tidy(side)) for side in text.split("=")]
        if any(side is None for side in sides):
            return None
        if all(isinstance(side, notation.Number) or getattr(side, "is_number", False) for side in sides):
            return sides[-1] if all(_equal(side, sides[-1]) for side in sides) else None
    return _parse(text)


def _parse(text):
    limits = {"fallback_mode": "no_fallback", "parsing_timeout": None, "raise_on_error": True}
    readings = parse(rf"\boxed{{{text}}}", [LatexExtractionConfig()], **limits)
    if not readings or isinstance(readings[0], str):
        return None
    floats = readings[0].atoms(sympy.Float) if hasattr(readings[0], "atoms") else ()
    return readings[0].xreplace({x: sympy.Rational(str(x)) for x in floats}) if floats else readings[0]


def _equal(a, b):
    if a == b:
        return True
    numbers = [_number(x) for x in (a, b)]
    if all(numbers):
        if any(isinstance(x, notation.Number) for x in (a, b)) and notation.same(*numbers):
            return True
        if abs(numbers[0].value - numbers[1].value) > Fraction(1, 10**20) * abs(numbers[1].value):
            return False
    a, b = (sympy.Rational(x.value) if isinstance(x, notation.Number) else x for x in (a, b))
    if a.free_symbols != b.free_symbols:
        return False
    return any(verify(x, y, timeout_seconds=None) for x, y in ((b, a), (a, b)))


def _number(x):
    """A real number to 30 digits, or None."""
    if isinstance(x, notation.Number):
        return x
    if not getattr(x, "is_number", False) or not x.doit().is_real:
        return None
    value = x.doit().evalf(30)
    return notation.Number(Fraction(str(value))) if value.is_finite and value.is_Number else None


def _canonical(x):
    """One text for all forms of a number or polynomial; the elements of sets in order, other things as printed."""
    if isinstance(x, notation.Number):
        return notation.canonical(x)
    if isinstance(x, sympy.FiniteSet):
        return f"{{{', '.join(sorted(_canonical(item) for item in x.args))}}}"
    if number := _number(x):
        exact = x.doit()
        return notation.decimal_of(number.value) if exact.is_Rational else f"{exact.evalf(15)}"
    if isinstance(x, sympy.Expr):
        return str(sympy.cancel(x.doit()) if x.is_rational_function() else sympy.expand(x.doit()))
    return str(x)
