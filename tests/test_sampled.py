"""The exact sampled update against many-start optimisation, gradient flows, closed forms and the population update."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from pmdtheory import pmd_mean_update
from pmdtheory.baselines import BASELINES, estimate
from pmdtheory.divergences import kl
from pmdtheory.sampled import UNSEEN_RULES, sampled_loss, sampled_update

NAMED = [name for name, baseline in BASELINES.items() if not baseline.needs_target]
prop = settings(max_examples=60)


def from_targets(policy, counts, targets, **options):
    """Update for `counts` copies of each action whose mean target is exactly `targets`, and its rollouts."""
    actions = np.repeat(np.arange(len(policy)), counts)
    rollouts = actions, np.asarray(targets, dtype=float)[actions], 1.0, 0.0
    return sampled_update(policy, *rollouts, **options), rollouts


def loss_and_slope(logits, policy, weights, targets):
    """Regression loss of softmax(logits), and its gradient; written apart from the package."""
    log_q = logits - np.logaddexp.reduce(logits)
    residual = np.where(weights > 0, log_q - np.log(policy) - targets, 0.0)
    pull = weights * residual
    return 0.5 * pull @ residual, pull - np.exp(log_q) * pull.sum()


def least_loss(policy, weights, targets, rng, starts=60):
    """Least loss that L-BFGS finds from random logits, from p and from a policy dumped on each action."""
    K = len(policy)
    logits = [np.log(policy), *(np.log(policy) + 12 * np.eye(K)), *rng.normal(scale=4, size=(starts, K))]
    options = {"ftol": 1e-15, "gtol": 1e-10}
    fits = [
        minimize(loss_and_slope, x, (policy, weights, targets), jac=True, method="L-BFGS-B", options=options)
        for x in logits
    ]
    return min(fit.fun for fit in fits)


def assert_stationary(update, policy, weights, targets):
    """s + μ q/w = d on the seen actions, Σ q = 1, and at most one negative curvature."""
    seen = weights > 0
    ratio = update.policy[seen] / weights[seen]
    d = np.asarray(targets)[seen]
    tolerance = 1e-12 * (1 + np.abs(d).max())
    np.testing.assert_allclose(update.log_ratio[seen] + update.chi2_weight * ratio, d, atol=tolerance)
    assert abs(np.sum(policy * np.exp(update.log_ratio)) - 1) < 1e-13
    assert np.sum(1 + update.chi2_weight * ratio < 0) <= 1


# --- the three cases against brute force ----------------------------------------------------------


def problem(rng, case):
    K = int(rng.integers(2, 6))
    policy = rng.dirichlet(np.ones(K))
    counts = rng.integers(1, 30, K)
    if case.startswith("unseen"):
        counts[rng.integers(K)] = 0
    seen = counts > 0
    targets = np.where(seen, rng.normal(size=K), 0.0)
    log_m = np.log(policy[seen] @ np.exp(targets[seen]))
    wanted = {"too much": 1, "unseen, too much": 1, "unseen": -1, "too little": -1}[case] * 4 * rng.random() ** 2
    return policy, counts, np.where(seen, targets - log_m + wanted, 0.0)


@pytest.mark.parametrize("case", ["unseen", "unseen, too much", "too much", "too little"])
def test_no_start_of_an_optimiser_finds_less_loss(case):
    rng = np.random.default_rng(14)
    for _ in range(6 if case != "too little" else 14):
        policy, counts, targets = problem(rng, case)
        weights = counts / counts.sum()
        update, rollouts = from_targets(policy, counts, targets)
        loss = sampled_loss(policy, update.policy, *rollouts)
        found = least_loss(policy, weights, targets, rng)
        # Where unseen mass must vanish, finite logits only come close to the infimum.
        assert loss <= found + 1e-9 * (1 + found), (policy, counts, targets)
        assert found <= loss + (1e-4 if case == "unseen, too much" else 1e-6) * (1 + loss), (policy, counts, targets)
        assert_stationary(update, policy, weights, targets)
        assert np.sign(update.chi2_weight) == {"unseen": 0, "too little": -1}.get(case, 1)
        assert not update.local


def test_nonconvex_case_agrees_with_a_scan_of_all_two_action_policies():
    rng = np.random.default_rng(2)
    u = np.linspace(-150, 150, 300_001)  # logit of the first action
    log_q = -np.logaddexp(0, -u), -np.logaddexp(0, u)
    dumped = 0
    for _ in range(40):
        counts, policy = rng.integers(1, 200, 2), rng.dirichlet(np.ones(2))
        targets = rng.normal(size=2)
        targets -= np.log(policy @ np.exp(targets)) + rng.exponential() * rng.choice([0.3, 3, 20])
        update, rollouts = from_targets(policy, counts, targets)
        weights = counts / counts.sum()
        scan = min(sum(w * (x - np.log(p) - d) ** 2 / 2 for w, x, p, d in zip(weights, log_q, policy, targets)))
        loss = sampled_loss(policy, update.policy, *rollouts)
        assert loss <= scan * (1 + 1e-12)
        assert scan - loss <= 1e-6 * (1 + loss)
        dumped += np.any(1 + update.chi2_weight * update.policy / weights < 0)
    assert 8 < dumped < 40  # both kinds of solution were tried


def test_the_dump_need_not_go_where_p_exp_d_over_w_is_largest():
    policy, weights, wanted = np.array([0.5, 0.5]), np.array([0.1, 0.9]), np.array([0.001, 0.0099])
    targets = np.log(wanted / policy)
    update, _ = from_targets(policy, [1, 9], targets)
    assert np.argmax(wanted / weights) == 1
    assert update.policy[0] > 0.98
    assert_stationary(update, policy, weights, targets)


def test_at_most_one_action_is_dumped_on_and_no_other_dump_is_better():
    """Dump candidates found by brute bisection on each coordinate never beat the returned one; many actions."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        K = 30
        policy, counts = rng.dirichlet(np.ones(K)), rng.integers(1, 6, K)
        targets = rng.normal(size=K)
        targets -= np.log(policy @ np.exp(targets)) + 3 * rng.random()
        update, rollouts = from_targets(policy, counts, targets)
        weights = counts / counts.sum()
        assert_stationary(update, policy, weights, targets)
        loss = sampled_loss(policy, update.policy, *rollouts)
        for k in range(K):
            start = np.log(policy * np.exp(targets))
            start[k] = np.log(1 - np.exp(start).sum() + np.exp(start[k]))
            fit = minimize(loss_and_slope, start, (policy, weights, targets), jac=True, method="L-BFGS-B")
            assert loss <= fit.fun * (1 + 1e-10)


