r"""Answers read from completions and compared with the right ones.

`exact` compares characters: for tasks whose completions have one form. `math` reads free text and compares by value:
1/2 is 0.5 and {1, 2} is {2, 1}. Numbers, lists, choices and words are read by `pmdllm.tasks.notation`, in this process;
all other LaTeX by Math-Verify, in a worker process with bounded time and memory (`pmdllm.tasks.checker`). A completion
can say anything, and what it says is never evaluated as code.

What comes before ``</think>`` is no answer, and what comes after a stop text is not the model's turn. Of the last
10,000 characters of the rest, the answer is the last ``\boxed{}``, or the last few if only commas or "and" stand
between them; without one, the last line that begins with ``####`` and has a digit; without that, what follows the last
"answer is" or "answer:"; and without that the last formula in dollars or the last number.

A completion that cannot be read, or not within the limits, is wrong and counted as not parsed. To keep a misread right
answer from looking like a bad policy, `untrusted` says of right answers beforehand which must not be used.
"""

import functools
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import notation
from .checker import Checker

__all__ = ["Verdict", "exact", "last_boxed", "math", "turn", "untrusted"]

TAIL = 10_000
PLAIN = re.compile(r"-?(?:0|[1-9]\d{0,99})(?:\.\d{1,99})?", re.ASCII)
NAME = re.compile(r"(?:\\?[A-Za-z]+(?: ?[A-Z]+)?|\\text\{[^{}]*\})(?:_(?:\w|\{\w+\}))?'*(?:\([A-Za-z, ]*\))?")
BETWEEN_BOXES = re.compile(
    r"[\s$.]*(?:[,;&]|\\text\{\s*(?:and|or)\s*\}|and\b|or\b|\\(?:quad|,|;| ))[\s$,]*(?:(?:and|or)\b[\s$]*)?"
)
BETWEEN_EQUATIONS = re.compile(r"\s*(?:[,;]|\band\b)\s*(?:and\b)?")
MEASURED = re.compile(r"[-+\d.,/ ]*\d\s*([mcdk]?m|[mk]?g|m?l)")
STATED = re.compile(r"(?i:answer(?:\s+is\s*:?|\s*:))[\s*]*([^\n]*)")
FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
NUMBER = re.compile(
    r"(?<![\w.\\^*/+(={])[-+]?\$?(?:\d+ \d+/\d+|[\d.]*\d[\w.,:/^*+()=%!-]*)|(?<==)\s*-?\$?\d[\w.,:/^*+()%!-]*", re.ASCII
)


@dataclass(frozen=True)
class Verdict:
    """What was found in B completions: arrays of bool (B,), and the answers that were read.

    Answers are in a canonical form, so that equal strings are one vote; None where none could be read. A right answer
    has the form of the task's own, in whatever form it was given: right completions are always one vote.
    """

    correct: np.ndarray
    parsed: np.ndarray  # False where no answer could be read: a wrong answer, counted
    answers: list[str | None]

    @classmethod
    def of(cls, correct: list[bool], answers: Any) -> "Verdict":
        """Make a verdict in which a completion is parsed if it has an answer."""
        parsed = np.array([text is not None for text in answers], dtype=bool)
        return cls(np.array(correct, dtype=bool), parsed, answers)


def exact(completions: list[str], answers: Any, separator: str = "=", pattern: str = "[0-9]+") -> "Verdict":
    """Compare the text after the last separator, if it matches the pattern from end to end, character by character.

    Examples
    --------
    >>> verdict = exact(["7+7-9=4-9=5", "5", "7+7-9=", "=05"], ["5"] * 4)
    >>> verdict.correct.tolist(), verdict.answers
    ([True, True, False, False], ['5', '5', None, '05'])
    """
    _same_length(completions, answers)
    for answer in answers:
        if not re.fullmatch(pattern, answer):
            raise ValueError(f"answers must match {pattern!r}, got {answer!r}: correct the answer or change pattern.")
    texts = [completion.rpartition(separator)[2] for completion in completions]
    texts = [text if re.fullmatch(pattern, text) else None for text in texts]
    return Verdict.of([text == answer for text, answer in zip(texts, answers)], texts)


