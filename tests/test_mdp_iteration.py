"""Policy mirror descent on MDPs: solved environments, improvement, one update four ways, step sizes, the floor."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pmdtheory import baseline_update, convex, divergences, kl_update, mixed_update, pmd_mean_update
from pmdtheory.mdp import (
    MDP,
    Euclidean,
    Tsallis,
    chain,
    evaluate,
    from_gymnasium,
    garnet,
    gridworld,
    inexact,
    iterate,
    lookahead_values,
    optimal,
)
from pmdtheory.mdp.iteration import FLOOR
from tests.mdps import random_policy

BOTH = pytest.mark.parametrize("update", [kl_update, pmd_mean_update])
UPDATES = {
    "kl": kl_update,
    "mean": pmd_mean_update,
    "mixed": partial(mixed_update, chi2_coef=0.05),
    "baseline": lambda p, r, tau: baseline_update(p, r, tau, baseline=(p * r).sum(axis=-1) - 0.1),
    "euclidean": Euclidean(),
    "tsallis": Tsallis(0.5),
}


@BOTH
@pytest.mark.parametrize(
    "environment, tau", [(("FrozenLake-v1", {"map_name": "8x8"}), 3e-3), (("Taxi-v4", {}), 0.3)], ids=lambda x: str(x)
)
def test_environments_are_solved(environment, tau, update):
    """FrozenLake 8×8 and Taxi reach a certified gap of 1e-6; the values are those of policy iteration."""
    name, options = environment
    mdp = from_gymnasium(name, 0.99, **options)
    best = optimal(mdp)
    run = iterate(mdp, update=update, tau=tau, steps=200, tolerance=1e-6, optimal_value=best.V)
    last = run.table.iloc[-1]
    assert last.certificate <= 1e-6 and last.iteration < 200
    assert -1e-12 <= last.max_gap <= last.certificate
    np.testing.assert_allclose(evaluate(mdp, run.policy).V, best.V, atol=1e-6)
    assert run.table.value.diff().min() >= -1e-12


@BOTH
def test_every_state_improves(update):
    """Statement 15: on 1,000 iterations over random MDPs no state loses value, and the value does rise."""
    rng = np.random.default_rng(15)
    rises = 0
    for _ in range(200):
        S, A = rng.integers(2, 9), rng.integers(2, 6)
        gamma = rng.uniform(0, 0.99)
        mdp = garnet(S, A, rng.integers(1, S + 1), rng, gamma=gamma)
        mdp = MDP(mdp.P, rng.normal(size=(S, A)) * 10 ** rng.uniform(-3, 3), gamma)
        tau = np.ptp(mdp.R) * 10 ** rng.uniform(-3, 1)
        V = iterate(mdp, random_policy(rng, mdp), update, tau, 5, keep=["V"]).kept["V"]
        rounding = 1e-13 * np.abs(mdp.R).max() / (1 - gamma) ** 2
        assert len(V) == 6 and np.all(np.diff(V, axis=0) >= -rounding)
        rises += (np.diff(V, axis=0) > 10 * rounding).sum()
    assert rises > 1000


@BOTH
@pytest.mark.parametrize("kind", ["adversarial", "uniform"])
def test_inexact_improvement(update, kind):
    """Statement 15 with errors of at most ε: no state loses more than 2ε/(1−γ) in a step, and some do lose."""
    rng = np.random.default_rng(16)
    losses = 0
    for _ in range(60):
        mdp = garnet(6, 4, 3, rng, gamma=rng.uniform(0.3, 0.95))
        error = 10 ** rng.uniform(-3, 0)

        def uniform(mdp, truth, rng, error=error):
            return truth.Q + rng.uniform(-error, error, truth.Q.shape)

        oracle = inexact.adversarial(error) if kind == "adversarial" else uniform
        tau = 10 ** rng.uniform(-3, 0)
        V = iterate(mdp, None, update, tau, 5, evaluation=oracle, keep=["V"]).kept["V"]
        change = np.diff(V, axis=0)
        assert change.min() >= -2 * error / (1 - mdp.gamma)
        losses += (change < -1e-6).sum()
    assert losses > 10


def test_terminal_states_stay_as_they_are():
    """In a terminal state λ = 0 and q = p, for every update and from any policy."""
    mdp = gridworld(3, 4, walls=[(1, 1)])
    start = random_policy(np.random.default_rng(0), mdp)
    for name, update in UPDATES.items():
        run = iterate(mdp, start, update, 0.1, 3, keep=["policy", "chi2_weight"])
        np.testing.assert_allclose(run.policy[mdp.terminal], start[mdp.terminal], atol=1e-15)
        if name in ("kl", "mean"):
            assert np.all(run.kept["chi2_weight"][1:, mdp.terminal] == 0)
    assert (pmd_mean_update(start, evaluate(mdp, start).Q, 0.1).chi2_weight[~mdp.terminal] > 0).all()


def test_four_implementations_of_one_iteration():
    """Fast solver, one batched CVXPY problem, CVXPY state by state, and gradient descent on the regression loss."""
    mdp = garnet(6, 3, 4, np.random.default_rng(4), gamma=0.8)
    start, tau = random_policy(np.random.default_rng(5), mdp) * 0.7 + 0.1, 0.3

    def state_by_state(policy, reward, tau):
        each = [convex.regression(p, r, tau) for p, r in zip(policy, reward)]
        q, s, weight = (np.stack([getattr(u, f) for u in each]) for f in ("policy", "log_ratio", "chi2_weight"))
        return type(each[0])(q, s, weight, np.stack([u.baseline for u in each]), np.zeros(len(each), bool))

    def gradient_descent(policy, reward, tau):
        target = (reward - (policy * reward).sum(axis=1, keepdims=True)) / tau
        logits = np.log(policy)
        for _ in range(20_000):
            q = np.exp(logits - logits.max(axis=1, keepdims=True))
            q /= q.sum(axis=1, keepdims=True)
            residual = policy * (np.log(q / policy) - target)
            logits = logits - (residual - q * residual.sum(axis=1, keepdims=True))
        weight = (policy * np.log(policy / q)).sum(axis=1)
        return type(exact)(q, np.log(q / policy), weight, None, None)

    exact = pmd_mean_update(start, evaluate(mdp, start).Q, tau)
    fast = iterate(mdp, start, pmd_mean_update, tau, 1, keep=["V", "chi2_weight"])
    assert fast.kept["chi2_weight"][1].min() > 1e-3
    for update, tolerance in [(convex.regression, 1e-5), (state_by_state, 1e-5), (gradient_descent, 1e-9)]:
        other = iterate(mdp, start, update, tau, 1, keep=["V", "chi2_weight"])
        np.testing.assert_allclose(other.policy, fast.policy, atol=tolerance)
        np.testing.assert_allclose(other.kept["V"], fast.kept["V"], atol=10 * tolerance)
        np.testing.assert_allclose(other.kept["chi2_weight"][1], fast.kept["chi2_weight"][1], atol=10 * tolerance)


@pytest.mark.parametrize(
    "fast, reference",
    [(kl_update, convex.kl), (UPDATES["mixed"], partial(convex.mixed, chi2_coef=0.05))],
    ids=["kl", "mixed"],
)
def test_other_updates_against_cvxpy(fast, reference):
    """Two iterations of the KL and the mixed update agree with CVXPY's."""
    mdp = garnet(5, 3, 2, np.random.default_rng(6), gamma=0.7)
    ours, theirs = (iterate(mdp, None, update, 0.5, 2).policy for update in (fast, reference))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_kl_iterations_are_a_softmax_of_summed_values():
    """After T KL steps log π_T − log π_0 is Σ Q_k/τ up to a constant of the state."""
    mdp = garnet(7, 4, 3, np.random.default_rng(7))
    start = random_policy(np.random.default_rng(8), mdp) * 0.9 + 0.025
    run = iterate(mdp, start, kl_update, 0.4, 6, keep=["policy"])
    logits = np.log(start) + sum(evaluate(mdp, p).Q for p in run.kept["policy"][:-1]) / 0.4
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(run.policy, expected / expected.sum(axis=1, keepdims=True), rtol=1e-11)


