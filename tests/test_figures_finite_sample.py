"""Numbers behind the finite-sample figures: the lumping is exact, the orderings hold, the cases are what they say."""

import numpy as np
import pandas as pd
import pytest

from figures import finite_sample_improvement as improvement
from figures import finite_sample_iterated as iterated
from figures import harness, three_cases
from pmdtheory import baselines
from pmdtheory.bandit import iterate
from pmdtheory.divergences import entropy, movement
from pmdtheory.sampled import sampled_loss, sampled_update

BINARY, FEW = ("binary", 1000, 0.1), ("binary", 10, 0.1)


@pytest.fixture(scope="module")
def one_step():
    problems = (FEW, BINARY, ("binary", 1000, 0.01), ("noisy", 10, 0.3))
    return improvement.compute(problems, taus=(0.03, 0.1), rollouts=(4, 16, 256), seeds=100)


def at(table, problem, n, tau=0.03):
    rows = improvement.select(table, problem, tau)
    return rows[rows.rollouts == n].set_index("estimator")


# --- one step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", improvement.ESTIMATORS)
@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_one_action_for_all_unseen_ones_is_exact(estimator, tau):
    rng = np.random.default_rng(12)
    policies, rewards = improvement.instances("graded", 40, 0.3, [rng] * 20)
    drawn = np.stack([rng.choice(40, size=12, p=policy) for policy in policies])
    for n, group in zip((5, 12), improvement.groups(policies, rewards, drawn, (5, 12)), strict=True):
        for policy, reward, actions, mass, value, slots, spread in zip(policies, rewards, drawn[:, :n], *group):
            whole = sampled_update(policy, actions, reward[actions], tau, baseline=estimator)
            lumped = sampled_update(mass, slots, reward[actions], tau, baseline=estimator)
            unseen = np.setdiff1d(np.arange(40), actions)
            assert lumped.policy @ value == pytest.approx(whole.policy @ reward, rel=1e-12)
            assert lumped.policy[-1] == pytest.approx(whole.policy[unseen].sum(), rel=1e-11, abs=1e-300)
            assert movement(mass, lumped.log_ratio).kl == pytest.approx(movement(policy, whole.log_ratio).kl, rel=1e-11)
            left = entropy(lumped.policy) + lumped.policy[-1] * spread
            assert left == pytest.approx(entropy(whole.policy), rel=1e-11)


def test_groups_where_everything_is_seen_have_nothing_left():
    policy, reward, actions = np.array([[0.25, 0.75]]), np.array([[0.0, 1.0]]), np.array([[1, 1, 0]])
    two, three = improvement.groups(policy, reward, actions, (2, 3))
    assert [x.tolist() for x in two] == [[[0.75, 0.0, 0.25]], [[1.0, 0.0, 0.0]], [[0, 0]], [0.0]]
    assert [x.tolist() for x in three] == [[[0.25, 0.75, 0.0, 0.0]], [[0.0, 1.0, 0.0, 0.0]], [[1, 1, 0]], [0.0]]


def test_instances_have_the_mean_reward_they_should():
    rng = np.random.default_rng(3)
    for K, J in ((10, 0.1), (1000, 0.01), (1000, 0.5)):
        (policy,), (reward,) = improvement.instances("binary", K, J, [rng])
        assert (policy.sum(), policy @ reward, reward.sum()) == pytest.approx((1, J, J * K))
    graded = improvement.instances("graded", 1000, 0.3, [rng] * 20)[1]
    assert np.mean(graded) == pytest.approx(0.3, abs=0.01)


def test_part_lets_a_success_grow_n_over_k_fold_at_most_and_mean_does_not():
    rng = np.random.default_rng(5)
    growth = {"mean": [], "log_partition": []}
    for _ in range(50):
        (policy,), (reward,) = improvement.instances(*BINARY, [rng])
        actions = rng.choice(1000, size=16, p=policy)
        k = reward[actions].sum()
        for estimator, grown in growth.items():
            step = sampled_update(policy, actions, reward[actions], 0.03, baseline=estimator)
            if k and step.chi2_weight >= 0:
                grown.append(movement(policy, step.log_ratio).max_ratio * k / 16)
    assert max(growth["log_partition"]) <= 1 + 1e-9
    assert np.median(growth["mean"]) > 1