def math(completions: list[str], answers: Any, stop: Sequence[str] = (), seconds: float = 2.0) -> "Verdict":
    r"""Compare the answers of free text by value; what follows a `stop` text is left out.

    An answer on which the worker spends more than `seconds` of processor time counts as not parsed; RuntimeError if
    the worker itself dies.

    Examples
    --------
    >>> verdict = math([r"so \boxed{\frac{2}{4}}", r"3 + 4 = 7\n#### 7", r"\boxed{"], ["0.5", "8", "1"])
    >>> verdict.correct.tolist(), verdict.answers
    ([True, False, False], ['0.5', '7', None])
    """
    _same_length(completions, answers)
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds}.")
    pairs = [(_final(completion, tuple(stop)), answer.strip()) for completion, answer in zip(completions, answers)]
    replies = {pair: _by_notation(*pair) for pair in set(pairs)}
    asked = sorted(pair for pair, reply in replies.items() if reply is None)
    if asked:
        texts = [[_Reading.of(text).text for text in pair] for pair in asked]
        for pair, (reply, _) in zip(asked, _checker(seconds)([["compare", *pair] for pair in texts])):
            correct, form = reply or (False, None)
            replies[pair] = (correct, _Reading.of(pair[0]).form or form)
    readings = {answer: _Reading.of(answer.strip()) for answer in set(answers)}
    forms = {answer: reading.form or reading.text for answer, reading in readings.items()}
    results = [replies[pair] for pair in pairs]
    forms = [forms[answer] if correct else form for answer, (correct, form) in zip(answers, results)]
    return Verdict.of([correct for correct, _ in results], forms)


def untrusted(answers: Any, seconds: float = 2.0) -> dict[str, str]:
    r"""Say which right answers must not be used, since they are not read as they are meant.

    What `pmdllm.tasks.notation` reads, it reads whole. Others are read by Math-Verify, must equal themselves, and must
    differ from copies in which a number or variable is another one: one of which a part is ignored does not.
    ImportError or RuntimeError if Math-Verify is missing or does not work.

    Examples
    --------
    >>> untrusted(["42", r"\frac{1}{2}", r"2\sqrt{3}", r"\frac{1"])
    {'\\frac{1': 'it cannot be read'}
    """
    check = _checker(seconds)
    (works, problem), *_ = check([["compare", r"\sqrt{4}", "2"]])
    if not works or not works[0]:
        raise RuntimeError(f"math_verify does not find \\sqrt{{4}} equal to 2 ({problem}): reinstall math-verify.")
    readings = {answer: _Reading.of(answer) for answer in sorted(set(answers)) if not PLAIN.fullmatch(answer)}
    unread = {answer: reading.text for answer, reading in readings.items() if reading.value is None}
    asked = {answer: text for answer, text in unread.items() if notation.is_latex(text)}
    replies = check([["survives", text] for text in asked.values()])
    problems = dict.fromkeys((answer for answer in unread if answer not in asked), "it cannot be read")
    return problems | {answer: why or failed for answer, (why, failed) in zip(asked, replies) if why or failed}


def turn(text: str, stop: Sequence[str]) -> str | None:
    """Return what a completion says after its thoughts and before a stop text; None if the thoughts do not end."""
    text = text[: min((i for i in map(text.find, stop) if i >= 0), default=len(text))]
    _, closed, text = text.rpartition("</think>")
    return None if not closed and "<think>" in text else text


def last_boxed(text: str) -> str | None:
    r"""Return what the last ``\boxed{}`` with balanced braces holds, or None; of boxes in a row, their list."""
    boxes, opened = [], []
    for match in re.finditer(r"(\\(?:boxed|fbox)\s*\{)|\\.|[{}]", text, re.DOTALL):
        if match[1] or match[0] == "{":
            opened.append((match.start(), match.end()) if match[1] else None)
        elif match[0] == "}" and opened and (box := opened.pop()):
            boxes.append((box[0], match.end(), text[box[1] : match.start()]))
    if not boxes:
        return None
    start, _, last = boxes.pop()
    answer = [last]
    for before, end, inside in reversed(boxes):
        if end > start or not BETWEEN_BOXES.fullmatch(text[end:start]):
            break
        start = before
        answer.insert(0, inside)
    return ", ".join(answer)


