r"""Policy mirror descent in TRL: `PMDConfig` and `PMDTrainer`, drop-in for ``GRPOConfig`` and ``GRPOTrainer``.

The trainer keeps TRL's sampling, rewards, distribution and logging. Two things are its own:

advantages
    `pmdllm.credit` over the rewards of whole groups, gathered from all processes. Completions that
    ``mask_truncated_completions`` empties and those without a reward leave their group's baseline, as in the lean loop.

loss
    `pmdllm.losses`. Each micro-batch of each process is divided by N, the number of completions that count in the whole
    optimiser step, and multiplied by the number of processes, over which gradients are averaged: accumulation and
    processes give the mean over the step's completions. An optimiser step without any leaves the weights alone.

log π_old is what TRL recomputed after sampling. With one update per generation TRL does not keep it: the policy is
still the one that sampled, so its own detached log-probabilities stand in and s = 0. Both are of the law at the
sampling temperature, and of the whole of it, which is why options that truncate it are refused.

TRL does not save the buffer of completions, so that a run goes on exactly only from a generation boundary: steps
between saves must be a multiple of the updates per generation, and going on from any other checkpoint is refused.

References
----------
Statements 12, 13 and 17 of ``pmdtheory/theorems/README.md``. Xu, Lu, Yu, Zhao, arXiv 2602.05933.
"""

import inspect
import textwrap
import warnings
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
import trl
from packaging.version import Version
from transformers import TrainerCallback

from .. import metrics
from ..config import NORMS, must_be
from ..credit import credit
from ..losses import Settings, algorithm, log_ratio

if TYPE_CHECKING:
    from ..losses import Algorithm

FIRST, BEYOND = "1.16.0", "1.17"
if not Version(FIRST) <= Version(trl.__version__) < Version(BEYOND):
    raise ImportError(
        f"pmdllm.integrations.trl is tested with trl >= {FIRST}, < {BEYOND}, whose private methods it replaces, and "
        f"found {trl.__version__}: pip install 'trl>={FIRST},<{BEYOND}'."
    )

__all__ = ["PMDConfig", "PMDTrainer"]

REFUSED = {
    "scale_rewards": "tau is measured in reward units",
    "loss_type": "algorithm chooses the loss",
    "beta": "the penalty of PMD is to the policy that sampled, and tau its weight",
    "disable_dropout": "dropout enters log-ratios",
    **dict.fromkeys(
        (
            "epsilon", "epsilon_high", "delta", "importance_sampling_level", "multi_objective_aggregation",
            "entropy_coef", "use_adaptive_entropy", "top_entropy_quantile", "off_policy_mask_threshold",
        ),
        "the loss of PMD does not read it",
    ),
    **dict.fromkeys(
        ("top_p", "top_k", "min_p", "repetition_penalty"), "log-probabilities are those of the whole distribution"
    ),
}  # fmt: skip
HALF = torch.bfloat16, torch.float16
FORWARD = frozenset(inspect.signature(trl.GRPOTrainer._get_per_token_logps_and_entropies).parameters)


