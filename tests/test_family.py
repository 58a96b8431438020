"""Every law of the atlas against nested bisection from the loss's own coefficients, and against CVXPY; its refusals."""

from pathlib import Path

import numpy as np
import pytest

from pmdtheory import family, kl_update, pmd_mean_update
from pmdtheory.family import MEMBERS, kimi_k25
from pmdtheory.family.page import page
from tests import family_reference as reference
from tests import problems

N = 1000
NAMES = [
    "pmd-mean", "on-policy", "truncated-importance", "exponential-weights", "free-baseline", "two-temperatures",
    "length-divided", "filtered", "standardised", "mismatch", "kimi-k2.5", "fixed-chi2", "cfpo", "asymre", "quantile",
]  # fmt: skip


def mean(p, x):
    return (p * x).sum(axis=-1)


def pmd_mean(rng):
    p, r, tau = reference.problems(rng, N, 5)
    return (p, r, tau), {}, reference.regression(p, np.ones_like(p), r - mean(p, r)[:, None], tau)


def ideal(p, r, tau):
    q = p * np.exp((r - r.max(axis=-1, keepdims=True)) / tau[:, None])
    return q / q.sum(axis=-1, keepdims=True), np.ones(len(p))


def on_policy(rng):
    p, r, tau = reference.problems(rng, N, 5)
    return (p, r, tau), {}, ideal(p, r, tau)


def on_policy_by_length(rng):
    p, r, tau = reference.problems(rng, N, 5)
    lengths, V = rng.integers(1, 30, p.shape), mean(p, r) + tau * rng.normal(size=N)
    top = (np.abs(r - V[:, None]).max(axis=-1) + 60 * tau) * 30

    def h(s, C):
        return (r - V[:, None] - tau[:, None] * s) / lengths - C

    options = {"lengths": lengths, "baseline": V}
    return (p, r, tau), options, reference.stationary(p, h, -top, top)


def truncated_importance(rng):
    p, r, tau = reference.problems(rng, N, 5)
    cap = 10 ** rng.uniform(-2, 2, N)
    V = mean(p, r) + rng.uniform(-2, 1, N) * (kl_update(p, r, tau).baseline - mean(p, r))
    V[::2] = mean(p, r)[::2]
    top = np.abs(r - V[:, None]).max(axis=-1) + tau

    def h(s, C):
        return r - V[:, None] - tau[:, None] * s - C * np.exp(s) / np.minimum(np.exp(s), cap[:, None])

    return (p, r, tau), {"cap": cap, "baseline": V}, reference.stationary(p, h, 0 * top, top)


def exponential_weights(rng):
    p, r, tau = reference.problems(rng, N, 4, ("binary",))

    def coefficients(own, others):
        each = np.exp((np.column_stack([own, others]) - 1) / tau[:, None])
        w = each[:, 0] / each.mean(axis=-1)
        return w, w * (own - others.mean(axis=-1))

    weight, advantage = reference.expected(p, r, 4, coefficients)
    inside = mean(p, np.exp(np.minimum(advantage / weight / tau[:, None], 700))) > 1
    p, r, tau, weight, advantage = (x[inside] for x in (p, r, tau, weight, advantage))
    return (p, r, tau), {"rollouts": 4}, reference.regression(p, weight, advantage, tau)


def two_temperatures(rng):
    p, r, tau = reference.problems(rng, N, 5)
    beta = tau * 10 ** rng.uniform(0, 2, N)
    V = beta * np.log(mean(p, np.exp(r / beta[:, None])))
    return (p, r, tau), {"baseline_tau": beta}, reference.regression(p, np.ones_like(p), r - V[:, None], tau)


def length_divided(rng):
    p, r, tau = reference.problems(rng, N, 5)
    lengths = rng.integers(1, 200, p.shape)
    return (
        (p, r, tau),
        {"lengths": lengths},
        reference.regression(p, 1 / lengths, (r - mean(p, r)[:, None]) / lengths, tau),
    )


