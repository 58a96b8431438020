"""Random problems for tests: a generator of hard ones, and hypothesis strategies for properties.

A problem is (policy, reward, tau): one context, two float64 arrays of one length and a positive temperature.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st

from pmdtheory import baseline_update, kl_update, mixed_update, pmd_mean_update, updates

SMALLEST_EXPONENT = -300.0


PATHS = "compiled", "NumPy"


@contextmanager
def on(path):
    """Run the updates on one of the two `PATHS`."""
    compiled = updates._compiled()
    assert compiled is not None
    with patch.object(updates, "_compiled", lambda: compiled if path == "compiled" else None):
        yield


def hard_problems(rng, count, max_actions=300):
    """`count` problems made to break solvers, every ingredient drawn independently.

    Probabilities down to 1e-300, near-one-hot policies, zero-probability actions; binary, graded, tied,
    heavy-tailed and constant rewards with scales and offsets up to 1e6; τ/range log-uniform in [1e-4, 1e3];
    2 to `max_actions` actions, most of them few.
    """
    return [_hard_problem(rng, max_actions) for _ in range(count)]


def _hard_problem(rng, max_actions):
    actions = round(2 * (max_actions / 2) ** (rng.random() ** 4))
    policy = _policy(rng, actions)
    reward = _reward(rng, actions)
    on_support = reward[policy > 0]
    spread = on_support.max() - on_support.min()
    tau = (spread if spread > 0 else 1.0) * 10 ** rng.uniform(-4, 3)
    return policy, reward, float(tau)


def _policy(rng, actions):
    style = rng.choice(["uniform", "dirichlet", "wide", "one_hot", "one_hot_equal"])
    if style == "uniform":
        weights = np.ones(actions)
    elif style == "dirichlet":
        weights = rng.dirichlet(np.ones(actions)) + 1e-12
    elif style == "wide":
        weights = 10 ** rng.uniform(rng.choice([-3, -30, SMALLEST_EXPONENT]), 0, actions)
    else:
        exponent = rng.uniform(rng.choice([-17, -40, SMALLEST_EXPONENT]), -1)
        weights = 10 ** (exponent * rng.uniform(0.9 if style == "one_hot" else 1.0, 1.0, actions))
        weights[rng.integers(actions)] = 1.0
    if rng.random() < 0.25:
        keep = rng.random(actions) < 0.7
        keep[rng.integers(actions)] = True
        weights = np.where(keep, weights, 0.0)
    return weights / weights.sum()


def _reward(rng, actions):
    style = rng.choice(
        ["normal", "uniform", "binary", "graded", "tied", "heavy", "constant"], p=[0.16] * 6 + [0.04]
    )
    reward = {
        "normal": lambda: rng.normal(size=actions),
        "uniform": lambda: rng.random(actions),
        "binary": lambda: rng.integers(0, 2, actions),
        "graded": lambda: rng.integers(0, 5, actions) / 4,
        "tied": lambda: rng.choice(rng.normal(size=3), actions),
        "heavy": lambda: np.clip(rng.standard_cauchy(actions), -1e6, 1e6),
        "constant": lambda: np.full(actions, rng.normal()),
    }[style]().astype(float)
    scale = 10 ** rng.uniform(-6, 6) if rng.random() < 0.5 else 1.0
    offset = rng.choice([-1, 1]) * 10 ** rng.uniform(-2, 6) if rng.random() < 0.5 else 0.0
    return np.clip(scale * reward, -1e6, 1e6) + offset


def policies(min_actions=2, max_actions=8, smallest_exponent=-12, zeros=False):
    """Policies whose weights spread log-uniformly; with `zeros` some actions may have probability zero."""
    weight = st.floats(smallest_exponent, 0).map(lambda e: 10.0**e)
    if zeros:
        weight = st.one_of(weight, weight, st.just(0.0))
    weights = st.lists(weight, min_size=min_actions, max_size=max_actions)
    return weights.filter(lambda w: sum(w) > 0).map(lambda w: np.array(w) / np.sum(w))


def rewards(actions):
    """Multiples of 1/1024 of size at most 1024: dyadic shifts and scalings of them are exact."""
    value = st.one_of(st.integers(-(2**20), 2**20), st.integers(-3, 3).map(lambda n: n * 1024))
    return st.lists(value, min_size=actions, max_size=actions).map(lambda v: np.array(v) / 1024)


@st.composite
def problems(draw, min_actions=2, max_actions=8, smallest_exponent=-12, zeros=False):
    """One problem with rewards of `rewards` and τ/range in [1e-3, 1e2]."""
    policy = draw(policies(min_actions, max_actions, smallest_exponent, zeros))
    reward = draw(rewards(len(policy)))
    spread = np.ptp(reward)
    tau = (spread if spread > 0 else 1.0) * 10.0 ** draw(st.floats(-3, 2))
    return policy, reward, float(tau)


def all_updates(policy, reward, tau):
    """The four updates of one problem, the baseline a little below the mean and κ = τ/2."""
    mean = pmd_mean_update(policy, reward, tau)
    return {
        "kl": kl_update(policy, reward, tau),
        "pmd_mean": mean,
        "baseline": baseline_update(policy, reward, tau, mean.baseline - 0.125 * np.asarray(tau)),
        "mixed": mixed_update(policy, reward, tau, 0.5 * np.asarray(tau)),
    }
