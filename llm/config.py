"""The configuration of a training run: one dataclass, from a YAML preset with command-line overrides.

`parse` reads any such dataclass by the conventions of Hugging Face's ``HfArgumentParser``: every field is an option of
the same name (``--learning_rate 3e-4`` or ``--learning-rate 3e-4``), its help text stands beside it, and a preset is a
YAML file of field names and values in ``configs/``, so configuration, command line and help are one.
"""

import argparse
import difflib
import warnings
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import yaml

from .losses import ALGORITHMS, LENGTH_NORMALIZATIONS

__all__ = ["Config", "from_preset", "parse", "presets"]

POSITIVE = (
    *("tau", "clip_low", "clip_high", "learning_rate", "prompts_per_batch", "rollouts_per_prompt", "updates_per_batch"),
    *("epochs", "iterations", "eval_prompts", "test_prompts", "eval_samples", "eval_temperature"),
)
CONFIGS = Path(__file__).parent / "configs"


def option(default, text):
    """Declare a field with its default and help text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Config:
    """Everything that decides the outcome of a training run, and where it is written.

    Raises ``ValueError`` naming the field, its value and what is accepted. Counts are of sequences (completions)
    unless the name says otherwise; every option's meaning, unit and default is in its help text.
    """

    output: str = option("runs/tiny-cpu", "folder of the run; an interrupted run in it is resumed")
    overwrite: bool = option(False, "start anew where the folder holds a run already")
    seed: int = option(0, "seed of prompts, rollouts and minibatches")

    task: str = option("arithmetic", "task, e.g. arithmetic:terms=5, gsm8k, reasoning_gym:chain_sum, file:data.jsonl")
    model: str = option("base", "'base' for the shipped model, a folder, or a model name on the Hugging Face hub")
    trust_remote_code: bool = option(False, "run code that comes with a hub model")
    chat: str = option("auto", "prompts in the model's chat template")
    system_prompt: str | None = option(None, "system")
    stop: str | None = option(None, "stop")
    reward: str | None = option(None, "reward")

    algorithm: str = option("pmd-mean", "a key of pmdllm.losses.ALGORITHMS")
    tau: float = option(0.1, "regularisation temperature τ > 0, in reward units")
    target_kl: float = option(0.0, "KL(p‖q) aimed at, by pmd-target's baseline or, in other regressions, by τ; 0: off")
    tau_factor: float = option(0.0, "τ is multiplied by this after every rollout batch; 0: off")
    clip_low: float = option(0.2, "ratios below 1 − clip_low are clipped (policy-gradient methods)")
    clip_high: float = option(0.2, "ratios above 1 + clip_high are clipped (policy-gradient methods)")
    length_normalization: str = option("auto", "none, seq-mean-token-mean, seq-mean-token-sum-norm, or auto")
    importance_weights: bool = option(False, "weight sequences by exp(r/τ)/Ẑ of their group")
    wrong_reward: float = option(0.0, "reward of a wrong completion; a right one has 1")

    prompts_per_batch: int = option(32, "prompts per rollout batch")
    rollouts_per_prompt: int = option(16, "completions n per prompt")
    max_new_tokens: int = option(0, "tokens after which a completion is truncated; 0: the task's own bound")
    rollout_lag: int = option(0, "train on rollouts of the policy this many batches old")
    updates_per_batch: int = option(8, "minibatches, and so updates, per rollout batch")
    epochs: int = option(1, "passes over each rollout batch")
    filter_low: float | None = option(None, "keep only groups with mean reward above this")
    filter_high: float | None = option(None, "keep only groups with mean reward below this")
    truncated: str = option("keep", "completions without end-of-sequence: keep, or drop from group and loss")

    learning_rate: float = option(5e-4, "step size of AdamW")
    lr_schedule: str = option("constant", "constant, linear or cosine decay to 0 over all updates")
    lr_warmup_updates: int = option(0, "updates over which the learning rate rises from 0")
    adam_beta1: float = option(0.9, "AdamW's β₁")
    adam_beta2: float = option(0.95, "AdamW's β₂")
    weight_decay: float = option(0.0, "AdamW's weight decay")
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm; 0: never")
    reset_optimizer_every: int = option(0, "forget AdamW's moments every so many iterations; 0: never")
    micro_batch: int = option(0, "sequences per forward pass, gradients accumulate; 0: the whole minibatch")

    iterations: int = option(60, "rollout batches to train on")
    eval_every: int = option(10, "iterations between evaluations on the validation prompts; 0: only at the end")
    eval_prompts: int = option(256, "validation prompts")
    test_prompts: int = option(1000, "test prompts, before and after training")
    eval_samples: int = option(8, "completions k per prompt for avg@k, pass@k, maj@k")
    eval_temperature: float = option(1.0, "sampling temperature of evaluations")
    eval_top_p: float = option(1.0, "nucleus of evaluations")
    eval_batch: int = option(0, "completions sampled at once in evaluations; 0: all")
    target_accuracy: float = option(0.0, "stop when the validation avg@k reaches this; 0: never")

    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...")
    dtype: str = option("auto", "arithmetic: float32 or bfloat16 (master weights stay float32); auto: by device")
    threads: int = option(0, "CPU threads; 0: PyTorch's choice. Results depend on it")
    gradient_checkpointing: bool = option(False, "recompute activations to save memory")
    checkpoint_seconds: float = option(30.0, "seconds between checkpoints")
    report_to: str = option("none", "also log to tensorboard, wandb, trackio (comma-separated)")

    def __post_init__(self):
        def require(name, valid, accepted):
            if not valid:
                raise ValueError(f"{name} must be {accepted}, got {getattr(self, name)!r}.")

        for declared in fields(self):
            value = getattr(self, declared.name)
            if declared.type is int:
                require(declared.name, isinstance(value, int) and value >= 0, "a nonnegative integer")
            if declared.type in (float, float | None) and value is not None:
                require(declared.name, isinstance(value, int | float) and abs(value) < float("inf"), "a finite number")
        for name in POSITIVE:
            require(name, getattr(self, name) > 0, "positive")
        require("algorithm", self.algorithm in ALGORITHMS, f"one of {', '.join(ALGORITHMS)}")
        names = ("auto", *LENGTH_NORMALIZATIONS)
        require("length_normalization", self.length_normalization in names, f"one of {', '.join(names)}")
        require("lr_schedule", self.lr_schedule in ("constant", "linear", "cosine"), "constant, linear or cosine")
        require("truncated", self.truncated in ("keep", "drop"), "keep or drop")
        require("dtype", self.dtype in ("auto", "float32", "bfloat16"), "auto, float32 or bfloat16")
        require("wrong_reward", self.wrong_reward < 1, "below 1, the reward of a right completion")
        require("clip_low", self.clip_low < 1, "below 1")
        require("eval_top_p", 0 < self.eval_top_p <= 1, "in (0, 1]")
        require("target_accuracy", 0 <= self.target_accuracy <= 1, "in [0, 1]")
        for name in ("adam_beta1", "adam_beta2"):
            require(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        require(
            "updates_per_batch", self.updates_per_batch <= self.prompts_per_batch,
            f"at most prompts_per_batch = {self.prompts_per_batch}, for a minibatch holds whole groups",
        )
        if None not in (self.filter_low, self.filter_high):
            require("filter_low", self.filter_low < self.filter_high, f"below filter_high = {self.filter_high}")
        method = ALGORITHMS[self.algorithm]
        require(
            "rollouts_per_prompt", self.rollouts_per_prompt > 1 or not method.baseline.leaves_one_out,
            f"at least 2 for {self.algorithm}, whose baseline leaves one rollout out",
        )
        require("target_kl", self.target_kl >= 0, "at least 0")
        if method.baseline.needs_target:
            require("target_kl", self.target_kl > 0, f"positive for {self.algorithm}, whose baseline aims at it")
        if not method.is_regression:
            for name in ("target_kl", "tau_factor"):
                require(name, getattr(self, name) == 0, f"0 for {self.algorithm}, which has no temperature")
        require("tau_factor", self.tau_factor >= 0, "at least 0")
        moves_tau = self.target_kl and not method.baseline.needs_target
        require("tau_factor", not (self.tau_factor and moves_tau), "0 where target_kl moves τ already")
        fresh = self.updates_per_batch * self.epochs == 1 and self.rollout_lag == 0
        require("target_kl", not (moves_tau and fresh), "0 with one update per rollout batch: λ is 0 before it")
        if self.tau_is_without_effect:
            warnings.warn(
                f"algorithm {self.algorithm!r} with one update per rollout batch: the log-ratio is 0 at it, and "
                "a mean baseline does not depend on τ, so tau has no effect. Raise updates_per_batch or epochs.",
                stacklevel=3,
            )

    @property
    def tau_is_without_effect(self):
        """Whether every gradient is REINFORCE with a mean baseline: log π = log π_old at the batch's one update."""
        method = ALGORITHMS[self.algorithm]
        once = self.updates_per_batch * self.epochs == 1 and self.rollout_lag == 0 and not self.importance_weights
        return once and method.is_regression and not method.baseline.uses_tau

    def to_yaml(self):
        """Return the configuration as the text of a preset."""
        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)


