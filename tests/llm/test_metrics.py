"""Metrics against exact enumeration: all actions of a policy, all subsets of samples, all orders of tied answers."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pmdllm import metrics

from pmdtheory import divergences, pmd_mean_update

COUNTS = np.array([1, 2, 5, 8])
P = COUNTS / COUNTS.sum()
Q = np.array([0.3, 0.05, 0.25, 0.4])

real_rewards = npst.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 6)),
    elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-10, 10)),
)


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


def test_ratio_statistics():
    ratios = np.array([0.5, 0.81, 1.0, 1.27, 1.3, 4.0])
    s = np.log(ratios)
    result = metrics.ratio_statistics(torch.tensor(s), clip_low=0.2, clip_high=0.28)
    assert result["ratio/mean"].item() == pytest.approx(s.mean())
    assert result["ratio/std"].item() == pytest.approx(s.std())
    assert result["ratio/max"].item() == pytest.approx(math.log(4))
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
    for function in (metrics.ratio_statistics, metrics.kl_estimates):
        torch.testing.assert_close(function(filled, mask=mask), function(s[mask]), rtol=1e-14, atol=0)
    expected = torch.stack([metrics.kl_estimates(row[keep])["kl/k3"] for row, keep in zip(s, mask)])
    torch.testing.assert_close(metrics.implied_lambda(filled, mask), expected, rtol=1e-14, atol=0)


def test_nothing_valid_gives_zero():
    s, mask = torch.full((2, 3), math.nan), torch.zeros(2, 3, dtype=torch.bool)
    results = (
        metrics.ratio_statistics(s, mask=mask),
        metrics.kl_estimates(s, mask),
        metrics.entropy_statistics(s, mask),
        metrics.length_statistics(mask),
    )
    assert all(value == 0 for result in results for value in result.values())
    assert (metrics.implied_lambda(s, mask) == 0).all()


def test_metrics_carry_no_gradient():
    s = torch.zeros(2, 3, requires_grad=True)
    values = [*metrics.ratio_statistics(s).values(), *metrics.kl_estimates(s).values(), metrics.implied_lambda(s)]
    assert not any(value.requires_grad for value in values)


# Evaluation


def over_subsets(row, k):
    """The largest of k rewards, averaged over all ways to choose them."""
    return np.mean([max(chosen) for chosen in itertools.combinations(row, k)])


@given(rewards=real_rewards, data=st.data())
@settings(max_examples=60, deadline=None)
def test_best_at_k_averages_over_all_subsets(rewards, data):
    k = data.draw(st.integers(1, rewards.shape[1]))
    expected = np.mean([over_subsets(row, k) for row in rewards])
    assert metrics.best_at_k(rewards, k).value == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("n", [1, 4, 16, 200])
def test_pass_at_k_is_the_formula_of_chen_et_al(n):
    for k in {1, 2, 8, n} & set(range(1, n + 1)):
        for c in {0, 1, n // 2, n - 1, n}:
            expected = 1 - math.comb(n - c, k) / math.comb(n, k)
            assert metrics.pass_at_k([[True] * c + [False] * (n - c)], k).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_unbiased(k):
    """Over all outcomes of n = 5 samples of accuracy J the mean is 1 − (1 − J)^k, the law of k samples."""
    n, J = 5, 0.3
    outcomes = np.array(list(itertools.product([0, 1], repeat=n)))
    probability = np.prod(np.where(outcomes, J, 1 - J), axis=1)
    values = [metrics.pass_at_k([row], k).value for row in outcomes]
    assert probability @ values == pytest.approx(1 - (1 - J) ** k, rel=1e-12)


@given(rewards=real_rewards)
def test_best_at_k_rises_from_the_mean_to_the_maximum(rewards):
    n = rewards.shape[1]
    values = [metrics.best_at_k(rewards, k).value for k in range(1, n + 1)]
    assert values[0] == pytest.approx(metrics.avg_at_k(rewards).value, rel=1e-12, abs=1e-12)
    assert values[-1] == pytest.approx(rewards.max(axis=1).mean(), rel=1e-12, abs=1e-12)
    assert np.all(np.diff(values) >= -1e-12)


def elected(answers, correct):
    """Accuracy of the vote, averaged over all orders of preference among the answers that settle ties."""
    candidates = sorted({answer for answer in answers if answer is not None})
    if not candidates:
        return np.mean(correct)
    results = []
    for order in itertools.permutations(candidates):
        winner = max(order, key=answers.count)  # the first of the most frequent
        results.append(np.mean([right for answer, right in zip(answers, correct) if answer == winner]))
    return np.mean(results)


votes = st.lists(st.sampled_from(["1", "2", "3", "x", None]), min_size=6, max_size=6)


@given(
    answers=st.lists(votes, min_size=1, max_size=3),
    right=st.sampled_from(["1", "x"]),
)
@settings(max_examples=100, deadline=None)
def test_majority_averages_over_all_orders_of_tied_answers(answers, right):
    correct = [[answer == right for answer in row] for row in answers]
    expected = np.mean([elected(*row) for row in zip(answers, correct)])
    assert metrics.maj_at_k(answers, correct).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["7", "7", "3"], 1),
        (["3", "7", "3"], 0),
        (["7", None, None], 1),
        ([None, None, None], 0),
        (["7", "3", None], 1 / 2),
        (["7", "3", "4"], 1 / 3),
        (["7"], 1),
    ],
)
def test_majority_cases(answers, expected):
    correct = [[answer == "7" for answer in answers]]
    assert metrics.maj_at_k([answers], correct).value == pytest.approx(expected)


def test_an_answer_judged_both_ways_is_as_correct_as_its_copies():
    assert metrics.maj_at_k([["7", "7", "7", "1"]], [[1, 0, 1, 0]]).value == pytest.approx(2 / 3)


def test_intervals_are_students_over_prompts():
    """As many units as prompts: ten times the samples with the same accuracies leave the interval as it is."""
    correct = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1]])
    answers = [["a" if right else f"w{i}" for i, right in enumerate(row)] for row in correct]
    vote = [1, 1 / 4, 1, 0, 1]
    cases = [
        (metrics.avg_at_k(correct), correct.mean(axis=1)),
        (metrics.avg_at_k(np.repeat(correct, 10, axis=1)), correct.mean(axis=1)),
        (metrics.best_at_k(correct, 2), [over_subsets(row, 2) for row in correct]),
        (metrics.pass_at_k(correct, 3), [over_subsets(row, 3) for row in correct]),
        (metrics.greedy_accuracy(correct[:, 0]), correct[:, 0]),
        (metrics.maj_at_k(answers, correct), vote),
    ]
    for estimate, values in cases:
        interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        expected = (interval.low + interval.high) / 2, (interval.high - interval.low) / 2
        assert estimate == pytest.approx(expected, rel=1e-12)


def test_a_single_prompt_has_a_value_and_no_interval():
    estimate = metrics.avg_at_k([[1, 0, 1, 1]])
    assert estimate.value == 0.75 and math.isnan(estimate.half_width)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.avg_at_k([1, 0]), r"rewards must have shape \(P, n\).*got \(2,\)"),
        (lambda: metrics.avg_at_k(np.zeros((0, 3))), r"both at least 1, got \(0, 3\)"),
        (lambda: metrics.avg_at_k([[1, math.nan]]), "rewards must be finite, got nan"),
        (lambda: metrics.best_at_k([[1, 0]], 3), "k must be an integer from 1 to the number of samples, 2, got 3"),
        (lambda: metrics.best_at_k([[1, 0]], 0), "k must be .* got 0"),
        (lambda: metrics.pass_at_k([[1, 0]], 1.0), "k must be .* got 1.0"),
        (lambda: metrics.pass_at_k([[1, 0.5]], 1), "correct must be True or False, 1 or 0, got 0.5"),
        (lambda: metrics.maj_at_k([["1", "2"]], [[1]]), r"answers must have the shape of correct, \(1, 1\)"),
        (lambda: metrics.maj_at_k([["1"], ["2"]], [[1]]), r"answers must have the shape of correct, \(1, 1\)"),
        (lambda: metrics.greedy_accuracy([]), "both at least 1"),
        (lambda: metrics.greedy_accuracy([0.3]), "correct must be True or False"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_importing_losses_and_metrics_is_light():
    """Nothing of the heavy half of either package is loaded."""
    import subprocess
    import sys

    heavy = "{'cvxpy', 'trl', 'datasets', 'transformers', 'matplotlib', 'pandas'}"
    code = f"import sys, pmdllm.losses, pmdllm.metrics; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
