r"""Knobs beside a fixed baseline and temperature: baselines that aim at a KL divergence, temperatures at a χ² weight.

Between the mean and the log-partition
--------------------------------------
Take a group of n rollouts for the whole problem: the uniform law p̂ on them, their rewards r. A baseline b asks for
the policy q of Statement 10, ρ = q/p̂, s = log ρ; with D = (r − r̂)/τ and v = KL(p̂‖q) it says

.. math:: s + λ(e^s − 1) = D − v, \qquad E_{\hat p}[e^s] = 1, \qquad b = \hat r + τ (v − λ).

Take v for given and λ for unknown. With Ψ(λ) = E[e^s − 1 − s], whose terms are nonnegative,

.. math:: Ψ − v = (1 + λ)(E[e^s] − 1), \qquad Ψ' = −E\left[\frac{(ρ − 1)^2}{1 + λρ}\right], \qquad
          Ψ'' = E\left[\frac{ρ(ρ − 1)^2}{(1 + λρ)^2} \Big(3 − \frac{λ(ρ − 1)}{1 + λρ}\Big)\right],

the first by taking E_p̂ of the equation, the others since s' = −(ρ − 1)/(1 + λρ). So Ψ falls and is convex: at most one
λ has E[e^s] = 1. As b rises from the mean to the log-partition, v rises and λ falls from v to 0 (Statement 10), so the
baseline aimed at v is the mean if Ψ(v) ≥ v, the log-partition if Ψ(0) ≤ v, else that of the root λ in [0, v]. To start,
no ρ exceeds 1/p̂ of the largest reward, which bounds λ from below; there E[e^s] ≥ 1, and from any λ Newton's step on the
convex Ψ does not pass the root from below. The step on 1/E[e^s] is bolder and taken whenever it stays in the bracket.

Temperature
-----------
PMD-mean has λ = KL(p‖q) = Var(r)/(2τ²) + O(τ⁻³) (Statements 4 and 8), so τ √(λ/target) is the temperature whose λ would
be the target: ``next_tau``.

Arrays are NumPy's or PyTorch's, and no gradient flows.

References
----------
Statements 4, 8 and 10 of ``pmdtheory/theorems/README.md``.
"""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj

from . import baselines

__all__ = ["loo_target_kl_baseline", "next_tau", "target_kl_baseline"]

_OUTER, _INNER = 10, 2  # Newton steps for λ, Householder steps for s: 8 and 2 leave an error of 1e-11
_SERIES = (1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320, 1 / 362880)
_LARGEST = 40.0  # of s: its square is finite in single precision, and E[e^s] far above 1 anyway


def target_kl_baseline(rewards: Any, tau: Any, target: Any, mask: Any = None) -> Any:
    """Baseline between mean and log-partition whose update of the group's rollouts has KL(p̂‖q) = target.

    Parameters
    ----------
    rewards, mask
        As in `baselines.mean`, shape (..., n).
    tau : float or array broadcastable to (...)
        Temperature τ > 0 in reward units.
    target : float or array broadcastable to (...)
        KL(p̂‖q) in nats, from 0, which gives the mean, to infinity, which gives the log-partition. Below that of the
        mean (the λ of PMD-mean) the baseline is the mean, above that of the log-partition, log Ẑ − r̂/τ, it is the
        log-partition.

    Returns
    -------
    array (..., n)
        The baseline of each rollout in reward units, equal within a group; 0 where masked.

    Raises
    ------
    ValueError
        As `baselines.log_partition`, and if ``target`` is negative, not a number, or does not broadcast.

    References
    ----------
    Statement 10.

    Examples
    --------
    >>> print(target_kl_baseline([[1, 0, 0, 0]] * 4, tau=0.2, target=[0, 1, 2, np.inf]).round(3)[:, 0])
    [0.25  0.329 0.622 0.727]
    """
    xp, rewards, valid = baselines._read(rewards, mask)
    tau, target = baselines._temperature(xp, tau, rewards), _target(xp, target, rewards)
    mean = baselines.mean(rewards, valid)[..., None]
    log_partition = baselines.log_partition(rewards, tau[..., 0], valid)[..., None]
    return xp.where(valid, _between(xp, rewards, valid, tau, target, mean, log_partition), 0.0)


