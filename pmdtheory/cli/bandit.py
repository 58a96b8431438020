"""``pmdtheory bandit``: policy mirror descent on a random bandit, exact or from rollouts."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from .. import baselines, simplex, updates
from ..intervals import half_width
from .table import add_json, cells, print_json, write


def add_to(commands: Any) -> None:
    """Declare the options."""
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
    names = ", ".join(baselines.BASELINES)
    bandit.add_argument("--estimator", default="loo_mean", help=f"baseline from rollouts: {names} (default: loo_mean)")
    bandit.add_argument("--target-kl", type=float, help="KL divergence, nats, that loo_target_kl aims at")
    bandit.add_argument("--seeds", type=int, default=1, help="independent runs (default: 1)")
    bandit.add_argument("--seed", type=int, default=0, help="root of all random numbers (default: 0)")
    bandit.add_argument("--csv", type=Path, help="also write the whole table here")
    add_json(bandit)


def _bandit(arguments):
    from ..bandit import iterate, random_bandit

    simplex.count(arguments.seed, "seed", 0)
    rng = np.random.default_rng(arguments.seed)
    problem = random_bandit(rng, arguments.contexts, arguments.actions, arguments.kind, arguments.success)
    table = iterate(
        problem,
        np.full(arguments.actions, 1 / arguments.actions),
        arguments.tau,
        arguments.steps,
        update=updates.pmd_mean_update if arguments.update == "mean" else updates.kl_update,
        rollouts=arguments.rollouts,
        estimator=_estimator(arguments),
        seeds=arguments.seeds,
        seed=arguments.seed,
        progress=True,
    )
    if arguments.csv:
        write(table, arguments.csv)
    sampled = f"{arguments.rollouts} rollouts, {arguments.estimator}"
    what = sampled if arguments.rollouts else f"exact {arguments.update}"
    best = float(problem.reward.max(axis=1) @ problem.context_weight)
    names = ["reward", "kl", "chi2_weight", "max_ratio", "entropy"]
    means = table.groupby("step")[names].mean().reset_index()
    half = half_width(table.groupby("step").reward.std(ddof=1).to_numpy(), arguments.seeds)
    means.insert(2, "reward_ci", half if arguments.seeds > 1 else np.nan)
    if arguments.json:
        print_json({"method": what, "tau": arguments.tau, "seeds": arguments.seeds, "best": best, "steps": means})
        return 0
    print(f"{what}, tau {arguments.tau:g}, {arguments.seeds} seed(s); best possible reward {best:.4f}")
    print(f"{'step':>5} {'reward':>9} {'95% +-':>8} {'KL(q||p)':>10} {'lambda':>10} {'max ratio':>10} {'entropy':>8}")
    for row in means.itertuples():
        spread = f"{row.reward_ci:8.4f}" if arguments.seeds > 1 else f"{'':>8}"
        numbers = cells((row.kl, row.chi2_weight, row.max_ratio, row.entropy), (10, 10, 10, 8))
        print(f"{row.step:>5} {row.reward:>9.4f} {spread} {numbers}")
    return 0


def _estimator(arguments):
    baseline, target = baselines.by_name(arguments.estimator), arguments.target_kl
    if baseline.needs_target != (target is not None):
        does = "needs" if baseline.needs_target else "has no use for"
        raise ValueError(f"--estimator {baseline.name} {does} --target-kl.")
    return functools.partial(baseline, target_kl=target) if baseline.needs_target else baseline
