"""The exact updates against high-precision arithmetic, brute force and the identities that define them."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from scipy.optimize import minimize

from pmdtheory import Update, baseline_update, kl_update, mixed_update, pmd_mean_update
from tests import reference
from tests.problems import hard_problems, policies, problems

EPS = np.finfo(float).eps
L1_TOLERANCE = 1e-12
WEIGHT_TOLERANCE = 1e-10
WELL_CONDITIONED = reference.Conditioning(0.0, 0.0, 0.0)

HARD = hard_problems(np.random.default_rng(20260205), 240)
check = settings(max_examples=60, deadline=None, derandomize=True)


# --- against 50 digits


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
        try:
            found = faults(problem, function(*problem, *arguments), exact, conditioning)
        except (ValueError, ArithmeticError, RuntimeWarning) as error:
            found = [repr(error)]
        if found:
            shown = ", ".join(repr(np.asarray(x).tolist()) for x in (*problem, *arguments))
            bad.append(f"{function.__name__}({shown[:2000]}): {'; '.join(found)}")
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


def regression_loss(q, policy, reward, tau, b):
    """E_p[½ (log(q/p) − (r − b)/τ)²]."""
    return 0.5 * policy @ (np.log(q / policy) - (reward - b) / tau) ** 2


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
            lambda q: regression_loss(q, policy, reward, tau, policy @ reward),
            reference.pmd_mean(policy, reward, tau),
        ),
        (lambda q: regression_loss(q, policy, reward, tau, b), reference.baseline(policy, reward, tau, b)),
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
        (mean, lambda q: regression_loss(q, policy, reward, tau, policy @ reward)),
        (mean, lambda q: -mixed_objective(q, policy, reward, tau, weight) / tau),
        (baseline_update(policy, reward, tau, low), lambda q: regression_loss(q, policy, reward, tau, low)),
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


# --- special problems


@pytest.mark.parametrize("policy", [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [1.0], [0.5, 0.5 - 1e-300, 1e-300]])
@pytest.mark.parametrize("level", [0.0, 1.0, -3.7, 1e6])
def test_constant_rewards_leave_the_policy_alone(policy, level):
    policy = np.array(policy) / np.sum(policy)
    reward = np.full(len(policy), level)
    tau = 0.37
    cases = [
        (kl_update(policy, reward, tau), 0.0, level),
        (pmd_mean_update(policy, reward, tau), 0.0, level),
        (baseline_update(policy, reward, tau, level - 2.0), 2.0 / tau, level - 2.0),
        (baseline_update(policy, reward, tau, level), 0.0, level),
        (baseline_update(policy, reward, tau, level + 0.25), -0.25 / tau, level + 0.25),
        (mixed_update(policy, reward, tau, 0.74), 2.0, level - 0.74),
    ]
    for update, weight, b in cases:
        np.testing.assert_allclose(update.policy, policy, rtol=1e-15, atol=0)
        np.testing.assert_array_equal(update.log_ratio, 0.0)
        np.testing.assert_allclose(update.chi2_weight, weight, rtol=1e-14, atol=0)
        np.testing.assert_allclose(update.baseline, b, rtol=1e-15, atol=1e-15)
        assert bool(update.local) == (weight < 0)


def all_updates(policy, reward, tau):
    """The four updates of one problem, the baseline a little below the mean and κ = τ/2."""
    mean = pmd_mean_update(policy, reward, tau)
    return {
        "kl": kl_update(policy, reward, tau),
        "pmd_mean": mean,
        "baseline": baseline_update(policy, reward, tau, mean.baseline - 0.125 * np.asarray(tau)),
        "mixed": mixed_update(policy, reward, tau, 0.5 * np.asarray(tau)),
    }


@check
@given(problems(zeros=True))
def test_zero_probability_actions_stay_at_zero(problem):
    policy, reward, tau = problem
    support = policy > 0
    reward = np.where(support, reward, 1e9)
    whole, reduced = all_updates(policy, reward, tau), all_updates(policy[support], reward[support], tau)
    for name, update in whole.items():
        assert np.all(update.policy[~support] == 0), name
        assert np.all(update.log_ratio[~support] == 0), name
        np.testing.assert_allclose(update.policy[support], reduced[name].policy, rtol=1e-11, atol=1e-300)
        np.testing.assert_allclose(update.chi2_weight, reduced[name].chi2_weight, rtol=1e-11)


def test_reward_that_is_constant_on_the_support_counts_as_constant():
    update = pmd_mean_update([0.5, 0.5, 0.0], [1.0, 1.0, 5.0], 0.01)
    assert update.chi2_weight == 0
    np.testing.assert_array_equal(update.policy, [0.5, 0.5, 0.0])


# --- shapes, types, purity


def batch(seed, *shape):
    rng = np.random.default_rng(seed)
    policy = rng.dirichlet(np.full(shape[-1], 0.5), size=shape[:-1])
    policy[..., 0] = np.where(rng.random(shape[:-1]) < 0.3, 0.0, policy[..., 0])
    policy /= policy.sum(axis=-1, keepdims=True)
    reward = (
        rng.integers(0, 3, size=shape)
        * rng.normal(size=(*shape[:-1], 1))
        * (rng.random((*shape[:-1], 1)) < 0.8)
    )
    return policy, reward, 10 ** rng.uniform(-2, 2, size=shape[:-1])


FURTHER = {  # the fourth argument of each update function, from the problem; None where there is none
    kl_update: None,
    pmd_mean_update: None,
    baseline_update: lambda policy, reward, tau: (policy * reward).sum(axis=-1) - 0.25 * tau,
    mixed_update: lambda policy, reward, tau: 3.0 * tau,
}
every_update = pytest.mark.parametrize("function", FURTHER, ids=lambda f: f.__name__)


def arguments_of(function, problem):
    return problem if FURTHER[function] is None else (*problem, FURTHER[function](*problem))


def assert_same(update, other, **tolerance):
    for name in ("policy", "log_ratio", "chi2_weight", "baseline"):
        np.testing.assert_allclose(getattr(update, name), getattr(other, name), **tolerance, err_msg=name)
    np.testing.assert_array_equal(update.local, other.local)


@every_update
@pytest.mark.parametrize("actions", [2, 7, 60])
def test_a_batch_equals_a_loop(function, actions):
    arguments = arguments_of(function, batch(3, 5, 4, actions))
    together = function(*arguments)
    for index in np.ndindex(5, 4):
        alone = function(*(x[index] for x in arguments))
        row = Update(
            policy=together.policy[index],
            log_ratio=together.log_ratio[index],
            chi2_weight=together.chi2_weight[index],
            baseline=together.baseline[index],
            local=together.local[index],
            certificate=None,
        )
        assert_same(row, alone, rtol=1e-13, atol=1e-14)


@every_update
def test_arguments_broadcast(function):
    policy, reward, tau = batch(4, 3, 6)[0][0], batch(5, 2, 1, 6)[1], np.array([0.1, 1.0, 10.0])
    full = (
        np.broadcast_to(policy, (2, 3, 6)),
        np.broadcast_to(reward, (2, 3, 6)),
        np.broadcast_to(tau, (2, 3)),
    )
    further = () if FURTHER[function] is None else (FURTHER[function](policy, reward, tau),)
    update = function(policy, reward, tau, *further)
    assert update.policy.shape == update.log_ratio.shape == (2, 3, 6)
    assert update.chi2_weight.shape == update.baseline.shape == update.local.shape == (2, 3)
    assert_same(update, function(*full, *further), rtol=1e-14, atol=0)


@every_update
def test_one_context_gives_scalars(function):
    policy, reward, tau = batch(6, 5)
    update = function(*arguments_of(function, (policy, reward, float(tau))))
    assert update.policy.shape == update.log_ratio.shape == (5,)
    assert np.shape(update.chi2_weight) == np.shape(update.baseline) == np.shape(update.local) == ()


@every_update
def test_no_contexts_give_no_updates(function):
    problem = np.empty((0, 4)), np.empty((0, 4)), 1.0
    further = () if FURTHER[function] is None else (1.0,)
    assert function(*problem, *further).policy.shape == (0, 4)


@every_update
def test_integers_lists_and_float32_are_promoted(function):
    further = () if FURTHER[function] is None else (-2,)
    further = (2,) if function is mixed_update else further
    expected = function(np.array([0.25, 0.75]), np.array([1.0, 0.0]), 2.0, *map(float, further))
    for policy in ([0.25, 0.75], np.array([0.25, 0.75], np.float32)):
        for reward in ([1, 0], (True, False), np.array([1, 0], np.int8), np.array([1, 0], np.float32)):
            for tau in (2, np.float32(2), np.int64(2)):
                update = function(policy, reward, tau, *further)
                assert update.policy.dtype == np.float64
                assert_same(update, expected, rtol=0, atol=0)
    one_hot = function(np.array([0, 1]), np.array([1, 0]), 1, *further)
    np.testing.assert_array_equal(one_hot.policy, [0.0, 1.0])


@every_update
def test_float32_policies_are_normalised_well_enough(function):
    policy = np.random.default_rng(0).dirichlet(np.ones(50)).astype(np.float32)
    further = () if FURTHER[function] is None else (0.5 if function is mixed_update else -1.0,)
    update = function(policy, np.arange(50.0), 3.0, *further)
    assert update.policy.dtype == np.float64
    assert abs(update.policy.sum() - 1) < 1e-12


@every_update
def test_inputs_are_neither_modified_nor_shared(function):
    for problem in [batch(7, 4, 5), (np.array([0.5, 0.5]), np.array([1.0, 1.0]), np.array(1.0))]:
        arguments = [np.array(x) for x in arguments_of(function, problem)]
        before = [x.copy() for x in arguments]
        for x in arguments:
            x.setflags(write=False)
        update = function(*arguments)
        for x, y in zip(arguments, before):
            np.testing.assert_array_equal(x, y)
            assert not any(
                np.shares_memory(x, out)
                for out in (update.policy, update.log_ratio, update.chi2_weight, update.baseline)
            )


@every_update
def test_updates_are_deterministic(function):
    arguments = arguments_of(function, batch(8, 30, 9))
    first, second = function(*arguments), function(*arguments)
    assert_same(first, second, rtol=0, atol=0)


@every_update
def test_strided_input_is_the_same_as_contiguous(function):
    policy, reward, tau = batch(9, 6, 5)
    strided = np.asfortranarray(policy), np.repeat(reward, 2, axis=-1)[..., ::2], tau[::-1][::-1]
    expected = function(*arguments_of(function, (policy, reward, tau)))
    assert_same(function(*arguments_of(function, strided)), expected, rtol=1e-13, atol=1e-14)


# --- properties


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


# --- overestimated baselines (Statement 11)


def test_overestimated_baseline_is_only_a_local_minimum():
    """The example of the statement: the principal branch costs .405, mass dumped on the rare action .034."""
    policy, reward, b = np.array([0.001, 0.999]), np.array([0.0, 1.0]), 1.8992
    update = baseline_update(policy, reward, 1.0, b)
    assert update.local
    assert update.chi2_weight < 0
    assert regression_loss(update.policy, policy, reward, 1.0, b) == pytest.approx(0.405, abs=5e-4)
    rare = np.linspace(0.001, 0.999, 99_801)
    dumped = [regression_loss(np.array([x, 1 - x]), policy, reward, 1.0, b) for x in rare[::20]]
    assert min(dumped) == pytest.approx(0.034, abs=5e-4)


@check
@given(problems(smallest_exponent=-4), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_overestimated_baseline_is_a_strict_local_minimum(problem, share, seed):
    policy, reward, tau = problem
    low, high = reference.log_partition(*problem), reference.largest_baseline(*problem)
    b = float(low + (high - low) * share)
    update = baseline_update(policy, reward, tau, b)
    assert update.local
    assert update.chi2_weight < 0
    assert abs(update.policy.sum() - 1) < 1e-12
    s, slope = update.log_ratio, 1 + update.chi2_weight * np.exp(update.log_ratio)
    assert np.all(slope > 0)
    direction = np.random.default_rng(seed).normal(size=len(policy))
    direction -= update.policy @ direction
    curvature = policy @ (direction**2 * slope)
    assert curvature > 0
    step = 1e-3 * slope.min() / (1 + np.abs(direction).max())

    def loss_at(t):
        moved = s + t * direction
        moved = moved - np.log(policy @ np.exp(moved))
        delta = (reward - b) / tau
        return 0.5 * policy @ ((moved - s) * (moved + s - 2 * delta))

    second_difference = (loss_at(step) + loss_at(-step)) / step**2
    noise = EPS * (1 + np.abs((reward - b) / tau).max()) ** 2 / step**2
    assert second_difference == pytest.approx(curvature, rel=0.05, abs=100 * noise)


def test_baseline_beyond_the_largest_is_refused_and_just_below_accepted():
    """The message names the argument and a largest baseline that agrees with high precision."""
    for policy, reward, tau in HARD[:60]:
        largest = reference.largest_baseline(policy, reward, tau)
        size = 1e-9 * (tau + np.abs(reward).max())
        with pytest.raises(ValueError, match="baseline") as error:
            baseline_update(policy, reward, tau, float(largest) + size)
        assert any(abs(x - float(largest)) <= size for x in numbers_in(str(error.value))), (
            str(error.value),
            largest,
        )


def test_the_largest_baseline_named_is_accepted():
    policy, reward, tau = [0.2, 0.3, 0.5], [1.0, 0.0, 0.5], 0.25
    with pytest.raises(ValueError, match="baseline") as error:
        baseline_update(policy, reward, tau, 7.5)
    largest = float(reference.largest_baseline(policy, reward, tau))
    named = min(numbers_in(str(error.value)), key=lambda x: abs(x - largest))
    assert 7.5 in numbers_in(str(error.value))
    assert baseline_update(policy, reward, tau, named).local


def numbers_in(text):
    found = []
    for word in text.replace(",", " ").replace("(", " ").replace(")", " ").split():
        try:
            found.append(float(word.rstrip(".;:")))
        except ValueError:
            continue
    return found
