r"""Short answers as people write them, read exactly: numbers, lists of numbers, choices, words.

`tidy` takes markup away, `read` makes a value of what is left, or None if it is none of these (general LaTeX is for
`pmdllm.tasks.latex`), and `same` compares two values::

    42   1,000   10\,080   -\frac{3}{4}   2 2/3   0.\overline{3}   1e3   2^{-99}   28\%   \$5   5\text{ cm}    numbers
    3, 5 \text{ and } 7      \{3, 5\}                                           the same in any order
    (1, 2)                   [0, 1)                                             the same in the same order
    C      (C) 12      E: because                                               a letter that labels a choice
    12:00      2516_8      Friday      \text{not } 0                            words, compared as words

Numbers are fractions, so 1/2^99 is not 1/2^98. Two numbers are the same if they are equal, or if one is written as a
decimal of at least six significant digits and is the other one rounded or cut to that length: 0.333333 is 1/3, 0.333 is
not. A number without a unit or percent sign is the same as with it, 28% also as 0.28; 10 cm is not 10 m.
"""

import functools
import re
from collections import namedtuple
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

__all__ = ["Choice", "Number", "Several", "canonical", "decimal_of", "is_latex", "read", "same", "tidy"]

LONGEST, DEEPEST = 1000, 12
SIGNIFICANT = 6
NOISE = Fraction(1, 10**15)
EXACTLY = Context(prec=10_000)

SIMPLER = [
    (r"[\u2212\u2013]", "-"),
    ("\u00d7", r"\\times "), ("\u00f7", r"\\div "), ("\u03c0", r"\\pi "), ("\u221e", r"\\infty "),
    ("\u00b0", r"^\\circ "),
    (r"(?<=\d)(?:\{,\}|\\[,; ]|,\\!|\\!)(?=\d{3}(?!\d))", ""),
    (r"\\(?:displaystyle|left\.?|right\.?|[bB]igg?[lr]?|limits)(?![A-Za-z])|(?<!\\)\\[!()\[\]]|\u200b", ""),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\(?:math(?:rm|bf|it|sf|tt)|text(?:bf|it|rm|sf|tt|normal)|mbox|operatorname\*?)\s*(?=\{)", r"\\text"),
    (r"\{,\}", ","),
    (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
    (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|\s", " "),
    (r"\\?[$\u20ac\u00a3]", ""),
    (r"\\%|\\text\{\s*(?:per\s?cent|%)\s*\}|(?<=\d)\s*percent\b", "%"),
    (r"(?:\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree(?![A-Za-z]))"
     r"(?:\s*(?:\\text\{\s*[CF]\s*\}|[CF](?![A-Za-z])))?", r"\\text{ degrees}"),
    (r"\\text\{[\s,]*(and|or)[\s,]*\}", r" \1 "),
    (r"\\text\{\s*\(?([A-J])\)?[.:]?\s*\}", r"(\1) "),
    (r"\\text\{\s*\}", " "),
    (r"(?<![\\A-Za-z])(sqrt|pi|sin|cos|tan|log|ln)(?=[^A-Za-z]|$)", r"\\\1 "),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
]  # fmt: skip
SIMPLER = [(re.compile(pattern), simple) for pattern, simple in SIMPLER]
GROUPED = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3})+|(?: \d{3})+)(?![\d,]| ?/)")

KNOWN = set(re.findall("[A-Za-z]+", """
    frac sqrt cdot times div pm mp pi infty sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp
    cup cap setminus in leq geq le ge lt gt neq ne binom choose lfloor rfloor lceil rceil lvert rvert vert mid
    begin end pmatrix bmatrix matrix vmatrix emptyset varnothing mathbb overline bar
    alpha beta gamma delta epsilon theta lambda mu nu rho sigma tau phi varphi psi omega Delta Omega"""))
COMMAND = re.compile(r"\\(?:[A-Za-z]+|[{}|\\])|[A-Za-z]{4,}|[^\w\s+\-*/^=<>!|(){}\[\],.;%'&]|\*\*|[^\x00-\x7f]")
MISREAD = re.compile(r"\.\d+\.|\d[eE][+-]?\d")  # 1.000.000 would be 1.000 times .000, and 1e9999 a product with e
EXPONENT = r"(\{\s*[+-]?\d+\s*\}|\d+)"
DECIMAL = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d+)|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*" + EXPONENT + ")?")
REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar)\s*(?:\{(\d+)\}|(\d))")
ARGUMENT = r"\s*(\d|\{(?:[^{}]|\{[^{}]*\})*\})"
FRACTION = re.compile(rf"\\frac{ARGUMENT}{ARGUMENT}|([^\\/]+)/([^\\/]+)")
MIXED = re.compile(r"(\d+)\s*(\\frac.*|(?<=\s)\d+\s*/\s*\d+)")
POWER = re.compile(r"(\d+)\s*\^\s*" + EXPONENT)
UNIT = re.compile(
    r"(?:\\text\{([A-Za-z ./]+)\}\s*((?:\^\s*\{?\d\}?)?)"
    r"|\s([A-Za-z]{4,}(?: [A-Za-z]{4,}){0,2})|\s?(cm|mm|km|kg|mph))$"
)
NO_UNITS = set(re.findall("[A-Za-z]+", """
    hundred thousand million billion trillion dozen score half squared cubed factorial not times plus minus over
    choose sqrt frac pi only if mod base negative less more than percent infinity"""))
