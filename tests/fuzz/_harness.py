"""How problems are drawn, tried in processes of their own, and what fails is kept.

A problem is a target and a seed, the list [root, index] from which its generator is made, so that any failure can be
drawn again. A worker process tries one problem at a time; a problem that kills its process, or takes more than a
generous amount of processor time and is killed for it, is a failure like any other.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import pkgutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from functools import partial
from multiprocessing import connection
from pathlib import Path

import numpy as np

PACKAGE = "tests.fuzz"
FOUND = Path(__file__).with_name("found.jsonl")
CPU_SECONDS = 60
KEPT_PER_PLACE = 3  # failures that are recorded for each line of code that raises, in one run
_MESSAGE = 2000  # characters


def targets(package=PACKAGE):
    """Names of the targets, sorted."""
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def attempt(target, seed, package=PACKAGE):
    """Try one problem; returns None, or where and how it failed: (place, message)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            importlib.import_module(f"{package}.{target}").check(np.random.default_rng(seed))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            return place, f"{type(error).__name__} at {place}: {error}"[:_MESSAGE]
    return None


def record(failure, path=FOUND):
    """Append one failure, unless it is there; a reader sees the old file or the new one."""
    lines = path.read_text().splitlines() if path.exists() else []
    known = [(line["target"], line["seed"]) for line in map(json.loads, lines)]
    if (failure["target"], failure["seed"]) not in known:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text("\n".join([*lines, json.dumps(failure, ensure_ascii=False), ""]))
        temporary.replace(path)


def recorded(path=FOUND):
    """The failures on file, as dictionaries."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


_say = partial(print, flush=True)


def run(names, seconds, root, jobs, *, most=None, cpu_seconds=CPU_SECONDS, package=PACKAGE, path=FOUND, say=_say):
    """Try new problems until the time is over or Ctrl-C; every target gets the same share of it.

    Parameters
    ----------
    names : sequence of str
        Targets.
    seconds : float
        How long.
    root : int
        Root of all seeds.
    jobs : int
        Worker processes.
    most : int, optional
        Problems after which to stop as well.
    cpu_seconds : float
        Processor time that one problem may take.
    package, path, say
        Where the targets are, where failures go, and what each is told to.

    Returns
    -------
    tried, failed : Counter
        Problems tried and failed, by target.
    """
    tried, failed, places, spent, index = Counter(), Counter(), Counter(), Counter(), Counter()
    workers, end = [], time.monotonic() + seconds

    def start(worker):
        target = min(names, key=lambda name: (spent[name], index[name]))
        worker.start(target, [root, index[target]], share=spent[target] / max(tried[target], 1))
        spent[target] += worker.share  # what it is likely to take, so that the next worker takes another target
        index[target] += 1

    def finish(worker):
        target, seed = worker.target, worker.seed
        failure = worker.result()
        tried[target] += 1
        spent[target] += time.monotonic() - worker.began - worker.share
        if failure is not None:
            place, message = failure
            failed[target] += 1
            places[target, place] += 1
            if places[target, place] <= KEPT_PER_PLACE:
                say(f"{target} {seed}: {message}")
                record({"target": target, "seed": seed, "message": message}, path)

    try:
        say(f"trying {', '.join(names)} from seed {root}; Ctrl-C ends it")
        workers += [_Worker(package, cpu_seconds) for _ in range(jobs)]
        while time.monotonic() < end and (most is None or tried.total() < most):
            for worker in workers:
                if worker.target is None:
                    start(worker)
            for ready in connection.wait([worker.pipe for worker in workers], timeout=1.0):
                finish(next(worker for worker in workers if worker.pipe is ready))
    except KeyboardInterrupt:
        pass
    finally:
        for worker in workers:
            worker.stop()
    return tried, failed


class _Worker:
    """A process that tries one problem after another, and a new one in its place when it dies."""

    def __init__(self, package, cpu_seconds):
        self.arguments, self.target = (package, cpu_seconds), None
        self._spawn()

    def _spawn(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, *self.arguments), daemon=True)
        # Ctrl-C is for the parent, which stops its workers: they inherit that it is blocked.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self.process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()

    def start(self, target, seed, share):
        self.target, self.seed, self.share, self.began = target, seed, share, time.monotonic()
        self.pipe.send((target, seed))

    def result(self):
        self.target = None
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            self.pipe.close()
            self._spawn()
            if code == -signal.SIGPROF:
                return "hang", f"took more than {self.arguments[1]:g} s of processor time"
            return "crash", f"killed its process, exit code {code}"

    def stop(self):
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe, package, cpu_seconds):
    """Try the problems that come through the pipe; SIGPROF, left to its default, ends the process."""
    sys.stdout = sys.stderr
    while True:
        try:
            target, seed = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        failure = attempt(target, seed, package)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(failure)
