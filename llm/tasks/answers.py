r"""Answers read from completions and compared with the right ones.

`exact` compares characters: for tasks whose completions have one form. `math` reads free text, a final ``\boxed{}``,
``#### 42`` or the last number or formula, and compares by value, as Math-Verify does: 1/2 is 0.5 and {1, 2} is {2, 1}.

A completion can say anything, and what it says is never evaluated as code. Math-Verify swallows its own exceptions, and
its time limit works in main threads only and cannot stop compiled code. So each completion is checked in a worker
process that the operating system kills when it exceeds its time, and that cannot exceed its memory. The limit counts
the worker's own processor time: the verdict does not depend on what else the machine is doing.

A completion that cannot be read, or not within the limits, is wrong and counted as not parsed. To keep a broken checker
from looking like a bad policy, each right answer is first checked against itself; one that fails is an error.
"""

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import queue
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

__all__ = ["Verdict", "exact", "last_boxed", "math"]

TAIL = 10_000
MEMORY = 2 * 2**30
OUT_OF_MEMORY = 86
WORKERS = min(os.cpu_count() or 1, 8)
COMMAND = [sys.executable, "-P", __file__]


@dataclass(frozen=True)
class Verdict:
    """What was found in B completions.

    Attributes
    ----------
    correct : bool array (B,)
        Whether the answer is right.
    parsed : bool array (B,)
        False where no answer could be read: a wrong answer, counted.
    answers : list of str or None
        Each answer in a canonical form, so that equal strings are one vote; None where none could be read.
    """

    correct: np.ndarray
    parsed: np.ndarray
    answers: list[str | None]


