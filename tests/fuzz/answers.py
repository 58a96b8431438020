r"""Answers in many notations: equal values are judged equal, others not, and hostile texts are never right.

A number is drawn as a fraction and written in notations built here, none of them by the code that reads them. A text
that is no answer is put together from pieces of LaTeX, tags and operators.
"""

from fractions import Fraction

from pmdllm.tasks import answers

PIECES = (
    "\\boxed{", "}", "{", "\\frac", "\\sqrt", "^", "_", "9", "(", ")", "[", "]", "$", "\\neg ", "\\text{not }", "=",
    "**", "!", "<think>", "</think>", "####", "\n", "answer is ", "\\", "\0", "\ud800", "é", "%", ",", "/",
    "__import__('os')", "\\begin{pmatrix}", "\\\\", "&", ":", "e", "10^{10^{10}}", "\\overline{", ".", "-", "x",
    "\\cdot", " and ", "\\left(",
)  # fmt: skip
WRAPS = (
    "\\boxed{%s}",
    "\\boxed{ %s }",
    "so \\boxed{%s}.",
    "\\boxed{x = %s}",
    "The answer is $%s$.",
    "<think>7</think>#### %s",
)


def notations(value, rng):
    """Texts that mean the fraction."""
    p, q = abs(value.numerator), value.denominator
    sign, k = "-" if value < 0 else "", int(rng.integers(2, 9))
    yield f"{sign}\\frac{{{p * k}}}{{{q * k}}}"
    yield f"{sign}\\dfrac{{{p}}}{{{q}}}"
    yield f"{sign}{p}/{q}"
    yield f"{sign}{p * k} / {q * k}"
    if p > q > 1:
        yield f"{sign}{p // q}\\frac{{{p % q}}}{{{q}}}"
        yield f"{sign}{p // q} {p % q}/{q}"
    if q == 1:
        yield f"{sign}{p}."
        yield f"{sign}{p}.00"
        yield f"{sign}{p}\\text{{ cm}}"
        yield f"{sign}{p * 1000}e-3"
        if p > 999:
            yield f"{sign}{p:,}"
            yield sign + f"{p:,}".replace(",", "\\,")
            yield sign + f"{p:,}".replace(",", "{,}")
    reduced = q
    for prime in (2, 5):
        while reduced % prime == 0:
            reduced //= prime
    if reduced == 1:
        places = next(n for n in range(60) if 10**n % q == 0)
        digits = str(p * 10**places // q).rjust(places + 1, "0")
        yield sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)
        yield f"{sign}{digits} \\times 10^{{-{places}}}"
        yield f"{sign}{digits}e-{places}"
    else:
        places = 12
        shift = next((n for n in range(1, 7) if (10**n - 1) % reduced == 0), None)
        if shift and reduced == q and p < q:
            yield f"{sign}0.\\overline{{{str(p * (10**shift - 1) // q).rjust(shift, '0')}}}"
        if p * 10**6 > q:
            whole, decimals = divmod(p * 10**places // q, 10**places)
            yield f"{sign}{whole}.{decimals:0{places}d}"


def draw(rng):
    """A fraction, small or large, often with a finite decimal."""
    top = int(rng.integers(1, 10 ** int(rng.integers(1, 10))))
    bottom = int(rng.choice([1, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 40, 125, 1000, 10**7]))
    return Fraction(-top if rng.random() < 0.3 else top, bottom)


def check(rng):
    """Judge one value in two notations, another value, lists of both, and a hostile text."""
    value, other = draw(rng), draw(rng)
    if rng.random() < 0.5:
        other = value + Fraction(1, 10 ** int(rng.integers(0, 4))) * max(1, abs(int(value)))
    texts, others = list(notations(value, rng)), list(notations(other, rng))
    a, b = (texts[int(rng.integers(len(texts)))] for _ in range(2))
    c = others[int(rng.integers(len(others)))]
    wrap = WRAPS[int(rng.integers(len(WRAPS)))]
    expected = [(wrap % a, b, True), (f"\\boxed{{{b}}}", a, True), (f"\\boxed{{{a}}}", a, True)]
    expected += [(wrap % a, c, value == other), (f"\\boxed{{{c}}}", a, value == other)]
    d, e = (str(int(x)) for x in rng.integers(-99, 99, size=2))
    listed = d != e and all("," not in x for x in (a, b, c))
    if listed and all(Fraction(int(x)) != value for x in (d, e)):
        expected += [
            (f"\\boxed{{{d}, {a}, {e}}}", f"{b}, {e}, {d}", True),
            (f"\\boxed{{{d}, {a}}}", f"{a}, {d}, {e}", False),
        ]
        expected += [(f"\\boxed{{({d}, {a})}}", f"({d}, {b})", True), (f"\\boxed{{({a}, {d})}}", f"({d}, {b})", False)]
    hostile = "".join(PIECES[int(i)] for i in rng.integers(len(PIECES), size=int(rng.integers(1, 25))))
    expected += [(hostile, "-123457/7", False), (f"\\boxed{{{hostile}}}", "-123457/7", False)]
    verdict = answers.math([text for text, _, _ in expected], [right for _, right, _ in expected], ("\nQuestion:",))
    for (text, right, wanted), correct, vote in zip(expected, verdict.correct, verdict.answers):
        assert correct == wanted, f"{text!r} for {right!r}: judged {bool(correct)}, is {wanted}"
        assert not correct or vote is not None, f"{text!r} for {right!r}: right and without a vote"
