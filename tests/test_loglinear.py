"""The log-linear policy against the exact updates, finite differences, closed forms and a second optimiser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, minimize
from scipy.special import lambertw

from pmdtheory import baseline_update, kl_update, pmd_mean_update
from pmdtheory.bandit import Bandit
from pmdtheory.baselines import BASELINES, loo_mean
from pmdtheory.loglinear import (
    Adam,
    LogLinear,
    Regression,
    fit,
    gradient_steps,
    iterate,
    population_regression,
    sampled_regression,
)
from pmdtheory.sampled import sampled_loss, sampled_update

prop = settings(max_examples=40)


def tabular(policy):
    """One θ for each pair of context and action."""
    C, K = policy.shape
    return LogLinear(np.eye(C * K).reshape(C, K, C * K), policy)


def random_problem(rng, C=3, K=5, d=4, n=6):
    """A model, a stale policy of its family, rollouts of that policy, their rewards."""
    model = LogLinear(rng.normal(size=(C, K, d)), rng.dirichlet(np.ones(K), C))
    old = model.at(0.3 * rng.normal(size=d))
    actions = np.array([rng.choice(K, n, p=p) for p in old])
    return model, old, actions, rng.random((C, n))


def loss_by_hand(model, theta, old, actions, target):
    """Mean of ½ (log π_θ(y) − log π_old(y) − target)², one rollout at a time."""
    total = 0.0
    for x, row in enumerate(actions):
        weights = [p * np.exp(theta @ phi) for p, phi in zip(model.policy[x], model.features[x])]
        for i, y in enumerate(row):
            total += (np.log(weights[y] / sum(weights)) - np.log(old[x, y]) - target[x, i]) ** 2 / 2
    return total / actions.size


# --- the loss and its derivatives -----------------------------------------------------------------


@pytest.mark.parametrize("estimator", [name for name, baseline in BASELINES.items() if not baseline.needs_target])
def test_loss_is_the_mean_over_rollouts_up_to_a_constant(estimator):
    rng = np.random.default_rng(0)
    model, old, actions, rewards = random_problem(rng)
    tau = 0.3
    target = (rewards - BASELINES[estimator](rewards, tau)) / tau
    regression = sampled_regression(old, actions, rewards, tau, estimator)
    thetas = rng.normal(size=(5, 4))
    by_hand = np.array([loss_by_hand(model, theta, old, actions, target) for theta in thetas])
    np.testing.assert_allclose(np.ptp(regression.loss(model, thetas) - by_hand), 0, atol=1e-12)


@prop
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.5, 5.0]))
def test_derivatives_are_those_of_the_loss(seed, tau):
    rng = np.random.default_rng(seed)
    model, old, actions, rewards = random_problem(rng)
    regression = sampled_regression(old, actions, rewards, tau)
    theta, h = rng.normal(size=4), 1e-5
    ahead, behind = theta + h * np.eye(4), theta - h * np.eye(4)
    slope = (regression.loss(model, ahead) - regression.loss(model, behind)) / (2 * h)
    bend = (regression.gradient(model, ahead) - regression.gradient(model, behind)) / (2 * h)
    scale = 1 + regression.loss(model, theta)
    np.testing.assert_allclose(regression.gradient(model, theta), slope, atol=1e-8 * scale)
    np.testing.assert_allclose(regression.hessian(model, theta), bend, atol=1e-8 * scale)


def test_minibatches_average_to_the_batch():
    rng = np.random.default_rng(1)
    model, old, actions, rewards = random_problem(rng)
    part = rng.permutation(np.arange(actions.size) % 6).reshape(actions.shape)
    whole, pieces = (sampled_regression(old, actions, rewards, 0.2, part=p) for p in (None, part))
    assert pieces.weight.shape == (6, *old.shape)
    theta = rng.normal(size=4)
    np.testing.assert_allclose(
        pieces.gradient(model, theta).mean(axis=0), whole.gradient(model, theta), rtol=1e-12, atol=1e-14
    )


# --- converged fits -------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0, 10.0])
def test_population_fit_with_a_theta_for_every_pair_is_the_exact_update(tau):
    rng = np.random.default_rng(2)
    policy, reward = rng.dirichlet(np.ones(6), 4), rng.random((4, 6))
    model = tabular(policy)
    theta = fit(model, population_regression(policy, reward, tau))
    np.testing.assert_allclose(model.at(theta), pmd_mean_update(policy, reward, tau).policy, atol=1e-8)
    mean, partition = (policy * reward).sum(axis=-1), kl_update(policy, reward, tau).baseline
    for b in (mean - 2 * tau, (mean + partition) / 2):
        theta = fit(model, population_regression(policy, reward, tau, b))
        np.testing.assert_allclose(model.at(theta), baseline_update(policy, reward, tau, b).policy, atol=1e-8)


def test_population_fit_with_the_log_partition_needs_only_the_reward_as_a_feature():
    rng = np.random.default_rng(3)
    policy, reward = rng.dirichlet(np.ones(6), 4), rng.random((4, 6))
    ideal = kl_update(policy, reward, 0.2)
    model = LogLinear(reward[..., None], policy)
    theta = fit(model, population_regression(policy, reward, 0.2, ideal.baseline))
    np.testing.assert_allclose(theta, [1 / 0.2], rtol=1e-9)


@pytest.mark.parametrize("case", ["m < 1", "m > 1"])
def test_tabular_fit_is_the_exact_sampled_update(case):
    """Statement 14 (a) and (b), seen actions; unseen mass as a whole."""
    rng = np.random.default_rng(14)
    found = 0
    while found < 15:
        policy = rng.dirichlet(np.ones(8), 1)
        actions, tau = rng.choice(8, (1, 6), p=policy[0]), rng.uniform(0.1, 1)
        rollouts = actions, rng.random(8)[actions], tau, rng.uniform(0, 1)
        exact = sampled_update(policy, *rollouts)
        if (exact.chi2_weight[0] > 0) != (case == "m > 1"):
            continue
        found += 1
        model, regression = tabular(policy), sampled_regression(policy, *rollouts)
        fitted = np.where(regression.weight > 0, model.at(fit(model, regression)), 0.0)
        np.testing.assert_allclose(fitted, np.where(regression.weight > 0, exact.policy, 0.0), atol=1e-7)


def test_with_everything_seen_no_fit_beats_the_exact_sampled_update():
    """Statement 14 (c): not convex, the best of many starts is the global minimum."""
    rng = np.random.default_rng(4)
    for _ in range(4):
        policy, actions = rng.dirichlet(3 * np.ones(4), 1), np.repeat(np.arange(4), [1, 3, 5, 9])[None]
        rollouts = actions, rng.random(4)[actions], 0.5, 1.0 + rng.random()
        exact, model = sampled_update(policy, *rollouts), tabular(policy)
        assert exact.chi2_weight[0] < 0
        starts = np.concatenate([8 * np.eye(4), np.zeros((1, 4))])
        q = model.at(fit(model, sampled_regression(policy, *rollouts), starts))
        losses = [sampled_loss(policy, each, *rollouts)[0] for each in q]
        np.testing.assert_allclose(min(losses), sampled_loss(policy, exact.policy, *rollouts)[0], rtol=1e-9)


def test_fit_in_few_dimensions_agrees_with_bfgs_from_many_starts():
    rng = np.random.default_rng(5)
    for tau in (0.1, 1.0):
        model, old, actions, rewards = random_problem(rng, C=6, n=10)
        regression = sampled_regression(old, actions, rewards, tau, "loo_log_partition")
        starts = rng.normal(size=(8, 4))
        least = min(minimize(lambda x, *of: of[0].loss(of[1], x), x, (regression, model)).fun for x in starts)
        theta = fit(model, regression, np.concatenate([np.zeros((1, 4)), rng.normal(size=(7, 4))]))
        np.testing.assert_allclose(regression.loss(model, theta).min(), least, rtol=1e-6)


def test_features_of_the_context_alone_change_nothing():
    rng = np.random.default_rng(6)
    model, old, actions, rewards = random_problem(rng)
    of_context = np.repeat(rng.normal(size=(3, 1, 2)), 5, axis=1)
    wider = LogLinear(np.concatenate([model.features, of_context], axis=-1), model.policy)
    regression = sampled_regression(old, actions, rewards, 0.3)
    np.testing.assert_allclose(wider.at(fit(wider, regression)), model.at(fit(model, regression)), atol=1e-8)


def test_fit_reports_that_it_did_not_converge():
    rng = np.random.default_rng(7)
    model, old, actions, rewards = random_problem(rng)
    with pytest.raises(FloatingPointError, match=r"gradient norm .* after max_steps = 2"):
        fit(model, sampled_regression(old, actions, rewards, 0.1), max_steps=2)


# --- where the free mass of Statement 14 (a) goes -------------------------------------------------

POLICY = np.array([[0.2, 0.1, 0.4, 0.05, 0.25]])
ROLLOUTS = np.array([[0, 1, 1]]), np.array([[1.0, 0.0, 0.0]]), 1.0, 0.9


def test_gradient_flow_ends_where_the_softmax_rule_says():
    model, regression = tabular(POLICY), sampled_regression(POLICY, *ROLLOUTS)
    flow = solve_ivp(
        lambda t, theta: -regression.gradient(model, theta), (0, 2000), np.zeros(5), rtol=1e-10, atol=1e-12
    )
    exact = sampled_update(POLICY, *ROLLOUTS, unseen="softmax")
    np.testing.assert_allclose(model.at(flow.y[:, -1]), exact.policy, atol=1e-8)
    repeated = Regression(*(np.broadcast_to(x, (4000, *x.shape)) for x in regression))
    theta = gradient_steps(model, np.zeros(5), repeated, lambda theta, gradient: theta - 0.2 * gradient)
    np.testing.assert_allclose(model.at(theta), exact.policy, atol=2e-3)
    assert np.abs(exact.policy - sampled_update(POLICY, *ROLLOUTS).policy).max() > 5e-3


def test_a_vanishing_ridge_gives_the_least_norm_rule():
    """θ = −W(−η p) on unseen actions and Σ θ = 0, as the module docstring derives."""
    model, regression = tabular(POLICY), sampled_regression(POLICY, *ROLLOUTS)
    q = sampled_update(POLICY, *ROLLOUTS).policy[0]
    p, d, unseen = POLICY[0], np.log(q[:2] / POLICY[0, :2]), [2, 3, 4]

    def theta_at(eta):
        theta = -lambertw(-eta * p[unseen]).real
        shift = np.log(p[unseen] @ np.exp(theta) / q[unseen].sum())
        return np.concatenate([d + shift, theta])

    least = theta_at(brentq(lambda eta: theta_at(eta).sum(), -5, 0.9))
    assert np.abs(least[unseen]).max() > 0.01
    np.testing.assert_allclose(np.exp(least[:2]) * p[:2] / (p @ np.exp(least)), q[:2], rtol=1e-12)
    np.testing.assert_allclose(fit(model, regression, ridge=1e-7), least, atol=1e-5)


def test_at_small_tau_the_flow_and_the_fit_stall_with_the_unseen_action_squeezed_out():
    """The exact minimiser leaves it 5%; on the plateau its mass is 0 and the loss w/2 log(0.95)² of the best action."""
    policy, tau = np.array([[0.9, 0.098, 0.002]]), 0.02
    rewards = np.repeat([[0.0, 1.0]], [9, 1], axis=1)
    rollouts = rewards.astype(int), rewards, tau, 1 - tau * np.log(0.95 / 0.098)
    exact = sampled_update(policy, *rollouts)
    np.testing.assert_allclose(exact.policy[0, 2], 0.05, rtol=1e-6)
    assert sampled_loss(policy, exact.policy, *rollouts)[0] < 1e-20
    model, regression = tabular(policy), sampled_regression(policy, *rollouts)
    flow = solve_ivp(lambda t, theta: -regression.gradient(model, theta), (0, 1e4), np.zeros(3), "LSODA", rtol=1e-8)
    for theta in (flow.y[:, -1], fit(model, regression)):
        assert model.at(theta)[0, 2] < 1e-8
        np.testing.assert_allclose(regression.loss(model, theta), 0.1 / 2 * np.log(0.95) ** 2, rtol=1e-4)


# --- gradient steps and training ------------------------------------------------------------------


def step_of(estimator, tau, learning_rate):
    rng = np.random.default_rng(8)
    model, _, actions, rewards = random_problem(rng)
    batch = sampled_regression(model.policy, actions, rewards, tau, estimator, np.zeros(actions.shape, dtype=int))
    return gradient_steps(model, np.zeros(4), batch, lambda theta, gradient: theta - learning_rate * gradient)


def test_one_update_a_batch_makes_tau_a_step_size_under_a_mean_baseline_only():
    """At θ = θ_old the log-ratio is 0 and the gradient REINFORCE over τ."""
    for estimator in ("mean", "loo_mean"):
        np.testing.assert_allclose(step_of(estimator, 0.1, 0.1), step_of(estimator, 2.0, 2.0), rtol=1e-12)
    cold, warm = step_of("loo_log_partition", 0.1, 0.1), step_of("loo_log_partition", 2.0, 2.0)
    assert np.linalg.norm(cold - warm) > 0.1 * np.linalg.norm(warm)


def test_adam_takes_a_first_step_of_its_rate_and_settles_in_a_minimum():
    adam = Adam(0.1)
    np.testing.assert_allclose(adam(np.zeros(2), np.array([5.0, -1e-3])), [-0.1, 0.1], rtol=1e-4)
    theta, adam = np.array([3.0, -2.0]), Adam(0.1)
    for _ in range(2000):
        theta = adam(theta, np.array([10.0, 0.1]) * (theta - 1))
    np.testing.assert_allclose(theta, 1, atol=1e-3)


def bandits(model, runs=3, seed=0):
    rng = np.random.default_rng(seed)
    return [Bandit(rng.random(model.policy.shape)) for _ in range(runs)]


@pytest.mark.parametrize("updates", [None, 1, 4])
def test_runs_do_not_depend_on_each_other(updates):
    model = random_problem(np.random.default_rng(9))[0]
    options = {"rollouts": 8, "updates": updates, "staleness": 1}
    three = iterate(model, bandits(model), 0.3, 4, **options)
    two = iterate(model, bandits(model)[:2], 0.3, 4, **options)
    assert three.shape == (5, 3, 4)
    np.testing.assert_array_equal(three[:, :2], two)
    assert np.ptp(three[-1], axis=0).min() > 1e-3


def test_large_batches_follow_the_exact_recursion():
    policy = np.array([[0.5, 0.3, 0.2]])
    bandit = Bandit([[0.0, 0.4, 1.0]])
    theta = iterate(tabular(policy), [bandit] * 2, 0.5, 3, rollouts=200_000, ridge=0.0)
    for step in range(3):
        policy = pmd_mean_update(policy, bandit.reward, 0.5).policy
        np.testing.assert_allclose(tabular(np.array([[0.5, 0.3, 0.2]])).at(theta[step + 1, 0]), policy, atol=5e-3)


def test_stale_rollouts_are_measured_against_the_policy_that_drew_them():
    """With many rollouts two batches of lag 1 both start from π_0 and ask for the same policy."""
    policy = np.array([[0.5, 0.3, 0.2]])
    model, bandit = tabular(policy), Bandit([[0.0, 0.4, 1.0]])
    theta = iterate(model, [bandit], 0.5, 3, rollouts=200_000, ridge=0.0, staleness=1)
    once = pmd_mean_update(policy, bandit.reward, 0.5).policy
    for step, expected in ((1, once), (2, once), (3, pmd_mean_update(once, bandit.reward, 0.5).policy)):
        np.testing.assert_allclose(model.at(theta[step, 0]), expected, atol=5e-3)


def test_schedule_gets_the_weight_measured_on_the_rollouts():
    """With many rollouts and a θ for every pair it is PMD-mean's λ; a τ for each run is used by that run."""
    policy, bandit, seen = np.array([[0.5, 0.3, 0.2]]), Bandit([[0.0, 0.4, 1.0]]), []

    def schedule(tau, weight):
        seen.append((tau, weight))
        return tau * [1.0, 2.0]

    theta = iterate(tabular(policy), [bandit] * 2, 0.5, 2, rollouts=200_000, ridge=0.0, schedule=schedule)
    expected = pmd_mean_update(policy, bandit.reward, 0.5)
    np.testing.assert_allclose(seen[0][1], np.repeat(expected.chi2_weight, 2), atol=5e-3)
    np.testing.assert_array_equal(seen[1][0], [0.5, 1.0])
    for run, tau in enumerate([0.5, 1.0]):
        policy = pmd_mean_update(expected.policy, bandit.reward, tau).policy
        np.testing.assert_allclose(tabular(np.array([[0.5, 0.3, 0.2]])).at(theta[2, run]), policy, atol=5e-3)


