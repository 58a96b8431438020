"""How long a study takes: what its finished rows cost, and what a piece of it costs on this machine.

Training costs so much a completion, an iteration and an update, all at least 0: least squares of relative errors over
the rows of the device that most of them were made on, then scaled to their sum. Rows say how settings compare; how fast
this machine is, with so many processes at a time, a piece of the first cell says, a few iterations that are timed:
unless they take minutes, as those meant for a GPU do without one.
"""

import contextlib
import math
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pmdtheory.sweeps import outcomes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["known", "rates", "speed", "words"]

WORK = ["rollouts", "iteration", "updates"]
SHORTEST = 3.0  # seconds that a piece is predicted to take at least
LONGEST = 120  # seconds after which a piece is given up


def known(study: Any, folder: Path) -> "pd.DataFrame":
    """Return the finished rows of a study that tell the time: of its last stage, or else of the one before.

    Their ``seconds`` are those that the process itself took, where its curves tell them: others may have run beside it.
    """
    *earlier, last = ({name: table.read() for name, table in stage.tables.items()} for stage in study.stages(folder))
    tables = last if len(last["results"]) or not earlier else earlier[-1]
    rows, curves = tables["results"], tables.get("curves")
    if curves is None or "cpu_seconds" not in curves or "seconds" not in rows:
        return rows
    cell = [*study.settings[0].columns, "seed"]
    own = rows[cell].merge(curves.groupby(cell)["cpu_seconds"].max().reset_index(), "left", cell)["cpu_seconds"]
    return rows.assign(seconds=own.where(own > 0, rows["seconds"].to_numpy()).to_numpy())


def rates(table: "pd.DataFrame") -> np.ndarray:
    """Return the seconds of training for each completion, iteration and update, from rows of a table of results.

    Examples
    --------
    >>> import pandas as pd
    >>> work = {"rollouts": [1000, 1000, 2000], "iteration": [10, 100, 10], "updates": [80, 80, 160], "device": "cpu"}
    >>> rates(pd.DataFrame(work | {"seconds": [3.0, 12.0, 5.0]})).round(6)
    array([0.002, 0.1  , 0.   ])
    """
    from scipy.optimize import nnls

    rows = table[table["device"] == table["device"].mode()[0]] if "device" in table else table
    work, seconds = rows[WORK].to_numpy(dtype=float), rows["seconds"].to_numpy(dtype=float)
    found, _ = nnls(work / seconds[:, None], np.ones(len(seconds)))
    return found * seconds.sum() / (work @ found).sum()


def speed(cell: Any, table: "pd.DataFrame", jobs: int = 1, backend: str = "loky") -> float:
    """Return how many times as long training takes here as `table` predicts, from a piece of `cell` in each process.

    A ValueError says why that cannot be told: the piece failed or takes too long, or its base has to be made first.
    """
    if cell.base_seed is not None:
        raise ValueError("its base has to be made first")
    each = cell.training(table) / cell.resolved["iterations"]
    piece = cell.piece(min(cell.resolved["iterations"], math.ceil(SHORTEST / each)))
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / str(number) for number in range(jobs)]
        ended = list(outcomes(_timed, runs, [piece], jobs, backend))
    for _, _, error in ended:
        if error:
            raise ValueError(error[0])
    return float(np.mean([seconds for _, seconds, _ in ended])) / piece.training(table)


def words(seconds: float) -> str:
    """Return a duration in hours, or in whole minutes, rounded up, below one hour; what rounding made negative is none.

    Examples
    --------
    >>> words(9000), words(61), words(-1e-9)
    ('2.5 h', '2 min', '0 min')
    """
    minutes = math.ceil(max(seconds, 0) / 60 - 1e-6)
    return f"{minutes} min" if minutes < 60 else f"{seconds / 3600:.1f} h"


def _timed(runs, piece):
    with _at_most(LONGEST):
        piece.run(runs)
    return piece.spent(runs)


@contextlib.contextmanager
def _at_most(seconds):
    """Give up what takes longer; not outside a process's main thread, nor on a system without alarms."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def give_up(*_):
        raise ValueError(f"a piece of it takes more than {seconds:g} s here")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