def filtered(rng):
    p, r, tau = reference.problems(rng, N, 4, ("binary", "graded"))

    def coefficients(own, others):
        kept = (others != own[:, None]).any(axis=-1)
        return 1.0 * kept, np.where(kept, own - others.mean(axis=-1), 0.0)

    weight, advantage = reference.expected(p, r, 3, coefficients)
    q, mass = reference.regression(p, weight, advantage, tau)
    inside = np.abs(mass - 1) < 1e-9
    p, r, tau, q, mass = (x[inside] for x in (p, r, tau, q, mass))
    return (p, r, tau), {"rollouts": 3}, (q, mass)


def standardised(rng):
    p, r, tau = reference.problems(rng, N, 4, ("binary",))

    def coefficients(own, others):
        group = np.column_stack([own, others])
        sd = group.std(axis=-1)
        return (np.divide(own - group.mean(axis=-1), sd, out=np.zeros(len(sd)), where=sd > 0),)

    (advantage,) = reference.expected(p, r, 4, coefficients)
    return (p, r, tau), {"rollouts": 4}, reference.regression(p, np.ones_like(p), advantage, tau)


def standardised_by_population(rng):
    p, r, tau = reference.problems(rng, N, 5)
    A = r - mean(p, r)[:, None]
    return (p, r, tau), {}, reference.regression(p, np.ones_like(p), A / np.sqrt(mean(p, A**2))[:, None], tau)


def mismatch(rng):
    p, r, tau = reference.problems(rng, 4 * N, 5)
    g = p * np.exp(rng.normal(size=p.shape))
    g /= g.sum(axis=-1, keepdims=True)
    inside = np.flatnonzero(mean(g, r) < tau * np.log(mean(p, np.exp(r / tau[:, None]))))[:N]
    p, r, tau, g = (x[inside] for x in (p, r, tau, g))
    return (p, r, tau), {"sampler": g}, reference.regression(p, g / p, g / p * (r - mean(g, r)[:, None]), tau)


def kimi(rng):
    p, r, tau = reference.problems(rng, 4 * N, 4)
    A = r - mean(p, r)[:, None]
    top = np.abs(A).max(axis=-1) + tau

    def h(s, C):
        return A - 2 * tau[:, None] * s * np.exp(-s) - C

    q, mass = reference.stationary(p, h, -top, top, lambda C: np.ones_like(p))
    inside = np.flatnonzero(np.abs(mass - 1) < 1e-9)[:N]
    return tuple(x[inside] for x in (p, r, tau)), {}, (q[inside], mass[inside])


def fixed_chi2(rng):
    p, r, tau = reference.problems(rng, N, 5)
    kappa = tau * 10 ** rng.uniform(-2, 2, N)
    top = np.abs(r).max(axis=-1) + 60 * tau + kappa / p.min(axis=-1)

    def h(s, C):
        return r - tau[:, None] * s - kappa[:, None] * np.exp(s) - C

    return (p, r, tau), {"chi2_coef": kappa}, reference.stationary(p, h, -top, top)


def cfpo(rng):
    p, r, tau = reference.problems(rng, N, 5)
    epsilon = 10 ** rng.uniform(-2, 0.5, N)
    A = r - mean(p, r)[:, None]
    top = np.abs(A).max(axis=-1)

    def h(s, C):
        return A - np.abs(A) * (np.exp(s) - 1) / epsilon[:, None] - C

    return (p, r, tau), {"epsilon": epsilon}, reference.stationary(p, h, -top, top)


def asymre(rng):
    p, r, tau = reference.problems(rng, N, 5)
    V = mean(p, r) - 10 ** rng.uniform(-2, 1, N)
    u = p * (r - V[:, None]) / (mean(p, r) - V)[:, None]
    low, high = np.zeros((N, 1)), np.abs(u).sum(axis=-1, keepdims=True)
    for _ in range(80):  # κ of water filling
        middle = (low + high) / 2
        over = np.maximum(u - middle, 0).sum(axis=-1, keepdims=True) > 1
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    q = np.maximum(u - np.where((u < 0).any(axis=-1, keepdims=True), high, 0.0), 0)
    return (p, r, tau), {"baseline": V}, (q, q.sum(axis=-1))


