"""Training in miniature: its coefficients are the gradients of the losses, its steps those of the policy."""

import numpy as np
import pytest
import torch
from pmdllm import losses

from pmdtheory import posttraining
from pmdtheory.loglinear import LogLinear
from pmdtheory.posttraining import METHODS, Regime, Trial, coefficients, first_policies, gains

REGIME = Regime(rollouts=8, success=0.3, updates=4, batches=3, completions=8)
NAMES = {
    "pmd-mean": "pmd-mean-loo",
    "pmd-part": "pmd-part-loo",
    "weighted": "pmd-mean-loo",
    "grpo": "grpo",
    "rloo": "rloo",
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("knob", [0.1, 0.7])
def test_coefficients_are_the_gradients_of_the_losses(method, knob):
    """Of `pmdllm.losses` by automatic differentiation, at log-ratios that are partly beyond the clip range."""
    rng = np.random.default_rng(3)
    rewards, s = (rng.random((5, 6)) < 0.4).astype(float), rng.normal(scale=0.5, size=(5, 6))
    algorithm, r = losses.algorithm(NAMES[method]), torch.tensor(rewards)
    A = algorithm.advantage(r, tau=knob).flatten()
    weight = losses.importance_weights(r, knob).flatten() if method == "weighted" else None
    clip = {"clip_low": knob, "clip_high": knob}
    logp = torch.tensor(s.reshape(-1, 1), requires_grad=True)
    mask = torch.ones_like(logp, dtype=torch.bool)
    settings = losses.Settings(tau=knob, weight=weight, **clip)
    algorithm.loss(logp, torch.zeros_like(logp), mask, A, settings)[0].backward()
    found = coefficients([Trial(method, knob, 0.1)], rewards[None], s[None])
    assert found.ravel() == pytest.approx(-logp.grad.numpy().ravel() * s.size, rel=1e-9, abs=1e-12)


def test_the_direction_is_the_gradient_of_the_log_probabilities():
    """Against central differences of Σ c log π, from the package's log-linear family."""
    rng = np.random.default_rng(4)
    features, start = rng.normal(size=(1, 3, 5, 4)), rng.dirichlet(np.ones(5), size=(1, 3))
    model, theta = LogLinear(features[0], start[0]), rng.normal(size=(1, 2, 4))
    actions, c = rng.integers(5, size=(1, 2, 3, 6)), rng.normal(size=(1, 2, 3, 6))
    log_policy = posttraining._log_policy(features, np.log(start), theta)
    assert log_policy[0] == pytest.approx(model.log_policy(theta[0]), rel=1e-12)
    found = posttraining._along(features, np.exp(log_policy), actions, c)

    def value(theta):
        return (c[0] * np.take_along_axis(model.log_policy(theta), actions[0], axis=-1)).sum(axis=(-2, -1))

    for i, step in enumerate(1e-6 * np.eye(4)):
        slope = (value(theta[0] + step) - value(theta[0] - step)) / 2e-6
        assert found[0, :, i] == pytest.approx(-slope, rel=1e-6, abs=1e-8)


def test_a_run_does_not_depend_on_the_others():
    """More seeds or trials leave those that are there as they are."""
    trials = [Trial("pmd-mean", 0.1, 0.3), Trial("grpo", 0.2, 0.3), Trial("pmd-part", 0.5, 1.0)]
    whole = gains(REGIME, trials, seeds=4)
    assert gains(REGIME, trials[1:], seeds=2) == pytest.approx(whole[1:, :2], rel=1e-9)
    assert np.abs(gains(REGIME, trials, seeds=4, seed=1) - whole).min() > 0


def test_one_update_a_batch_knows_no_temperature_and_is_rloo():
    """Statement 17: at s = 0 the coefficient is A."""
    regime = Regime(rollouts=8, success=0.3, updates=1, batches=6, completions=8)
    cold, warm, rloo, part = gains(
        regime,
        [Trial(*own, 0.3) for own in (("pmd-mean", 0.01), ("pmd-mean", 2.0), ("rloo", 0.2), ("pmd-part", 0.01))],
        3,
    )
    assert cold == pytest.approx(warm, rel=1e-12) and cold == pytest.approx(rloo, rel=1e-12)
    assert np.abs(part - cold).max() > 1e-4


def test_training_learns_and_random_verdicts_teach_nothing():
    """Prompts that were not trained on gain; with every second verdict wrong the mean gain is 0 within its error."""
    trial = [Trial("pmd-mean", 0.1, 0.3)]
    long = {"rollouts": 8, "success": 0.3, "updates": 4, "batches": 8}
    assert gains(Regime(**long), trial, seeds=4).min() > 0.1
    noise = gains(Regime(**long, flips=0.5), trial, seeds=30)[0]
    assert abs(noise.mean()) < 3 * noise.std() / np.sqrt(30)


def test_lag_reaches_back_to_the_start_and_the_sampler_may_differ():
    trials = [Trial("pmd-mean", 0.1, 0.3)]
    first, far = (gains(Regime(8, 0.3, 2, 3, 8, lag=lag), trials, 2) for lag in (2, 50))
    assert np.array_equal(first, far)
    fresh, mismatched = (
        gains(Regime(8, 0.3, 2, 3, 8), trials, 2),
        gains(Regime(8, 0.3, 2, 3, 8, mismatch=1.0), trials, 2),
    )
    assert np.abs(fresh - first).min() > 0 and np.abs(fresh - mismatched).min() > 0


@pytest.mark.parametrize("K", [4, 8, 32])
def test_first_policies_have_the_success_rate_that_was_asked_for(K):
    """The mean of a beta distribution, and its variance J(1 − J)/3 for a + b = 2."""
    J, many = 0.2, 40_000
    policy, reward = first_policies(Regime(4, J, 1, 1, completions=K), np.random.default_rng(0), many)
    assert policy.sum(axis=-1) == pytest.approx(np.ones(many)) and np.all(reward.sum(axis=-1) == K // 4)
    success = (policy * reward).sum(axis=-1)
    assert success.mean() == pytest.approx(J, abs=4 * np.sqrt(J * (1 - J) / 3 / many) + 1e-3)
    assert success.var() == pytest.approx(J * (1 - J) / 3, rel=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rollouts": 6}, "rollouts must divide 64"),
        ({"success": 1.0}, "success must lie between 0 and 1"),
        ({"updates": 0}, "updates must be"),
        ({"flips": 0.6}, r"flips must lie in \[0, 0.5\]"),
        ({"completions": 3}, "completions must be"),
    ],
)
def test_bad_regimes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Regime(**{"rollouts": 8, "success": 0.3, "updates": 4, "batches": 2} | change)


@pytest.mark.parametrize(
    ("trials", "seeds", "message"),
    [
        ([Trial("ppo", 0.2, 0.1)], 1, "method must be one of pmd-mean"),
        ([Trial("pmd-mean", 0.0, 0.1)], 1, "knob must be positive, got 0.0"),
        ([Trial("grpo", 0.2, float("nan"))], 1, "rate must be positive and finite, got nan"),
        ([], 1, "trials must hold at least one"),
        ([Trial("grpo", float("inf"), 0.1)], 0, "seeds must be an integer of at least 1"),
    ],
)
def test_bad_trials_are_named(trials, seeds, message):
    with pytest.raises(ValueError, match=message):
        gains(REGIME, trials, seeds)
