"""Bandits: the recursion against closed forms, the sampler against its law, bad input."""

from functools import partial

import numpy as np
import pytest

from pmdtheory import baseline_update, kl_update, mixed_update, pmd_mean_update
from pmdtheory.bandit import Bandit, iterate, random_bandit
from pmdtheory.baselines import loo_mean
from pmdtheory.draws import draw_actions
from pmdtheory.sampled import sampled_update

REWARD = np.array([0.0, 0.3, 0.7, 1.0])
START = np.array([0.4, 0.3, 0.2, 0.1])


def test_kl_recursion_is_one_step_at_a_lower_temperature():
    """T KL steps at τ are one step at τ/T: q ∝ p e^{T r/τ}."""
    table = iterate(Bandit(REWARD), START, tau=0.5, steps=7, update=kl_update)
    weight = START * np.exp(7 * REWARD / 0.5)
    assert table.reward.iloc[-1] == pytest.approx(weight @ REWARD / weight.sum(), rel=1e-12)


@pytest.mark.parametrize("update", [pmd_mean_update, kl_update, partial(mixed_update, chi2_coef=0.1)])
def test_columns_of_one_step(update):
    """Each column of step 1 from its definition."""
    table = iterate(Bandit(REWARD), START, tau=0.2, steps=1, update=update)
    q = update(START, REWARD, 0.2).policy
    row = table.iloc[1]
    expected = {
        "reward": q @ REWARD,
        "kl": q @ np.log(q / START),
        "reverse_kl": START @ np.log(START / q),
        "chi2": ((q - START) ** 2 / START).sum(),
        "min_ratio": (q / START).min(),
        "max_ratio": (q / START).max(),
        "entropy": -(q @ np.log(q)),
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-11)
    assert table.iloc[0][["kl", "chi2_weight", "max_ratio"]].isna().all()


def test_contexts_are_averaged_with_their_probabilities():
    """Two contexts weigh 1/4 and 3/4; ratios are extremes."""
    reward = np.stack([REWARD, REWARD[::-1] ** 2])
    bandit = Bandit(reward, context_weight=[0.25, 0.75])
    each = iterate(bandit, START, tau=0.3, steps=3, per_context=True)
    mean = iterate(bandit, START, tau=0.3, steps=3)
    last = each[each.step == 3].set_index("context")
    assert mean.reward.iloc[-1] == pytest.approx(0.25 * last.reward[0] + 0.75 * last.reward[1])
    assert mean.max_ratio.iloc[-1] == last.max_ratio.max()
    alone = iterate(Bandit(reward[1]), START, tau=0.3, steps=3)
    assert alone.reward.iloc[-1] == pytest.approx(last.reward[1])


def test_temperature_schedule():
    """A vector of temperatures is used step by step."""
    scheduled = iterate(Bandit(REWARD), START, tau=[0.5, 0.1], steps=2)
    q = pmd_mean_update(START, REWARD, 0.5).policy
    assert scheduled.reward.iloc[-1] == pytest.approx(pmd_mean_update(q, REWARD, 0.1).policy @ REWARD)


def test_schedule_gets_the_weight_of_each_step():
    """Exact steps: λ is PMD-mean's; sampled ones: the mean of ρ − 1 − log ρ over the rollouts, a τ for each seed."""
    seen = []

    def schedule(tau, weight):
        seen.append((tau, weight))
        return tau / 2

    bandit = Bandit([REWARD, REWARD[::-1]], context_weight=[0.25, 0.75])
    scheduled = iterate(bandit, START, tau=0.5, steps=2, schedule=schedule, seeds=3)
    np.testing.assert_allclose(scheduled, iterate(bandit, START, tau=[0.5, 0.25], steps=2, seeds=3), rtol=1e-13)
    weights = pmd_mean_update(START, bandit.reward, 0.5).chi2_weight
    np.testing.assert_allclose(seen[0][1], np.full(3, weights @ [0.25, 0.75]), rtol=1e-12)
    np.testing.assert_array_equal(seen[1][0], np.full(3, 0.25))

    seen.clear()
    options = {"steps": 2, "rollouts": 6, "seeds": 3}
    scheduled = iterate(Bandit(REWARD), START, tau=0.5, schedule=schedule, **options)
    np.testing.assert_array_equal(scheduled, iterate(Bandit(REWARD), START, tau=[0.5, 0.25], **options))
    for seed, stream in enumerate(np.random.SeedSequence(0).spawn(3)):
        actions = draw_actions(START, np.random.default_rng(stream).random(6))
        ratio = sampled_update(START, actions, REWARD[actions], 0.5).policy[actions] / START[actions]
        assert seen[0][1][seed] == pytest.approx((ratio - 1 - np.log(ratio)).mean(), rel=1e-10)


