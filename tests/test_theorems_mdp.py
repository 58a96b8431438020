"""Statements 15 and 16 in MDPs: no violation on random ones, assumptions, claims that can fail, regularised MDPs."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import mpmath
import numpy as np
import pytest

from pmdtheory import updates
from pmdtheory.mdp import (
    MDP,
    Euclidean,
    Tsallis,
    chain,
    evaluate,
    garnet,
    gridworld,
    inexact,
    iterate,
    iteration,
    optimal,
    regularised,
)
from pmdtheory.theorems import (
    STATEMENTS,
    mdp_adaptive_steps,
    mdp_certificate,
    mdp_constant_step,
    mdp_entropy_regularised,
    mdp_geometric_steps,
    mdp_improvement,
    mdp_optimum,
    mdp_pmd_mean_rate,
    mdp_problems,
    softmax_policy_gradient,
)
from tests.mdps import dense, fixed_point

LABELS = [label for label, statement in STATEMENTS.items() if statement.sample.__module__ == mdp_problems.__name__]
CLAIMS = [(label, claim) for label in LABELS for claim in STATEMENTS[label].claims]
EACH_CLAIM = pytest.mark.parametrize(("label", "claim"), CLAIMS, ids=[f"{label} {c.__name__}" for label, c in CLAIMS])

KL, MEAN = updates.kl_update, updates.pmd_mean_update


def sampled(label, seed, mdps):
    """Arguments of that many random problems of a statement."""
    return [arguments for _, arguments in STATEMENTS[label].sample(np.random.default_rng(seed), 10 * mdps)]


def small(gamma=0.5, states=4, actions=2, seed=0):
    """A Garnet and the uniform policy on it."""
    mdp = garnet(states, actions, 2, np.random.default_rng(seed), gamma=gamma)
    return mdp, mdp.uniform_policy()


@EACH_CLAIM
def test_no_violation(label, claim):
    """Zero violations on at least 40 random problems that meet the assumptions."""
    met = 0
    for size, arguments in STATEMENTS[label].sample(np.random.default_rng(1), 550):
        result = claim(*arguments)
        assert np.all(result.holds), (arguments, result.slack.min())
        met += np.broadcast_to(result.assumptions, result.slack.shape).reshape(size, -1).any(axis=1).sum()
    assert met >= 40


def test_thousand_iterations_improve_every_state():
    """Statement 15(a) along 1,000 PMD-mean iterations, most of which really move."""
    iterations = moves = 0
    for mdp, policy, tau in sampled("15(a)", 2, 100):
        claim = mdp_improvement.pmd_mean_improves(mdp, policy, tau, steps=10)
        assert np.all(claim.holds) and np.all(np.isfinite(claim.slack))
        iterations += len(claim.bound)
        moves += (claim.bound.max(axis=1) > 1e-9).sum()
    assert iterations == 1000 and moves > 500


@pytest.mark.parametrize("mirror", [Euclidean(), Tsallis(0.5)], ids=["euclidean", "tsallis"])
def test_other_mirror_maps(mirror):
    """B1 to B5 hold for every mirror map."""
    met = 0
    for mdp, policy, tau in sampled("B4", 3, 6):
        claims = [
            mdp_adaptive_steps.gamma_linear_rate(mdp, policy, tau, mirror),
            mdp_adaptive_steps.lookahead_rate(mdp, policy, tau, 2, mirror),
            mdp_adaptive_steps.inexact_rate(mdp, policy, tau, 0.01, mirror=mirror),
            mdp_constant_step.constant_step_rate(mdp, policy, tau, mirror),
            mdp_geometric_steps.geometric_step_rate(mdp, policy, tau, mirror),
        ]
        assert all(np.all(claim.holds) for claim in claims)
        met += sum(np.any(claim.assumptions) for claim in claims)
    assert met > 25


def reverse(policy, reward, tau):
    """Step away from the rewards."""
    return KL(policy, -reward, tau)


def frozen(policy, reward, tau):
    """Step nowhere."""
    return replace(KL(policy, reward, tau), policy=policy)


def restless(policy, reward, tau):
    """A step that moves even when all rewards are equal."""
    return replace(KL(policy, reward, tau), policy=policy[..., ::-1])


EXACT_STEP, EXACT_GAP = regularised._step, mdp_certificate.advantage_gap


def frozen_step(current, weight, eta):
    """The optimum is found as it should be, but the iteration stands still."""
    return EXACT_STEP(current, weight, eta) if np.isinf(eta) else current.log_policy


def frozen_gradient(policy, reward):
    """Policy gradient with steps of length 0, and a claim that does not notice."""
    return softmax_policy_gradient.softmax_gradient_rate(policy, reward, step=0.0)._replace(assumptions=True)


MISTAKES = {
    "15(a)": (updates, reverse),
    "15(b)": (updates, reverse),
    "15(c)": (updates, restless),
    "B1": (updates, reverse),
    "B2": (updates, reverse),
    "B3": (updates, reverse),
    "B4": (updates, reverse),
    "B5": (updates, frozen),
    "B6": (regularised, frozen_step),
    "B7": (regularised, frozen_step),
    "B11 MDP": (updates, frozen),
}


@EACH_CLAIM
def test_every_claim_can_fail(label, claim, monkeypatch):
    """A wrong step (a wrong certificate for B10) is reported as a violation."""
    if label == "B9":
        claim = frozen_gradient
    elif label == "B10":
        factor = 1.5 if claim is mdp_certificate.advantage_below_gap else 0.5
        monkeypatch.setattr(mdp_certificate, "advantage_gap", lambda evaluation: factor * EXACT_GAP(evaluation))
    else:
        module, wrong = MISTAKES[label]
        for name in ["_step"] if module is regularised else ["kl_update", "pmd_mean_update"]:
            monkeypatch.setattr(module, name, wrong)
    assert any(not np.all(claim(*arguments).holds) for arguments in sampled(label, 4, 40))


def test_published_bounds_do_not_cover_pmd_mean(monkeypatch):
    """PMD-mean in the place of the KL update breaks B1 and B5: it is not greedy even for long steps (Statement 8)."""
    monkeypatch.setattr(updates, "kl_update", MEAN)
    starts = [(mdp, policy, tau) for mdp, policy, tau in sampled("B1", 5, 40) if policy.min() > 0]
    for claim in (mdp_adaptive_steps.gamma_linear_rate, mdp_geometric_steps.geometric_step_rate):
        assert any(not np.all(claim(*arguments, steps=4).holds) for arguments in starts)


def test_assumptions_on_the_start():
    """A first policy that excludes optimal actions voids B1 to B5 and B11, and is refused by B6 and B7."""
    mdp, uniform = small()
    worst = np.eye(2)[1 - optimal(mdp).policy.argmax(axis=1)]
    for claim in (
        mdp_adaptive_steps.gamma_linear_rate,
        mdp_constant_step.constant_step_rate,
        mdp_geometric_steps.geometric_step_rate,
        mdp_pmd_mean_rate.pmd_mean_rate,
    ):
        assert np.all(claim(mdp, uniform, 0.1).assumptions)
        assert not np.any(claim(mdp, worst, 0.1).assumptions)
    for claim in (mdp_entropy_regularised.lan_rate, mdp_entropy_regularised.npg_rate):
        with pytest.raises(ValueError, match="policy must be positive"):
            claim(mdp, worst, 0.1, 10.0)


def test_assumptions_on_the_mdp():
    """γ > 0 for B1 and B5, rewards in [0, 1] for B4, a positive start distribution for B5."""
    bandit, uniform = small(gamma=0.0)
    assert not np.any(mdp_adaptive_steps.gamma_linear_rate(bandit, uniform, 0.1).assumptions)
    assert not np.any(mdp_entropy_regularised.lan_rate(bandit, uniform, 0.1, 10.0).assumptions)
    with pytest.raises(ValueError, match="gamma must be positive, got 0"):
        mdp_geometric_steps.geometric_step_rate(bandit, uniform, 0.1)

    mdp, uniform = small()
    for rewards in (mdp.R - 0.5, 3 * mdp.R):
        other = MDP(mdp.P, rewards, mdp.gamma)
        assert not np.any(mdp_constant_step.constant_step_rate(other, uniform, 0.1).assumptions)
    corner = MDP(mdp.P, mdp.R, mdp.gamma, np.eye(4)[0])
    assert not np.any(mdp_geometric_steps.geometric_step_rate(corner, uniform, 0.1).assumptions)
    assert np.isinf(mdp_geometric_steps.mismatch(corner))


def test_assumptions_on_the_steps(monkeypatch):
    """B6 wants η ≥ (1−γ)/(γμ); B1, B2 and B5 notice steps that are too short."""
    mdp, uniform = small(gamma=0.8)
    limit = 0.2 / (0.8 * 0.1)
    for eta, expected in ((limit, True), (2 * limit, True), (0.99 * limit, False)):
        assert mdp_entropy_regularised.lan_rate(mdp, uniform, 0.1, eta).assumptions == expected
    monkeypatch.setattr(iteration, "SMALLEST_TAU", 0.1)
    assert not np.any(mdp_adaptive_steps.gamma_linear_rate(mdp, uniform, 0.1).assumptions)
    assert not np.any(mdp_adaptive_steps.lookahead_rate(mdp, uniform, 0.1, 2).assumptions)
    growing = mdp_geometric_steps.geometric_step_rate(mdp, uniform, 1.0, steps=40).assumptions
    assert growing[0] and not growing[-1] and np.all(np.diff(growing.astype(int)) <= 0)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_assumptions_on_the_errors(factor):
    """15(b) and B3 measure the errors of the oracle that they are given."""
    mdp, uniform = small()
    error = 0.1

    def oracle(mdp, truth, rng):
        return truth.Q + factor * error * np.where(rng.random(truth.Q.shape) < 0.5, 1, -1)

    for claim in (
        mdp_improvement.pmd_mean_improves_inexactly(mdp, uniform, 0.1, error, oracle),
        mdp_improvement.kl_improves_inexactly(mdp, uniform, 0.1, error, oracle),
        mdp_adaptive_steps.inexact_rate(mdp, uniform, 0.1, error, oracle),
    ):
        assert np.all(claim.assumptions) == np.any(claim.assumptions) == (factor < 1)
        assert np.all(claim.holds)


def test_terminal_states_are_what_15c_is_about():
    mdp = gridworld(2, 3)
    claim = mdp_improvement.terminal_states_stay(mdp, mdp.uniform_policy(), 0.1)
    assert np.array_equal(claim.assumptions, np.arange(6) == 5)
    assert claim.value[:, 5].max() == 0 and claim.value[:, :5].min() > 1e-6


def test_rewards_of_the_policy_gradient():
    """B9 wants rewards in [0, 1] on the support, and its own step size."""
    claim = softmax_policy_gradient.softmax_gradient_rate
    assert np.all(claim([0.5, 0.5, 0.0], [0.0, 1.0, 7.0]).assumptions)
    assert not np.any(claim([0.5, 0.5], [0.0, 1.1]).assumptions)
    assert not np.any(claim([0.5, 0.5], [0.0, 1.0], step=0.5).assumptions)


def test_softmax_gradient_against_finite_differences():
    """The recursion of B9 is gradient ascent on the logits, and c is the smallest mass of the best action so far."""
    rng = np.random.default_rng(6)
    p, r, steps, h = rng.dirichlet(np.ones(4)), rng.random(4), 5, 1e-6

    def expected_reward(logits):
        weights = np.exp(logits)
        return weights @ r / weights.sum()

    logits, best, gaps, least = np.log(p), r.argmax(), [], []
    for _ in range(steps):
        least.append(np.exp(logits[best]) / np.exp(logits).sum())
        gradient = [(expected_reward(logits + h * e) - expected_reward(logits - h * e)) / (2 * h) for e in np.eye(4)]
        logits = logits + 0.4 * np.array(gradient)
        gaps.append(r.max() - expected_reward(logits))
    claim = softmax_policy_gradient.softmax_gradient_rate(p, r, steps)
    np.testing.assert_allclose(claim.value, gaps, rtol=1e-8)
    bound = [5 / (min(least[:t]) ** 2 * t) for t in range(1, steps + 1)]
    np.testing.assert_allclose(claim.bound, bound, rtol=1e-7)


def test_bounds_from_their_definitions():
    """d* as a series, D₀ as −log π⁰(a*), V* by value iteration: the curves of B1 to B5 and B11 recomputed."""
    mdp, policy = small(gamma=0.7, states=5, actions=3, seed=7)
    gamma, tau, steps = 0.7, 0.2, 4
    V_best = fixed_point(mdp, lambda Q: Q.max(axis=1), 300)
    V_first = fixed_point(mdp, lambda Q: (policy * Q).sum(axis=1), 300)
    choice = (mdp.R + gamma * np.einsum("xay,y->xa", dense(mdp), V_best)).argmax(axis=1)
    moves, law, d = dense(mdp)[np.arange(5), choice], mdp.rho, np.zeros(5)
    for t in range(300):
        d, law = d + (1 - gamma) * gamma**t * law, law @ moves
    D0 = d @ -np.log(policy[np.arange(5), choice])
    gap, worst = mdp.rho @ (V_best - V_first), (V_best - V_first).max()
    theta = (d / mdp.rho).max() / (1 - gamma)
    run = iterate(mdp, policy, tau=tau, steps=steps, keep=["policy"])
    mass = run.kept["policy"][:, np.arange(5), choice]

    for k in range(1, steps + 1):
        expected = {
            "B1": gamma**k * (worst + tau / (1 - gamma)),
            "B2": gamma ** (2 * k) * (worst + tau * gamma**2 / ((1 - gamma) * (1 - gamma**2))),
            "B3": gamma**k * (worst + tau / (1 - gamma)) + 2 * 0.1 / (1 - gamma) ** 2,
            "B4": (tau * D0 / (1 - gamma) + 1 / (1 - gamma) ** 2) / k,
            "B5": (1 - 1 / theta) ** k * (gap + tau * D0 / ((1 - gamma) * (theta - 1))),
            "B11": (tau * D0 + d @ (V_best - V_first) / mass[1 : k + 1].min()) / ((1 - gamma) * k),
        }
        bounds = {
            "B1": mdp_adaptive_steps.gamma_linear_rate(mdp, policy, tau, steps=steps).bound,
            "B2": mdp_adaptive_steps.lookahead_rate(mdp, policy, tau, 2, steps=steps).bound,
            "B3": mdp_adaptive_steps.inexact_rate(mdp, policy, tau, 0.1, steps=steps).bound,
            "B4": mdp_constant_step.constant_step_rate(mdp, policy, tau, steps=steps).bound,
            "B5": mdp_geometric_steps.geometric_step_rate(mdp, policy, tau, steps=steps).bound,
            "B11": mdp_pmd_mean_rate.pmd_mean_rate(mdp, policy, tau, steps=steps).bound,
        }
        for label, value in expected.items():
            assert bounds[label][k - 1] == pytest.approx(value, rel=1e-10), label


def test_claims_on_given_iterates():
    """A run made by someone else gets the same claims as the functions' own runs."""
    mdp, policy = small(gamma=0.9)
    best = optimal(mdp)
    run = iterate(mdp, policy, tau=0.05, steps=10, keep=["V", "policy"], optimal_value=best.V)
    along = mdp_improvement.improvement_along(mdp, run.kept["policy"], run.kept["V"])
    own = mdp_improvement.pmd_mean_improves(mdp, policy, 0.05, steps=10)
    np.testing.assert_array_equal(along.value, own.value)
    np.testing.assert_array_equal(along.bound, own.bound)
    backwards = mdp_improvement.improvement_along(mdp, run.kept["policy"][::-1], run.kept["V"][::-1])
    assert not np.all(backwards.holds)

    claim = mdp_pmd_mean_rate.pmd_mean_rate(mdp, policy, 0.05)
    np.testing.assert_array_equal(claim.bound, mdp_pmd_mean_rate.pmd_mean_bound(mdp, run.kept["policy"], 0.05, best))
    np.testing.assert_array_equal(claim.value, run.table.mean_gap[1:])