def quantile(rng):
    p, r, _ = reference.problems(rng, N, 5, ("graded", "normal"))
    tau = 10 ** rng.uniform(-1, 1, N)
    rank = np.array([[sum(a for a, x in zip(P, R) if x <= own) for own in R] for P, R in zip(p, r)])
    log_z = np.log(tau * (np.exp(1 / tau) - 1))
    return (p, r, tau), {}, reference.regression(p, np.ones_like(p), rank - (tau * log_z)[:, None], tau)


def quantile_exact(rng):
    """Each action split into many of the same reward and equal probability: no ties but rounding."""
    p, r, _ = reference.problems(rng, N, 3, ("normal",))
    tau = 10 ** rng.uniform(-1, 1, N)
    order = np.argsort(r, axis=-1)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    sorted_p = np.take_along_axis(p, order, axis=-1)
    start = np.cumsum(sorted_p, axis=-1) - sorted_p
    u = start[..., None] + sorted_p[..., None] * (nodes + 1) / 2
    q = sorted_p * (np.exp((u - 1) / tau[:, None, None]) * weights / 2).sum(axis=-1)
    q = np.take_along_axis(q / q.sum(axis=-1, keepdims=True), np.argsort(order, axis=-1), axis=-1)
    return (p, r, tau), {"ranks": "exact"}, (q, q.sum(axis=-1))


def cispo(rng):
    """Bisection on the mass that actions above C ask for; where that jumps, the action there has the rest."""
    p, r, tau = reference.problems(rng, N, 4, ("normal", "graded"))
    cap, A = 10 ** rng.uniform(-2, 0.5, N)[:, None], r - mean(p, r)[:, None]
    low, high = np.zeros((N, 1)), A.max(axis=-1, keepdims=True)
    for _ in range(100):
        C = (low + high) / 2
        more = (p * cap * A * (A > C)).sum(axis=-1, keepdims=True) > C
        low, high = np.where(more, C, low), np.where(more, high, C)
    at = np.abs(A - high) < 1e-9
    q = np.where(at, 0.0, p * cap * A / high * (high < A))
    share = np.where(at, p, 0.0)
    q += (1 - q.sum(axis=-1, keepdims=True)) * share / np.maximum(share.sum(axis=-1, keepdims=True), 1e-300)
    return (p, r, tau), {"cap": cap[:, 0]}, (q, q.sum(axis=-1))


CASES = {
    "pmd-mean": [pmd_mean],
    "on-policy": [on_policy, on_policy_by_length],
    "truncated-importance": [truncated_importance],
    "exponential-weights": [on_policy, exponential_weights],
    "free-baseline": [on_policy],
    "two-temperatures": [two_temperatures],
    "length-divided": [length_divided],
    "filtered": [filtered],
    "standardised": [standardised, standardised_by_population],
    "mismatch": [mismatch],
    "kimi-k2.5": [kimi],
    "fixed-chi2": [fixed_chi2],
    "cfpo": [cfpo],
    "asymre": [asymre],
    "quantile": [quantile, quantile_exact],
    "cispo": [cispo],
}


def test_the_page_of_the_atlas_is_up_to_date():
    """Written anew by: python -m pmdtheory.family.page > docs/family.md."""
    assert (Path(__file__).parent.parent / "docs" / "family.md").read_text() == page()
    assert all(f"`{name}`" in page() for name in MEMBERS)


def test_the_atlas_is_complete():
    assert set(NAMES) <= set(MEMBERS) == set(CASES)
    for member in MEMBERS.values():
        assert all((member.papers, member.formula, member.decides, member.law_formula, member.exists))
    with pytest.raises(ValueError, match=r"member must be one of .*pmd-mean.*, got 'nothing'"):
        family.by_name("nothing")


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases])
def test_law_is_the_stationary_point_of_the_loss(name, case):
    """1000 random problems, 1e-9 in L1."""
    problem, options, (expected, mass) = case(np.random.default_rng(5))
    assert len(expected) > 0.5 * N and np.abs(mass - 1).max() < 1e-9
    law = MEMBERS[name].law(*problem, **options)
    assert np.abs(law.policy - expected).sum(axis=-1).max() < 1e-9
    assert np.abs(law.policy.sum(axis=-1) - 1).max() < 1e-13
    alone = MEMBERS[name].law(*(x[0] for x in problem), **{k: _first(v) for k, v in options.items()})
    assert np.abs(alone.policy - law.policy[0]).max() < 1e-13 and alone.baseline.shape == ()


