"""``pmd-llm law``: losses by name or from a file, in the signature of the trainer they are written for.

`pmdtheory.identify` calls ``loss(logp, old_logp, mask, rewards, tau)`` on one group of n rollouts. Here each signature
becomes that:

==========  ==========================================================================================================
pmdllm      ``f(logp, old_logp, mask, rewards, tau) -> loss``; by name, a key of `pmdllm.losses.ALGORITHMS` or pmd:NAME
trl         ``f(per_token_logps, inputs) -> loss``, inputs a dict of old_per_token_logps, completion_mask and advantages
            (n,); by name, the loss types of `trl.GRPOTrainer`, computed by its own ``_compute_loss``
verl        ``f(old_log_prob, log_prob, advantages, response_mask, ...) -> (loss, ...)``, a policy loss of verl's
            registry, advantages (n, T)
prime-rl    ``f(inputs) -> outputs`` of one rollout at a time, inputs with trainer_logprobs, inference_logprobs,
            advantages and loss_mask of shape (T,), outputs with a loss; losses are added and divided by n
==========  ==========================================================================================================

Functions that are given advantages get r − mean(r); TRL's own types get what its trainer gives them, for all but
dr_grpo divided by the standard deviation plus 1e-4. Verl's and prime-rl's functions are called by the argument names
that these publish; neither is installed for that.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from pmdtheory.baselines import BASELINES
from pmdtheory.instrument.response import TARGET_KL

from .. import tasks
from ..losses import Settings, advantages, algorithm, free_advantages, log_ratio

__all__ = ["SIGNATURES", "TRL_LOSSES", "load"]

CHI2_COEF = 0.1
TRL_LOSSES = {
    "grpo": {},
    "bnpo": {},
    "dr_grpo": {"scale_rewards": "none"},
    "dapo": {"epsilon_high": 0.28},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "cispo": {"epsilon_high": 5.0},
    "sapo": {},
}
"""Loss types of TRL by name, each with the settings that differ from the defaults of `trl.GRPOConfig`."""


def load(name: str, signature: str = "pmdllm") -> Callable[..., Any]:
    """Return the loss of a name, or of ``module:function`` or ``file.py:function``, as `pmdtheory.identify` wants it.

    Raises
    ------
    ValueError
        There is no such loss or signature; the message lists what there is.

    Examples
    --------
    >>> from pmdtheory import identify
    >>> identify(load("pmd-mean"), tau=0.25, name="pmd-mean").law
    'pmd-mean'
    """
    if signature not in SIGNATURES:
        raise ValueError(f"signature must be one of {', '.join(SIGNATURES)}, got {signature!r}.")
    by_name, adapted = SIGNATURES[signature]
    module, colon, _ = name.partition(":")
    if colon and module != "pmd":
        return adapted(tasks.own("loss", name))
    if by_name is None:
        raise ValueError(f"loss must be module:function or file.py:function for {signature}, got {name!r}.")
    return by_name(name)


def _ours(name):
    rows = algorithm(name)

    def loss(logp, old_logp, mask, rewards, tau):
        settings = Settings(tau, max_length=mask.shape[1], chi2_coef=CHI2_COEF if rows.needs_chi2 else 0.0)
        A = rows.advantage(rewards[None], tau, target_kl=TARGET_KL)
        if rows.is_free:
            s = log_ratio(logp, old_logp, mask).sum(-1)[None]
            A = free_advantages(A, s, tau, torch.ones_like(A, dtype=torch.bool), settings.chi2_coef)
        return rows.loss(logp, old_logp, mask, A[0], settings)[0]

    return loss


def _advantages(rewards, scale="none"):
    return advantages(rewards[None], BASELINES["mean"], 1.0, scale=scale)[0]


def _trl_by_name(name):
    if name not in TRL_LOSSES:
        raise ValueError(f"loss of TRL must be one of {', '.join(TRL_LOSSES)}, got {name!r}.")
    from trl import GRPOConfig, GRPOTrainer

    chosen = {"loss_type": name} | TRL_LOSSES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the names that TRL gives to Transformers
        args = GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none", **chosen)
    args.steps_per_generation = 1
    trainer = object.__new__(GRPOTrainer)  # its loss, without a model or data
    trainer.__dict__ |= {
        "args": args, "loss_type": args.loss_type, "beta": 0.0, "epsilon_low": args.epsilon,
        "epsilon_high": args.epsilon if args.epsilon_high is None else args.epsilon_high,
        "importance_sampling_level": args.importance_sampling_level, "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None, "use_vllm": False, "aux_loss_enabled": False,
        "_entropy_bonus_enabled": False, "current_gradient_accumulation_steps": 1,
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "accelerator": SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction=None: x, num_processes=1),
    }  # fmt: skip

    def loss(logp, old_logp, mask, rewards, tau):
        trainer.max_completion_length = mask.shape[1]
        trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logp, torch.zeros_like(logp), None)
        ids = torch.zeros(mask.shape, dtype=torch.long)
        inputs = {
            "prompt_ids": ids[:, :1], "prompt_mask": mask[:, :1], "completion_ids": ids, "completion_mask": mask.long(),
            "advantages": _advantages(rewards, "none" if args.scale_rewards == "none" else "std"),
            "old_per_token_logps": old_logp, "num_items_in_batch": mask.sum(),
        }  # fmt: skip
        value = trainer._compute_loss(SimpleNamespace(training=False), inputs)
        trainer._metrics["eval"].clear()
        return value

    trainer.model = SimpleNamespace(training=False)
    return loss


def _trl(function):
    def loss(logp, old_logp, mask, rewards, tau):
        inputs = {"old_per_token_logps": old_logp, "completion_mask": mask.long()}
        return function(logp, inputs | {"advantages": _advantages(rewards)})

    return loss


def _verl(function):
    def loss(logp, old_logp, mask, rewards, tau):
        A = _advantages(rewards)[:, None].expand(mask.shape)
        value = function(old_log_prob=old_logp, log_prob=logp, advantages=A, response_mask=mask.to(logp.dtype))
        return value[0] if isinstance(value, tuple) else value

    return loss


def _prime_rl(function):
    def loss(logp, old_logp, mask, rewards, tau):
        A, total = _advantages(rewards), 0.0
        for i, kept in enumerate(mask):
            inputs = SimpleNamespace(
                trainer_logprobs=logp[i], inference_logprobs=old_logp[i], teacher_logprobs=None,
                advantages=A[i].expand(len(kept)), loss_mask=kept,
            )  # fmt: skip
            value = function(inputs)
            total = total + getattr(value, "loss", value)
        return total / len(mask)

    return loss


SIGNATURES = {
    "pmdllm": (_ours, lambda function: function),
    "trl": (_trl_by_name, _trl),
    "verl": (None, _verl),
    "prime-rl": (None, _prime_rl),
}
"""How a loss is found by name, and how a function becomes one, by signature."""