@pytest.mark.parametrize("name", UPDATES)
def test_table_records_what_happened(name):
    """Each column recomputed from the kept policies; the first row has no step; terminal states do not count."""
    mdp = gridworld(3, 3, slip=0.1)
    live = ~mdp.terminal
    best = optimal(mdp).V
    run = iterate(mdp, None, UPDATES[name], 0.2, 4, optimal_value=best, keep=["V", "policy", "chi2_weight"])
    table, policies = run.table, run.kept["policy"]
    assert list(table.iteration) == list(range(5))
    np.testing.assert_array_equal(policies[-1], run.policy)
    assert table.iloc[0][["tau", "kl", "reverse_kl", "chi2", "chi2_weight", "chi2_weight_max"]].isna().all()
    for k, (row, p) in enumerate(zip(table.itertuples(), policies)):
        truth = evaluate(mdp, p)
        assert row.value == pytest.approx(mdp.rho @ truth.V, rel=1e-13)
        assert row.certificate == pytest.approx(truth.A.max() / (1 - mdp.gamma), rel=1e-9)
        assert row.max_gap == pytest.approx((best - truth.V).max(), rel=1e-12)
        assert row.mean_gap == pytest.approx(mdp.rho @ (best - truth.V), rel=1e-12)
        assert row.entropy == pytest.approx(divergences.entropy(p[live]).mean(), rel=1e-12)
        if k == 0:
            continue
        before, after = policies[k - 1][live], p[live]
        assert row.tau == 0.2
        assert row.kl == pytest.approx(divergences.kl(after, before).mean(), rel=1e-6, abs=1e-15)
        assert row.chi2 == pytest.approx(divergences.chi2(after, before).mean(), rel=1e-6, abs=1e-15)
        if np.isfinite(row.reverse_kl):
            assert row.reverse_kl == pytest.approx(divergences.kl(before, after).mean(), rel=1e-6, abs=1e-15)
        else:
            assert name == "euclidean" and after.min() == FLOOR
        if name in ("euclidean", "tsallis"):
            assert np.isnan(row.chi2_weight)
        else:
            assert row.chi2_weight == pytest.approx(run.kept["chi2_weight"][k][live].mean(), rel=1e-12)
            assert row.chi2_weight_max == run.kept["chi2_weight"][k].max()
        if name == "mean":
            assert row.chi2_weight == pytest.approx(row.reverse_kl, rel=1e-9, abs=1e-15)  # Statement 4


