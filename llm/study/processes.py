"""One function called on many items in worker processes; an item that fails stops no other."""

import traceback
from concurrent.futures import as_completed
from multiprocessing import get_context

__all__ = ["outcomes"]


def outcomes(function, items, arguments, jobs):
    """Yield each item when its call has ended, with what it returned and its error.

    Parameters
    ----------
    function : callable
        Called as ``function(item, *arguments)``; with processes, all of it must be picklable.
    items : collection
        Taken up in this order.
    arguments : list
        The same for all items.
    jobs : int
        Processes; with one job (a GPU) everything happens in this one.

    Yields
    ------
    item, value, error
        ``value`` is None where there is an error, a text, and ``error`` where there is none.
    """
    if jobs == 1 or not items:
        for item in items:
            yield item, *_call(function, item, arguments)
        return
    from pebble import ProcessPool

    pool = ProcessPool(jobs, context=get_context("spawn"))
    try:
        futures = {pool.schedule(_call, args=[function, item, arguments]): item for item in items}
        for future in as_completed(futures):
            died = future.exception()
            said = f"its process ended with code {died.exitcode}" if hasattr(died, "exitcode") else str(died)
            ended = (None, said) if died else future.result()
            yield futures[future], *ended
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _call(function, item, arguments):
    try:
        return function(item, *arguments), None
    except Exception:
        return None, traceback.format_exc()
