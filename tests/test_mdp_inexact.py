"""The evaluation oracles: bounds, laws and limits of what the learner believes about Q."""

from __future__ import annotations

import numpy as np
import pytest

from pmdtheory.mdp import evaluate, garnet, gridworld, inexact
from tests.mdps import random_policy


@pytest.fixture(scope="module")
def setting():
    """A small Garnet, a policy on it and its exact values."""
    mdp = garnet(6, 3, 3, np.random.default_rng(0), gamma=0.8)
    return mdp, evaluate(mdp, random_policy(np.random.default_rng(1), mdp))


def test_exact(setting):
    """The exact oracle returns Q itself."""
    mdp, truth = setting
    assert inexact.exact(mdp, truth, None) is truth.Q


def test_adversary_is_worst_to_first_order(setting):
    """Within ±ε no error has a smaller covariance of Q̂ and Q under the policy, in any state."""
    mdp, truth = setting
    rng = np.random.default_rng(2)
    error = 0.05
    believed = inexact.adversarial(error)(mdp, truth, rng)
    assert np.abs(believed - truth.Q).max() == pytest.approx(error)

    def first_order_gain(Q):
        return (truth.policy * Q * truth.A).sum(axis=-1)

    corners = truth.Q + error * rng.choice([-1.0, 1.0], size=(500, *truth.Q.shape))
    assert np.all(first_order_gain(corners) >= first_order_gain(believed) - 1e-14)


def test_noise_moments(setting):
    """Errors have mean 0 and the given spread, and differ between draws."""
    mdp, truth = setting
    rng = np.random.default_rng(3)
    errors = np.array([inexact.noise(0.3)(mdp, truth, rng) - truth.Q for _ in range(4000)])
    assert np.abs(errors.mean(axis=0)).max() < 5 * 0.3 / np.sqrt(4000)
    np.testing.assert_allclose(errors.std(axis=0), 0.3, rtol=0.08)


def test_generative_model_improves_with_samples(setting):
    """The error falls as 1/√n; one sample gives the Q of a deterministic MDP."""
    mdp, truth = setting
    rng = np.random.default_rng(4)

    def error(n):
        return np.mean([np.abs(inexact.generative(n)(mdp, truth, rng) - truth.Q).max() for _ in range(40)])

    assert error(4000) < 0.02
    assert error(50) / error(5000) == pytest.approx(10, rel=0.25)


@pytest.mark.parametrize("as_sparse", [False, True])
def test_generative_model_is_consistent(as_sparse):
    """A deterministic MDP is learnt from one sample, dense or sparse."""
    mdp = garnet(8, 2, 1, np.random.default_rng(5), sparse=as_sparse)
    truth = evaluate(mdp, mdp.uniform_policy())
    believed = inexact.generative(1)(mdp, truth, np.random.default_rng(6))
    np.testing.assert_allclose(believed, truth.Q, rtol=1e-13)


def test_rollouts_are_unbiased_up_to_truncation(setting):
    """Their mean is the H-step value, computed by recursion, within five standard errors."""
    mdp, truth = setting
    episodes, horizon = 20_000, 6
    believed = inexact.rollouts(episodes, horizon)(mdp, truth, np.random.default_rng(7))
    expected = mdp.R
    for _ in range(horizon - 1):
        expected = mdp.R + mdp.gamma * mdp.P @ (truth.policy * expected).sum(axis=-1)
    spread = mdp.gamma / (1 - mdp.gamma) / 2  # half the range of returns after the known first reward
    assert np.abs(believed - expected).max() < 5 * spread / np.sqrt(episodes)
    bias = mdp.gamma**horizon * np.abs(mdp.R).max() / (1 - mdp.gamma)
    assert np.abs(expected - truth.Q).max() <= bias
    np.testing.assert_allclose(inexact.rollouts(3, 1)(mdp, truth, np.random.default_rng(0)), mdp.R, rtol=1e-15)


ORACLES = {
    "exact": inexact.exact,
    "adversarial": inexact.adversarial(0.1),
    "noise": inexact.noise(0.1),
    "generative": inexact.generative(5),
    "rollouts": inexact.rollouts(5, 10),
}


@pytest.mark.parametrize("name", ORACLES)
def test_terminal_states_are_known(name):
    """No oracle errs in a terminal state, and equal seeds give equal beliefs."""
    mdp = gridworld(3, 4, walls=[(1, 1)], sparse=True)
    truth = evaluate(mdp, mdp.uniform_policy())
    believed, again = (ORACLES[name](mdp, truth, np.random.default_rng(8)) for _ in range(2))
    assert np.all(believed[mdp.terminal] == 0)
    np.testing.assert_array_equal(believed, again)


BAD = {
    "negative error": (lambda: inexact.adversarial(-0.1), r"error .*-0\.1"),
    "nan scale": (lambda: inexact.noise(float("nan")), "scale .*nan"),
    "no samples": (lambda: inexact.generative(0), "samples .*got 0"),
    "half an episode": (lambda: inexact.rollouts(0.5, 3), r"episodes .*0\.5"),
    "no horizon": (lambda: inexact.rollouts(3, 0), "horizon .*got 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    """The message names the argument and the value."""
    build, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build()
