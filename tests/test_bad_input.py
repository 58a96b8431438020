"""Input that cannot be meant is refused: the message names the argument and shows the offending value."""

from __future__ import annotations

import numpy as np
import pytest

from pmdtheory import baseline_update, kl_update, mixed_update, pmd_mean_update

NAN, INF = float("nan"), float("inf")
GOOD = {"policy": [0.2, 0.3, 0.5], "reward": [1.0, 0.0, 0.5], "tau": 0.5}
FURTHER = {
    kl_update: {},
    pmd_mean_update: {},
    baseline_update: {"baseline": 0.25},
    mixed_update: {"chi2_coef": 0.75},
}
every_update = pytest.mark.parametrize("function", FURTHER, ids=lambda f: f.__name__)

# argument, bad value, what the message must show of it
BAD_CONTEXTS = {
    "negative policy": ("policy", [-0.125, 0.625, 0.5], "-0.125"),
    "slightly negative policy": ("policy", [-1e-30, 0.5, 0.5], "-1e-30"),
    "policy that sums to 1.25": ("policy", [0.5, 0.5, 0.25], "1.25"),
    "policy off by one part in a thousand": ("policy", [0.5, 0.25, 0.251], "1.001"),
    "policy of zeros": ("policy", [0.0, 0.0, 0.0], "0"),
    "policy in percent": ("policy", [20, 30, 50], "100"),
    "nan in policy": ("policy", [NAN, 0.5, 0.5], "nan"),
    "infinite policy": ("policy", [INF, 0.0, 0.0], "inf"),
    "nan in reward": ("reward", [1.0, NAN, 0.0], "nan"),
    "infinite reward": ("reward", [1.0, INF, 0.0], "inf"),
    "minus infinite reward": ("reward", [1.0, -INF, 0.0], "-inf"),
    "zero tau": ("tau", 0.0, "0"),
    "negative tau": ("tau", -0.5, "-0.5"),
    "nan tau": ("tau", NAN, "nan"),
}
BAD_SHAPES = {
    "scalar policy": ("policy", 1.0, "()"),
    "empty policy": ("policy", [], "(0,)"),
    "policies with no actions": ("policy", np.empty((4, 0)), "(4, 0)"),
    "scalar reward": ("reward", 1.0, "()"),
    "empty reward": ("reward", [], "(0,)"),
    "reward of one action": ("reward", [1.0], "(1,)"),
    "reward of two actions": ("reward", [1.0, 0.0], "(2,)"),
}
BAD_FURTHER = {
    "nan baseline": (baseline_update, "baseline", NAN, "nan"),
    "infinite baseline": (baseline_update, "baseline", INF, "inf"),
    "minus infinite baseline": (baseline_update, "baseline", -INF, "-inf"),
    "baseline beyond the largest": (baseline_update, "baseline", 1.75, "1.75"),
    "negative chi2_coef": (mixed_update, "chi2_coef", -0.25, "-0.25"),
    "nan chi2_coef": (mixed_update, "chi2_coef", NAN, "nan"),
    "infinite chi2_coef": (mixed_update, "chi2_coef", INF, "inf"),
}


def assert_refused(function, argument, value, shown):
    """The call with this one argument bad raises, naming the argument and showing the value."""
    with pytest.raises(ValueError) as error:
        function(**(GOOD | FURTHER[function] | {argument: value}))
    assert argument in str(error.value)
    assert shown in str(error.value)


@every_update
@pytest.mark.parametrize(("argument", "value", "shown"), BAD_CONTEXTS.values(), ids=BAD_CONTEXTS)
def test_bad_values_are_refused(function, argument, value, shown):
    assert_refused(function, argument, value, shown)


@every_update
@pytest.mark.parametrize(("argument", "value", "shown"), BAD_CONTEXTS.values(), ids=BAD_CONTEXTS)
def test_one_bad_context_of_a_batch_is_refused(function, argument, value, shown):
    assert_refused(function, argument, np.array([GOOD[argument], value, GOOD[argument]]), shown)


@every_update
@pytest.mark.parametrize(("argument", "value", "shown"), BAD_SHAPES.values(), ids=BAD_SHAPES)
def test_bad_shapes_are_refused(function, argument, value, shown):
    assert_refused(function, argument, value, shown)


@every_update
def test_contexts_that_do_not_broadcast_are_refused(function):
    """Two policies, three temperatures or three rewards: the message shows both shapes."""
    policy = np.array([GOOD["policy"]] * 2)
    for argument, value in (("tau", np.ones(3)), ("reward", np.zeros((3, 3)))):
        with pytest.raises(ValueError) as error:
            function(**(GOOD | FURTHER[function] | {"policy": policy, argument: value}))
        assert argument in str(error.value)
        assert all(str(shape) in str(error.value) for shape in (policy.shape, value.shape)), str(error.value)


@pytest.mark.parametrize(("function", "argument", "value", "shown"), BAD_FURTHER.values(), ids=BAD_FURTHER)
def test_bad_baseline_and_chi2_coef_are_refused(function, argument, value, shown):
    assert_refused(function, argument, value, shown)
    assert_refused(function, argument, np.array([0.5, value]), shown)


@pytest.mark.parametrize("function", [baseline_update, mixed_update], ids=lambda f: f.__name__)
def test_further_arguments_must_broadcast(function):
    """Two contexts, three baselines or coefficients."""
    (argument,) = FURTHER[function]
    with pytest.raises(ValueError, match=argument):
        function(**(GOOD | {"policy": np.array([GOOD["policy"]] * 2), argument: np.full(3, 0.25)}))


@every_update
def test_bad_reward_of_an_impossible_action_is_still_refused(function):
    """A NaN is a mistake of the caller even where the policy never acts."""
    with pytest.raises(ValueError, match="reward"):
        function(**(GOOD | FURTHER[function] | {"policy": [0.5, 0.5, 0.0], "reward": [1.0, 0.0, NAN]}))


@every_update
@pytest.mark.parametrize("argument", ["policy", "reward", "tau"])
def test_text_and_complex_numbers_are_refused(function, argument):
    for value in ("high", 1j):
        wrong = value if argument == "tau" else [value, 0.5, 0.5]
        with pytest.raises((ValueError, TypeError), match=argument):
            function(**(GOOD | FURTHER[function] | {argument: wrong}))
