"""Exact evaluation, occupancy, certificate and optimum against plain recursions, linear programming and by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import mpmath
import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

from pmdtheory.mdp import MDP, advantage_gap, chain, deep_sea, evaluate, garnet, gridworld, occupancy, optimal
from tests.mdps import dense, exact_certificate, exact_values, examples, fixed_point, random_policy

EXAMPLES = examples()
every_example = pytest.mark.parametrize("name", EXAMPLES)


def test_two_states_by_hand():
    """Stay for 1 with probability p, else visit a state that pays c: V₀ = (p + (1−p)γc)/(1 − γp − γ²(1−p))."""
    p, c, gamma = 0.3, 2.5, 0.8
    mdp = MDP([[[1, 0], [0, 1]], [[1, 0], [1, 0]]], [[1, 0], [c, c]], gamma, rho=[1, 0])
    result = evaluate(mdp, [[p, 1 - p], [0.5, 0.5]])
    first = (p + (1 - p) * gamma * c) / (1 - gamma * p - gamma**2 * (1 - p))
    second = c + gamma * first
    np.testing.assert_allclose(result.V, [first, second], rtol=1e-14)
    np.testing.assert_allclose(result.Q, [[1 + gamma * first, gamma * second], [second, second]], rtol=1e-14)
    np.testing.assert_allclose(result.A, result.Q - [[first], [second]], atol=1e-14)
    assert result.value == result.V[0]
    # Flow balance: d₀ = (1−γ) + γ (p d₀ + d₁), d₀ + d₁ = 1.
    share = 1 / (1 + gamma - gamma * p)
    np.testing.assert_allclose(occupancy(mdp, [[p, 1 - p], [0.5, 0.5]]), [share, 1 - share], rtol=1e-14)


@every_example
def test_evaluation_is_the_fixed_point(name):
    """V is what repeated one-step backups converge to, and solves the equations of Q and A."""
    mdp = EXAMPLES[name]
    policy = random_policy(np.random.default_rng(0), mdp)
    result = evaluate(mdp, policy)
    slow = fixed_point(mdp, lambda Q: (policy * Q).sum(axis=1), sweeps=2500)
    scale = np.abs(mdp.R).max() / (1 - mdp.gamma)
    np.testing.assert_allclose(result.V, slow, atol=1e-9 * scale)
    np.testing.assert_allclose((policy * result.A).sum(axis=1), 0, atol=1e-13 * scale)
    assert np.all(result.Q[mdp.terminal] == 0) and np.all(result.A[mdp.terminal] == 0)


@every_example
def test_occupancy_pairs_with_rewards(name):
    """ρᵀV = E_d[r_π]/(1−γ), d sums to 1 and balances its flow; another start is another right-hand side."""
    mdp = EXAMPLES[name]
    policy = random_policy(np.random.default_rng(1), mdp)
    d = occupancy(mdp, policy)
    moves = np.einsum("xa,xay->xy", policy, dense(mdp))
    np.testing.assert_allclose(d, (1 - mdp.gamma) * mdp.rho + mdp.gamma * d @ moves, atol=1e-13)
    assert d.min() >= -1e-15 and abs(d.sum() - 1) < 1e-12
    expected = d @ (policy * mdp.R).sum(axis=1) / (1 - mdp.gamma)
    assert evaluate(mdp, policy).value == pytest.approx(expected, rel=1e-10, abs=1e-12)
    first = np.eye(mdp.states)[0]
    value = occupancy(mdp, policy, start=first) @ (policy * mdp.R).sum(axis=1) / (1 - mdp.gamma)
    assert evaluate(mdp, policy).V[0] == pytest.approx(value, rel=1e-10, abs=1e-10)


@every_example
def test_optimum_against_linear_programming(name):
    """Policy iteration finds the least V with V ≥ R + γPV, found independently by HiGHS."""
    mdp = EXAMPLES[name]
    best = optimal(mdp)
    own_state = sparse.kron(sparse.eye_array(mdp.states), np.ones((mdp.actions, 1)))
    program = linprog(
        np.ones(mdp.states),
        A_ub=sparse.csr_array(mdp.gamma * sparse.csr_array(mdp.rows) - own_state),
        b_ub=-mdp.R.ravel(),
        bounds=(None, None),
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert program.status == 0
    scale = max(1.0, np.abs(best.V).max())
    np.testing.assert_allclose(best.V, program.x, atol=1e-7 * scale)
    assert 0 <= advantage_gap(best) <= 1e-12 * scale
    assert set(np.unique(best.policy)) <= {0.0, 1.0}


def test_equal_actions_do_not_alternate():
    """Copies of one action, and a constant reward, end policy iteration at once."""
    single = garnet(20, 1, 4, np.random.default_rng(0), gamma=0.999)
    copies = MDP(np.repeat(single.P, 5, axis=1), np.repeat(single.R, 5, axis=1), 0.999)
    np.testing.assert_allclose(optimal(copies).V, evaluate(single, np.ones((20, 1))).V, rtol=1e-12)
    constant = MDP(garnet(50, 6, 7, np.random.default_rng(1)).P, np.ones((50, 6)), 0.999)
    np.testing.assert_allclose(optimal(constant).V, 1000, rtol=1e-11)


def test_certificate_brackets_the_gap():
    """g ≤ max gap ≤ g/(1−γ) on random MDPs and policies (Statement B10), both nearly attained."""
    rng = np.random.default_rng(5)
    low, high = [], []
    for _ in range(200):
        S, A = rng.integers(1, 9), rng.integers(2, 5)
        mdp = garnet(S, A, rng.integers(1, S + 1), rng, gamma=rng.uniform(0, 0.99))
        policy = random_policy(rng, mdp) if rng.random() < 0.5 else np.eye(A)[rng.integers(A, size=S)]
        result = evaluate(mdp, policy)
        g, gap = advantage_gap(result), (optimal(mdp).V - result.V).max()
        assert g <= gap * (1 + 1e-9) + 1e-12 and gap <= g / (1 - mdp.gamma) * (1 + 1e-9) + 1e-12
        if g > 1e-6:
            low.append(g / gap)
            high.append(gap * (1 - mdp.gamma) / g)
    assert max(low) > 0.95 and max(high) > 0.95


LARGE_GAMMAS = [1 - 1e-4, 1 - 1e-7, 1 - 1e-10]


def two_rooms(gamma):
    """Two classes that do not lead to one another, with different gains, and a state that may choose."""
    P = np.zeros((5, 2, 5))
    P[[0, 1, 2, 3], :, [1, 0, 3, 2]] = 0.5
    P[[0, 1, 2, 3], 0, [0, 1, 2, 3]] = P[[0, 1, 2, 3], 1, [1, 0, 3, 2]] = 0.5
    P[[0, 1, 2, 3], 1, [1, 0, 3, 2]] += 0.5
    P[4, 0, 0] = P[4, 1, 2] = 1
    P /= P.sum(axis=-1, keepdims=True)
    return MDP(P, [[0.3, 0.1], [0.2, 0.7], [0.4, 0.2], [0.1, 0.35], [5.0, -5.0]], gamma)


NEAR_ONE = {
    "garnet": lambda gamma: garnet(20, 3, 4, np.random.default_rng(1), gamma),
    "sparse garnet": lambda gamma: garnet(12, 2, 1, np.random.default_rng(5), gamma, sparse=True),
    "chain": lambda gamma: chain(8, gamma=gamma),
    "gridworld": lambda gamma: gridworld(3, 3, gamma=gamma, walls=[(1, 1)], sparse=True),
    "deep sea": lambda gamma: deep_sea(3, gamma),
    "two rooms": two_rooms,
}


@pytest.mark.parametrize("gamma", LARGE_GAMMAS)
@pytest.mark.parametrize("name", NEAR_ONE)
def test_bounds_hold_in_rational_arithmetic(name, gamma):
    """Error and certificate of the optimum against its exact values; both are small, the more so in a connected MDP."""
    mdp = NEAR_ONE[name](gamma)
    best = optimal(mdp, tolerance=np.inf if gamma > 1 - 1e-9 else None)
    exact = exact_values(mdp, best.policy.argmax(axis=1))
    assert max(abs(Fraction(v) - w) for v, w in zip(best.V, exact)) <= best.error
    assert exact_certificate(mdp, exact) <= best.certificate
    scale = np.abs(best.V).max()
    assert best.error <= best.certificate <= 1e-6 * scale or gamma > 1 - 1e-9
    if name in ("garnet", "chain"):
        assert best.certificate <= 2e-13 * scale


def test_optimum_against_every_policy():
    """In every state no deterministic policy, valued exactly, is better than the certificate allows."""
    rng = np.random.default_rng(8)
    certified = 0
    for trial in range(12):
        S, A, gamma = 4, 2, 1 - 10.0 ** -rng.integers(1, 8)
        P = rng.dirichlet(np.full(S, 0.2), (S, A)) if trial % 2 else garnet(S, A, 1, rng).P
        mdp = MDP(P, rng.integers(0, 3, (S, A)) + 1e-9 * rng.random((S, A)), gamma)
        best = optimal(mdp)
        values = [exact_values(mdp, np.array(choice)) for choice in product(range(A), repeat=S)]
        optimum = [max(column) for column in zip(*values)]
        returned = exact_values(mdp, best.policy.argmax(axis=1))
        assert all(high - low <= best.certificate for high, low in zip(optimum, returned))
        certified += best.certificate <= 1e-9 * np.abs(best.V).max()
    assert certified > 8


def test_random_policies_are_valued_to_their_error():
    """Stochastic policies near γ = 1 against mpmath at 60 digits, dense and sparse, one by one and together."""
    rng = np.random.default_rng(9)
    for gamma in LARGE_GAMMAS:
        mdp = garnet(7, 3, 2, rng, gamma)
        policies = np.stack([random_policy(rng, mdp) for _ in range(4)])
        together = evaluate(mdp, policies)
        for i, policy in enumerate(policies):
            with mpmath.workdps(60):
                pi = [[mpmath.mpf(q) / mpmath.fsum(map(mpmath.mpf, row)) for q in row] for row in policy]
                P = [[[mpmath.mpf(p) / mpmath.fsum(map(mpmath.mpf, row)) for p in row] for row in xs] for xs in mdp.P]
                moves = [[mpmath.fsum(pi[x][a] * P[x][a][y] for a in range(3)) for y in range(7)] for x in range(7)]
                reward = [mpmath.fsum(pi[x][a] * mpmath.mpf(mdp.R[x, a]) for a in range(3)) for x in range(7)]
                V = mpmath.lu_solve(mpmath.eye(7) - mpmath.mpf(gamma) * mpmath.matrix(moves), mpmath.matrix(reward))
                off = max(abs(mpmath.mpf(v) - w) for v, w in zip(together.V[i], V))
            assert off <= together.error[i] <= 1e-6 * np.abs(together.V[i]).max() or gamma > 1 - 1e-9
            np.testing.assert_allclose(evaluate(mdp, policy).V, together.V[i], rtol=0, atol=2 * together.error[i])


def test_a_certificate_out_of_reach_is_refused():
    """Rounding leaves more than asked for: the message has the gap that was reached, which is then accepted."""
    mdp = two_rooms(1 - 1e-12)
    for asked in (None, 1e-9):
        with pytest.raises(ValueError, match=r"tolerance must be at least .* gamma = 0\.999999999999 .*") as refusal:
            optimal(mdp, asked)
    reached = float(str(refusal.value).split()[5].rstrip(","))
    assert optimal(mdp, 1.1 * reached).certificate <= 1.1 * reached


def test_occupancy_near_gamma_one():
    """The occupancy tends to the stationary law, entry by entry; where nothing returns 1 − γ of the start is left."""
    mdp = garnet(6, 2, 6, np.random.default_rng(2), gamma=1 - 1e-9)
    law = np.linalg.matrix_power(np.einsum("xa,xay->xy", mdp.uniform_policy(), mdp.P), 300)[0]
    np.testing.assert_allclose(occupancy(mdp, mdp.uniform_policy()), law, rtol=1e-8)
    start = occupancy(two_rooms(1 - 1e-9), np.full((5, 2), 0.5), start=np.eye(5)[4])
    np.testing.assert_allclose(start, [0.25, 0.25, 0.25, 0.25, 1e-9], rtol=1e-7)


def test_sparse_equals_dense():
    """The same MDP in both forms has the same values, occupancy and optimum."""
    for build in (
        lambda as_sparse: garnet(30, 3, 4, np.random.default_rng(0), sparse=as_sparse),
        lambda as_sparse: gridworld(6, 5, walls=[(2, 2), (3, 2)], sparse=as_sparse),
    ):
        full, thin = build(False), build(True)
        policy = random_policy(np.random.default_rng(1), full)
        for x, y in [
            (evaluate(full, policy).Q, evaluate(thin, policy).Q),
            (occupancy(full, policy), occupancy(thin, policy)),
            (optimal(full).V, optimal(thin).V),
        ]:
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)


def test_several_policies_at_once():
    """Leading axes are evaluated one by one; a sparse MDP says that it cannot."""
    mdp = garnet(7, 3, 2, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    policies = np.array([[random_policy(rng, mdp) for _ in range(3)] for _ in range(2)])
    together, visits = evaluate(mdp, policies), occupancy(mdp, policies)
    assert together.Q.shape == (2, 3, 7, 3) and together.value.shape == advantage_gap(together).shape == (2, 3)
    for index in np.ndindex(2, 3):
        alone = evaluate(mdp, policies[index])
        np.testing.assert_allclose(together.Q[index], alone.Q, rtol=1e-13)
        np.testing.assert_allclose(together.value[index], alone.value, rtol=1e-13)
        np.testing.assert_allclose(visits[index], occupancy(mdp, policies[index]), rtol=1e-12)
    with pytest.raises(ValueError, match=r"policy .*sparse"):
        evaluate(garnet(7, 3, 2, rng, sparse=True), policies)


def test_a_start_that_is_no_distribution_is_named():
    mdp = chain(4)
    for start, words in (([1, 2, 0, 0], "start summed"), ([0.5, 0.5], "over the 4 states, got shape")):
        with pytest.raises(ValueError, match=words):
            occupancy(mdp, mdp.uniform_policy(), start)
