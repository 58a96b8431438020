"""Signals that end a long run: the first lets it end what it is at and save, the second stops it at once."""

import contextlib
import signal
import sys
import threading

__all__ = ["Interrupted", "noted_signals"]

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class Interrupted(KeyboardInterrupt):
    """The signal `number` ended the run; the message says what was saved and what going on costs."""

    def __init__(self, message, number=signal.SIGINT):
        super().__init__(message)
        self.number = number


@contextlib.contextmanager
def noted_signals(unit):
    """Context in which the first SIGINT, SIGTERM or SIGHUP is put into the list it gives, and the second interrupts.

    ``unit`` says what the run ends before it saves, for instance "this iteration".
    """
    noted = []

    def note(number, _):
        if noted:
            raise KeyboardInterrupt
        noted.append(number)
        print(f"\nending {unit}, then saving; once more to stop at once", file=sys.stderr, flush=True)

    caught = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    caught = [number for number in caught if signal.getsignal(number) is not signal.SIG_IGN]  # as under nohup
    earlier = {number: signal.signal(number, note) for number in caught}
    try:
        yield noted
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
