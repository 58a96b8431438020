"""Special problems, shapes, types and purity of the exact updates."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings

from pmdtheory import Update, baseline_update, kl_update, mixed_update, pmd_mean_update
from pmdtheory.sampled import sampled_update
from tests.problems import all_updates, problems

check = settings(max_examples=60)


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


# --- rewards that are constant up to rounding

ULP = np.spacing(1.0)
CONSTANT = {
    "as first found": ([0.999001, 0.000999], [1 / 1024, 1 / 1024], 1.0),
    "others impossible": ([0.3, 0.7, 0.0, 0.0], [0.1, 0.1, 5.0, -5.0], 0.37),
    "far from zero": ([0.2, 0.3, 0.5], [1e6, 1e6, 1e6], 1e-3),
    "one rounding apart": ([0.25, 0.75], [1.0, 1.0 + ULP], 0.01),
    "one rounding apart, far from zero": ([0.25, 0.75], [1e6, np.nextafter(1e6, 2e6)], 1.0),
    "sums in two orders": ([0.5, 0.5], [0.1 + 0.2, 0.3], 1e-17),
    "many": (np.full(1000, 1e-3), np.full(1000, 0.1), 0.1),
    "float32 probabilities": (np.float32([0.1, 0.2, 0.7]), np.full(3, 1 / 3), 1e-6),
}


@pytest.mark.parametrize(("policy", "reward", "tau"), CONSTANT.values(), ids=CONSTANT)
def test_a_reward_that_is_constant_up_to_rounding_moves_nothing(policy, reward, tau):
    """λ is 0 and nothing is local, whatever rounding did to the baseline."""
    p, r = np.array(policy, float) / np.sum(np.array(policy, float)), np.array(reward, float)
    level = r[p > 0][0]
    near = [p @ r, (p * r).sum(), r[p > 0].mean(), level, *(level + k * np.spacing(level) for k in (-4, -1, 1, 4))]
    updates = [kl_update(p, r, tau), pmd_mean_update(p, r, tau), mixed_update(p, r, tau, 0.0)]
    updates += [baseline_update(p, r, tau, b) for b in near]
    for update in updates:
        assert update.chi2_weight == 0
        assert not update.local
        np.testing.assert_array_equal(update.log_ratio, 0.0)
    actions = np.flatnonzero(p > 0)
    for b in ("mean", "loo_mean", "log_partition", "loo_log_partition", *near):
        update = sampled_update(p, actions, r[actions], tau, b)
        assert update.chi2_weight == 0
        assert not update.local
        np.testing.assert_allclose(update.policy, p, rtol=1e-13)


@pytest.mark.parametrize(("policy", "reward", "tau"), CONSTANT.values(), ids=CONSTANT)
def test_lambda_falls_through_a_constant_reward(policy, reward, tau):
    """λ = (r − b)/τ on either side of the reward, 0 between, in order."""
    p = np.array(policy, float) / np.sum(np.array(policy, float))
    level = np.array(reward)[p > 0][0]
    distances = [x for x in (1.0, 1e3 * tau, 0.9 * tau, 1e-3 * tau) if x > 1e-12 * level]
    above = [x for x in distances if x < tau]  # where a solution exists
    offsets = np.array([*(-x for x in distances), -2e-16 * level, 0.0, 2e-16 * level, *above[::-1]])
    weight = np.array([baseline_update(p, reward, tau, b).chi2_weight for b in level + np.sort(offsets)])
    assert np.all(np.diff(weight) <= 0)
    expected = np.where(np.abs(offsets) < 1e-15 * level, 0.0, -offsets / tau)
    np.testing.assert_allclose(weight, np.sort(expected)[::-1], rtol=1e-3, atol=1e-300)


def test_a_long_row_takes_little_more_than_its_result():
    """Two arrays in, two out: at most the size of three inputs while it runs."""
    rng = np.random.default_rng(10)
    policy, reward = rng.dirichlet(np.ones(1_000_000)), rng.normal(size=1_000_000)
    tracemalloc.start()
    pmd_mean_update(policy, reward, 0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * (policy.nbytes + reward.nbytes)
