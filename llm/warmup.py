"""Supervised warm-up: a tiny model learns from a task's demonstrations and becomes the base of reinforcement learning.

A demonstration is a prompt x and a completion y. The loss is the cross-entropy of the completions' tokens, the
end-of-sequence token included and the prompts left out::

    L(θ) = − Σ_(x,y) Σ_t log π_θ(y_t | x, y_<t) / Σ_(x,y) |y|

with the same log-probabilities that reinforcement learning compares (`pmdllm.rollout.token_logp`). The learning rate
of AdamW rises linearly, then falls to 0 along a cosine. Batch number i is drawn by a generator seeded with (seed, i),
so the outcome depends on the configuration and the machine's arithmetic alone, not on who prepares the batches. A
progress bar shows loss and speed.

The folder that `warmup` writes holds the model, its tokenizer, and a model card ``README.md`` with the recipe, the
versions and the accuracies on the test prompts.
"""

import functools
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from . import models, tasks
from .config import COUNT, COUNT_OR_0, RATE, SEED, THREADS, check, option
from .evaluate import evaluate
from .rollout import Rollouts, token_logp
from .run_folder import check_output, write_atomically

__all__ = ["WarmupConfig", "fit", "warmup"]


@dataclass(frozen=True)
class WarmupConfig:
    """Everything that decides the outcome of a warm-up, and where it is written.

    Raises ``ValueError`` naming the field, its value and what is accepted; every option's meaning is in its help text.
    """

    output: str = option("runs/base", "folder of the model; files of the same names in it are replaced")
    seed: int = option(0, "seed of weights and demonstrations", **SEED)
    task: str = option("arithmetic", "task with demonstrations, e.g. arithmetic:terms=5")

    hidden_size: int = option(64, "width of the residual stream, a multiple of heads", **COUNT)
    layers: int = option(2, "layers", **COUNT)
    heads: int = option(4, "attention heads per layer", **COUNT)
    max_length: int = option(64, "longest prompt and completion together, in tokens", **COUNT)

    steps: int = option(1000, "updates", **COUNT)
    batch: int = option(64, "demonstrations per update", **COUNT)
    learning_rate: float = option(4e-3, "largest step size of AdamW", **RATE)
    lr_warmup_steps: int = option(50, "updates over which the learning rate rises from 0", **COUNT_OR_0)
    adam_beta1: float = option(0.9, "AdamW's β₁", at_least=0, below=1)
    adam_beta2: float = option(0.98, "AdamW's β₂", at_least=0, below=1)
    weight_decay: float = option(0.01, "AdamW's weight decay", at_least=0, at_most=1e6)
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm", above=0, at_most=1e12)

    eval_prompts: int = option(1000, "test prompts of the model card", **COUNT)
    eval_samples: int = option(8, "completions k per prompt for avg@k, pass@k, maj@k", **COUNT)

    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...; bfloat16 arithmetic on GPU, float32 on CPU")
    threads: int = option(0, "CPU threads; 0: PyTorch's choice. Results depend on it", **THREADS)
    workers: int = option(0, "processes that prepare demonstrations; 0: none but this", **THREADS)

    def __post_init__(self):
        check(self)

    def recipe(self):
        """Return, as YAML, the options that decide the outcome."""
        options = {name: value for name, value in asdict(self).items() if name not in ("output", "workers")}
        return yaml.safe_dump(options, sort_keys=False)


