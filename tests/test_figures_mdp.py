"""The numbers behind the MDP figures: recomputed independently, ordered as the captions say, within the bounds."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import log_softmax, wrightomega

from figures import harness, inexact_evaluation, mdp_convergence, mdp_lambda_map
from pmdtheory.mdp import gridworld, optimal
from tests.mdps import fixed_point


@pytest.fixture(scope="module")
def lambda_map():
    return mdp_lambda_map.compute(**mdp_lambda_map.FAST)


@pytest.fixture(scope="module")
def convergence():
    return mdp_convergence.compute(**mdp_convergence.FAST).set_index(["claim", "iteration"])


@pytest.fixture(scope="module")
def floors():
    """The committed floors: one row per rule, oracle and level, one column per update."""
    table = pd.read_csv(harness.DATA / "inexact_evaluation.csv")
    last = table[table.iteration == inexact_evaluation.LAST].set_index(["rule", "oracle", "level", "update"])
    return last[["floor", "floor_half_width", "error"]].unstack("update")


def test_first_map_by_value_iteration_and_root_finding(lambda_map):
    """V, λ and both KL of iteration 0 from a fixed point, a bracketed root and a softmax."""
    m = mdp_lambda_map
    mdp = gridworld(m.HEIGHT, m.WIDTH, slip=0.1, gamma=0.95, goal=m.GOAL, walls=m.WALLS)
    p = np.array([0.01, 0.01, 0.01, 0.97])
    V = fixed_point(mdp, lambda Q: Q @ p, 800)
    Q = mdp.R + mdp.gamma * np.einsum("xay,y->xa", mdp.P, V)
    for row in lambda_map[lambda_map.iteration == 0].itertuples():
        x = row.row * m.WIDTH + row.column
        target = (Q[x] - V[x]) / m.TAU
        value = row.V
        assert value == pytest.approx(V[x], rel=1e-9, abs=1e-12)
        s = log_softmax(np.log(p) + Q[x] / m.TAU) - np.log(p)
        assert row.kl_kl == pytest.approx(p * np.exp(s) @ s, rel=1e-7, abs=1e-12)
        if np.ptp(target) > 1e-3:
            mass = lambda weight: p @ wrightomega(np.log(weight) + target) / weight - 1  # noqa: B023, E731
            weight = brentq(mass, 1e-9, 10, xtol=1e-15, rtol=1e-12)
            s = target - wrightomega(np.log(weight) + target)
            assert row.chi2_weight == pytest.approx(weight, rel=1e-5)
            assert row.kl_mean == pytest.approx(p * np.exp(s) @ s, rel=1e-5)


def test_weight_travels_away_from_the_goal(lambda_map):
    """The cell of the largest λ is ever further from the goal, until the front has reached the last room."""
    steps = np.abs(lambda_map.row - mdp_lambda_map.GOAL[0]) + np.abs(lambda_map.column - mdp_lambda_map.GOAL[1])
    largest = lambda_map.loc[lambda_map.groupby("iteration").chi2_weight.idxmax()]
    distance = steps[largest.index].to_numpy()
    assert (np.diff(distance[:10]) >= 0).all()
    assert distance[0] == 1
    assert distance[9] >= 8


def test_pmd_mean_moves_less_and_loses_nothing(lambda_map):
    """KL moved at most the KL update's (Statement 7), V never falls (15), τλ near E[A₊] where that exceeds τ (8)."""
    assert (lambda_map.kl_mean <= lambda_map.kl_kl * (1 + 1e-9) + 1e-15).all()
    V = lambda_map.pivot_table(index="iteration", columns=["row", "column"], values="V").to_numpy()
    assert (np.diff(V, axis=0) >= -1e-13).all()
    ratio = mdp_lambda_map.TAU * lambda_map.chi2_weight / lambda_map.positive_advantage.clip(1e-12)
    for multiple, tolerance in ((1, 0.35), (5, 0.1)):
        far = ratio[lambda_map.positive_advantage > multiple * mdp_lambda_map.TAU]
        assert len(far) >= 4
        assert (far - 1).abs().max() < tolerance