def test_tolerance_stops():
    """The run ends at the first policy whose certificate is small enough."""
    certificates = iterate(chain(5), tau=0.02, steps=60).table.certificate
    stopped = iterate(chain(5), tau=0.02, steps=60, tolerance=1e-3).table.certificate
    assert stopped.iloc[-1] <= 1e-3 < stopped.iloc[-2]
    np.testing.assert_array_equal(stopped, certificates[: len(stopped)])


def test_geometric_steps():
    """τ falls by the growth factor, 1/γ by default, and the optimum is reached faster than with constant steps."""
    mdp = garnet(10, 3, 3, np.random.default_rng(9), gamma=0.9)
    taus = iterate(mdp, tau=0.5, steps=8, step_sizes="geometric").table.tau[1:]
    np.testing.assert_allclose(taus, 0.5 * 0.9 ** np.arange(8), rtol=1e-13)
    constant, growing = (
        iterate(mdp, tau=0.5, steps=40, **options).table.certificate.iloc[-1]
        for options in ({}, {"step_sizes": "geometric", "growth": 1.5})
    )
    assert growing < 1e-9 < constant


@pytest.mark.parametrize("name", ["kl", "euclidean", "tsallis"])
@pytest.mark.parametrize("depth", [1, 3])
def test_adaptive_steps_meet_their_rate(name, depth):
    """B1 and B2: ‖V* − V^k‖ ≤ γ^{hk} (‖V* − V⁰‖ + c₀ γ^h/((1−γ)(1−γ^h))) with c₀ = τ, B1 being γ^k (… + c₀/(1−γ))."""
    rng = np.random.default_rng(10)
    for _ in range(8):
        mdp = garnet(8, 3, 3, rng, gamma=rng.uniform(0.5, 0.95))
        gamma, c0 = mdp.gamma, 10 ** rng.uniform(-1, 1)
        run = iterate(
            mdp,
            None,
            UPDATES[name],
            c0,
            25,
            step_sizes="adaptive",
            lookahead=depth,
            optimal_value=optimal(mdp).V,
            keep=["policy"],
        )
        k, gap = run.table.iteration.to_numpy(), run.table.max_gap.to_numpy()
        rest = c0 / (1 - gamma) if depth == 1 else c0 * gamma**depth / ((1 - gamma) * (1 - gamma**depth))
        assert np.all(gap <= gamma ** (depth * k) * (gap[0] + rest) * (1 + 1e-9) + 1e-11)
        if name == "kl":
            for p, tau, j in zip(run.kept["policy"], run.table.tau[1:], k):
                Q = lookahead_values(mdp, evaluate(mdp, p).Q, depth)
                far = max(-np.log(p[x, Q[x].argmax()]) for x in range(8))
                expected = c0 * gamma ** (2 * depth * (j + 1)) / max(far, 2.3e-16)
                assert tau == pytest.approx(expected, rel=1e-6) or far < 1e-9


