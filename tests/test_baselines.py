"""Baseline estimators against 50-digit arithmetic, deletion, closed forms and exact enumeration."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from mpmath import mp, mpf
from scipy.stats import binom

from pmdtheory import baselines, cli, loglinear
from pmdtheory.bandit import Bandit, iterate
from pmdtheory.loglinear import LogLinear, sampled_regression
from pmdtheory.sampled import sampled_loss, sampled_update

NAMES = ("mean", "loo_mean", "log_partition", "loo_log_partition")
LEAVE_ONE_OUT = ("loo_mean", "loo_log_partition")
TEMPERATURES = (1e-4, 1e-2, 0.3, 1.0, 30.0, 1e3)
EPS = np.finfo(np.float64).eps

rewards_1d = npst.arrays(
    np.float64,
    st.integers(2, 12),
    elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-10, 10, allow_subnormal=False)),
)
log_temperature = st.floats(-4, 3)


def exact_log_partition(rewards, tau):
    """τ log (1/n) Σ e^{r/τ} in 50 digits; the doubles are taken as exact numbers."""
    with mp.workdps(50):
        tau = mpf(float(tau))
        total = mpmath.fsum(mpmath.exp(mpf(float(r)) / tau) for r in rewards)
        return float(tau * mpmath.log(total / len(rewards)))


def by_deletion(name, rewards, tau):
    """Leave-one-out by deleting each rollout in turn and calling an independent plain estimator."""
    others = [np.delete(rewards, j) for j in range(len(rewards))]
    if name == "loo_mean":
        return np.array([np.mean(x) for x in others])
    return np.array([exact_log_partition(x, tau) for x in others])


def binary(successes, n):
    """Rewards (len(successes), n): as many ones as said, then zeros."""
    return (np.arange(n) < np.asarray(successes)[:, None]).astype(float)


def groups(n):
    """Reward groups of n rollouts that are hard for a log-partition."""
    rng = np.random.default_rng(n)
    lone = np.zeros(n)
    lone[n // 2] = 1.0
    tied = rng.uniform(-1, 0.5, n)
    tied[[0, -1]] = 0.75
    near_tie = rng.uniform(-1, 0.5, n)
    near_tie[:2] = 0.75, 0.75 - 1e-9
    outlier = rng.uniform(-1, 1, n)
    outlier[0] = -1e6
    return {
        "lone success": lone,
        "lone failure": 1 - lone,
        "ties at the maximum": tied,
        "near tie at the maximum": near_tie,
        "uniform": rng.uniform(-1, 1, n),
        "normal, large": 1e4 * rng.standard_normal(n),
        "far from zero": 1e6 + rng.uniform(-1, 1, n),
        "one very bad": outlier,
        "constant": np.full(n, 0.1),
    }


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("n", [2, 3, 16, 256])
def test_log_partition_agrees_with_50_digits(n, tau):
    for kind, rewards in groups(n).items():
        error = abs(baselines.log_partition(rewards, tau) - exact_log_partition(rewards, tau))
        assert error <= 4 * EPS * np.abs(rewards).max(), kind


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("n", [2, 3, 16])
def test_loo_log_partition_agrees_with_50_digits(n, tau):
    for kind, rewards in groups(n).items():
        expected = by_deletion("loo_log_partition", rewards, tau)
        assert (
            np.abs(baselines.loo_log_partition(rewards, tau) - expected).max()
            <= 8 * EPS * np.abs(rewards).max()
        ), kind


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_loo_log_partition_of_256_agrees_with_50_digits(tau):
    for kind, rewards in groups(256).items():
        result = baselines.loo_log_partition(rewards, tau)
        spots = [0, 1, 128, 255, int(rewards.argmax()), int(rewards.argmin())]
        expected = [exact_log_partition(np.delete(rewards, j), tau) for j in spots]
        assert np.abs(result[spots] - expected).max() <= 8 * EPS * np.abs(rewards).max(), kind


def test_large_tau_resolves_the_second_order_term():
    """The log-partition exceeds the mean by Var/(2τ) + O(τ⁻²): 7e-8 here, exponentials would err by 1e-10."""
    rewards = np.array([0.0, 0.25, 0.5, 1.0])
    excess = baselines.log_partition(rewards, 1e6) - rewards.mean()
    assert excess == pytest.approx(rewards.var() / 2e6, rel=1e-7)


@pytest.mark.parametrize("name", LEAVE_ONE_OUT)
@given(rewards=rewards_1d, log_tau=log_temperature)
def test_leave_one_out_is_deletion(name, rewards, log_tau):
    tau = 10**log_tau
    result = baselines.estimate(name, rewards, tau)
    np.testing.assert_allclose(result, by_deletion(name, rewards, tau), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50)
@given(rewards=rewards_1d, log_tau=log_temperature, seed=st.integers(0, 2**16))
def test_permutation_equivariance(name, rewards, log_tau, seed):
    order = np.random.default_rng(seed).permutation(len(rewards))
    expected = baselines.estimate(name, rewards, 10**log_tau)[order]
    np.testing.assert_allclose(
        baselines.estimate(name, rewards[order], 10**log_tau), expected, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50)
@given(rewards=rewards_1d, log_tau=log_temperature, shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_shift_and_scale_equivariance(name, rewards, log_tau, shift, scale):
    tau = 10**log_tau
    moved = baselines.estimate(name, scale * rewards + shift, scale * tau)
    expected = scale * baselines.estimate(name, rewards, tau) + shift
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-14 * (10 * scale + abs(shift)))


@given(rewards=rewards_1d, log_tau=log_temperature)
def test_log_partition_lies_between_mean_and_maximum(rewards, log_tau):
    value = baselines.log_partition(rewards, 10**log_tau)
    assert rewards.mean() - 1e-13 <= value <= rewards.max()


@pytest.mark.parametrize("name", NAMES)
@given(reward=st.floats(-1e6, 1e6), n=st.integers(2, 300), log_tau=log_temperature)
def test_equal_rewards_have_zero_targets(name, reward, n, log_tau):
    rewards = np.full(n, reward)
    assert np.all((rewards - baselines.estimate(name, rewards, 10**log_tau)) / 10**log_tau == 0)


# Masks


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50)
@given(rewards=rewards_1d, log_tau=log_temperature, data=st.data())
def test_mask_is_deletion_whatever_the_masked_rewards_are(name, rewards, log_tau, data):
    n = len(rewards)
    mask = data.draw(npst.arrays(bool, n).filter(lambda m: m.sum() >= 2))
    junk = data.draw(npst.arrays(np.float64, n, elements=st.sampled_from([np.nan, np.inf, -np.inf, 1e300])))
    expected = np.zeros(n)
    expected[mask] = baselines.estimate(name, rewards[mask], 10**log_tau)
    result = baselines.estimate(name, np.where(mask, rewards, junk), 10**log_tau, mask)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_group_without_rollouts_has_baseline_zero(name):
    rewards = np.array([[np.nan, np.inf, 3.0], [1.0, 0.0, 0.0]])
    mask = np.array([[False], [True]])
    result = baselines.estimate(name, rewards, 0.1, mask)
    np.testing.assert_array_equal(result[0], 0)
    np.testing.assert_allclose(result[1], baselines.estimate(name, rewards[1], 0.1), rtol=1e-15)


def test_clamp_respects_the_mask():
    padded = np.append(binary([1], 16)[0], np.nan)
    result = baselines.loo_log_partition(padded, 0.01, np.arange(17) < 16, clamp=1e-8)
    np.testing.assert_array_equal(result[:16], baselines.loo_log_partition(padded[:16], 0.01, clamp=1e-8))
    assert result[16] == 0


# Batches, types, PyTorch


def test_batches_and_temperature_per_context():
    rng = np.random.default_rng(0)
    rewards, tau = rng.standard_normal((3, 4, 5)), np.array([0.1, 0.5, 1.0, 20.0])
    for name in NAMES:
        batch = baselines.estimate(name, rewards, tau)
        single = [[baselines.estimate(name, rewards[i, j], tau[j]) for j in range(4)] for i in range(3)]
        np.testing.assert_allclose(batch, single, rtol=1e-14)
    assert baselines.mean(rewards).shape == baselines.log_partition(rewards, tau).shape == (3, 4)


@pytest.mark.parametrize(
    "rewards", [[1, 0, 0, 1], [True, False, False, True], np.array([1, 0, 0, 1], np.int8)]
)
@pytest.mark.parametrize("name", NAMES)
def test_integers_and_booleans_are_floats(name, rewards):
    expected = baselines.estimate(name, np.array([1.0, 0, 0, 1]), 0.2)
    result = baselines.estimate(name, rewards, 0.2)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, expected)
    tensor = baselines.estimate(name, torch.tensor(np.asarray(rewards)), 0.2)
    assert tensor.dtype == torch.get_default_dtype()
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("name", NAMES)
def test_torch_equals_numpy(name, tau):
    rewards = np.stack(list(groups(16).values()))
    mask = np.random.default_rng(1).random(rewards.shape) < 0.7
    expected = baselines.estimate(name, rewards, tau, mask)
    result = baselines.estimate(name, torch.tensor(rewards, requires_grad=True), tau, torch.tensor(mask))
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_float_types_are_kept(name):
    for dtype in (np.float32, np.float16):
        assert baselines.estimate(name, np.array([1, 0, 0], dtype), 0.5).dtype == dtype
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert baselines.estimate(name, torch.tensor([1, 0, 0], dtype=dtype), 0.5).dtype == dtype
    single = baselines.estimate(name, torch.linspace(-1, 1, 7, dtype=torch.float32), 0.5)
    double = baselines.estimate(name, torch.linspace(-1, 1, 7, dtype=torch.float64), 0.5)
    np.testing.assert_allclose(single.numpy(), double.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rewards", [[0.3, 1.0, 0.0, 1.0, np.nan], [0.0, 0.0, 1.0, 0.0, np.inf]])
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_gradients_are_softmax_weights(tau, rewards):
    """∂(τ log Ẑ)/∂r_i = e^{r_i/τ} / Σ e^{r/τ} over the rollouts in the sum, and 0 where masked, never NaN."""
    mask = torch.tensor([True, True, True, True, False])

    def jacobian(function):
        at = torch.tensor(rewards, dtype=torch.float64)
        return torch.autograd.functional.jacobian(lambda r: function(r, tau, mask), at).numpy()

    def softmax(keep):
        z = np.where(keep, rewards, -np.inf) / tau
        weight = np.exp(z - z.max())
        return weight / weight.sum()

    valid = mask.numpy()
    expected = [softmax(valid & (np.arange(5) != j)) for j in range(4)] + [np.zeros(5)]
    np.testing.assert_allclose(jacobian(baselines.loo_log_partition), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(jacobian(baselines.log_partition), softmax(valid), rtol=0, atol=1e-12)


def test_gradients_are_finite_in_a_group_without_rollouts():
    for name in NAMES:
        rewards = torch.tensor([[np.nan, np.inf, 1.0], [0.0, 1.0, 2.0]], requires_grad=True)
        baselines.estimate(name, rewards, 0.1, torch.tensor([[False], [True]])).sum().backward()
        assert torch.isfinite(rewards.grad).all() and (rewards.grad[0] == 0).all()


# Statement 12: binary rewards, exact enumeration over the number of successes k ~ Binomial(n, J)


@pytest.mark.parametrize("n", [2, 8, 64])
@pytest.mark.parametrize("tau", TEMPERATURES)
def test_binary_log_partition_closed_form(n, tau):
    with mp.workdps(50):
        expected = [
            float(mpf(tau) * mpmath.log1p(mpf(k) / n * mpmath.expm1(1 / mpf(tau)))) for k in range(n + 1)
        ]
    result = baselines.log_partition(binary(range(n + 1), n), tau)
    np.testing.assert_allclose(result, expected, rtol=0, atol=4 * EPS)


@pytest.mark.parametrize("J", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("n", [2, 5, 32])
def test_mean_target_error_is_unbiased_with_the_stated_variance(n, J):
    tau = 0.05
    k = np.arange(n + 1)
    probability = binom.pmf(k, n, J)[:, None] / n
    for name, size in (("mean", n), ("loo_mean", n - 1)):
        variance = J * (1 - J) / (size * tau**2)
        error = (baselines.estimate(name, binary(k, n), tau) - J) / tau
        assert np.sum(probability * error) == pytest.approx(0, abs=1e-11)
        assert np.sum(probability * error**2) == pytest.approx(variance, rel=1e-11)


@pytest.mark.parametrize("J", [0.05, 0.3])
@pytest.mark.parametrize("n", [4, 16])
def test_log_partition_error_is_bimodal(n, J):
    """With probability (1−J)^n no success is seen, an error of about −(1/τ + log J); else it is moderate."""
    tau = 0.01
    k = np.arange(n + 1)
    truth = float(mpmath.log1p(J * mpmath.expm1(1 / tau)))
    error = baselines.log_partition(binary(k, n), tau) / tau - truth
    far = error < -1 / (2 * tau)
    assert binom.pmf(k, n, J)[far].sum() == pytest.approx((1 - J) ** n, rel=1e-12)
    np.testing.assert_allclose(error[far], -(1 / tau + np.log(J)), rtol=1e-12)
    np.testing.assert_allclose(error[~far], np.log(k[~far] / (n * J)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_partition_function_is_unbiased_and_its_logarithm_is_not(tau):
    """E Ẑ = Z, plain and leave-one-out, hence E log Ẑ < log Z (Jensen)."""
    n, J = 8, 0.3
    k = np.arange(n + 1)
    probability = binom.pmf(k, n, J)[:, None] / n
    Z = 1 + J * np.expm1(1 / tau)
    for name in ("log_partition", "loo_log_partition"):
        log_Z = baselines.estimate(name, binary(k, n), tau) / tau
        assert np.sum(probability * np.exp(log_Z)) == pytest.approx(Z, rel=1e-12)
        assert np.sum(probability * log_Z) < np.log(Z)


# Statement 13: targets


@pytest.mark.parametrize("n", [4, 16])
def test_targets_of_a_failure(n):
    k, tau = np.arange(n), 0.01
    rewards = binary(k, n)
    part = (rewards - baselines.estimate("log_partition", rewards, tau))[:, -1] / tau
    mean = (rewards - baselines.estimate("mean", rewards, tau))[:, -1] / tau
    expected = [-float(mpmath.log1p(j / n * mpmath.expm1(1 / tau))) for j in k]
    np.testing.assert_allclose(part, expected, rtol=1e-12)
    np.testing.assert_allclose(part[1:], -1 / tau - np.log(k[1:] / n), rtol=1e-12)
    np.testing.assert_allclose(mean, -k / n / tau, rtol=1e-12)


@given(rewards=rewards_1d)
def test_loo_mean_advantage_is_the_centred_reward_times_n_over_n_minus_1(rewards):
    n = len(rewards)
    advantage = rewards - baselines.loo_mean(rewards)
    np.testing.assert_allclose(advantage, n / (n - 1) * (rewards - rewards.mean()), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [2, 16, 256])
@pytest.mark.parametrize("tau", [1e-4, 0.01, 0.1])
def test_lone_success_has_advantage_one(n, tau):
    rewards = binary([1], n)[0]
    assert (rewards - baselines.loo_log_partition(rewards, tau))[0] == 1


def test_clamp_replicates_the_public_implementation():
    rewards, tau = binary([1], 16)[0], 0.01
    clamped = rewards - baselines.loo_log_partition(rewards, tau, clamp=1e-8)
    assert clamped[0] == pytest.approx(-tau * np.log(1e-8), rel=1e-14)
    assert clamped[0] == pytest.approx(0.184, abs=5e-4)
    exact = rewards - baselines.loo_log_partition(rewards, tau)
    np.testing.assert_allclose(clamped[1:], exact[1:], rtol=1e-14)


def test_clamp_out_of_reach_changes_nothing():
    rewards = np.array([[1.0, 1.0, 0.0, 0.2], [0.5, 0.1, 0.3, 0.2]])
    clamped = baselines.loo_log_partition(rewards, 0.5, clamp=1e-8)
    np.testing.assert_allclose(clamped, baselines.loo_log_partition(rewards, 0.5), rtol=1e-14)


# Names and errors


def test_the_named_baselines_say_what_they_do():
    """Each attribute is what changing one argument shows."""
    rewards, moved, tau = np.array([0.0, 1.0, 0.5]), np.array([0.3, 1.0, 0.5]), 0.3
    for name, baseline in baselines.BASELINES.items():
        result = baseline(rewards, tau, target_kl=0.5)
        assert baseline.name == name
        assert result.shape == (3,)
        assert baseline.leaves_one_out == (abs(baseline(moved, tau, target_kl=0.5)[0] - result[0]) < 1e-12)
        assert baseline.uses_tau == np.any(baseline(rewards, 2 * tau, target_kl=0.5) != result)
        assert baseline.needs_target == np.any(baseline(rewards, tau, target_kl=0.6) != result)
        np.testing.assert_array_equal(baselines.estimate(name, rewards, tau, target_kl=0.5), result)
        smallest = rewards[: baseline.smallest_group]
        assert np.isfinite(baseline(smallest, tau)).all()
        if baseline.smallest_group > 1:
            with pytest.raises(ValueError, match="single rollout"):
                baseline(rewards[:1], tau)


def test_a_baseline_is_one_entry(monkeypatch, capsys):
    """One more entry, the best reward of a group, works wherever a name does."""

    def best(rewards, mask):
        return np.where(mask, rewards, -np.inf).max(axis=-1)

    monkeypatch.setitem(baselines.BASELINES, "best", baselines.Baseline("best", best))
    rewards, mask = np.array([[0.0, 1.0, 0.5], [0.25, 1.0, 0.0]]), np.array([[True] * 3, [True, False, True]])
    np.testing.assert_array_equal(baselines.estimate("best", rewards, 1.0, mask), [[1, 1, 1], [0.25, 0, 0.25]])
    policy, actions, tau = np.array([[0.2, 0.3, 0.5]] * 2), np.array([[0, 1, 2]] * 2), 0.5
    named, own = (sampled_update(policy, actions, rewards, tau, b) for b in ("best", rewards.max(axis=-1)))
    np.testing.assert_array_equal(named.policy, own.policy)
    named, own = (sampled_loss(policy, policy, actions, rewards, tau, b) for b in ("best", rewards.max(axis=-1)))
    np.testing.assert_array_equal(named, own)
    regressions = (sampled_regression(policy, actions, rewards, tau, b) for b in ("best", rewards.max(axis=-1)))
    np.testing.assert_array_equal(*(r.goal for r in regressions))
    bandit, options = Bandit([[0.0, 0.5, 1.0]]), {"tau": tau, "steps": 2, "rollouts": 4}
    named, own = (iterate(bandit, policy[0], **options, estimator=b) for b in ("best", lambda r, tau: r.max(axis=-1)))
    assert named.equals(own)
    model = LogLinear(np.eye(3).reshape(1, 3, 3), policy[:1])
    named, own = (
        loglinear.iterate(model, [bandit], **options, estimator=b) for b in ("best", lambda r, tau: r.max(axis=-1))
    )
    np.testing.assert_array_equal(named, own)
    assert cli.main(["bandit", "--steps", "1", "--rollouts", "4", "--estimator", "best"]) == 0
    assert "4 rollouts, best" in capsys.readouterr().out


def test_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match=f"{', '.join(baselines.BASELINES)}, got 'median'"):
        baselines.estimate("median", [0, 1], 1.0)


@pytest.mark.parametrize("array", [np.asarray, torch.tensor])
@pytest.mark.parametrize("name", NAMES)
def test_rewards_not_finite(name, array):
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=f"rewards must be finite where valid, got {bad}"):
            baselines.estimate(name, array([1.0, bad, 0.0]), 1.0, array([True, True, False]))


@pytest.mark.parametrize(
    "rewards", [3.0, [], [[1, 2], [3]], ["a", "b"], [1j, 0], [None, 1.0], np.zeros((2, 0))]
)
def test_rewards_of_no_use(rewards):
    with pytest.raises(ValueError, match="rewards must "):
        baselines.mean(rewards)


@pytest.mark.parametrize("array", [np.asarray, torch.tensor])
@pytest.mark.parametrize("name", LEAVE_ONE_OUT)
def test_leave_one_out_needs_two_rollouts(name, array):
    message = "rewards .* leave-one-out needs at least two rollouts: sample more"
    with pytest.raises(ValueError, match=message):
        baselines.estimate(name, array([[1.0], [0.0]]), 1.0)
    with pytest.raises(ValueError, match=message):
        rewards, mask = array([[1.0, 0.0], [0.0, 1.0]]), array([[True, True], [False, True]])
        baselines.estimate(name, rewards, 1.0, mask)


@pytest.mark.parametrize("function", [baselines.log_partition, baselines.loo_log_partition])
def test_bad_temperature(function):
    for bad in (0.0, -0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"tau must be positive and finite, got {bad}"):
            function(np.array([[0.0, 1.0]]), bad)
        with pytest.raises(ValueError, match=f"tau must be positive and finite, got {bad}"):
            function(torch.tensor([[0.0, 1.0]], dtype=torch.float64), [bad])
    with pytest.raises(ValueError, match=r"tau must broadcast to shape \(2,\), got shape \(3,\)"):
        function(np.zeros((2, 3)), np.ones(3))


@pytest.mark.parametrize("name", NAMES)
def test_bad_mask(name):
    rewards = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"mask must be boolean, .*, got dtype int64"):
        baselines.estimate(name, rewards, 1.0, np.ones((2, 3), np.int64))
    for shape in ((2,), (3, 3), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"mask must broadcast to shape \(2, 3\), got shape "):
            baselines.estimate(name, rewards, 1.0, np.ones(shape, bool))


def test_bad_clamp():
    for bad in (0.0, -1e-8, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"clamp must be positive and finite, .*, got {bad}"):
            baselines.loo_log_partition([1.0, 0.0], 1.0, clamp=bad)
