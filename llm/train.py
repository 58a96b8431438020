"""The lean loop: sample, judge, subtract a baseline, make many minibatch updates, evaluate, checkpoint.

One iteration, for prompts x and their groups of n completions y_i ~ π_old(·|x) with rewards r_i::

    A_i = r_i − b̂(r_1, ..., r_n)                    once per rollout batch, b̂ the baseline of the algorithm
    repeat over minibatches of whole groups:         the policy moves, π_old does not (off-policy)
        s_i = log π(y_i|x) − log π_old(y_i|x)
        θ ← AdamW step on the mean loss of (s_i, A_i)     e.g. PMD: (τ/2)(A_i/τ − s_i)²

The outcome is a function of the configuration, the number of CPU threads and the machine's arithmetic. A checkpoint
lies between two iterations and holds everything the rest of the run depends on, so that a run killed at any moment and
started again ends with the same bits. `pmdllm.run.folder` says what a run leaves.
"""

import contextlib
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from pmdtheory import knobs

from . import metrics, models, tasks
from .batch import Batch
from .evaluate import evaluate
from .logp import memory_for_passes
from .losses import Settings
from .rollout import fitting, sample
from .run.folder import RunFolder
from .run.signals import Interrupted, noted_signals
from .run.trackers import trackers

if TYPE_CHECKING:
    from .batch import Minibatch
    from .config import Config

__all__ = ["Diverged", "Interrupted", "Run", "train"]


class Diverged(RuntimeError):  # noqa: N818  what happened, not a fault of the program
    """A loss, a gradient or the policy is not finite; the message says where, what is kept and what may help."""


def train(
    config: "Config", progress: bool = True, task: Any = None, reward: Callable[..., Any] | None = None
) -> dict[str, Any]:
    """Train as `config` says, resuming what is in its folder, and return the result.

    Parameters
    ----------
    config : pmdllm.config.Config
        The configuration.
    progress : bool
        Show progress bars, of training with reward and speed, on standard error where that is a terminal.
    task : pmdllm.tasks.Task, optional
        Instead of loading ``config.task``, which then only names it.
    reward : callable, optional
        ``reward(completions, answers)``, two lists of text, returns as many numbers: instead of 1 for a right answer
        and ``config.wrong_reward`` for another. Accuracies are the task's own in any case.

    Returns
    -------
    dict
        What ``result.json`` holds.

    Raises
    ------
    ValueError
        The folder holds a run with another configuration, or task, model and configuration do not go together.
    Diverged
        Training has left what floating-point numbers can hold.
    Interrupted
        SIGINT, SIGTERM or SIGHUP: after the first, the iteration is ended and a checkpoint written.
    """
    with RunFolder(config) as folder:
        if folder.result is not None:
            return folder.result
        run, log = Run(config, folder, task, reward, progress), trackers(config)
        bar = tqdm(total=config.iterations, initial=run.iteration, desc=config.algorithm, disable=not progress or None)
        with bar, noted_signals("this iteration") as signals, run.explained():
            run.evaluate_base()
            while not run.finished and not signals:
                batch = run.next_batch()
                for minibatch in batch.minibatches(run.rng):
                    run.update(minibatch)
                line = run.close(batch)
                log(line)
                bar.set_postfix(reward=f"{line['reward']:.3f}")
                bar.update()
            run.save()
            if not run.finished:
                raise Interrupted(
                    f"interrupted after iteration {run.iteration} and saved in {folder.path}; the same command goes "
                    "on from here, at no cost", signals[0],
                )  # fmt: skip
            return run.finish()


