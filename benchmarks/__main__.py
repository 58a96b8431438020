"""Run every benchmark: a table and a picture beside this file.

``make bench`` sets one thread, and all for training. Nothing else should run meanwhile; ratios are within one run,
seconds of one machine.
"""

import importlib.metadata
import os
import platform
from pathlib import Path

import pandas as pd

from pmdtheory import plotting

from . import large_mdp, mdp_iteration, simulators, training, updates
from .rows import show

HERE = Path(__file__).parent
VERSIONS = ("numpy", "scipy", "numba", "cvxpy", "quantecon", "torch", "transformers", "trl")
MARKS = {"compiled": ("o", plotting.VERMILION), "NumPy": ("s", plotting.BLUE), "softmax": ("^", plotting.GREY)}


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


def picture(table):
    """Nanoseconds per action of PMD-mean against the number of actions and of contexts, and the ratios to a softmax."""
    import matplotlib.pyplot as plt

    shape = table["size"].str.extract(r"^([\d,]+) × ([\d,]+), tau ([\d.]+)$")
    shape = shape.apply(lambda column: pd.to_numeric(column.str.replace(",", "")))
    rows = table.assign(contexts=shape[0], actions=shape[1], tau=shape[2]).dropna(subset=["contexts"])
    ours = rows[(rows.what == "PMD-mean") & (rows.tau < 0.1)].drop_duplicates(["contexts", "actions", "path"])
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained")
    for axis, (x, fixed, label) in zip(
        axes, [("actions", "contexts", "actions of one context"), ("contexts", "actions", "contexts of ten actions")]
    ):
        part = ours[ours[fixed] == (1 if fixed == "contexts" else 10)]
        for path, (mark, color) in MARKS.items():
            own = part[part.path == path].sort_values(x)
            numbers = own.contexts * own.actions
            axis.plot(own[x], 1e9 * own.seconds / numbers, marker=mark, color=color, label=path)
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="ns per action")
    axes[0].legend()
    wide = rows[(rows.contexts * rows.actions == 10**6) & rows.path.isin(["compiled", "NumPy"])]
    whats = list(dict.fromkeys(wide.what))
    for path, (mark, color) in list(MARKS.items())[:2]:
        own = wide[wide.path == path]
        axes[2].plot(own.ratio, [len(whats) - whats.index(what) for what in own.what], mark, color=color, alpha=0.7)
    axes[2].axvline(1, color="0.5", lw=1)
    axes[2].set(xscale="log", xlabel="times a softmax, a million numbers", yticks=range(len(whats), 0, -1))
    axes[2].set_yticklabels(whats)
    figure.suptitle("Compiled, an update costs a few softmaxes; by NumPy, ten times that")
    return figure


def main():
    """Write ``results.csv`` and ``results.png``, and print the rows."""
    rows = [row for module in (updates, mdp_iteration, simulators, large_mdp, training) for row in module.rows()]
    show(rows)
    table = pd.DataFrame(rows).assign(
        machine=processor(), threads=os.environ.get("OMP_NUM_THREADS", "all"), versions=versions()
    )
    table.to_csv(HERE / "results.csv", index=False, float_format="%.4g")
    with plotting.style():
        picture(table).savefig(HERE / "results.png", dpi=150)


if __name__ == "__main__":
    main()
