"""``pmdtheory mdp``: policy mirror descent on a whole MDP, until a certificate says that it is good enough."""

import argparse
import contextlib
import functools
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .. import simplex, updates
from .table import add_json, cells, print_json, write

_SHOWN = 24
_DEFAULT_SIZE = {"garnet": 20, "chain": 10, "gridworld": 5, "deep-sea": 5}
_DENSE = 10**7  # numbers in P above which it is sparse

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


def add_to(commands: Any) -> None:
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
    add_json(mdp)


def _mdp(arguments):
    from ..mdp import iterate

    tolerance = simplex.nonnegative(arguments.tolerance, "tolerance")
    problem = _problem(arguments)
    run = iterate(
        problem,
        update=_update(arguments),
        tau=arguments.tau,
        steps=arguments.steps,
        step_sizes=arguments.schedule,
        tolerance=tolerance,
        progress=True,
    )
    table = run.table
    if arguments.csv:
        write(table, arguments.csv)
    steps, gap = table[["iteration", "certificate"]].iloc[-1]
    if arguments.json:
        print_json(
            {"env": arguments.env, "states": problem.states, "actions": problem.actions, "gamma": problem.gamma,
             "gap": gap, "certified": bool(gap <= tolerance), "steps": table}
        )  # fmt: skip
        return 0
    print(
        f"{arguments.env}: {problem.states} states ({problem.terminal.sum()} terminal), {problem.actions} actions, "
        f"gamma {_number(problem.gamma)}; {arguments.update}, tau {arguments.tau:g}, {arguments.schedule}"
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
    if gap <= tolerance:
        print(f"certified: after {steps:.0f} steps every state is within {gap:.1g} of its optimal value.")
    else:
        print(f"not certified: after {steps:.0f} steps a state may still be {gap:.1g} below its optimal value;")
        print(_remedy(problem, run.policy, gap))
    return 0


def _remedy(problem, policy, gap):
    """More steps help, until rounding is what is left: of the values that the updates are given, and of the gap."""
    from ..mdp import evaluate

    truth = evaluate(problem, policy)
    rounding = (np.finfo(float).eps * np.abs(truth.Q).max() + truth.rounding) / (1 - problem.gamma)
    if gap > 20 * rounding:
        return "more --steps, a smaller --tau or --schedule geometric help."
    return f"at gamma {_number(problem.gamma)} rounding leaves about that much: a larger --tolerance is reached."


def _number(gamma):
    """γ in four digits, or as many as tell it from 1."""
    return f"{gamma:g}" if float(f"{gamma:g}") < 1 else repr(gamma)


def _update(arguments):
    from ..mdp import Euclidean

    if arguments.update != "mixed":
        return {"mean": updates.pmd_mean_update, "kl": updates.kl_update, "euclidean": Euclidean()}[arguments.update]
    if arguments.chi2_coef is None:
        raise ValueError("--update mixed needs --chi2-coef.")
    return functools.partial(updates.mixed_update, chi2_coef=arguments.chi2_coef)


def _problem(arguments):
    from ..mdp import chain, deep_sea, garnet, gridworld

    env, gamma = arguments.env, arguments.gamma
    simplex.count(arguments.seed, "--seed", 0)
    if env not in _DEFAULT_SIZE:
        return _gymnasium(env, arguments.size, gamma)
    size = _DEFAULT_SIZE[env] if arguments.size is None else arguments.size
    simplex.count(size, "--size", 2 if env in ("chain", "gridworld") else 1)
    simplex.count(arguments.actions, "--actions", 1)
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma must be one number in [0, 1), got {gamma}.")
    if env == "garnet":
        dense = size * size * arguments.actions <= _DENSE
        _check_memory(arguments, size, arguments.actions, 12 * size**2)  # a random graph fills its factors
        rng = np.random.default_rng(arguments.seed)
        return garnet(size, arguments.actions, min(5, size), rng, gamma, sparse=not dense)
    states, actions = {"chain": (size, 2), "gridworld": (size**2, 4), "deep-sea": (size**2 + 1, 2)}[env]
    _check_memory(arguments, states, actions)
    if env == "gridworld":
        return gridworld(size, size, gamma=gamma, sparse=True)
    return {"chain": chain, "deep-sea": deep_sea}[env](size, gamma=gamma, sparse=True)


def _check_memory(arguments, states, actions, factors=0):
    """Refuse, before anything is allocated, what needs more memory than there is: measured, 650 bytes an action."""
    need, have = 650 * states * actions + factors, _memory()
    if need > have:
        asked = f"--size {arguments.size or _DEFAULT_SIZE[arguments.env]}"
        asked += f" --actions {actions}" if arguments.env == "garnet" else ""
        raise ValueError(
            f"{asked} must fit the memory: {arguments.env} needs about {need / 2**30:.3g} GiB, this machine has "
            f"{have / 2**30:.3g} GiB."
        )


def _memory():
    """Bytes of memory that this process may use, as far as the system says."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return float("inf")
    group = Path("/sys/fs/cgroup/memory.max")
    limit = group.read_text().strip() if group.exists() else "max"
    return physical if limit == "max" else min(physical, int(limit))


def _gymnasium(name, size, gamma):
    from ..mdp import from_gymnasium

    if size is None:
        options = {}
    elif name == "FrozenLake-v1" and size in (4, 8):
        options = {"map_name": f"{size}x{size}"}
    else:
        raise ValueError(f"--size is 4 or 8 for FrozenLake-v1 and not an option of {name}, got {size}.")
    with contextlib.suppress(ImportError):
        import gymnasium  # noqa: F401 (before its warnings are silenced, since it sets filters of its own)
    try:
        with warnings.catch_warnings(action="ignore"):
            return from_gymnasium(name, gamma, sparse=True, **options)
    except (ValueError, ImportError) as error:
        reason = str(error).replace("env_or_id", "it")
        raise type(error)(f"--env is one of {', '.join(_DEFAULT_SIZE)} or a Gymnasium id: {reason}") from None