@dataclass(frozen=True)
class _Reading:
    """An answer: the name it is assigned to ("x" of "x = 5"), the tidy rest, and its value where notation has one."""

    name: str
    text: str
    value: object

    @classmethod
    @functools.lru_cache(maxsize=65536)
    def of(cls, answer):
        text, name = notation.tidy(answer), ""
        if values := _assigned(text):
            return cls(", ".join(values), text := notation.tidy(f"({', '.join(values.values())})"), notation.read(text))
        left, equals, right = re.sub(r"\\in(?![A-Za-z])", "=", text, count=1).partition("=")
        if equals and NAME.fullmatch(left.strip()) and not re.search(r"[<>]|\\[gln]eq?\b", text):
            name, text = left.strip().replace(" ", ""), notation.tidy(right)
        return cls(name, text, notation.read(text))

    @property
    def form(self):
        return None if self.value is None else notation.canonical(self.value)


def _assigned(text):
    """Values by name, in the order of the names, of "x = 5, y = 3"; empty unless each of several names has one."""
    pairs = [piece.split("=") for piece in BETWEEN_EQUATIONS.split(text)] if text.count("=") > 1 else []
    if not all(len(pair) == 2 and NAME.fullmatch(pair[0].strip()) and pair[1].strip() for pair in pairs):
        return {}
    values = {name.strip(): value.strip() for name, value in sorted(pairs, key=lambda pair: pair[0].strip(" \\"))}
    return values if len(values) == len(pairs) else {}


def _by_notation(answer, right):
    """(whether correct, canonical form or None) where this process can tell, None where Math-Verify must."""
    if answer is None:
        return False, None
    a, b = _Reading.of(answer), _Reading.of(right)
    form = a.form
    if a.name and b.name and a.name != b.name:
        return False, form or a.text
    units = [MEASURED.fullmatch(reading.text) for reading in (a, b)]
    if all(units) and units[0][1] != units[1][1]:  # 5 cm is not 5 m, nor five times m
        return False, form or a.text
    if a.text == b.text or ((words := _words(a.text)) and words == _words(b.text)):
        return bool(a.text) and len(a.text) <= notation.LONGEST, form or a.text
    if a.value is not None and b.value is not None:
        if isinstance(a.value, notation.Number) != isinstance(b.value, notation.Number):  # 100,200 may be a list
            a, b = (_Reading.of(re.sub(r",(?=\d)", ", ", text)) for text in (answer, right))
        return notation.same(a.value, b.value), form
    return None if notation.is_latex(a.text) and notation.is_latex(b.text) else (False, form)


def _words(text):
    """Two or more letters, with nothing else, in lower case."""
    text = re.sub(r"\\text\{([^{}\\]*)\}", r"\1", text).strip().lower()
    return text if re.fullmatch("[a-z ]{2,}", text) else None


@functools.cache
def _checker(seconds):
    if importlib.util.find_spec("math_verify") is None:
        raise ImportError("checking mathematical answers needs Math-Verify: pip install math-verify")
    return Checker(f"{__package__}.latex:make", seconds=seconds)


def _final(completion, stop):
    """The part of a completion that is its answer, or None."""
    text = (turn(completion, stop) or "")[-TAIL:]
    boxed = last_boxed(text)
    if boxed is not None or re.search(r"\\(?:boxed|fbox)\s*\{", text):
        return (last_boxed(boxed or "") or boxed or "").strip() or None
    if marked := re.findall(r"^\s*####(.*\d.*)$", text, re.MULTILINE):
        return marked[-1].strip()
    if stated := STATED.findall(text):
        text = re.split(r"\.\s", stated[-1])[0]
        if match := FORMULA.search(text) or NUMBER.search(text):
            return _content(match)
        return text.strip() or None
    places = [match for pattern in (FORMULA, NUMBER) for match in pattern.finditer(text)]
    return _content(max(places, key=lambda match: match.end())) if places else None


def _content(match):
    return next((group for group in match.groups() if group), match[0]).strip()


def _same_length(completions, answers):
    if len(completions) != len(answers):
        counts = f"{len(answers)} for {len(completions)} completions"
        raise ValueError(f"answers must have one entry per completion, got {counts}.")
