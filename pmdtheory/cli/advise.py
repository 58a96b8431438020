"""``pmdtheory advise``: how large τ may be and whether PMD-mean pays, from simulated training."""

from pathlib import Path
from typing import Any

from .table import add_json, print_json


def add_to(commands: Any) -> None:
    """Declare the options."""
    advise = commands.add_parser("advise", help="how large tau may be, and whether PMD-mean pays, from simulated runs")
    advise.set_defaults(run=_advise)
    advise.add_argument("--rollouts", type=int, default=16, help="n for each prompt (default: 16)")
    advise.add_argument("--success", type=float, default=0.3, help="mean success rate before training (default: 0.3)")
    advise.add_argument("--updates", type=int, default=8, help="U on each batch (default: 8)")
    advise.add_argument("--batches", type=int, default=64, help="B of the training (default: 64)")
    advise.add_argument("--lag", type=int, default=0, help="age of the rollouts in batches (default: 0)")
    advise.add_argument("--flips", type=float, default=0.0, help="share of wrong verdicts (default: 0)")
    advise.add_argument("--table", type=Path, help="the simulated runs (default: figures/data/where_it_pays.csv)")
    add_json(advise)


def _advise(arguments):
    from .. import advice

    names = "rollouts", "success", "updates", "batches", "lag", "flips"
    found = advice.advise(**{name: getattr(arguments, name) for name in names}, path=arguments.table)
    if arguments.json:
        trust = {name: trust._asdict() for name, trust in found.trust.items()}
        said = {"pays": found.pays, "tau": found.tau, "tried": found.tried}
        print_json(said | {"held_out": trust, "outside": list(found.outside)})
    else:
        print(found)
    return 0
