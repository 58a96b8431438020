"""``python -m tests.fuzz --minutes 10 [--seed N] [--targets a,b] [--jobs J]``."""

import argparse
import os
import secrets
import sys

from . import __doc__ as description
from . import _harness


def main(argv=None):
    """Run; the exit code is 1 if a problem failed."""
    known = _harness.targets()
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, help="root of all problems (default: a new one)")
    parser.add_argument("--targets", default=",".join(known), help=f"some of {','.join(known)} (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="worker processes (default: one for each CPU)")
    arguments = parser.parse_args(argv)
    names = arguments.targets.split(",")
    if unknown := set(names) - set(known):
        parser.error(f"--targets knows {', '.join(known)}, not {', '.join(sorted(unknown))}")
    if not arguments.minutes > 0 or arguments.jobs < 1:
        parser.error("--minutes must be positive and --jobs at least 1")
    root = secrets.randbits(32) if arguments.seed is None else arguments.seed
    if root < 0:
        parser.error(f"--seed must be nonnegative, got {root}")

    tried, failed = _harness.run(names, 60 * arguments.minutes, root, arguments.jobs)
    for name in names:
        print(f"{name:>15} {tried[name]:>8} problems {failed[name]:>6} failures")
    print(f"{tried.total()} problems, {failed.total()} failures, seed {root}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
