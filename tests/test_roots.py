"""The bracketed root finder on equations with known roots, from proposals good, useless and circular."""

import numpy as np
import pytest
from scipy.special import lambertw

from pmdtheory import roots

TARGETS = np.array([1e-12, 1e-3, 1.0, 50.0, 1e9])


def newton(rows, x):
    """Newton's method for x e^x = target."""
    with np.errstate(over="ignore", invalid="ignore"):
        value = TARGETS[rows] - x * np.exp(x)
        return value, x + value * np.exp(-x) / (1 + x)


@pytest.mark.parametrize("geometric", [False, True])
@pytest.mark.parametrize("start", [1e-15, 1.0, 700.0])
def test_finds_the_root_from_everywhere(start, geometric):
    x = roots.find(newton, np.full(5, start), np.zeros(5), np.full(5, 700.0), geometric=geometric)
    np.testing.assert_allclose(x, lambertw(TARGETS).real, rtol=1e-14)


@pytest.mark.parametrize("proposal", [np.nan, -5.0, 1e300], ids=str)
def test_useless_proposals_are_bisection(proposal):
    x = roots.find(lambda rows, x: (2.0 - x * x, np.full(x.shape, proposal)), [1.0], [0.0], [2.0])
    assert x[0] == pytest.approx(np.sqrt(2), rel=4e-16)


def test_proposals_that_go_in_circles_do_not_hold_it_up():
    """Between the ends of the bracket, for ever."""
    x = roots.find(lambda rows, x: (np.log(3) - x, np.where(x > 1.09, 0.5, 4.0)), [0.5], [0.5], [4.0])
    assert x[0] == pytest.approx(np.log(3), rel=1e-15)


def test_roots_at_the_ends_and_at_zero():
    calls = []

    def propose(rows, x):
        calls.append(rows.size)
        return np.array([0.0, 1.0, -1.0])[rows] - x, np.array([0.0, 1.0, -1.0])[rows]

    np.testing.assert_array_equal(roots.find(propose, np.zeros(3), -np.ones(3), np.ones(3)), [0.0, 1.0, -1.0])
    assert calls[0] == 3 and max(calls[1:]) == 2  # a row that is done is not asked again


def test_a_double_root_is_found_as_well_as_rounding_allows():
    x = roots.find(lambda rows, x: (-((x - 0.25) ** 2), (x + 0.25) / 2), [1.0], [0.25], [1.0])
    assert x[0] == pytest.approx(0.25, abs=1e-8)
