from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from mpmath import mp, mpf

from pmdtheory import updates
from pmdtheory.theorems import (
    STATEMENTS,
    Claim,
    baseline_knob,
    binary_reward,
    check,
    likelihood_ratio_order,
    limits,
    linear_rate,
    moments,
    overestimated_baseline,
)
from pmdtheory.theorems import problems as samplers
from tests import problems, reference

CONTEXTS = {  # the statements about one context; those about MDPs are in test_theorems_mdp.py
    label: statement
    for label, statement in STATEMENTS.items()
    if statement.sample.__module__ == samplers.__name__ or label == "33"
}
CLAIMS = [(label, claim) for label, statement in CONTEXTS.items() for claim in statement.claims]
EXACT = {name: getattr(updates, name) for name in ("pmd_mean_update", "kl_update", "baseline_update", "mixed_update")}


def test_no_claim_is_violated_on_random_problems():
    table = check.run(problems=250, seed=1, progress=False)
    assert len(table) == sum(len(s.claims) for s in STATEMENTS.values()) and set(table.statement) == set(STATEMENTS)
    assert (table.problems > 25).all(), "a claim is hardly tried"
    assert table.violations.sum() == 0, check.format_table(table[table.violations > 0])


@settings(max_examples=25)
@given(problems.problems(zeros=True))
def test_claims_about_one_context(problem):
    assert_claims_hold(*problem)


@pytest.mark.parametrize(
    ("policy", "reward", "tau"),
    [
        ([0.999001, 0.000999], [1 / 1024, 1 / 1024], 1.0),
        ([0.3, 0.7, 0.0], [0.1, 0.1, 5.0], 0.37),
        ([0.25, 0.75], [1.0, np.nextafter(1.0, 2.0)], 0.01),
        ([0.25, 0.75], [1e6, np.nextafter(1e6, 2e6)], 1.0),
        ([0.5, 0.5], [0.1 + 0.2, 0.3], 1.0),
    ],
)
def test_claims_about_a_reward_that_is_constant_up_to_rounding(policy, reward, tau):
    assert_claims_hold(np.array(policy), np.array(reward), tau)


def assert_claims_hold(policy, reward, tau):
    """Every claim about one context, with baselines below, at and above the mean, in order."""
    mean, log_partition = policy @ reward, updates.kl_update(policy, reward, tau).baseline
    for label, claim in CLAIMS:
        extra = ()
        if label == "10":
            extra = (np.array([mean - 10 * tau, mean - tau, mean, mean + 0.5 * (log_partition - mean)]),)
        elif label == "11":
            extra = (np.array([log_partition + 1e-3 * tau]),)
        elif label == "31":
            extra = (tau * np.linspace(-1, 2, len(policy)),)
        elif label == "33":
            continue  # wants full support
        try:
            result = claim(policy, reward, tau, *extra)
        except ValueError as error:
            assert label == "11" and "Statement 11" in str(error)
            continue
        assert np.all(result.holds), (result.name, result.slack)


def _scaled_weight(update, factor):
    return replace(update, chi2_weight=factor * update.chi2_weight)


def _scaled_log_ratio(update, policy, factor):
    p = np.broadcast_to(policy, update.log_ratio.shape)
    s = np.where(p > 0, factor * update.log_ratio, 0.0)
    with np.errstate(over="ignore"):
        weights = p * np.exp(s - s.max(axis=-1, keepdims=True))
    return replace(update, log_ratio=s, policy=weights / weights.sum(axis=-1, keepdims=True))


def _kl_for_mean(policy, reward, tau):
    """The KL update passed off as PMD-mean, with the χ² weight that statement 4 would give it."""
    p, _ = moments.targets(policy, reward, tau)
    update = EXACT["kl_update"](policy, reward, tau)
    return replace(update, chi2_weight=moments.reverse_kl(p, update.log_ratio))


def _at_other_temperature(name, factor):
    return lambda policy, reward, tau, *more: EXACT[name](policy, reward, factor * np.asarray(tau), *more)


def _from_a_sharper_policy(name, power):
    def wrong(policy, *more):
        sharp = np.asarray(policy, dtype=float) ** power
        return EXACT[name](sharp / sharp.sum(axis=-1, keepdims=True), *more)

    return wrong


