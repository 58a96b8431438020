"""Worker processes that look at what a model wrote, with bounded time and memory.

What a completion says can keep a parser or a data set's rule busy for ever, and neither a thread nor an alarm stops
compiled code. So it is looked at in a process of its own that the operating system kills when it exceeds its time, and
that cannot exceed its memory. The limit counts the worker's own processor time: what comes out does not depend on what
else the machine is doing. A killed worker is replaced, and one whose parent is gone ends.
"""

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
from typing import Any

__all__ = ["Checker"]

MEMORY, OUT_OF_MEMORY = 2 * 2**30, 86
WORKERS = min(os.cpu_count() or 1, 8)


class Checker:
    """A function that is called in worker processes, with arguments and results that JSON can say.

    A worker calls `maker`, ``module:function``, with `arguments` once, outside the limits, and it returns the function;
    each call of that may take `seconds` of processor time.

    Examples
    --------
    >>> Checker("operator:attrgetter", "real")([[5]])
    [(5, None)]
    """

    def __init__(self, maker: str, *arguments: Any, seconds: float = 2.0):
        self.seconds = seconds
        code = f"from {__name__} import serve; serve({maker!r}, {json.dumps(arguments)!r})"
        self.command = sys.executable, "-P", "-c", code
        self.environment = os.environ | {"PYTHONHASHSEED": "0"}  # what depends on the order of sets is the same in all

    def __call__(self, calls):
        """Call the function with each list of arguments; return (result, None) or (None, what went wrong) for each.

        RuntimeError if a worker cannot start, or died twice of something else than its limits.
        """
        with ThreadPoolExecutor(WORKERS) as threads:
            return list(threads.map(functools.partial(self._ask, _workers(self.command, os.getpid())), calls))

    def _ask(self, idle, call):
        worker = idle.get()
        try:
            for _ in range(2):
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "process_group": 0}
                worker = worker or subprocess.Popen(self.command, text=True, env=self.environment, **pipes)
                reply = ""
                with contextlib.suppress(BrokenPipeError):
                    print(json.dumps([call, self.seconds]), file=worker.stdin, flush=True)
                    reply = worker.stdout.readline()
                if reply:
                    return tuple(json.loads(reply))
                worker.communicate()
                status, worker = worker.returncode, None
                limits = {-signal.SIGPROF: f"{self.seconds} s", OUT_OF_MEMORY: f"{MEMORY >> 30} GiB"}
                if status in limits:
                    return None, f"not done within {limits[status]}"
        finally:
            idle.put(worker)
        raise RuntimeError(
            f"the process that checks answers died twice with status {status}: see its message above; free memory if "
            f"the system killed it, and try `{sys.executable} -c 'import math_verify'`."
        )


@functools.cache
def _workers(command, process_id):
    """Workers of this process (a fork must not share its parent's pipes) for this command, None where one is to start.

    Checkers of the same function share them, as tasks do that are loaded twice.
    """
    idle = queue.LifoQueue()
    for _ in range(WORKERS):
        idle.put(None)
    return idle


def serve(maker, arguments):
    """Answer one line of input after another: the worker's program."""
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
