"""Large problems spread over threads."""

import os
from contextlib import suppress
from itertools import pairwise
from threading import Barrier, BrokenBarrierError, Thread

import numpy as np

from .layout import ALL, BETWEEN, END, LANES, PART, PASS, START
from .solve import LONG, parts_of, room, solve_rows

_SHARE = 2**18  # numbers that a thread is worth starting for


def _threads():
    """How many threads large problems are spread over: OMP_NUM_THREADS, or one for each processor."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1


def over_threads(law, checked, p, r, tau, a):
    """`solve_rows`, on some rows in each thread, or on some parts of each row.

    Rows that are solved together stay together, so that the bits of the result are the same for any number of threads.

    Returns
    -------
    q, s, found, done : ndarray
        What that writes; `done` is None if the arguments are not beyond doubt.
    """
    N, K = p.shape
    q, s, found, done = np.empty((N, K)), np.empty((N, K)), np.empty((3, N)), np.empty(N, dtype=bool)
    sure, workers = [], _workers(N, K)
    if K > PART and workers > N:
        for i in range(N):
            numbers, rows = np.empty((3, 1)), (x[i : i + 1] for x in (p, r, tau, a, q, s))
            sure.append(_one_row(min(workers, parts_of(K)), law, checked, *rows, numbers, done[i : i + 1]))
            found[:, i : i + 1] = numbers
    else:

        def solve(low, high):
            sure.append(solve_rows(ALL, low, high, law, checked, p, r, tau, a, q, s, found, done, np.empty(room(K))))

        _over_rows(solve, N, LANES if K <= LONG else 1, workers)
    return q, s, found, done if all(sure) else None


def _over_rows(function, N, together, workers):
    """Call a function that does not fail with the ends of some of N rows, in each thread; groups stay whole."""
    groups = -(-N // together)
    workers = min(workers, groups)
    if workers < 2:
        function(0, N)
        return
    edges = together * np.linspace(0, groups, workers + 1).astype(int)
    edges[-1] = N
    shares = list(pairwise(map(int, edges)))
    started = _started(function, shares[1:])
    for share in (shares[0], *shares[1 + len(started) :]):
        function(*share)
    for thread in started:
        thread.join()


def _workers(N, K):
    """How many threads N rows of K actions are worth."""
    shares = N * K // _SHARE
    return min(_threads(), shares) if shares > 1 else 1


def _one_row(workers, law, checked, *arrays):
    """`solve_rows` on one row, the parts of which are shared by threads in every pass."""
    K = arrays[0].shape[1]
    work = np.empty(room(K))
    at, arguments = work.view(np.int64), (law, checked, *arrays, work)
    sure = solve_rows(START, 0, 0, *arguments)
    if at[0] == END:
        return sure
    all_there = Barrier(workers, action=lambda: solve_rows(BETWEEN, 0, 0, *arguments))

    def share(low, high):
        with suppress(BrokenBarrierError):
            while at[0] != END:
                solve_rows(PASS, low, high, *arguments)
                all_there.wait()

    pairs = list(pairwise(map(int, np.linspace(0, parts_of(K), workers + 1))))
    started = _started(share, pairs[1:])
    if len(started) == workers - 1:
        share(*pairs[0])
    else:
        all_there.abort()
    for thread in started:
        thread.join()
    if len(started) < workers - 1:
        solve_rows(ALL, 0, 1, *arguments)
    return True


def _started(function, arguments):
    """Threads that call the function with each argument, up to the first that does not start.

    None starts while the interpreter ends.
    """
    threads = []
    with suppress(RuntimeError):
        for argument in arguments:
            thread = Thread(target=function, args=argument)
            thread.start()
            threads.append(thread)
    return threads
