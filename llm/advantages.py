"""Advantages of a prompt's rollouts, A = r − b̂, by any of the baselines, and importance weights of the same rewards.

References
----------
Statements 1, 10, 12 and 13 of ``pmdtheory/theorems/README.md``.
"""

import torch

from pmdtheory import baselines, knobs

__all__ = ["advantages", "importance_weights"]

STD_FLOOR = 1e-4
SCALES = ("none", "std")


def advantages(rewards, estimator, tau, mask=None, scale="none", target_kl=0.0):
    """Advantage of each rollout over its group's baseline, A = r − b̂, optionally in standard deviations.

    Parameters
    ----------
    rewards : tensor (P, n)
        Rewards of n rollouts for each of P prompts, finite where valid; booleans and integers are promoted.
    estimator : {'mean', 'loo_mean', 'log_partition', 'loo_log_partition', 'loo_target_kl'}
        Baseline, one of `pmdtheory.baselines.ESTIMATORS`, or `pmdtheory.knobs.loo_target_kl_baseline`; leave-one-out
        needs two rollouts in a group, or none.
    tau : float
        Temperature τ > 0 in reward units; the means do not use it.
    mask : boolean tensor (P, n), optional
        False where there is no rollout; its reward may be anything.
    scale : {'none', 'std'}
        'std' divides by the group's standard deviation (n − 1 in it) plus 1e-4.
    target_kl : float
        KL divergence that 'loo_target_kl' aims at, in nats.

    Returns
    -------
    tensor (P, n)
        Advantages in reward units, or in standard deviations; 0 where masked. A constant: no gradient.

    Raises
    ------
    ValueError
        ``estimator`` or ``scale`` is unknown, and as the estimator does.

    References
    ----------
    Statements 12 and 13.

    Examples
    --------
    >>> advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), "loo_mean", tau=0.1)
    tensor([[ 1.0000, -0.3333, -0.3333, -0.3333]])
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}.")
    rewards = rewards.detach()
    if estimator == "loo_target_kl":
        baseline = knobs.loo_target_kl_baseline(rewards, tau, target_kl, mask)
    else:
        baseline = baselines.estimate(estimator, rewards, tau, mask)
    valid = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    advantage = torch.where(valid, rewards, baseline) - baseline
    if scale == "std":
        count = valid.sum(-1, keepdim=True)
        centred = torch.where(valid, rewards, 0) - baselines.estimate("mean", rewards, tau, mask)
        variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
        advantage = advantage / (variance.sqrt() + STD_FLOOR)
    return advantage


def importance_weights(rewards, tau, mask=None):
    """Weights e^{r/τ}/Ẑ that turn a mean over p into one over q ∝ p e^{r/τ}; Ẑ is the mean of e^{r/τ} over the group.

    They average 1 over a group's rollouts and are at most n, so nothing overflows.

    Parameters
    ----------
    rewards, tau, mask
        As in `advantages`.

    Returns
    -------
    tensor (P, n)
        Nonnegative weights, 0 where masked.

    Raises
    ------
    ValueError
        As `advantages`.

    References
    ----------
    Statement 1: the ratio of the KL update is e^{r/τ}/Z.

    Examples
    --------
    >>> importance_weights(torch.tensor([[0.0, 0.6931472, 0.0, 0.0]]), tau=1.0)
    tensor([[0.8000, 1.6000, 0.8000, 0.8000]])
    """
    weight = (advantages(rewards, "log_partition", tau, mask) / tau).exp()
    return weight if mask is None else torch.where(mask, weight, 0)
