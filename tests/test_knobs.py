"""Baselines aimed at a KL divergence against the exact update, 40 digits, deletion; temperatures by measured λ."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from mpmath import mp, mpf
from scipy.optimize import brentq

from pmdtheory import baseline_update, baselines, pmd_mean_update
from pmdtheory.knobs import loo_target_kl_baseline, next_tau, target_kl_baseline

rewards_1d = npst.arrays(
    np.float64,
    st.integers(2, 12),
    elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-10, 10, allow_subnormal=False)),
)
log_temperature = st.floats(-4, 3)


def kl(rewards, tau, baseline):
    """KL(p̂‖q) of the update of Statement 10, as λ + (b − r̂)/τ."""
    update = baseline_update(np.full(len(rewards), 1 / len(rewards)), rewards, tau, baseline)
    return float(update.chi2_weight) + (baseline - rewards.mean()) / tau


def ends(rewards, tau):
    """Mean, log-partition and their KL divergences."""
    low, high = rewards.mean(), float(baselines.log_partition(rewards, tau))
    return low, high, kl(rewards, tau, low), (high - low) / tau


def groups():
    """Rewards, temperature and where the target lies between the KL divergences of the two ends."""
    rng = np.random.default_rng(0)
    for i in range(120):
        n, tau, share = int(rng.integers(2, 65)), 10 ** rng.uniform(-5, 1.5), rng.choice([0.001, 0.1, 0.5, 0.9, 0.999])
        normal = rng.normal(size=n)
        rewards = (rng.random(n), (normal > 0.7).astype(float), normal**3, np.exp(3 * normal))[i % 4]
        if np.ptp(rewards) > 0:
            yield rewards, tau, share


def test_the_update_has_the_target():
    """Brent's method on the exact update finds the same baseline."""
    for rewards, tau, share in groups():
        low, high, kl_low, kl_high = ends(rewards, tau)
        target = kl_low + share * (kl_high - kl_low)
        expected = brentq(lambda b, r=rewards, t=tau, v=target: kl(r, t, b) - v, low, high, xtol=1e-15, rtol=1e-14)
        found = target_kl_baseline(rewards, tau, target)
        assert np.all(found == found[0])
        # A rounding error of the target moves the baseline by the inverse of the slope, mean over [low, high].
        uncertainty = 1e-14 * target * (high - low) / (kl_high - kl_low)
        assert found[0] == pytest.approx(expected, abs=1e-9 * (high - low) + 1e2 * uncertainty)


def test_kl_rises_with_the_baseline_at_the_stated_rate():
    """Statement 10(f) by central differences, below and above the mean."""
    rewards, tau, h = np.array([0.0, 0.25, 0.3, 0.9, 1.0]), 0.2, 1e-5
    for b in (-1.0, 0.3, 0.6, 0.7):
        update = baseline_update(np.full(5, 0.2), rewards, tau, b)
        rho, weight = np.exp(update.log_ratio), update.chi2_weight
        rate = (rho * (rho - 1) / (1 + weight * rho)).mean() / (rho**2 / (1 + weight * rho)).mean()
        assert tau * (kl(rewards, tau, b + h) - kl(rewards, tau, b - h)) / (2 * h) == pytest.approx(rate, rel=1e-6)
        assert 0 < rate < 1


@pytest.mark.parametrize("tau", [0.01, 0.2, 1.0, 30.0])
@pytest.mark.parametrize("share", [0.1, 0.7])
def test_agrees_with_40_digits(tau, share):
    rewards = [0.0, 0.25, 0.3, 0.9, 1.0]
    with mp.workdps(40):
        r, t = [mpf(x) for x in rewards], mpf(tau)
        mean = mpmath.fsum(r) / 5

        def ratios(weight, b):
            logs = [(x - b) / t for x in r]
            return [mpmath.lambertw(weight * mpmath.exp(x)).real / weight if weight else mpmath.exp(x) for x in logs]

        def mass(weight, b):
            return mpmath.fsum(ratios(weight, b)) / 5 - 1

        def root(f, low, high):
            return mpmath.findroot(f, (low, high), solver="anderson", tol=1e-60)

        kl_low = root(lambda x: mass(x, mean), mpf(1) / 10**12, mpmath.log(5))
        kl_high = mpmath.log(mpmath.fsum(mpmath.exp(x / t) for x in r) / 5) - mean / t
        target = mpf(float(kl_low + mpf(share) * (kl_high - kl_low)))
        weight = root(lambda x: mass(x, mean + t * (target - x)), kl_low * mpf(10) ** -6, target)
        expected = float(mean + t * (target - weight))
    assert target_kl_baseline(rewards, tau, float(target))[0] == pytest.approx(expected, abs=3e-15 * (1 + tau))


@settings(max_examples=25)
@given(rewards=rewards_1d, log_tau=log_temperature)
def test_the_ends_are_the_mean_and_the_log_partition(rewards, log_tau):
    """Target 0 is PMD-mean and target infinity PMD-part, to the last bit."""
    tau = 10**log_tau
    for name, knob in (("", target_kl_baseline), ("loo_", loo_target_kl_baseline)):
        for target, end in ((0.0, "mean"), (np.inf, "log_partition")):
            assert np.array_equal(knob(rewards, tau, target), baselines.estimate(name + end, rewards, tau))


