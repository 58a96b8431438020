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

__all__ = ["Choice", "Number", "Several", "canonical", "decimal_of", "read", "same", "tidy"]

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

INSIDE = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
DECIMAL = re.compile(r"(?:\d+\.?\d*|\.\d+)")
SCIENTIFIC = re.compile(
    r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d+)|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*([+-]?\d+)\s*\}|(\d)))"
)
REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar)\s*(?:\{(\d+)\}|(\d))")
FRACTION = re.compile(rf"\\frac\s*(?:{INSIDE}|(\d))\s*(?:{INSIDE}|(\d))")
MIXED = re.compile(r"(\d+)\s*(\\frac.*)|(\d+)\s+(\d+\s*/\s*\d+)")
POWER = re.compile(r"(\d+)\s*\^\s*(?:\{\s*([+-]?\d+)\s*\}|(\d+))")
UNIT = re.compile(
    r"(?:\\text\{([A-Za-z ./]+)\}\s*((?:\^\s*\{?\d\}?)?)"
    r"|\s([A-Za-z]{4,}(?: [A-Za-z]{4,}){0,2})|\s?(cm|mm|km|kg|mph))$"
)
NO_UNITS = (
    "hundred thousand million billion trillion dozen score half squared cubed factorial not times plus minus over "
    "choose sqrt frac pi only if mod base negative less more than percent infinity"
)
NO_UNITS = set(NO_UNITS.split())
BASED = re.compile(r"([0-9A-F]+)_\s*(?:(\d)|\{\s*(\d+|\\text\{\s*[a-z]+\s*\})\s*\})")
BASES = dict(zip("two three four five six seven eight nine ten eleven twelve".split(), range(2, 13)))  # noqa: SIM905
COLONS = re.compile(r"(\d+)((?:\s*:\s*\d+)+)\s*(?:(?:\\text\{)?\s*([ap])\.?\s?m\.?\s*\}?)?", re.IGNORECASE)
LABEL = re.compile(r"(?:\(([A-J])\)|([A-J])[:.)])\s*(?![+\-*/^=<>_,;]|and\b|or\b)(.*)", re.DOTALL)
BRACKETS = ((r"\{", r"\}", "{}"), ("{", "}", "{}"), *((a, b, a + b) for a in "([" for b in ")]"))
WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")


# A value is a Number (how many decimals, None unless a decimal, and significant digits of it are written), Several
# values (without brackets or in braces their order means nothing), a Choice (and what follows its letter), or words.
Number = namedtuple("Number", "value places digits unit", defaults=(None, 0, ""))
Several = namedtuple("Several", "brackets items")
Choice = namedtuple("Choice", "letter rest")


@functools.lru_cache(maxsize=65536)
def tidy(text):
    r"""Take away what does not matter: markup, spacing, currency signs, digit separators, full stops at the end."""
    if len(text) > LONGEST:
        return text
    for pattern, simple in SIMPLER:
        text = pattern.sub(simple, text)
    text = _bare(re.sub(" +", " ", text))
    while (inner := _enclosed(text, "{", "}")) is not None and _top_level(_bare(inner), ",") is None:
        text = _bare(inner)
    if text[:1] not in "([\\{" or text[:2] in ("\\f", "\\t"):
        text = GROUPED.sub(lambda match: match[1] + re.sub("[, ]", "", match[2]), text)
    return text


@functools.lru_cache(maxsize=65536)
def read(text):
    r"""Return the value of a tidy text, or None if it is no number, list of such, choice or words.

    Examples
    --------
    >>> read("2 2/3").value, read("0.50").places, read("{3, 5}") == read("3")
    (Fraction(8, 3), 2, False)
    """
    if not text or len(text) > LONGEST or max(depth for _, depth in _depths(text)) > DEEPEST:
        return None
    return _number(text) or _choice(text) or _several(text) or _literal(text)


