"""What one outer step leads to, and which law a policy obeys: sums over all batches, pairs and triples, both laws."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmdtheory import kl_update, laws, pmd_mean_update

small = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=20, deadline=None)
@given(rng=small, tau=st.floats(0.02, 3), n=st.integers(1, 5))
def test_the_expected_log_partition_is_the_sum_over_all_batches(rng, tau, n):
    p, r = rng.dirichlet(np.ones(3), 1), rng.random((1, 3))
    values = {
        batch: tau * np.log(np.mean(np.exp(r[0, list(batch)] / tau))) for batch in itertools.product(range(3), repeat=n)
    }
    expected = sum(p[0, list(batch)].prod() * value for batch, value in values.items())
    assert laws.expected_log_partition(p, r, tau, n)[0] == pytest.approx(expected, rel=1e-10, abs=1e-12)
    for action in range(3):
        others = itertools.product(range(3), repeat=n - 1)
        given_it = sum(p[0, list(rest)].prod() * values[(*rest, action)] for rest in others)
        among = laws.expected_log_partition(p, r, tau, n, among=True)[0, action]
        assert among == pytest.approx(given_it, rel=1e-10, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(rng=small, tau=st.floats(0.05, 3))
def test_the_share_is_one_on_the_one_law_and_zero_on_the_other(rng, tau):
    p, r = rng.dirichlet(np.ones(5), 3), rng.random((3, 5))
    assert laws.share(p, r, tau, pmd_mean_update(p, r, tau).log_ratio) == pytest.approx(1, abs=1e-6)
    assert laws.share(p, r, tau, kl_update(p, r, tau).log_ratio) == pytest.approx(0, abs=1e-6)


def test_a_policy_that_has_not_moved_has_no_share():
    p, r = np.array([[0.2, 0.8]]), np.array([[0.0, 1.0]])
    statistics = laws.compare(p, r, 0.5, np.zeros((1, 2)), laws.predict(p, r, 0.5, "mean"))
    assert np.isnan([statistics["share"], statistics["slope"], statistics["r2_law"]]).all() and statistics["gain"] == 0


@pytest.mark.parametrize("update, expected", [(pmd_mean_update, 1), (kl_update, 0)])
def test_the_pooled_share_finds_the_law_from_rollouts(update, expected):
    rng, tau = np.random.default_rng(1), 0.5
    p, r = rng.dirichlet(np.ones(8), 3000), rng.random((3000, 8))
    s = update(p, r, tau).log_ratio
    actions = np.array([rng.choice(8, size=16, p=row) for row in p])
    s, drawn = (np.take_along_axis(x, actions, 1) for x in (s, r))
    advantage = drawn - drawn.mean(1, keepdims=True)
    estimate = laws.pooled_share(torch.from_numpy(s), torch.from_numpy(advantage), tau, rng)
    assert estimate.low - 0.03 < expected < estimate.high + 0.03 and estimate.low < estimate.value < estimate.high
    assert not estimate.low < 1 - expected < estimate.high
    assert estimate.weight == pytest.approx(estimate.value * estimate.reverse_kl)


def test_the_pooled_share_averages_products_over_distinct_rollouts():
    """Its numerator and denominator on one prompt, by sums over pairs and triples."""
    rng = np.random.default_rng(2)
    s, A, tau, n = rng.normal(size=(1, 5)), rng.normal(size=(1, 5)), 0.7, 5
    y, x = (A / tau - s)[0], np.exp(s[0])
    pairs = itertools.permutations(range(n), 2)
    covariance = np.mean([(y[i] - y[j]) * (x[i] - x[j]) / 2 for i, j in pairs])
    triples = itertools.permutations(range(n), 3)
    product = np.mean([(x[k] - 1 - s[0, k]) * (x[i] - x[j]) ** 2 / 2 for i, j, k in triples])
    estimate = laws.pooled_share(s, A, tau, rng)
    assert estimate.value == pytest.approx(covariance / product)
    with pytest.raises(ValueError, match="at least 3 rollouts of each prompt, got 2"):
        laws.pooled_share(s[:, :2], A[:, :2], tau, rng)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_the_pooled_r2_of_rollouts_as_frequent_as_their_actions_is_the_exact_one(tau):
    """Two actions of reward 1, which no law tells apart, and three of others; against R² over the actions."""
    rng = np.random.default_rng(0)
    counts, reward = np.array([3, 1, 2, 4, 6]), np.array([1.0, 1.0, 0.7, 0.2, 0.0])
    p = counts[None] / counts.sum()
    s = pmd_mean_update(p, reward[None], tau).log_ratio + rng.normal(scale=0.3, size=5)
    s -= np.log((p * np.exp(s)).sum())
    exact = laws.compare(p, reward[None], tau, s, pmd_mean_update(p, reward[None], tau))
    found = laws.pooled_r2(np.repeat(s, counts, axis=1), np.repeat(reward, counts)[None], tau)
    assert found["lambert"] == pytest.approx(exact["r2_lambert"][0], rel=1e-9)
    assert found["kl_law"] == pytest.approx(exact["r2_kl_law"][0], rel=1e-9)
    equal = (3 * s[0, 0] + s[0, 1]) / 4
    lost = 3 * (s[0, 0] - equal) ** 2 + (s[0, 1] - equal) ** 2
    variance = (counts * (s[0] - (p * s).sum()) ** 2).sum()
    assert found["reward"] == pytest.approx(1 - lost / variance, rel=1e-9)


def test_the_pooled_r2_counts_prompts_by_their_variance():
    """A prompt on the law and one that only makes noise: the share of the variance that is not noise, or less."""
    r = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    s = np.stack([pmd_mean_update([[0.25] * 4], r[:1], 0.5).log_ratio[0], [0.4, -0.4, 0.4, -0.4]])
    own = ((s[0] - s[0].mean()) ** 2).sum()
    assert laws.pooled_r2(s, r, 0.5)["lambert"] == pytest.approx(own / (own + 4 * 0.16))
    assert laws.pooled_r2(s, r, 0.5)["reward"] == pytest.approx(own / (own + 4 * 0.16))