BASED = re.compile(r"([0-9A-F]+)_\s*(?:(\d)|\{\s*(\d+|\\text\{\s*[a-z]+\s*\})\s*\})")
BASES = dict(zip("two three four five six seven eight nine ten eleven twelve".split(), range(2, 13)))  # noqa: SIM905
COLONS = re.compile(r"(\d+)((?:\s*:\s*\d+)+)\s*(?:(?:\\text\{)?\s*([ap])\.?\s?m\.?\s*\}?)?", re.IGNORECASE)
LABEL = re.compile(r"\(?([A-J])(?:[:.)]\s*(?![+\-*/^=<>_,;]|and\b|or\b)(.*)|$)", re.DOTALL)
BRACKETS = ((r"\{", r"\}", "{}"), ("{", "}", "{}"), *((a, b, a + b) for a in "([" for b in ")]"))
WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")


# A value is a Number (its step is the last place of a decimal of six significant digits or more, otherwise 0), Several
# values (without brackets or in braces their order means nothing), a Choice (and what follows its letter), or words.
Number = namedtuple("Number", "value step unit", defaults=(0, ""))
Several = namedtuple("Several", "brackets items")
Choice = namedtuple("Choice", "letter rest")


@functools.lru_cache(maxsize=65536)
def tidy(text: str) -> str:
    r"""Take away what does not matter: markup, spacing, currency signs, digit separators, full stops at the end."""
    if len(text) > LONGEST:
        return text
    for pattern, simple in SIMPLER:
        text = pattern.sub(simple, text)
    text = _bare(re.sub(" +", " ", text))
    while (inner := _enclosed(text, "{", "}")) is not None and len(_pieces(_bare(inner))) == 1:
        text = _bare(inner)
    if text[:1] not in "([\\{" or text[:2] in ("\\f", "\\t"):
        text = GROUPED.sub(lambda match: match[1] + re.sub("[, ]", "", match[2]), text)
    return text


@functools.lru_cache(maxsize=65536)
def read(text: str) -> Any:
    """Return the value of a tidy text, or None if it is no number, list of such, choice or words."""
    if not text or len(text) > LONGEST or max(depth for _, depth in _depths(text)) > DEEPEST:
        return None
    return _number(text) or _choice(text) or _several(text) or _literal(text)


