"""Recompute every table, compare it with the committed one, redraw every picture, print what each one shows."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one figure a process; also keeps sums in one order

import argparse
import signal
import sys
import tempfile

from tqdm import tqdm

from pmdtheory import sweeps

from . import harness, replication, simulation, verdicts

_SHOWN = 10


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv=None):
    """Run the command line.

    Returns
    -------
    int
        1 if a number departs from the committed tables or a page from what they say, 2 if something cannot be read,
        drawn or written, else 0.
    """
    arguments = _arguments(argv)
    try:
        return _run(**vars(arguments))
    except (ValueError, OSError) as error:
        print(f"python -m figures: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("python -m figures: interrupted; the committed files are whole, start again", file=sys.stderr)
        return 128 + signal.SIGINT


def _arguments(argv):
    parser = _Parser(
        prog="python -m figures",
        description="Recompute the tables behind the figures into build/figures, compare them with the committed ones "
        "in figures/data (relative 1e-10), redraw the pictures beside them, and print one finding per figure.",
        epilog="figures: " + ", ".join(harness.NAMES),
    )
    parser.add_argument("names", nargs="*", default=["all"], metavar="NAME", help="figures to make (default: all)")
    parser.add_argument("--fast", action="store_true", help="a reduced setting of each: a subset of the same rows")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    sweeps.add_backend(parser)
    parser.add_argument(
        "--update", action="store_true", help="replace the committed tables, pictures, gallery and table of the README"
    )
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in (*harness.NAMES, "all")]
    if unknown:
        parser.error(f"no figure is called {unknown[0]!r}; there are {', '.join(harness.NAMES)}")
    if arguments.fast and arguments.update:
        parser.error("--fast computes only part of each table, so it cannot --update the committed ones")
    if arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {arguments.jobs}")
    return arguments


def _run(names, fast, jobs, backend, update):
    whole = "all" in names
    names = list(harness.NAMES) if whole else list(dict.fromkeys(names))
    for folder in (harness.BUILD, *((harness.DATA, harness.OUTPUT) if update else ())):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # fails now rather than after the computation
    harness.finish()
    made, failed = {}, {}
    ended = sweeps.outcomes(harness.attempt, names, (fast, update), jobs, backend)
    for name, outcome, error in tqdm(ended, total=len(names), unit="figure", disable=None):
        if error:
            failed[name] = error[1].rstrip()  # a fault of this program: the whole traceback
        elif isinstance(outcome, str):
            failed[name] = outcome
        else:
            made[name] = outcome
    names = [name for name in names if name in made]
    for name in names:
        outcome = made[name]
        print(f"{name} ({outcome.seconds:.1f} s): {outcome.finding}")
        for difference in outcome.differences[:_SHOWN]:
            print(f"  DIFFERS: {difference}")
        if len(outcome.differences) > _SHOWN:
            print(f"  ... and {len(outcome.differences) - _SHOWN} more")
    differing = [name for name in names if made[name].differences]
    stale = _pages(update) if whole or update else []
    for page in stale:
        print(f"DIFFERS: {page} is not what the committed tables say (make reproduce UPDATE=1 writes it)")
    if differing:
        print(f"{len(differing)} of {len(names)} tables differ from the committed ones: {', '.join(differing)}.")
    elif made:
        where = os.path.relpath(harness.BUILD, harness.HERE.parent)
        print(f"All {len(names)} tables agree with the committed ones; tables and pictures are in {where}.")
    for name, line in failed.items():
        print(f"python -m figures: {name}: {line}", file=sys.stderr)
    return 2 if failed else 1 if differing or stale else 0


def _findings(text):
    text = verdicts.update(text, simulation.MARKS, simulation.table())
    return verdicts.update(text, replication.MARKS, replication.sections())


def _pages(update):
    """Names of the pages that are out of date: the gallery, and the table of verdicts; they are written if `update`."""
    pages = {
        harness.HERE / "README.md": lambda text: harness.gallery(),
        replication.README: lambda text: verdicts.update(text, replication.MARKS, replication.table()),
        replication.FINDINGS: _findings,
    }
    stale = []
    for path, present in pages.items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = present(old)
        if new != old:
            stale.append(os.path.relpath(path, harness.HERE.parent))
            if update:
                harness.write_text(new, path)
    return [] if update else stale


if __name__ == "__main__":
    sys.exit(main())
