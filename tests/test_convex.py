"""The CVXPY reference: it agrees with the fast solver, with itself, and with the bounds its certificates claim."""

import subprocess
import sys

import numpy as np
import pytest

from pmdtheory import baseline_update, convex, kl_update, mixed_update, pmd_mean_update

SOLVERS = ["CLARABEL", "SCS"]
SIZES = [1e-6, 1e-4, 1e-2, 1.0]
POLICY, REWARD, TAU = np.array([0.1, 0.6, 0.3]), np.array([1.0, 0.0, 0.4]), 0.2


def moderate_problem(rng):
    """One context with p ≥ 1e-6 and τ/range log-uniform in [0.05, 10]."""
    actions = rng.choice([2, 3, 5, 10, 30])
    smallest = rng.choice([-5.9, -2.0, 0.0])
    weights = 10 ** rng.uniform(smallest, 0, actions)
    weights[rng.integers(actions)] = 1.0
    policy = np.maximum(weights / weights.sum(), 1e-6)
    policy = policy / policy.sum()
    reward = [rng.normal(size=actions), rng.integers(0, 5, actions) / 4, np.zeros(actions)][rng.integers(3)]
    reward[rng.integers(actions)] += 1.0
    reward[0] -= np.ptp(reward) == 0
    return policy, reward, np.ptp(reward) * 10 ** rng.uniform(np.log10(0.05), 1)


def moderate_batch(rng, contexts, actions):
    """Such contexts side by side, some actions of probability zero."""
    weights = 10 ** rng.uniform(-5, 0, (contexts, actions))
    weights[:, 0] = 1.0
    weights[:, 1:][rng.random((contexts, actions - 1)) < 0.2] = 0.0
    policy = weights / weights.sum(axis=-1, keepdims=True)
    reward = rng.normal(size=(contexts, actions))
    return policy, reward, np.ptp(reward, axis=-1) * 10 ** rng.uniform(np.log10(0.05), 1, contexts)


def l1(update, other):
    return np.abs(update.policy - other.policy).sum(axis=-1)


def policy_objective(policy, reward, tau, chi2_coef, q):
    """E_q[r] − τ KL(q‖p) − (κ/2) χ²(q‖p)."""
    on = q > 0
    kl = np.sum(q[on] * np.log(q[on] / policy[on]))
    chi2 = np.sum((q - policy)[policy > 0] ** 2 / policy[policy > 0])
    return q @ reward - tau * kl - chi2_coef / 2 * chi2


def regression_loss(policy, reward, tau, baseline, q):
    """(τ/2) E_p[(log(q/p) − (r − b)/τ)²]."""
    return tau / 2 * policy @ (np.log(q / policy) - (reward - baseline) / tau) ** 2