def test_sparse_mdps():
    """Every claim gives the same on the sparse form of an MDP."""
    pair = [garnet(6, 3, 2, np.random.default_rng(9), gamma=0.8, sparse=sparse) for sparse in (False, True)]
    uniform = pair[0].uniform_policy()
    arguments = {"15(b)": (0.1, 0.1), "B2": (0.1, 2), "B3": (0.1, 0.1), "B6": (0.1, 10.0), "B7": (0.1, 10.0), "B10": ()}
    for label, claim in CLAIMS:
        if label != "B9":
            ours, theirs = (claim(mdp, uniform, *arguments.get(label, (0.1,))) for mdp in pair)
            np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-6, atol=1e-10)
            np.testing.assert_allclose(ours.bound, theirs.bound, rtol=1e-9, atol=1e-12)


def test_certificate_on_an_optimal_policy():
    """B10 is tight: both sides are 0 at the optimum, and only there."""
    mdp, uniform = small()
    policies = np.stack([optimal(mdp).policy, uniform])
    for claim in (mdp_certificate.advantage_below_gap, mdp_certificate.gap_below_certificate):
        result = claim(mdp, policies)
        np.testing.assert_allclose([result.value[0], result.bound[0]], 0, atol=1e-14)
        assert result.value[1] > 0.1