def loo_target_kl_baseline(rewards: Any, tau: Any, target: Any, mask: Any = None) -> Any:
    """`target_kl_baseline` of the other rollouts, for each rollout.

    Parameters
    ----------
    rewards, tau, target, mask
        As in `target_kl_baseline`, every group with at least two rollouts or none.

    Returns
    -------
    array (..., n)
        The baseline of each rollout in reward units: `baselines.loo_mean` if the target is 0,
        `baselines.loo_log_partition` if it is infinite; 0 where masked.

    Raises
    ------
    ValueError
        As `target_kl_baseline`, and if a group has a single rollout.

    References
    ----------
    Statements 10 and 13.

    Examples
    --------
    >>> print(loo_target_kl_baseline([1, 0, 0, 0], tau=0.2, target=0.9).round(3))
    [0.    0.342 0.342 0.342]
    """
    xp, rewards, valid = baselines._read(rewards, mask)
    tau, target = baselines._temperature(xp, tau, rewards), _target(xp, target, rewards)
    mean = baselines.loo_mean(rewards, valid)[..., None]
    log_partition = baselines.loo_log_partition(rewards, tau[..., 0], valid)[..., None]
    index = xp.arange(rewards.shape[-1], device=device(rewards))
    others = valid[..., None, :] & (index[:, None] != index)
    every = xp.broadcast_to(rewards[..., None, :], others.shape)
    found = _between(xp, every, others, tau[..., None], target[..., None], mean, log_partition)
    return xp.where(valid, found[..., 0], 0.0)


baselines.BASELINES["loo_target_kl"] = baselines.Baseline(
    "loo_target_kl", loo_target_kl_baseline, leaves_one_out=True, uses_tau=True, needs_target=True
)


def next_tau(tau: Any, weight: Any, target: Any, largest_factor: float = 2.0) -> Any:
    """Temperature after a step with χ² weight λ measured at τ, for λ to become the target.

    It is τ √(λ/target), the factor kept in [1/largest_factor, largest_factor]: right for τ → ∞, where λ = Var/(2τ²);
    too timid for τ → 0, where λ grows like 1/τ only. A τ that stays has λ = target.

    Parameters
    ----------
    tau : float or array
        Temperature of the step just made, positive, reward units.
    weight : float or array
        λ ≥ 0 of that step, measured: for PMD-mean it is KL(p‖q), estimated without bias from fresh rollouts by the mean
        of ρ − 1 − log ρ. With several prompts, the mean over them.
    target : float or array
        Wanted λ, positive. All three broadcast.
    largest_factor : float
        At least 1.

    Returns
    -------
    array
        The next temperature, positive.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    References
    ----------
    Statements 4 and 8.

    Examples
    --------
    >>> print(next_tau(0.1, weight=np.array([0.02, 0.08, 9.0]), target=0.02))
    [0.1 0.2 0.2]
    """
    xp = next((array_namespace(x) for x in (tau, weight, target) if is_array_api_obj(x)), np)
    tau, weight, target = (xp.asarray(x) for x in (tau, weight, target))
    for name, value, low in (("tau", tau, "positive"), ("weight", weight, ">= 0"), ("target", target, "positive")):
        bad = ~(xp.isfinite(value) & (value >= 0 if name == "weight" else value > 0))
        if xp.any(bad):
            raise ValueError(f"{name} must be {low} and finite, got {value[bad][0].item()}.")
    if not 1 <= largest_factor < np.inf:
        raise ValueError(f"largest_factor must be at least 1 and finite, got {largest_factor}.")
    return tau * xp.clip(xp.sqrt(weight / target), 1 / largest_factor, largest_factor)


def _target(xp, target, rewards):
    """Target (..., 1) in the type of the rewards."""
    target = xp.asarray(target, dtype=rewards.dtype, device=device(rewards))
    bad = ~(target >= 0)
    if xp.any(bad):
        raise ValueError(f"target must be a KL divergence >= 0 or infinity, got {target[bad][0].item()}.")
    return baselines._broadcast(xp, "target", target, rewards.shape[:-1])[..., None]