@pytest.mark.parametrize(("solver", "count"), [("CLARABEL", 25), ("SCS", 10)])
def test_agrees_with_the_fast_solver(solver, count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        problem = moderate_problem(rng)
        fast = pmd_mean_update(*problem)
        coef = fast.chi2_weight * problem[2]
        assert l1(convex.kl(*problem, solver=solver), kl_update(*problem)) <= 1e-5
        assert l1(convex.mixed(*problem, coef, solver=solver), fast) <= 1e-5
        assert l1(convex.regression(*problem, solver=solver), fast) <= 1e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_multipliers_give_weight_and_baseline(solver):
    rng = np.random.default_rng(1)
    for _ in range(5):
        policy, reward, tau = moderate_problem(rng)
        ideal, fast = kl_update(policy, reward, tau), pmd_mean_update(policy, reward, tau)
        assert convex.kl(policy, reward, tau, solver=solver).baseline == pytest.approx(ideal.baseline, abs=1e-4 * tau)
        regressed = convex.regression(policy, reward, tau, solver=solver)
        assert regressed.chi2_weight == pytest.approx(fast.chi2_weight, abs=1e-4)
        assert regressed.baseline == pytest.approx(policy @ reward)
        mixed = convex.mixed(policy, reward, tau, 0.3 * tau, solver=solver)
        expected = mixed_update(policy, reward, tau, 0.3 * tau)
        assert mixed.chi2_weight == pytest.approx(0.3)
        assert mixed.baseline == pytest.approx(expected.baseline, abs=1e-4 * tau)


@pytest.mark.parametrize("solver", SOLVERS)
def test_regression_is_the_mixed_problem_in_disguise(solver):
    """Statement 3 with CVXPY on both sides."""
    rng = np.random.default_rng(2)
    for _ in range(5):
        problem = moderate_problem(rng)
        regressed = convex.regression(*problem, solver=solver)
        mixed = convex.mixed(*problem, problem[2] * regressed.chi2_weight, solver=solver)
        assert l1(regressed, mixed) <= 1e-5
        assert mixed.baseline == pytest.approx(problem[0] @ problem[1], abs=1e-4 * problem[2])


@pytest.mark.parametrize("excess", [-10.0, -0.5, 0.5, 0.9])
def test_regression_with_a_baseline(excess):
    """From far below the mean to most of the way to τ log Z."""
    ideal = kl_update(POLICY, REWARD, TAU)
    mean = POLICY @ REWARD
    baseline = mean + excess * (ideal.baseline - mean)
    fast = baseline_update(POLICY, REWARD, TAU, baseline)
    update = convex.regression(POLICY, REWARD, TAU, baseline)
    assert l1(update, fast) <= 1e-6
    assert update.chi2_weight == pytest.approx(fast.chi2_weight, rel=1e-4)
    assert update.baseline == pytest.approx(baseline)
    assert not update.local


def test_regression_at_the_log_partition_is_the_kl_update():
    ideal = kl_update(POLICY, REWARD, TAU)
    update = convex.regression(POLICY, REWARD, TAU, ideal.baseline)
    assert l1(update, ideal) <= 1e-4
    assert update.chi2_weight <= 1e-4


def test_mixed_without_chi2_is_the_kl_update():
    assert l1(convex.mixed(POLICY, REWARD, TAU, 0.0), convex.kl(POLICY, REWARD, TAU)) <= 1e-5


@pytest.mark.parametrize("options", [{}, {"tol_gap_abs": 1e-3, "tol_gap_rel": 1e-3, "tol_feas": 1e-3}])
def test_gap_is_primal_minus_dual(options):
    """Against the dual functions written out, at the returned multiplier: loose tolerances make the gap large."""
    target = (REWARD - POLICY @ REWARD) / TAU

    ideal = convex.kl(POLICY, REWARD, TAU, **options)
    shift = (ideal.baseline - POLICY @ REWARD) / TAU
    bound = POLICY @ REWARD + TAU * (shift - 1 + POLICY @ np.exp(target - shift))
    gap = bound - policy_objective(POLICY, REWARD, TAU, 0.0, ideal.policy)
    assert ideal.certificate.duality_gap == pytest.approx(gap, abs=1e-14)

    def stationary(weight, right):
        s = np.minimum(right, 0.0)
        for _ in range(200):
            s -= (s + weight * np.exp(s) - right) / (1 + weight * np.exp(s))
        return s

    regressed = convex.regression(POLICY, REWARD, TAU, **options)
    weight = regressed.chi2_weight
    s = stationary(weight, target)
    bound = TAU * (POLICY @ ((s - target) ** 2 / 2 + weight * np.exp(s)) - weight)
    gap = regression_loss(POLICY, REWARD, TAU, POLICY @ REWARD, regressed.policy) - bound
    assert regressed.certificate.duality_gap == pytest.approx(gap, abs=1e-14)

    mixed = convex.mixed(POLICY, REWARD, TAU, 0.3, **options)
    shift = (mixed.baseline - POLICY @ REWARD) / TAU
    s = stationary(1.5, target - shift)
    ratio = np.exp(s)
    lagrangian = POLICY @ (ratio * (target - s) - 0.75 * (ratio**2 - 1)) - (shift - 1) * (POLICY @ ratio - 1)
    gap = POLICY @ REWARD + TAU * lagrangian - policy_objective(POLICY, REWARD, TAU, 0.3, mixed.policy)
    assert mixed.certificate.duality_gap == pytest.approx(gap, abs=1e-14)
    if options:
        assert min(u.certificate.duality_gap for u in (ideal, regressed, mixed)) > 1e-12


@pytest.mark.parametrize("name", ["kl", "mixed", "regression"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-11])
def test_certificate_bounds_every_other_policy(name, tolerance):
    """Whatever the tolerance: no perturbed policy, nor the fast solver's, is better by more than the gap."""
    rng = np.random.default_rng(3)
    options = {"tol_gap_abs": tolerance, "tol_gap_rel": tolerance, "tol_feas": max(tolerance, 1e-9)}
    for _ in range(3):
        problem = policy, reward, tau = moderate_problem(rng)
        if name == "regression":
            update, best = convex.regression(*problem, **options), pmd_mean_update(*problem)
            curvature = best.chi2_weight
        else:
            coef = 0.2 * tau if name == "mixed" else 0.0
            update = convex.mixed(*problem, coef, **options) if coef else convex.kl(*problem, **options)
            best, curvature = mixed_update(*problem, coef), 1.0

        rounding = 1e-13 * max(1.0, np.abs(reward).max(), tau)
        gap, q = update.certificate.duality_gap + rounding, update.policy
        # Strong convexity: the gap bounds the distance to the best policy as well as the shortfall.
        assert tau * curvature * l1(update, best) ** 2 / 2 <= gap
        others = [base * np.exp(size * rng.normal(size=q.size)) for base in (q, best.policy) for size in SIZES]
        for other in [best.policy, *(q / q.sum() for q in others)]:
            if name == "regression":
                mean = policy @ reward
                shortfall = regression_loss(*problem, mean, q) - regression_loss(*problem, mean, other)
            else:
                shortfall = policy_objective(*problem, coef, other) - policy_objective(*problem, coef, q)
            assert shortfall <= gap


def test_solution_far_outside_the_moderate_range_is_within_its_certificate():
    problems = [
        ([1e-30, 0.5, 0.5], [1.0, 0.0, 0.5], 0.1),
        ([0.3, 0.3, 0.4], [1.0, 0.0, 0.5], 1e-3),
        ([0.3, 0.3, 0.4], [1.0, 0.0, 0.5], 1e3),
        ([1e-12, 1.0], [1.0, 0.0], 0.1),
    ]
    for policy, reward, tau in problems:
        for update, best in [
            (convex.kl(policy, reward, tau), kl_update(policy, reward, tau)),
            (convex.mixed(policy, reward, tau, tau), mixed_update(policy, reward, tau, tau)),
        ]:
            assert np.isfinite(update.certificate.duality_gap)
            assert l1(update, best) <= np.sqrt(2 * np.maximum(update.certificate.duality_gap, 0.0) / tau) + 1e-9


def updates_of(policy, reward, tau, **keywords):
    return [
        convex.kl(policy, reward, tau, **keywords),
        convex.mixed(policy, reward, tau, 0.5 * np.asarray(tau), **keywords),
        convex.regression(policy, reward, tau, **keywords),
    ]


@pytest.mark.parametrize("solver", SOLVERS)
def test_batch_equals_loop(solver):
    policy, reward, tau = moderate_batch(np.random.default_rng(4), 6, 5)
    shape = (2, 3)
    batches = updates_of(policy.reshape(*shape, -1), reward.reshape(*shape, -1), tau.reshape(shape), solver=solver)
    loops = zip(*[updates_of(*problem, solver=solver) for problem in zip(policy, reward, tau)])
    for batch, loop in zip(batches, loops):
        assert batch.policy.shape == batch.log_ratio.shape == (*shape, 5)
        for field in (batch.chi2_weight, batch.baseline, batch.local, batch.certificate.duality_gap):
            assert field.shape == shape
        assert np.abs(batch.policy.reshape(6, 5) - [u.policy for u in loop]).sum(axis=-1).max() <= 1e-5
        assert np.all(batch.policy[policy.reshape(*shape, -1) == 0] == 0)
        assert np.all(batch.log_ratio[policy.reshape(*shape, -1) == 0] == 0)
        assert batch.certificate.duality_gap.max() <= 1e-7


def test_batches_of_hundreds_are_accurate():
    policy, reward, tau = moderate_batch(np.random.default_rng(5), 200, 6)
    fast = pmd_mean_update(policy, reward, tau)
    assert l1(convex.kl(policy, reward, tau), kl_update(policy, reward, tau)).max() <= 1e-5
    assert l1(convex.mixed(policy, reward, tau, tau * fast.chi2_weight), fast).max() <= 1e-5
    assert l1(convex.regression(policy, reward, tau), fast).max() <= 1e-5


def test_arguments_broadcast():
    update = convex.regression(POLICY, REWARD, [0.2, 0.4], baseline=[[0.0], [0.1]])
    assert update.policy.shape == (2, 2, 3)
    assert l1(update, baseline_update(POLICY, REWARD, [0.2, 0.4], [[0.0], [0.1]])).max() <= 1e-6


@pytest.mark.parametrize("solver", SOLVERS)
def test_degenerate_problems(solver):
    for update in updates_of([0.2, 0.8], [3.0, 3.0], 0.5, solver=solver):
        assert np.abs(update.policy - [0.2, 0.8]).max() <= 1e-5
        assert update.baseline == pytest.approx(3.0 if update.chi2_weight < 1e-3 else 3.0 - 0.5 * 0.5, abs=1e-4)
    for update in updates_of([1.0], [2.0], 1.0, solver=solver):
        assert update.policy == pytest.approx([1.0])
    for update, same in zip(
        updates_of([0.0, 0.3, 0.7], [1e6, 0.0, 1.0], 0.5, solver=solver),
        updates_of([0.3, 0.7], [0.0, 1.0], 0.5, solver=solver),
    ):
        assert update.policy[0] == update.log_ratio[0] == 0
        assert np.abs(update.policy[1:] - same.policy).sum() <= 1e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_certificate_of_a_solved_problem(solver):
    for update in updates_of(POLICY, REWARD, TAU, solver=solver):
        certificate = update.certificate
        assert (certificate.status, certificate.solver) == ("optimal", solver)
        assert certificate.duality_gap <= 1e-9
        assert certificate.normalisation <= 1e-5
        assert certificate.stationarity <= 1e-4
        assert update.policy.sum() == pytest.approx(1, abs=1e-14)
        assert update.policy == pytest.approx(POLICY * np.exp(update.log_ratio), rel=1e-12)


@pytest.mark.parametrize(("solver", "limit"), [("CLARABEL", {"max_iter": 1}), ("SCS", {"max_iters": 1})])
def test_failure_raises_with_the_status(solver, limit):
    for call in (convex.kl, convex.regression):
        with pytest.raises(RuntimeError, match=rf"{solver} ended with status '\w+.*{next(iter(limit))}.*solver="):
            call(POLICY, REWARD, TAU, solver=solver, **limit)
    with pytest.raises(RuntimeError, match=f"{solver} ended with status"):
        convex.mixed(POLICY, REWARD, TAU, 0.1, solver=solver, **limit)


def test_inaccurate_solutions_are_returned_only_on_request():
    for call in (convex.kl, convex.regression):
        with pytest.raises(RuntimeError, match=r"'optimal_inaccurate'.*accept_inaccurate=True"):
            call(POLICY, REWARD, TAU, solver="SCS", max_iters=30)
        update = call(POLICY, REWARD, TAU, solver="SCS", max_iters=30, accept_inaccurate=True)
        assert update.certificate.status == "optimal_inaccurate"
    with pytest.raises(RuntimeError):
        convex.kl(POLICY, REWARD, TAU, max_iter=1, accept_inaccurate=True)


@pytest.mark.parametrize("solver", ["GUROBI", "clarabel", "", None])
def test_unknown_solver(solver):
    with pytest.raises(ValueError, match=r"solver must be one of those installed, CLARABEL or SCS, got"):
        convex.kl(POLICY, REWARD, TAU, solver=solver)


def test_baseline_above_the_log_partition():
    above = kl_update(POLICY, REWARD, TAU).baseline + 0.01
    with pytest.raises(ValueError, match=r"baseline must be at most tau \* log Z = 0\.\d+ .* got 0\.\d+"):
        convex.regression(POLICY, REWARD, TAU, above)
    with pytest.raises(ValueError, match="baseline must be at most"):
        convex.regression(POLICY, REWARD, TAU, [0.0, above])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: convex.kl([0.5, 0.6], [0.0, 1.0], 1.0), "policy"),
        (lambda: convex.kl(POLICY, [0.0, np.inf, 0.0], 1.0), "reward"),
        (lambda: convex.regression(POLICY, REWARD, 0.0), "tau"),
        (lambda: convex.regression(POLICY, REWARD, 1.0, np.nan), "baseline"),
        (lambda: convex.mixed(POLICY, REWARD, 1.0, -0.1), "chi2_coef"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        call()


def test_cvxpy_is_imported_only_when_used():
    code = "import sys; from pmdtheory import convex; assert 'cvxpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
