"""Options: a dataclass, from a YAML preset with command-line overrides, checked field by field.

Every field is declared with `option`, which states its default, its bounds and its help text, and is an option of the
same name on the command line (``--learning_rate 3e-4`` or ``--learning-rate 3e-4``). A preset is a YAML file of field
names and values, in a folder beside this file for each command that has them. So declaration, check, command line,
preset and help are one; what is refused gets one sentence: the option, what it must be, and what it was.
"""

import argparse
import difflib
import hashlib
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

if TYPE_CHECKING:
    from ..losses import Algorithm

__all__ = ["Config", "Parser", "check", "from_preset", "must_be", "option", "parse", "preset_values", "presets"]

CONFIGS = Path(__file__).parent
KINDS = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
COUNT: dict[str, Any] = {"at_least": 1, "at_most": 10**6}
COUNT_OR_0: dict[str, Any] = {"at_least": 0, "at_most": 10**6}
SEED: dict[str, Any] = {"at_least": 0, "at_most": 2**32 - 1}
RATE: dict[str, Any] = {"above": 0, "at_most": 1e10}
TEMPERATURE: dict[str, Any] = {"at_least": 1e-6, "at_most": 1e6}
THREADS: dict[str, Any] = {"at_least": 0, "at_most": 1024}
DTYPES = ("auto", "float32", "bfloat16")
NORMS = ("auto", "none", "seq-mean-token-mean", "seq-mean-token-sum-norm")
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def option(
    default: Any,
    text: str,
    *,
    at_least: Any = None,
    above: Any = -math.inf,
    at_most: Any = None,
    below: Any = math.inf,
    choices: Sequence[str] = (),
) -> Any:
    """Declare a field of a dataclass of options, with its help `text`.

    A number lies in the interval of the bounds (`above` and `below` are not reached; by default any finite number), a
    text is one of the `choices`, where there are some.
    """
    closed = at_least is not None, at_most is not None
    interval = at_least if closed[0] else above, at_most if closed[1] else below, closed
    return field(default=default, metadata={"help": text, "choices": choices, "interval": interval})


def check(options: Any) -> None:
    """Check every field of a dataclass of options against its declaration; NumPy scalars become Python's.

    A value of the wrong type or out of bounds is a ``ValueError``, and so is a text that no file can hold (surrogates,
    NUL).
    """
    for declared in fields(options):
        value, choices, kind = getattr(options, declared.name), declared.metadata["choices"], _kind(declared)
        if hasattr(value, "item"):
            value = value.item()
            object.__setattr__(options, declared.name, value)
        if value is None and kind is not declared.type:
            continue
        valid, accepted = type(value) is kind or (kind is float and type(value) is int), KINDS[kind]
        if kind in (int, float):
            lower, upper, (left, right) = declared.metadata["interval"]
            accepted += f" in {'(['[left]}{lower}, {upper}{')]'[right]}"
            valid = valid and (lower < value < upper or (left and value == lower) or (right and value == upper))
        elif kind is str:
            accepted = f"one of {', '.join(choices)}" if choices else accepted
            valid = valid and "\0" not in value and value.encode(errors="replace").decode() == value
            valid = valid and (not choices or value in choices)
        must_be(options, declared.name, accepted, valid)


def must_be(options: Any, name: str, accepted: str, valid: bool) -> None:
    """Raise the ``ValueError`` of an option unless it is `valid`."""
    if not valid:
        raise ValueError(f"{name} must be {accepted}, got {getattr(options, name)!r}.")


