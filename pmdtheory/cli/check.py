"""``pmdtheory check``: every theorem on random problems."""

from typing import Any

from .table import add_json, print_json


def add_to(commands: Any) -> None:
    """Declare the options."""
    check = commands.add_parser("check", help="every theorem on random problems; exit code 1 on any violation")
    check.set_defaults(run=_check)
    check.add_argument("--problems", type=int, default=1000, help="random problems per claim (default: 1000)")
    check.add_argument("--seed", type=int, default=0, help="root of all random numbers (default: 0)")
    add_json(check)


def _check(arguments):
    from ..theorems import check

    frame = check.run(arguments.problems, arguments.seed)
    violations = int(frame.violations.sum())
    if arguments.json:
        print_json({"problems": arguments.problems, "violations": violations, "claims": frame})
        return 1 if violations else 0
    print(check.format_table(frame))
    claims = f"{len(frame)} claims on {arguments.problems} random problems each"
    print(f"{claims}: {violations} violations." if violations else f"{claims}: no violation.")
    return 1 if violations else 0
