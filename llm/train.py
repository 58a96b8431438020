"""The lean loop: sample, judge, subtract a baseline, make many minibatch updates, evaluate, checkpoint.

One iteration, for prompts x and their groups of n completions y_i ~ π_old(·|x) with rewards r_i::

    A_i = r_i − b̂(r_1, ..., r_n)                    once per rollout batch, b̂ the estimator of the algorithm
    repeat over minibatches of whole groups:         the policy moves, π_old does not (off-policy)
        s_i = log π(y_i|x) − log π_old(y_i|x)
        θ ← AdamW step on the mean loss of (s_i, A_i)     e.g. PMD: (τ/2)(A_i/τ − s_i)²

The outcome is a function of the configuration, the number of CPU threads and the machine's arithmetic. A checkpoint
holds everything the rest of the run depends on, the rollouts and the position among their minibatches included, so
that a run killed at any moment and started again ends with the same bits. `pmdllm.run_folder` says what a run leaves.
"""

import math
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
from tqdm.auto import tqdm

from pmdtheory import baselines, knobs

from . import metrics, models, tasks
from .advantages import importance_weights
from .evaluate import evaluate
from .losses import ALGORITHMS, Settings
from .rollout import Rollouts, sample, token_logp
from .run_folder import RunFolder
from .trackers import trackers

__all__ = ["Run", "train"]


def train(config, progress=True):
    """Train as `config` says, resuming what is in its folder, and return the result.

    Parameters
    ----------
    config : pmdllm.config.Config
        The configuration.
    progress : bool
        Show a progress bar with reward and speed.

    Returns
    -------
    dict
        What ``result.json`` holds.

    Raises
    ------
    ValueError
        The folder holds a run with another configuration.
    """
    with RunFolder(config) as folder:
        if folder.result is not None:
            return folder.result
        run = Run(config, folder)
        run.resume()
        log = trackers(config)
        with tqdm(total=config.iterations, initial=run.iteration, desc=config.algorithm, disable=not progress) as bar:
            while not run.finished:
                if not run.pending:
                    run.begin_iteration()
                run.update()
                if not run.pending:
                    line = run.end_iteration()
                    log(line)
                    bar.set_postfix(run.headline(line))
                    bar.update()
                run.save_if_due()
        return run.finish()


