"""The one door for input: distributions, rewards, temperatures and their shapes.

Every public function hands its arguments to these checks first. They promote to float64, never modify what they
are given, and raise ``ValueError`` naming the argument, the offending value and what is accepted.
"""

import math
import operator
from typing import Any

import numpy as np

SUM_TOLERANCE = 1e-4
ROUNDING = 1e-14
EQUAL = 1e-15


def _floats(value, name, copy):
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError
        return array.astype(np.float64, copy=copy)
    except (TypeError, ValueError):
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise ValueError(f"{name} must be an array of real numbers, got {shown}.") from None


def _reject(bad, array, name, accepted):
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f" at index {index}" if index else ""
        raise ValueError(f"{name} must be {accepted}, got {array[index]}{where}.")


def finite(value: Any, name: str, copy: bool = True) -> np.ndarray:
    """Return `value` as a float64 array, all finite.

    Parameters
    ----------
    value : array_like
        Numbers of any shape.
    name : str
        What to call it in the error.
    copy : bool
        False for a float64 array that is only read: it is returned itself.

    Returns
    -------
    ndarray
        float64.

    Raises
    ------
    ValueError
        If an entry is NaN or infinite, or `value` is not numeric.
    """
    array = _floats(value, name, copy)
    _range(array, name)
    return array


def _range(array, name):
    """The least and the largest of finite numbers and 0."""
    low, high = array.min(initial=0.0), array.max(initial=0.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        _reject(~np.isfinite(array), array, name, "finite")
    return low, high


def _ends(array, low, high):
    """The least of an array and `low`, the largest of it and `high`; of one number without reductions."""
    if array.ndim == 0:
        number = float(array)
        return min(number, low), max(number, high)
    return array.min(initial=low), array.max(initial=high)


def positive(value: Any, name: str) -> np.ndarray:
    """Return `value` as a float64 array, all finite and above zero (raises ``ValueError`` otherwise)."""
    array = _floats(value, name, copy=True)
    low, high = _ends(array, 1.0, 0.0)
    if not (low > 0 and high < math.inf):
        _range(array, name)
        _reject(array <= 0, array, name, "positive")
    return array


def nonnegative(value: Any, name: str, copy: bool = True) -> np.ndarray:
    """Return `value` as a float64 array, all finite and at least zero (raises ``ValueError`` otherwise)."""
    array = finite(value, name, copy)
    _reject(array < 0, array, name, "nonnegative")
    return array


def count(value: Any, name: str, least: int) -> None:
    """Refuse, with a ``ValueError`` that names it, whatever is not an integer of at least `least`."""
    try:
        valid = operator.index(value) >= least
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value}.")


def distribution(value: Any, name: str = "policy", copy: bool = True) -> np.ndarray:
    """Return `value` as probabilities over its last axis.

    Parameters
    ----------
    value : array_like, shape (..., K)
        Nonnegative, each row summing to 1 within 1e-4 (a float32 softmax over 1e5 tokens is off by 1e-5). A row that
        is off by more than 1e-14, float64 rounding, is rescaled; the others are returned as they are.
    name : str
        What to call it in the error.
    copy : bool
        As in `finite`.

    Returns
    -------
    ndarray, shape (..., K)

    Raises
    ------
    ValueError
        If an entry is negative, NaN or infinite, or a row does not sum to 1.

    Examples
    --------
    >>> distribution([[0.25, 0.75]])
    array([[0.25, 0.75]])
    """
    array = _floats(value, name, copy)
    if array.ndim == 0 or array.shape[-1] == 0:
        nonnegative(array, name, copy=False)
        raise ValueError(
            f"{name} must have at least one action in its last axis, got an array of shape {array.shape}."
        )
    if not array.min(initial=0.0) >= 0:
        nonnegative(array, name, copy=False)
    # Of short rows the plain sum is as good as the pairwise one, and several times as fast.
    total = np.einsum("...k->...", array) if array.shape[-1] <= 64 else array.sum(axis=-1)
    off = np.abs(total - 1)
    farthest = off.max(initial=0.0)
    if not farthest <= SUM_TOLERANCE:
        finite(array, name, copy=False)
        accepted = f"1 within {SUM_TOLERANCE:g} (divide it by its sum)"
        _reject(off > SUM_TOLERANCE, total, f"{name} summed over its last axis", accepted)
    if not farthest > ROUNDING:
        return array
    return array / np.where(off > ROUNDING, total, 1.0)[..., None]


