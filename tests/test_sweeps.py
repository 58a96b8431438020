"""Sweeps over processes and a cluster: every item has its own outcome, whatever happens to another."""

import os
import signal
import sys
import time

import pytest

from pmdtheory import sweeps

ITEMS = [0, 1, 2, 3, 4, 5]


def square(item, offset=0):
    """Fail for one item, die for another, and square the rest."""
    if item == 2:
        raise ValueError("two\nis too much")
    if item == 4 and os.getpid() != PARENT:
        os.kill(os.getpid(), signal.SIGKILL)
    return item**2 + offset


PARENT = int(os.environ.setdefault("PMD_TEST_PARENT", str(os.getpid())))


def slow(item):
    """Say in which process an item is done."""
    time.sleep(0.2)
    return os.getpid()


def outcomes(function, items, *arguments, **options):
    """Outcomes by item."""
    ended = list(sweeps.outcomes(function, items, arguments, **options))
    assert sorted(item for item, _, _ in ended) == sorted(items)
    return {item: (value, error) for item, value, error in ended}


@pytest.mark.parametrize(("backend", "jobs"), [("loky", 2), ("dask", 2), ("dask", 1)])
def test_what_fails_or_dies_takes_nothing_down(backend, jobs):
    """The others have their values, even those that wait for the worker that dies; an error is told in one line and a
    traceback, a death is called one.
    """
    ended = outcomes(square, ITEMS, 100, jobs=jobs, backend=backend)
    for item in (0, 1, 3, 5):
        assert ended[item] == (item**2 + 100, None)
    value, (line, whole) = ended[2]
    assert value is None and line == "ValueError: two is too much" and "Traceback" in whole and "square" in whole
    value, (line, _) = ended[4]
    assert value is None and line.startswith("its worker died") and "\n" not in line
    if backend == "loky":
        assert "SIGKILL(-9)" in line


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_two_at_a_time(backend):
    """Two workers share the items, and none of them is this process."""
    workers = {value for value, error in outcomes(slow, list(range(6)), jobs=2, backend=backend).values()}
    assert len(workers) == 2 and os.getpid() not in workers


def test_a_running_cluster_is_used(monkeypatch):
    """The address of its scheduler comes from the environment; it is as it was afterwards."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        workers = {worker.pid for worker in cluster.workers.values()}
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        for _ in range(2):
            used = {value for value, _ in outcomes(slow, list(range(4)), jobs=1, backend="dask").values()}
            assert used <= workers


def test_one_job_is_done_here():
    """Without another process, and in order."""
    assert [value for _, value, _ in sweeps.outcomes(slow, [0, 1])] == [os.getpid()] * 2


def test_bad_backends_are_named(monkeypatch):
    """In one line, with the package that is missing."""
    with pytest.raises(ValueError, match="backend must be one of loky, dask, ray, got 'mpi'"):
        list(sweeps.outcomes(slow, [0], backend="mpi"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install ray"):
        list(sweeps.outcomes(slow, [0], backend="ray"))