def is_latex(text: str) -> bool:
    """Whether a tidy text holds nothing but what Math-Verify is known to understand."""
    if not text or len(text) > LONGEST or MISREAD.search(text):
        return False
    plain = re.sub(r"(\\(?:begin|end))\{[a-z]matrix\}", r"\1", text)
    return all(
        token in (r"\{", r"\}", r"\\", r"\|") or (token[0] == "\\" and token[1:] in KNOWN)
        for token in COMMAND.findall(plain)
    )


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same; symmetric, and every value is the same as itself."""
    if isinstance(b, Choice):
        a, b = b, a
    if isinstance(a, Choice):
        return a.letter == b.letter if isinstance(b, Choice) else a.rest is not None and same(a.rest, b)
    if isinstance(a, Number) and isinstance(b, Number):
        return _same_number(a, b)
    if isinstance(a, Several) and isinstance(b, Several):
        return _same_several(a, b)
    return a == b


def canonical(value: Any) -> str:
    """One text for all exact forms of a value, so that they are one vote; units and percent signs are left out."""
    if isinstance(value, Number):
        return decimal_of(value.value)
    if isinstance(value, Several):
        items = [canonical(item) for item in value.items]
        if value.brackets in ("", "{}"):
            return f"{{{', '.join(sorted(set(items)))}}}"
        return value.brackets[0] + ", ".join(items) + value.brackets[1]
    return value.letter if isinstance(value, Choice) else value


def decimal_of(value: Any) -> Any:
    """Write a fraction as a decimal if it has a finite one of at most 30 places, or as p/q."""
    places = next((places for places in range(31) if 10**places % value.denominator == 0), None)
    return str(value) if places is None else f"{Decimal(int(value * 10**places)).scaleb(-places, EXACTLY):f}"


def _same_number(a, b):
    if a.unit and b.unit:
        return a.unit == b.unit and _close(a, b)
    hundredths = [Number(x.value / 100, x.step / 100) if x.unit == "%" else x for x in (a, b)]
    return _close(a, b) or _close(*hundredths)


def _close(a, b):
    rounded = (
        x.step and x.value / x.step in (int(y.value / x.step), round(y.value / x.step)) for x, y in [(a, b), (b, a)]
    )
    noise = (a.step or b.step) and NOISE * max(abs(a.value), abs(b.value))  # of arithmetic in double precision
    return abs(a.value - b.value) <= noise or any(rounded)


def _same_several(a, b):
    kinds = {a.brackets, b.brackets}
    if kinds <= {"", "{}"}:
        return all(any(same(x, y) for y in those) for these, those in ((a[1], b[1]), (b[1], a[1])) for x in these)
    ordered = len(kinds) == 1 or kinds == {"", "()"}
    return ordered and len(a.items) == len(b.items) and all(map(same, a.items, b.items))


def _number(text):
    body, unit = text.strip(), ""
    if match := UNIT.search(body):
        words = (match[1] or match[3] or match[4]).lower().replace(".", " ").split()
        if not words or NO_UNITS & set(words):
            return None
        unit = " ".join(word.removesuffix("s") for word in words) + re.sub(r"[\s{}]", "", match[2] or "")
        body = body[: match.start()].strip()
    if body.endswith("%"):
        body, unit = body[:-1].strip(), "%"
    number = _signed(body)
    return number and Number(*number, unit)


def _signed(text):
    """(value, step) of a number with at most one sign, or None."""
    text = text.strip()
    inner = _enclosed(text, "(", ")") or _enclosed(text, "{", "}")
    if inner is not None and len(inner) < len(text):
        return _signed(inner)
    sign = -1 if text.startswith("-") else 1
    size = _unsigned(text[1:].strip() if text[:1] in ("-", "+") else text)
    return size and (sign * size[0], size[1])


def _unsigned(text):
    if match := DECIMAL.fullmatch(text):
        power = int(match[2] or (match[3] or "0").strip("{} "))
        places = len(match[1].partition(".")[2]) - power
        written = (places or power) and len(match[1].replace(".", "").lstrip("0")) >= SIGNIFICANT
        if abs(power) > LONGEST:
            return None
        return Fraction(match[1].rstrip(".")) * Fraction(10) ** power, Fraction(10) ** -places if written else 0
    if match := REPEATING.fullmatch(text):
        whole, fixed, again = match[1] or "0", match[2], match[3] or match[4]
        tail = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(fixed))
        return Fraction(int(whole + fixed), 10 ** len(fixed)) + tail, 0
    if match := MIXED.fullmatch(text):
        rest = _unsigned(match[2])
        return (int(match[1]) + rest[0], 0) if rest and 0 <= rest[0] < 1 else None
    if match := POWER.fullmatch(text):
        base, power = int(match[1]), int(match[2].strip("{} "))
        possible = len(match[1]) * abs(power) <= LONGEST and (base or power >= 0)
        return (Fraction(base) ** power, 0) if possible else None
    if match := FRACTION.fullmatch(text):
        top, bottom = (_signed(side) for side in match.groups() if side)
        return (top[0] / bottom[0], 0) if top and bottom and bottom[0] else None
    return None


def _literal(text):
    if match := COLONS.fullmatch(text):
        return re.sub(r"\s", "", match[1] + match[2]) + (f" {match[3].lower()}m" if match[3] else "")
    if match := BASED.fullmatch(text):
        base = re.sub(r"\\text|[{}\s]", "", match[2] or match[3])
        return f"{match[1].lstrip('0') or '0'}_{BASES.get(base, base)}"
    words = re.sub(r"\\text\{([^{}\\]*)\}", r" \1 ", text).strip(" .,;:")
    marked = words != text
    if WORDS.fullmatch(words) and (marked or re.search("[A-Za-z]{4}|^(?i:yes|no)$", words)):
        return re.sub("[ -]+", " ", words).lower()
    return "text: " + re.sub(r"\s+", " ", words).lower() if marked and re.search(r"\\text", text) else None


def _several(text):
    text = re.sub(r",?\s*\b(?:and|or)\b\s*|\s*;\s*", ", ", text)
    enclosed = ((_enclosed(text, opening, closing), kind) for opening, closing, kind in BRACKETS)
    inner, brackets = next((pair for pair in enclosed if pair[0] is not None), (text, ""))
    pieces = _pieces(inner)
    if len(pieces) == 1 and (brackets != "{}" or not inner.strip()):
        return None
    items = [read(tidy(piece.strip())) for piece in pieces]
    if any(item is None for item in items):
        return None
    repeated = not brackets and all(same(item, items[0]) for item in items)
    return items[0] if repeated else Several(brackets, tuple(items))


def _choice(text):
    match = LABEL.fullmatch(text)
    return match and Choice(match[1], read(tidy(match[2] or "")))


def _bare(text):
    return text.rstrip(" .,;:*`").lstrip(" ,;:*`")


def _enclosed(text, opening, closing):
    """What one pair of brackets around the whole text holds, or None."""
    if not (text.startswith(opening) and text.endswith(closing)) or len(text) < len(opening) + len(closing):
        return None
    inner = text[len(opening) : len(text) - len(closing)]
    escaped = opening == "{" and inner.endswith("\\")
    return None if escaped or any(depth < 0 for _, depth in _depths(inner)) else inner


def _pieces(text):
    """Split at the commas outside all brackets."""
    cuts = [i for i, depth in _depths(text) if depth == 0 and text[i] == ","]
    return [text[a:b] for a, b in zip([0, *(i + 1 for i in cuts)], [*cuts, len(text)])]


def _depths(text):
    """Each position with the number of brackets open after it."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        yield i, depth