def equal_up_to_rounding(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two numbers differ by what rounding does to a mean of many equal ones."""
    return np.abs(a - b) <= 2 * ROUNDING * np.maximum(np.abs(a), np.abs(b))


def plain_problem(policy: Any, reward: Any, *per_context: Any) -> tuple[np.ndarray, ...] | None:
    """What `problem` would return, unchecked, if the arguments are float64 arrays of one batch; otherwise None.

    Numbers per context may be single ones.
    """
    for array in (policy, reward):
        if type(array) is not np.ndarray or array.dtype != np.float64 or array.shape != policy.shape or not array.size:
            return None
    batch, numbers = policy.shape[:-1], []
    for number in per_context:
        if type(number) is float:
            number = np.full(batch, number)
        elif type(number) is not np.ndarray or number.dtype != np.float64 or number.shape != batch:
            return None
        numbers.append(number)
    return policy, reward, *numbers


def problem(policy: Any, reward: Any, tau: Any, **per_context: Any) -> tuple[np.ndarray, ...]:
    """Check one batch of contexts and broadcast it.

    Parameters
    ----------
    policy : array_like, shape (..., K)
        Current policy p; zero-probability actions are allowed.
    reward : array_like, shape (..., K)
        Reward of each action, finite. Rewards of the support that differ by less than 1e-15 of themselves, which is
        rounding, count as equal in every update.
    tau : array_like, shape (...)
        Temperature, positive, in reward units.
    **per_context : array_like, shape (...)
        Further finite numbers, one per context, checked under their own names.

    Returns
    -------
    tuple of ndarray
        p and r of shape (..., K), tau and the further numbers of shape (...).

    Raises
    ------
    ValueError
        If an argument is not what is said above, the shapes do not broadcast, or the reward range divided by
        tau overflows.
    """
    p = distribution(policy, copy=False)
    r = _floats(reward, "reward", copy=False)
    low, high = _range(r, "reward")
    per_context = {"tau": positive(tau, "tau")} | {k: finite(v, k) for k, v in per_context.items()}
    if r.ndim == 0 or r.shape[-1] != p.shape[-1]:
        raise ValueError(
            f"reward must have one entry per action: policy has shape {p.shape}, reward has shape {r.shape}."
        )
    try:
        batch = _common_shape(p.shape[:-1], r.shape[:-1], *(v.shape for v in per_context.values()))
    except ValueError:
        shapes = ", ".join(f"{k} {v.shape}" for k, v in per_context.items())
        raise ValueError(
            f"the leading axes of policy and reward and all of {', '.join(per_context)} must broadcast together, "
            f"got policy {p.shape}, reward {r.shape}, {shapes}."
        ) from None
    p, r = (_spread_over(x, (*batch, p.shape[-1])) for x in (p, r))
    scalars = [_spread_over(x, batch) for x in per_context.values()]
    least, _ = _ends(per_context["tau"], 1.0, 0.0)
    if not math.isfinite((float(high) - float(low)) / float(least)):
        with np.errstate(over="ignore"):
            spread = (r.max(axis=-1) - r.min(axis=-1)) / scalars[0]
        accepted = "large enough for (max reward - min reward) / tau to be finite"
        _reject(~np.isfinite(spread), scalars[0], "tau", accepted)
    return p, r, *scalars


def _common_shape(*shapes):
    return shapes[0] if len(set(shapes)) == 1 else np.broadcast_shapes(*shapes)


def _spread_over(array, shape):
    if array.shape == shape:
        return array
    return np.full(shape, array) if array.ndim == 0 else np.broadcast_to(array, shape)
