"""Recompute every table, compare it with the committed one, redraw every picture, print what each one shows."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one figure a process; also keeps sums in one order

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed

from tqdm import tqdm

from . import harness

_SHOWN = 10


def main(argv=None):
    """Run the command line; returns the exit code: 1 if any number departs from the committed tables."""
    parser = argparse.ArgumentParser(
        prog="python -m figures",
        description="Recompute the tables behind the figures into build/figures, compare them with the committed ones "
        "in figures/data (relative 1e-10), redraw the pictures beside them, and print one finding per figure.",
        epilog="figures: " + ", ".join(harness.NAMES),
    )
    parser.add_argument("names", nargs="*", default=["all"], metavar="NAME", help="figures to make (default: all)")
    parser.add_argument("--fast", action="store_true", help="a reduced setting of each: a subset of the same rows")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--update", action="store_true", help="replace the committed tables and pictures")
    arguments = parser.parse_args(argv)
    names = list(harness.NAMES) if "all" in arguments.names else list(dict.fromkeys(arguments.names))
    unknown = [name for name in names if name not in harness.NAMES]
    if unknown:
        parser.error(f"no figure is called {unknown[0]!r}; there are {', '.join(harness.NAMES)}")
    if arguments.fast and arguments.update:
        parser.error("--fast computes only part of each table, so it cannot --update the committed ones")
    if arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {arguments.jobs}")

    outcomes = {}
    with ProcessPoolExecutor(arguments.jobs) as pool:
        futures = [pool.submit(harness.run, name, arguments.fast, arguments.update) for name in names]
        for future in tqdm(as_completed(futures), total=len(futures), unit="figure", disable=None):
            outcome = future.result()
            outcomes[outcome.name] = outcome
    for name in names:
        outcome = outcomes[name]
        print(f"{name} ({outcome.seconds:.1f} s): {outcome.finding}")
        for difference in outcome.differences[:_SHOWN]:
            print(f"  DIFFERS: {difference}")
        if len(outcome.differences) > _SHOWN:
            print(f"  ... and {len(outcome.differences) - _SHOWN} more")
    if arguments.update and set(names) == set(harness.NAMES):
        harness.write_gallery([outcomes[name] for name in harness.NAMES])
    differing = [name for name in names if outcomes[name].differences]
    where = harness.BUILD.relative_to(harness.HERE.parent)
    if differing:
        print(f"{len(differing)} of {len(names)} tables differ from the committed ones: {', '.join(differing)}.")
    else:
        print(f"All {len(names)} tables agree with the committed ones; tables and pictures are in {where}.")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