@dataclass
class PMDConfig(trl.GRPOConfig):
    """Options of `PMDTrainer`: those of ``trl.GRPOConfig``, and those of policy mirror descent.

    Changed defaults: ``scale_rewards="none"``, since τ is measured in units of the reward; ``disable_dropout=True``,
    since dropout in one of two passes enters every log-ratio; ``vllm_importance_sampling_correction=False``. If that is
    switched on, the ratio of a completion is a factor of its loss.

    Parameters
    ----------
    algorithm : str
        One of `pmdllm.losses.ALGORITHMS` with a temperature, or ``pmd:NAME`` with a name of
        `pmdtheory.baselines.BASELINES`.
    tau : float
        Temperature τ > 0 in reward units.
    target_kl : float
        KL divergence in nats, for ``pmd-target``, whose baseline aims at it.
    length_normalization : {'auto', 'none', 'seq-mean-token-mean', 'seq-mean-token-sum-norm'}
        N of `pmdllm.losses.log_ratio_regression`, ``max_completion_length`` for the last; auto: the algorithm's.
    filter_low, filter_high : float, optional
        Only groups whose mean reward lies strictly between them count.
    importance_weights : bool
        Weight completions by e^{r/τ}/Ẑ of their group.
    reset_optimizer_every : int
        Forget the optimiser's moments every so many generations; 0: never.

    Raises
    ------
    ValueError
        A value is out of bounds; an option of GRPO is set that the loss of PMD does not read, or that makes log-ratios
        mean something else; an optimiser step would take completions of two generations; saves between generations.

    Examples
    --------
    >>> PMDConfig("run", algorithm="pmd-part-loo", tau=0.05, use_cpu=True, bf16=False).scale_rewards
    'none'
    """

    algorithm: str = field(default="pmd-mean", metadata={"help": "pmd-mean, pmd-part-loo, ..., or pmd:BASELINE."})
    tau: float = field(default=0.1, metadata={"help": "Temperature, in reward units."})
    target_kl: float = field(default=0.0, metadata={"help": "KL divergence that pmd-target aims at."})
    length_normalization: str = field(default="auto", metadata={"help": "Divisor of a completion's loss."})
    filter_low: float | None = field(default=None, metadata={"help": "Keep groups with mean reward above this."})
    filter_high: float | None = field(default=None, metadata={"help": "Keep groups with mean reward below this."})
    importance_weights: bool = field(default=False, metadata={"help": "Weight completions by exp(r/tau)/Z."})
    reset_optimizer_every: int = field(default=0, metadata={"help": "Generations between resets; 0: never."})

    scale_rewards: str = field(default="none", metadata={"help": "Must be none: tau is in reward units."})
    loss_type: str = field(default="pmd", metadata={"help": "Must be pmd: the loss is that of the algorithm."})
    disable_dropout: bool = field(default=True, metadata={"help": "Must be true: dropout enters log-ratios."})
    vllm_importance_sampling_correction: bool = field(
        default=False, metadata={"help": "Weight completions by TRL's ratio of policy and vLLM, sequence modes only."}
    )

    def __post_init__(self):
        super().__post_init__()
        must_be(self, "tau", "positive and finite", 0 < self.tau < float("inf"))
        must_be(self, "length_normalization", f"one of {', '.join(NORMS)}", self.length_normalization in NORMS)
        must_be(self, "algorithm", "a regression such as pmd-mean (TRL has the others)", self.method.has_temperature)
        free = f"another than {self.algorithm}, whose baseline follows the policy: pmd-llm train has it"
        must_be(self, "algorithm", free, not self.method.is_free)
        needs_target = self.method.baseline.needs_target
        must_be(self, "target_kl", f"positive for {self.algorithm}", self.target_kl > 0 or not needs_target)
        must_be(self, "reset_optimizer_every", "at least 0", self.reset_optimizer_every >= 0)
        if None not in (self.filter_low, self.filter_high):
            must_be(self, "filter_low", f"below filter_high = {self.filter_high}", self.filter_low < self.filter_high)
        for declared in fields(self):
            if declared.name in REFUSED:
                accepted = f"{declared.default!r}: {REFUSED[declared.name]}"
                must_be(self, declared.name, accepted, getattr(self, declared.name) == declared.default)
        own = set(self.generation_kwargs or ()) & {"temperature", *REFUSED}
        must_be(self, "generation_kwargs", f"without {', '.join(sorted(own))}: {REFUSED['top_p']}", not own)
        by_sequence = self.vllm_importance_sampling_mode.startswith("sequence")
        one = "sequence_mask or sequence_truncate: a completion has one log-ratio"
        corrected = self.vllm_importance_sampling_correction
        must_be(self, "vllm_importance_sampling_mode", one, by_sequence or not corrected)
        each, window, updates = self.steps_per_generation, self.gradient_accumulation_steps, self.updates_per_generation
        whole = f"a multiple of gradient_accumulation_steps = {window}: an update has completions of one generation"
        must_be(self, "steps_per_generation", whole, each % window == 0)
        if self.save_strategy == "steps" and self.save_steps >= 1:
            boundary = f"a multiple of {updates}, the updates per generation: resuming is exact there only"
            must_be(self, "save_steps", boundary, self.save_steps % updates == 0)
        if updates == 1 and not (self.importance_weights or self.method.advantage_uses_tau):
            warnings.warn(
                f"algorithm {self.algorithm!r} with one update per generation: the log-ratio is 0 at it, and a mean "
                "baseline does not depend on τ, so tau has no effect. Raise steps_per_generation or num_iterations.",
                stacklevel=3,
            )

    @property
    def method(self) -> "Algorithm":
        """The `pmdllm.losses.Algorithm`."""
        return algorithm(self.algorithm)

    @property
    def updates_per_generation(self) -> int:
        """Optimiser steps made with the completions of one generation."""
        return self.steps_per_generation // self.gradient_accumulation_steps * self.num_iterations