@dataclass(frozen=True)
class Config:
    """Everything that decides the outcome of a training run, and where it is written.

    Raises ``ValueError`` naming the field, its value and what is accepted. Counts are of sequences (completions)
    unless the name says otherwise; every option's meaning, unit and default is in its help text.

    Examples
    --------
    >>> Config(task="gsm8k", seed=1).output
    'runs/gsm8k-base-pmd-mean-s1'
    """

    output: str | None = option(None, "folder; a run in it goes on. Default: runs/TASK-MODEL-ALGORITHM-sSEED")
    overwrite: bool = option(False, "start anew where the folder holds a run already")
    seed: int = option(0, "seed of prompts, rollouts and minibatches", **SEED)

    task: str = option("arithmetic", "task, e.g. arithmetic:terms=5, gsm8k, reasoning_gym:chain_sum, file:data.jsonl")
    model: str = option("base", "'base' for the shipped model, a folder, what pmd-llm fetch got, or a name on the hub")
    trust_remote_code: bool = option(False, "run code that comes with a hub model")
    chat: str = option("auto", "use the model's chat template; auto: where it has one", choices=("auto", "on", "off"))
    system_prompt: str | None = option(None, "what the chat template is told before the prompt")
    stop: str | None = option(None, "texts at which a completion ends, separated by |, besides the task's")

    algorithm: str = option("pmd-mean", "pmd-mean, grpo, ...; or pmd:NAME with a name of pmdtheory.baselines.BASELINES")
    tau: float = option(0.1, "regularisation temperature τ, in reward units", **TEMPERATURE)
    target_kl: float = option(0.0, "KL(p‖q) aimed at, by pmd-target or by τ; 0: off", at_least=0, at_most=1e3)
    tau_factor: float = option(0.0, "τ is multiplied by this after every batch; 0: off", at_least=0, at_most=10)
    baseline_tau: float = option(0.0, "β₁ of a log-partition baseline; 0: τ", at_least=0, at_most=1e6)
    chi2_coef: float = option(0.0, "κ of fixed-chi2, in reward units", at_least=0, at_most=1e6)
    clip_low: float = option(0.2, "ratios below 1 − clip_low are clipped (policy-gradient methods)", above=0, below=1)
    clip_high: float = option(0.2, "ratios above 1 + clip_high are clipped (the same)", above=0, at_most=1e6)
    length_normalization: str = option("auto", "divisor of a completion's loss; auto: the algorithm's", choices=NORMS)
    importance_weights: bool = option(False, "weight sequences by exp(r/τ)/Ẑ of their group")
    wrong_reward: float = option(0.0, "reward of a wrong completion; a right one has 1", at_least=-1e6, below=1)
    reward: str | None = option(None, "own reward function, module:function or file.py:function")

    prompts_per_batch: int = option(32, "prompts per rollout batch", **COUNT)
    rollouts_per_prompt: int = option(16, "completions n per prompt", **COUNT)
    max_new_tokens: int = option(0, "tokens at which a completion is truncated; 0: the task's bound", **COUNT_OR_0)
    rollout_lag: int = option(0, "train on rollouts of the policy this many batches old", at_least=0, at_most=1000)
    updates_per_batch: int = option(8, "minibatches, and so updates, per rollout batch", **COUNT)
    epochs: int = option(1, "passes over each rollout batch", **COUNT)
    filter_low: float | None = option(None, "keep only groups with mean reward above this", at_least=-1e6, at_most=1e6)
    filter_high: float | None = option(None, "keep only groups with mean reward below this", at_least=-1e6, at_most=1e6)
    truncated: str = option("keep", "completions that did not end: keep, or drop", choices=("keep", "drop"))

    learning_rate: float = option(5e-4, "step size of AdamW", **RATE)
    lr_schedule: str = option("constant", "decay over all updates", choices=("constant", "linear", "cosine"))
    lr_warmup_updates: int = option(0, "updates over which the learning rate rises from 0", **COUNT_OR_0)
    adam_beta1: float = option(0.9, "AdamW's β₁", at_least=0, below=1)
    adam_beta2: float = option(0.95, "AdamW's β₂", at_least=0, below=1)
    weight_decay: float = option(0.0, "AdamW's weight decay", at_least=0, at_most=1e6)
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm; 0: never", at_least=0, at_most=1e12)
    reset_optimizer_every: int = option(0, "forget AdamW's moments every so many iterations; 0: never", **COUNT_OR_0)
    micro_batch: int = option(0, "sequences per pass, gradients accumulate; 0: the whole minibatch", **COUNT_OR_0)

    iterations: int = option(60, "rollout batches to train on", **COUNT)
    eval_every: int = option(10, "iterations between evaluations on validation; 0: only at the end", **COUNT_OR_0)
    eval_prompts: int = option(256, "validation prompts", **COUNT)
    test_prompts: int = option(1000, "test prompts, before and after training", **COUNT)
    eval_samples: int = option(8, "completions k per prompt for avg@k, pass@k, maj@k", **COUNT)
    eval_temperature: float = option(1.0, "sampling temperature of evaluations", **TEMPERATURE)
    eval_top_p: float = option(1.0, "nucleus of evaluations", above=0, at_most=1)
    eval_batch: int = option(0, "completions sampled at once in evaluations; 0: all", **COUNT_OR_0)
    target_accuracy: float = option(0.0, "stop when validation avg@k reaches this; 0: never", at_least=0, at_most=1)

    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...")
    dtype: str = option("auto", "of arithmetic; auto: by device. Weights stay float32", choices=DTYPES)
    threads: int = option(0, "CPU threads; 0: PyTorch's choice. Results depend on it", **THREADS)
    memory_gb: float = option(0.0, "that a large model's updates may take; 0: by machine", at_least=0, at_most=1e6)
    gradient_checkpointing: bool = option(False, "recompute activations to save memory")
    checkpoint_seconds: float = option(30.0, "seconds between checkpoints", at_least=0, at_most=1e12)
    report_to: str = option("none", "also log to tensorboard, wandb, trackio (comma-separated)")

    def __post_init__(self):
        check(self)
        if not self.output:
            names = "-".join(file_name(text) for text in (self.task, self.model, self.algorithm))
            object.__setattr__(self, "output", f"runs/{names}-s{self.seed}")
        n, prompts, baseline = self.rollouts_per_prompt, self.prompts_per_batch, self.method.baseline
        moves_tau = self.target_kl > 0 and not baseline.needs_target
        reason = "its baseline leaves one rollout out" if baseline.leaves_one_out else "a single one has advantage 0"
        whole_groups = f"at most prompts_per_batch = {prompts}, for a minibatch holds whole groups"
        must_be(self, "updates_per_batch", whole_groups, self.updates_per_batch <= prompts)
        must_be(self, "rollouts_per_prompt", f"at least 2 for {self.algorithm}: {reason}", n > 1)
        most = 10**7 // prompts
        must_be(self, "rollouts_per_prompt", f"at most {most} with prompts_per_batch = {prompts}", n <= most)
        if None not in (self.filter_low, self.filter_high):
            must_be(self, "filter_low", f"below filter_high = {self.filter_high}", self.filter_low < self.filter_high)
        if baseline.needs_target:
            must_be(self, "target_kl", f"positive for {self.algorithm}, whose baseline aims at it", self.target_kl > 0)
        must_be(self, "baseline_tau", f"0 for {self.algorithm}, whose baseline has none",
                self.baseline_tau == 0 or baseline.uses_tau)  # fmt: skip
        needed = self.method.needs_chi2
        sign, whether = ("positive", "a") if needed else ("0", "no")
        reason = f"{sign} for {self.algorithm}, which has {whether} χ² penalty of its own"
        must_be(self, "chi2_coef", reason, (self.chi2_coef > 0) == needed)
        for name in () if self.method.has_temperature else ("target_kl", "tau_factor"):
            must_be(self, name, f"0 for {self.algorithm}, which has no temperature", getattr(self, name) == 0)
        must_be(self, "tau_factor", "0 where target_kl moves τ already", not (self.tau_factor and moves_tau))
        reason = "0 with one update per rollout batch: λ is 0 before it"
        must_be(self, "target_kl", reason, not (moves_tau and self._updates_once))
        if self.tau_is_without_effect:
            warnings.warn(
                f"algorithm {self.algorithm!r} with one update per rollout batch: the log-ratio is 0 at it, and "
                "a mean baseline does not depend on τ, so tau has no effect. Raise updates_per_batch or epochs.",
                stacklevel=3,
            )

    @property
    def method(self) -> "Algorithm":
        """The `pmdllm.losses.Algorithm`."""
        from ..losses import algorithm

        return algorithm(self.algorithm)

    @property
    def tau_is_without_effect(self) -> bool:
        """Whether every gradient is REINFORCE with a mean baseline: log π = log π_old at the batch's one update."""
        uses_tau = self.importance_weights or self.method.advantage_uses_tau
        return self._updates_once and self.method.has_temperature and not uses_tau

    @property
    def _updates_once(self):
        return self.updates_per_batch * self.epochs == 1 and self.rollout_lag == 0

    def to_yaml(self) -> str:
        """Return the configuration as the text of a preset."""
        import yaml

        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)


