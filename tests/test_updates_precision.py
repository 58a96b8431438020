"""The exact updates against 60-digit arithmetic and against brute force."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from scipy.optimize import minimize

from pmdtheory import baseline_update, kl_update, mixed_update, pmd_mean_update
from pmdtheory.divergences import movement
from tests import reference
from tests.problems import PATHS, hard_problems, on, policies, problems

EPS = np.finfo(float).eps
L1_TOLERANCE = 1e-12
WEIGHT_TOLERANCE = 1e-10
WELL_CONDITIONED = reference.Conditioning(0.0, 0.0, 0.0)

HARD = hard_problems(np.random.default_rng(20260205), 240)
check = settings(max_examples=60)


def faults(problem, update, exact, conditioning):
    """What is wrong with `update`, one string for each fault in q, λ, b, s or the flag.

    Eight roundings of the input, as `conditioning` says they move the solution, are granted on top.
    """
    policy, reward, tau = problem
    largest = np.abs(reward[policy > 0]).max() + abs(float(exact.baseline))
    distance = np.abs((reward[policy > 0] - float(exact.baseline)) / tau).max()
    tolerance = {
        "policy": L1_TOLERANCE + 8 * conditioning.policy,
        "chi2_weight": WEIGHT_TOLERANCE * abs(float(exact.chi2_weight)) + 8 * conditioning.chi2_weight,
        "baseline": 1e-13 * (largest + tau),
        "log_ratio": L1_TOLERANCE + 128 * EPS * distance + 8 * conditioning.log_ratio,
    }
    with mp.workdps(400):
        error = {
            "policy": mpmath.fsum(abs(float(a) - b) for a, b in zip(update.policy, exact.policy)),
            "chi2_weight": abs(float(update.chi2_weight) - exact.chi2_weight),
            "baseline": abs(float(update.baseline) - exact.baseline),
            "log_ratio": max(abs(float(a) - b) for a, b in zip(update.log_ratio, exact.log_ratio)),
        }
    found = [
        f"{name} off by {float(error[name]):.2g}, allowed {tolerance[name]:.2g}"
        for name in error
        if not error[name] <= tolerance[name]
    ]
    if bool(update.local) != (float(update.chi2_weight) < 0):
        found.append(f"local is {update.local} where chi2_weight is {update.chi2_weight}")
    return found


def assert_exact(cases):
    """Compare every case (problem, function, further arguments, exact solution, conditioning), then fail."""
    tried, bad = 0, []
    for problem, function, arguments, exact, conditioning in cases:
        tried += 1
        for path in PATHS:
            try:
                with on(path):
                    found = faults(problem, function(*problem, *arguments), exact, conditioning)
            except (ValueError, ArithmeticError, RuntimeWarning) as error:
                found = [repr(error)]
            if found:
                shown = ", ".join(repr(np.asarray(x).tolist()) for x in (*problem, *arguments))
                bad.append(f"{path} {function.__name__}({shown[:2000]}): {'; '.join(found)}")
    assert tried
    assert not bad, f"{len(bad)} of {tried} cases\n" + "\n".join(sorted(bad, key=len)[:6])


def test_kl_update_matches_high_precision():
    assert_exact((problem, kl_update, (), reference.kl(*problem), WELL_CONDITIONED) for problem in HARD)


def test_pmd_mean_update_matches_high_precision():
    assert_exact(
        (problem, pmd_mean_update, (), reference.pmd_mean(*problem), WELL_CONDITIONED) for problem in HARD
    )


@pytest.mark.parametrize("ratio", [(-8, -2), (-2, 2), (2, 8)], ids=["small", "medium", "large"])
def test_mixed_update_matches_high_precision(ratio):
    rng = np.random.default_rng(1)

    def cases():
        for problem in HARD[:100]:
            chi2_coef = problem[2] * 10 ** rng.uniform(*ratio)
            yield problem, mixed_update, (chi2_coef,), reference.mixed(*problem, chi2_coef), WELL_CONDITIONED

    assert_exact(cases())


def baseline_cases(choose, problems=HARD[:100]):
    """Cases of `baseline_update` at the double nearest to choose(rng, problem, E_p[r], τ log Z)."""
    rng = np.random.default_rng(2)
    for problem in problems:
        mean, partition = reference.mean_reward(*problem[:2]), reference.log_partition(*problem)
        b = float(choose(rng, problem, mean, partition))
        exact = reference.baseline(*problem, b)
        yield problem, baseline_update, (b,), exact, reference.conditioning(*problem, exact)


def test_baseline_below_the_mean_matches_high_precision():
    def below(rng, problem, mean, partition):
        return mean - problem[2] * 10 ** rng.uniform(-3, 5)

    assert_exact(baseline_cases(below))


def test_baseline_at_the_mean_matches_high_precision():
    assert_exact(baseline_cases(lambda rng, problem, mean, partition: mean))


def test_baseline_between_mean_and_log_partition_matches_high_precision():
    assert_exact(
        baseline_cases(lambda rng, problem, mean, partition: mean + (partition - mean) * rng.random())
    )


def test_baseline_at_log_partition_matches_high_precision():
    """λ is a rounding of b there, of either sign: the conditioning says how large it may be."""
    assert_exact(baseline_cases(lambda rng, problem, mean, partition: partition))


@pytest.mark.parametrize("share", [1e-6, 0.5, 1 - 1e-6, 1 - 1e-12])
def test_overestimated_baseline_matches_high_precision(share):
    """Statement 11: b at this share of the way from τ log Z to b_max."""

    def cases():
        for problem in HARD[:60]:
            with mp.workdps(700):
                low, high = reference.log_partition(*problem), reference.largest_baseline(*problem)
                b = float(low + (high - low) * share)
                inside = low < b < high
            if inside:
                exact = reference.baseline(*problem, b)
                assert exact.chi2_weight < 0
                yield problem, baseline_update, (b,), exact, reference.conditioning(*problem, exact)

    assert_exact(cases())


# --- the reference itself, and the variational problems, by brute force


def mixed_objective(q, policy, reward, tau, chi2_coef):
    """E_q r − τ KL(q‖p) − (κ/2) χ²(q‖p)."""
    return q @ reward - tau * q @ np.log(q / policy) - chi2_coef / 2 * ((q - policy) ** 2 / policy).sum()


def numerical_minimum(loss, policy):
    """Minimise over softmax logits from p."""

    def of_logits(logits):
        weights = np.exp(logits - logits.max())
        return loss(weights / weights.sum())

    found = minimize(of_logits, np.log(policy), method="BFGS", options={"gtol": 1e-10}).x
    weights = np.exp(found - found.max())
    return weights / weights.sum()


@pytest.mark.parametrize("seed", range(6))
def test_reference_matches_numerical_optimisation(seed):
    rng = np.random.default_rng(seed)
    policy, reward, tau = rng.dirichlet(np.full(4, 2.0)), rng.normal(size=4), 10 ** rng.uniform(-0.3, 0.7)
    chi2_coef = tau * 10 ** rng.uniform(-1, 1)
    b = policy @ reward - rng.random()
    losses = [
        (lambda q: -mixed_objective(q, policy, reward, tau, 0.0), reference.kl(policy, reward, tau)),
        (
            lambda q: -mixed_objective(q, policy, reward, tau, chi2_coef),
            reference.mixed(policy, reward, tau, chi2_coef),
        ),
        (
            lambda q: reference.regression_loss(q, policy, reward, tau, policy @ reward),
            reference.pmd_mean(policy, reward, tau),
        ),
        (lambda q: reference.regression_loss(q, policy, reward, tau, b), reference.baseline(policy, reward, tau, b)),
    ]
    for loss, exact in losses:
        assert np.abs(numerical_minimum(loss, policy) - np.array(exact.policy, float)).max() < 1e-5


def test_reference_satisfies_its_equations():
    """s + λ e^s = (r − b)/τ and Σ q = 1, with b read off the definition, not from the solver."""
    for policy, reward, tau in HARD[:40]:
        exact = reference.pmd_mean(policy, reward, tau)
        with mp.workdps(700):
            total = mpmath.fsum(mp.mpf(float(p)) for p in policy)
            mean = mpmath.fsum(mp.mpf(float(p)) * float(r) for p, r in zip(policy, reward)) / total
            assert abs(mpmath.fsum(exact.policy) - 1) < mp.mpf(10) ** -50
            for p, r, s in zip(policy, reward, exact.log_ratio):
                delta = (mp.mpf(float(r)) - mean) / float(tau)
                residual = s + exact.chi2_weight * mpmath.exp(s) - delta
                assert p == 0 or abs(residual) <= mp.mpf(10) ** -45 * (1 + abs(delta))


@check
@given(problems(smallest_exponent=-6), st.data())
def test_updates_are_global_optima(problem, data):
    """No other policy does better, near or far: Statements 1 to 3 and 10 from their variational problems."""
    policy, reward, tau = problem
    other = data.draw(policies(len(policy), len(policy), smallest_exponent=-6))
    step = 10.0 ** data.draw(st.floats(-4, 0))
    mean = pmd_mean_update(policy, reward, tau)
    low = float(mean.baseline) - np.ptp(reward) * data.draw(st.floats(0, 2))
    chi2_coef = tau * 10.0 ** data.draw(st.floats(-3, 3))
    weight = float(mean.chi2_weight) * tau
    losses = [
        (kl_update(policy, reward, tau), lambda q: -mixed_objective(q, policy, reward, tau, 0.0) / tau),
        (mean, lambda q: reference.regression_loss(q, policy, reward, tau, policy @ reward)),
        (mean, lambda q: -mixed_objective(q, policy, reward, tau, weight) / tau),
        (baseline_update(policy, reward, tau, low), lambda q: reference.regression_loss(q, policy, reward, tau, low)),
        (
            mixed_update(policy, reward, tau, chi2_coef),
            lambda q: -mixed_objective(q, policy, reward, tau, chi2_coef) / tau,
        ),
    ]
    for update, loss in losses:
        if update.policy.min() < 1e-290:
            continue
        best = loss(update.policy)
        assert loss((1 - step) * update.policy + step * other) >= best - 1e-11 * (1 + abs(best))


@pytest.mark.parametrize("tau", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("ratio", [1e-3, 1.0, 1e3])
def test_mixed_update_far_below_the_reward_range(tau, ratio):
    """Where v is large its rounding must not reach the policy."""
    rng = np.random.default_rng([int(-np.log10(tau)), int(np.log10(ratio)) + 9])
    for _ in range(5):
        policy, reward = rng.dirichlet(np.ones(4)), rng.integers(0, 1024, 4) / 1024
        exact = reference.mixed(policy, reward, tau, ratio * tau)
        found = mixed_update(policy, reward, tau, ratio * tau).policy
        assert sum(abs(float(a) - float(b)) for a, b in zip(found, exact.policy)) < 1e-10


# --- far below the reward range, and at the limits of floating-point numbers


def far_problems(exponent):
    """Problems at τ/range = 10^exponent: near ties at the top, rare actions, large offsets."""
    rng = np.random.default_rng([7, -exponent])
    for _ in range(8):
        K = int(rng.integers(2, 6))
        policy = (rng.dirichlet(np.ones(K)), 10.0 ** rng.uniform(-30, 0, K))[rng.integers(2)]
        reward = (rng.random(K), rng.integers(0, 5, K) / 4, rng.random(K) + 1e3)[rng.integers(3)]
        reward[0] = reward.max() - np.ptp(reward) * 10.0 ** rng.uniform(exponent, 0)
        if np.ptp(reward) > 0:
            yield policy / policy.sum(), reward, float(np.ptp(reward) * 10.0**exponent)


FAR = [problem for exponent in (-6, -8, -10, -12) for problem in far_problems(exponent)]


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 1.0, 1e6, 1e12])
def test_mixed_update_down_to_a_trillionth_of_the_range(ratio):
    """κ = 0 is the KL update; q is good to 1e-12 in L1, and normalised."""
    for problem in FAR:
        update, exact = mixed_update(*problem, ratio * problem[2]), reference.mixed(*problem, ratio * problem[2])
        assert l1(update, exact) < 1e-12, problem
        assert abs(update.policy.sum() - 1) < 1e-12
        if ratio == 0:
            np.testing.assert_allclose(update.policy, kl_update(*problem).policy, rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.5, 1 - 1e-6, 1.0])
@pytest.mark.parametrize("ulps", [-2, 0, 2])
def test_baseline_update_down_to_a_trillionth_of_the_range(share, ulps):
    """From the mean to τ log Z, to the last digit of b: the double that is given counts, not what it rounds."""
    for problem in FAR:
        mean, partition = reference.mean_reward(*problem[:2]), reference.log_partition(*problem)
        b = float(mean + (partition - mean) * share)
        b += ulps * np.spacing(abs(b))
        if b >= reference.largest_baseline(*problem):
            with pytest.raises(ValueError, match="baseline must be at most"):
                baseline_update(*problem, b)
            continue
        update, exact = baseline_update(*problem, b), reference.baseline(*problem, b)
        assert l1(update, exact) < 1e-12, (problem, b)
        weight = float(exact.chi2_weight)
        assert update.chi2_weight == pytest.approx(weight, rel=1e-9, abs=1e-14), (problem, b)
        assert update.local == (update.chi2_weight < 0)


def l1(update, exact):
    """L1 distance of the two policies."""
    with mp.workdps(400):
        return float(mpmath.fsum(abs(mp.mpf(float(a)) - b) for a, b in zip(update.policy, exact.policy)))


@pytest.mark.parametrize("policy", [[1, 1e-320], [1e-310, 1], [0.3, 0.3, 0.4], [1, 1e-300, 1e-300]])
@pytest.mark.parametrize("tau", [1e-320, 1e-300, 1e-150, 1e-17, 1e-3, 1.0, 1e150, 1e300])
def test_extremes_give_a_policy_or_name_the_argument(policy, tau):
    """Never a warning, which the tests turn into errors, and never an error of arithmetic."""
    for reward in ([0, 1, 0.5], [0.7, 0.1, 1], [1e300, -1e300, 0], [1e-300, 0, 1e-310], [1e6, 1e6 + 1, 1e6]):
        problem = policy, reward[: len(policy)], tau
        calls = [lambda a=problem: kl_update(*a), lambda a=problem: pmd_mean_update(*a)]
        calls += [lambda a=problem, k=k: mixed_update(*a, k) for k in (0.0, 1e-320, 1e-12, tau, 1e300)]
        calls += [lambda a=problem, b=b: baseline_update(*a, b) for b in (-1.7e308, -1.0, 0.0, 1e-320, 0.5)]
        for call in calls:
            try:
                update = call()
            except ValueError as error:
                assert str(error).split()[0] in {"tau", "policy", "baseline", "chi2_coef", "(baseline"}
                continue
            assert abs(update.policy.sum() - 1) < 1e-12
            assert np.isfinite([update.chi2_weight, update.baseline]).all()


def test_kl_update_reaches_a_subnormal_action():
    """log q₁/q₀ = log 1e-320 + 1000 = 263: the action wins, though its ratio e^737 is no float."""
    update = kl_update([1, 1e-320], [0, 1], 1e-3)
    assert update.log_ratio[1] == pytest.approx(-np.log(1e-320), rel=1e-14)
    assert update.policy[0] == pytest.approx(np.exp(-1000 - np.log(1e-320)), rel=1e-11)
    moved = movement([1, 1e-320], update.log_ratio)
    assert moved.kl == pytest.approx(-np.log(1e-320), rel=1e-14)
    assert moved.reverse_kl == pytest.approx(1000 + np.log(1e-320), rel=1e-12)
    assert moved.chi2 == moved.max_ratio == np.inf


@pytest.mark.parametrize("path", PATHS)
def test_pmd_mean_reaches_a_subnormal_action(path):
    """s + λ e^s = Δ at both actions and E_p[e^s] = 1, in 60 digits; beyond the mean the argument is named."""
    policy, tau = np.array([1.0, 1e-320]), 1e-3
    with on(path):
        update = pmd_mean_update(policy, [0.0, 1.0], tau)
    with mp.workdps(60):
        p, s = ([mp.mpf(float(x)) for x in row] for row in (policy, update.log_ratio))
        weight = mp.mpf(float(update.chi2_weight))
        for r, log_ratio in zip((0, 1), s):
            assert log_ratio + weight * mp.exp(log_ratio) == pytest.approx((r - p[1]) / tau, rel=1e-12, abs=1e-30)
        assert weight == pytest.approx(-p[0] * s[0] - p[1] * s[1], rel=1e-3)  # p₁ has four digits
    with on(path), pytest.raises(ValueError, match="policy must have no probability between 0 and"):
        baseline_update([1.0, 1e-315], [0.0, 1.0], tau, 1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("tau", [1e-10, 1e-20, 1e-100, 1e-300])
def test_pmd_mean_at_vanishing_temperatures(path, tau):
    """As τ → 0 the worse actions lose all and λ is E_p[max(D, 0)]: p₁ (1 − r̄)/τ of two actions."""
    with on(path):
        update = pmd_mean_update([0.9, 0.1], [0.0, 1.0], tau)
    assert update.policy.tolist() == pytest.approx([0, 1], abs=1e-8)
    assert update.chi2_weight == pytest.approx(0.1 * 0.9 / tau, rel=1e-8)