def test_low_value_holds_back_only_where_there_is_something_to_learn(lambda_map):
    """Where KL leaps, PMD-mean takes a smaller share of the leap at low V; most cells of low V do not move at all."""
    leaps = lambda_map[lambda_map.kl_kl > 1]
    share = (leaps.kl_mean / leaps.kl_kl).groupby(leaps.V < 0.05).median()
    assert share[True] < 0.35 < share[False]
    low = lambda_map[lambda_map.V < 0.05]
    assert (low.kl_kl < 0.01).mean() > 0.8


def test_bounds_hold_and_are_the_stated_ones(convergence):
    """Every claim holds; B1 and B4 against their formulas with V* from value iteration and D₀ = log 4."""
    mdp, tau = mdp_convergence.problem("Garnet"), mdp_convergence.TAU["Garnet"]
    V = fixed_point(mdp, lambda Q: Q.max(axis=1), 400)
    uniform = fixed_point(mdp, lambda Q: Q.mean(axis=1), 400)
    assert convergence.holds.all()
    assert (convergence.value <= convergence.bound).all()
    k = convergence.loc["B4"].index.to_numpy()
    np.testing.assert_allclose(convergence.loc["B4"].bound, (tau * np.log(4) / 0.1 + 100) / k, rtol=1e-10)
    k = convergence.loc["B1"].index.to_numpy()
    np.testing.assert_allclose(convergence.loc["B1"].bound, 0.9**k * ((V - uniform).max() + tau / 0.1), rtol=1e-10)


def test_certificate_stays_close_and_rates_do_not(convergence):
    """On the Garnet the certificate is within a factor 10 of the largest gap, B4 and B11 never within 100."""
    ratio = convergence.value / convergence.bound
    assert (ratio["B10"] > 0.1).all()
    assert max(ratio["B4"].max(), ratio["B11"].max()) < 0.01
    assert convergence.value["B11"].is_monotonic_decreasing


def test_side_by_side_is_every_garnet():
    """The parts of the joint MDP do not see each other: optimal values are those of each Garnet alone."""
    joint = inexact_evaluation.side_by_side()
    V = optimal(joint).V.reshape(inexact_evaluation.GARNETS, -1)
    for seed in (0, 7):
        rows = slice(10 * seed, 10 * seed + 10)
        P = joint.P[rows, :, rows]
        np.testing.assert_allclose(P.sum(axis=2), 1, rtol=1e-12)
        alone = np.zeros(10)
        for _ in range(400):
            alone = (joint.R[rows] + 0.9 * P @ alone).max(axis=1)
        np.testing.assert_allclose(V[seed], alone, rtol=1e-10)


def test_the_adversary_stops_where_the_certificate_says():
    """What is hidden is below ε, so the gap ends at most ε/(1 − γ) (B10); the error is ε; recomputed = committed."""
    table = inexact_evaluation.compute(oracles=("adversary",), levels=(1,))
    assert table.error.to_numpy() == pytest.approx(0.05)
    assert (table.floor <= 0.05 / (1 - inexact_evaluation.GAMMA)).all()
    assert (table.floor > 0.01).all()
    assert table.groupby(["rule", "update"]).gap.apply(lambda gap: gap.is_monotonic_decreasing).all()


def test_floors_are_below_the_bound_and_ordered(floors):
    """2ε/(1 − γ)² is never reached; growing steps cost the KL update most when Q is sampled, beyond the intervals."""
    assert inexact_evaluation.GARNETS >= 20
    assert (floors.floor < 2 * floors.error / (1 - inexact_evaluation.GAMMA) ** 2).all(axis=None)
    sampled = floors.drop("adversary", level="oracle").loc["adaptive"]
    low = sampled.floor["kl"] - sampled.floor_half_width["kl"]
    high = sampled.floor["mean"] + sampled.floor_half_width["mean"]
    assert (low > high).all()


def test_sampling_errors_average_out_with_constant_steps(floors):
    """For the KL update the constant step's floor is lower than the growing one's for every sampled oracle."""
    kl = floors.floor["kl"].drop("adversary", level="oracle")
    assert (kl["constant"] < kl["adaptive"] / 3).all()