def test_an_estimator_of_ones_own():
    options = {"tau": 0.2, "steps": 3, "rollouts": 8, "seeds": 2}
    own = iterate(Bandit(REWARD), START, estimator=lambda rewards, tau: loo_mean(rewards), **options)
    np.testing.assert_array_equal(own, iterate(Bandit(REWARD), START, **options))


def test_draws_follow_the_policy():
    """Inverse distribution function: frequencies within five standard errors, zeros never drawn."""
    rng = np.random.default_rng(0)
    policy = np.array([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    actions = draw_actions(np.broadcast_to(policy, (4, 6)), rng.random((4, 50_000)))
    frequency = np.bincount(actions.ravel(), minlength=6) / actions.size
    error = np.sqrt(policy * (1 - policy) / actions.size)
    assert (np.abs(frequency - policy) <= 5 * error).all()
    assert draw_actions(policy, np.array([0.0, np.nextafter(1.0, 0.0)])).tolist() == [1, 4]


@pytest.mark.parametrize(("noise", "scale"), [("bernoulli", 0.0), ("gaussian", 0.3)])
def test_observations_have_the_stated_law(noise, scale):
    """Mean and variance of observed rewards within five standard errors."""
    bandit = Bandit(REWARD, noise=noise, noise_scale=scale)
    actions = np.tile(np.arange(4), (1, 50_000))
    seen = bandit.observe(np.random.default_rng(1), actions).reshape(-1, 4)
    variance = REWARD * (1 - REWARD) if noise == "bernoulli" else np.full(4, scale**2)
    assert (np.abs(seen.mean(axis=0) - REWARD) <= 5 * np.sqrt(variance / len(seen)) + 1e-15).all()
    assert seen.var(axis=0) == pytest.approx(variance, abs=0.01)


def test_many_rollouts_approach_the_population():
    """With 4096 rollouts the sampled step is near the population step, and nearer than with 16."""
    bandit = Bandit(REWARD)
    population = iterate(bandit, START, tau=0.5, steps=1).reward.iloc[-1]
    few, many = (
        iterate(bandit, START, tau=0.5, steps=1, rollouts=n, seeds=20).query("step == 1").reward for n in (16, 4096)
    )
    assert (many - population).abs().max() < 0.02
    assert (few - population).abs().mean() > 4 * (many - population).abs().mean()


def test_seeds_are_reproducible_and_extendable():
    """Run i is the same whatever the number of runs, and runs differ."""
    bandit = Bandit(REWARD, noise="gaussian", noise_scale=0.1)
    options = {"tau": 0.2, "steps": 4, "rollouts": 8}
    three, five = (iterate(bandit, START, seeds=n, **options) for n in (3, 5))
    assert three.equals(five[five.seed < 3].reset_index(drop=True))
    assert five[five.step == 4].reward.nunique() == 5


def test_random_bandits():
    """Binary ones have a success in every context; the kind is checked."""
    bandit = random_bandit(np.random.default_rng(0), contexts=200, actions=5, kind="binary", success=0.05)
    assert set(np.unique(bandit.reward)) == {0.0, 1.0}
    assert (bandit.reward.max(axis=1) == 1).all()
    graded = random_bandit(np.random.default_rng(0), contexts=2, actions=5)
    assert graded.reward.shape == (2, 5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Bandit([np.nan, 1.0]), "reward must be finite"),
        (lambda: Bandit(REWARD, noise="cauchy"), "noise must be one of none, bernoulli, gaussian, got 'cauchy'"),
        (lambda: Bandit(2 * REWARD, noise="bernoulli"), r"reward must lie in \[0, 1\]"),
        (lambda: Bandit(REWARD, noise="gaussian", noise_scale=-1), "noise_scale must be nonnegative, got -1"),
        (lambda: Bandit(REWARD, context_weight=[0.5, 0.5]), r"context_weight must have shape \(1,\)"),
        (lambda: random_bandit(np.random.default_rng(0), kind="ternary"), "kind must be graded or binary"),
        (lambda: random_bandit(np.random.default_rng(0), kind="binary", success=0), r"success must lie in \(0, 1\]"),
        (lambda: iterate(Bandit(REWARD), [0.5, 0.5], 1.0, 1), r"policy must have shape \(4,\) or \(1, 4\)"),
        (lambda: iterate(Bandit(REWARD), START, 0.0, 1), "tau must be positive, got 0"),
        (lambda: iterate(Bandit(REWARD), START, [1.0, 1.0], 3), r"tau must be a number or have shape \(3,\)"),
        (
            lambda: iterate(Bandit(REWARD), START, [1.0], 1, schedule=lambda tau, weight: tau),
            "tau must be a number with a schedule",
        ),
        (lambda: iterate(Bandit(REWARD), START, 1.0, -1), "steps must be an integer of at least 0, got -1"),
        (lambda: iterate(Bandit(REWARD), START, 1.0, 1, seeds=0), "seeds must be an integer of at least 1"),
        (lambda: iterate(Bandit(REWARD), START, 1.0, 1, rollouts=0), "rollouts must be an integer of at least 1"),
        (lambda: iterate(Bandit(REWARD), START, 1.0, 1, rollouts=1), "leave-one-out needs at least two"),
        (lambda: iterate(Bandit(REWARD), START, 1.0, 1, rollouts=4, estimator="median"), "mean, loo_mean"),
        (
            lambda: iterate(Bandit(REWARD), START, 1.0, 1, update=partial(baseline_update, baseline=9)),
            "baseline must be at most",
        ),
    ],
)
def test_bad_input(build, message):
    """Every error names the argument and what is accepted."""
    with pytest.raises(ValueError, match=message):
        build()