# --- m < 1 with unseen actions: exact fit and the two rules ---------------------------------------


UNSEEN = np.array([0.15, 0.25, 0.05, 0.1, 0.45]), np.array([3, 1, 0, 0, 0]), np.array([0.7, -0.9, 0, 0, 0])


@pytest.mark.parametrize("rule", UNSEEN_RULES)
def test_targets_are_fitted_exactly_and_the_mass_is_complete(rule):
    policy, counts, targets = UNSEEN
    update, rollouts = from_targets(policy, counts, targets, unseen=rule)
    np.testing.assert_allclose(update.log_ratio[:2], targets[:2], atol=1e-15)
    np.testing.assert_allclose(update.policy.sum(), 1, atol=1e-15)
    np.testing.assert_allclose(policy * np.exp(update.log_ratio), update.policy, rtol=1e-14)
    assert sampled_loss(policy, update.policy, *rollouts) < 1e-28
    assert update.chi2_weight == 0


def test_proportional_rule_minimises_both_divergences_from_p():
    policy, counts, targets = UNSEEN
    update, _ = from_targets(policy, counts, targets)
    np.testing.assert_allclose(np.ptp(update.log_ratio[2:]), 0, atol=1e-15)
    q = cp.Variable(5)
    fitted = [q[:2] == policy[:2] * np.exp(targets[:2]), cp.sum(q) == 1]
    for divergence in (cp.sum(cp.kl_div(q, policy)), cp.sum(cp.kl_div(policy, q))):
        cp.Problem(cp.Minimize(divergence), fitted).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(q.value, update.policy, atol=1e-5)