def same(a, b):
    """Whether two values are the same; symmetric, and every value is the same as itself."""
    if isinstance(a, Choice) or isinstance(b, Choice):
        return _same_choice(a, b)
    if isinstance(a, Number) and isinstance(b, Number):
        return _same_number(a, b)
    if isinstance(a, Several) and isinstance(b, Several):
        return _same_several(a, b)
    return a == b


def canonical(value):
    """One text for all exact forms of a value, so that they are one vote; units and percent signs are left out."""
    if isinstance(value, Number):
        return decimal_of(value.value)
    if isinstance(value, Several):
        items = [canonical(item) for item in value.items]
        if value.brackets in ("", "{}"):
            return f"{{{', '.join(sorted(set(items)))}}}"
        return value.brackets[0] + ", ".join(items) + value.brackets[1]
    return value.letter if isinstance(value, Choice) else value


def decimal_of(value):
    """Write a fraction as a decimal if it has a finite one of at most 30 places, or as p/q."""
    places = next((places for places in range(31) if 10**places % value.denominator == 0), None)
    return str(value) if places is None else f"{Decimal(int(value * 10**places)).scaleb(-places, EXACTLY):f}"


def stands_for(decimal, value):
    """Whether a decimal of at least six significant digits is `value` rounded or cut to its length."""
    if decimal.places is None or decimal.digits < SIGNIFICANT:
        return False
    scale = Fraction(10) ** decimal.places
    return decimal.value * scale in (int(value * scale), round(value * scale))


def _same_number(a, b):
    if a.unit and b.unit and a.unit != b.unit:
        return False
    if _close(a, b):
        return True
    hundredth = [Number(x.value / 100, None if x.places is None else x.places + 2, x.digits) for x in (a, b)]
    return (a.unit == "%" and not b.unit and _close(hundredth[0], b)) or (
        b.unit == "%" and not a.unit and _close(a, hundredth[1])
    )


def _close(a, b):
    if a.value == b.value or stands_for(a, b.value) or stands_for(b, a.value):
        return True
    decimal = a.places and b.places  # arithmetic in double precision leaves its noise in the 16th digit
    return bool(decimal) and abs(a.value - b.value) <= NOISE * max(abs(a.value), abs(b.value))


def _same_several(a, b):
    kinds = {a.brackets, b.brackets}
    if kinds <= {"", "{}"}:
        return all(any(same(x, y) for y in those) for these, those in ((a[1], b[1]), (b[1], a[1])) for x in these)
    ordered = len(kinds) == 1 or kinds == {"", "()"}
    return ordered and len(a.items) == len(b.items) and all(map(same, a.items, b.items))


def _same_choice(a, b):
    letters = [x.letter if isinstance(x, Choice) else x for x in (a, b)]
    if all(isinstance(x, str) and re.fullmatch("[A-J]", x) for x in letters):
        return letters[0] == letters[1]
    choice, other = (a, b) if isinstance(a, Choice) else (b, a)
    return choice.rest is not None and not isinstance(other, Choice) and same(choice.rest, other)


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
    found = _signed(body)
    return found and Number(*found, unit)


def _signed(text):
    """(value, places, digits) of a number with at most one sign, or None."""
    text = text.strip()
    inner = _enclosed(text, "(", ")") or _enclosed(text, "{", "}")
    if inner is not None and len(inner) < len(text):
        return _signed(inner)
    sign = -1 if text.startswith("-") else 1
    found = _unsigned(text[1:].strip() if text[:1] in ("-", "+") else text)
    return found and (sign * found[0], *found[1:])