NOISES = {"none": {}, "bernoulli": {"noise": "bernoulli"}, "gaussian": {"noise": "gaussian", "noise_scale": 0.3}}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("estimator", ["loo_mean", "log_partition"])
def test_the_batch_of_seeds_is_each_seed_alone(noise, estimator):
    """Brute force: one seed, one context and one step at a time, with plain NumPy draws from the seed's stream."""
    rng = np.random.default_rng(11)
    bandit = Bandit(rng.random((3, 5)), **NOISES[noise])
    table = iterate(bandit, np.full(5, 0.2), 0.3, 4, rollouts=6, estimator=estimator, seeds=4, seed=7, per_context=True)
    for run, sequence in enumerate(np.random.SeedSequence(7).spawn(4)):
        stream, policy = np.random.default_rng(sequence), np.full((3, 5), 0.2)
        for step in range(1, 5):
            uniforms = stream.random((3, 6))
            actions = np.array([[np.flatnonzero(u < np.cumsum(p))[0] for u in us] for p, us in zip(policy, uniforms)])
            seen = bandit.observe(stream, actions)
            for context in range(3):
                p, y, r = policy[context], actions[context], seen[context]
                policy[context] = sampled_update(p, y, r, 0.3, baseline=estimator).policy
            rows = table[(table.step == step) & (table.seed == run)].sort_values("context")
            np.testing.assert_allclose(rows.reward, (policy * bandit.reward).sum(axis=-1), rtol=1e-12)


@pytest.mark.parametrize("rollouts", [None, 6])
def test_a_batch_of_temperatures_is_each_temperature_alone(rollouts):
    """Constant, step by step and scheduled temperatures; every problem draws the numbers that it draws alone."""
    bandit, options = Bandit([REWARD, REWARD[::-1]], noise="bernoulli"), {"rollouts": rollouts, "seeds": 3}

    def halve(tau, weight):
        return tau * (0.5 + weight)

    for taus, more in (([[0.1], [0.7]], {}), ([[0.1, 0.2], [0.3, 0.4]], {}), ([[0.1], [0.7]], {"schedule": halve})):
        for per_context in (False, True):
            shape = options | more | {"per_context": per_context}
            table = iterate(bandit, START, taus, 2, **shape)
            for problem, tau in enumerate(taus):
                alone = iterate(bandit, START, tau[0] if len(tau) == 1 else tau, 2, **shape)
                rows = table[table.problem == problem].drop(columns="problem").reset_index(drop=True)
                assert list(rows) == list(alone)
                np.testing.assert_allclose(rows, alone, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tau", [np.ones((2, 3, 1)), np.ones((2, 5)), np.ones(2)])
def test_temperatures_of_another_shape_are_refused(tau):
    with pytest.raises(ValueError, match=r"tau must be a number or have shape \(3,\), .* or \(problems, 1\), got"):
        iterate(Bandit(REWARD), START, tau, 3)