def _first(option):
    return option if isinstance(option, int | str) else option[0]


@pytest.mark.parametrize(("name", "case"), [(name, cases[-1]) for name, cases in CASES.items() if MEMBERS[name].convex])
def test_convex_statement(name, case):
    """CVXPY finds the same policy where the problem is convex."""
    problem, options, (expected, _) = case(np.random.default_rng(6))
    if name in ("on-policy", "exponential-weights"):
        problem, options, (expected, _) = on_policy(np.random.default_rng(6))
    law = MEMBERS[name].law(*problem, **options)
    chosen = np.flatnonzero(~law.local & (expected.min(axis=-1) > 1e-7))[:8]
    problem = [x[chosen] for x in problem]
    options = {k: v if isinstance(v, int | str) else v[chosen] for k, v in options.items()}
    solved = MEMBERS[name].convex(*problem, **options)
    assert np.abs(solved.policy - expected[chosen]).max() < 2e-4


@pytest.mark.parametrize(
    ("name", "problem", "options", "message"),
    [
        ("kimi-k2.5", ([0.9, 0.1], [0.0, 1.0], 0.7), {}, "tau must be large enough .* Statement 27"),
        ("kimi-k2.5", ([0.7, 0.3], [0.0, 1.0], 0.092), {}, "tau must be large enough"),
        ("asymre", ([0.5, 0.5], [0.0, 1.0], 1.0), {"baseline": 0.5}, "baseline must be below the mean reward, 0.5"),
        ("mismatch", ([0.9, 0.1], [0.0, 1.0], 1.0), {"sampler": [0.7, 0.3]}, "mean reward of sampler, must be at most"),
        ("mismatch", ([0.9, 0.1], [0.0, 1.0], 1.0), {"sampler": [1.0, 0.0]}, "sampler must be positive exactly where"),
        ("truncated-importance", ([0.5, 0.5], [0.0, 1.0], 1.0), {"cap": 1, "baseline": 0.7}, "at most tau .* 0.62"),
        ("truncated-importance", ([0.5, 0.5], [0.0, 1.0], 1.0), {"cap": 0}, "cap must be positive"),
        ("filtered", ([0.99, 0.01], [0.0, 1.0], 0.5), {"rollouts": 2}, "no principal-branch law here: .*Statement 24"),
        ("filtered", ([0.5, 0.5], [0.0, 1.0], 1.0), {"rollouts": 1}, "rollouts must be an integer of at least 2"),
        ("two-temperatures", ([0.5, 0.5], [0.0, 1.0], 0.1), {"baseline_tau": 0.0}, "baseline_tau must be positive"),
        ("two-temperatures", ([0.5, 0.5], [0.0, 1.0], 1.0), {"baseline_tau": 1e-9}, None),
        ("two-temperatures", ([0.9, 0.1], [0.0, 1.0], 0.3), {"baseline_tau": 0.01}, "Statement 11"),
        ("length-divided", ([0.5, 0.5], [0.0, 1.0], 1.0), {"lengths": [1, 0]}, "lengths must be positive"),
        ("length-divided", ([0.5, 0.5], [0.0, 1.0], 1.0), {"lengths": [1, 2, 3]}, "lengths must have one entry"),
        ("standardised", ([0.5, 0.5], [0.0, 2.0], 1.0), {"rollouts": 4}, "reward must be 0 or 1"),
        ("exponential-weights", ([0.5, 0.5], [0.0, 2.0], 1.0), {"rollouts": 4}, "reward must be 0 or 1"),
        ("quantile", ([0.5, 0.5], [0.0, 1.0], 0.01), {"ranks": "middle"}, "Statement 29"),
        ("quantile", ([0.5, 0.5], [0.0, 1.0], 1.0), {"ranks": "top"}, "ranks must be"),
        ("cfpo", ([0.5, 0.5], [0.0, 1.0], 1.0), {"epsilon": 0}, "epsilon must be positive"),
        ("cispo", ([0.5, 0.5], [0.0, 1.0], 1.0), {"cap": -1}, "cap must be positive"),
        ("fixed-chi2", ([0.5, 0.5], [0.0, 1.0], 1.0), {"chi2_coef": -1}, "chi2_coef must be nonnegative"),
    ],
)
def test_outside_its_region_a_law_names_the_condition(name, problem, options, message):
    if message is None:  # the limit β₁ → 0, V = max r, still below b_max here
        assert MEMBERS[name].law(*problem, **options).local
        return
    with pytest.raises(ValueError, match=message):
        MEMBERS[name].law(*problem, **options)


