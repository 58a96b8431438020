"""``pmdtheory check``: every theorem on random problems."""


def add_to(commands):
    """Declare the options."""
    check = commands.add_parser("check", help="every theorem on random problems; exit code 1 on any violation")
    check.set_defaults(run=_check)
    check.add_argument("--problems", type=int, default=1000, help="random problems per claim (default: 1000)")
    check.add_argument("--seed", type=int, default=0, help="root of all random numbers (default: 0)")


def _check(arguments):
    from ..theorems import check

    frame = check.run(arguments.problems, arguments.seed)
    print(check.format_table(frame))
    violations = int(frame.violations.sum())
    claims = f"{len(frame)} claims on {arguments.problems} random problems each"
    print(f"{claims}: {violations} violations." if violations else f"{claims}: no violation.")
    return 1 if violations else 0
