"""Large problems spread over threads."""

import os
from contextlib import suppress
from itertools import pairwise
from threading import Barrier, BrokenBarrierError, Thread

import numpy as np

from .layout import ALL, BETWEEN, BLOCK, END, LANES, PART, PASS, QUANTITIES, START
from .solve import groups_of, rows_together, solve_rows

_SHARE = 2**18  # numbers that a thread is worth starting for


def _threads():
    """How many threads large problems are spread over: OMP_NUM_THREADS, or one for each processor."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1


def _parts(K):
    """How many parts a row has, whose sums are added up in one order by however many threads."""
    return -(-K // PART)


def workspace(N, K):
    """What `solve_rows` works in."""
    rows = rows_together(N, K)
    actions = K if rows > 1 else 0
    return (
        np.empty(QUANTITIES * LANES), np.empty((_parts(K), 4 * rows)), np.zeros(4 + rows, dtype=np.int64), np.empty(BLOCK),
        np.empty((actions, 4 * LANES)), np.empty((actions, 4 * LANES), dtype=np.float32), np.empty(QUANTITIES * LANES, dtype=np.float32),
    )  # fmt: skip


def over_threads(law, p, r, tau, a):
    """`solve_rows`, on some rows in each thread, or on some parts of each row; returns what that writes.

    Rows that are solved together stay together, so that the bits of the result are the same for any number of threads.
    """
    N, K = p.shape
    inputs, outputs = (p, r, tau, a), [np.empty((N, K)), np.empty((N, K)), *np.empty((3, N)), np.empty(N, dtype=bool)]
    if K > PART and (workers := _workers(N, K)) > N:
        for i in range(N):
            _one_row(min(workers, _parts(K)), law, *(x[i : i + 1] for x in (*inputs, *outputs)))
        return outputs

    def solve(rows):
        arguments = [x[rows] for x in (*inputs, *outputs)]
        solve_rows(ALL, 0, _parts(K), law, *arguments, *workspace(*arguments[0].shape))

    over_rows(solve, N, K, rows_together(N, K))
    return outputs


def over_rows(function, N, K, together=1):
    """Call a function that does not fail with slices of N rows of K actions, one in each thread; groups stay whole."""
    groups = groups_of(N, together)
    workers = min(_workers(N, K), groups)
    if workers < 2:
        function(slice(None))
        return
    edges = together * np.linspace(0, groups, workers + 1).astype(int)
    edges[-1] = N
    shares = [slice(*pair) for pair in pairwise(edges)]
    started = _started(function, shares[1:])
    for rows in (shares[0], *shares[1 + len(started) :]):
        function(rows)
    for thread in started:
        thread.join()


def _workers(N, K):
    """How many threads N rows of K actions are worth."""
    shares = N * K // _SHARE
    return min(_threads(), shares) if shares > 1 else 1


def _one_row(workers, law, *arrays):
    """`solve_rows` on one row, the parts of which are shared by threads in every pass."""
    parts, work = _parts(arrays[0].shape[1]), workspace(*arrays[0].shape)
    arguments = law, *arrays, *work
    solve_rows(START, 0, 0, *arguments)
    all_there = Barrier(workers, action=lambda: solve_rows(BETWEEN, 0, 0, *arguments))

    def share(pair):
        with suppress(BrokenBarrierError):
            while work[2][0] != END:
                solve_rows(PASS, *pair, *arguments)
                all_there.wait()

    pairs = list(pairwise(np.linspace(0, parts, workers + 1).astype(int)))
    started = _started(share, pairs[1:])
    if len(started) == workers - 1:
        share(pairs[0])
    else:
        all_there.abort()
    for thread in started:
        thread.join()
    if len(started) < workers - 1:
        solve_rows(ALL, 0, parts, *arguments)


def _started(function, arguments):
    """Threads that call the function with each argument, up to the first that does not start.

    None starts while the interpreter ends.
    """
    threads = []
    with suppress(RuntimeError):
        for argument in arguments:
            thread = Thread(target=function, args=(argument,))
            thread.start()
            threads.append(thread)
    return threads
