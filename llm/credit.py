"""Credit: which completions of a rollout batch count, and the advantage and weight of each.

P prompts have n completions each. A completion counts if it is valid, if its group has as many valid ones as the
baseline needs, and if the group's mean reward lies strictly between the filter's bounds. Baselines, importance weights
and the filter are those of the whole batch and computed once, before it is cut into minibatches, micro-batches or
processes.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from pmdtheory import baselines

from .losses import importance_weights as weights_of

__all__ = ["Credit", "credit", "of_completions"]


@dataclass(frozen=True)
class Credit:
    """What the completions of P groups are worth.

    Attributes
    ----------
    advantage : tensor (P, n)
        A = r − b̂, in the scale of the algorithm; 0 where not valid.
    weight : tensor (P, n) or None
        Importance weights.
    valid : bool tensor (P, n)
        Completions that enter baselines: at least the baseline's ``smallest_group`` of a group, or none.
    kept : bool tensor (P,)
        Groups with a valid completion that the filter keeps.
    """

    advantage: torch.Tensor
    weight: torch.Tensor | None
    valid: torch.Tensor
    kept: torch.Tensor

    @property
    def counted(self) -> torch.Tensor:
        """Completions (P, n) that the loss is a mean over."""
        return self.valid & self.kept[:, None]


def credit(
    algorithm: Any,
    rewards: torch.Tensor,
    valid: torch.Tensor | None,
    tau: float,
    target_kl: float = 0.0,
    importance_weights: bool = False,
    filter_low: float | None = None,
    filter_high: float | None = None,
    baseline_tau: float = 0.0,
) -> Credit:
    """Give credit to the completions of P groups.

    Parameters
    ----------
    algorithm : pmdllm.losses.Algorithm
        Its baseline and scale.
    rewards : tensor (P, n)
        Finite where valid.
    valid : bool tensor (P, n)
        False where there is no completion, or one that is left out.
    tau, target_kl : float
        As in `pmdllm.losses.advantages`.
    importance_weights : bool
        Whether losses are weighted by e^{r/τ}/Ẑ, `pmdllm.losses.importance_weights`.
    filter_low, filter_high : float, optional
        Only groups with a mean reward above the one and below the other are kept.
    baseline_tau : float
        Temperature β₁ of a baseline that has one, if it is not τ; 0: it is. Statement 22.

    Returns
    -------
    Credit

    Examples
    --------
    >>> from pmdllm.losses import algorithm
    >>> rewards = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> given = credit(algorithm("pmd-mean"), rewards, rewards >= 0, tau=0.1, filter_high=1.0)
    >>> given.advantage[0], given.kept
    (tensor([ 0.5000, -0.5000]), tensor([ True, False]))
    """
    valid = valid & (valid.sum(1, keepdim=True) >= algorithm.baseline.smallest_group)
    mean = baselines.mean(rewards, valid)
    low = -math.inf if filter_low is None else filter_low
    high = math.inf if filter_high is None else filter_high
    return Credit(
        advantage=algorithm.advantage(rewards, baseline_tau or tau, valid, target_kl),
        weight=weights_of(rewards, tau, valid) if importance_weights else None,
        valid=valid,
        kept=valid.any(1) & (mean > low) & (mean < high),
    )


def of_completions(values: torch.Tensor, mask: torch.Tensor, name: str) -> torch.Tensor:
    """What ``values`` (B, T) has at a completion's tokens, (B,), 0 where there are none; an error calls it ``name``.

    Raises
    ------
    ValueError
        It is not one number for all tokens of a completion.
    """
    top, bottom = values.masked_fill(~mask, -torch.inf).amax(-1), values.masked_fill(~mask, torch.inf).amin(-1)
    if (top - bottom > 1e-4 * (1 + top.abs())).any():
        raise ValueError(f"{name} must be the same at all tokens of a completion: give whole completions credit.")
    return torch.where(mask.any(-1), top, 0)
