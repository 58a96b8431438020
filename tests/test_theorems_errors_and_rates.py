"""Statements 31 to 33: the derivative in 50 digits, the worst cases, the expectations over rollouts, the examples."""

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy.optimize import brentq
from scipy.stats import binom

from figures import recovery
from pmdtheory import baseline_update, kl_update, pmd_mean_update
from pmdtheory.family import MEMBERS
from pmdtheory.mdp import evaluate, garnet, iterate, optimal
from pmdtheory.theorems import sensitivity
from tests import reference


def test_the_derivative_against_50_digits():
    """31(a): a central difference of policies solved in 50 digits, of rewards that are exact in binary."""
    rng, step = np.random.default_rng(5), 2.0**-20
    for _ in range(5):
        p, tau = rng.dirichlet(np.ones(4)), 10 ** rng.uniform(-1, 0.5)
        r, change = np.round(rng.normal(size=(2, 4)) * 2**20) / 2**20
        update = pmd_mean_update(p, r, tau)
        rho = np.exp(update.log_ratio)
        w = update.policy / (1 + update.chi2_weight * rho)
        dD = (change - p @ change) / tau
        expected = w * (dD - rho * (w @ dD) / (w @ rho))
        ends = [reference.pmd_mean(p, r + sign * step * change, tau).policy for sign in (-1, 1)]
        with mp.workdps(50):
            measured = [float((after - before) / mpf(2 * step)) for before, after in zip(*ends)]
        np.testing.assert_allclose(measured, expected, rtol=1e-8, atol=1e-9)
        assert np.abs(expected).sum() <= 2 * w @ np.abs(dD)


LENGTHS = np.array([1.0, 4.0, 2.0, 9.0])
FAMILY = {  # options, then φ and ρ φ' at ratios ρ
    "truncated-importance": ({"cap": 1.1}, lambda x: np.maximum(1, x / 1.1), lambda x: np.where(x > 1.1, x / 1.1, 0)),
    "length-divided": ({"lengths": LENGTHS}, lambda x: LENGTHS * x, lambda x: LENGTHS * x),
    "on-policy": ({}, np.ones_like, np.zeros_like),
    "fixed-chi2": ({"chi2_coef": 0.7}, np.ones_like, lambda x: x),  # C given, V found
}


@pytest.mark.parametrize("name", FAMILY)
def test_the_derivatives_of_other_members(name):
    """31(d) against central differences of their laws."""
    options, phi, slope = FAMILY[name]
    rng, step = np.random.default_rng(9), 1e-5
    for _ in range(5):
        p, tau = rng.dirichlet(np.ones(4)) * 0.9 + 0.025, 10 ** rng.uniform(-0.5, 0.5)
        r, change = rng.normal(size=(2, 4))
        law = MEMBERS[name].law(p, r, tau, **options)
        ratio = np.exp(law.log_ratio)
        target = r - (0 if name in ("fixed-chi2", "on-policy") else p @ r)
        pull = target - tau * law.log_ratio
        C = 0.7 if name == "fixed-chi2" else pull[0] / phi(ratio)[0]
        w = law.policy / (tau + C * slope(ratio))
        dD = change - (0 if name in ("fixed-chi2", "on-policy") else p @ change)
        expected = w * (dD - phi(ratio) * (w @ dD) / (w @ phi(ratio)))
        ends = [MEMBERS[name].law(p, r + sign * step * change, tau, **options).policy for sign in (-1, 1)]
        np.testing.assert_allclose((ends[1] - ends[0]) / (2 * step), expected, rtol=1e-5, atol=1e-8)
        assert np.abs(expected).sum() <= 2 * w @ np.abs(dD) + 1e-12