def _between(xp, rewards, valid, tau, target, mean, log_partition):
    """Baseline (..., 1) of the valid rollouts, whose own mean and log-partition are given."""
    _, gap, count = baselines._from_top(xp, rewards, valid)
    weight = xp.astype(valid, rewards.dtype) / xp.clip(count, min=1)
    D = xp.where(valid, gap - baselines._sum(xp, weight * gap), 0.0) / tau
    v = xp.minimum(target, xp.max(D, axis=-1, keepdims=True))  # log E[e^D] is no larger
    d = D - v

    is_mean = baselines._sum(xp, weight * _excess(xp, *_log_ratio(xp, d, v))) >= v
    ideal = xp.clip(d, max=_LARGEST)
    is_log_partition = baselines._sum(xp, weight * _excess(xp, ideal, xp.expm1(ideal))) <= v

    copies = xp.clip(baselines._sum(xp, xp.astype(valid & (gap == 0), D.dtype)), min=1)
    inside = ~(is_mean | is_log_partition)[..., 0]
    root = xp.zeros_like(v)
    root[inside] = _weight(xp, d[inside], v[inside], weight[inside], (count / copies)[inside])
    found = xp.minimum(xp.maximum(mean + tau * (v - root), mean), log_partition)
    return xp.where(is_log_partition & (target > 0), log_partition, xp.where(is_mean, mean, found))


def _weight(xp, d, v, p, largest):
    """The root λ in [0, v] of rows with one inside, shape (N, 1); no ratio exceeds `largest`.

    Not by ``roots.find``: a fixed number of steps on whole arrays leaves an accelerator nothing to wait for.
    """
    low = xp.clip((xp.max(d, axis=-1, keepdims=True) - xp.log(largest)) / (largest - 1), min=0.0)
    high, root = v, xp.minimum(low, v)
    for _ in range(_OUTER):
        s, growth = _log_ratio(xp, d, root)
        pull = growth / (1 + root * (1 + growth))  # −ds/dλ
        psi, mass = baselines._sum(xp, p * _excess(xp, s, growth)), 1 + baselines._sum(xp, p * growth)
        surplus = xp.where(v < 0.01, (psi - v) / (1 + root), mass - 1)
        low, high = xp.where(surplus > 0, root, low), xp.where(surplus > 0, high, root)
        bold = root + _ratio(xp, surplus * mass, baselines._sum(xp, p * (1 + growth) * pull))
        safe = root + _ratio(xp, surplus * (1 + root), baselines._sum(xp, p * growth * pull))
        root = xp.where((bold >= low) & (bold <= high), bold, xp.clip(safe, min=low, max=high))
    return root


def _ratio(xp, a, b):
    """a/b, and 0 where b is 0."""
    return xp.where(b == 0, 0.0, a / xp.where(b == 0, 1.0, b))


def _log_ratio(xp, d, weight):
    """s and e^s − 1 from s + λ (e^s − 1) = d, which is y + e^y = z in y = s + log λ; the start errs by < 0.32."""
    log_weight = xp.log(xp.clip(weight, min=xp.finfo(d.dtype).smallest_normal))
    z = d + weight + log_weight
    y = xp.where(z > 1, xp.log(xp.clip(z, min=1.0)), (z - 1) / 2)
    s = xp.clip(xp.minimum(xp.minimum(z, (z - 1) / 2), y) - log_weight, max=_LARGEST)
    for _ in range(_INNER):
        growth = xp.expm1(s)
        u = weight * (1 + growth)
        newton = (s + weight * growth - d) / (1 + u)
        bend = newton * u / (1 + u)
        s = xp.clip(s - newton * (1 - bend / 2) / (1 - bend + newton * bend / 6), max=_LARGEST)
    return s, xp.expm1(s)


def _excess(xp, s, growth):
    """e^s − 1 − s, which loses no digits for small s."""
    near, series = xp.clip(s, -0.1, 0.1), 0.0
    for coefficient in reversed(_SERIES):
        series = series * near + coefficient
    return xp.where(xp.abs(s) < 0.1, near * near * series, growth - s)
