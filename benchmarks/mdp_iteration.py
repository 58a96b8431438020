"""Cost of a policy mirror descent iteration on an MDP, against the one policy evaluation it cannot do without."""

import time

import numpy as np

from pmdtheory import updates
from pmdtheory.mdp import evaluate, garnet, iterate

from .rows import row, show


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


def rows():
    """The ratio as a row, of whatever path the updates take."""
    measured = iteration_over_evaluation()
    what, size = "MDP iteration", "dense Garnet, 1,000 states, 10 actions"
    path = "compiled" if updates._compiled() else "NumPy"
    return [
        row(what, size, path, measured["iteration"], ratio=measured["ratio"], peer="one evaluation"),
        row(what, size, "one evaluation", measured["evaluation"]),
    ]


def main():
    """Print the rows."""
    show(rows())


if __name__ == "__main__":
    main()
