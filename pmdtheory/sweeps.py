"""Sweeps: independent cells of work in other processes, here or on a cluster; one that fails takes no other down.

=============  =========================================================================================================
``loky``       `jobs` processes of this machine
``dask``       a Dask cluster: that of the scheduler ``DASK_SCHEDULER_ADDRESS``, else `jobs` workers on this machine
``ray``        a Ray cluster: that of ``RAY_ADDRESS``, else `jobs` workers on this machine
=============  =========================================================================================================

The workers of a cluster need the same packages and see the same folders.
"""

import argparse
import contextlib
import importlib
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any

__all__ = ["BACKENDS", "add_backend", "attempt", "outcomes"]

LONGEST = 400  # characters of the line that an error is told in
EXIT = re.compile(r"\b[A-Z]{3,}\(-?\d+\)")  # how loky says that a process ended: EXIT(3), SIGKILL(-9)


def outcomes(
    function: Callable[..., Any],
    items: Sequence[Any],
    arguments: Sequence[Any] = (),
    jobs: int = 1,
    backend: str = "loky",
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield every item as it ends, with what ``function(item, *arguments)`` returned and its error, one of them None.

    With loky and Dask, a cell whose process dies, for want of memory perhaps, is done again alone, and so is what was
    going on beside it or waiting for it: only the one that dies again has failed.

    Parameters
    ----------
    function : callable
        Of a module, so that another process finds it; items and results are pickled.
    items : sequence
        In the order in which they are begun.
    arguments : sequence
        The same for every item.
    jobs : int
        Cells at a time, where no cluster says how many. One ``loky`` job is done in this process.
    backend : {'loky', 'dask', 'ray'}
        Where.

    Yields
    ------
    item, value, error
        An error is a pair: one line, and the whole traceback.

    Raises
    ------
    ValueError
        No such backend, or its package is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    if not items or (backend == "loky" and jobs == 1):
        for item in items:
            yield item, *attempt(function, item, arguments)
        return
    tasks = [(function, item, arguments) for item in items]
    _require(backend)
    with BACKENDS[backend](jobs) as results:
        for number, outcome in results(tasks):
            yield items[number], *outcome


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--backend`` to an argument parser."""
    where = "where: loky, processes of this machine; dask or ray, those of a cluster (default: loky)"
    parser.add_argument("--backend", choices=BACKENDS, default="loky", help=where)


def attempt(function: Callable[..., Any], item: Any, arguments: Sequence[Any]) -> tuple[Any, Any]:
    """Return what ``function(item, *arguments)`` returns and None, or None and its error as a line and a traceback."""
    try:
        return function(item, *arguments), None
    except Exception as error:
        return None, _told(error)


@contextlib.contextmanager
def _loky(jobs):
    from loky import ProcessPoolExecutor

    def pool(count):
        return ProcessPoolExecutor(count, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))

    yield lambda tasks: _results(tasks, lambda count: _stopped(pool(min(jobs, count))))


@contextlib.contextmanager
def _dask(jobs):
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        if not address:
            local = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None, silence_logs=50)
            address = stack.enter_context(local)
        executor = stack.enter_context(Client(address)).get_executor(pure=False)
        yield lambda tasks: _results(tasks, lambda count: contextlib.nullcontext(executor))


@contextlib.contextmanager
def _ray(jobs):
    import ray

    ray.init(**{} if os.environ.get("RAY_ADDRESS") else {"num_cpus": jobs, "include_dashboard": False})
    remote = ray.remote(max_retries=0)(attempt)

    def results(tasks):
        left = {remote.remote(*task): number for number, task in enumerate(tasks)}
        while left:
            (ended,), _ = ray.wait(list(left))
            try:
                outcome = ray.get(ended)
            except ray.exceptions.RayError as died:
                outcome = None, _death(died)
            yield left.pop(ended), outcome

    try:
        yield results
    finally:
        ray.shutdown()


BACKENDS = {"loky": _loky, "dask": _dask, "ray": _ray}


def _results(tasks, executor):
    """Numbers and outcomes of tasks as they end, then of those whose worker died, each alone in an ``executor(1)``."""
    left = set(range(len(tasks)))
    with executor(len(tasks)) as workers:
        for number, future in _submitted(workers, tasks):
            if future.exception() is None:
                left.remove(number)
                yield number, future.result()
    for number in sorted(left):
        with executor(1) as worker:
            ((_, future),) = _submitted(worker, [tasks[number]])
            died = future.exception()
            yield number, (None, _death(died)) if died else future.result()


def _submitted(executor, tasks):
    """Numbers and futures of tasks, as they end."""
    futures = {executor.submit(attempt, *task): number for number, task in enumerate(tasks)}
    return ((futures[future], future) for future in as_completed(futures))


def _death(error):
    line, whole = _told(error)
    return f"its worker died ({', '.join(EXIT.findall(whole)) or line})", whole


def _told(error):
    line = " ".join("".join(traceback.format_exception_only(error)).split())
    whole = "".join(traceback.format_exception(error))
    return (line if len(line) < LONGEST else f"{line[:LONGEST]} ..."), whole


@contextlib.contextmanager
def _stopped(executor):
    """An executor whose processes are gone when the block is left, however that is."""
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _require(backend):
    """Name the package that a backend needs where it is not there."""
    package = {"dask": "distributed"}.get(backend, backend)
    try:
        importlib.import_module(package)
    except ImportError:
        raise ValueError(f"backend {backend!r} needs the package {package}: pip install {package}") from None