def test_long_growing_runs_end_well():
    """Step sizes that grow without end stay finite and keep the optimum."""
    mdp = garnet(5, 3, 2, np.random.default_rng(11), gamma=0.5)
    for update in (kl_update, pmd_mean_update, UPDATES["mixed"], Euclidean(), Tsallis(0.5)):
        for step_sizes in ("geometric", "adaptive"):
            run = iterate(mdp, None, update, 1.0, 150, step_sizes=step_sizes, growth=2.0)
            assert run.table.certificate.iloc[-1] < 1e-12


def test_lookahead():
    """Lookahead applies the optimality operator h − 1 times, and drives Q to Q* at the rate γ."""
    mdp = garnet(6, 3, 3, np.random.default_rng(12), gamma=0.7)
    Q, best = evaluate(mdp, mdp.uniform_policy()).Q, optimal(mdp)
    expected = Q.copy()
    for _ in range(2):
        expected = np.array(
            [
                [mdp.R[x, a] + 0.7 * sum(mdp.P[x, a, y] * max(expected[y]) for y in range(6)) for a in range(3)]
                for x in range(6)
            ]
        )
    np.testing.assert_allclose(lookahead_values(mdp, Q, 3), expected, rtol=1e-13)
    assert lookahead_values(mdp, Q, 1) is Q
    np.testing.assert_allclose(lookahead_values(mdp, Q, 120), best.Q, rtol=1e-12)
    step = iterate(mdp, None, kl_update, 0.3, 1, lookahead=3).policy
    np.testing.assert_allclose(step, kl_update(mdp.uniform_policy(), expected, 0.3).policy, rtol=1e-12)


@BOTH
def test_floor_brings_actions_back(update):
    """An action that underflows while it looks bad returns; repeating the bare update loses the optimum for ever."""
    mdp, tau = from_gymnasium("FrozenLake-v1", 0.99), 3e-6
    best = optimal(mdp)
    run = iterate(mdp, None, update, tau, 30, tolerance=1e-9, keep=["policy"])
    assert run.table.certificate.iloc[-1] <= 1e-9
    np.testing.assert_allclose(evaluate(mdp, run.policy).V, best.V, atol=1e-9)
    assert run.policy.min() >= FLOOR
    plain = mdp.uniform_policy()
    for _ in range(100):
        plain = update(plain, evaluate(mdp, plain).Q, tau).policy
    assert (best.V - evaluate(mdp, plain).V).max() > 0.01


def test_zeros_of_the_first_policy_stay():
    """The floor raises no action that the first policy excludes."""
    mdp = garnet(6, 4, 3, np.random.default_rng(13))
    start = random_policy(np.random.default_rng(14), mdp)
    run = iterate(mdp, start, tau=0.01, steps=20)
    np.testing.assert_array_equal(run.policy > 0, start > 0)


