"""The command line: ``pmdtheory solve | bandit | mdp | advise | check``, one module for each command."""

import argparse
import os
import signal
import sys

from . import advise, bandit, check, mdp, solve, table

_EXAMPLES = """examples:
  pmdtheory solve --policy 0.1,0.9 --reward 1,0 --tau 0.1
  pmdtheory solve --policy 0.2,0.3,0.5 --reward 0,1,1.5 --tau 0.1 --method mean --certify
  pmdtheory bandit --kind binary --tau 0.1 --steps 10
  pmdtheory bandit --tau 0.1 --steps 10 --rollouts 16 --estimator loo_log_partition --seeds 20
  pmdtheory mdp --env FrozenLake-v1 --size 8 --gamma 0.99 --tau 0.01 --steps 200
  pmdtheory advise --rollouts 16 --success 0.2 --updates 16 --batches 8
  pmdtheory check --problems 200
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(solve.joined(sys.argv[1:] if argv is None else argv))
    try:
        if getattr(arguments, "csv", None):
            table.check(arguments.csv, arguments.json)
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of `pmdtheory ... | head` has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, ArithmeticError, MemoryError, RuntimeError, OSError, ImportError) as error:
        print(f"pmdtheory {arguments.command}: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"pmdtheory {arguments.command}: interrupted; nothing is kept", file=sys.stderr)
        return 130


class _Version(argparse.Action):
    """Prints the version of the installed package."""

    def __call__(self, parser, *_):
        from importlib import metadata

        try:
            print(f"pmdtheory {metadata.version('pmdtheory')}")
        except metadata.PackageNotFoundError:
            print("pmdtheory (run from its sources)")
        parser.exit()


def _parser():
    parser = _Parser(
        prog="pmdtheory",
        description="Policy mirror descent, exactly: one step, bandits, MDPs, and a check of every theorem.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (solve, bandit, mdp, advise, check):
        command.add_to(commands)
    return parser
