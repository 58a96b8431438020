"""Supervised warm-up: a model learns from a task's demonstrations and becomes the base of reinforcement learning.

The model is a tiny one from scratch, or a pretrained one that scores too little for rewards to teach it. A
demonstration is a prompt x and a completion y. The loss is the cross-entropy of the completions' tokens, the
end-of-sequence token included and the prompts left out::

    L(θ) = − Σ_(x,y) Σ_t log π_θ(y_t | x, y_<t) / Σ_(x,y) |y|

with the prompts and log-probabilities of reinforcement learning (`pmdllm.rollout.encode`, `pmdllm.logp.token_logp`).
The sums run over the demonstrations of an update, in however many passes their gradient is accumulated. The learning
rate of AdamW rises linearly, then falls to 0 along a cosine.

Update i learns from demonstrations drawn by a generator seeded with (seed, i), so the outcome depends on the
configuration and the machine's arithmetic alone, not on who prepares the batches nor on where the warm-up was
interrupted: `pmdllm.run.folder` says what it leaves and how it goes on. The folder becomes that of the model, with its
tokenizer and a model card ``README.md``: the recipe, the versions and the accuracies on the test prompts.
"""

import functools
import importlib
import math
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import MISSING, asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from . import metrics, models, tasks
from .config import COUNT, COUNT_OR_0, RATE, SEED, THREADS, Config, check, must_be, option
from .evaluate import evaluate
from .logp import memory_for_passes, passes, token_logp
from .muon import Muon, matrices
from .rollout import Rollouts, encode, fitting, longest_sequence, padded
from .run.folder import RunFolder, write_atomically
from .run.signals import Interrupted, noted_signals

__all__ = ["Warmup", "WarmupConfig", "fit", "warmup"]

NETWORK = ("hidden_size", "layers", "heads", "max_length")  # options of a model from scratch alone
PRETRAINED = ("model", "trust_remote_code", "chat", "system_prompt")  # of a pretrained one alone
WITHOUT_EFFECT = ("output", "overwrite", "workers", "checkpoint_seconds")  # on the outcome
STATE = ("step", "tokens", "seconds", "before")
LICENCE = ("license", "license_name", "license_link", "base_model")  # what a model card says of what others may do


def _as_in_train(name, default=MISSING):
    """Declare an option as that of training with its name, perhaps with another default."""
    declared = Config.__dataclass_fields__[name]
    return field(default=declared.default if default is MISSING else default, metadata=declared.metadata)


@dataclass(frozen=True)
class WarmupConfig:
    """Everything that decides the outcome of a warm-up, and where it is written.

    Raises ``ValueError`` naming the field, its value and what is accepted; every option's meaning is in its help text.
    """

    output: str = option("runs/base", "folder of the model; a warm-up in it goes on")
    overwrite: bool = option(False, "start anew where the folder holds a warm-up already")
    seed: int = option(0, "seed of weights and demonstrations", **SEED)
    task: str = option("arithmetic", "task with demonstrations, e.g. arithmetic:terms=5")

    model: str | None = option(None, "pretrained model to start from, as in pmd-llm train. Default: one from scratch")
    trust_remote_code: bool = _as_in_train("trust_remote_code")
    chat: str = _as_in_train("chat")
    system_prompt: str | None = _as_in_train("system_prompt")
    hidden_size: int = option(64, "from scratch: width of the residual stream, a multiple of heads", **COUNT)
    layers: int = option(2, "from scratch: layers", **COUNT)
    heads: int = option(4, "from scratch: attention heads per layer", **COUNT)
    max_length: int = option(64, "from scratch: longest prompt and completion together, in tokens", **COUNT)

    optimizer: str = option("adamw", "adamw, or muon for the matrices inside the model", choices=("adamw", "muon"))
    steps: int = option(1000, "updates", **COUNT)
    batch: int = option(64, "demonstrations per update", **COUNT)
    micro_batch: int = option(0, "demonstrations per pass, gradients accumulate; 0: any number", **COUNT_OR_0)
    learning_rate: float = option(4e-3, "largest step size", **RATE)
    lr_warmup_steps: int = option(50, "updates over which the learning rate rises from 0", **COUNT_OR_0)
    adam_beta1: float = option(0.9, "AdamW's β₁", at_least=0, below=1)
    adam_beta2: float = option(0.98, "AdamW's β₂", at_least=0, below=1)
    weight_decay: float = option(0.01, "AdamW's weight decay", at_least=0, at_most=1e6)
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm", above=0, at_most=1e12)

    eval_prompts: int = option(1000, "test prompts of the model card", **COUNT)
    eval_samples: int = option(8, "completions k per prompt for avg@k, pass@k, maj@k", **COUNT)
    eval_batch: int = _as_in_train("eval_batch", 4096)

    device: str = _as_in_train("device")
    dtype: str = _as_in_train("dtype")
    threads: int = option(0, "CPU threads; 0: PyTorch's choice. Results depend on it", **THREADS)
    memory_gb: float = _as_in_train("memory_gb")
    workers: int = option(0, "processes that prepare demonstrations; 0: none but this", **THREADS)
    gradient_checkpointing: bool = _as_in_train("gradient_checkpointing")
    checkpoint_seconds: float = _as_in_train("checkpoint_seconds")

    def __post_init__(self):
        check(self)
        for name in NETWORK if self.model is not None else ():
            default = self.__dataclass_fields__[name].default
            reason = f"left out with model = {self.model!r}, which is what it is"
            must_be(self, name, reason, getattr(self, name) == default)
        same = self.model is not None and Path(self.model).resolve() == Path(self.output).resolve()
        must_be(self, "output", "another folder than that of model", not same)

    def recipe(self) -> Any:
        """Return, as YAML, the options that decide the outcome."""
        left_out = {*WITHOUT_EFFECT, *(NETWORK if self.model is not None else PRETRAINED)}
        options = {name: value for name, value in asdict(self).items() if name not in left_out}
        return yaml.safe_dump(options, sort_keys=False, allow_unicode=True)

    to_yaml = Config.to_yaml


