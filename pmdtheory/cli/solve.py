"""``pmdtheory solve``: one exact update of one policy, by each method."""

import argparse
import functools
import re
from typing import Any

import numpy as np

from .. import divergences, updates
from .table import add_json, print_json


def joined(argv: list[str]) -> list[str]:
    """Join ``--reward -1,0`` to ``--reward=-1,0`` and ``--tau -1e3`` likewise: argparse takes them for options."""
    joined = []
    for word in argv:
        if joined and re.fullmatch("--[a-z][a-z0-9-]*", joined[-1]) and re.match(r"-(\.?\d|inf|nan)", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def numbers(text: str) -> np.ndarray:
    """Read comma-separated numbers."""
    try:
        return np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers separated by commas") from None


def add_to(commands: Any) -> None:
    """Declare the options."""
    solve = commands.add_parser("solve", help="one exact update of one policy, by each method")
    solve.set_defaults(run=_solve)
    solve.add_argument("--policy", type=numbers, required=True, help="current probabilities, e.g. 0.1,0.9")
    solve.add_argument("--reward", type=numbers, required=True, help="reward of each action, e.g. 1,0")
    solve.add_argument("--tau", type=float, required=True, help="temperature (> 0, reward units): weight of the KL")
    solve.add_argument(
        "--method",
        choices=["kl", "mean", "mixed", "baseline", "all"],
        default="all",
        help="kl: the ideal update; mean: PMD-mean; mixed: KL plus chi2 (needs --chi2-coef); baseline: a given "
        "baseline (needs --baseline); all: every one that has what it needs (default)",
    )
    solve.add_argument("--chi2-coef", type=float, help="kappa >= 0, reward units, of --method mixed")
    solve.add_argument("--baseline", type=float, help="b, reward units, of --method baseline")
    solve.add_argument("--certify", action="store_true", help="solve with CVXPY as well and print its certificate")
    add_json(solve)


def _solve(arguments):
    p, r, tau = arguments.policy, arguments.reward, arguments.tau
    methods = {"kl": updates.kl_update, "mean": updates.pmd_mean_update}
    extra = {"mixed": (updates.mixed_update, "chi2_coef"), "baseline": (updates.baseline_update, "baseline")}
    for name, (update, option) in extra.items():
        value = getattr(arguments, option)
        if value is not None:
            methods[name] = functools.partial(update, **{option: value})
        elif arguments.method == name:
            raise ValueError(f"--method {name} needs --{option.replace('_', '-')}.")
    if arguments.method != "all":
        methods = {arguments.method: methods[arguments.method]}

    solved = {name: update(p, r, tau) for name, update in methods.items()}
    moved = {name: divergences.movement(p, u.log_ratio) for name, u in solved.items()}
    if arguments.json:
        found = {name: _record(arguments, u, moved[name]) for name, u in solved.items()}
        certificates = {"certificates": list(_certificates(arguments, solved))} if arguments.certify else {}
        print_json({"policy": p, "reward": r, "tau": tau, "methods": found, **certificates})
        return 0
    print(f"{'action':>8} {'p':>10} {'reward':>10}" + "".join(f" {'q ' + name:>12}" for name in solved))
    for i in range(p.size):
        print(f"{i:>8} {p[i]:>10.4g} {r[i]:>10.4g}" + "".join(f" {u.policy[i]:>12.6g}" for u in solved.values()))
    print()
    summary = {
        "E_q[r]": [float(u.policy @ r) for u in solved.values()],
        "KL(q||p)": [float(m.kl) for m in moved.values()],
        "KL(p||q)": [float(m.reverse_kl) for m in moved.values()],
        "chi2(q||p)": [float(m.chi2) for m in moved.values()],
        "lambda": [float(u.chi2_weight) for u in solved.values()],
        "baseline": [float(u.baseline) for u in solved.values()],
    }
    for label, values in summary.items():
        print(f"{label:>30}" + "".join(f" {value:>12.6g}" for value in values))
    for name, u in solved.items():
        if u.local:
            print(f"\n{name}: this baseline is above tau * log Z; q is a local minimum only (Statement 11).")
    if arguments.certify:
        _certify(arguments, solved)
    return 0


def _record(arguments, update, moved):
    """All that the table on paper says of one method."""
    return {
        "policy": update.policy, "log_ratio": update.log_ratio, "reward": update.policy @ arguments.reward,
        "kl": moved.kl, "reverse_kl": moved.reverse_kl, "chi2": moved.chi2, "chi2_weight": update.chi2_weight,
        "baseline": update.baseline, "local": bool(update.local),
    }  # fmt: skip


def _certify(arguments, solved):
    print(f"\n{'CVXPY':>8} {'problem':<28} {'L1 to q':>10} {'duality gap':>12}  status")
    for row in _certificates(arguments, solved):
        if row["status"] is None:
            print(f"{row['method']:>8} {row['problem']:<28}")
            continue
        numbers = f"{row['l1']:>10.1e} {row['duality_gap']:>12.1e}"
        print(f"{row['method']:>8} {row['problem']:<28} {numbers}  {row['status']} ({row['solver']})")


def _certificates(arguments, solved):
    """One record for each problem that CVXPY solves for a method."""
    from .. import convex

    p, r, tau = arguments.policy, arguments.reward, arguments.tau
    problems = {
        "kl": [("KL subproblem", lambda u: convex.kl(p, r, tau))],
        "mean": [
            ("log-space regression", lambda u: convex.regression(p, r, tau)),
            ("mixed, kappa = tau lambda", lambda u: convex.mixed(p, r, tau, tau * u.chi2_weight)),
        ],
        "mixed": [("mixed subproblem", lambda u: convex.mixed(p, r, tau, arguments.chi2_coef))],
        "baseline": [("log-space regression", lambda u: convex.regression(p, r, tau, baseline=arguments.baseline))],
    }
    for name, u in solved.items():
        if u.local:
            yield {"method": name, "problem": "not convex above tau log Z", "status": None}
            continue
        for title, solve in problems[name]:
            reference = solve(u)
            distance, found = float(np.abs(reference.policy - u.policy).sum()), reference.certificate
            yield {
                "method": name, "problem": title, "l1": distance, "duality_gap": float(found.duality_gap),
                "status": found.status, "solver": found.solver,
            }  # fmt: skip
