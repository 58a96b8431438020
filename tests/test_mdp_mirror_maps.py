"""Euclidean and Tsallis steps against conic and scalar optimisation, their divergences against their definition."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from pmdtheory import kl_update
from pmdtheory.mdp.mirror_maps import Euclidean, Tsallis, kl_to_greedy
from tests.mdps import random_policy

MAPS = [Euclidean(), Tsallis(0.3), Tsallis(0.5), Tsallis(0.9), Tsallis(1.2), Tsallis(1.5), Tsallis(2.0)]
every_map = pytest.mark.parametrize("mirror", MAPS, ids=str)


def test_projection_against_a_quadratic_program():
    """The Euclidean step is the quadratic program's solution, with several actions driven to zero."""
    rng = np.random.default_rng(0)
    emptied = 0
    for _ in range(12):
        p, r, tau = rng.dirichlet(np.full(8, 0.5)), rng.normal(size=8), 10 ** rng.uniform(-1, 1)
        q = cp.Variable(8)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(q - p) * tau / 2 - r @ q), [cp.sum(q) == 1, q >= 0])
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        step = Euclidean()(p, r, tau)
        np.testing.assert_allclose(step.policy, q.value, atol=1e-7)
        np.testing.assert_allclose(step.policy, np.maximum(p + (r - step.baseline) / tau, 0), atol=1e-12)
        emptied += (step.policy == 0).sum()
    assert emptied > 10


@every_map
def test_two_actions_by_line_search(mirror):
    """With two actions the step is a scalar maximisation of E_q[r] − τ D_h(q‖p)."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        p, r, tau = rng.dirichlet([1, 1]), rng.normal(size=2), 10 ** rng.uniform(-0.5, 1)

        def loss(x, p=p, r=r, tau=tau):
            return tau * mirror.divergence(np.array([x, 1 - x]), p) - r @ [x, 1 - x]

        found = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
        ends = [(loss(0.0), 0.0), (loss(1.0), 1.0), (found.fun, found.x)]
        assert mirror(p, r, tau).policy[0] == pytest.approx(min(ends)[1], abs=2e-6)


@every_map
def test_step_is_optimal_among_random_policies(mirror):
    """No random policy, near or far, has a larger objective; the objective beats staying."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        p, r, tau = rng.dirichlet(np.ones(5)), rng.normal(size=5), 10 ** rng.uniform(-1, 1)
        q = mirror(p, r, tau).policy
        others = rng.dirichlet(np.ones(5), size=500)
        others = np.concatenate([others, q + 1e-3 * (others - q), np.eye(5), [p]])
        objective = others @ r - tau * mirror.divergence(others, p)
        assert q @ r - tau * mirror.divergence(q, p) >= objective.max() - 1e-12
        assert q.min() >= 0 and q.sum() == pytest.approx(1, abs=1e-14)


@every_map
def test_divergence_is_bregman(mirror):
    """D_h(a‖b) = h(a) − h(b) − ∇h(b)·(a − b), the gradient by central differences."""
    alpha = getattr(mirror, "exponent", 2.0)
    rng = np.random.default_rng(3)
    for _ in range(10):
        a, b = rng.dirichlet(np.ones(4), size=2) * 0.9 + 0.025

        def h(x):
            return (x**alpha - x).sum() / (alpha * (alpha - 1))

        step = 1e-6 * np.eye(4)
        gradient = np.array([(h(b + d) - h(b - d)) / 2e-6 for d in step])
        assert mirror.divergence(a, b) == pytest.approx(h(a) - h(b) - gradient @ (a - b), abs=1e-8)
        assert mirror.divergence(a, a) == 0


def test_the_family_joins_its_ends():
    """Tsallis at 2 is Euclidean; near 1 it is the KL update."""
    rng = np.random.default_rng(4)
    p, r = rng.dirichlet(np.ones(6), size=30), rng.normal(size=(30, 6))
    np.testing.assert_allclose(Tsallis(2.0)(p, r, 0.7).policy, Euclidean()(p, r, 0.7).policy, atol=1e-12)
    for exponent in (1 - 1e-5, 1 + 1e-5):
        np.testing.assert_allclose(Tsallis(exponent)(p, r, 0.7).policy, kl_update(p, r, 0.7).policy, atol=1e-4)


@every_map
def test_extremes(mirror):
    """Tiny and huge temperatures, near-zero probabilities and constant rewards do no harm."""
    rng = np.random.default_rng(5)
    p = np.array([1e-150, 1e-20, 1e-3, 1 - 1e-3])
    for tau in (1e-100, 1e-8, 1.0, 1e8):
        q = mirror(p, rng.random(4), tau).policy
        assert np.all(np.isfinite(q)) and q.min() >= 0 and q.sum() == pytest.approx(1, abs=1e-13)
    np.testing.assert_allclose(mirror(p, np.array([0, 1.0, 0, 0]), 1e-100).policy, [0, 1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(mirror(p, np.full(4, 3.0), 0.5).policy, p, atol=1e-15)


@every_map
def test_distance_to_greedy(mirror):
    """For a unique best action it is D_h of that action's vertex, and over all vertices of a tie the least."""
    rng = np.random.default_rng(6)
    p = rng.dirichlet(np.ones(4), size=3)
    r = np.array([[0.0, 1, 2, 3], [3, 3, 0, 0], [1, 1, 1, 1]])
    distance = mirror.distance_to_greedy(p, r)
    vertices = [[mirror.divergence(v, row) for v in np.eye(4)] for row in p]
    np.testing.assert_allclose(distance, [vertices[0][3], min(vertices[1][:2]), min(vertices[2])], rtol=1e-12)


def test_kl_to_greedy():
    """−log of the mass of the best actions, the KL of the policy conditioned on them; 0 if they have it all."""
    policy = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.2, 0.7]])
    reward = np.array([[1.0, 0, 1], [0, 0, 2], [4, 4, 4]])
    np.testing.assert_allclose(kl_to_greedy(policy, reward), [-np.log(0.7), -np.log(0.5), 0], atol=1e-15)


def test_bad_exponent():
    """Exponents without a convex, Newton-friendly step are refused, 1 with a pointer."""
    for exponent in (0.0, -1.0, 1.0, 2.5, float("nan")):
        with pytest.raises(ValueError, match=f"exponent .*got {exponent}"):
            Tsallis(exponent)


def test_random_policies_have_zeros():
    """The random policies of these tests do contain zero probabilities."""

    class Two:
        R = np.zeros((50, 4))

    assert (random_policy(np.random.default_rng(0), Two()) == 0).any()