OPTIONS = {
    "two-temperatures": lambda p, tau: {"baseline_tau": 2 * tau},
    "truncated-importance": lambda p, tau: {"cap": 1.5},
    "length-divided": lambda p, tau: {"lengths": 1 + np.arange(p.shape[-1])},
    "filtered": lambda p, tau: {"rollouts": 64},
    "mismatch": lambda p, tau: {"sampler": p},
    "fixed-chi2": lambda p, tau: {"chi2_coef": tau},
    "asymre": lambda p, tau: {"baseline": -0.5},
}


@pytest.mark.parametrize("name", MEMBERS)
def test_actions_without_probability_stay_out_and_batches_broadcast(name):
    p, r, tau = np.array([0.2, 0.0, 0.5, 0.3]), np.array([1.0, 9.0, 0.0, 0.5]), 1.0
    inside = [0, 2, 3]
    law = MEMBERS[name].law(p, r, tau, **OPTIONS.get(name, lambda *_: {})(p, tau))
    options = OPTIONS.get(name, lambda *_: {})(p[inside], tau)
    if name == "length-divided":
        options = {"lengths": [1, 3, 4]}
    without = MEMBERS[name].law(p[inside], r[inside], tau, **options)
    assert law.policy[1] == 0 and law.log_ratio[1] == 0
    assert np.abs(law.policy[inside] - without.policy).max() < 1e-14
    both = MEMBERS[name].law(np.stack([p, p]), r, [tau, tau], **OPTIONS.get(name, lambda *_: {})(p, tau))
    assert both.policy.shape == (2, 4) and both.baseline.shape == both.local.shape == both.chi2_weight.shape == (2,)
    with np.errstate(divide="ignore"):
        assert np.allclose(np.where(p > 0, p * np.exp(law.log_ratio), 0.0), law.policy, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "asymre"])
def test_a_constant_reward_moves_nothing(name):
    p = np.array([0.2, 0.5, 0.3])
    if name == "quantile":
        law = MEMBERS[name].law(p, np.full(3, 0.1), 1.0, ranks="exact")
    else:
        law = MEMBERS[name].law(p, np.full(3, 0.1), 1.0, **OPTIONS.get(name, lambda *_: {})(p, 1.0))
    assert np.abs(law.policy - p).max() < 1e-15


def test_reward_scale_and_shift_do_not_matter_where_they_should_not():
    """Tenfold rewards at tenfold τ; the same a millionfold and shifted."""
    rng = np.random.default_rng(7)
    p, r, tau = reference.problems(rng, 50, 5)
    inside = kimi_inside(p, r, tau)
    for name in ("truncated-importance", "length-divided", "filtered", "cfpo", "cispo", "kimi-k2.5", "mismatch"):
        rows = inside if name == "kimi-k2.5" else slice(None)
        options = OPTIONS.get(name, lambda *_: {})(p[rows], tau[rows])
        law = MEMBERS[name].law(p[rows], r[rows], tau[rows], **options)
        scaled = MEMBERS[name].law(p[rows], 1e6 * r[rows] + 1e6, 1e6 * tau[rows], **options)
        assert np.abs(law.policy - scaled.policy).sum(axis=-1).max() < 1e-8, name


