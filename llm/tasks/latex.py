r"""General LaTeX, read and compared by Math-Verify; the worker's side, called through `pmdllm.tasks.checker`.

Math-Verify reads generously: it drops what it does not know, so that ``\neg 1`` is 1. Only texts made of what it is
known to understand are given to it (`readable`). Its rounding of decimals is absolute; here real numbers are compared
by `pmdllm.tasks.notation`, and decimals inside expressions become fractions.
"""

import functools
import re
from fractions import Fraction

from . import notation

__all__ = ["compare", "readable", "survives"]

KNOWN = (
    "frac sqrt cdot times div pm mp pi infty sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp "
    "cup cap setminus in leq geq le ge lt gt neq ne binom choose lfloor rfloor lceil rceil lvert rvert vert mid "
    "begin end pmatrix bmatrix matrix vmatrix emptyset varnothing mathbb overline bar "
    "alpha beta gamma delta epsilon theta lambda mu nu rho sigma tau phi varphi psi omega Delta Omega"
)
KNOWN = set(KNOWN.split())
COMMAND = re.compile(r"\\(?:[A-Za-z]+|[{}|\\])|[A-Za-z]{4,}|[^\w\s+\-*/^=<>!|(){}\[\],.;%'&]|\*\*|[^\x00-\x7f]")
MISREAD = re.compile(r"\.\d+\.|\d[eE][+-]?\d")  # 1.000.000 would be 1.000 times .000, and 1e9999 a product with e
DIGITS, LETTER = re.compile(r"\d+"), re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")


def readable(text):
    """Whether a tidy text holds nothing but what Math-Verify is known to understand."""
    if not text or len(text) > notation.LONGEST or MISREAD.search(text):
        return False
    plain = re.sub(r"(\\(?:begin|end))\{[a-z]matrix\}", r"\1", text)
    return all(
        token in (r"\{", r"\}", r"\\", r"\|") or (token[0] == "\\" and token[1:] in KNOWN)
        for token in COMMAND.findall(plain)
    )


def make():
    """Return the function that a worker calls."""
    from math_verify import verify

    if not verify(_parse(r"\sqrt{4}"), _parse("2"), timeout_seconds=None):
        raise RuntimeError("math_verify does not find \\sqrt{4} equal to 2: reinstall math-verify.")
    functions = {"compare": compare, "survives": survives}
    return lambda name, *texts: functions[name](*texts)


def compare(found, answer):
    """Return whether the texts mean the same, and a canonical form of the first, or None if it cannot be read."""
    a, b = _meaning(found), _meaning(answer)
    if a is None:
        return False, None
    capitals = (set(re.findall("[A-Z]", re.sub(r"\\[A-Za-z]+", "", text))) for text in (found, answer))
    same_case = next(capitals) == next(capitals)  # Math-Verify makes small letters of all
    return same_case and b is not None and _equal(a, b), _canonical(a)


def survives(answer):
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
    from math_verify import LatexExtractionConfig, parse

    limits = {"fallback_mode": "no_fallback", "parsing_timeout": None, "raise_on_error": True}
    found = parse(rf"\boxed{{{text}}}", [LatexExtractionConfig()], **limits)
    return _exact(found[0]) if found and not isinstance(found[0], str) else None


def _exact(expression):
    """The same with fractions in place of decimals."""
    import sympy

    floats = expression.atoms(sympy.Float) if hasattr(expression, "atoms") else set()
    return expression.xreplace({x: sympy.Rational(str(x)) for x in floats}) if floats else expression


def _equal(a, b):
    from math_verify import verify

    if a == b:
        return True
    numbers = [_number(x) for x in (a, b)]
    if all(numbers):
        if any(isinstance(x, notation.Number) for x in (a, b)) and notation.same(*numbers):
            return True
        if abs(numbers[0].value - numbers[1].value) > Fraction(1, 10**20) * abs(numbers[1].value):
            return False
    a, b = (_sympy(x) for x in (a, b))
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


def _sympy(x):
    import sympy

    return sympy.Rational(x.value.numerator, x.value.denominator) if isinstance(x, notation.Number) else x


def _canonical(x):
    """One text for all forms of a number or polynomial; the elements of sets in order, other things as printed."""
    import sympy

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