def _with(name, change):
    return lambda policy, *more: change(EXACT[name](policy, *more), policy)


MISTAKES = [
    {"baseline_update": _with("baseline_update", lambda u, p: _scaled_log_ratio(u, p, 3.0))},
    {"baseline_update": _with("baseline_update", lambda u, p: _scaled_weight(u, -1.0))},
    {"baseline_update": _with("baseline_update", lambda u, p: _scaled_weight(u, 1e3))},
    {"baseline_update": _with("baseline_update", lambda u, p: _scaled_log_ratio(u, p, 0.0))},
    {"pmd_mean_update": _kl_for_mean},
    {"pmd_mean_update": _at_other_temperature("pmd_mean_update", 0.1)},
    {"pmd_mean_update": _at_other_temperature("pmd_mean_update", 1e3)},
    {"kl_update": _at_other_temperature("kl_update", 1e3)},
    {"kl_update": _with("kl_update", lambda u, p: _scaled_log_ratio(u, p, -1.0))},
    {"kl_update": lambda p, r, tau: EXACT["kl_update"](p, r, 0.5 * np.asarray(tau))},
    {"pmd_mean_update": _with("pmd_mean_update", lambda u, p: _scaled_log_ratio(u, p, -1.0))},
    {"pmd_mean_update": _with("pmd_mean_update", lambda u, p: _scaled_log_ratio(u, p, 0.5))},
    {"pmd_mean_update": _with("pmd_mean_update", lambda u, p: _scaled_weight(u, 1e6))},
    {"pmd_mean_update": _with("pmd_mean_update", lambda u, p: _scaled_weight(u, 1e-3))},
    {"pmd_mean_update": lambda p, r, tau: EXACT["pmd_mean_update"](p, -np.asarray(r), tau)},
    {"mixed_update": lambda p, r, tau, chi2_coef: EXACT["kl_update"](p, r, tau)},
    {"kl_update": _from_a_sharper_policy("kl_update", 3)},
    {"pmd_mean_update": _from_a_sharper_policy("pmd_mean_update", 20)},
]
NO_UPDATE_INVOLVED = {overestimated_baseline.no_solution_above_largest_baseline, linear_rate.levels}


def test_every_claim_reports_a_wrong_update(monkeypatch):
    refuted = set()
    batches = {label: list(statement.sample(np.random.default_rng(2), 60)) for label, statement in CONTEXTS.items()}
    for mistake in MISTAKES:
        with monkeypatch.context() as patch:
            for name, wrong in mistake.items():
                patch.setattr(updates, name, wrong)
            for label, claim in CLAIMS:
                if claim in refuted:
                    continue
                with np.errstate(all="ignore"):
                    try:
                        results = [claim(*arguments) for _, arguments in batches[label]]
                    except ValueError:  # a law that checks where it exists has met the wrong update itself
                        continue
                    if not all(np.all(result.holds) for result in results):
                        refuted.add(claim)
    missed = {claim for _, claim in CLAIMS} - refuted - NO_UPDATE_INVOLVED
    assert not missed, sorted(claim.__name__ for claim in missed)


def test_check_counts_the_violations_of_a_wrong_update(monkeypatch):
    monkeypatch.setattr(updates, "pmd_mean_update", _kl_for_mean)
    with np.errstate(all="ignore"):
        table = check.run(problems=60, seed=3, progress=False)
    wrong = table[table.claim == "PMD-mean: ΔE r/τ = KL(q‖p) + λ(1 + χ²)"].iloc[0]
    assert wrong.violations > 30 and wrong.worst_slack < -1e-3