def test_the_worst_reward_of_a_rare_action():
    """31(c): w reaches .51 √p, the bound is √2 above it, and the KL update is moved as if the action were not rare."""
    p = 1e-4
    reward = np.stack([np.zeros(20_001), np.geomspace(1e-2, 1e4, 20_001)], axis=-1)
    policy = np.broadcast_to([1 - p, p], reward.shape)
    update = pmd_mean_update(policy, reward, 1.0)
    w = (update.policy / (1 + update.chi2_weight[:, None] * np.exp(update.log_ratio)))[:, 1].max()
    assert w == pytest.approx(0.513 * np.sqrt(p), rel=1e-3)
    assert w < sensitivity.largest_weight(p) < 1.45 * w
    at = np.log((1 - p) / p)  # where the KL update gives the action ½
    moved = [kl_update([1 - p, p], [0, at + d], 1.0).policy[1] for d in (-0.5, 0.5)]
    assert 2 * (moved[1] - moved[0]) == pytest.approx(2 * np.tanh(1 / 4), rel=1e-9)


@pytest.mark.parametrize(("J", "tau", "n"), [(0.1, 0.3, 8), (0.5, 0.1, 4), (0.3, 1.0, 64), (0.02, 0.5, 16)])
def test_rollouts_for_the_baseline(J, tau, n):
    """31(e) by enumeration of the group's successes."""
    policy, reward = np.array([J, 1 - J]), np.array([1.0, 0.0])
    successes = np.arange(n + 1)
    chance, baseline = binom.pmf(successes, n, J), successes / n
    ideal = kl_update(policy, reward, tau).baseline
    inside = baseline <= ideal
    exact = pmd_mean_update(policy, reward, tau).policy
    law = baseline_update(policy, reward, tau, baseline[inside]).policy
    distance = np.abs(law - exact).sum(axis=-1)
    assert chance[inside] @ distance <= 2 * np.sqrt(J * (1 - J) / n) / tau
    assert chance[~inside].sum() <= np.exp(-2 * n * (ideal - J) ** 2)


def test_linear_rate_beats_the_older_bound_where_the_best_action_is_rare():
    """32(a) with the a-priori rate, beside B11."""
    p0, tau, steps = 1e-6, 0.2, 60
    p, reward = np.array([p0, 0.4, 0.6 - p0]), np.array([1.0, 0.5, 0.0])
    gap0 = 1 - p @ reward
    for step in range(1, steps + 1):
        p = pmd_mean_update(p, reward, tau).policy
        linear = sum(d * a / p0 * np.exp(-step * d / (tau + gap0)) for d, a in ((0.5, 0.4), (1.0, 0.6 - p0)))
        assert 1 - p @ reward <= linear
    older = (tau * np.log(1 / p0) + gap0 / p0) / steps
    assert linear < 1e-5 * older


def test_no_rate_without_the_mass_of_the_best_action():
    """32(a): the KL update needs τ log((1 − p)/p) steps to ½, PMD-mean at least as many."""
    for p0 in (1e-3, 1e-6, 1e-9):
        p, q, steps, tau = np.array([p0, 1 - p0]), np.array([p0, 1 - p0]), 0, 0.7
        while p[0] < 0.5:
            p, q, steps = pmd_mean_update(p, [1, 0], tau).policy, kl_update(q, [1, 0], tau).policy, steps + 1
            assert p[0] <= q[0] * (1 + 1e-12)
        assert steps >= tau * np.log((1 - p0) / p0)


def test_zero_temperature_can_take_every_level():
    """32(c) is tight: L − 1 steps with rewards that are rarer the better they are."""
    reward = np.arange(5.0)
    p = 10.0 ** -(4 * reward)
    p /= p.sum()
    for step in range(4):
        assert (p > 0).sum() == 5 - step
        p = p * np.maximum(reward - p @ reward, 0)
        p /= p.sum()
    assert p[-1] == 1


