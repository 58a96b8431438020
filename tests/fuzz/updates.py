"""The exact updates on hard problems: normalisation, stationarity at 60 digits, identities, batches and shifts.

Up to 200 actions, probabilities down to the smallest subnormal, nearly one-hot policies, ties, binary and constant
rewards, offsets up to 1e6 times their range, τ/range from 1e-12 to 1e6, baselines from far below the mean to above
τ log Z.
"""

import mpmath
import numpy as np

from pmdtheory import baseline_update, kl_update, largest_baseline, mixed_update, pmd_mean_update
from pmdtheory.divergences import movement

_EPS = np.finfo(float).eps
_FEW = 12  # actions, for mpmath


def check(rng):
    K = round(200 ** rng.random() ** 2)
    p, r, tau = _problem(rng, K)
    try:
        _check(rng, p, r, tau)
    except ValueError as error:  # refused by name, where it is true
        assert "probability between 0 and" in str(error) and p[p > 0].min() < np.finfo(float).tiny, (p, r, tau, error)


def _check(rng, p, r, tau):
    K = len(p)
    kappa = tau * 10 ** rng.uniform(-12, 6) if rng.random() < 0.8 else 0.0
    mean, ideal = pmd_mean_update(p, r, tau), kl_update(p, r, tau)
    updates = {"kl": ideal, "mean": mean, "mixed": mixed_update(p, r, tau, kappa)}
    b = _baseline(rng, p, r, tau, float(mean.baseline), float(ideal.baseline))
    try:
        updates["baseline"] = baseline_update(p, r, tau, b)
    except ValueError as error:
        if "Statement 11" not in str(error):
            raise
        assert b > largest_baseline(p, r, tau) - _noise(r, b), (p, r, tau, b, error)
    problem = f"policy={p.tolist()}, reward={r.tolist()}, tau={tau!r}, chi2_coef={kappa!r}, baseline={b!r}"
    for name, update in updates.items():
        _normalised(p, update, f"{name}: {problem}")
        if K <= _FEW:
            _stationary(p, r, tau, update, f"{name}: {problem}")
    assert updates["mixed"].chi2_weight == kappa / tau, problem
    _ordered(p, r, tau, mean, ideal, problem)
    _batch_is_row_by_row(rng, p, r, tau, kappa, updates, problem)
    _shift_changes_nothing(rng, p, r, tau, kappa, updates, problem)


def _problem(rng, K):
    style = rng.choice(["dirichlet", "wide", "subnormal", "one-hot", "uniform"])
    p = {
        "dirichlet": lambda: rng.dirichlet(np.full(K, rng.choice([0.05, 1.0, 10.0]))),
        "wide": lambda: 10 ** (rng.choice([-3.0, -30.0, -300.0]) * rng.random(K)),
        "subnormal": lambda: 10 ** rng.uniform(-323.3, -300, K),
        "one-hot": lambda: 10 ** (rng.choice([-8.0, -17.0, -300.0]) * rng.uniform(0.9, 1, K)),
        "uniform": lambda: np.ones(K),
    }[style]()
    if style in ("subnormal", "one-hot"):
        p[rng.integers(K)] = 1.0
    if rng.random() < 0.25:
        p = np.where(rng.random(K) < 0.7, p, 0.0)
        p[rng.integers(K)] += 0.5
    p = p / p.sum()
    styles = {
        "normal": lambda: rng.normal(size=K),
        "tied": lambda: rng.choice(rng.normal(size=3), K),
        "binary": lambda: rng.integers(0, 2, K).astype(float),
        "heavy": lambda: np.clip(rng.standard_cauchy(K), -1e6, 1e6),
        "constant": lambda: np.full(K, rng.normal()),
        "nearly constant": lambda: 1.0 + _EPS * rng.integers(0, 3, K),
    }
    r = styles[rng.choice(list(styles), p=[0.3, 0.2, 0.2, 0.2, 0.05, 0.05])]()
    r = r * 10 ** rng.choice([0.0, rng.uniform(-6, 6)]) + rng.choice([0.0, rng.normal() * 10 ** rng.uniform(-3, 6)])
    spread = np.ptp(r)
    return p, r, float((spread if spread > 0 else 1.0) * 10 ** rng.uniform(*rng.choice([[-3, 2], [-12, 6]])))


def _baseline(rng, p, r, tau, mean, ideal):
    below = tau * 10 ** rng.uniform(-6, 6)
    choices = [mean, ideal, mean - below, mean + rng.random() * (ideal - mean), ideal + below, r[rng.integers(len(r))]]
    return float(choices[rng.integers(len(choices))])