def flow(policy, weights, targets, rule, until):
    """Where the named gradient flow on logits, started at log p, is at time `until`."""

    def velocity(_, logits):
        slope = -loss_and_slope(logits, policy, weights, targets)[1]
        if rule == "softmax":
            return slope
        # The Fisher matrix F = diag q − q qᵀ maps slope/q to slope, as the entries of slope sum to 0.
        return slope / np.exp(logits - np.logaddexp.reduce(logits))

    end = solve_ivp(velocity, (0, until), np.log(policy), method="LSODA", rtol=1e-10, atol=1e-12).y[:, -1]
    return np.exp(end - np.logaddexp.reduce(end))


@pytest.mark.parametrize("rule", UNSEEN_RULES)
@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.25])
def test_flows_from_p_end_where_the_rules_say(rule, shift):
    policy, counts, targets = UNSEEN
    targets = targets + shift * (counts > 0)
    weights = counts / counts.sum()
    update, _ = from_targets(policy, counts, targets, unseen=rule)
    np.testing.assert_allclose(flow(policy, weights, targets, rule, 2000.0), update.policy, atol=1e-7)


def test_rules_differ_unless_unseen_actions_are_equally_likely():
    policy, counts, targets = UNSEEN
    ends = [from_targets(policy, counts, targets, unseen=rule)[0].policy for rule in UNSEEN_RULES]
    assert np.abs(ends[0] - ends[1]).max() > 1e-3
    even = np.array([0.15, 0.25, 0.2, 0.2, 0.2])
    ends = [from_targets(even, counts, targets, unseen=rule)[0].policy for rule in UNSEEN_RULES]
    np.testing.assert_allclose(*ends, rtol=1e-13)
    assert kl(from_targets(policy, counts, targets)[0].policy, policy) > 0


@pytest.mark.parametrize("rule", UNSEEN_RULES)
def test_flows_lose_the_unseen_mass_where_the_targets_ask_for_more_than_one(rule):
    policy, counts, targets = UNSEEN
    targets = targets + 1.5 * (counts > 0)
    update, _ = from_targets(policy, counts, targets, unseen=rule)
    assert np.all(update.policy[2:] == 0)
    assert np.all(update.log_ratio[2:] == -np.inf)
    time = {"proportional": 100.0, "softmax": 1e5}[rule]  # exponential against 1/t decay
    np.testing.assert_allclose(flow(policy, counts / counts.sum(), targets, rule, time), update.policy, atol=1e-4)


