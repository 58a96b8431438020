"""The command line: ``pmdtheory solve | bandit | check``."""

import argparse
import functools
import sys
from pathlib import Path

import numpy as np

from . import baselines, divergences, updates

_EXAMPLES = """examples:
  pmdtheory solve --policy 0.1,0.9 --reward 1,0 --tau 0.1
  pmdtheory solve --policy 0.2,0.3,0.5 --reward 0,1,1.5 --tau 0.1 --method mean --certify
  pmdtheory bandit --kind binary --tau 0.1 --steps 10
  pmdtheory bandit --tau 0.1 --steps 10 --rollouts 16 --estimator loo_log_partition --seeds 20
  pmdtheory check --problems 200
"""


def numbers(text):
    """Read comma-separated numbers."""
    try:
        return np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers separated by commas") from None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _joined(argv):
    """Join ``--reward -1,0`` to ``--reward=-1,0``: argparse takes -1,0 for an option."""
    joined = []
    for word in argv:
        if joined and joined[-1] in ("--policy", "--reward") and word[:1] == "-" and word[1:2].isdigit():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def main(argv=None):
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(_joined(sys.argv[1:] if argv is None else argv))
    try:
        return arguments.run(arguments)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"pmdtheory {arguments.command}: {error}", file=sys.stderr)
        return 2


def _parser():
    parser = _Parser(
        prog="pmdtheory",
        description="Policy mirror descent, exactly: one step, bandits, and a check of every theorem.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

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

    bandit = commands.add_parser("bandit", help="policy mirror descent on a random bandit, exact or from rollouts")
    bandit.set_defaults(run=_bandit)
    bandit.add_argument("--kind", choices=["graded", "binary"], default="graded", help="rewards (default: graded)")
    bandit.add_argument("--contexts", type=int, default=1, help="contexts (default: 1)")
    bandit.add_argument("--actions", type=int, default=10, help="actions in each (default: 10)")
    bandit.add_argument("--success", type=float, default=0.2, help="share of successes if binary (default: 0.2)")
    bandit.add_argument("--tau", type=float, default=0.1, help="temperature, reward units (default: 0.1)")
    bandit.add_argument("--steps", type=int, default=10, help="steps T (default: 10)")
    bandit.add_argument("--update", choices=["mean", "kl"], default="mean", help="the exact update (default: mean)")
    bandit.add_argument("--rollouts", type=int, help="n rollouts per context and step instead of the exact update")
    names = ", ".join(baselines.ESTIMATORS)
    bandit.add_argument("--estimator", default="loo_mean", help=f"baseline from rollouts: {names} (default: loo_mean)")
    bandit.add_argument("--seeds", type=int, default=1, help="independent runs (default: 1)")
    bandit.add_argument("--seed", type=int, default=0, help="root of all random numbers (default: 0)")
    bandit.add_argument("--csv", type=Path, help="also write the whole table here")

    check = commands.add_parser("check", help="every theorem on random problems; exit code 1 on any violation")
    check.set_defaults(run=_check)
    check.add_argument("--problems", type=int, default=1000, help="random problems per claim (default: 1000)")
    check.add_argument("--seed", type=int, default=0, help="root of all random numbers (default: 0)")
    return parser


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
    print(f"{'action':>8} {'p':>10} {'reward':>10}" + "".join(f" {'q ' + name:>12}" for name in solved))
    for i in range(p.size):
        print(f"{i:>8} {p[i]:>10.4g} {r[i]:>10.4g}" + "".join(f" {u.policy[i]:>12.6g}" for u in solved.values()))
    moved = {name: divergences.movement(p, u.log_ratio) for name, u in solved.items()}
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


def _certify(arguments, solved):
    from . import convex

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
    print(f"\n{'CVXPY':>8} {'problem':<28} {'L1 to q':>10} {'duality gap':>12}  status")
    for name, u in solved.items():
        if u.local:
            print(f"{name:>8} {'not convex above tau log Z':<28}")
            continue
        for title, solve in problems[name]:
            reference = solve(u)
            distance = float(np.abs(reference.policy - u.policy).sum())
            certificate = reference.certificate
            gap = float(certificate.duality_gap)
            print(f"{name:>8} {title:<28} {distance:>10.1e} {gap:>12.1e}  {certificate.status} ({certificate.solver})")


def _bandit(arguments):
    from scipy.stats import t as student

    from .bandit import iterate, random_bandit

    rng = np.random.default_rng(arguments.seed)
    problem = random_bandit(rng, arguments.contexts, arguments.actions, arguments.kind, arguments.success)
    table = iterate(
        problem,
        np.full(arguments.actions, 1 / arguments.actions),
        arguments.tau,
        arguments.steps,
        update=updates.pmd_mean_update if arguments.update == "mean" else updates.kl_update,
        rollouts=arguments.rollouts,
        estimator=arguments.estimator,
        seeds=arguments.seeds,
        seed=arguments.seed,
    )
    if arguments.csv:
        temporary = arguments.csv.with_name(f".{arguments.csv.name}")
        table.to_csv(temporary, index=False)
        temporary.replace(arguments.csv)
    half = student.ppf(0.975, max(arguments.seeds - 1, 1)) / np.sqrt(arguments.seeds)
    sampled = f"{arguments.rollouts} rollouts, {arguments.estimator}"
    what = sampled if arguments.rollouts else f"exact {arguments.update}"
    best = float(problem.reward.max(axis=1) @ problem.context_weight)
    print(f"{what}, tau {arguments.tau:g}, {arguments.seeds} seed(s); best possible reward {best:.4f}")
    print(f"{'step':>5} {'reward':>9} {'95% +-':>8} {'KL(q||p)':>10} {'lambda':>10} {'max ratio':>10} {'entropy':>8}")
    for step, rows in table.groupby("step"):
        spread = f"{half * rows.reward.std(ddof=1):8.4f}" if arguments.seeds > 1 else f"{'':>8}"
        cells = [rows[c].mean() for c in ("kl", "chi2_weight", "max_ratio", "entropy")]
        shown = [f"{'':>{w}}" if np.isnan(c) else f"{c:>{w}.4g}" for c, w in zip(cells, (10, 10, 10, 8))]
        print(f"{step:>5} {rows.reward.mean():>9.4f} {spread} {' '.join(shown)}")
    return 0


def _check(arguments):
    from .theorems import check

    frame = check.run(arguments.problems, arguments.seed)
    print(check.format_table(frame))
    violations = int(frame.violations.sum())
    claims = f"{len(frame)} claims on {arguments.problems} random problems each"
    print(f"{claims}: {violations} violations." if violations else f"{claims}: no violation.")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
