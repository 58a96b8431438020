"""Updates with a penalty of one's own: those that the package knows, and CVXPY for those that it does not."""

import cvxpy as cp
import numpy as np
import pytest

from pmdtheory import kl_update, mixed_update, pmd_mean_update
from pmdtheory.family import MEMBERS
from pmdtheory.penalised import penalised_update
from pmdtheory.theorems import problems


def contexts(seed, count=300):
    """Random problems with τ at least a hundredth of the range."""
    for _, (p, r, tau) in problems.contexts(np.random.default_rng(seed), count):
        yield p, r, np.maximum(tau, 0.01 * np.ptp(r, axis=-1))


def distance(a, b):
    return np.abs(a.policy - b.policy).sum(axis=-1).max()


def test_known_penalties():
    for p, r, tau in contexts(1):
        kappa = np.median(tau)
        assert distance(penalised_update(p, r, tau, lambda rho: 0 * rho), kl_update(p, r, tau)) < 1e-9
        assert distance(penalised_update(p, r, tau, lambda rho: 3.0 + 0 * rho), kl_update(p, r, tau)) < 1e-9
        own = penalised_update(p, r, tau, lambda rho, kappa=kappa: kappa * rho)
        known = mixed_update(p, r, tau, kappa)
        assert distance(own, known) < 1e-9
        np.testing.assert_allclose(own.baseline, known.baseline, rtol=1e-7, atol=1e-7 * np.abs(r).max())


def test_adaptive_penalties():
    truncated = MEMBERS["truncated-importance"].law
    for p, r, tau in contexts(2):
        own, known = penalised_update(p, r, tau, lambda rho: rho, adaptive=True), pmd_mean_update(p, r, tau)
        assert distance(own, known) < 1e-9
        moved = known.chi2_weight > 1e-6
        np.testing.assert_allclose(own.chi2_weight[moved], known.chi2_weight[moved], rtol=1e-6)
        capped = penalised_update(p, r, tau, lambda rho: np.maximum(1.0, rho / 1.5), adaptive=True)
        assert distance(capped, truncated(p, r, tau, cap=1.5)) < 1e-9


@pytest.mark.parametrize(
    ("derivative", "penalty"),
    [
        (lambda rho: -0.4 / rho, lambda q, p: 0.4 * cp.sum(cp.rel_entr(p, q))),
        (lambda rho: 0.3 * (1 - rho**-0.5), lambda q, p: 0.6 * cp.sum(p - cp.multiply(np.sqrt(p), cp.sqrt(q)))),
        (lambda rho: 0.2 * rho**2, lambda q, p: 0.2 / 3 * cp.sum(cp.multiply(p**-2, cp.power(q, 3)))),
    ],
)
def test_against_cvxpy(derivative, penalty):
    rng = np.random.default_rng(3)
    for _ in range(10):
        p, r, tau = rng.dirichlet(np.ones(5)) + 0.01, rng.random(5), 10 ** rng.uniform(-1, 0.5)
        p /= p.sum()
        q = cp.Variable(5)
        value = r @ q - tau * cp.sum(cp.rel_entr(q, p)) - penalty(q, p)
        cp.Problem(cp.Maximize(value), [cp.sum(q) == 1]).solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10)
        assert np.abs(penalised_update(p, r, tau, derivative).policy - q.value).sum() < 1e-5


def test_what_the_page_says_of_them():
    """Less than the KL update in likelihood-ratio order, and a gain of at least τ KL(q‖p)."""
    for p, r, tau in contexts(4, 100):
        for adaptive, phi in ((False, lambda rho: np.log1p(rho)), (True, lambda rho: rho**1.5)):
            own, ideal = penalised_update(p, r, tau, phi, adaptive=adaptive), kl_update(p, r, tau)
            gain = ((own.policy - p) * r).sum(axis=-1)
            size = 1e-9 * (1 + np.abs(r).max())
            assert np.all(gain <= ((ideal.policy - p) * r).sum(axis=-1) + size)
            moved = (own.policy * np.where(own.policy > 0, own.log_ratio, 0.0)).sum(axis=-1)
            assert np.all(gain >= tau * moved - size)


def test_shapes_and_constant_rewards():
    update = penalised_update([0.3, 0.7], np.zeros((4, 1, 2)), [1.0, 2.0], lambda rho: rho)
    assert update.policy.shape == (4, 2, 2) and update.chi2_weight.shape == (4, 2)
    np.testing.assert_allclose(update.policy, np.broadcast_to([0.3, 0.7], (4, 2, 2)))
    zeros = penalised_update([0.5, 0.0, 0.5], [0.0, 9.0, 1.0], 1.0, lambda rho: rho)
    assert zeros.policy[1] == 0 and zeros.log_ratio[1] == 0


@pytest.mark.parametrize("power", [2, 3])
@pytest.mark.parametrize(
    ("adaptive", "tau"),
    [(False, 1.0), (False, 0.01), (False, 1e-3), (False, 1e-4), (True, 1.0), (True, 0.01), (True, 1e-3)],
)
def test_penalties_that_saturate(power, adaptive, tau):
    """Beyond where ρ^k/(1 + ρ^k) is still a number: the law, action by action, and one constant."""
    p, r = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 0.7])
    phi = lambda rho: rho**power / (1 + rho**power)  # noqa: E731
    own = penalised_update(p, r, tau, phi, adaptive=adaptive)
    with np.errstate(over="ignore"):
        left = own.log_ratio + own.chi2_weight * phi(np.exp(own.log_ratio))
    kept = own.policy > 1e-12
    target = (r - (p @ r if adaptive else own.baseline)) / tau
    np.testing.assert_allclose(left[kept], target[kept], rtol=1e-9, atol=1e-9)
    assert own.policy.sum() == pytest.approx(1, abs=1e-12)


def test_penalties_that_overflow():
    """e^ρ and ρ^30 hold every ratio near 1."""
    for phi in (np.exp, lambda rho: rho**30):
        update = penalised_update([0.5, 0.5], [0.0, 1.0], 0.01, phi)
        assert 1 < update.policy[1] / 0.5 < 2


@pytest.mark.parametrize("rare", [1e-30, 1e-100, 1e-300])
@pytest.mark.parametrize("tau", [0.01, 0.001])
def test_rare_actions_are_right_to_rounding_of_1(rare, tau):
    own = penalised_update([rare, 1.0], [1.0, 0.0], tau, lambda rho: rho, adaptive=True)
    assert distance(own, pmd_mean_update([rare, 1.0], [1.0, 0.0], tau)) < 1e-14


@pytest.mark.parametrize(
    ("derivative", "adaptive", "message"),
    [
        (lambda rho: -rho, False, "nondecreasing"),
        (lambda rho: np.log(rho - 1), False, "must be a number"),
        (lambda rho: 1.0, False, "elementwise"),
        (lambda rho: rho / rho.sum(), False, "depend on the other ratios"),
        (lambda rho: [float(x) for x in rho], False, "elementwise"),
        (lambda rho: rho * 1j, False, "elementwise"),
        (lambda rho: np.array([1.0, 2.0]) * rho, False, "elementwise"),
        (None, False, "must be a function"),
        (lambda rho: rho - 1, True, "positive"),
    ],
)
def test_bad_penalties(derivative, adaptive, message):
    with pytest.raises(ValueError, match=message):
        penalised_update([0.5, 0.5], [0.0, 1.0], 1.0, derivative, adaptive=adaptive)
