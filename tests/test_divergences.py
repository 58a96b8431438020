"""Divergences against mpmath and against their defining sums, near and far from equality."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmdtheory import divergences, kl_update


def exact(a, b):
    """KL and χ² of the given floats in 50 digits, without renormalising."""
    with mp.workdps(50):
        a, b = [mp.mpf(x) for x in a], [mp.mpf(x) for x in b]
        kl = sum(x * mp.log(x / y) - x + y if x else y for x, y in zip(a, b) if y)
        return kl, sum((x - y) ** 2 / y for x, y in zip(a, b) if y)


@st.composite
def pairs(draw):
    """Two distributions, from nearly equal to far apart, with exact zeros in the first."""
    K = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    b = rng.dirichlet(np.full(K, draw(st.sampled_from([0.05, 1.0, 20.0])))) + 1e-300
    a = b * np.exp(rng.normal(size=K) * 10.0 ** draw(st.floats(-9, 1.5)))
    a[1:] *= rng.random(K - 1) > 0.1
    return a / a.sum(), b / b.sum()


@given(pairs())
def test_against_fifty_digits(pair):
    """Absolute error at the level of rounding in the entries of a and b, so tiny divergences stay meaningful."""
    a, b = pair
    kl, chi2 = exact(a, b)
    with np.errstate(divide="ignore"):
        rounding = 1e-15 * float(np.abs(a - b).sum() * (1 + np.abs(np.log(np.maximum(a, 1e-320) / b)).max()) + 1e-16)
    assert abs(float(divergences.kl(a, b) - kl)) <= 1e-13 * float(abs(kl)) + rounding
    assert divergences.chi2(a, b) == pytest.approx(float(chi2), rel=1e-12, abs=1e-30)


@given(pairs())
def test_movement_is_the_divergence_of_the_ratio(pair):
    """`movement` on s = log(a/b) gives KL both ways, χ² and the extreme ratios of the defining sums."""
    a, b = pair
    with np.errstate(divide="ignore"):
        s = np.log(a / b)
    moved = divergences.movement(b, s)
    kl, chi2 = (float(x) for x in exact(a, b))
    noise = 1e-15 * np.abs(a - b).sum() + 1e-31
    assert moved.kl == pytest.approx(kl, rel=1e-9, abs=noise)
    assert moved.chi2 == pytest.approx(chi2, rel=1e-7, abs=noise)
    reverse = np.inf if (a == 0).any() else float(exact(b, a)[0])
    assert moved.reverse_kl == pytest.approx(reverse, rel=1e-7, abs=noise)
    assert (moved.min_ratio, moved.max_ratio) == pytest.approx(((a / b).min(), (a / b).max()), rel=1e-12)


def test_supports():
    """Mass outside the support of b is infinitely far; mass missing from it is not."""
    assert divergences.kl([0.5, 0.5], [1.0, 0.0]) == np.inf
    assert divergences.chi2([0.5, 0.5], [1.0, 0.0]) == np.inf
    assert divergences.kl([1.0, 0.0], [0.5, 0.5]) == pytest.approx(np.log(2))
    assert divergences.kl([1.0, 0.0], [1.0, 0.0]) == 0
    assert divergences.kl([1.0, 0.0], [1e-310, 1 - 1e-310]) == pytest.approx(310 * np.log(10), rel=1e-12)


def test_entropy_and_mixed_regulariser():
    """Closed forms on two actions."""
    assert divergences.entropy([0.5, 0.5, 0.0]) == pytest.approx(np.log(2))
    a, b = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    expected = 0.3 * (0.5 * np.log(2) + 0.5 * np.log(2 / 3)) + 0.1 * (0.0625 / 0.25 + 0.0625 / 0.75)
    assert divergences.mixed_regulariser(a, b, 0.3, 0.2) == pytest.approx(expected)


def test_shapes():
    """Leading axes broadcast; different action counts are refused."""
    assert divergences.kl(np.full((3, 1, 2), 0.5), np.full((4, 2), 0.5)).shape == (3, 4)
    with pytest.raises(ValueError, match="a and b must have the same actions"):
        divergences.kl([0.5, 0.5], [1.0])


def test_far_ends_of_the_range():
    """Ratios near overflow, and a χ² of weight 0 that is infinite."""
    s = kl_update([1e-300, 1.0], [1, 0], 1e-3).log_ratio
    assert divergences.movement([1e-300, 1.0], s).chi2 == pytest.approx(1e300)
    assert divergences.kl([1, 0], [1e-306, 1 - 1e-306]) == pytest.approx(306 * np.log(10))
    assert divergences.mixed_regulariser([1, 0], [1e-310, 1], 1, 0) == pytest.approx(310 * np.log(10))
    assert np.signbit(divergences.entropy([1, 0])) == np.False_
