"""What updates and simulators hold at a time, measured by the allocator, against the size of what they are given."""

import numpy as np
import pytest

from benchmarks.memory import of_objects
from pmdtheory import pmd_mean_update
from pmdtheory.bandit import Bandit, iterate
from pmdtheory.sampled import sampled_update


@pytest.mark.parametrize("binary", [False, True])
def test_pmd_mean_takes_three_times_its_inputs_at_most(binary):
    """Policy and rewards are 16 bytes an action; each further action takes no more than three times that."""
    sizes, peaks = np.array([500_000, 1_500_000]), []
    for K in sizes:
        rng = np.random.default_rng(K)
        policy, reward = rng.random(K), rng.random(K)
        policy, reward = policy / policy.sum(), (reward > 0.9).astype(float) if binary else reward
        peaks.append(of_objects(lambda p=policy, r=reward: pmd_mean_update(p, r, 0.1)))
    assert peaks[1] <= 3 * 16 * sizes[1]
    assert np.diff(peaks) <= 3 * 16 * np.diff(sizes)


def test_a_sweep_holds_a_few_policies_whatever_the_number_of_steps():
    """Of a run of T steps only the table grows with T: policies are not kept."""
    bandit, start = Bandit(np.random.default_rng(0).random((4, 500))), np.full(500, 1 / 500)
    short, long = (
        of_objects(lambda steps=steps: iterate(bandit, start, 0.3, steps, rollouts=8, seeds=40)) for steps in (3, 24)
    )
    assert long < 1.3 * short


def test_the_sampled_minimiser_is_linear_in_the_groups():
    rng = np.random.default_rng(1)

    def problem(groups):
        policy = rng.dirichlet(np.ones(10), groups)
        actions = rng.integers(0, 10, (groups, 64))
        return policy, actions, rng.random((groups, 64)), 0.1, "loo_log_partition"

    small, large = (of_objects(lambda given=given: sampled_update(*given)) for given in (problem(2000), problem(8000)))
    assert large < 4.4 * small
