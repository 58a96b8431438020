"""Metrics of training against exact enumeration: all actions of a policy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pmdllm import metrics

from pmdtheory import divergences, pmd_mean_update

COUNTS = np.array([1, 2, 5, 8])
P = COUNTS / COUNTS.sum()
Q = np.array([0.3, 0.05, 0.25, 0.4])

def every_action(log_ratio):
    """s of samples of P in exactly its proportions, so that a mean over them is an expectation."""
    return torch.tensor(np.repeat(log_ratio, COUNTS))


# Movement of the policy


def test_kl_estimates_are_the_expectations_they_should_be():
    s = np.log(Q / P)
    estimates = metrics.kl_estimates(every_action(s))
    assert estimates["kl/k1"].item() == pytest.approx(divergences.kl(P, Q), rel=1e-12)
    assert estimates["kl/k2"].item() == pytest.approx(P @ s**2 / 2, rel=1e-12)
    assert estimates["kl/k3"].item() == pytest.approx(divergences.kl(P, Q), rel=1e-12)


@given(s=npst.arrays(np.float64, st.integers(1, 8), elements=st.floats(-50, 50)))
def test_k3_is_nonnegative_and_differs_from_k1_by_the_control_variate(s):
    estimates = metrics.kl_estimates(torch.from_numpy(s))
    assert estimates["kl/k3"] >= 0
    expected = estimates["kl/k1"].item() + np.mean(np.expm1(s))
    assert estimates["kl/k3"].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_all_estimates_agree_to_second_order_for_small_log_ratios():
    """With E_p[e^s] = 1 all are E[s²]/2 + O(s³): s of size 1e-4 leaves a relative difference of that order."""
    direction = np.array([1.0, -0.5, 0.25, 0.1])
    s = 1e-4 * direction
    s -= math.log(P @ np.exp(s))
    k1, k2, k3 = (x.item() for x in metrics.kl_estimates(every_action(s)).values())
    assert k1 == pytest.approx(k2, rel=1e-3)
    assert k3 == pytest.approx(k2, rel=1e-3)


@pytest.mark.parametrize("tau", [0.05, 0.5, 5.0])
def test_implied_lambda_is_the_chi2_weight_of_the_pmd_mean_update(tau):
    rewards = np.array([[1.0, 0.0, 0.3, 0.6], [0.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    update = pmd_mean_update(P, rewards, tau)
    s = torch.tensor(np.repeat(update.log_ratio, COUNTS, axis=1))
    np.testing.assert_allclose(metrics.implied_lambda(s), update.chi2_weight, rtol=1e-9, atol=1e-15)


def test_implied_lambda_by_group_averages_to_k3():
    s = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    expected = metrics.kl_estimates(s)["kl/k3"]
    torch.testing.assert_close(metrics.implied_lambda(s).mean(), expected)


def test_log_ratio_statistics():
    ratios = np.array([0.5, 0.81, 1.0, 1.27, 1.3, 4.0])
    s = np.log(ratios)
    result = metrics.log_ratio_statistics(torch.tensor(s), clip_low=0.2, clip_high=0.28)
    assert result["log_ratio/mean"].item() == pytest.approx(s.mean())
    assert result["log_ratio/std"].item() == pytest.approx(s.std())
    assert result["log_ratio/max"].item() == pytest.approx(math.log(4))
    assert result["ratio/outside_clip"].item() == 3 / 6


def test_entropy_of_completions_is_the_entropy_of_their_law():
    """First token a or b (5 : 3); after a comes the end or one of two tokens, after b the end: chain rule."""
    first, second = np.array([5, 3]) / 8, np.array([2, 2, 1]) / 5
    law = np.concatenate([first[0] * second, [first[1]]])
    H1, H2 = divergences.entropy(first), divergences.entropy(second)
    entropy = torch.tensor([[H1, H2]] * 5 + [[H1, math.nan]] * 3)
    mask = torch.tensor([[True, True]] * 5 + [[True, False]] * 3)
    result = metrics.entropy_statistics(entropy, mask)
    assert result["entropy/sequence"].item() == pytest.approx(divergences.entropy(law), rel=1e-12)
    assert result["entropy"].item() == pytest.approx((8 * H1 + 5 * H2) / 13, rel=1e-12)


def test_lengths():
    mask = torch.arange(7) < torch.tensor([[3], [0], [7], [2]])
    assert metrics.length_statistics(mask) == {"length": 4, "length/max": 7}


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_masked_values_are_irrelevant(junk):
    s = torch.tensor([[0.5, -0.2, 0.1], [0.3, 0.9, -1.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    filled = torch.where(mask, s, junk)
    for function in (metrics.log_ratio_statistics, metrics.kl_estimates):
        torch.testing.assert_close(function(filled, mask=mask), function(s[mask]), rtol=1e-14, atol=0)
    expected = torch.stack([metrics.kl_estimates(row[keep])["kl/k3"] for row, keep in zip(s, mask)])
    torch.testing.assert_close(metrics.implied_lambda(filled, mask), expected, rtol=1e-14, atol=0)


def test_nothing_valid_gives_zero():
    s, mask = torch.full((2, 3), math.nan), torch.zeros(2, 3, dtype=torch.bool)
    results = (
        metrics.log_ratio_statistics(s, mask=mask),
        metrics.kl_estimates(s, mask),
        metrics.entropy_statistics(s, mask),
        metrics.length_statistics(mask),
    )
    assert all(value == 0 for result in results for value in result.values())
    assert (metrics.implied_lambda(s, mask) == 0).all()


def test_metrics_carry_no_gradient():
    s = torch.zeros(2, 3, requires_grad=True)
    values = [*metrics.log_ratio_statistics(s).values(), *metrics.kl_estimates(s).values(), metrics.implied_lambda(s)]
    assert not any(value.requires_grad for value in values)


@pytest.mark.parametrize(
    ("length", "truncated", "unparsed", "cause"),
    [(1.0, 0.0, 1.0, "--chat on"), (16.0, 1.0, 1.0, "--max_new_tokens"), (2.0, 1.0, 0.3, "--max_new_tokens"),
     (9.0, 0.1, 1.0, "template"), (9.0, 0.1, 0.9, None), (1.0, 0.0, 0.5, None)],
)  # fmt: skip
def test_completions_that_cannot_be_judged_are_complained_of(length, truncated, unparsed, cause):
    text = metrics.complaint(length, truncated, unparsed)
    assert (text is None) if cause is None else cause in text
