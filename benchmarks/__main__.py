"""Run every benchmark, or those named: a table, whose rows of these benchmarks are replaced, and a picture beside it.

``make bench`` sets one thread, and all for training. Nothing else should run meanwhile; ratios are within one run,
seconds of one machine. Each benchmark's rows are written when it ends; those of a GPU that is not there now are kept.
"""

import argparse
import importlib.metadata
import os
import platform
from pathlib import Path

import pandas as pd

from pmdtheory import plotting

from . import differentiable, large_mdp, mdp_iteration, simulators, training, updates
from .picture import picture
from .rows import show

HERE = Path(__file__).parent
TABLE = HERE / "results.csv"
BENCHMARKS = {module.__name__.rpartition(".")[2]: module for module in (
    updates, differentiable, mdp_iteration, simulators, large_mdp, training,
)}  # fmt: skip
VERSIONS = ("numpy", "scipy", "numba", "cvxpy", "quantecon", "torch", "transformers", "trl")


def processor():
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def versions():
    """Versions of what was compared, of those that are installed."""
    there = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    named = [f"{name} {importlib.metadata.version(name)}" for name in VERSIONS if name in there]
    return ", ".join([f"Python {platform.python_version()}", *named])


def kept(name, paths=()):
    """Tables of the committed rows of the other benchmarks, and of this one on GPUs whose `paths` it did not take now.

    None if there is no such table.
    """
    try:
        old = pd.read_csv(TABLE)
        elsewhere = old.path.str.startswith(differentiable.ON_GPU) & ~old.path.isin(paths)
        return [old[((old.benchmark != name) | elsewhere) & old.benchmark.isin(BENCHMARKS)]]
    except (OSError, ValueError, AttributeError):
        return []


def main(names):
    """Run the benchmarks of these names, write ``results.csv`` and ``results.png``, and print the rows."""
    for name in names or BENCHMARKS:
        rows = BENCHMARKS[name].rows()
        others = kept(name, {row["path"] for row in rows})
        show(rows)
        threads = getattr(BENCHMARKS[name], "THREADS", os.environ.get("OMP_NUM_THREADS", "all"))
        own = {"machine": processor(), "threads": threads, "versions": versions()}
        new = pd.DataFrame(rows).assign(benchmark=name, **own)
        table = pd.concat([*others, new], ignore_index=True)
        order = table.benchmark.map(list(BENCHMARKS).index)
        table = table.iloc[order.argsort(kind="stable")]
        temporary = TABLE.with_suffix(".new")
        table.to_csv(temporary, index=False, float_format="%.4g")
        temporary.replace(TABLE)
    table = pd.read_csv(TABLE)
    if "updates" in set(table.benchmark):
        with plotting.style():
            picture(table).savefig(HERE / "results.png", dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    one_of = f"of {', '.join(BENCHMARKS)}; all unless given"
    parser.add_argument("names", nargs="*", metavar="NAME", help=one_of)
    asked = parser.parse_args().names
    if not set(asked) <= set(BENCHMARKS):
        parser.error(f"NAME must be one {one_of.partition(';')[0]}, got {', '.join(asked)}.")
    main(asked)
