"""``pmdtheory mdp``: policy mirror descent on a whole MDP, until a certificate says that it is good enough."""

import argparse
import functools
import sys
import warnings
from pathlib import Path

import numpy as np

from .. import simplex, updates
from .table import cells, write

_SHOWN = 24

_COLUMNS = """columns:
  value     expected discounted return from the start
  gap <=    how far any state may be below its optimal value: the largest advantage over 1 - gamma
  KL(q||p)  how far the step that led here moved the policy, mean over the states (not the terminal ones)
  lambda    its chi2 weight, mean over the states; beside it the largest
  entropy   what exploration is left, mean over the states (nats)

examples:
  pmdtheory mdp --env gridworld --size 8 --tau 0.03
  pmdtheory mdp --env FrozenLake-v1 --size 8 --gamma 0.99 --tau 0.01 --steps 200
  pmdtheory mdp --env Taxi-v4 --gamma 0.99 --tau 1 --schedule geometric --steps 300 --csv taxi.csv
"""


def add_to(commands):
    """Declare the options."""
    mdp = commands.add_parser(
        "mdp",
        help="policy mirror descent on a finite MDP, exact, with a certificate of the gap",
        epilog=_COLUMNS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mdp.set_defaults(run=_mdp)
    mdp.add_argument(
        "--env",
        default="garnet",
        help="garnet (random), chain, gridworld, deep-sea, or a Gymnasium id with a transition table such as "
        "FrozenLake-v1, Taxi-v4, CliffWalking-v1 (default: garnet)",
    )
    mdp.add_argument(
        "--size",
        type=int,
        help="states of garnet (default: 20) or chain (10); side of gridworld, deep-sea (5) or FrozenLake-v1 (4 or 8)",
    )
    mdp.add_argument("--actions", type=int, default=4, help="actions of garnet (default: 4)")
    mdp.add_argument("--gamma", type=float, default=0.95, help="discount, in [0, 1) (default: 0.95)")
    mdp.add_argument(
        "--update",
        choices=["mean", "kl", "mixed", "euclidean"],
        default="mean",
        help="mean: PMD-mean (default); kl: the ideal update; mixed: KL plus chi2 (needs --chi2-coef); euclidean: "
        "projection onto the simplex",
    )
    mdp.add_argument("--chi2-coef", type=float, help="kappa >= 0, reward units, of --update mixed")
    mdp.add_argument("--tau", type=float, default=0.1, help="temperature, reward units; 1/step size (default: 0.1)")
    mdp.add_argument(
        "--schedule",
        choices=["constant", "geometric", "adaptive"],
        default="constant",
        help="tau constant (default), shrinking by gamma each iteration, or as bound B1 asks",
    )
    mdp.add_argument("--steps", type=int, default=100, help="most iterations (default: 100)")
    mdp.add_argument("--tolerance", type=float, default=1e-6, help="stop at this certified gap (default: 1e-6)")
    mdp.add_argument("--seed", type=int, default=0, help="of the random MDP garnet (default: 0)")
    mdp.add_argument("--csv", type=Path, help="also write the whole table here")


def _mdp(arguments):
    from ..mdp import iterate

    tolerance = simplex.nonnegative(arguments.tolerance, "tolerance")
    problem = _problem(arguments)
    table = iterate(
        problem,
        update=_update(arguments),
        tau=arguments.tau,
        steps=arguments.steps,
        step_sizes=arguments.schedule,
        tolerance=tolerance,
        progress=sys.stderr.isatty(),
    ).table
    if arguments.csv:
        write(table, arguments.csv)
    print(
        f"{arguments.env}: {problem.states} states ({problem.terminal.sum()} terminal), {problem.actions} actions, "
        f"gamma {problem.gamma:g}; {arguments.update}, tau {arguments.tau:g}, {arguments.schedule}"
    )
    widths = (10, 10, 10, 10, 10, 8)
    titles = ("value", "gap <=", "KL(q||p)", "lambda", "largest", "entropy")
    print(f"{'step':>5} " + " ".join(f"{title:>{w}}" for title, w in zip(titles, widths)))
    columns = ["value", "certificate", "kl", "chi2_weight", "chi2_weight_max", "entropy"]
    rows = np.unique(np.geomspace(1, len(table), _SHOWN).round().astype(int)) - 1
    for row in rows:
        print(f"{table.iteration[row]:>5} {cells(table.loc[row, columns], widths)}")
    if len(rows) < len(table):
        print(f"({len(rows)} of {len(table)} rows; --csv FILE writes all)")
    steps, gap = table[["iteration", "certificate"]].iloc[-1]
    if gap <= tolerance:
        print(f"certified: after {steps:.0f} steps every state is within {gap:.1g} of its optimal value.")
    else:
        print(f"not certified: after {steps:.0f} steps a state may still be {gap:.1g} below its optimal value;")
        print("more --steps, a smaller --tau or --schedule geometric help.")
    return 0


def _update(arguments):
    from ..mdp import Euclidean

    if arguments.update != "mixed":
        return {"mean": updates.pmd_mean_update, "kl": updates.kl_update, "euclidean": Euclidean()}[arguments.update]
    if arguments.chi2_coef is None:
        raise ValueError("--update mixed needs --chi2-coef.")
    return functools.partial(updates.mixed_update, chi2_coef=arguments.chi2_coef)


def _problem(arguments):
    from ..mdp import chain, deep_sea, garnet, gridworld

    size, gamma = arguments.size, arguments.gamma
    if arguments.env == "garnet":
        states = 20 if size is None else size
        return garnet(states, arguments.actions, min(5, states), np.random.default_rng(arguments.seed), gamma)
    if arguments.env == "chain":
        return chain(10 if size is None else size, gamma=gamma)
    side = 5 if size is None else size
    if arguments.env == "gridworld":
        return gridworld(side, side, gamma=gamma, sparse=True)
    if arguments.env == "deep-sea":
        return deep_sea(side, gamma)
    return _gymnasium(arguments.env, size, gamma)


def _gymnasium(name, size, gamma):
    from ..mdp import from_gymnasium

    if size is None:
        options = {}
    elif name == "FrozenLake-v1" and size in (4, 8):
        options = {"map_name": f"{size}x{size}"}
    else:
        raise ValueError(f"--size is 4 or 8 for FrozenLake-v1 and not an option of {name}, got {size}.")
    try:
        with warnings.catch_warnings(action="ignore"):
            return from_gymnasium(name, gamma, sparse=True, **options)
    except (ValueError, ImportError):
        raise
    except Exception as error:  # Gymnasium's own, which cannot be named without importing it
        reason = " ".join(str(error).split())
        raise ValueError(f"--env knows garnet, chain, gridworld, deep-sea and Gymnasium ids: {reason}") from None