def _noise(r, b):
    """How far one rounding of the rewards and the baseline moves their difference."""
    return 16 * _EPS * (np.abs(r).max() + abs(b))


def _normalised(p, update, problem):
    q = update.policy
    assert np.isfinite(q).all() and q.min() >= 0 and np.all(q[p == 0] == 0), problem
    assert np.isfinite(update.log_ratio).all() and np.all(update.log_ratio[p == 0] == 0), problem
    assert abs(q.sum() - 1) <= 1e-13, (q.sum() - 1, problem)


def _stationary(p, r, tau, update, problem):
    """s + λ e^s = (r − b)/τ, and Σ p e^s = 1, each to 1e-12 of its terms; λ itself is a multiple of 5e-324."""
    weight, b = float(update.chi2_weight), float(update.baseline)
    with mpmath.workdps(60):
        total = mpmath.fsum(p.tolist())
        mass = mpmath.mpf(0)
        for i in np.flatnonzero(p > 0):
            s = mpmath.mpf(float(update.log_ratio[i]))
            pull = weight * mpmath.exp(s)
            target = (mpmath.mpf(float(r[i])) - b) / tau
            size = abs(s) + (1 + abs(s)) * abs(pull) + (abs(float(r[i])) + abs(b)) / tau + 1
            least = mpmath.mpf(5e-324) * mpmath.exp(s)
            assert abs(s + pull - target) <= 1e-12 * size + least, (float(s + pull - target), float(size), i, problem)
            mass += mpmath.mpf(float(p[i])) / total * mpmath.exp(s)
        # One rounding of s_i moves the mass by q_i |s_i| ε; the entries of largest q decide.
        sensitive = mpmath.fsum(update.policy[i] * abs(update.log_ratio[i]) for i in range(len(p)))
        loss = 1e-11 if p[p > 0].min() >= np.finfo(float).tiny else 1e-8  # subnormal numbers have lost digits
        assert abs(mass - 1) <= loss + 64 * _EPS * sensitive, (float(mass - 1), float(sensitive), problem)


def _ordered(p, r, tau, mean, ideal, problem):
    """λ = KL(p‖q) ≥ 0, and E_p[r] ≤ E_q[r] ≤ that of the KL update (Statements 4, 5 and 7)."""
    weight = float(mean.chi2_weight)
    reverse = float(movement(p, mean.log_ratio).reverse_kl)
    off = abs(weight - reverse)
    assert weight >= 0 and off <= 1e-9 * reverse + 1e-300 + _noise(r, 0) / tau, (weight, reverse, problem)
    centred = r - r[np.argmax(p)]
    before, after, best = p @ centred, mean.policy @ centred, ideal.policy @ centred
    slack = 1e-12 * np.abs(centred).max() + _noise(r, 0)
    assert before - slack <= after <= best + slack, (before, after, best, problem)
    assert ideal.baseline >= mean.baseline - slack, problem


def _batch_is_row_by_row(rng, p, r, tau, kappa, updates, problem):
    order = rng.permutation(len(p))
    P, R, taus = np.stack([p, p[order]]), np.stack([r, r[order]]), np.array([tau, tau])
    for name, together in [
        ("kl", kl_update(P, R, taus)),
        ("mean", pmd_mean_update(P, R, taus)),
        ("mixed", mixed_update(P, R, taus, kappa)),
    ]:
        q = updates[name].policy
        for row in (together.policy[0], together.policy[1][np.argsort(order)]):
            assert np.abs(row - q).max() <= 1e-12 + _noise(r, 0) / tau, (name, np.abs(row - q).max(), problem)


def _shift_changes_nothing(rng, p, r, tau, kappa, updates, problem):
    """Adding a constant to the rewards, where that is exact, changes no policy."""
    shift = 2.0 ** np.floor(np.log2(np.abs(r).max() + 1)) * rng.choice([-1, 1])
    moved = r + shift
    # Rewards that differ by no more than their rounding may be taken for equal.
    if np.array_equal(moved - shift, r) and np.ptp(r) > 64 * _EPS * np.abs(r).max():
        for name, update in [
            ("kl", kl_update(p, moved, tau)),
            ("mean", pmd_mean_update(p, moved, tau)),
            ("mixed", mixed_update(p, moved, tau, kappa)),
        ]:
            off = np.abs(update.policy - updates[name].policy).max()
            assert off <= 1e-12, (name, off, f"shift {shift!r}", problem)