def warmup(config: WarmupConfig, progress: bool = True, task: Any = None) -> dict[str, Any]:
    """Train a model on demonstrations, going on from what is in its folder; measure it; write it with its model card.

    Parameters
    ----------
    config : WarmupConfig
        The configuration.
    progress : bool
        Show a progress bar with the loss and speed on standard error, where that is a terminal.
    task : pmdllm.tasks.Task, optional
        Instead of loading ``config.task``, which then only names it.

    Returns
    -------
    dict
        What ``result.json`` holds: accuracies on the test prompts, ``test/avg@k`` and so on, for a pretrained model
        also ``before/avg@k``; ``steps``, the ``tokens`` learned from, and ``seconds`` of training.

    Raises
    ------
    ValueError
        The folder cannot be written or holds something else, or task, model and configuration do not go together.
    FloatingPointError
        The loss or its gradient is not finite.
    Interrupted
        SIGINT, SIGTERM or SIGHUP: after the first, the update is ended and a checkpoint written.
    """
    with RunFolder(config, model="config.json", kept=(1, 0)) as folder:
        if folder.result is not None:
            warnings.warn(f"{folder.path} holds this warm-up, finished: it is not made again.", stacklevel=2)
            return folder.result
        state = folder.load(models.device(config.device))
        run = Warmup(config, tasks.load(config.task) if task is None else task, state, progress)
        del state
        saved, saved_step = time.monotonic(), run.step
        try:
            with noted_signals("this update") as signals:
                run.evaluate_base()
                for line, seconds in run.updates(progress):
                    folder.append("metrics.jsonl", line)
                    folder.append("timings.jsonl", {"step": run.step, "seconds": seconds})
                    if signals or time.monotonic() - saved >= config.checkpoint_seconds or run.step == config.steps:
                        folder.save(run.state())
                        saved, saved_step = time.monotonic(), run.step
                    if signals and run.step < config.steps:
                        raise Interrupted(
                            f"interrupted after update {run.step} and saved in {folder.path}; the same command goes "
                            "on from here, at no cost", signals[0],
                        )  # fmt: skip
                result = run.measured()
                models.save(run.model, run.tokenizer, folder.path)
                write_atomically(folder.path / "README.md", _card(run, result))
                folder.finish(result)
        except KeyboardInterrupt as error:
            if isinstance(error, Interrupted):
                raise
            raise Interrupted(
                f"stopped at once; the same command goes on from update {saved_step} in {folder.path}, and "
                f"{run.step - saved_step} will be made again"
            ) from error
        return result


def fit(config: WarmupConfig, task: Any, progress: bool = False) -> tuple[Any, Any, list[float]]:
    """Train a model on the demonstrations of a task, without a folder and without measuring it.

    Returns the model, in evaluation mode; its tokenizer, from scratch one token per character; and the loss of each
    batch before its update, in nats per token. Raises as `warmup`.
    """
    run = Warmup(config, task)
    losses = [line["loss"] for line, _ in run.updates(progress)]
    return run.model, run.tokenizer, losses