class Run:
    """A training run: the model, the generators, and where the run stands; what its `RunFolder` holds is taken up."""

    def __init__(
        self,
        config: "Config",
        folder: RunFolder,
        task: Any = None,
        reward: Callable[..., Any] | None = None,
        progress: bool = False,
    ):
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config, self.folder, self.progress = config, folder, progress
        self.reward = tasks.own("reward", config.reward) if reward is None and config.reward else reward
        self.device = models.device(config.device)
        self.task = tasks.load(config.task) if task is None else task
        self.algorithm = config.method
        self.max_new_tokens = config.max_new_tokens or self.task.max_new_tokens
        self.model, self.tokenizer = models.load(config.model, self.device, config.trust_remote_code)
        self.prompting: dict[str, Any] = {"chat": config.chat, "system_prompt": config.system_prompt}
        self.task.restrict(fitting(self.model, self.tokenizer, self.max_new_tokens, **self.prompting))
        self.prompting["stop"] = (*self.task.stop, *filter(None, (config.stop or "").split("|")))
        if config.gradient_checkpointing:
            self.model.activation_checkpointing_enable()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.weight_decay, fused=models.is_large(self.model) or None,
        )
        self.memory = memory_for_passes(self.model, config.memory_gb)
        self.rng = np.random.default_rng(config.seed)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.iteration = self.updates = self.rollouts = self.tokens = 0
        self.seconds, self.reached, self.tau = 0.0, False, config.tau
        self.before: dict[str, Any] = {}
        self.queue, self.measured, self.complained = [], defaultdict(list), False
        self.resume()
        self.clock, self.saved, self.saved_iteration = _clocks(), time.monotonic(), self.iteration

    @property
    def finished(self) -> bool:
        """Whether no iteration is left, or the target accuracy was reached."""
        return self.reached or self.iteration >= self.config.iterations

    def evaluate_base(self) -> None:
        """Evaluate on the test and validation prompts before training, once."""
        if not self.before:
            self.before = self.evaluate("test", self.config.test_prompts)
            self.complain(**{name: self.before[name] for name in ("length", "truncated", "unparsed")})
            self.folder.append("metrics.jsonl", self.spent() | self.validation())
            self.clock = _clocks()

    def next_batch(self) -> Batch:
        """Return the batch to train on: drawn now, or the oldest of ``rollout_lag + 1``."""
        while len(self.queue) <= self.config.rollout_lag:
            self.queue.append(self.collect())
        return self.queue.pop(0)

    def collect(self) -> Batch:
        """Sample a rollout batch from the current policy and judge it."""
        config, start = self.config, time.monotonic()
        problems = self.task.sample(config.prompts_per_batch, self.rng)
        prompts, n = [problem.prompt for problem in problems], config.rollouts_per_prompt
        with self.arithmetic():
            rollouts = sample(
                self.model, self.tokenizer, prompts, n, self.max_new_tokens, self.generator, **self.prompting
            )
        completions = rollouts.texts(self.tokenizer)
        answers = [problem.answer for problem in problems for _ in range(n)]
        verdict = self.task.judge(completions, answers)
        rewards = np.where(verdict.correct, 1.0, config.wrong_reward)
        if self.reward is not None:
            rewards = np.asarray(self.reward(completions, answers), dtype=float)
            if rewards.shape != (len(completions),) or not np.isfinite(rewards).all():
                raise ValueError(f"reward must return {len(completions)} finite numbers, got {rewards!r:.80}.")
        batch = Batch.judged(
            config, self.algorithm, problems, rollouts, rewards, verdict.parsed, self.tau, self.updates
        )
        self.complain(**{name: batch.summary[name] for name in ("length", "truncated", "unparsed")})
        self.rollouts += len(rollouts)
        self.tokens += int(rollouts.mask.sum())
        batch.seconds = time.monotonic() - start
        return batch

    def update(self, minibatch: "Minibatch") -> None:
        """Make one update on a minibatch."""
        config = self.config
        chosen = None if config.length_normalization == "auto" else config.length_normalization
        settings = Settings(
            minibatch.tau, config.clip_low, config.clip_high, chosen, self.max_new_tokens, chi2_coef=config.chi2_coef
        )
        self.set_learning_rate(minibatch.number)
        self.optimizer.zero_grad()
        self.model.train(config.gradient_checkpointing)  # Transformers recomputes in this mode only, and caches in none
        values = minibatch.backward(
            self.model, self.algorithm, settings, self.arithmetic, config.micro_batch, self.memory
        )
        self.model.eval()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm or math.inf)
        if not (math.isfinite(values["loss"]) and torch.isfinite(norm)):
            raise FloatingPointError("loss or gradient is not finite")
        self.optimizer.step()
        values |= {"grad_norm": norm, "staleness": self.updates - minibatch.drawn_after}
        for name, value in values.items():
            self.measured[name].append(float(value))
        self.updates += 1

    def close(self, batch: Batch) -> dict[str, Any]:
        """End the iteration of a batch: log it, evaluate and checkpoint when due; return its line."""
        config = self.config
        self.optimizer.zero_grad()  # sampling needs the memory
        self.iteration += 1
        line = self.spent() | batch.summary
        line |= {name: float(np.mean(values)) for name, values in sorted(self.measured.items())}
        if config.tau_factor or config.target_kl:
            line["tau"] = batch.tau
            self.move_tau(batch.tau)
        self.measured.clear()
        seconds, cpu_seconds = (_clocks() - self.clock).tolist()
        last = self.iteration >= config.iterations
        if last or (config.eval_every and self.iteration % config.eval_every == 0):
            line |= self.validation()
            self.reached = 0 < config.target_accuracy <= line[f"validation/avg@{config.eval_samples}"]
        if config.reset_optimizer_every and self.iteration % config.reset_optimizer_every == 0:
            self.optimizer.state.clear()
        self.seconds += seconds
        self.folder.append("metrics.jsonl", line)
        self.folder.append("timings.jsonl", {
            "iteration": self.iteration, "seconds": seconds, "cpu_seconds": cpu_seconds,
            "generation_seconds": batch.seconds, "training_seconds": seconds - batch.seconds,
            "tokens_per_second": batch.summary["length"] * len(batch.rollouts) / seconds,
            "evaluation_seconds": float(_clocks()[0] - self.clock[0]) - seconds,
        })  # fmt: skip
        if time.monotonic() - self.saved >= config.checkpoint_seconds:
            self.save()
        self.clock = _clocks()
        return line

    def finish(self) -> dict[str, Any]:
        """Evaluate on the test prompts, write the model and, last, the result."""
        config = self.config
        after = self.evaluate("test", config.test_prompts)
        models.save(self.model, self.tokenizer, self.folder.path / "model")
        result = {"algorithm": config.algorithm, "seed": config.seed} | self.spent()
        result |= {"seconds": self.seconds, "reached": self.reached}
        result |= {f"before/{name}": value for name, value in self.before.items()}
        result |= {f"test/{name}": value for name, value in after.items()}
        self.folder.finish(result)
        return result

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Context in which the model computes."""
        return models.arithmetic(self.model, self.config.dtype)

    def evaluate(self, split: str, prompts: int) -> dict[str, Any]:
        """Evaluate on the first `prompts` prompts of `split`, always with the same random numbers."""
        config = self.config
        with self.arithmetic():
            return evaluate(
                self.model, self.tokenizer, self.task, split, prompts, config.eval_samples, self.max_new_tokens,
                seed=config.seed, temperature=config.eval_temperature, top_p=config.eval_top_p, batch=config.eval_batch,
                progress=self.progress, **self.prompting,
            )

    def validation(self) -> dict[str, Any]:
        """Evaluate on the validation prompts."""
        accuracies = self.evaluate("validation", self.config.eval_prompts)
        return {f"validation/{name}": value for name, value in accuracies.items()}

    def set_learning_rate(self, number: int) -> None:
        """Set the learning rate of minibatch `number` of this iteration: a function of its place in the run alone."""
        config, each = self.config, self.config.epochs * self.config.updates_per_batch
        place = self.iteration * each + number
        left = max(0.0, 1 - place / (config.iterations * each))
        decay = {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[config.lr_schedule]
        rise = min(1.0, (place + 1) / (config.lr_warmup_updates + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * decay * rise

    def move_tau(self, tau: float) -> None:
        """Move τ by its factor, or towards the target of λ, measured before the updates of the batch's last quarter."""
        if self.config.tau_factor:
            self.tau *= self.config.tau_factor
        elif not self.algorithm.baseline.needs_target and (measured := self.measured["lambda/mean"]):
            weight = float(np.mean(measured[-max(1, len(measured) // 4) :]))
            self.tau = float(knobs.next_tau(tau, weight, self.config.target_kl))

    def spent(self) -> dict[str, Any]:
        """The budget so far: iterations, updates, completions sampled for training, and their tokens."""
        return {name: getattr(self, name) for name in ("iteration", "updates", "rollouts", "tokens")}

    def complain(self, **shares: float) -> None:
        """Warn, once in a run, of completions that cannot be judged."""
        text = metrics.complaint(**shares)
        if text and not self.complained:
            self.complained = True
            warnings.warn(f"iteration {self.iteration}: {text}.", stacklevel=3)

    def save(self) -> None:
        """Write a checkpoint."""
        self.folder.save(
            {name: getattr(self, name) for name in STATE}
            | {
                "queue": [batch.state() for batch in self.queue],
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "rng": self.rng.bit_generator.state,
            }
        )
        self.saved, self.saved_iteration = time.monotonic(), self.iteration

    def resume(self) -> None:
        """Take up the newest checkpoint of the folder, if there is one."""
        state = self.folder.load(self.device)
        if state is not None:
            for name in STATE:
                setattr(self, name, state[name])
            self.queue = [Batch.from_state(batch) for batch in state["queue"]]
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"].cpu())
            self.rng.bit_generator.state = state["rng"]

    @contextlib.contextmanager
    def explained(self) -> Iterator[Any]:
        """Say what is kept when numbers overflow or a second signal ends the run at once."""
        try:
            yield
        except FloatingPointError as error:
            if not self.updates and not self.before:
                raise  # the model itself
            where = f"of iteration {self.saved_iteration} in {self.folder.path}" if self.saved_iteration else "none"
            raise Diverged(
                f"diverged in iteration {self.iteration + 1}, after {self.updates} updates: {error}. Last checkpoint: "
                f"{where}. Try a smaller learning_rate (now {self.config.learning_rate:g}) or a larger tau (now "
                f"{self.tau:g})."
            ) from error
        except KeyboardInterrupt as error:
            if isinstance(error, Interrupted):
                raise
            lost = self.iteration + 1 - self.saved_iteration
            raise Interrupted(
                f"stopped at once; the same command goes on from iteration {self.saved_iteration} in "
                f"{self.folder.path}, so {lost} iteration{'s' * (lost > 1)} will be made again"
            ) from error


STATE = ("iteration", "updates", "rollouts", "tokens", "seconds", "reached", "before", "tau", "complained")


def _clocks():
    """Wall clock, and the time that this process computed: what a shared processor takes is in the first alone."""
    return np.array([time.monotonic(), time.process_time()])
