"""Bandit sweeps and the sampled minimiser, as one batch against the loops that a user would write."""

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import lambertw

from pmdtheory.bandit import Bandit, iterate
from pmdtheory.sampled import sampled_update

from .rows import row, show, taking_turns


def bandit_sweep(seeds=200, contexts=4, actions=20, steps=20, rollouts=16, tau=0.1, rounds=3):
    """Seconds per seed and step of a sampled recursion, all seeds at once and one after the other."""
    reward = np.random.default_rng(0).random((contexts, actions))
    bandit, start = Bandit(reward, noise="bernoulli"), np.full(actions, 1 / actions)

    def sweep(seeds, seed=0):
        iterate(bandit, start, tau, steps, rollouts=rollouts, estimator="loo_log_partition", seeds=seeds, seed=seed)

    paths = [lambda: sweep(seeds), lambda: [sweep(1, seed) for seed in range(seeds)]]
    seconds, ratio = taking_turns(paths, rounds)
    seconds = seconds / (seeds * steps)
    what, size = "bandit sweep, per seed and step", f"{seeds} seeds × {contexts} contexts × {actions} actions"
    return [row(what, size, "batch", seconds[0], ratio=ratio[0], peer="a loop over seeds"),
            row(what, size, "a loop over seeds", seconds[1])]  # fmt: skip


def problems(groups, actions, rollouts, seed=0):
    """Policies, actions and rewards as coins, and the targets of PMD-mean at τ = 0.1: d, w and p of the seen."""
    rng = np.random.default_rng(seed)
    policy, reward = rng.dirichlet(np.ones(actions), groups), rng.random((groups, actions))
    drawn = np.stack([rng.choice(actions, rollouts, p=p) for p in policy])
    return policy, drawn, (rng.random(drawn.shape) < np.take_along_axis(reward, drawn, axis=-1)).astype(float)


def by_minimize(policy, actions, target):
    """Minimiser of one group's loss over softmax logits, by BFGS with the gradient, from the policy itself."""
    seen, count = np.unique(actions, return_counts=True)
    weight = np.zeros(len(policy))
    weight[seen] = count / len(actions)
    goal = np.zeros(len(policy))
    np.add.at(goal, actions, target / len(actions))
    goal = np.log(policy) + np.divide(goal, weight, out=np.zeros_like(goal), where=weight > 0)

    def loss(logits):
        log_q = logits - np.logaddexp.reduce(logits)
        pull = weight * (log_q - goal)
        return pull @ (log_q - goal) / 2, pull - np.exp(log_q) * pull.sum()

    logits = minimize(loss, np.log(policy), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    return np.exp(logits - np.logaddexp.reduce(logits))


def by_brentq(policy, actions, target):
    """The same where the targets ask for at least the mass that there is: the multiplier by `brentq`, else as asked."""
    seen, slot, count = np.unique(actions, return_inverse=True, return_counts=True)
    p, w = policy[seen], count / len(actions)
    d = np.bincount(slot, weights=target) / count
    q = np.zeros(len(policy))
    if (p * np.exp(d)).sum() <= 1:
        q[seen] = p * np.exp(d)
        rest = np.ones(len(policy), dtype=bool)
        rest[seen] = False
        q[rest] = policy[rest] * (1 - q.sum()) / policy[rest].sum()
        return q

    def at(log_mu):
        a = np.exp(log_mu) * p / w
        return p * np.exp(d - lambertw(a * np.exp(np.minimum(d, 700))).real)

    q[seen] = at(brentq(lambda x: at(x).sum() - 1, -40, 10, xtol=1e-13))
    return q


def sampled_minimiser(groups=2000, actions=10, rollouts=64, tau=0.1, alone=100, rounds=3):
    """Seconds per group of `sampled_update`, against SciPy group by group, on `alone` of them; and that they agree."""
    policy, drawn, rewards = problems(groups, actions, rollouts)
    target = (rewards - rewards.mean(axis=-1, keepdims=True)) / tau

    def loop(solve):
        return np.stack([solve(p, y, t) for p, y, t in zip(policy[:alone], drawn, target)])

    answer = sampled_update(policy, drawn, rewards, tau, "mean").policy[:alone]
    if np.abs(loop(by_brentq) - answer).max() > 1e-8 or np.median(np.abs(loop(by_minimize) - answer)) > 1e-5:
        raise ArithmeticError("the solvers disagree.")
    paths = {
        "batch": lambda: sampled_update(policy, drawn, rewards, tau, "mean"),
        "minimize": lambda: loop(by_minimize),
        "brentq": lambda: loop(by_brentq),
    }
    seconds, _ = taking_turns(list(paths.values()), rounds)
    seconds = seconds / [groups, alone, alone]
    what, size = "sampled minimiser, per group", f"{groups} groups of {rollouts} rollouts, {actions} actions"
    rows = [row(what, size, "batch", seconds[0], ratio=seconds[0] / s, peer=f"SciPy {name}, group by group")
            for name, s in zip(("minimize", "brentq"), seconds[1:])]  # fmt: skip
    best = rewards.max(axis=-1)  # an overestimate: mass is dumped

    def each_alone():
        return [sampled_update(p, y, r, tau, b) for p, y, r, b in zip(policy[:alone], drawn, rewards, best)]

    seconds, _ = taking_turns([lambda: sampled_update(policy, drawn, rewards, tau, best), each_alone], rounds)
    seconds = seconds / [groups, alone]
    what = "sampled minimiser that dumps, per group"
    return [*rows, row(what, size, "batch", seconds[0], ratio=seconds[0] / seconds[1], peer="a loop over groups")]


def rows():
    """All of them."""
    return [*bandit_sweep(), *sampled_minimiser()]


def main():
    """Print the rows."""
    show(rows())


if __name__ == "__main__":
    main()