@pytest.mark.parametrize("n", [4, 16])
def test_with_few_rollouts_and_small_tau_mean_gains_more_than_part(one_step, n):
    for problem in (FEW, BINARY):
        rows = at(one_step, problem, n)
        assert rows.over_part["mean"] > rows.over_part_half["mean"]
    rare = at(one_step, ("binary", 1000, 0.01), n)
    assert rare.gain["log_partition"] < 0.1 * rare.gain["mean"]


def test_part_leaves_its_mass_to_unseen_actions_and_mean_takes_it_away(one_step):
    rows = at(one_step, BINARY, 16)
    assert rows.unseen["log_partition"] - rows.unseen_half["log_partition"] > rows.unseen_before["mean"]
    assert rows.unseen["mean"] + rows.unseen_half["mean"] < rows.unseen_before["mean"]
    assert rows.left["mean"] < 0.5 < rows.left["log_partition"]
    assert rows.kl["mean"] > rows.kl["log_partition"]


@pytest.mark.parametrize("tau", [0.03, 0.1])
def test_part_is_the_better_one_where_everything_is_seen(one_step, tau):
    rows = at(one_step, FEW, 256, tau)
    assert rows.over_part["mean"] < -rows.over_part_half["mean"]
    exact = one_step[(one_step.rollouts == 0) & (one_step.actions == 10) & (one_step.tau == tau)]
    exact = exact[exact["rewards"] == "binary"].set_index("estimator").gain
    assert np.abs(rows.gain[exact.index] - exact).max() < 0.03
    assert exact["log_partition"] > exact["mean"]


def test_binary_rewards_without_noise_never_make_the_policy_worse_but_noise_does_so_with_part(one_step):
    sampled = one_step[one_step.rollouts > 0]
    assert sampled.worse[sampled["rewards"] == "binary"].eq(0).all()
    noisy = at(one_step, ("noisy", 10, 0.3), 16)
    assert noisy.worse["log_partition"] > noisy.worse["mean"] + 10
    assert noisy.q05_high["log_partition"] < 0


def test_quantile_interval_has_its_confidence():
    rng = np.random.default_rng(8)
    rows = [improvement.low_quantile(rng.random(200)) for _ in range(2000)]
    assert np.mean([row["q05_low"] <= 0.05 <= row["q05_high"] for row in rows]) > 0.94


# --- many steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["mean", "log_partition"])
def test_delay_zero_is_the_fresh_recursion_and_delay_changes_it(estimator):
    problem, policy = iterated.bandit("noisy", 8)
    fresh = iterate(problem, policy, 0.1, 6, rollouts=8, estimator=estimator, per_context=True)
    paths = [iterated.delayed(problem, policy, 0.1, 6, delay, 8, estimator) for delay in (0, 3)]
    none, three = ((path * problem.reward).sum(axis=-1) for path in paths)
    np.testing.assert_array_equal(none.ravel(), fresh.reward)
    np.testing.assert_array_equal(three[:2], none[:2])
    assert np.abs(three[2:] - none[2:]).max() > 0.01
    assert np.all((np.diff((paths[1] > 0).astype(int), axis=0)) <= 0)


def test_noise_turns_part_against_what_it_learnt_and_not_mean():
    table = iterated.compute(cases=(), taus=(), rollouts=(4,), scales=(0.5,), delays=(), runs=60)
    rows = table.set_index(["sweep", "estimator"])
    gap = rows.reward["scale", "mean"] - rows.reward["scale", "log_partition"]
    assert gap > rows.reward_half["scale", "mean"] + rows.reward_half["scale", "log_partition"]
    assert rows.below["rollouts", "loo_log_partition"] > 30 > 2 * rows.below["rollouts", "mean"]


# --- the three cases ------------------------------------------------------------------------------