@pytest.mark.parametrize("taus", [[1.0], [1e-2], [5e-4], 0.5 / 1.5 ** np.arange(16), [1e-2, 2.0]])
def test_every_temperature_converges_on_the_detour(taus):
    """32(d), constant, falling and alternating temperatures; at τ = 0 the optimal action is gone after one step."""
    mdp = recovery.detour()
    best, policy = optimal(mdp).V, recovery.START
    for step in range(60):
        policy = iterate(mdp, policy, pmd_mean_update, taus[step % len(taus)], 1, keep=("policy",)).kept["policy"][-1]
    gap = iterate(mdp, policy, steps=0, optimal_value=best).table.max_gap.iloc[-1]
    assert gap < 1e-6
    advantage = evaluate(mdp, recovery.START).A
    assert advantage[0, 1] == pytest.approx(-0.205) and advantage[0, 0] > 0


def test_random_mdps_converge_while_temperatures_fall():
    """32(d): to the optimum, from Q that the policy itself gives."""
    rng = np.random.default_rng(11)
    for _ in range(5):
        mdp = garnet(6, 3, 3, rng, gamma=0.8)
        run = iterate(mdp, None, pmd_mean_update, 1.0, 60, step_sizes="geometric", growth=1.3,
                      optimal_value=optimal(mdp).V)  # fmt: skip
        assert run.table.max_gap.iloc[-1] < 1e-9


def test_the_detour_takes_at_least_what_the_statement_says():
    """32(e), and its formula against the recursion it bounds: q = p + √(2p/τ), the most that 32(b) allows."""
    table = recovery.compute(**recovery.FULL)
    back = recovery.returns(table)
    for tau in back["mean"].index:
        assert back["mean"][tau] >= recovery.bound(tau)
        p, fastest = 0.5 * np.exp(-0.205 / tau), 1
        while p < 0.5:
            p, fastest = p + np.sqrt(2 * p / tau), fastest + 1
        assert recovery.bound(tau) <= fastest + 1e-9 and fastest <= back["mean"][tau]
    low = table[(table["update"] == "mean") & (table.iteration == 1)]
    assert (low.probability <= 0.5 * np.exp(-0.205 / low.tau) * (1 + 1e-13 / low.tau)).all()  # rounding of r/τ
    assert back["mean"].iloc[0] > back["kl"].iloc[0]


@pytest.mark.parametrize(
    ("policy", "reward", "tilt", "tau", "least"),
    [
        ([0.75618353, 0.11119964, 0.13261683], [0.517977819, 1, 0], [-1, -0.94381392, -1], 0.01, 0.93),
        ([0.06275058, 0.86722745, 0.07002197], [1, 0.504067955, 0], [1, -1, -1], 0.001, 1.3),
    ],
)
def test_a_stale_anchor_moves_pmd_mean_more_than_the_kl_update(policy, reward, tilt, tau, least):
    """33, what is open: distances over ω above the KL update's ½."""
    p, h = np.array(policy) / np.sum(policy), 5e-4 * np.array(tilt)
    g = p * np.exp(h)
    g /= g.sum()
    moved = np.abs(pmd_mean_update(g, reward, tau).policy - pmd_mean_update(p, reward, tau).policy).sum()
    assert moved > least * np.ptp(h)
    moved = np.abs(kl_update(g, reward, tau).policy - kl_update(p, reward, tau).policy).sum()
    assert moved <= 0.5 * np.ptp(h)


def test_the_kl_bound_of_33_is_reached():
    """Two actions at odds e^{±ω/2}."""
    omega = 1.3
    p = brentq(lambda x: kl_update([x, 1 - x], [0, 1], 1.0).policy[0] - 1 / (1 + np.exp(omega / 2)), 1e-6, 1 - 1e-6)
    g = np.array([p * np.exp(omega), 1 - p]) / (p * np.exp(omega) + 1 - p)
    moved = np.abs(kl_update(g, [0, 1], 1.0).policy - kl_update([p, 1 - p], [0, 1], 1.0).policy).sum()
    assert moved == pytest.approx(2 * np.tanh(omega / 4), rel=1e-9)
