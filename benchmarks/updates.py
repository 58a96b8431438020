"""Cost of the updates, as multiples of `scipy.special.softmax` on the same array, the least a KL update can cost."""

import time

import numpy as np
from scipy.special import softmax

from pmdtheory import kl_update, pmd_mean_update

SHAPES = ((1, 1_000_000), (1000, 1000), (100_000, 10), (1000, 10))


def seconds(function, rounds=5):
    """Least time of `rounds` calls after one to warm up."""
    function()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def multiples_of_softmax(contexts, actions, tau=0.1, seed=0):
    """Time of each update over that of a softmax, on Dirichlet policies with normal or binary rewards.

    Returns
    -------
    dict
        Name of the update to its ratio.
    """
    rng = np.random.default_rng(seed)
    policy = rng.dirichlet(np.ones(actions), contexts)
    reward = rng.normal(size=(contexts, actions))
    floor = seconds(lambda: softmax(reward / tau, axis=-1))
    cases = {
        "KL": lambda: kl_update(policy, reward, tau),
        "PMD-mean": lambda: pmd_mean_update(policy, reward, tau),
        "PMD-mean, binary rewards": lambda: pmd_mean_update(policy, (reward > 0).astype(float), tau),
    }
    return {name: seconds(run) / floor for name, run in cases.items()}


def main():
    """Print the table."""
    print("multiples of a softmax on the same array")
    for shape in SHAPES:
        ratios = multiples_of_softmax(*shape)
        print(f"{shape!s:>14}  " + "  ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items()))