def warmup(config, progress=True):
    """Train a model from scratch on demonstrations, measure it, write it with its model card; return its folder.

    A ``ValueError`` says that the output cannot be written, the task has no demonstrations, or they are longer than
    ``max_length``.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    check_output(config.output)
    task = tasks.load(config.task)
    if not hasattr(task, "demonstrations"):
        raise ValueError(f"task must have demonstrations, as 'arithmetic' has, got {config.task!r}.")
    model, tokenizer, _ = fit(config, task, progress)
    with models.arithmetic(model):
        accuracies = evaluate(
            model, tokenizer, task, "test", config.eval_prompts, config.eval_samples, task.max_new_tokens, batch=4096
        )
    folder = Path(config.output)
    models.save(model, tokenizer, folder)
    write_atomically(folder / "README.md", _card(config, task, model, accuracies))
    return folder


def fit(config, task, progress=False):
    """Train a model from scratch on the demonstrations of a task with ``alphabet`` and ``demonstrations``.

    Returns the model, in evaluation mode; its tokenizer, one token per character; and the loss of each batch before its
    update, in nats per token. A demonstration longer than ``max_length`` is a ``ValueError``.
    """
    tokenizer = models.character_tokenizer(task.alphabet)
    model = models.tiny(
        tokenizer, config.hidden_size, config.layers, config.heads, config.max_length, config.seed
    ).to(models.device(config.device))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.weight_decay, fused=True,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, config.lr_warmup_steps, config.steps)
    batches = DataLoader(
        range(config.steps), batch_size=None, collate_fn=functools.partial(_demonstrations, config, task, tokenizer),
        num_workers=config.workers, generator=torch.Generator(),
    )
    losses = []
    with tqdm(batches, desc="warm-up", disable=not progress) as bar:
        for step, batch in enumerate(bar):
            batch = Rollouts(*(tensor.to(model.device) for tensor in batch))
            with models.arithmetic(model):
                logp, _ = token_logp(model, batch)
            loss = -logp.sum() / batch.mask.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            if step % 50 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
    return model, tokenizer, torch.stack(losses).tolist()


def _demonstrations(config, task, tokenizer, step):
    """Batch number `step` as the tensors of `pmdllm.rollout.Rollouts`."""
    prompts, completions = zip(*task.demonstrations(config.batch, np.random.default_rng((config.seed, step))))
    prompt = tokenizer(list(prompts), padding=True, return_tensors="pt")
    ended = [completion + tokenizer.eos_token for completion in completions]
    completion = tokenizer(ended, padding=True, padding_side="right", return_tensors="pt")
    needed = prompt.input_ids.shape[1] + task.max_new_tokens
    if needed > config.max_length:
        raise ValueError(
            f"max_length must be at least {needed}, the tokens of the longest prompt and completion of {task.spec}, "
            f"got {config.max_length}."
        )
    mask = completion.attention_mask.bool()
    logp, ended = torch.zeros(mask.shape), mask.any(1)
    return prompt.input_ids, prompt.attention_mask.bool(), completion.input_ids, mask, logp, ended


def _card(config, task, model, accuracies):
    """Model card: what the model is, its accuracies with intervals, the recipe, and the versions it was made with."""
    k = config.eval_samples
    rows = [f"| {name} | {accuracies[name]:.3f} | ± {accuracies[f'{name}_ci']:.3f} |"
            for name in ("greedy", f"avg@{k}", f"pass@{k}", f"maj@{k}")]  # fmt: skip
    problem = task.held_out("test", 1)[0]
    return CARD.format(
        prompt=problem.prompt, answer=problem.answer, spec=config.task, rows="\n".join(rows), k=k,
        parameters=f"{model.num_parameters():,}", prompts=config.eval_prompts, recipe=config.recipe(),
        python=platform.python_version(), device=model.device.type, threads=torch.get_num_threads(),
        versions=", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy")),
    )


CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
license: mit
---

# A warm-started base for the task `{spec}`

A character-level GPT-2 with {parameters} parameters, trained from scratch to imitate demonstrations that carry out
*random* operations in turn. It knows the notation and the arithmetic; which operation comes next it was never taught,
and that is what reinforcement learning has to add. It is good for nothing else.

A test prompt: `{prompt}`, with answer `{answer}`.

## Accuracy before reinforcement learning

On {prompts} test prompts, none of them among the demonstrations; {k} completions per prompt sampled at temperature 1,
with 95% intervals over the prompts.

| | value | interval |
|---|---|---|
{rows}

## Recipe

`pmd-llm warmup --preset recipe.yaml` makes it again, where `recipe.yaml` holds:

```yaml
{recipe}```

Made with Python {python}, {versions}, on {device} (CPU threads: {threads}).
The same versions, kind of machine and number of threads give the same weights, bit for bit.
"""