@pytest.mark.parametrize("name", UPDATES)
def test_sparse_equals_dense(name):
    """The same gridworld in both forms gives the same run."""
    runs = [
        iterate(gridworld(4, 4, walls=[(1, 1)], sparse=as_sparse), None, UPDATES[name], 0.05, 6)
        for as_sparse in (False, True)
    ]
    np.testing.assert_allclose(runs[0].policy, runs[1].policy, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(runs[0].table.value, runs[1].table.value, rtol=1e-11)


def test_noise_needs_its_seed():
    """Equal seeds repeat a noisy run exactly, others do not."""
    mdp = garnet(5, 3, 2, np.random.default_rng(15))
    values = [
        iterate(mdp, tau=0.2, steps=5, evaluation=inexact.generative(3), seed=seed).table.value for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(values[0], values[1])
    assert not np.array_equal(values[0], values[2])


def test_a_terminal_state_alone():
    """Nothing to do: values, divergences and λ are 0, the certificate holds, and the entropy is that of its policy."""
    end = MDP([[[1.0], [1.0]]], [[0.0, 0.0]], 0.9)
    table = iterate(end, steps=2).table
    assert end.terminal.all() and not table.drop(columns=["tau"]).iloc[1:].isna().any().any()
    np.testing.assert_array_equal(table[["value", "certificate"]], 0)
    np.testing.assert_allclose(table.entropy, np.log(2))


@BOTH
def test_iteration_near_gamma_one(update):
    """With the optimum a certified one, the certificate of the iteration reaches what rounding of Q leaves."""
    mdp = garnet(20, 3, 4, np.random.default_rng(1), 1 - 1e-7)
    best = optimal(mdp)
    table = iterate(mdp, None, update, 0.01, 60, optimal_value=best.V).table
    assert np.all(table.max_gap <= table.certificate + best.error)
    assert table.certificate.iloc[-1] <= 1e-7 * np.abs(best.V).max()


def test_progress_goes_to_standard_error(capsys, monkeypatch):
    """The progress bar is shown on request, on standard error only, and only on a terminal."""
    for progress in (False, True):
        iterate(chain(3), steps=3, progress=progress)
        assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    iterate(chain(3), steps=3, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "0/4" in err


def test_large_sparse_gridworld_within_two_gibibytes():
    """One iteration on 1e5 states in a process of its own, whose peak memory stays below 2 GiB."""
    code = (
        "from benchmarks import memory\n"
        "from pmdtheory.mdp import gridworld, iterate\n"
        "mdp = gridworld(316, 317, slip=0.1, sparse=True)\n"
        "table = iterate(mdp, tau=0.01, steps=1).table\n"
        "assert mdp.states > 100_000 and table.value[1] > table.value[0] > 0\n"
        "print(memory.of_process())\n"
    )
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 2 * 2**30


def returns(change):
    """An update with `change` made to what it returns."""
    return {"update": lambda p, r, tau: change(kl_update(p, r, tau))}


GRID = gridworld(2, 2)
BAD = {
    "tau zero": ({"tau": 0.0}, r"tau .*0\.0"),
    "several taus": ({"tau": [0.1, 0.2]}, r"tau must be one number.*\(2,\)"),
    "unknown steps": ({"step_sizes": "armijo"}, "step_sizes .*constant, geometric, adaptive.*armijo"),
    "negative steps": ({"steps": -1}, "steps .*-1"),
    "no lookahead": ({"lookahead": 0}, "lookahead .*got 0"),
    "shrinking growth": ({"step_sizes": "geometric", "growth": 0.5}, r"growth .*0\.5"),
    "unknown array": ({"keep": ["Q"]}, "keep .*V, policy, chi2_weight.*Q"),
    "policy of another shape": ({"policy": np.full((3, 4), 0.25)}, r"policy .*\(4, 4\).*\(3, 4\)"),
    "several policies": ({"policy": np.full((2, 4, 4), 0.25)}, r"policy .*\(4, 4\).*\(2, 4, 4\)"),
    "update that returns an array": (returns(lambda u: u.policy), "update must return a pmdtheory.Update, .* ndarray"),
    "update that returns nothing": (returns(lambda u: None), "update must return .* NoneType"),
    "update of one state": (returns(lambda u: replace(u, policy=u.policy[0])), r"policy of shape \(4, 4\), got \(4,\)"),
    "no weight": (returns(lambda u: replace(u, chi2_weight=None)), r"chi2_weight of shape \(4,\), got \(\)"),
    "mass lost": (returns(lambda u: replace(u, policy=u.policy / 2)), "policy returned by update .* 1 .* got 0.5"),
    "optimal values of another shape": ({"optimal_value": [1.0]}, r"optimal_value .*\(4,\).*\(1,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    """The message names the argument and the value."""
    change, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        iterate(GRID, **change)