@pytest.mark.parametrize("gamma", [1 - 1e-4, 1 - 1e-7])
def test_certificate_near_gamma_one(gamma, monkeypatch):
    """B10 holds there, to a tolerance that is far below the gap, so that a bound too small by a tenth is noticed."""
    mdp = garnet(20, 3, 4, np.random.default_rng(1), gamma)
    policies = np.stack([mdp.uniform_policy(), np.eye(3)[mdp.R.argmax(axis=1)], optimal(mdp).policy])
    for claim, factor in ((mdp_certificate.advantage_below_gap, 1e8), (mdp_certificate.gap_below_certificate, 1e-3)):
        assert np.all(claim(mdp, policies).holds)
        monkeypatch.setattr(mdp_certificate, "advantage_gap", lambda e, factor=factor: factor * EXACT_GAP(e))
        assert not np.any(claim(mdp, policies[:2]).holds)
        monkeypatch.undo()


def test_samplers():
    """Seeded, a tenth of the problems but at least 40, within the ranges told."""
    assert [mdp_problems.count(n) for n in (1, 30, 100, 400, 1000)] == [1, 30, 40, 40, 100]
    first, again, other = (sampled("B1", seed, 40) for seed in (8, 8, 9))
    assert len(first) == 40
    for (mdp, policy, tau), (same, same_policy, same_tau) in zip(first, again):
        assert np.array_equal(mdp.P, same.P) and np.array_equal(policy, same_policy) and tau == same_tau
    assert any(a[2] != b[2] for a, b in zip(first, other))
    for mdp, policy, tau in first + other:
        assert 3 <= mdp.states <= 20 and 2 <= mdp.actions <= 6 and 0.3 <= mdp.gamma <= 0.97
        assert mdp.R.min() >= 0 and mdp.R.max() <= 1 and 1e-3 <= tau <= 10
        mdp.check_policy(policy)
    assert all(mdp.terminal.any() for mdp, *_ in sampled("15(c)", 8, 40))


