"""What holds for every input of the exact updates: identities, orderings, limits (Statements 2–10)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmdtheory import baseline_update, kl_update, mixed_update, pmd_mean_update
from tests.problems import PATHS, all_updates, on, problems

EPS = np.finfo(float).eps

check = settings(max_examples=60)


@pytest.fixture(scope="module", params=PATHS, autouse=True)
def path(request):
    """Everything holds on both."""
    with on(request.param):
        yield


def surplus(s):
    """e^s − 1 − s, accurate for small s."""
    series = s * s / 2 * (1 + s / 3 * (1 + s / 4 * (1 + s / 5 * (1 + s / 6))))
    return np.where(np.abs(s) < 0.01, series, np.expm1(s) - s)


def weighted_surplus(s):
    """s e^s − e^s + 1, accurate for small s."""
    return np.where(np.abs(s) < 0.01, np.exp(s) * surplus(-np.clip(s, -1, 1)), s * np.exp(s) - np.expm1(s))


def divergences(policy, update):
    """KL(q‖p), KL(p‖q) and χ²(q‖p) as sums of nonnegative terms, from the log-ratio."""
    s = update.log_ratio
    return {
        "kl": policy @ weighted_surplus(s),
        "reverse_kl": policy @ surplus(s),
        "chi2": policy @ np.expm1(s) ** 2,
    }


def gain(problem, update):
    """E_q[r] − E_p[r] without cancellation: Σ p (e^s − 1)(r − r_mode)."""
    policy, reward, _ = problem
    return policy @ (np.expm1(update.log_ratio) * (reward - reward[np.argmax(policy)]))


@check
@given(problems(zeros=True, smallest_exponent=-100))
def test_every_update_is_a_stationary_policy(problem):
    """Normalisation, and s + λ e^s = (r − b)/τ with the reported λ and b."""
    policy, reward, tau = problem
    support = policy > 0
    for update in all_updates(*problem).values():
        assert abs(update.policy.sum() - 1) < 1e-13
        np.testing.assert_allclose(
            update.policy[support], (policy * np.exp(update.log_ratio))[support], rtol=1e-13
        )
        delta = (reward - update.baseline) / tau
        residual = update.log_ratio + update.chi2_weight * np.exp(update.log_ratio) - delta
        rounding = 1e-12 * (1 + np.abs(delta)) + 8 * EPS * (np.abs(reward).max() + abs(update.baseline)) / tau
        assert np.all(np.abs(residual)[support] <= rounding[support])


@check
@given(problems(zeros=True), st.integers(-1024, 1024).map(lambda n: n / 4))
def test_shifting_rewards_shifts_the_baseline_only(problem, shift):
    policy, reward, tau = problem
    before, after = all_updates(policy, reward, tau), all_updates(policy, reward + shift, tau)
    for name in ("kl", "pmd_mean", "mixed"):
        np.testing.assert_allclose(after[name].policy, before[name].policy, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(after[name].chi2_weight, before[name].chi2_weight, rtol=1e-12)
        np.testing.assert_allclose(
            after[name].baseline, before[name].baseline + shift, rtol=1e-14, atol=1e-11
        )


@check
@given(problems(zeros=True), st.integers(-1024, 1024), st.integers(0, 2**20))
def test_shifting_rewards_and_baseline_together_changes_nothing(problem, shift, below):
    """The baseline is a multiple of 1/1024 like the rewards, so both shifts are exact."""
    policy, reward, tau = problem
    b = reward[policy > 0].min() - below / 1024
    before, after = (
        baseline_update(policy, reward, tau, b),
        baseline_update(policy, reward + shift, tau, b + shift),
    )
    np.testing.assert_allclose(after.policy, before.policy, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(after.chi2_weight, before.chi2_weight, rtol=1e-12)


@check
@given(problems(zeros=True), st.integers(-30, 30).map(lambda n: 2.0**n))
def test_joint_scaling_of_reward_and_tau_scales_the_baseline_only(problem, scale):
    """Scaling by a power of two is exact, so the scaled problem is the same problem."""
    policy, reward, tau = problem
    before, after = all_updates(policy, reward, tau), all_updates(policy, reward * scale, tau * scale)
    for name, update in before.items():
        np.testing.assert_allclose(after[name].policy, update.policy, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(after[name].chi2_weight, update.chi2_weight, rtol=1e-12)
        np.testing.assert_allclose(
            after[name].baseline, update.baseline * scale, rtol=1e-12, atol=1e-12 * scale
        )


@check
@given(problems(zeros=True), st.randoms(use_true_random=False))
def test_actions_may_be_permuted(problem, random):
    policy, reward, tau = problem
    order = list(range(len(policy)))
    random.shuffle(order)
    before, after = all_updates(policy, reward, tau), all_updates(policy[order], reward[order], tau)
    for name, update in before.items():
        np.testing.assert_allclose(after[name].policy, update.policy[order], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(after[name].chi2_weight, update.chi2_weight, rtol=1e-10)


@check
@given(problems(), st.data())
def test_an_action_may_be_split_in_two(problem, data):
    """Two copies of an action, each with half its probability, share its new one; λ does not notice."""
    policy, reward, tau = problem
    i = data.draw(st.integers(0, len(policy) - 1))
    halved = np.append(policy, policy[i] / 2)
    halved[i] /= 2
    before, after = all_updates(policy, reward, tau), all_updates(halved, np.append(reward, reward[i]), tau)
    for name, update in before.items():
        joined = after[name].policy[:-1].copy()
        assert after[name].policy[i] == pytest.approx(after[name].policy[-1], rel=1e-13)
        joined[i] *= 2
        np.testing.assert_allclose(joined, update.policy, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(after[name].chi2_weight, update.chi2_weight, rtol=1e-10)


@check
@given(problems())
def test_weight_is_the_reverse_kl(problem):
    """Statement 4: λ = KL(p‖q)."""
    update = pmd_mean_update(*problem)
    assert update.chi2_weight == pytest.approx(
        divergences(problem[0], update)["reverse_kl"], rel=1e-9, abs=1e-300
    )
    assert np.all(update.chi2_weight >= 0)


@check
@given(problems())
def test_improvement_identity(problem):
    """Statement 5, for PMD-mean and for the KL update."""
    policy, _, tau = problem
    mean, ideal = pmd_mean_update(*problem), kl_update(*problem)
    at_mean, at_ideal = divergences(policy, mean), divergences(policy, ideal)
    expected = tau * (at_mean["kl"] + mean.chi2_weight * (1 + at_mean["chi2"]))
    assert gain(problem, mean) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    expected = tau * (at_ideal["kl"] + at_ideal["reverse_kl"])
    assert gain(problem, ideal) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@check
@given(problems())
def test_weight_bounds(problem):
    """Statement 6: λ (1 + χ²) is at most the Jensen gap KL(p‖q_KL); λ is at most sd(Δ)/2 and max Δ."""
    policy, reward, tau = problem
    update = pmd_mean_update(*problem)
    gap = divergences(policy, kl_update(*problem))["reverse_kl"]
    relative = 1 + 1e-9
    centred = (reward - reward[np.argmax(policy)]) / tau
    delta = centred - policy @ centred
    assert update.chi2_weight * (1 + divergences(policy, update)["chi2"]) <= gap * relative
    assert update.chi2_weight <= 0.5 * np.sqrt(policy @ delta**2) * relative
    assert update.chi2_weight <= max(delta.max(), 0.0) * relative


@check
@given(problems(smallest_exponent=-4))
def test_pmd_mean_is_between_the_old_and_the_kl_policy(problem):
    """Statement 7: likelihood-ratio order, and what follows from it, strictly where it can be seen."""
    policy, reward, tau = problem
    mean, ideal = pmd_mean_update(*problem), kl_update(*problem)
    rounding = 1e-12 + 8 * EPS * np.ptp(reward) / tau
    order = np.argsort(reward)
    assert np.all(np.diff(mean.log_ratio[order]) >= -rounding)
    assert np.all(np.diff((ideal.log_ratio - mean.log_ratio)[order]) >= -rounding)
    small, large = divergences(policy, mean), divergences(policy, ideal)
    extremes = {
        "max ratio": (mean.log_ratio.max(), ideal.log_ratio.max()),
        "min ratio": (-mean.log_ratio.min(), -ideal.log_ratio.min()),
        "spread": (np.ptp(mean.log_ratio), np.ptp(ideal.log_ratio)),
        "reward": (gain(problem, mean), gain(problem, ideal)),
    } | {name: (small[name], large[name]) for name in small}
    for name, (lesser, greater) in extremes.items():
        assert 0 <= lesser <= greater + rounding, name
    if mean.chi2_weight > 1e-4 and np.ptp(reward) / tau < 10:
        for name, (lesser, greater) in extremes.items():
            assert lesser < greater, name


@check
@given(problems(smallest_exponent=-6), st.lists(st.floats(1e-3, 10), min_size=3, max_size=3))
def test_a_lower_baseline_moves_less(problem, steps):
    """Statement 10: λ = KL(p‖q) + (r̄ − b)/τ ≥ 0 falls and E_q[r] does not fall as b rises to τ log Z."""
    policy, reward, tau = problem
    partition = float(kl_update(*problem).baseline)
    gap = (np.ptp(reward) if np.ptp(reward) > 0 else 1.0) / 4
    levels = np.sort(partition - gap * np.cumsum(steps))
    updates = [baseline_update(policy, reward, tau, b) for b in levels]
    weights = np.array([u.chi2_weight for u in updates])
    assert np.all(weights >= 0)
    assert np.all(np.diff(weights) < 0)
    gains = np.array([gain(problem, u) for u in updates])
    assert np.all(np.diff(gains) >= -1e-12 * np.ptp(reward))
    centre = reward[np.argmax(policy)]
    for b, update in zip(levels, updates):
        assert update.baseline == b
        below = (policy @ (reward - centre) - (b - centre)) / tau
        size = 1 + np.ptp(reward) / tau + abs(below)
        assert update.chi2_weight == pytest.approx(
            divergences(policy, update)["reverse_kl"] + below, rel=1e-10, abs=1e-12 * size
        )


@check
@given(problems(smallest_exponent=-6))
def test_updates_agree_where_they_coincide(problem):
    """Mixed at κ = τλ and baseline at r̄ are PMD-mean; mixed at κ = 0 and baseline at τ log Z are KL."""
    _, reward, tau = problem
    mean, ideal = pmd_mean_update(*problem), kl_update(*problem)
    rounding = EPS * np.abs(reward).max() / tau  # of b, a float64 in reward units, in units of Δ
    same = {"rtol": 0, "atol": 1e-12 + 8 * rounding}
    np.testing.assert_allclose(
        mixed_update(*problem, mean.chi2_weight * tau).policy, mean.policy, rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(mixed_update(*problem, 0.0).policy, ideal.policy, rtol=0, atol=1e-13)
    np.testing.assert_allclose(baseline_update(*problem, mean.baseline).policy, mean.policy, **same)
    np.testing.assert_allclose(baseline_update(*problem, ideal.baseline).policy, ideal.policy, **same)


# --- limits and closed forms


def test_high_temperature_weight_is_half_the_variance():
    """Statement 8: λ = Var_p(r)/(2τ²) + o(τ⁻²), and the two updates agree to first order in 1/τ."""
    policy, reward = np.array([0.1, 0.2, 0.3, 0.4]), np.array([3.0, -1.0, 0.5, 2.0])
    variance = policy @ reward**2 - (policy @ reward) ** 2
    errors, distances = [], []
    for tau in (1e3, 1e4):
        mean = pmd_mean_update(policy, reward, tau)
        errors.append(abs(mean.chi2_weight * 2 * tau**2 / variance - 1))
        distances.append(np.abs(mean.log_ratio - kl_update(policy, reward, tau).log_ratio).max())
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 10, rtol=0.1)
    np.testing.assert_allclose(np.divide(distances[:-1], distances[1:]), 1000, rtol=0.1)


def test_zero_temperature_limits():
    """Statement 8: q → p·A₊/E_p[A₊] and τλ → E_p[A₊] for PMD-mean; p on argmax r for the KL update."""
    policy, reward = np.array([0.1, 0.2, 0.3, 0.15, 0.25]), np.array([1.0, 0.8, 0.0, 0.3, 1.0])
    advantage = np.maximum(reward - policy @ reward, 0)
    weight, best = policy @ advantage, np.where(reward == 1.0, policy, 0) / policy[reward == 1.0].sum()
    errors = []
    for tau in (1e-3, 1e-4, 1e-5):
        mean = pmd_mean_update(policy, reward, tau)
        error = np.abs(mean.policy - policy * advantage / weight).max()
        errors.append(max(error, abs(tau * mean.chi2_weight - weight)))
        np.testing.assert_allclose(kl_update(policy, reward, tau).policy, best, atol=1e-12)
    assert errors[-1] < 1e-4
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


def test_one_level_above_the_mean_makes_the_zero_temperature_limits_coincide():
    policy, reward = np.array([0.4, 0.2, 0.1, 0.3]), np.array([1.0, 0.0, 0.25, 0.0])
    for tau in (1e-3, 1e-5):
        mean, ideal = pmd_mean_update(policy, reward, tau), kl_update(policy, reward, tau)
        np.testing.assert_allclose(mean.policy, ideal.policy, atol=1e-10)
        np.testing.assert_allclose(mean.policy, [1, 0, 0, 0], atol=1e-10)


@check
@given(st.floats(-6, -1e-3).map(lambda e: 10.0**e), st.floats(-2, 2).map(lambda e: 10.0**e))
def test_binary_rewards(success, tau):
    """Statement 9: both sides of the failure mass, the ratio of a success, and the KL closed form."""
    policy, reward = np.array([success, 1 - success]), np.array([1.0, 0.0])
    mean, ideal = pmd_mean_update(policy, reward, tau), kl_update(policy, reward, tau)
    failure = 1 - success
    assert np.exp(mean.log_ratio[0]) <= (1 + 1e-12) / success
    lower = failure * np.exp(-success / tau - mean.chi2_weight * np.exp(-success / tau))
    upper = failure * np.exp(-success / tau)
    assert lower * (1 - 1e-12) <= mean.policy[1] <= upper * (1 + 1e-12)
    decay = np.exp(-1 / tau)
    assert ideal.policy[1] == pytest.approx(failure * decay / (success + failure * decay), rel=1e-12)


@pytest.mark.parametrize("success", [0.01, 0.3, 0.9])
def test_binary_weight_at_zero_temperature(success):
    update = pmd_mean_update([success, 1 - success], [1, 0], 1e-5)
    assert 1e-5 * update.chi2_weight == pytest.approx(success * (1 - success), rel=5e-3)


def test_a_very_low_baseline_freezes_the_policy():
    """Statement 10: ρ − 1 shrinks like 1/λ."""
    policy, reward = np.array([0.1, 0.3, 0.6]), np.array([1.0, 0.0, 0.5])
    moved = [
        np.abs(baseline_update(policy, reward, 0.1, b).log_ratio).max() for b in (-1e2, -1e4, -1e6, -1e12)
    ]
    np.testing.assert_allclose(np.divide(moved[:-1], moved[1:]), [1e2, 1e2, 1e6], rtol=0.05)