def _unsigned(text):
    if DECIMAL.fullmatch(text):
        digits = text.replace(".", "").lstrip("0")
        return Fraction(text.rstrip(".")), len(text.partition(".")[2]) or None, len(digits)
    if match := SCIENTIFIC.fullmatch(text):
        value, places, digits = _unsigned(match[1])
        power = int(match[2] or match[3] or match[4])
        return (value * Fraction(10) ** power, (places or 0) - power, digits) if abs(power) <= LONGEST else None
    if match := REPEATING.fullmatch(text):
        whole, fixed, again = match[1] or "0", match[2], match[3] or match[4]
        tail = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(fixed))
        return Fraction(int(whole + fixed), 10 ** len(fixed)) + tail, None, 0
    if match := MIXED.fullmatch(text):
        part = _unsigned(match[2] or match[4])
        return (int(match[1] or match[3]) + part[0], None, 0) if part and 0 <= part[0] < 1 else None
    if match := POWER.fullmatch(text):
        base, power = int(match[1]), int(match[2] or match[3])
        possible = len(match[1]) * abs(power) <= LONGEST and (base or power >= 0)
        return (Fraction(base) ** power, None, 0) if possible else None
    if match := FRACTION.fullmatch(text):
        sides = match[1] or match[2], match[3] or match[4]
    elif text.count("/") == 1 and "\\" not in text:
        sides = text.split("/")
    else:
        return None
    top, bottom = (_signed(side or "") for side in sides)
    return (top[0] / bottom[0], None, 0) if top and bottom and bottom[0] else None


def _literal(text):
    if match := COLONS.fullmatch(text):
        return re.sub(r"\s", "", match[1] + match[2]) + (f" {match[3].lower()}m" if match[3] else "")
    if match := BASED.fullmatch(text):
        base = re.sub(r"\\text|[{}\s]", "", match[2] or match[3])
        return f"{match[1].lstrip('0') or '0'}_{BASES.get(base, base)}"
    words = re.sub(r"\\text\{([^{}\\]*)\}", r" \1 ", text).strip(" .,;:")
    if re.fullmatch("[A-Za-z]", words):
        return words if words in "ABCDEFGHIJ" or words != text else None
    marked = words != text
    if WORDS.fullmatch(words) and (marked or re.search("[A-Za-z]{4}|^(?i:yes|no)$", words)):
        return re.sub("[ -]+", " ", words).lower()
    return "text: " + re.sub(r"\s+", " ", words).lower() if marked and re.search(r"\\text", text) else None


def _several(text):
    if re.search(r"\band\b|\bor\b|;", text):
        text = re.sub(r",?\s*\b(?:and|or)\b\s*|\s*;\s*", ", ", text)
    inner, brackets = text, ""
    for opening, closing, kind in BRACKETS:
        if (inside := _enclosed(text, opening, closing)) is not None:
            inner, brackets = inside, kind
            break
    pieces = _top_level(inner, ",")
    if pieces is None:
        if brackets != "{}" or not inner.strip():
            return None
        pieces = [inner]
    items = [read(tidy(piece.strip())) for piece in pieces]
    if any(item is None for item in items):
        return None
    repeated = not brackets and all(same(item, items[0]) for item in items)
    return items[0] if repeated else Several(brackets, tuple(items))


def _choice(text):
    match = LABEL.fullmatch(text)
    return Choice(match[1] or match[2], read(tidy(match[3])) if match[3] else None) if match else None


def _bare(text):
    return text.rstrip(" .,;:*`").lstrip(" ,;:*`")


def _enclosed(text, opening, closing):
    """What one pair of brackets around the whole text holds, or None."""
    if not (text.startswith(opening) and text.endswith(closing)) or len(text) < len(opening) + len(closing):
        return None
    inner = text[len(opening) : len(text) - len(closing)]
    if opening == "{" and inner.endswith("\\"):
        return None
    return inner if all(depth >= 0 for _, depth in _depths(inner)) else None


def _top_level(text, separator):
    """Split at the separators outside all brackets; None if there are none."""
    cuts = [i for i, depth in _depths(text) if depth == 0 and text[i] == separator]
    if not cuts:
        return None
    return [text[a:b] for a, b in zip([0, *(i + 1 for i in cuts)], [*cuts, len(text)])]


def _depths(text):
    """Each position with the number of brackets open after it."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        yield i, depth