REGULARISED = [small(gamma=0.9, states=6, actions=3)[0], gridworld(3, 3, gamma=0.8), chain(5, gamma=0.6)]


@pytest.mark.parametrize("weight", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("mdp", REGULARISED, ids=["garnet", "gridworld", "chain"])
def test_regularised_values(mdp, weight):
    """Evaluation and optimum against plain soft value iteration; no other policy is better."""
    rng = np.random.default_rng(10)
    policy = rng.dirichlet(np.ones(mdp.actions), mdp.states)
    entropy = -(policy * np.log(policy)).sum(axis=1)
    expected = fixed_point(mdp, lambda Q: (policy * Q).sum(axis=1) + weight * entropy, 400)
    ours = regularised.evaluate(mdp, policy, weight)
    np.testing.assert_allclose(ours.V, expected, rtol=1e-12)
    np.testing.assert_allclose(ours.V, (policy * (ours.Q - weight * np.log(policy))).sum(axis=1), rtol=1e-11)

    def soft_maximum(Q):
        top = Q.max(axis=1)
        return top + weight * np.log(np.exp((Q - top[:, None]) / weight).sum(axis=1))

    best = regularised.optimal(mdp, weight)
    np.testing.assert_allclose(best.V, fixed_point(mdp, soft_maximum, 400), rtol=1e-12)
    np.testing.assert_allclose(soft_maximum(best.Q), best.V, rtol=1e-12)
    np.testing.assert_allclose(best.policy.sum(axis=1), 1, rtol=1e-13)
    assert np.all(ours.V <= best.V)


def test_regularised_step_against_cvxpy():
    """One step maximises ⟨Q, π⟩ + μH(π) − KL(π‖π⁰)/η in every state."""
    mdp = REGULARISED[0]
    start, weight, eta = np.random.default_rng(11).dirichlet(np.ones(3), 6), 0.2, 1.5
    run = regularised.iterate(mdp, start, weight, eta, 1)
    q = cp.Variable((6, 3))
    gain = cp.sum(cp.multiply(run.Q[0], q)) + weight * cp.sum(cp.entr(q)) - cp.sum(cp.rel_entr(q, start)) / eta
    cp.Problem(cp.Maximize(gain), [cp.sum(q, axis=1) == 1]).solve(solver="CLARABEL")
    np.testing.assert_allclose(run.policy[1], q.value, atol=1e-4)


def test_regularised_iteration_reaches_the_optimum():
    """Any fixed step converges, infinite ones at once; the values never fall."""
    mdp, weight = REGULARISED[0], 0.05
    best = regularised.optimal(mdp, weight)
    for eta, steps in ((1.0, 600), (100.0, 60), (np.inf, 12)):
        run = regularised.iterate(mdp, mdp.uniform_policy(), weight, eta, steps)
        assert run.V.shape == (steps + 1, 6) and run.policy.shape == (steps + 1, 6, 3)
        assert np.diff(run.V, axis=0).min() >= -1e-12
        np.testing.assert_allclose(run.V[-1], best.V, rtol=1e-10)
        np.testing.assert_allclose(run.log_policy[-1], best.log_policy, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("gamma", [1 - 1e-4, 1 - 1e-7, 1 - 1e-9])
@pytest.mark.parametrize("weight", [0.01, 1.0])
def test_regularised_optimum_near_gamma_one(gamma, weight):
    """Within its certificate of the fixed point of the soft backup, which Newton's method finds at 40 digits."""
    mdp = garnet(4, 2, 3, np.random.default_rng(3), gamma=gamma)
    best = regularised.optimal(mdp, weight)
    with mpmath.workdps(40):
        rows = [[[mpmath.mpf(p) / mpmath.fsum(row.tolist()) for p in row] for row in rows] for rows in mdp.P]

        def surplus(*V):
            mu, discount = mpmath.mpf(weight), mpmath.mpf(gamma)
            after = [[mpmath.fdot(row, V) for row in actions] for actions in rows]
            Q = [[mpmath.mpf(mdp.R[x, a]) + discount * after[x][a] - V[x] for a in range(2)] for x in range(4)]
            return [mu * mpmath.log(mpmath.fsum(mpmath.exp(q / mu) for q in row)) for row in Q]

        exact = mpmath.findroot(surplus, best.V.tolist(), tol=1e-50)
        off = max(abs(mpmath.mpf(v) - w) for v, w in zip(best.V, exact))
    assert off <= 2 * best.certificate <= 1e-6 * np.abs(best.V).max()
    with pytest.raises(ValueError, match=r"tolerance must be at least .* rounding leaves"):
        regularised.optimal(mdp, weight, tolerance=1e-3 * best.certificate)


def test_small_weights_are_nearly_plain():
    """For μ → 0 the regularised optimum is within μ log A/(1−γ) of the plain one, although π* underflows."""
    mdp = REGULARISED[0]
    for weight in (1e-2, 1e-5, 1e-8):
        excess = regularised.optimal(mdp, weight).V - optimal(mdp).V
        assert excess.min() >= -1e-13 and excess.max() <= weight * np.log(3) / 0.1 + 1e-13
    assert regularised.optimal(mdp, 1e-8).policy.min() == 0


def test_stationary_distribution():
    """Of a policy with one recurrent class, and of one with two."""
    moves = np.random.default_rng(12).dirichlet(np.ones(5), 5)
    ours = mdp_entropy_regularised._stationary(MDP(moves[:, None], np.zeros((5, 1)), 0.5), np.ones((5, 1)))
    np.testing.assert_allclose(ours, np.linalg.matrix_power(moves, 200)[0], rtol=1e-9)
    two = np.array([[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    law = mdp_entropy_regularised._stationary(MDP(two[:, None], np.zeros((4, 1)), 0.5), np.ones((4, 1)))
    np.testing.assert_allclose(law @ two, law, atol=1e-14)
    assert law.min() >= 0 and law.sum() == pytest.approx(1)


def test_distance_of_the_start_ignores_unvisited_states():
    """Excluding an optimal action where π* never goes costs nothing."""
    mdp = MDP(P=[[[1, 0], [1, 0]], [[0, 1], [0, 1]]], R=[[1, 0], [1, 0]], gamma=0.5, rho=[1, 0])
    _, d, _, distance = mdp_optimum.start(mdp, [[0.5, 0.5], [0, 1]])
    assert d.tolist() == [1, 0] and distance == pytest.approx(np.log(2))
    assert np.isinf(mdp_optimum.start(mdp, [[0, 1], [0.5, 0.5]])[3])


BAD = {
    "weight": (lambda m, p: regularised.evaluate(m, p, 0.0), r"weight must be positive, got 0\.0"),
    "weights": (lambda m, p: regularised.optimal(m, [1.0, 2.0]), r"weight must be one number, got shape \(2,\)"),
    "eta": (lambda m, p: regularised.iterate(m, p, 0.1, -1.0, 3), r"eta must be positive, got -1\.0"),
    "zeros": (lambda m, p: regularised.evaluate(m, np.eye(2)[[0] * 4], 0.1), r"policy must be positive, got 0\.0"),
    "shape": (lambda m, p: regularised.iterate(m, [p, p], 0.1, 1.0, 1), r"policy must have shape \(4, 2\)"),
    "error": (lambda m, p: mdp_adaptive_steps.inexact_rate(m, p, 0.1, -0.1), r"error must be nonnegative, got -0\.1"),
    "tau": (lambda m, p: mdp_pmd_mean_rate.pmd_mean_rate(m, p, 0.0), r"tau must be positive, got 0\.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(*small())


def test_claims_are_about_the_exact_policies_they_visit():
    """The inexact claims compare exact values, not the learner's."""
    mdp, uniform = small()
    claim = mdp_improvement.pmd_mean_improves_inexactly(mdp, uniform, 0.1, 0.2, steps=1)
    truth = evaluate(mdp, uniform)
    after = evaluate(mdp, MEAN(uniform, inexact.adversarial(0.2)(mdp, truth, None), 0.1).policy)
    np.testing.assert_allclose(claim.value[0], truth.V - after.V, atol=1e-14)
    np.testing.assert_allclose(claim.bound, 2 * 0.2 / 0.5)
