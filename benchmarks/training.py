"""Where an iteration of training spends its time, and what `trl.GRPOTrainer` takes for the same work.

Two settings: the tiny model that is shipped, on its own task, and SmolLM2-135M (`pmd-llm fetch smollm2-135m`; without
it its rows are left out). There TRL trains with the same loss, GRPO's, on the same prompts, batch, number of updates,
completion length and arithmetic: 16 prompts × 8 completions of at most 16 tokens, 4 updates, bfloat16 where the
processor multiplies it faster. One iteration comes first and is not timed; of the later ones the quickest counts.
Each trainer runs in a process of its own, which gives its peak memory too, with all threads.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise

from .rows import row, show

THREADS = str(os.cpu_count())  # those of `measured`, whatever the environment says
PROMPTS, ROLLOUTS, TOKENS, UPDATES, ITERATIONS = 16, 8, 16, 4, 3
PRETRAINED, TINY = "SmolLM2-135M", "tiny-cpu"


def questions(count):
    """The first training prompts of the task."""
    import numpy as np
    from pmdllm import tasks

    return tasks.load("sums").sample(count, np.random.default_rng(0))


def timed(config):
    """Seconds of rollouts and of updates, and the number of tokens, of each iteration of `pmdllm.train`."""
    from pmdllm.run.folder import RunFolder
    from pmdllm.train import Run

    spent = []
    with RunFolder(config) as run_folder:
        run = Run(config, run_folder)
        for _ in range(ITERATIONS + 1):
            start = time.perf_counter()
            batch = run.next_batch()
            middle = time.perf_counter()
            for minibatch in batch.minibatches(run.rng):
                run.update(minibatch)
            tokens = batch.summary["length"] * len(batch.rollouts)
            spent.append([middle - start, time.perf_counter() - middle, tokens])
    return spent


def ours():
    """SmolLM2-135M by `pmdllm`."""
    from pmdllm.config import Config

    with tempfile.TemporaryDirectory() as folder:
        return timed(
            Config(
                output=folder, overwrite=True, model="smollm2-135m", task="sums", algorithm="grpo", learning_rate=1e-5,
                prompts_per_batch=PROMPTS, rollouts_per_prompt=ROLLOUTS, max_new_tokens=TOKENS,
                updates_per_batch=UPDATES, iterations=ITERATIONS + 1, eval_every=0, eval_prompts=1, test_prompts=1,
                eval_samples=1, checkpoint_seconds=1e9,
            )
        )  # fmt: skip


def tiny():
    """The preset tiny-cpu as it stands, evaluation left out."""
    from pmdllm.config import Config, from_preset

    with tempfile.TemporaryDirectory() as folder:
        changes = {"output": folder, "overwrite": True, "eval_every": 0, "checkpoint_seconds": 1e9}
        return timed(from_preset(Config, TINY, **changes))


def theirs():
    """SmolLM2-135M by `trl.GRPOTrainer`: seconds of each iteration, the first one included."""
    import torch
    from datasets import Dataset
    from pmdllm import models
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Clock(TrainerCallback):
        steps = []  # noqa: RUF012

        def on_step_end(self, arguments, state, control, **_):
            self.steps.append(time.perf_counter())

    model, tokenizer = models.load("smollm2-135m")
    problems = questions(PROMPTS * (ITERATIONS + 1))
    right = {problem.prompt: problem.answer for problem in problems}

    def reward(prompts, completions, **_):
        return [float(right[p[0]["content"]] in c[0]["content"]) for p, c in zip(prompts, completions)]

    with models.arithmetic(model):
        half = torch.is_autocast_enabled("cpu")
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder, learning_rate=1e-5, num_generations=ROLLOUTS, max_completion_length=TOKENS,
            per_device_train_batch_size=PROMPTS * ROLLOUTS // UPDATES, steps_per_generation=UPDATES, bf16=half,
            gradient_checkpointing=False, max_steps=UPDATES * (ITERATIONS + 1), report_to="none", save_strategy="no",
            logging_steps=1000, use_cpu=True, beta=0.0, loss_type="grpo", shuffle_dataset=False, disable_tqdm=True,
        )  # fmt: skip
        clock, start = Clock(), time.perf_counter()
        GRPOTrainer(
            model, reward, arguments, processing_class=tokenizer, callbacks=[clock],
            train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": p.prompt}] for p in problems]}),
        ).train()  # fmt: skip
    ends = [start, *clock.steps[UPDATES - 1 :: UPDATES]]
    return [[later - earlier] for earlier, later in pairwise(ends)]


def measured(name):
    """Of the quickest later iteration of a function here, run in a process of its own: what it says, and peak bytes."""
    command, threads = [sys.executable, "-m", "benchmarks.training", name], ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {variable: value for variable, value in os.environ.items() if variable not in threads}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    spent, memory = json.loads(output.splitlines()[-1])
    return min(spent[1:], key=lambda parts: sum(parts[:2])), memory


def phases(what, size, name):
    """Rows of an iteration of ours and of its two parts."""
    (rollouts, updates, tokens), memory = measured(name)
    seconds = rollouts + updates
    path = f"pmdllm, {tokens / seconds:.0f} tokens a second"
    return [
        row(what, size, path, seconds, memory=memory),
        row(what, size, "of this, rollouts", rollouts, ratio=rollouts / seconds, peer="the iteration"),
        row(what, size, "of this, updates", updates, ratio=updates / seconds, peer="the iteration"),
    ]


def rows():
    """All of them."""
    from pmdllm.models import fetch

    found = phases(f"training iteration, {TINY}", "preset", "tiny")
    if PRETRAINED.lower() in fetch.fetched():
        what, size = f"training iteration, {PRETRAINED}", f"{PROMPTS} × {ROLLOUTS} × {TOKENS} tokens, {UPDATES} updates"
        own = phases(what, size, "ours")
        (other, *_), memory = measured("theirs")
        own[0] |= {"ratio": own[0]["seconds"] / other, "peer": "TRL"}
        found += [*own, row(what, size, "TRL", other, memory=memory)]
    return found


def main():
    """Print the rows."""
    show(rows())


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps([globals()[sys.argv[1]](), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
    else:
        main()