class Run:
    """A training run: the model, the generators, the rollouts, and where the run stands.

    Parameters
    ----------
    config : pmdllm.config.Config
        The configuration.
    folder : pmdllm.run_folder.RunFolder
        Its folder.
    """

    def __init__(self, config, folder):
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config, self.folder = config, folder
        self.device = models.device(config.device)
        self.task, self.method = tasks.load(config.task), ALGORITHMS[config.algorithm]
        self.max_new_tokens = config.max_new_tokens or self.task.max_new_tokens
        self.model, self.tokenizer = models.load(config.model, self.device, config.trust_remote_code)
        if config.gradient_checkpointing:
            self.model.activation_checkpointing_enable()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.weight_decay,
        )
        self.settings = Settings(
            config.tau, config.clip_low, config.clip_high, max_length=self.max_new_tokens,
            length_normalization=None if config.length_normalization == "auto" else config.length_normalization,
        )
        self.rng = np.random.default_rng(config.seed)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.iteration = self.updates = self.rollouts = self.tokens = 0
        self.seconds, self.reached, self.before, self.tau = 0.0, False, None, config.tau
        self.queue, self.pending, self.sums = [], [], defaultdict(list)
        self.clock, self.saved = _clocks(), time.monotonic()

    @property
    def finished(self):
        """Whether no iteration is left, or the target accuracy was reached."""
        return not self.pending and (self.reached or self.iteration >= self.config.iterations)

    def begin_iteration(self):
        """Draw the next rollout batch and put its minibatches, whole groups in random order, into `pending`."""
        if self.iteration == 0 and self.before is None:
            self.before = self.evaluate("test", self.config.test_prompts)
            self.folder.append("metrics.jsonl", self.spent() | self.validation())
            self.clock = _clocks()
        while len(self.queue) <= self.config.rollout_lag:
            self.queue.append(self.collect())
        for _ in range(self.config.epochs):
            order = self.rng.permutation(self.queue[0]["groups"])
            parts = np.array_split(order, self.config.updates_per_batch)
            self.pending += [part.tolist() for part in parts if len(part)]

    def collect(self):
        """Sample a rollout batch from the current policy and judge it."""
        config, start = self.config, time.monotonic()
        problems = self.task.sample(config.prompts_per_batch, self.rng)
        n = config.rollouts_per_prompt
        with self.arithmetic():
            rollouts = sample(
                self.model, self.tokenizer, [problem.prompt for problem in problems], n, self.max_new_tokens,
                self.generator,
            )
        answers = [problem.answer for problem in problems for _ in range(n)]
        verdict = self.task.judge(rollouts.texts(self.tokenizer), answers)
        rewards = np.where(verdict.correct, 1.0, config.wrong_reward).reshape(-1, n)
        rewards = torch.tensor(rewards, dtype=torch.float32, device=self.device)
        ended = rollouts.ended(self.tokenizer.eos_token_id).reshape(-1, n)
        valid = ended if config.truncated == "drop" else torch.ones_like(ended)
        if self.method.estimator.startswith("loo"):
            valid = valid & (valid.sum(1, keepdim=True) > 1)
        mean = baselines.mean(rewards, valid)
        kept = valid.any(1) & (mean > _or(config.filter_low, -math.inf)) & (mean < _or(config.filter_high, math.inf))
        weight = importance_weights(rewards, self.tau, valid) if config.importance_weights else None
        self.rollouts += len(rollouts)
        self.tokens += int(rollouts.mask.sum())
        return {
            "rollouts": vars(rollouts),
            "tau": self.tau,
            "advantage": self.method.advantage(rewards, self.tau, valid, config.target_kl).flatten(),
            "weight": None if weight is None else weight.flatten(),
            "valid": valid.flatten(),
            "groups": torch.nonzero(kept)[:, 0].tolist(),
            "drawn_after": self.updates,
            "summary": {
                "reward": float(rewards.mean()),
                "length": float(metrics.length_statistics(rollouts.mask)["length"]),
                "truncated": float(1 - ended.float().mean()),
                "unparsed": float(1 - verdict.parsed.mean()),
                "groups_kept": float(kept.float().mean()),
                "groups_mixed": float(((rewards.amax(1) > rewards.amin(1)) & valid.any(1)).float().mean()),
            },
            "seconds": time.monotonic() - start,
        }

    def update(self):
        """Make one update on the next minibatch of the oldest rollout batch."""
        if not self.pending:
            return
        config, batch = self.config, self.queue[0]
        n = config.rollouts_per_prompt
        groups = torch.tensor(self.pending.pop(0), device=self.device)
        rows = (groups[:, None] * n + torch.arange(n, device=self.device)).flatten()
        rows = rows[batch["valid"][rows]]
        chosen = Rollouts(**batch["rollouts"]).rows(rows).trimmed()
        advantage, weight = batch["advantage"][rows], None if batch["weight"] is None else batch["weight"][rows]
        self.set_learning_rate()
        self.optimizer.zero_grad()
        logps, entropies, found = [], [], defaultdict(float)
        step = config.micro_batch or len(rows)
        self.model.train(config.gradient_checkpointing)  # Transformers recomputes in this mode only, and caches in none
        for part in (slice(start, start + step) for start in range(0, len(rows), step)):
            piece = chosen.rows(part)
            with self.arithmetic():
                logp, entropy = token_logp(self.model, piece)
            own = None if weight is None else weight[part]
            settings = replace(self.settings, tau=batch["tau"], weight=own)
            loss, details = self.method.loss(logp, piece.logp, piece.mask, advantage[part], settings)
            share = len(piece) / len(rows)
            (loss * share).backward()
            logps.append(logp.detach())
            entropies.append(entropy)
            for name, value in (details | {"loss": loss.detach()}).items():
                found[name] += share * float(value)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm or math.inf)
        self.optimizer.step()
        self.model.eval()
        s = (torch.cat(logps) - chosen.logp).sum(1)
        valid = batch["valid"].reshape(-1, n)[groups]
        weights = metrics.implied_lambda(torch.zeros(valid.shape, device=s.device).masked_scatter(valid, s), valid)
        found |= metrics.ratio_statistics(s, config.clip_low, config.clip_high) | metrics.kl_estimates(s)
        found |= metrics.entropy_statistics(torch.cat(entropies), chosen.mask)
        found |= {"lambda/mean": weights.mean(), "lambda/max": weights.max(), "grad_norm": norm}
        found |= {"staleness": self.updates - batch["drawn_after"]}
        for name, value in found.items():
            self.sums[name].append(float(value))
        self.updates += 1

    def end_iteration(self):
        """Close the iteration: log it, evaluate when due; return its line."""
        config, batch = self.config, self.queue.pop(0)
        self.iteration += 1
        line = self.spent() | batch["summary"]
        line |= {name: float(np.mean(values)) for name, values in sorted(self.sums.items())}
        if config.tau_factor or config.target_kl:
            line["tau"] = batch["tau"]
            self.move_tau(batch["tau"])
        self.sums.clear()
        seconds, cpu_seconds = (_clocks() - self.clock).tolist()
        last = self.iteration >= config.iterations
        if last or (config.eval_every and self.iteration % config.eval_every == 0):
            line |= self.validation()
            accuracy = line[f"validation/avg@{config.eval_samples}"]
            self.reached = 0 < config.target_accuracy <= accuracy
        if config.reset_optimizer_every and self.iteration % config.reset_optimizer_every == 0:
            self.optimizer.state.clear()
        self.seconds += seconds
        self.folder.append("metrics.jsonl", line)
        drawn = batch["summary"]["length"] * len(batch["advantage"])
        self.folder.append("timings.jsonl", {
            "iteration": self.iteration, "seconds": seconds, "cpu_seconds": cpu_seconds,
            "generation_seconds": batch["seconds"], "training_seconds": seconds - batch["seconds"],
            "tokens_per_second": drawn / seconds,
            "evaluation_seconds": float(_clocks()[0] - self.clock[0]) - seconds,
        })
        self.clock = _clocks()
        return line

    def finish(self):
        """Evaluate on the test prompts, write the model and, last, the result."""
        config = self.config
        self.folder.save(self.state())
        after = self.evaluate("test", config.test_prompts)
        models.save(self.model, self.tokenizer, self.folder.path / "model")
        result = {"algorithm": config.algorithm, "seed": config.seed} | self.spent()
        result |= {"seconds": self.seconds, "reached": self.reached}
        result |= {f"before/{name}": value for name, value in self.before.items()}
        result |= {f"test/{name}": value for name, value in after.items()}
        self.folder.finish(result)
        return result

    def arithmetic(self):
        """Context in which the model computes: bfloat16 on GPU unless told otherwise, float32 on CPU."""
        return models.arithmetic(self.device, self.config.dtype)

    def evaluate(self, split, prompts):
        """Evaluate on the first `prompts` prompts of `split`, always with the same random numbers."""
        config = self.config
        with self.arithmetic():
            return evaluate(
                self.model, self.tokenizer, self.task, split, prompts, config.eval_samples, self.max_new_tokens,
                seed=config.seed, temperature=config.eval_temperature, top_p=config.eval_top_p, batch=config.eval_batch,
            )

    def validation(self):
        """Evaluate on the validation prompts."""
        found = self.evaluate("validation", self.config.eval_prompts)
        return {f"validation/{name}": value for name, value in found.items()}

    def set_learning_rate(self):
        """Set the learning rate of the next update: a function of its number alone."""
        config = self.config
        total = max(1, config.iterations * config.epochs * config.updates_per_batch)
        left = max(0.0, 1 - self.updates / total)
        decay = {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[config.lr_schedule]
        rise = min(1.0, (self.updates + 1) / (config.lr_warmup_updates + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * decay * rise

    def spent(self):
        """The budget so far: iterations, updates, completions sampled for training, and their tokens."""
        return {name: getattr(self, name) for name in ("iteration", "updates", "rollouts", "tokens")}

    def headline(self, line):
        """What the progress bar shows of an iteration's line."""
        shown = {"reward": f"{line['reward']:.3f}"}
        accuracy = f"validation/avg@{self.config.eval_samples}"
        return shown | ({"avg": f"{line[accuracy]:.3f}"} if accuracy in line else {})

    def move_tau(self, tau):
        """Move τ by its factor, or towards the target of λ, measured before the updates of the batch's last quarter."""
        if self.config.tau_factor:
            self.tau *= self.config.tau_factor
        elif self.method.estimator != "loo_target_kl" and (measured := self.sums["lambda/mean"]):
            weight = float(np.mean(measured[-max(1, len(measured) // 4) :]))
            self.tau = float(knobs.next_tau(tau, weight, self.config.target_kl))

    def save_if_due(self):
        """Write a checkpoint when the last one is old enough."""
        if time.monotonic() - self.saved >= self.config.checkpoint_seconds:
            self.folder.save(self.state())
            self.saved = time.monotonic()

    def state(self):
        """Everything the rest of the run depends on."""
        return {name: getattr(self, name) for name in STATE} | {
            "sums": dict(self.sums),
            "clock": (_clocks() - self.clock).tolist(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "rng": self.rng.bit_generator.state,
        }

    def resume(self):
        """Take up the newest checkpoint, and cut the logs to where they were then."""
        state = self.folder.load(self.device)
        if state is not None:
            for name in STATE:
                setattr(self, name, state[name])
            self.sums = defaultdict(list, state["sums"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"].cpu())
            self.rng.bit_generator.state = state["rng"]
            self.clock = _clocks() - state["clock"]


STATE = ("iteration", "updates", "rollouts", "tokens", "seconds", "reached", "before", "tau", "queue", "pending")


def _clocks():
    """Wall clock, and the time that this process computed: what a shared processor takes is in the first alone."""
    return np.array([time.monotonic(), time.process_time()])


def _or(value, default):
    return default if value is None else value