@settings(max_examples=25)
@given(rewards=rewards_1d, log_tau=log_temperature, targets=st.lists(st.floats(0, 5), min_size=2, max_size=6))
def test_rises_with_the_target_between_the_ends(rewards, log_tau, targets):
    tau, noise = 10**log_tau, 1e-12 * (10 + 10**log_tau)
    found = np.array([target_kl_baseline(rewards, tau, target)[0] for target in sorted(targets)])
    assert np.all(np.diff(found) >= -noise)
    assert rewards.mean() - noise <= found[0]
    assert found[-1] <= baselines.log_partition(rewards, tau) + noise


@settings(max_examples=25)
@given(rewards=rewards_1d, log_tau=log_temperature, target=st.floats(0, 5), shift=st.floats(-50, 50))
def test_units(rewards, log_tau, target, shift):
    """Scaling rewards and τ scales the baseline; shifting the rewards shifts it."""
    assume(np.ptp(rewards) > 1e-3)
    tau = 10**log_tau
    b = target_kl_baseline(rewards, tau, target)
    near = {"rtol": 0, "atol": 1e-7 * np.ptp(rewards) + 1e-12}
    np.testing.assert_allclose(target_kl_baseline(4 * rewards, 4 * tau, target) / 4, b, **near)
    np.testing.assert_allclose(target_kl_baseline(rewards + shift, tau, target) - shift, b, **near)


@settings(max_examples=25)
@given(rewards=rewards_1d, log_tau=log_temperature, target=st.floats(0, 3))
def test_leave_one_out_is_deletion(rewards, log_tau, target):
    tau = 10**log_tau
    expected = [target_kl_baseline(np.delete(rewards, j), tau, target)[0] for j in range(len(rewards))]
    found = loo_target_kl_baseline(rewards, tau, target)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.ptp(rewards) + 1e-13)


@pytest.mark.parametrize("knob", [target_kl_baseline, loo_target_kl_baseline])
def test_masked_rollouts_do_not_exist(knob):
    rewards = np.array([[1.0, np.nan, 0.0, 0.3, 0.2], [np.inf, 0.0, np.nan, 1.0, 1.0], [np.nan] * 5])
    mask = np.isfinite(rewards)
    found = knob(rewards, 0.2, [0.6, 1.1, 0.5], mask)
    for row, target in enumerate([0.6, 1.1]):
        alone = knob(rewards[row][mask[row]], 0.2, target)
        np.testing.assert_allclose(found[row][mask[row]], alone, rtol=1e-12)
    assert not found[~mask].any()


@pytest.mark.parametrize("knob", [target_kl_baseline, loo_target_kl_baseline])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_agrees_with_numpy(knob, dtype):
    rng = np.random.default_rng(1)
    rewards, tau, target = rng.random((6, 9)), rng.uniform(0.05, 3, 6), rng.choice([0.0, 0.05, 0.5, np.inf], 6)
    mask = rng.random((6, 9)) < 0.9
    found = knob(torch.tensor(rewards, dtype=dtype), torch.tensor(tau, dtype=dtype), target, torch.tensor(mask))
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found.numpy(), knob(rewards, tau, target, mask), atol=2e-6 if dtype == torch.float32 else 1e-13
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: target_kl_baseline([0.0, 1.0], 1.0, -0.1), r"target .* -0\.1"),
        (lambda: target_kl_baseline([0.0, 1.0], 1.0, np.nan), r"target .* nan"),
        (lambda: target_kl_baseline([0.0, 1.0], 1.0, [0.1, 0.2]), r"target must broadcast"),
        (lambda: target_kl_baseline([0.0, 1.0], 0.0, 0.1), r"tau .* 0\.0"),
        (lambda: target_kl_baseline([0.0, np.nan], 1.0, 0.1), r"rewards .* nan"),
        (lambda: loo_target_kl_baseline([1.0], 1.0, 0.1), r"rewards has a group with a single rollout"),
        (lambda: next_tau(0.0, 1.0, 1.0), r"tau .* 0"),
        (lambda: next_tau(1.0, -1.0, 1.0), r"weight .* -1"),
        (lambda: next_tau(1.0, [1.0, np.nan], 1.0), r"weight .* nan"),
        (lambda: next_tau(1.0, 1.0, 0.0), r"target .* 0"),
        (lambda: next_tau(1.0, 1.0, 1.0, largest_factor=0.5), r"largest_factor .* 0\.5"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()


def test_next_tau_hits_the_target_at_large_tau_and_settles_on_it():
    """One step from τ = 100 lands within 1% for λ = Var/(2τ²); repeated, λ of the same problem is the target."""
    policy, reward, target = np.full(4, 0.25), np.array([0.0, 0.3, 0.4, 1.0]), 0.5
    weight = pmd_mean_update(policy, reward, 100.0).chi2_weight
    near = next_tau(100.0, weight, 4 * weight)
    assert pmd_mean_update(policy, reward, near).chi2_weight == pytest.approx(4 * weight, rel=0.01)
    tau = 100.0
    for _ in range(60):
        tau = next_tau(tau, pmd_mean_update(policy, reward, tau).chi2_weight, target)
    assert pmd_mean_update(policy, reward, tau).chi2_weight == pytest.approx(target, rel=1e-6)


def test_next_tau_keeps_its_factor_within_bounds():
    found = next_tau(torch.tensor([0.1, 0.1, 0.1]), torch.tensor([0.0, 1.0, 100.0]), 1.0, largest_factor=4.0)
    torch.testing.assert_close(found, torch.tensor([0.025, 0.1, 0.4]))