def kimi_inside(p, r, tau):
    rows = []
    for i in range(len(p)):
        try:
            MEMBERS["kimi-k2.5"].law(p[i], r[i], tau[i])
            rows.append(i)
        except ValueError:
            pass
    return np.array(rows)


def test_kimi_condition_for_binary_rewards():
    """The refusal is at 1/(2h), and at the edge the best ratio is e."""
    for J in (0.05, 0.1, 0.3):
        smallest = kimi_k25.smallest_tau(J)
        law = MEMBERS["kimi-k2.5"].law([1 - J, J], [0.0, 1.0], smallest * (1 + 1e-9))
        assert np.exp(law.log_ratio[1]) == pytest.approx(np.e, rel=1e-4)
        with pytest.raises(ValueError, match="Statement 27"):
            MEMBERS["kimi-k2.5"].law([1 - J, J], [0.0, 1.0], smallest * (1 - 1e-9))
    assert MEMBERS["kimi-k2.5"].law([0.6, 0.4], [0.0, 1.0], 1e-6).policy[1] > 0.999
    assert kimi_k25.smallest_tau([0.3, 0.1]) == pytest.approx([0.0921, 0.7940], abs=5e-5)


def test_members_between_pmd_mean_and_the_kl_law_reach_both_ends():
    rng = np.random.default_rng(8)
    p, r, tau = reference.problems(rng, 200, 5)
    mean_law, ideal_law = pmd_mean_update(p, r, tau), kl_update(p, r, tau)
    smallest, largest = np.exp(mean_law.log_ratio).min(axis=-1), np.exp(ideal_law.log_ratio).max(axis=-1)
    for law, expected in (
        (MEMBERS["truncated-importance"].law(p, r, tau, cap=smallest), mean_law),
        (MEMBERS["truncated-importance"].law(p, r, tau, cap=largest), ideal_law),
        (MEMBERS["two-temperatures"].law(p, r, tau, baseline_tau=tau), ideal_law),
        (MEMBERS["filtered"].law(p, r, tau, rollouts=10**7), mean_law),
    ):
        tolerance = 1e-3 if expected is mean_law and law.chi2_weight[0] > 0 else 1e-12
        assert np.abs(law.policy - expected.policy).sum(axis=-1).max() < tolerance


def test_hard_problems_have_normalised_laws_or_a_named_condition():
    """Probabilities down to 1e-300, offsets of 1e6, τ from 1e-4 to 1e3 of the range."""
    rng, refused = np.random.default_rng(1), dict.fromkeys(MEMBERS, 0)
    hard = problems.hard_problems(rng, 80, 40)
    for p, r, tau in hard:
        for name, member in MEMBERS.items():
            options = OPTIONS.get(name, lambda *_: {})(p, tau)
            if name == "asymre":
                options = {"baseline": r[p > 0].min() - 0.1}
            try:
                law = member.law(p, r, tau, **options)
            except ValueError as error:
                assert name in ("kimi-k2.5", "filtered") and "Statement" in str(error)
                refused[name] += 1
                continue
            assert np.isfinite(law.policy).all() and abs(law.policy.sum() - 1) < 1e-12, name
    assert 0 < refused["kimi-k2.5"] < 40 and refused["filtered"] < 10


def test_the_picture_of_the_family_orders_the_laws():
    """On either prompt: PMD-mean ≤ two temperatures ≤ KL and PMD-mean ≤ truncated ≤ KL; K2.5 only on the easy one."""
    from figures import family as figure

    table = figure.compute(**figure.FULL)
    after = table.groupby(["prompt", "law"]).after.first().unstack()
    for between in ("two-temperatures", "truncated-importance"):
        assert (after["pmd-mean"] < after[between]).all() and (after[between] < after["on-policy"]).all()
    assert after["kimi-k2.5"].isna().tolist() == [True, False] and "kimi-k2.5" in figure.finding(table)
    assert (after.min(axis=1) > after.index).all()
