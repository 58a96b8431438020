"""Statements 19 to 30: their worked examples, and that each claim reports a wrong law."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from pmdtheory import baseline_update, family, kl_update, pmd_mean_update
from pmdtheory.family import MEMBERS, exponential_weights, kimi_k25, quantile, standardised, weighted
from pmdtheory.theorems import STATEMENTS

FAMILY = {str(number): STATEMENTS[str(number)] for number in range(19, 31)}
CLAIMS = [(label, claim) for label, statement in FAMILY.items() for claim in statement.claims]


def _wrong(function, change):
    def law(policy, *arguments, **options):
        update = function(policy, *arguments, **options)
        p = np.asarray(policy, dtype=float)
        s = change(np.where(np.isfinite(update.log_ratio), update.log_ratio, -50.0), p)
        q = np.where(p > 0, p * np.exp(s - s.max(axis=-1, keepdims=True)), 0.0)
        q /= q.sum(axis=-1, keepdims=True)
        with np.errstate(divide="ignore"):
            s = np.log(q / p)
        weight, baseline = -1.0 - np.abs(update.chi2_weight), update.baseline - 1e3
        return replace(update, policy=q, log_ratio=s, chi2_weight=weight, baseline=baseline)

    return law


CHANGES = [
    lambda s, p: 0.9 * s,
    lambda s, p: 3 * s,
    lambda s, p: -s,
    lambda s, p: s + np.arange(s.shape[-1]),
    lambda s, p: 0 * s,
]
# Definitions of the problem itself; no law is involved.
NO_LAW_INVOLVED = {"existence", "kl_law_is_best_nearby", "stops_when_the_last_class_clips", "known_partition_function",
                   "no_vanishing_temperature"}  # fmt: skip


def test_every_claim_reports_a_wrong_law(monkeypatch):
    batches = {label: list(statement.sample(np.random.default_rng(2), 40)) for label, statement in FAMILY.items()}
    refuted = set()
    for change in CHANGES:
        with monkeypatch.context() as patch:
            for name, member in list(MEMBERS.items()):
                patch.setitem(MEMBERS, name, replace(member, function=_wrong(member.function, change)))
            patch.setattr(weighted, "solve", _wrong(weighted.solve, change))
            for label, claim in CLAIMS:
                with np.errstate(all="ignore"):
                    if not all(np.all(claim(*arguments).holds) for _, arguments in batches[label]):
                        refuted.add(claim.__name__)
    missed = {claim.__name__ for _, claim in CLAIMS} - refuted - NO_LAW_INVOLVED
    assert not missed, sorted(missed)


def test_claims_about_definitions_report_a_wrong_one(monkeypatch):
    cases = [
        (kimi_k25, "smallest_tau", lambda J: 0.3 * _smallest_tau(J), "existence"),
        (quantile, "_parts", lambda *a: _shifted(_parts(*a)), "known_partition_function"),
        (standardised, "effective", lambda p, r, tau, n: 0.2 * _effective(p, r, tau, n), "no_vanishing_temperature"),
    ]
    for module, name, wrong, claim_name in cases:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, wrong)
            label, claim = next(x for x in CLAIMS if x[1].__name__ == claim_name)
            batches = FAMILY[label].sample(np.random.default_rng(3), 1000)
            assert not all(np.all(claim(*arguments).holds) for _, arguments in batches), claim_name


_smallest_tau, _parts, _effective = kimi_k25.smallest_tau, quantile._parts, standardised.effective


def _shifted(parts):
    p, rank, tau, baseline = parts
    return p, rank, tau, baseline + 0.01


def flow(J, field, steps=60_000):
    """Where the logit of a success rate goes from J in small Euler steps."""
    x = np.log(J / (1 - J))
    for _ in range(steps):
        now = 1 / (1 + np.exp(-x))
        x += 0.01 * field(now)
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("J", "low", "high", "expected"), [(0.1, 0.2, 0.2, 0.28), (0.4, 0.1, 0.02, 0.46), (0.6, 0.1, 0.2, 0.72)]
)
def test_ppo_stops_where_statement_30_says(J, low, high, expected):
    """Euler steps of the clipped surrogate's own gradient."""

    def field(now):
        success, failure = now / J, (1 - now) / (1 - J)
        return J * (1 - J) * (success * (success <= 1 + high) + failure * (failure >= 1 - low))

    assert flow(J, field) == pytest.approx(expected, abs=2e-3)


def test_two_stable_limits_of_truncated_weights_above_the_log_partition():
    """Statement 19: p = (.001, .999), r = (0, 1), τ = 1, V = 1.8992, c = 1."""
    p, r, V = np.array([0.001, 0.999]), np.array([0.0, 1.0]), 1.8992

    def field(x):
        rho = np.array([x / p[0], (1 - x) / p[1]])
        pull = p * np.minimum(rho, 1.0) * (r - V - np.log(rho))
        return pull[0] * (1 - x) - pull[1] * x

    low, high = brentq(field, 1e-5, 1e-3), brentq(field, 0.1, 0.9)
    assert field(low * 0.9) > 0 > field(low * 1.1) and field(high * 0.9) > 0 > field(high * 1.1)
    assert (low, high) == (pytest.approx(0.000368, abs=1e-6), pytest.approx(0.5877, abs=1e-4))
    with pytest.raises(ValueError, match="Statement 19"):
        MEMBERS["truncated-importance"].law(p, r, 1.0, cap=1.0, baseline=V)


