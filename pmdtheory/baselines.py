"""Baselines estimated from the rewards of one prompt's rollouts, on NumPy arrays and PyTorch tensors alike.

Rewards r_1, ..., r_n of the n rollouts of a prompt (a group) lie in the last axis; other axes are a batch.
With temperature τ > 0 there are two estimators, each also without the rollout it is subtracted from::

    mean             r̂ = (1/n) Σ_i r_i                    loo_mean            over i ≠ j, for each j
    log_partition    τ log Ẑ = τ log (1/n) Σ_i e^{r_i/τ}   loo_log_partition   over i ≠ j, for each j

PMD-mean regresses log-ratios on (r − r̂)/τ; the ideal step needs (r − τ log Z)/τ, and n rollouts tell Ẑ of Z.
Rewards are measured from the largest, r_max, so nothing overflows: with z_i = (r_i − r_max)/τ ≤ 0,

    τ log Ẑ = r_max + τ log (1/n) Σ_i e^{z_i} = r_max + τ log1p((1/n) Σ_i expm1(z_i)),

where the second form keeps its accuracy as τ grows. To leave out j, subtract its term from the sum: the 1
that r_max contributes stays, so nothing cancels. Only for the j that is r_max itself, sum the others anew,
measured from the largest of them. All n leave-one-out baselines cost O(n).

A rollout whose ``mask`` is False does not exist, and its reward may be anything, NaN included. Leave-one-out
gives 0 there, and a group without rollouts has baseline 0. Where all rewards are equal, every estimator
returns exactly that reward.

`BASELINES` names them all, and those of ``knobs.py``; whatever takes a baseline by name looks it up there.

References
----------
Statements 12 and 13 of ``pmdtheory/theorems/README.md``. Xu, Lu, Yu, Zhao, arXiv 2602.05933.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj

__all__ = ["BASELINES", "Baseline", "estimate", "log_partition", "loo_log_partition", "loo_mean", "mean"]


def mean(rewards: Any, mask: Any = None) -> Any:
    """Mean reward of each group, (1/n) Σ_i r_i.

    Parameters
    ----------
    rewards : array (..., n)
        Finite rewards of the n rollouts of a prompt: NumPy, PyTorch, or nested lists (read as NumPy).
        Floats keep their type; integers and booleans become the default float.
    mask : boolean array, optional
        Broadcasts to ``rewards``; False where there is no rollout.

    Returns
    -------
    array (...)
        The baseline in reward units.

    Raises
    ------
    ValueError
        A valid reward is not finite, the rollout axis is missing or empty, or ``mask`` is not boolean or does
        not broadcast.

    References
    ----------
    Statement 12.

    Examples
    --------
    >>> print(mean([[1, 0, 0, 0], [1, 1, 0, 0]]))
    [0.25 0.5 ]
    """
    xp, rewards, valid = _read(rewards, mask)
    top, gap, count = _from_top(xp, rewards, valid)
    return (top + _sum(xp, gap) / xp.clip(count, min=1))[..., 0]


def loo_mean(rewards: Any, mask: Any = None) -> Any:
    """Mean reward of the other rollouts, (1/(n−1)) Σ_{i≠j} r_i; its advantage is n/(n−1) times the plain one.

    Parameters
    ----------
    rewards, mask
        As in `mean`, every group with at least two rollouts or none.

    Returns
    -------
    array (..., n)
        The baseline of each rollout in reward units.

    Raises
    ------
    ValueError
        As `mean`, and if a group has a single rollout.

    References
    ----------
    Statement 13. Kool, van Hoof, Welling, *Buy 4 REINFORCE Samples, Get a Baseline for Free!* (2019).

    Examples
    --------
    >>> print(loo_mean([1, 0, 0, 0, 1]))
    [0.25 0.5  0.5  0.5  0.25]
    """
    xp, rewards, valid = _read(rewards, mask)
    top, gap, count = _from_top(xp, rewards, valid)
    return xp.where(valid, top + (_sum(xp, gap) - gap) / _others(xp, count), 0.0)


def log_partition(rewards: Any, tau: Any, mask: Any = None) -> Any:
    """Empirical log-partition function in reward units, τ log (1/n) Σ_i e^{r_i/τ}.

    Parameters
    ----------
    rewards, mask
        As in `mean`.
    tau : float or array broadcastable to (...)
        Temperature τ > 0 in reward units, a constant: no gradient flows to it.

    Returns
    -------
    array (...)
        The baseline in reward units: the mean reward as τ → ∞, the largest reward as τ → 0.

    Raises
    ------
    ValueError
        As `mean`, and if ``tau`` is not positive and finite or does not broadcast.

    References
    ----------
    Statement 12: k successes among n binary rewards give τ log(1 + (k/n)(e^{1/τ} − 1)).

    Examples
    --------
    >>> print(log_partition([[1, 0, 0, 0]] * 3, tau=[0.01, 1, 100]).round(4))
    [0.9861 0.3574 0.2509]
    """
    xp, rewards, valid = _read(rewards, mask)
    return _log_partition(xp, rewards, _temperature(xp, tau, rewards), valid)[..., 0]


def loo_log_partition(rewards: Any, tau: Any, mask: Any = None, clamp: bool | None = None) -> Any:
    """Log-partition function of the other rollouts, τ log (1/(n−1)) Σ_{i≠j} e^{r_i/τ}, exact for all τ.

    Parameters
    ----------
    rewards, mask
        As in `loo_mean`.
    tau : float or array broadcastable to (...)
        As in `log_partition`.
    clamp : float > 0, optional
        Only for replicating the public OpenKimi implementation, at 1e-8: every term is subtracted from the
        full sum, and the mean of e^{z_i} over i ≠ j kept from falling below this. A lone success among 16 at
        τ = 0.01 then has advantage 0.184, where the exact baseline gives 1.

    Returns
    -------
    array (..., n)
        The baseline of each rollout in reward units.

    Raises
    ------
    ValueError
        As `loo_mean` and `log_partition`, and if ``clamp`` is not positive and finite.

    References
    ----------
    Statement 13.

    Examples
    --------
    >>> rewards = np.array([1.0] + 15 * [0.0])
    >>> print((rewards - loo_log_partition(rewards, tau=0.01))[:2].round(3))
    [ 1.    -0.973]
    >>> print((rewards - loo_log_partition(rewards, tau=0.01, clamp=1e-8))[:2].round(3))
    [ 0.184 -0.973]
    """
    xp, rewards, valid = _read(rewards, mask)
    tau = _temperature(xp, tau, rewards)
    top, gap, count = _from_top(xp, rewards, valid)
    others = _others(xp, count)
    weight, excess = _exponentials(xp, gap / tau, valid)
    if clamp is not None:
        if not 0 < clamp < np.inf:
            raise ValueError(f"clamp must be positive and finite, or None to be exact, got {clamp}.")
        log_mean = xp.log(xp.clip((_sum(xp, weight) - weight) / others, min=clamp))
        return xp.where(valid, top + tau * log_mean, 0.0)
    index = xp.arange(rewards.shape[-1], device=device(rewards))
    is_top = index == xp.argmax(xp.where(valid, gap, -xp.inf), axis=-1, keepdims=True)
    total = _sum(xp, weight) - xp.where(is_top, 0.0, weight)
    without = top + tau * _log_mean(xp, total, _sum(xp, excess) - excess, others)
    without_top = _log_partition(xp, rewards, tau, valid & ~is_top)
    return xp.where(valid, xp.where(is_top, without_top, without), 0.0)


@dataclass(frozen=True)
class Baseline:
    """A baseline under its name, with what it needs; call it for the baseline of every rollout.

    Attributes
    ----------
    name : str
        Its key in `BASELINES`.
    function : callable
        ``function(rewards, mask=mask)``, with the temperature and then the target after the rewards where it uses them.
        It returns one baseline per group, shape (...), or one per rollout, shape (..., n), where one is left out.
    leaves_one_out : bool
        A rollout's baseline comes from the other rollouts of its group.
    uses_tau : bool
        It depends on the temperature.
    needs_target : bool
        It aims at a KL divergence.

    Examples
    --------
    >>> best = Baseline("best", lambda rewards, mask: np.where(mask, rewards, -np.inf).max(axis=-1))
    >>> print(best([1.0, 0.0, 0.5], tau=0.1), best.smallest_group)
    [1. 1. 1.] 1
    """

    name: str
    function: Callable
    leaves_one_out: bool = False
    uses_tau: bool = False
    needs_target: bool = False

    @property
    def smallest_group(self) -> int:
        """How many rollouts a group must have."""
        return 2 if self.leaves_one_out else 1

    def __call__(self, rewards, tau, mask=None, target_kl=0.0):
        """Baseline of every rollout; arguments and result as in `estimate`."""
        xp, rewards, valid = _read(rewards, mask)
        needs = [tau] * self.uses_tau + [target_kl] * self.needs_target
        baseline = self.function(rewards, *needs, mask=valid)
        return baseline if self.leaves_one_out else xp.where(valid, baseline[..., None], 0.0)


BASELINES = {
    baseline.name: baseline
    for baseline in (
        Baseline("mean", mean),
        Baseline("loo_mean", loo_mean, leaves_one_out=True),
        Baseline("log_partition", log_partition, uses_tau=True),
        Baseline("loo_log_partition", loo_log_partition, leaves_one_out=True, uses_tau=True),
    )
}


def by_name(name):
    """Return the entry of `BASELINES` called ``name``, or raise a ``ValueError`` that lists the names."""
    if name not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}, got {name!r}.")
    return BASELINES[name]


def estimate(name: str, rewards: Any, tau: Any, mask: Any = None, target_kl: Any = 0.0) -> Any:
    """Baseline of every rollout, by name.

    Parameters
    ----------
    name : str
        A key of `BASELINES`.
    rewards : array (..., n)
        As in `mean`, every group with at least ``BASELINES[name].smallest_group`` rollouts or none.
    tau : float or array broadcastable to (...)
        Temperature τ > 0 in reward units; unread where the baseline does not use it.
    mask : boolean array, optional
        As in `mean`.
    target_kl : float or array broadcastable to (...)
        KL divergence in nats that a baseline with ``needs_target`` aims at; unread by the others.

    Returns
    -------
    array (..., n)
        The baseline of each rollout in reward units; 0 where masked.

    Raises
    ------
    ValueError
        ``name`` is unknown, and as the baseline's function does.

    References
    ----------
    Statement 12.

    Examples
    --------
    >>> print(estimate("mean", [1, 0, 0, 0], tau=0.1))
    [0.25 0.25 0.25 0.25]
    """
    return by_name(name)(rewards, tau, mask, target_kl)


def _log_partition(xp, rewards, tau, valid):
    top, gap, count = _from_top(xp, rewards, valid)
    weight, excess = _exponentials(xp, gap / tau, valid)
    return top + tau * _log_mean(xp, _sum(xp, weight), _sum(xp, excess), xp.clip(count, min=1))


def _sum(xp, values):
    return xp.sum(values, axis=-1, keepdims=True)


def _from_top(xp, rewards, valid):
    """Largest valid reward, distance of each reward from it (0 where masked), number of valid rewards."""
    count = _sum(xp, xp.astype(valid, rewards.dtype))
    top = xp.where(count > 0, xp.max(xp.where(valid, rewards, -xp.inf), axis=-1, keepdims=True), 0.0)
    return top, xp.where(valid, rewards, top) - top, count


def _exponentials(xp, z, valid):
    """e^z and e^z − 1, both 0 where masked (z is 0 there)."""
    return xp.where(valid, xp.exp(z), 0.0), xp.expm1(z)


def _log_mean(xp, total, excess, count):
    """log(total / count) = log1p(excess / count), where total = Σ e^z and excess = Σ (e^z − 1)."""
    near_one = excess > -count / 2
    by_excess = xp.log1p(xp.where(near_one, excess, 0.0) / count)
    return xp.where(near_one, by_excess, xp.log(xp.where(near_one, 1.0, total) / count))


def _others(xp, count):
    if xp.any(count == 1):
        raise ValueError(
            "rewards has a group with a single rollout, but leave-one-out needs at least two rollouts: "
            "sample more, mask out the whole group, or use the plain estimator."
        )
    return xp.clip(count - 1, min=1)


def _read(rewards, mask):
    """Array namespace, rewards as floats (..., n), and where they are valid (..., n)."""
    if not is_array_api_obj(rewards):
        try:
            rewards = np.asarray(rewards)
        except ValueError:
            raise ValueError(
                f"rewards must have shape (..., n), got lists of unequal length: {rewards}."
            ) from None
    xp = array_namespace(rewards)
    if xp.isdtype(rewards.dtype, ("bool", "integral")):
        rewards = xp.astype(rewards, xp.asarray(0.0).dtype)
    if not xp.isdtype(rewards.dtype, "real floating"):
        raise ValueError(f"rewards must be real numbers, got dtype {rewards.dtype}.")
    if rewards.ndim == 0 or rewards.shape[-1] == 0:
        raise ValueError(f"rewards must have shape (..., n) with n >= 1, got {tuple(rewards.shape)}.")
    valid = xp.asarray(True if mask is None else mask, device=device(rewards))
    if not xp.isdtype(valid.dtype, "bool"):
        raise ValueError(f"mask must be boolean, True where a rollout is valid, got dtype {valid.dtype}.")
    valid = _broadcast(xp, "mask", valid, rewards.shape)
    bad = valid & ~xp.isfinite(rewards)
    if xp.any(bad):
        raise ValueError(f"rewards must be finite where valid, got {rewards[bad][0].item()}.")
    return xp, rewards, valid


def _temperature(xp, tau, rewards):
    """Temperature (..., 1) in the type of the rewards."""
    tau = xp.asarray(tau, dtype=rewards.dtype, device=device(rewards))
    bad = ~((tau > 0) & xp.isfinite(tau))
    if xp.any(bad):
        raise ValueError(f"tau must be positive and finite, got {tau[bad][0].item()}.")
    return _broadcast(xp, "tau", tau, rewards.shape[:-1])[..., None]


def _broadcast(xp, name, array, shape):
    trailing = tuple(shape)[len(shape) - array.ndim :]
    if array.ndim > len(shape) or any(size not in (1, full) for size, full in zip(array.shape, trailing)):
        raise ValueError(f"{name} must broadcast to shape {tuple(shape)}, got shape {tuple(array.shape)}.")
    return xp.broadcast_to(array, shape)