def test_temperatures_and_estimators_of_ones_own():
    model = random_problem(np.random.default_rng(9))[0]
    own = iterate(
        model, bandits(model, 2), [0.3, 0.6], 3, rollouts=8, updates=2, estimator=lambda rewards, tau: loo_mean(rewards)
    )
    for run, tau in enumerate((0.3, 0.6)):
        alone = iterate(model, bandits(model, 2), tau, 3, rollouts=8, updates=2)
        np.testing.assert_array_equal(own[:, run], alone[:, run])


# --- bad input ------------------------------------------------------------------------------------

MODEL = LogLinear(np.ones((2, 3, 1)), np.full((2, 3), 1 / 3))
BATCH = np.zeros((2, 2), dtype=int), np.zeros((2, 2)), 1.0
TRAINING = {"model": MODEL, "bandits": [Bandit(np.zeros((2, 3)))], "tau": 1.0, "steps": 1, "rollouts": 2}


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("features", lambda: LogLinear(np.ones((2, 3)), np.full((2, 3), 1 / 3))),
        ("features", lambda: LogLinear(np.full((2, 3, 1), np.nan), np.full((2, 3), 1 / 3))),
        ("policy", lambda: LogLinear(np.ones((2, 3, 1)), np.full((2, 2), 1 / 2))),
        ("policy", lambda: LogLinear(np.ones((2, 3, 1)), np.ones((2, 3)))),
        ("theta", lambda: MODEL.at([1.0, 2.0])),
        ("tau", lambda: population_regression(MODEL.policy, np.zeros((2, 3)), 0.0)),
        ("policy", lambda: sampled_regression([0.5, 0.5], [0, 1], [0.0, 1.0], 1.0)),
        ("actions", lambda: sampled_regression(MODEL.policy, [[0, 3], [0, 1]], *BATCH[1:])),
        ("part", lambda: sampled_regression(MODEL.policy, *BATCH, part=[[0, 1]])),
        ("part", lambda: sampled_regression(MODEL.policy, *BATCH, part=[[0, -1], [0, 0]])),
        ("regression", lambda: fit(MODEL, population_regression([[0.5, 0.5]], [[0.0, 1.0]], 1.0))),
        ("start", lambda: fit(MODEL, sampled_regression(MODEL.policy, *BATCH), start=[0.0, 0.0])),
        ("ridge", lambda: fit(MODEL, sampled_regression(MODEL.policy, *BATCH), ridge=-1.0)),
        ("regressions", lambda: gradient_steps(MODEL, [0.0], Regression(np.ones((1, 2, 2)), np.ones((1, 2, 2))), None)),
        ("learning_rate", lambda: Adam(0.0)),
        ("tau", lambda: iterate(**TRAINING | {"tau": [1.0, 1.0]})),
        ("steps", lambda: iterate(**TRAINING | {"steps": -1})),
        ("rollouts", lambda: iterate(**TRAINING | {"rollouts": 0})),
        ("updates", lambda: iterate(**TRAINING, updates=5)),
        ("updates", lambda: iterate(**TRAINING, updates=0)),
        ("staleness", lambda: iterate(**TRAINING, staleness=1.5)),
        ("bandits", lambda: iterate(**TRAINING | {"bandits": [Bandit(np.zeros((2, 2)))]})),
        ("baseline", lambda: iterate(**TRAINING, estimator="median")),
    ],
)
def test_bad_input_names_the_argument(argument, call):
    with pytest.raises(ValueError, match=rf"^{argument} "):
        call()
