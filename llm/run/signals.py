"""Signals that end a command: the first lets a long run end what it is at and save, the second stops it at once."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Interrupted", "noted_signals", "raised_signals"]


class Interrupted(KeyboardInterrupt):
    """The signal `number` ended the run; the message says what was saved and what going on costs."""

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number


@contextlib.contextmanager
def noted_signals(unit: str) -> Iterator[Any]:
    """Context in which the first SIGINT, SIGTERM or SIGHUP is put into the list it gives, and the second interrupts.

    ``unit`` says what the run ends before it saves, for instance "this iteration".
    """
    noted = []

    def note(number, _):
        if noted:
            raise KeyboardInterrupt
        noted.append(number)
        print(f"\nending {unit}, then saving; once more to stop at once", file=sys.stderr, flush=True)

    with _handled((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), note):
        yield noted


@contextlib.contextmanager
def raised_signals() -> Iterator[Any]:
    """Context in which SIGTERM and SIGHUP do what Ctrl-C does; sent once more they end the process at once."""

    def stop(number, _):
        signal.signal(number, signal.SIG_DFL)
        error = KeyboardInterrupt()
        error.number = number
        raise error

    with _handled((signal.SIGTERM, signal.SIGHUP), stop):
        yield


@contextlib.contextmanager
def _handled(numbers, handler):
    """Context with a handler for signals that are not ignored, as they are under nohup; in the main thread only."""
    main = threading.current_thread() is threading.main_thread()
    caught = [number for number in numbers if main and signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, handler) for number in caught}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)
