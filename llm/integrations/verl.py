r"""Policy mirror descent in verl: advantage estimators and policy losses under names of verl's own registries.

The entry point ``verl.plugins`` loads this module in every process of verl. It registers

=========================== =================================================================================
``algorithm.adv_estimator`` ``pmd-mean``, ``pmd-mean-loo``, ``pmd-part``, ``pmd-part-loo``, ``pmd-target``
``policy_loss.loss_mode``    ``pmd-sequence``, the loss of the paper; ``pmd-token``, that of each token's log-ratio
=========================== =================================================================================

with the baselines of `pmdllm.losses.ALGORITHMS`. τ stands in two places, as verl has it: ``algorithm.pmd_tau`` for
baselines that use it, and ``policy_loss.tau`` of `PMDLossConfig`, whose name goes into ``policy_loss._target_``.

verl cuts a minibatch into ranks and micro-batches, tells each loss the size M of the whole, ``global_batch_size``, and
averages gradients over ``dp_size`` ranks. So a micro-batch's loss is dp_size / M times the sum over its completions,
and what reaches the optimiser is the mean over all M, completions without tokens counted. ``loss_agg_mode`` is the
length normalisation: ``seq-mean-token-sum`` is none, the other two of its sequence modes are themselves.

References
----------
Statements 12, 13 and 17 of ``pmdtheory/theorems/README.md``. Xu, Lu, Yu, Zhao, arXiv 2602.05933.
"""

import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from packaging.version import Version
from verl.trainer.ppo.core_algos import register_adv_est, register_policy_loss
from verl.workers.config import PolicyLossConfig

from .. import metrics
from ..credit import credit, of_completions
from ..losses import ALGORITHMS, Settings, log_ratio

__all__ = ["ESTIMATORS", "LOSSES", "PMDLossConfig"]

FIRST, BEYOND = "0.9.1", "0.10"
ESTIMATORS = tuple(name for name, method in ALGORITHMS.items() if name.startswith("pmd-") and method.has_temperature)
LOSSES = {"pmd-sequence": ALGORITHMS["pmd-mean"], "pmd-token": ALGORITHMS["kimi-token"]}
NORMALIZATIONS = {
    "seq-mean-token-sum": "none",
    "seq-mean-token-mean": "seq-mean-token-mean",
    "seq-mean-token-sum-norm": "seq-mean-token-sum-norm",
}

try:
    found = version("verl")
except PackageNotFoundError:
    found = FIRST
if not Version(FIRST) <= Version(found) < Version(BEYOND):
    warnings.warn(f"pmdllm.integrations.verl is tested with verl >= {FIRST}, < {BEYOND}, found {found}.", stacklevel=2)


@dataclass
class PMDLossConfig(PolicyLossConfig):
    """verl's section ``actor.policy_loss`` with τ.

    Parameters
    ----------
    tau : float, optional
        Temperature τ > 0 in reward units; must be given for the losses of this module.
    """

    loss_mode: str = "pmd-sequence"
    tau: float | None = None


def estimate(name, token_level_rewards, response_mask, index=None, config=None, **_):
    """Advantages of whole completions over their group's baseline, as verl's estimators return them.

    Parameters
    ----------
    name : str
        An algorithm of `pmdllm.losses.ALGORITHMS`.
    token_level_rewards, response_mask : tensor (B, T)
        Rewards, of which a completion's sum counts; and where its tokens are. One without any leaves its group.
    index : array (B,)
        What the completions of a prompt have in common: verl's ``uid``.
    config : mapping
        verl's section ``algorithm``: ``pmd_tau`` where the baseline uses it, ``pmd_target_kl`` for ``pmd-target``.

    Returns
    -------
    advantages, returns : tensor (B, T)
        The same A = r − b̂ at every token of a completion, 0 elsewhere and in groups too small for the baseline.
    """
    method, mask = ALGORITHMS[name], response_mask.bool()
    if index is None:
        raise ValueError(f"{name} needs the uid of each completion: its baseline is that of a prompt's completions.")
    tau = _given(config, "pmd_tau", name) if method.baseline.uses_tau else 1.0
    target_kl = _given(config, "pmd_target_kl", name) if method.baseline.needs_target else 0.0
    _, group = np.unique(np.asarray(index).astype(str), return_inverse=True)
    place = np.zeros_like(group)
    for own in range(group.max() + 1):
        place[group == own] = np.arange((group == own).sum())
    rewards = token_level_rewards.new_zeros(group.max() + 1, place.max() + 1, dtype=torch.float32)
    valid = torch.zeros_like(rewards, dtype=torch.bool)
    group, place = torch.from_numpy(group), torch.from_numpy(place)
    rewards[group, place] = token_level_rewards.sum(-1).float()
    valid[group, place] = mask.any(-1)
    advantages = credit(method, rewards, valid, tau, target_kl).advantage[group, place][:, None] * mask
    return advantages, advantages