def presets(kind="train"):
    """Names of the presets of a command: the YAML files in ``configs/<kind>``."""
    return sorted(path.stem for path in (CONFIGS / kind).glob("*.yaml"))


def from_preset(cls, preset, kind="train", **changes):
    """Return the configuration `cls` of a preset, with `changes`.

    Parameters
    ----------
    cls : dataclass
        `Config`, or any dataclass of options.
    preset : str
        A name from `presets`, or the path of a YAML file.
    kind : str
        The folder of the preset, named after its command.
    **changes
        Fields that differ from the preset.

    Raises
    ------
    ValueError
        There is no such preset, or it names an unknown field.

    Examples
    --------
    >>> from_preset(Config, "tiny-cpu", seed=3).seed
    3
    """
    values = _read(cls, preset, kind) | changes
    _reject_unknown(values, cls, "changes")
    return cls(**values)


def parse(cls, arguments, kind="train", prog=None):
    """Return the configuration `cls` from command-line `arguments`: ``--preset NAME`` and one option per field.

    Parameters
    ----------
    cls : dataclass
        `Config`, or any dataclass of options.
    arguments : list of str
        Without the program's name.
    kind : str
        The folder of the presets, named after the command.
    prog : str, optional
        Program name of the help text.

    Raises
    ------
    ValueError
        As `from_preset`, an unknown option, and where `cls` refuses a value.
    SystemExit
        After printing help, or where the value of an option cannot be read.
    """
    from transformers import HfArgumentParser

    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--preset", default="tiny-cpu")
    preset = first.parse_known_args(arguments)[0].preset
    parser = HfArgumentParser(cls, prog=prog, allow_abbrev=False)
    parser.add_argument("--preset", default=preset, help=f"{', '.join(presets(kind))}, or the path of a YAML file")
    values = _read(cls, preset, kind)
    parser.set_defaults(**values)
    config, _, unknown = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no option{_hint(unknown[0].strip('-').replace('-', '_'), cls)}")
    return config


def _read(cls, preset, kind):
    path = Path(preset) if Path(preset).suffix in (".yaml", ".yml") else CONFIGS / kind / f"{preset}.yaml"
    if not path.is_file():
        names = ", ".join(presets(kind))
        raise ValueError(f"preset must be one of {names} or the path of a YAML file, got {preset!r}.")
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"preset {preset} must hold one 'name: value' per line, got {type(values).__name__}.")
    _reject_unknown(values, cls, f"preset {preset}")
    for declared in fields(cls):
        value = values.get(declared.name)
        if declared.type in (float, float | None) and isinstance(value, str):  # YAML takes 5e-4 for text, not 5.0e-4
            try:
                values[declared.name] = float(value)
            except ValueError:
                raise ValueError(f"preset {preset}: {declared.name} must be a number, got {value!r}.") from None
    return values


def _reject_unknown(values, cls, where):
    known = [declared.name for declared in fields(cls)]
    for name in values:
        if name not in known:
            raise ValueError(f"{where} sets {name!r}, which is no option{_hint(name, cls)}")


def _hint(name, cls):
    close = difflib.get_close_matches(name, [declared.name for declared in fields(cls)], 1)
    return f": is it {close[0]!r}?" if close else "; --help lists them."
