"""The fit from which s + λ (e^s − 1) = d is solved, and the solution, against SciPy's Wright omega function."""

import numpy as np
import pytest
from scipy.special import wrightomega

from pmdtheory import stationarity

TARGETS = np.concatenate([-np.logspace(-8, 4, 2000), [0.0], np.logspace(-8, 4, 2000)])[None]


def reference(d, weight):
    """The solution, s = d + λ − ω and s = log ω − log λ being accurate for small and large ω."""
    omega = wrightomega(np.log(weight) + weight + d)
    return np.where(omega > 1, np.log(np.maximum(omega, 1)) - np.log(weight), d + weight - omega)


@pytest.mark.parametrize("weight", np.logspace(-300, 6, 52))
def test_the_fit_is_as_close_as_it_says(weight):
    """Within 4e-5, so that one step of the iteration is enough."""
    weight = np.array([[weight]])
    assert np.abs(stationarity._start(TARGETS, weight) - reference(TARGETS, weight)).max() < 4e-5


@pytest.mark.parametrize("weight", np.logspace(-8, 3, 12))
def test_solution(weight):
    """From the fit as from a start nearby; from one far away, too."""
    weight = np.array([[weight]])
    expected = reference(TARGETS, weight)
    for start in (None, expected + 0.05, np.full_like(TARGETS, 600.0)):
        s, growth = stationarity.log_ratio(TARGETS, weight, start)
        scale = np.abs(TARGETS) + weight
        assert (np.abs(s - expected) <= 1e-15 * scale + 4e-16 * np.abs(np.log(weight)) + 1e-15).all()
        ordinary = s < 700
        np.testing.assert_allclose(growth[ordinary], np.expm1(s[ordinary]), rtol=1e-12, atol=1e-15)
