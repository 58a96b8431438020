"""Baselines above the log-partition (Statement 11)."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pmdtheory import baseline_update, largest_baseline
from pmdtheory.overestimated import principal_branch
from tests import reference
from tests.problems import hard_problems, problems

EPS = np.finfo(float).eps

HARD = hard_problems(np.random.default_rng(20260205), 240)
check = settings(max_examples=60)


def test_overestimated_baseline_is_only_a_local_minimum():
    """The example of the statement: the principal branch costs .405, mass dumped on the rare action .034."""
    policy, reward, b = np.array([0.001, 0.999]), np.array([0.0, 1.0]), 1.8992
    update = baseline_update(policy, reward, 1.0, b)
    assert update.local
    assert update.chi2_weight < 0
    assert reference.regression_loss(update.policy, policy, reward, 1.0, b) == pytest.approx(0.405, abs=5e-4)
    rare = np.linspace(0.001, 0.999, 99_801)
    dumped = [reference.regression_loss(np.array([x, 1 - x]), policy, reward, 1.0, b) for x in rare[::20]]
    assert min(dumped) == pytest.approx(0.034, abs=5e-4)


@check
@given(problems(smallest_exponent=-4), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_overestimated_baseline_is_a_strict_local_minimum(problem, share, seed):
    policy, reward, tau = problem
    low, high = reference.log_partition(*problem), reference.largest_baseline(*problem)
    b = float(low + (high - low) * share)
    update = baseline_update(policy, reward, tau, b)
    assert update.local
    assert update.chi2_weight < 0
    assert abs(update.policy.sum() - 1) < 1e-12
    s, slope = update.log_ratio, 1 + update.chi2_weight * np.exp(update.log_ratio)
    assert np.all(slope > 0)
    direction = np.random.default_rng(seed).normal(size=len(policy))
    direction -= update.policy @ direction
    curvature = policy @ (direction**2 * slope)
    assert curvature > 0
    step = 1e-3 * slope.min() / (1 + np.abs(direction).max())

    def loss_at(t):
        moved = s + t * direction
        moved = moved - np.log(policy @ np.exp(moved))
        delta = (reward - b) / tau
        return 0.5 * policy @ ((moved - s) * (moved + s - 2 * delta))

    second_difference = (loss_at(step) + loss_at(-step)) / step**2
    noise = EPS * (1 + np.abs((reward - b) / tau).max()) ** 2 / step**2
    assert second_difference == pytest.approx(curvature, rel=0.05, abs=100 * noise)


def test_baseline_beyond_the_largest_is_refused_and_just_below_accepted():
    """The message names the argument and a largest baseline that agrees with high precision."""
    for policy, reward, tau in HARD[:60]:
        largest = reference.largest_baseline(policy, reward, tau)
        size = 1e-9 * (tau + np.abs(reward).max())
        with pytest.raises(ValueError, match="baseline") as error:
            baseline_update(policy, reward, tau, float(largest) + size)
        assert any(abs(x - float(largest)) <= size for x in numbers_in(str(error.value))), (
            str(error.value),
            largest,
        )


def test_the_largest_baseline_named_is_accepted():
    policy, reward, tau = [0.2, 0.3, 0.5], [1.0, 0.0, 0.5], 0.25
    with pytest.raises(ValueError, match="baseline") as error:
        baseline_update(policy, reward, tau, 7.5)
    largest = float(reference.largest_baseline(policy, reward, tau))
    named = min(numbers_in(str(error.value)), key=lambda x: abs(x - largest))
    assert 7.5 in numbers_in(str(error.value))
    assert baseline_update(policy, reward, tau, named).local


def numbers_in(text):
    found = []
    for word in text.replace(",", " ").replace("(", " ").replace(")", " ").split():
        try:
            found.append(float(word.rstrip(".;:")))
        except ValueError:
            continue
    return found


@check
@given(problem=problems())
@example((np.array([10, 10, 10, 1]) / 31, np.array([0, 0, 1, -130065]) / 1024, 127.017578125))
def test_the_largest_baseline_is_accepted_by_the_update(problem):
    """`largest_baseline` returns a number that `baseline_update` solves, and a little more is refused."""
    largest = largest_baseline(*problem)
    update = baseline_update(*problem, largest)
    assert update.policy.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="baseline must be at most"):
        baseline_update(*problem, largest + 1e-9 * (abs(largest) + problem[2]))


def test_the_principal_branch_near_its_end():
    """U and 1 − U of U − log U = 1 + t to full relative accuracy, against 60 digits."""
    t = np.concatenate([np.geomspace(1e-150, 30, 400), [0.0199999, 0.02, 0.0200001]])
    U, Y = principal_branch(t)
    assert [float(x) for x in principal_branch(0.0)] == [1, 0]
    with mpmath.workdps(400):
        for x, u, y in zip(t, U, Y):
            exact = -mpmath.lambertw(-mpmath.exp(-1 - mpmath.mpf(float(x)))).real
            assert abs(u - exact) <= 4e-16 * (1 + x) * exact
            assert abs(y - (1 - exact)) <= 2e-14 * (1 - exact)