def test_softmax_rule_over_many_magnitudes_conserves_what_the_flow_conserves():
    """Σ (θ − log p) = 0 and one common movement of e^{−θ} on the unseen, with θ recovered from q alone."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        policy = rng.dirichlet(np.full(40, 0.3)) + 1e-9
        policy /= policy.sum()
        counts = np.r_[rng.integers(1, 5, 6), np.zeros(34, dtype=int)]
        targets = np.r_[rng.normal(size=6) - rng.choice([2, 0.3, 8]), np.zeros(34)]
        if policy @ np.where(counts > 0, np.exp(targets), 0.0) >= 1:
            continue
        update, _ = from_targets(policy, counts, targets, unseen="softmax")
        theta = np.log(policy) + update.log_ratio - update.log_ratio.mean()
        moved = np.exp(-theta[6:]) - 1 / policy[6:]
        np.testing.assert_allclose(moved, moved[0], atol=1e-12 / policy[6:].min())
        assert_stationary(update, policy, counts / counts.sum(), targets)


# --- relations ------------------------------------------------------------------------------------


def test_one_copy_in_proportion_to_p_gives_pmd_mean_itself():
    policy, reward, tau = np.array([0.2, 0.3, 0.1, 0.4]), np.array([1.0, 0.3, -0.7, 0.2]), 0.3
    actions = np.repeat(np.arange(4), [2, 3, 1, 4])
    update, exact = sampled_update(policy, actions, reward[actions], tau, "mean"), pmd_mean_update(policy, reward, tau)
    np.testing.assert_allclose(update.policy, exact.policy, rtol=1e-13)
    np.testing.assert_allclose(update.log_ratio, exact.log_ratio, atol=1e-14)
    np.testing.assert_allclose([update.chi2_weight, update.baseline], [exact.chi2_weight, exact.baseline], rtol=1e-12)


def test_population_update_is_the_limit_at_rate_one_over_root_n():
    rng = np.random.default_rng(3)
    policy, reward, tau = rng.dirichlet(np.ones(8) * 3), rng.random(8), 0.4
    exact, error = pmd_mean_update(policy, reward, tau).policy, {}
    for n in (400, 40_000):
        actions = rng.choice(8, size=(40, n), p=policy)
        noisy = reward[actions] + rng.normal(scale=0.2, size=actions.shape)
        error[n] = np.abs(sampled_update(policy, actions, noisy, tau).policy - exact).sum(axis=-1).mean()
    assert error[40_000] < 0.02
    assert 5 < error[400] / error[40_000] < 20  # 10 expected


@pytest.mark.parametrize("baseline", NAMED)
def test_batch_is_the_loop_and_the_order_of_rollouts_does_not_matter(baseline):
    rng = np.random.default_rng(11)
    policy = rng.dirichlet(np.ones(6), size=(30, 1))
    actions = np.stack([rng.choice(6, size=(2, 24), p=p[0]) for p in policy])
    rewards, tau = rng.normal(size=actions.shape), rng.uniform(0.2, 2, size=(30, 1))
    order = rng.permutation(24)
    for rule in UNSEEN_RULES:
        batch = sampled_update(policy, actions, rewards, tau, baseline, rule)
        assert batch.policy.shape == (30, 2, 6)
        assert batch.chi2_weight.shape == batch.baseline.shape == batch.local.shape == (30, 2)
        shuffled = sampled_update(policy, actions[..., order], rewards[..., order], tau, baseline, rule)
        np.testing.assert_allclose(shuffled.policy, batch.policy, atol=1e-12)
        for i, j in np.ndindex(30, 2):
            one = sampled_update(policy[i, 0], actions[i, j], rewards[i, j], tau[i, 0], baseline, rule)
            for name in ("policy", "log_ratio", "chi2_weight", "baseline"):
                np.testing.assert_allclose(getattr(one, name), getattr(batch, name)[i, j], atol=1e-12)


def test_batch_is_the_loop_in_the_nonconvex_case():
    rng = np.random.default_rng(8)
    policy = rng.dirichlet(np.ones(5), size=50)
    actions = np.concatenate([np.tile(np.arange(5), (50, 1)), rng.integers(0, 5, (50, 9))], axis=1)
    rewards = rng.normal(size=actions.shape) - rng.exponential(2, size=(50, 1)) - 1
    batch = sampled_update(policy, actions, rewards, 1.0, np.zeros(50))
    assert (batch.chi2_weight < 0).sum() > 20
    for i in range(50):
        one = sampled_update(policy[i], actions[i], rewards[i], 1.0, 0.0)
        np.testing.assert_allclose(one.policy, batch.policy[i], atol=1e-13)


def test_noisy_copies_count_through_their_mean_only():
    policy, actions = [0.3, 0.3, 0.4], [0, 0, 1, 1, 1]
    noisy = sampled_update(policy, actions, [1.0, 0.0, 0.2, 0.4, 0.9], 0.5, 0.3)
    mean = sampled_update(policy, actions, [0.5, 0.5, 0.5, 0.5, 0.5], 0.5, 0.3)
    np.testing.assert_allclose(noisy.policy, mean.policy, atol=1e-15)


def test_baselines_by_name_by_context_and_by_rollout_agree():
    rng = np.random.default_rng(1)
    policy, actions, rewards = rng.dirichlet(np.ones(4), 3), rng.integers(0, 4, (3, 6)), rng.normal(size=(3, 6))
    named = sampled_update(policy, actions, rewards, 0.7, "loo_mean")
    given_array = sampled_update(policy, actions, rewards, 0.7, estimate("loo_mean", rewards, 0.7))
    np.testing.assert_array_equal(named.policy, given_array.policy)
    np.testing.assert_allclose(named.baseline, rewards.mean(axis=-1), atol=1e-15)
    named = sampled_update(policy, actions, rewards, 0.7, "mean")
    by_context = sampled_update(policy, actions, rewards, 0.7, rewards.mean(axis=-1))
    np.testing.assert_allclose(by_context.policy, named.policy, atol=1e-14)


@pytest.mark.parametrize("rule", UNSEEN_RULES)
@pytest.mark.parametrize("baseline", NAMED)
def test_equal_rewards_leave_everything_unchanged(baseline, rule):
    policy = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    for actions in ([0, 1, 1, 2], [0, 1, 2, 3, 3]):
        update = sampled_update(policy, actions, np.full(len(actions), 0.7), 1e-2, baseline, rule)
        np.testing.assert_allclose(update.policy, policy, atol=1e-15)
        np.testing.assert_allclose(update.log_ratio, 0, atol=1e-15)
        assert update.chi2_weight == 0


def test_m_exactly_one_leaves_no_unseen_mass():
    update, _ = from_targets([0.25, 0.25, 0.5], [1, 2, 0], np.log([2.0, 2.0, 1.0]))
    np.testing.assert_allclose(update.policy, [0.5, 0.5, 0], atol=1e-15)
    assert abs(update.chi2_weight) < 1e-14


def test_many_actions_and_extreme_temperatures_stay_finite():
    rng = np.random.default_rng(4)
    policy = rng.dirichlet(np.full(100_000, 0.5), size=2)
    policy[policy < 1e-9] = 0
    policy /= policy.sum(axis=-1, keepdims=True)
    actions = np.stack([rng.choice(100_000, size=64, p=p) for p in policy])
    for tau in (1e-4, 1.0, 1e3):
        for rule in UNSEEN_RULES:
            update = sampled_update(policy, actions, rng.integers(0, 2, actions.shape), tau, unseen=rule)
            np.testing.assert_allclose(update.policy.sum(axis=-1), 1, atol=1e-12)
            assert np.all(update.policy[policy == 0] == 0)
            assert np.all(update.log_ratio[policy == 0] == 0)


@st.composite
def samples(draw):
    K, n = draw(st.integers(1, 6)), draw(st.integers(2, 12))
    policy = 10.0 ** np.array(draw(st.lists(st.floats(-12, 0), min_size=K, max_size=K)))
    actions = draw(st.lists(st.integers(0, K - 1), min_size=n, max_size=n))
    rewards = draw(st.lists(st.integers(-64, 64), min_size=n, max_size=n))
    return policy / policy.sum(), np.array(actions), np.array(rewards) / 64, 10.0 ** draw(st.floats(-3, 2))


@prop
@given(samples(), st.sampled_from([*NAMED, -1.0, 0.3, 3.0]), st.sampled_from(list(UNSEEN_RULES)))
def test_result_is_a_policy_and_stationary(sample, baseline, rule):
    policy, actions, rewards, tau = sample
    update = sampled_update(policy, actions, rewards, tau, baseline, rule)
    assert np.all(update.policy >= 0)
    assert abs(update.policy.sum() - 1) < 1e-13
    b = estimate(baseline, rewards, tau) if isinstance(baseline, str) else baseline
    weights = np.bincount(actions, minlength=len(policy)) / len(actions)
    total = np.bincount(actions, (rewards - b) / tau, minlength=len(policy))
    targets = total / np.maximum(np.bincount(actions, minlength=len(policy)), 1)
    seen = weights > 0
    left = update.log_ratio[seen] + update.chi2_weight * update.policy[seen] / weights[seen] - targets[seen]
    assert np.abs(left).max() <= 1e-11 * (1 + np.abs(targets).max())
    loss, before = weights[seen] @ (update.log_ratio[seen] - targets[seen]) ** 2, weights @ targets**2
    assert loss <= before * (1 + 1e-9) + 1e-20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": [0.5, 0.6, 0.1]}, "policy"),
        ({"policy": [0.5, 0.5, 0.0]}, "actions must have positive probability under policy, got 2"),
        ({"actions": [0, 1, 3]}, r"actions must be in 0, \.\.\., 2 .*got 3"),
        ({"actions": [0, 1, -1]}, "actions must be in .*got -1"),
        ({"actions": [0.0, 1.0, 2.0]}, "actions must be integers, got float64"),
        ({"actions": [0, 1]}, "actions and rewards must have the same n"),
        ({"actions": [], "rewards": []}, "actions must be integers"),
        ({"actions": np.zeros((2, 3), dtype=int), "rewards": np.zeros((3, 3))}, "must broadcast together"),
        ({"rewards": [0.0, 1.0, np.nan]}, "rewards must be finite"),
        ({"tau": 0.0}, "tau must be positive"),
        ({"tau": 1e-308, "rewards": [0.0, 1e3, 1.0]}, "tau must be large enough"),
        ({"baseline": "median"}, "baseline must be one of .*got 'median'"),
        ({"baseline": "loo_target_kl"}, "baseline 'loo_target_kl' needs a target"),
        ({"baseline": [1.0, 2.0]}, "baseline must be of shape"),
        ({"baseline": np.inf}, "baseline must be finite"),
        ({"actions": [0], "rewards": [1.0]}, "single rollout"),
        ({"unseen": "uniform"}, "unseen must be one of proportional, softmax, got 'uniform'"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"policy": [0.2, 0.3, 0.5], "actions": [0, 1, 2], "rewards": [0.0, 1.0, 0.5], "tau": 1.0}
    with pytest.raises(ValueError, match=message):
        sampled_update(**(arguments | change))


def test_sampled_loss_names_a_bad_new_policy_and_is_infinite_where_it_excludes_a_rollout():
    assert sampled_loss([0.5, 0.5], [1.0, 0.0], [0, 1], [1.0, 0.0], 1.0) == np.inf
    with pytest.raises(ValueError, match="new_policy"):
        sampled_loss([0.5, 0.5], [0.5, 0.25, 0.25], [0, 1], [1.0, 0.0], 1.0)


def test_a_range_of_dumps_that_begins_at_the_branch_point():
    """The best reward as a baseline, cold: cells begin at U = 1 itself; no policy nearby has a smaller loss."""
    rng = np.random.default_rng(0)
    policy, reward = rng.dirichlet(np.ones(4), 12), rng.random((12, 4))
    actions = np.stack([rng.choice(4, 8, p=p) for p in policy])
    rewards = (rng.random(actions.shape) < np.take_along_axis(reward, actions, axis=-1)).astype(float)
    given = (actions, rewards, 0.1, rewards.max(axis=-1))
    q = sampled_update(policy, *given).policy
    least = sampled_loss(policy, q, *given)
    for _ in range(200):
        other = q * np.exp(0.3 * rng.normal(size=q.shape)) + 1e-3 * rng.dirichlet(np.ones(4), 12)
        assert (sampled_loss(policy, other / other.sum(axis=-1, keepdims=True), *given) >= least * (1 - 1e-12)).all()


@pytest.mark.parametrize("rare", [1e-300, 5e-310, 1e-320])
@pytest.mark.parametrize("unseen", ["proportional", "softmax"])
def test_an_unseen_action_of_subnormal_probability_takes_the_mass_that_is_left(rare, unseen):
    """Statement 14: the seen ones have p e^d, the only unseen one the rest, whatever it had."""
    policy, tau = np.array([0.5, 0.5, rare]), 1.0
    found = sampled_update(policy, [0, 1, 0, 1], [1.0, 0.0, 1.0, 1.0], tau, baseline=2.0, unseen=unseen)
    seen = 0.5 * np.exp([-1.0, -1.5])
    assert found.policy == pytest.approx([*seen, 1 - seen.sum()], rel=1e-12)
    assert found.log_ratio[2] == pytest.approx(np.log(1 - seen.sum()) - np.log(rare), rel=1e-12)