def presets(kind: str = "train") -> list[str]:
    """Names of the presets of a command: the YAML files in the folder of its name."""
    return sorted(path.stem for path in (CONFIGS / kind).glob("*.yaml"))


def from_preset(cls: type[Any], preset: str, kind: str = "train", **changes: Any) -> Any:
    """Return the options `cls` of a preset, with `changes`.

    A preset that is not there or cannot be read, and an unknown field, is a ``ValueError``.

    Examples
    --------
    >>> from_preset(Config, "tiny-cpu", seed=3).seed
    3
    """
    _refuse_unknown(cls, changes, "changes")
    return cls(**_read(cls, preset, kind) | changes)


class Parser(argparse.ArgumentParser):
    """A parser of command lines that raises ``ValueError`` with one sentence, instead of printing its usage."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # argparse's own takes -1e-3 for an option

    def error(self, message: str) -> NoReturn:
        """Raise it."""
        raise ValueError(f"{message} (see {self.prog} --help).")


def parse(
    cls: type[Any],
    arguments: list[str],
    kind: str | None = "train",
    prog: str | None = None,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> Any:
    """Return the options `cls` from command-line `arguments`: ``--preset NAME`` and one option per field.

    Without a `kind` there are no presets. The options of the parsers `parents` are only explained here; whoever calls
    takes them out of the `arguments`. The default preset is tiny-cpu; its task and learning rate are not taken
    over for another model than its own.

    Raises
    ------
    ValueError
        As `from_preset`; an unknown option; where `cls` refuses a value; another model without task and learning rate.
    SystemExit
        After printing help, in which `prog` is the program's name.
    """
    first = Parser(prog=prog, add_help=False)
    if kind:
        first.add_argument("--preset", help=f"{', '.join(presets(kind))}, or a YAML file (default: tiny-cpu)")
    preset = vars(first.parse_known_args(arguments)[0]).get("preset")
    usual = {declared.name: declared.default for declared in fields(cls)}
    usual |= _read(cls, preset or "tiny-cpu", kind) if kind else {}
    parser = Parser(prog=prog, parents=[first, *parents], argument_default=argparse.SUPPRESS)
    for declared in fields(cls):
        spellings = dict.fromkeys((f"--{declared.name}", f"--{declared.name.replace('_', '-')}"))
        flag: dict[str, Any] = {"nargs": "?", "const": True} if declared.type is bool else {}
        text = f"{declared.metadata['help']} (default: {usual[declared.name]})".replace("%", "%%")
        values = "|".join(declared.metadata["choices"] or (_kind(declared).__name__.upper(),))
        parser.add_argument(*spellings, **flag, help=text, metavar=values)
    typed, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no option{_hint(cls, unknown[0].strip('-').replace('-', '_'))}")
    names = {declared.name for declared in fields(cls)}
    typed = _numbers(cls, {name: value for name, value in vars(typed).items() if name in names})
    own = [name for name in ("task", "learning_rate") if name in usual and name not in typed]
    if kind and not preset and own and typed.get("model", usual.get("model")) != usual.get("model"):
        fitting = typed["model"] if typed["model"] in presets(kind) else "pretrained"
        raise ValueError(
            f"model {typed['model']!r} needs its own {' and '.join(own)}: preset tiny-cpu has those of its model "
            f"{usual['model']!r} ({', '.join(str(usual[name]) for name in own)}). Give {' and '.join(own)}, or "
            f"--preset {fitting} for a pretrained model, or --preset tiny-cpu for a base that pmd-llm warmup made."
        )
    return cls(**usual | typed)


def preset_values(preset: str, kind: str = "train") -> dict[str, Any]:
    """Names and values in a preset as they stand there; ``ValueError`` if it is not there or cannot be read."""
    import yaml

    path = Path(preset) if Path(preset).suffix in (".yaml", ".yml") else CONFIGS / kind / f"{preset}.yaml"
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        names = ", ".join(presets(kind))
        raise ValueError(f"preset must be one of {names} or the path of a YAML file, got {str(preset)!r}.") from None
    except Exception as error:  # whatever a file that is no YAML makes of its reader
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"preset {str(preset)!r} cannot be read: {reason}.") from None
    read = {} if read is None else read
    if not isinstance(read, dict):
        raise ValueError(f"preset {preset} must hold one 'name: value' per line, got {type(read).__name__}.")
    return read


def _read(cls, preset, kind):
    """Values of a preset for the options `cls`."""
    read = preset_values(preset, kind)
    _refuse_unknown(cls, read, f"preset {preset}")
    return _numbers(cls, read)


def _numbers(cls, values):
    """Turn texts into what their options hold, where that can be read; `check` says what is wrong with the others."""
    kinds = {declared.name: _kind(declared) for declared in fields(cls)}
    return {name: _number(kinds[name], value) if isinstance(value, str) else value for name, value in values.items()}


def _number(kind, text):
    try:
        return WORDS.get(text.lower(), text) if kind is bool else kind(text)  # YAML takes 5e-4 for text, not 5.0e-4
    except ValueError:
        return text


def _kind(declared):
    """Type of a field that may also be None."""
    return (*get_args(declared.type), declared.type)[0]


def file_name(text, longest=48):
    """Turn a task or a model into part of a file name: readable, and different for different long texts."""
    name = re.sub(r"[^\w.+=-]+", "_", text, flags=re.ASCII).strip("_.-") or "_"
    return name if len(name) <= longest else f"{name[:longest]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _refuse_unknown(cls, values, where):
    names = {declared.name for declared in fields(cls)}
    for name in values:
        if name not in names:
            raise ValueError(f"{where} sets {name!r}, which is no option{_hint(cls, str(name))}")


def _hint(cls, name):
    close = difflib.get_close_matches(name, [declared.name for declared in fields(cls)], 1)
    return f": is it {close[0]!r}?" if close else "; --help lists them."
