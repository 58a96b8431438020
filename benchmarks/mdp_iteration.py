"""Cost of a policy mirror descent iteration on an MDP, against the one policy evaluation it cannot do without."""

import os
import time

import numpy as np

from pmdtheory.mdp import evaluate, garnet, iterate

TARGET = 1.15


def iteration_over_evaluation(states=1000, actions=10, branching=100, tau=0.1, iterations=10, rounds=9, seed=0):
    """Time of an exact PMD-mean iteration of `iterate`, divided by that of one evaluation, on a dense Garnet.

    An iteration evaluates, updates and records; an evaluation assembles I − γ P_π, solves and forms Q. A run of n
    iterations makes n + 1 evaluations, so its time less that of evaluating the n + 1 policies it visited is that of n
    updates and records. The two are timed in turn, and the median of `rounds` rounds is taken.

    Returns
    -------
    dict
        Seconds per evaluation and per iteration, and their ratio.
    """
    mdp = garnet(states, actions, branching, np.random.default_rng(seed))
    visited = iterate(mdp, tau=tau, steps=iterations, keep=["policy"]).kept["policy"]
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        iterate(mdp, tau=tau, steps=iterations)
        middle = time.perf_counter()
        for policy in visited:
            evaluate(mdp, policy)
        end = time.perf_counter()
        evaluation = (end - middle) / len(visited)
        seconds.append((evaluation, evaluation + ((middle - start) - (end - middle)) / iterations))
    evaluation, iteration = np.median(seconds, axis=0)
    ratio = np.median([iteration / evaluation for evaluation, iteration in seconds])
    return {"evaluation": evaluation, "iteration": iteration, "ratio": ratio}


def main():
    """Print the ratio."""
    measured = iteration_over_evaluation()
    print(
        f"dense Garnet, 1,000 states, 10 actions, {os.environ.get('OMP_NUM_THREADS', 'all')} threads: evaluation "
        f"{1e3 * measured['evaluation']:.1f} ms, iteration {1e3 * measured['iteration']:.1f} ms, ratio "
        f"{measured['ratio']:.3f} (target {TARGET})"
    )
