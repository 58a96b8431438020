"""Worker processes that look at what a model wrote, with bounded time and memory.

What a completion says can keep a parser or a data set's rule busy for ever, and neither a thread nor an alarm stops
compiled code. So it is looked at in a process of its own that the operating system kills when it exceeds its time, and
that cannot exceed its memory. The limit counts the worker's own processor time: what comes out does not depend on what
else the machine is doing. A killed worker is replaced.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

__all__ = ["Checker"]

MEMORY = 2 * 2**30
OUT_OF_MEMORY = 86
WORKERS = min(os.cpu_count() or 1, 8)


class Checker:
    """A function that is called in worker processes.

    Parameters
    ----------
    maker : str
        ``module:function``; a worker calls it once, outside the time limit, and it returns the function.
    *arguments
        What it is called with: anything that JSON can say.
    seconds : float
        Processor time of one call.

    Examples
    --------
    >>> Checker("operator:attrgetter", "real")([[5]])
    [(5, None)]
    """

    def __init__(self, maker, *arguments, seconds=2.0):
        self.seconds = seconds
        code = f"from {__name__} import serve; serve({maker!r}, {json.dumps(arguments)!r})"
        self.command = [sys.executable, "-P", "-c", code]

    def __call__(self, calls):
        """Call the function with each list of arguments.

        Parameters
        ----------
        calls : list of list
            Arguments that JSON can say.

        Returns
        -------
        list of (result, str or None)
            What it returned and None; or None and what went wrong: an exception, or a limit exceeded.

        Raises
        ------
        RuntimeError
            A worker cannot start, or died twice of something else than its limits.
        """
        idle = self._workers(os.getpid())

        def ask(call):
            worker = idle.get()
            try:
                return worker.ask(call, self.seconds)
            finally:
                idle.put(worker)

        with ThreadPoolExecutor(WORKERS) as threads:
            return list(threads.map(ask, calls))

    @functools.cache  # noqa: B019  a checker lives as long as its process
    def _workers(self, process_id):
        """Idle workers of this process (a fork must not share its parent's pipes), the last used first."""
        idle = queue.LifoQueue()
        for _ in range(WORKERS):
            idle.put(worker := _Worker(self.command))
            atexit.register(worker.stop)
        return idle


class _Worker:
    """A process that answers one call at a time; started when first asked, and anew after it was killed."""

    def __init__(self, command):
        self.command, self.process = command, None

    def ask(self, call, seconds):
        for _ in range(2):
            if self.process is None:
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "process_group": 0}
                self.process = subprocess.Popen(self.command, text=True, **pipes)
            reply = ""
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(json.dumps([call, seconds]) + "\n")
                self.process.stdin.flush()
                reply = self.process.stdout.readline()
            if reply:
                return tuple(json.loads(reply))
            status = self._bury()
            if status == -signal.SIGPROF:
                return None, f"not done within {seconds} s"
            if status == OUT_OF_MEMORY:
                return None, f"not done within {MEMORY >> 30} GiB"
        raise RuntimeError(
            f"the process that checks answers died twice with status {status}: see its message above; free memory if "
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


def serve(maker, arguments):
    """Answer one line of input after another until the parent process is gone: the worker's program."""
    import logging
    import resource

    logging.disable()
    replies, sys.stdout = sys.stdout, sys.stderr
    module, _, name = maker.partition(":")
    function = getattr(importlib.import_module(module), name)(*json.loads(arguments))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    for line in sys.stdin:
        call, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = json.dumps([function(*call), None])
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:
            reply = json.dumps([None, f"{type(error).__name__}: {error}"[:200]])
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(reply, file=replies, flush=True)