class Warmup:
    """A warm-up: the model, and where the warm-up stands; begun anew or from the `state` of an earlier one."""

    def __init__(self, config: WarmupConfig, task: Any, state: Any = None, progress: bool = False):
        if config.threads:
            torch.set_num_threads(config.threads)
        if not hasattr(task, "demonstrations"):
            raise ValueError(f"task must have demonstrations, as {_demonstrating()} have, got {config.task!r}.")
        self.config, self.task, self.progress = config, task, progress
        device = models.device(config.device)
        if config.model is None:
            if not hasattr(task, "alphabet"):
                raise ValueError(
                    f"task must have an alphabet for a model from scratch, as 'arithmetic' has, got {config.task!r}: "
                    "give the model to start from."
                )
            self.tokenizer = models.character_tokenizer(task.alphabet)
            self.model = models.tiny(
                self.tokenizer, config.hidden_size, config.layers, config.heads, config.max_length, config.seed
            ).to(device)
        else:
            self.model, self.tokenizer = models.load(config.model, device, config.trust_remote_code)
            task.restrict(fitting(self.model, self.tokenizer, task.max_new_tokens, config.chat, config.system_prompt))
        if config.gradient_checkpointing:
            self.model.activation_checkpointing_enable()
        inside = matrices(self.model) if config.optimizer == "muon" else set()
        self.optimizer = Muon(
            self.model.named_parameters(), inside, lr=config.learning_rate, weight_decay=config.weight_decay,
            betas=(config.adam_beta1, config.adam_beta2), fused=True,
        )  # fmt: skip
        self.memory = memory_for_passes(self.model, config.memory_gb)
        self.step, self.tokens, self.seconds, self.before = 0, 0, 0.0, {}
        if state is not None:
            self.step, self.tokens, self.seconds, self.before = (state[name] for name in STATE)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        self.schedule = get_cosine_schedule_with_warmup(
            self.optimizer, config.lr_warmup_steps, config.steps, last_epoch=self.step - 1
        )

    def updates(self, progress: bool = False) -> Iterator[Any]:
        """Make the updates that are left; yield the line of each and its seconds."""
        config = self.config
        batches = DataLoader(
            range(self.step, config.steps), batch_size=None, num_workers=config.workers, generator=torch.Generator(),
            collate_fn=functools.partial(
                _demonstrations, config, self.task, self.tokenizer, longest_sequence(self.model)
            ),
        )
        with tqdm(batches, desc="warm-up", total=config.steps, initial=self.step, disable=not progress or None) as bar:
            start = time.monotonic()
            for batch in bar:
                line = self.update(Rollouts(*(tensor.to(self.model.device) for tensor in batch)))
                bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)
                seconds = time.monotonic() - start
                self.seconds += seconds
                yield line, seconds
                start = time.monotonic()

    def update(self, batch: Any) -> dict[str, Any]:
        """Make one update on the demonstrations of a batch; return its line."""
        config, count, loss = self.config, batch.mask.sum(), 0.0
        self.optimizer.zero_grad()
        self.model.train(config.gradient_checkpointing)  # Transformers recomputes in this mode only
        with self.arithmetic():
            cut = passes(self.model, batch, config.micro_batch, self.memory)
        for rows in cut:
            some = batch.rows(rows.to(self.model.device)).trimmed()
            with self.arithmetic():
                logp, _ = token_logp(self.model, some)
            share = -logp.sum() / count
            share.backward()
            loss += share.item()
        self.model.eval()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"diverged in update {self.step + 1}: loss or gradient is not finite. Try a smaller learning_rate (now "
                f"{config.learning_rate:g})."
            )
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self.tokens += int(count)
        return {"step": self.step, "tokens": self.tokens, "loss": loss, "grad_norm": norm, "learning_rate": rate}

    def evaluate_base(self) -> None:
        """Measure a pretrained model before its first update, once."""
        if self.config.model is not None and not self.before:
            self.before = self.evaluate()

    def measured(self) -> dict[str, Any]:
        """Measure the model; return the result of the warm-up."""
        after = self.evaluate()
        if text := metrics.complaint(**{name: after[name] for name in ("length", "truncated", "unparsed")}):
            warnings.warn(f"after the warm-up: {text}.", stacklevel=3)
        result = {"seed": self.config.seed, "steps": self.step, "tokens": self.tokens, "seconds": self.seconds}
        result |= {f"before/{name}": value for name, value in self.before.items()}
        return result | {f"test/{name}": value for name, value in after.items()}

    def evaluate(self) -> dict[str, Any]:
        """Evaluate on the test prompts, always with the same random numbers."""
        config, task = self.config, self.task
        self.optimizer.zero_grad()  # frees the gradients' memory
        with self.arithmetic():
            return evaluate(
                self.model, self.tokenizer, task, "test", config.eval_prompts, config.eval_samples, task.max_new_tokens,
                batch=config.eval_batch, chat=config.chat, system_prompt=config.system_prompt, stop=task.stop,
                progress=self.progress,
            )  # fmt: skip

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Context in which the model computes."""
        return models.arithmetic(self.model, self.config.dtype)

    def state(self) -> dict[str, Any]:
        """Return what `Warmup` goes on from: tensors and plain containers."""
        own = {name: getattr(self, name) for name in STATE}
        return own | {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


def _demonstrations(config, task, tokenizer, longest, step):
    """The batch of update `step` + 1 as the tensors of `pmdllm.rollout.Rollouts`."""
    prompts, completions = zip(*task.demonstrations(config.batch, np.random.default_rng((config.seed, step))))
    prompts = encode(tokenizer, prompts, config.chat, config.system_prompt)
    completions = tokenizer(list(completions), add_special_tokens=False).input_ids
    completions = [[*ids, tokenizer.eos_token_id] for ids in completions]
    needed = max(max(map(len, prompts)) + task.max_new_tokens, *(len(p) + len(c) for p, c in zip(prompts, completions)))
    if needed > longest:
        name = "max_length" if config.model is None else f"the longest sequence of model {config.model!r}"
        raise ValueError(
            f"{name} must be at least {needed}, the tokens of the longest prompt and completion of {task.spec}, "
            f"got {longest}."
        )
    pad = tokenizer.pad_token_id
    (prompt, prompt_mask), (tokens, mask) = padded(prompts, pad, "left"), padded(completions, pad, "right")
    return prompt, prompt_mask, tokens, mask, torch.zeros(mask.shape), mask.any(1)


def _demonstrating():
    """Names of the tasks that have demonstrations."""
    makers = ((name, getattr(importlib.import_module(f"{tasks.__name__}.{module}"), maker))
              for name, (module, maker) in tasks.TASKS.items())  # fmt: skip
    return ", ".join(repr(name) for name, maker in makers if hasattr(maker, "demonstrations"))


def _card(run, result):
    """Model card: what the model is, its accuracies with intervals, the recipe, and the versions it was made with."""
    config, k = run.config, run.config.eval_samples
    stages = {"before": "before/", "after": "test/"} if run.before else {"value": "test/"}
    rows = [["", *(title for stage in stages for title in (stage, "interval"))], ["---"] * (1 + 2 * len(stages))]
    for name in ("greedy", f"avg@{k}", f"pass@{k}", f"maj@{k}"):
        cells = ((f"{result[start + name]:.3f}", f"± {result[f'{start}{name}_ci']:.3f}") for start in stages.values())
        rows.append([name, *(text for pair in cells for text in pair)])
    problem = run.task.held_out("test", 1)[0]
    source = {"license": "mit"} if config.model is None else _licence(run.model.name_or_path)
    return CARD.format(
        front=yaml.safe_dump({"library_name": "transformers", "pipeline_tag": "text-generation"} | source),
        model=(SCRATCH if config.model is None else STARTED).format(
            parameters=f"{run.model.num_parameters():,}", model=config.model, steps=config.steps,
            licence=source.get("license", "that of the model it started from"),
        ),
        prompt=problem.prompt, answer=problem.answer, spec=config.task, k=k, prompts=config.eval_prompts,
        rows="\n".join(f"| {' | '.join(row)} |" for row in rows), recipe=config.recipe(),
        python=platform.python_version(), device=run.model.device.type, threads=torch.get_num_threads(),
        versions=", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy")),
    )  # fmt: skip


def _licence(source):
    """What the model card in a folder says of its licence; of a name on the hub, the name."""
    if not Path(source).is_dir():
        return {"base_model": source}
    try:
        front = yaml.safe_load((Path(source) / "README.md").read_text(encoding="utf-8").split("---\n")[1])
        return {name: front[name] for name in LICENCE if name in front}
    except Exception:  # there is no card, or it says nothing that can be read
        return {}


CARD = """\
---
{front}---

# A warm-started base for the task `{spec}`

{model}

A test prompt, with answer `{answer}`:

```text
{prompt}
```

## Accuracy before reinforcement learning

On {prompts} test prompts, none of them among the demonstrations; {k} completions per prompt sampled at temperature 1,
with 95% intervals over the prompts.

{rows}

## Recipe

`pmd-llm warmup --preset recipe.yaml` makes it again, where `recipe.yaml` holds:

```yaml
{recipe}```

Made with Python {python}, {versions}, on {device} (CPU threads: {threads}).
The same versions, kind of machine and number of threads give the same weights, bit for bit.
"""
SCRATCH = """\
A character-level GPT-2 with {parameters} parameters, trained from scratch to imitate the task's demonstrations. Where
they carry out *random* operations in turn, as in `arithmetic`, the model knows the notation and the arithmetic; which
operation comes next it was never taught, and that is what reinforcement learning has to add. It is good for nothing
else."""
STARTED = """\
The pretrained model `{model}` of {parameters} parameters after {steps} updates on the task's demonstrations: it knows
the form of their solutions, and reinforcement learning has to add what makes them right. Its licence: {licence}."""