class PMDTrainer(trl.GRPOTrainer):
    """TRL's ``GRPOTrainer`` with the advantages and the loss of policy mirror descent; arguments as there.

    Logged besides TRL's: ``residual``, the root mean square of A − τ s; ``log_ratio/...`` and ``kl/...`` of
    `pmdllm.metrics`, over completions; ``groups_kept``, the share that the filter keeps. Under ``clip_ratio`` TRL logs
    nothing, since nothing is clipped.

    Examples
    --------
    ``examples/trl_pmd.py`` is a whole script.
    """

    _tag_names = ["trl", "pmd"]  # noqa: RUF012  TRL reads these of the class
    _name = "PMD"
    _paper = {  # noqa: RUF012
        "title": "Approximation of Log-Partition Function in Policy Mirror Descent Induces Implicit Regularization for "
        "LLM Post-Training",
        "id": "2602.05933",
        "citation": textwrap.dedent("""\
            @article{xu2026approximation,
                title  = {{Approximation of Log-Partition Function in Policy Mirror Descent Induces Implicit \
            Regularization for LLM Post-Training}},
                author = {Xu and Lu and Yu and Zhao},
                year   = 2026,
                eprint = {arXiv:2602.05933},
            }"""),
    }

    def __init__(self, model: Any, reward_funcs: Any = None, args: Any = None, *more: Any, **options: Any):
        if not isinstance(args, PMDConfig):
            raise ValueError(f"args must be a PMDConfig, which says how PMD is run, got {type(args).__name__}.")
        super().__init__(model, reward_funcs, args, *more, **options)
        self.method = args.method
        if args.reset_optimizer_every and self.is_deepspeed_enabled:
            raise ValueError(
                "reset_optimizer_every must be 0 with DeepSpeed, which keeps the moments to itself, got "
                f"{args.reset_optimizer_every}."
            )
        if any(weight.requires_grad and weight.dtype in HALF for weight in self.model.parameters()):
            warnings.warn(
                "trained weights are in half precision, where steps as small as those of post-training are rounded "
                "away: load the model in float32 (bf16=True still multiplies in bfloat16).",
                stacklevel=2,
            )
        self.add_callback(_Generations(self))

    def _calculate_rewards(self, *arguments, **options):
        self._rewards_by_function = super()._calculate_rewards(*arguments, **options)
        return self._rewards_by_function

    def _generate_and_score_completions(self, inputs):
        batch, args = super()._generate_and_score_completions(inputs), self.args
        mode, n = ("train", self.num_generations) if self.model.training else ("eval", self.num_generations_eval)
        by_function = self._rewards_by_function
        rewards = (by_function * self.reward_weights.to(by_function.device)).nansum(1)
        present = self.accelerator.gather(_mask(batch).any(1)) & ~by_function.isnan().all(1)
        given = credit(
            self.method, rewards.view(-1, n), present.view(-1, n), args.tau, args.target_kl, args.importance_weights,
            args.filter_low, args.filter_high,
        )  # fmt: skip
        advantage = given.advantage.flatten()
        here = slice(self.accelerator.process_index * len(inputs), (self.accelerator.process_index + 1) * len(inputs))
        batch["advantages"], batch["counted"] = advantage[here], given.counted.flatten()[here]
        if given.weight is not None:
            batch["weight"] = given.weight.flatten()[here]
        self._metrics[mode]["groups_kept"].append(given.kept.float().mean().item())
        shown = self._logs["advantages"]
        for _ in range(min(len(shown), len(advantage))):  # TRL's own, that it has just noted
            shown.pop()
        shown.extend(advantage.tolist())
        return batch

    def _prepare_inputs(self, generation_batch):
        """Tell every micro-batch how many completions count in its optimiser step, on all processes."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            _set_count([inputs], self.accelerator)
        elif self._buffered_inputs is not before:
            window = self.args.gradient_accumulation_steps
            for start in range(0, self.args.steps_per_generation, window):
                _set_count(self._buffered_inputs[start : start + window], self.accelerator)
        return inputs

    def _compute_loss(self, model, inputs):
        training, args = self.model.training, self.args
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        logp, entropy, aux_loss = self._get_per_token_logps_and_entropies(
            model, ids, attention, inputs["completion_ids"].shape[1], compute_entropy=True,
            compute_aux_loss=self.aux_loss_enabled, **{name: inputs[name] for name in FORWARD & inputs.keys()},
        )  # fmt: skip
        old_logp = inputs.get("old_per_token_logps")
        old_logp = logp.detach() if old_logp is None else old_logp
        mask = _mask(inputs) & inputs["counted"][:, None]
        normalization = None if args.length_normalization == "auto" else args.length_normalization
        settings = Settings(
            args.tau, length_normalization=normalization, max_length=self.max_completion_length, weight=_weight(inputs),
            count=inputs["count"],
        )  # fmt: skip
        loss, details = self.method.loss(logp, old_logp, mask, inputs["advantages"], settings)
        self._note(details, log_ratio(logp.detach(), old_logp, mask).sum(1), entropy, mask)
        self.counted_in_step = inputs["count"]
        loss = loss * self.accelerator.num_processes
        if self.aux_loss_enabled:
            share = self.current_gradient_accumulation_steps if training else 1
            loss = loss + self.router_aux_loss_coef * aux_loss / share
            self._metrics["train" if training else "eval"]["aux_loss"].append(self._over_processes(aux_loss))
        return loss

    def _note(self, details, log_ratios, entropy, mask):
        s, present = self.accelerator.gather((log_ratios, mask.any(1)))
        values = metrics.log_ratio_statistics(s, mask=present) | metrics.kl_estimates(s, present)
        noted = self._metrics["train" if self.model.training else "eval"]
        for name, value in values.items():
            if name != "ratio/outside_clip":
                noted[name].append(value.item())
        for name, value in (details | {"entropy": metrics.entropy_statistics(entropy, mask)["entropy"]}).items():
            noted[name].append(self._over_processes(value))

    def _over_processes(self, value):
        return self.accelerator.gather(value.detach()).mean().item()


class _Generations(TrainerCallback):
    """What happens at optimiser steps and generation boundaries."""

    def __init__(self, trainer):
        self.trainer, self.each = trainer, trainer.args.updates_per_generation

    def on_train_begin(self, args, state, control, **options):
        """Refuse to go on from the middle of a generation, and to save there."""
        if state.global_step % self.each:
            raise ValueError(
                f"resume_from_checkpoint must be a checkpoint after a multiple of {self.each} steps, got one after "
                f"{state.global_step}: TRL does not save the completions of an unfinished generation."
            )
        if args.save_strategy == "steps" and state.save_steps % self.each:
            raise ValueError(
                f"save_steps must come to a multiple of {self.each}, the updates per generation, got {args.save_steps} "
                f"that is {state.save_steps} steps: resuming is exact there only."
            )

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **options):
        """Leave the weights alone where no completion of the step counts: momentum alone would move them."""
        if not self.trainer.counted_in_step:
            optimizer.zero_grad(set_to_none=True)

    def on_step_end(self, args, state, control, optimizer=None, **options):
        """Forget the optimiser's moments when due."""
        every = args.reset_optimizer_every * self.each
        if every and state.global_step % every == 0:
            optimizer.state.clear()


def _mask(inputs):
    """Tokens (B, T) that the policy wrote."""
    mask = inputs["completion_mask"].bool()
    return mask & inputs["tool_mask"].bool() if "tool_mask" in inputs else mask


def _weight(inputs):
    """Factor (B,) of each completion's loss, or None."""
    weight, ratio = inputs.get("weight"), inputs.get("importance_sampling_ratio")
    if ratio is None:
        return weight
    return ratio[:, 0] if weight is None else weight * ratio[:, 0]


def _set_count(pieces, accelerator):
    count = accelerator.reduce(sum(piece["counted"].sum() for piece in pieces))
    for piece in pieces:
        piece["count"] = count