def policy_loss(
    name, old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="token-mean", config=None,
    rollout_is_weights=None,
):  # fmt: skip
    """Loss of a micro-batch, a part of the mean over verl's whole minibatch; arguments as verl hands them over.

    Parameters
    ----------
    name : str
        A key of `LOSSES`.
    old_log_prob, log_prob, advantages, response_mask : tensor (B, T)
        Log-probabilities of the tokens; advantages, one number a completion; where the tokens are.
    loss_agg_mode : str
        ``seq-mean-token-sum``, ``seq-mean-token-mean``, or ``seq-mean-token-sum-norm`` with ``loss_scale_factor``.
    config : verl.workers.config.ActorConfig
        Its ``policy_loss.tau`` and ``global_batch_info``.
    rollout_is_weights : tensor (B, T), optional
        verl's correction for the sampler, one number a completion: a factor of its loss.

    Returns
    -------
    loss : tensor ()
    metrics : dict of str to float

    Raises
    ------
    ValueError
        τ is missing or not positive, or a mode or a weight of tokens is given to a loss of completions.
    """
    mask, tau = response_mask.bool(), _given(config.policy_loss, "tau", name)
    if loss_agg_mode not in NORMALIZATIONS:
        raise ValueError(
            f"loss_agg_mode must be one of {', '.join(NORMALIZATIONS)} for {name}, got {loss_agg_mode!r}: the loss is "
            "a mean over completions."
        )
    whole = config.global_batch_info
    dp_size, count, scale = (whole.get(key) for key in ("dp_size", "global_batch_size", "loss_scale_factor"))
    if count is None and (dp_size or 1) > 1:
        raise ValueError("global_batch_info must hold global_batch_size where dp_size is above 1: the mean is over it.")
    if loss_agg_mode == "seq-mean-token-sum-norm" and scale is None:
        raise ValueError(f"loss_scale_factor must be given for {loss_agg_mode}: the width of a micro-batch varies.")
    weight = None if rollout_is_weights is None else of_completions(rollout_is_weights, mask, "rollout_is_weights")
    settings = Settings(
        tau, length_normalization=NORMALIZATIONS[loss_agg_mode], max_length=scale, weight=weight, count=count
    )  # fmt: skip
    advantage = of_completions(advantages, mask, "advantages")
    loss, details = LOSSES[name].loss(log_prob, old_log_prob, mask, advantage, settings)
    s = log_ratio(log_prob.detach(), old_log_prob, mask).sum(-1)
    details |= metrics.log_ratio_statistics(s, mask=mask.any(-1)) | metrics.kl_estimates(s, mask.any(-1))
    return loss * (dp_size or 1), {f"actor/{key}": value.item() for key, value in details.items()}


def _given(section, name, user):
    value = section.get(name) if section is not None else None
    where = {"tau": "actor.policy_loss.tau"}.get(name, f"algorithm.{name}")
    if value is None:
        raise ValueError(f"{where} must be given for {user}; see docs/engines.md.")
    if not 0 < value < float("inf"):
        raise ValueError(f"{where} must be positive and finite, got {value}.")
    return value


def _register(decorator, name, function):
    def named(*arguments, **options):
        return function(name, *arguments, **options)

    named.__name__, named.__doc__ = name, function.__doc__
    decorator(name)(named)


for _name in ESTIMATORS:
    _register(register_adv_est, _name, estimate)
for _name in LOSSES:
    _register(register_policy_loss, _name, policy_loss)
