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
import logging
import os
import queue
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

__all__ = ["Checker"]

MEMORY, OUT_OF_MEMORY = 2 * 2**30, 86
WORKERS = min(os.cpu_count() or 1, 8)


class Checker:
    """A function that is called in worker processes, with arguments and results that JSON can say.

    Parameters
    ----------
    maker : str
        ``module:function``; a worker calls it with `arguments` once, outside the limits, and it returns the function.
    *arguments
        JSON values.
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
        """Call the function with each list of arguments; return (result, None) or (None, what went wrong) for each.

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
            atexit.register(worker.stop, kill=True)
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
            status = self.stop()
            limits = {-signal.SIGPROF: f"{seconds} s", OUT_OF_MEMORY: f"{MEMORY >> 30} GiB"}
            if status in limits:
                return None, f"not done within {limits[status]}"
        raise RuntimeError(
            f"the process that checks answers died twice with status {status}: see its message above; free memory if "
            f"the system killed it, and try `{sys.executable} -c 'import math_verify'`."
        )

    def stop(self, kill=False):
        """Bury the process, and return its status."""
        if self.process is None:
            return None
        if kill:
            self.process.kill()
        status = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process = None
        return status


def serve(maker, arguments):
    """Answer one line of input after another until the parent process is gone: the worker's program."""
    import resource  # not everywhere

    replies, sys.stdout = sys.stdout, sys.stderr
    logging.disable()
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