def test_largest_baseline_is_that_of_50_digits():
    policy, reward, tau, baseline = [0.01, 0.29, 0.7], [1.0, 0.25, 0.0], 0.3, 2.0
    claim = overestimated_baseline.no_solution_above_largest_baseline(policy, reward, tau, [baseline])
    exact = float((reference.largest_baseline(policy, reward, tau) - baseline) / mpf(tau))
    assert claim.bound == pytest.approx(exact, rel=1e-12) and claim.value.max() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (binary_reward.success_ratio([0.5, 0.5], [0.0, 2.0], 1.0), False),
        (binary_reward.success_ratio([1.0, 0.0], [0.0, 1.0], 1.0), False),
        (binary_reward.success_ratio([0.5, 0.5, 0.0], [0.0, 1.0, 7.0], 1.0), True),
        (limits.weight_at_high_temperature_from_above([0.5, 0.5], [0.0, 1.0], 0.99), False),
        (limits.weight_at_high_temperature_from_above([0.5, 0.5], [0.0, 1.0], 1.01), True),
        (limits.policy_at_low_temperature([0.5, 0.5], [1.0, 1.0], 0.1), False),
        (limits.keeps_several_actions_at_low_temperature([0.4, 0.3, 0.3], [0.0, 0.5, 1.0], 0.1), True),
        (limits.keeps_several_actions_at_low_temperature([0.4, 0.3, 0.3], [0.0, 0.0, 1.0], 0.1), False),
        (baseline_knob.weight_identity([0.5, 0.5], [0.0, 1.0], 1.0, [0.7]), False),
        (baseline_knob.weight_identity([0.5, 0.5], [0.0, 1.0], 1.0, [0.6]), True),
        (baseline_knob.frozen_far_below([0.5, 0.5], [0.0, 1.0], 1.0, [0.55]), False),
        (overestimated_baseline.strict_local_minimum([0.5, 0.5], [0.0, 1.0], 1.0, [0.6]), False),
        (overestimated_baseline.strict_local_minimum([0.5, 0.5], [0.0, 1.0], 1.0, [0.7]), True),
        (overestimated_baseline.dumping_costs_less([0.5, 0.5], [0.0, 1.0], 1.0, [0.7]), False),
    ],
)
def test_assumptions(claim, expected):
    assert np.all(claim.assumptions) == expected


def test_slack_and_holds():
    claim = Claim("", np.array([1.0, 2.0, np.nan]), 1.0, relation="==")
    assert claim.holds.tolist() == [True, False, False] and claim.slack[:2].tolist() == [0.0, -0.5]
    assert Claim("", 1.0, 0.0, assumptions=False).holds
    assert Claim("", 3.0, 2.0, scale=1e10).holds and not Claim("", 3.0, 2.0, scale=10.0).holds


def test_moments_against_their_definitions_in_50_digits():
    rng = np.random.default_rng(4)
    with mp.workdps(50):
        for size in (1e-6, 1e-2, 1.0, 30.0):
            p = rng.dirichlet(np.ones(5))
            s = [mpf(x) for x in size * rng.normal(size=5)]
            log_z = mp.log(mp.fsum(mpf(a) * mp.exp(x) for a, x in zip(p, s)) / mp.fsum(map(mpf, p)))
            s = [x - log_z for x in s]
            total = mp.fsum(map(mpf, p))
            ratio = [mp.exp(x) for x in s]

            def expect(values, p=p, total=total):
                return float(mp.fsum(mpf(a) * v for a, v in zip(p, values)) / total)

            middle = [(1 + y) / 2 for y in ratio]
            exact = {
                moments.kl: expect([y * x for y, x in zip(ratio, s)]),
                moments.reverse_kl: expect([-x for x in s]),
                moments.chi2: expect([(y - 1) ** 2 for y in ratio]),
            }
            shannon = expect([(y * mp.log(y / m) - mp.log(m)) / 2 for y, m in zip(ratio, middle)])
            triangular = expect([(y - 1) ** 2 / (y + 1) for y in ratio])
            s = np.array([float(x) for x in s])
            for function, value in exact.items():
                assert function(p, s) == pytest.approx(value, rel=1e-9)
            assert moments.mean(p, likelihood_ratio_order._jensen_shannon(s)) == pytest.approx(shannon, rel=1e-9)
            assert moments.mean(p, likelihood_ratio_order._triangular(s)) == pytest.approx(triangular, rel=1e-9)


def test_table_is_deterministic_and_fits_a_terminal():
    table, again = (check.run(problems=10, seed=7, progress=False) for _ in range(2))
    assert table.equals(again) and not table.equals(check.run(problems=10, seed=8, progress=False))
    lines = check.format_table(table).splitlines()
    assert len(lines) == len(table) + 1 and max(map(len, lines)) <= 100


def test_check_wants_problems():
    with pytest.raises(ValueError, match="problems must be an integer of at least 1, got 0"):
        check.run(problems=0)
