"""What a benchmark returns: rows for one table, and how they are timed.

A row is a dict: what was computed, its size, the path that computed it, seconds or bytes, the peer it is compared with
and the ratio to that peer, below 1 where the path takes less. Paths that are compared take turns in one process, and
both the seconds and the ratio are medians over the rounds, so that what else the machine does falls on all of them.
"""

import time

import numpy as np

__all__ = ["repeated", "row", "show", "taking_turns"]


def row(what, size, path, seconds=None, memory=None, ratio=None, peer=None):
    """One row; `seconds` and `memory` in bytes are of the path, `ratio` is to the `peer`."""
    cost = {"seconds": seconds, "bytes": memory, "ratio": ratio, "peer": peer}
    return {"what": what, "size": size, "path": path} | cost


def taking_turns(functions, rounds=5):
    """Median seconds of each function, and the median over the rounds of its ratio to the last one.

    Each is called once before, to warm up.
    """
    for function in functions:
        function()
    seconds = np.empty((rounds, len(functions)))
    for turn in seconds:
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            turn[i] = time.perf_counter() - start
    return np.median(seconds, axis=0), np.median(seconds / seconds[:, -1:], axis=0)


def repeated(function, least=5e-3):
    """How often to call a function in a turn, and a function that does: so often that it takes `least` seconds.

    A short call between long ones of others would else be timed with what they left in the caches, as no sweep sees it.
    """
    calls, took = 1, 0.0
    function()
    while took < least:
        calls *= 2 if took else 1
        start = time.perf_counter()
        for _ in range(calls):
            function()
        took = time.perf_counter() - start
    return calls, lambda: [function() for _ in range(calls)]


def show(rows):
    """Print rows."""
    for r in rows:
        cost = f"{r['seconds']:.3g} s" if r["bytes"] is None else f"{r['bytes'] / 2**20:.0f} MiB"
        if r["bytes"] is not None and r["seconds"] is not None:
            cost = f"{r['seconds']:.3g} s, {cost}"
        peer = "" if r["ratio"] is None else f"; {r['ratio']:.2g} times {r['peer']}"
        print(f"{r['what']}, {r['size']}: {r['path']} {cost}{peer}")