def exact(completions, answers, separator="=", pattern="[0-9]+"):
    """Compare the text after the last separator with the answer, character by character.

    Parameters
    ----------
    completions : list of str
        B completions; one without a separator is an answer as a whole.
    answers : list of str
        The B right answers.
    separator : str
        What precedes the answer.
    pattern : str
        Regular expression that an answer matches from end to end; any other text is no answer.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        The lists differ in length, or a right answer does not match the pattern.

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
    found = [completion.rpartition(separator)[2] for completion in completions]
    found = [text if re.fullmatch(pattern, text) else None for text in found]
    return _verdict([text == answer for text, answer in zip(found, answers)], found)


def math(completions, answers, seconds=2.0):
    r"""Compare the answers of free text by value.

    Of a completion's last 10,000 characters, the answer is the last balanced ``\boxed{}``; without one, the last line
    that begins with ``####`` and has a digit; without that, what Math-Verify finds in the text.

    Parameters
    ----------
    completions : list of str
        B completions.
    answers : list of str
        The B right answers, plain or LaTeX, without ``\boxed{}`` or dollar signs around them.
    seconds : float
        Processor time after which a completion counts as not parsed.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        The lists differ in length, ``seconds`` is not positive, or Math-Verify does not accept a right answer as equal
        to itself.
    ImportError
        Math-Verify is not installed.
    RuntimeError
        The checker itself died.

    Examples
    --------
    >>> verdict = math([r"so \boxed{\frac{2}{4}}", r"3 + 4 = 7\n#### 7", r"\boxed{"], ["0.5", "8", "1"])
    >>> verdict.correct.tolist(), verdict.answers
    ([True, False, False], ['0.5', '7', None])
    """
    _same_length(completions, answers)
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds}.")
    if importlib.util.find_spec("math_verify") is None:
        raise ImportError("checking mathematical answers needs Math-Verify: pip install math-verify")
    unproven = sorted(set(answers) - _proven)
    for answer, (correct, _, problem) in zip(unproven, _ask([rf"\boxed{{{a}}}" for a in unproven], unproven, seconds)):
        if not correct:
            raise ValueError(
                f"answers must equal themselves for Math-Verify, but {answer!r} does not ({problem or 'not equal'}): "
                "correct or drop that problem; if every answer fails, reinstall math-verify."
            )
        _proven.add(answer)
    replies = list(_ask(completions, answers, seconds))
    return _verdict([correct for correct, _, _ in replies], [found for _, found, _ in replies])


def last_boxed(text):
    r"""Return what the last ``\boxed{}`` with balanced braces holds, or None.

    Parameters
    ----------
    text : str
        Anything. A brace after a backslash is a character, not a group.

    Returns
    -------
    str or None

    Examples
    --------
    >>> last_boxed(r"first \boxed{1}, then \boxed{\frac{1}{2}}, then \boxed{")
    '\\frac{1}{2}'
    """
    found, opened = None, []
    for match in re.finditer(r"(\\(?:boxed|fbox)\s*\{)|\\.|[{}]", text, re.DOTALL):
        if match[1] or match[0] == "{":
            opened.append(match.end() if match[1] else None)
        elif match[0] == "}" and opened:
            start = opened.pop()
            found = text[start : match.start()] if start is not None else found
    return found


_proven = set()


class _Worker:
    """A process that checks completions one at a time; started when first asked, and anew after it was killed."""

    process = None

    def ask(self, completion, answer, seconds):
        """Return [whether it is correct, the answer found or None, what went wrong or None]."""
        for _ in range(2):
            if self.process is None:
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "process_group": 0}
                self.process = subprocess.Popen(COMMAND, text=True, **pipes)
            reply = ""
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(json.dumps([completion[-TAIL:], answer, seconds]) + "\n")
                self.process.stdin.flush()
                reply = self.process.stdout.readline()
            if reply:
                return json.loads(reply)
            status = self._bury()
            if status == -signal.SIGPROF:
                return [False, None, f"not read within {seconds} s"]
            if status == OUT_OF_MEMORY:
                return [False, None, f"not read within {MEMORY >> 30} GiB"]
        raise RuntimeError(
            f"the process that checks answers died twice with status {status}: see its message above, free memory if "
            f"the system killed it, and try `{sys.executable} -c 'import math_verify'`."
        )

    def stop(self):
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self._bury()

    def _bury(self):
        status = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process = None
        return status


@functools.cache
def _workers(process_id):
    """Idle workers of this process (a fork must not share its parent's pipes), the last used first."""
    idle = queue.LifoQueue()
    for _ in range(WORKERS):
        idle.put(worker := _Worker())
        atexit.register(worker.stop)
    return idle


def _ask(completions, answers, seconds):
    idle = _workers(os.getpid())

    def ask(completion, answer):
        worker = idle.get()
        try:
            return worker.ask(completion, answer, seconds)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(WORKERS) as threads:
        yield from threads.map(ask, completions, answers)


def _verdict(correct, found):
    parsed = np.array([text is not None for text in found], dtype=bool)
    return Verdict(np.array(correct, dtype=bool), parsed, found)


def _same_length(completions, answers):
    if len(completions) != len(answers):
        raise ValueError(
            f"answers must have one entry per completion, got {len(answers)} for {len(completions)} completions."
        )


# The rest runs in the worker.


def _serve():
    """Answer one line of input after another until the parent process is gone."""
    import logging
    import resource

    import math_verify  # noqa: F401  its errors belong on the screen, those of later checks do not

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable()
    replies = sys.stdout
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    for line in sys.stdin:
        completion, answer, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = _check(completion, answer)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:
            reply = [False, None, f"{type(error).__name__}: {error}"[:200]]
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


def _check(completion, answer):
    from math_verify import verify

    found = _parse(_final(completion))
    if not found:
        return [False, None, "no answer found"]
    correct = verify(_parse_answer(answer), found, timeout_seconds=None)
    return [correct, _canonical(found[0]), None]


def _final(completion):
    """The part of a completion that holds its answer."""
    boxed = last_boxed(completion)
    if boxed is not None:
        return rf"\boxed{{{boxed}}}"
    marked = re.findall(r"^\s*####(.*\d.*)$", completion, re.MULTILINE)
    return marked[-1] if marked else completion


@functools.lru_cache(maxsize=1024)
def _parse_answer(answer):
    return _parse(rf"\boxed{{{answer}}}")


def _parse(text):
    from math_verify import parse

    return parse(text, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)


def _canonical(expression):
    """One text for all forms of a number; other expressions as they are printed, assignments by their right side."""
    import sympy

    if isinstance(expression, sympy.Eq) and expression.lhs.is_Symbol:
        expression = expression.rhs
    if getattr(expression, "is_number", False):
        expression = expression.doit()
        if expression.is_real and np.isfinite(float(expression)):
            return f"{float(expression):.15g}"
    return str(expression)


if __name__ == "__main__":
    _serve()