def test_the_counterexample_has_the_losses_of_the_statement_and_the_answer_is_the_least():
    rows = [row for row in three_cases._two_actions() if row["estimator"] != "curve"]
    losses = sorted(row["loss"] for row in rows if row["estimator"] == "stationary")
    assert losses[:2] == pytest.approx([2.38, 9.58], abs=0.005)
    (answer,) = (row for row in rows if row["estimator"] == "answer")
    assert answer["loss"] == pytest.approx(losses[0], rel=1e-12)
    q = 1 / (1 + np.exp(-answer["share_first"]))
    actions, policy = np.repeat([0, 1], [1, 9]), np.array([0.5, 0.5])
    rewards = np.log(np.array([0.001, 0.0099]) / policy)[actions]
    assert q == pytest.approx(0.99, abs=0.002)
    assert sampled_loss(policy, [q, 1 - q], actions, rewards, 1.0, 0.0) == pytest.approx(losses[0], rel=1e-9)


def test_examples_are_the_cases_they_stand_for():
    rows = list(three_cases._examples())
    warm, cold = rows[:6], rows[6:]
    for example, over in ((warm, False), (cold, True)):
        assert (np.nansum([row["asked"] for row in example]) > 1) == over
        assert sum(row["proportional"] for row in example) == pytest.approx(1)
    seen = [np.isfinite(row["asked"]) for row in warm]
    for row, known in zip(warm, seen):
        assert (row["proportional"] == pytest.approx(row["asked"], rel=1e-12)) == known
    kept = [row["proportional"] / row["policy"] for row, known in zip(warm, seen) if not known]
    assert np.ptp(kept) < 1e-12 < np.ptp([row["softmax"] / row["policy"] for row, s in zip(warm, seen) if not s])
    assert all(row["proportional"] == 0 for row in cold if np.isnan(row["asked"]))


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("estimator", three_cases.ESTIMATORS)
def test_cases_are_counted_as_the_mass_asked_for_says(estimator, noisy):
    for n in (16, 64):
        policy, actions, rewards = three_cases.batch(10, n, noisy, 60)
        counts = three_cases.count_cases(policy, actions, rewards, 0.1, estimator)
        over = nonconvex = 0
        for p, y, r in zip(policy, actions, rewards):
            b = r.max() if estimator == "best" else baselines.estimate(estimator, r, 0.1)
            seen = np.unique(y)
            mass = sum(p[a] * np.exp(((r - b) / 0.1)[y == a].mean()) for a in seen)
            over += mass > 1 + 1e-12
            nonconvex += mass < 1 - 1e-12 and len(seen) == 10
        assert counts["too_much"] == over
        assert counts["principal"] + counts["dumped"] == nonconvex
        assert sum(counts.values()) == 60


def test_dumping_is_for_overestimated_baselines_and_noisy_part():
    for noisy, often in ((False, ["best"]), (True, ["best", "log_partition", "loo_log_partition"])):
        drawn = list(three_cases.batch(10, 256, noisy, 40))
        for estimator in three_cases.ESTIMATORS:
            dumped = three_cases.count_cases(*drawn, 0.1, estimator)["dumped"]
            assert dumped >= 32 if estimator in often else dumped <= 4


def test_a_higher_baseline_dumps_on_the_action_seen_once():
    rows = list(three_cases._dump([0.7, 1.2, 1.4, 2.0]))
    rare = [row["answer"] for row in rows if row["action"] == 0]
    assert max(rare[:2]) < 0.01
    assert min(rare[2:]) > 0.5


# --- the tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", [improvement, three_cases], ids=["improvement", "three_cases"])
def test_reduced_table_is_part_of_the_committed_one(figure, tmp_path):
    path = tmp_path / "fast.csv"
    harness.write_table(figure.compute(**figure.FAST), path)
    committed = harness.DATA / f"{figure.__name__.rpartition('.')[2]}.csv"
    assert harness.compare(path, committed, figure.KEYS, tolerance={}, subset=True) == []
    assert "nan" not in figure.finding(pd.read_csv(path))
