"""MDPs of 1e5 to 1e6 states: the optimum against QuantEcon's modified policy iteration, evaluation, peak memory.

QuantEcon (`pip install quantecon`) is a peer for this benchmark only; without it its rows are left out. Its solver
stops at 250 iterations by default; the ratio is to one that may go on until its own tolerance is met.
"""

import json
import subprocess
import sys
import time

import numpy as np

from pmdtheory import pmd_mean_update
from pmdtheory.mdp import evaluate, gridworld, optimal

from . import memory
from .rows import row, show, taking_turns

TARGET = 1.5  # times the seconds of QuantEcon


def optimum(side=316, gamma=0.95, epsilon=1e-6, rounds=3):
    """Seconds of `optimal` on a gridworld, certified, and of QuantEcon's solver at tolerance `epsilon`."""
    mdp = gridworld(side, side, gamma=gamma, sparse=True)
    size = f"{mdp.states:,} states, gamma {gamma:g}"
    certificate = float(optimal(mdp).certificate)
    path = f"optimal, certificate {certificate:.0e}"
    try:
        from quantecon.markov import DiscreteDP
        from scipy.sparse import csr_matrix
    except ImportError:
        start = time.perf_counter()
        optimal(mdp)
        return [row("optimum of a gridworld", size, path, time.perf_counter() - start)]
    state, action = np.divmod(np.arange(mdp.R.size), mdp.actions)
    theirs = DiscreteDP(mdp.R.ravel(), csr_matrix(mdp.P), gamma, state, action)
    found = []

    def solve():
        found[:] = [theirs.solve(method="modified_policy_iteration", epsilon=epsilon, max_iter=100_000)]

    seconds, ratio = taking_turns([lambda: optimal(mdp), solve], rounds)
    gap = float(evaluate(mdp, np.eye(mdp.actions)[found[0].sigma]).certificate)
    return [
        row("optimum of a gridworld", size, path, seconds[0], ratio=ratio[0], peer="QuantEcon"),
        row("optimum of a gridworld", size, f"QuantEcon, epsilon {epsilon:g}, certificate {gap:.0e}", seconds[1]),
    ]


def growth(sides=(10, 32, 100)):
    """Seconds of the optimum for ever more states, up to those of `optimum`."""
    return [each for side in sides for each in optimum(side)]


def evaluation(side=316, gamma=0.99, rounds=3):
    """Seconds of valuing the optimal policy of a gridworld, iteratively and by a factorisation."""
    mdp = gridworld(side, side, gamma=gamma, sparse=True)
    policy = optimal(mdp).policy
    paths = [lambda: evaluate(mdp, policy, solver="iterative"), lambda: evaluate(mdp, policy, solver="direct")]
    seconds, ratio = taking_turns(paths, rounds)
    what, size = "values of a policy", f"{mdp.states:,} states, gamma {gamma:g}"
    return [
        row(what, size, "iterative", seconds[0], ratio=ratio[0], peer="a factorisation"),
        row(what, size, "direct", seconds[1]),
    ]


def million(side=1000, gamma=0.95):
    """Seconds and peak memory, interpreter included, of the optimum of a gridworld in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.large_mdp", str(side), str(gamma)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, peak, certificate = json.loads(output)
    size = f"{side * side:,} states, gamma {gamma:g}"
    return [row("optimum of a gridworld", size, f"optimal, certificate {certificate:.0e}", seconds, memory=peak)]


def alone(side, gamma):
    """Seconds, peak memory in bytes and certificate of the optimum of a gridworld."""
    start = time.perf_counter()
    best = optimal(gridworld(side, side, gamma=gamma, sparse=True))
    return time.perf_counter() - start, memory.of_process(), float(best.certificate)


def update_memory(actions=10_000_000):
    """Peak memory of `pmd_mean_update` on one context, and its ratio to policy and rewards."""
    rng = np.random.default_rng(0)
    policy, reward = rng.random(actions), rng.random(actions)
    policy /= policy.sum()
    peak = memory.of_objects(lambda: pmd_mean_update(policy, reward, 0.1))
    ratio = peak / (policy.nbytes + reward.nbytes)
    return [row("PMD-mean step", f"{actions:,} actions", "memory", memory=peak, ratio=ratio, peer="its inputs")]


def rows():
    """All of them."""
    return [*growth(), *optimum(), *evaluation(), *update_memory(), *million()]


def main():
    """Print the rows."""
    show(rows())


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(alone(int(sys.argv[1]), float(sys.argv[2]))))
    else:
        main()