def test_differentiated_ratios_leave_the_kl_law_a_minimum_only_above():
    """Statement 19: E_q[(r − V − τ s)²]/2 at q_KL has a minimum iff V > τ (log Z − 1)."""
    p, r = np.array([0.3, 0.7]), np.array([1.0, 0.0])
    ideal = kl_update(p, r, 1.0)
    for above, minimum in ((0.05, True), (-0.05, False)):
        V = float(ideal.baseline) - 1 + above

        def loss(x, V=V):
            q = np.array([x, 1 - x])
            return (q * (r - V - np.log(q / p)) ** 2).sum() / 2

        x, h = ideal.policy[0], 1e-3
        assert bool(loss(x + h) + loss(x - h) > 2 * loss(x)) is minimum


def test_examples_of_the_atlas():
    p, binary = np.array([0.9, 0.1]), np.array([0.0, 1.0])
    laws = [exponential_weights.law(p, binary, 0.3, rollouts=n).policy[1] for n in (4, 16)]
    assert laws == pytest.approx([0.530, 0.686], abs=5e-4)
    assert kl_update(p, binary, 0.3).policy[1] == pytest.approx(0.757, abs=5e-4)
    assert pmd_mean_update(p, binary, 0.3).policy[1] == pytest.approx(0.465, abs=5e-4)
    ratios = np.exp(MEMBERS["length-divided"].law([0.2, 0.2, 0.6], [1, 1, 0], 0.3, lengths=[1, 100, 10]).log_ratio)
    assert ratios == pytest.approx([4.15, 0.25, 0.20], abs=6e-3)
    filtered = MEMBERS["filtered"].law(p, binary, 1.0, rollouts=2)
    assert filtered.policy[1] == pytest.approx(0.405, abs=5e-4) and filtered.local
    assert kl_update(p, binary, 1.0).policy[1] == pytest.approx(0.232, abs=5e-4)
    assert pmd_mean_update(p, binary, 1.0).policy[1] == pytest.approx(0.220, abs=5e-4)
    g = np.array([[0.85, 0.15], [0.7, 0.3], [0.4, 0.6]])
    weight = g / p
    advantage = weight * (binary - g[:, 1:])
    local = weighted.solve(np.broadcast_to(p, g.shape), weight, advantage, np.ones(3), "").policy[:, 1]
    assert local == pytest.approx([0.231, 0.223, 0.160], abs=5e-4)  # more successes sampled, fewer afterwards


def test_kimi_picks_a_winner_below_the_condition_and_can_do_better_above():
    """Statement 27: the objective itself, on a grid of policies."""
    p = np.array([0.05, 0.05, 0.9])

    def objective(q, p, r, tau):
        rho = q / p
        return (p * (rho * (r - (p * r).sum()) - tau * np.log(rho) ** 2)).sum(axis=-1)

    first, second = np.meshgrid(np.linspace(0.01, 0.6, 600), np.linspace(0.01, 0.6, 600))
    q = np.stack([first, second, 1 - first - second], axis=-1)
    q = np.where(q[..., 2:] > 1e-3, q, p)
    values = objective(q, p, np.array([1.0, 1.0, 0.0]), 0.3)
    best = np.unravel_index(values.argmax(), values.shape)
    assert sorted(q[best][:2] / p[:2]) == pytest.approx([1.38, 9.74], abs=0.05)
    rare, r = np.array([0.001, 0.999]), np.array([1.0, 0.0])
    law = MEMBERS["kimi-k2.5"].law(rare, r, 1.4).policy
    assert objective(law, rare, r, 1.4) < 0.001 < 0.09 < objective(np.array([0.228, 0.772]), rare, r, 1.4)


def test_uniqueness_of_ideal_weights_is_lost_only_for_rare_actions():
    """Statement 20, V between τ log Z and τ (log Z + 1): an action may take the missing mass if it is rare enough."""
    for rare, others in ((1e-4, 2), (0.3, 0)):
        q, delta = np.array([rare, 1 - rare]), -0.8  # weights q_KL; the targets of log(q/q_KL)

        def field(x, q=q, delta=delta):
            t = np.log(np.array([x, 1 - x]) / q)
            pull = q * (delta - t)
            return pull[0] * (1 - x) - pull[1] * x

        grid = np.concatenate([np.geomspace(1e-9, 0.5, 20001), 1 - np.geomspace(0.5, 1e-9, 20001)])
        signs = np.sign([field(x) for x in grid])
        signs = signs[signs != 0]
        assert (signs[1:] != signs[:-1]).sum() == 1 + others


def test_quantile_baselines_of_the_example():
    _, rank, _, b = quantile._parts([0.5, 0.5], [0.0, 1.0], 0.1, "at-most")
    assert float(b) == pytest.approx(0.770, abs=5e-4)
    assert kl_update([0.5, 0.5], rank, 0.1).baseline == pytest.approx(0.931, abs=5e-4)


def test_filter_of_graded_rewards_falls_back_to_two_temperatures():
    p, tau = np.array([0.8, 0.2]), 0.5
    law = family.by_name("filtered").law(p, [0.0, 1.0], tau, rollouts=4)
    s = law.log_ratio
    w = 1 - p**3
    C = (np.array([-0.2, 0.8]) - w * tau * s) / np.exp(s)
    assert C[0] == pytest.approx(C[1], rel=1e-10)
    assert baseline_update(p, [0.0, 1.0], tau, 0.2).policy[1] < law.policy[1]
