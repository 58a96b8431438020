"""Time of one iteration of training a pretrained model, over that of `trl.GRPOTrainer` at the same work.

Both train SmolLM2-135M (`pmd-llm fetch smollm2-135m`) with the same loss, GRPO's, on the same prompts, batch, number
of updates, completion length and arithmetic: 16 prompts × 8 completions of at most 16 tokens, 4 updates, bfloat16 where
the processor multiplies it faster. The prompts are sums in the model's chat template. One iteration comes first and is
not timed; the peak memory of each is stated. They run one after the other, each in a process of its own.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise

PROMPTS, ROLLOUTS, TOKENS, UPDATES, ITERATIONS = 16, 8, 16, 4, 3
GB = 2**30


def questions(count):
    """The first training prompts of the task."""
    import numpy as np
    from pmdllm import tasks

    return tasks.load("sums").sample(count, np.random.default_rng(0))


def ours():
    """Seconds of each iteration of `pmdllm.train`, the first one included."""
    from pmdllm.config import Config
    from pmdllm.run.folder import RunFolder
    from pmdllm.train import Run

    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            output=folder, overwrite=True, model="smollm2-135m", task="sums", algorithm="grpo", learning_rate=1e-5,
            prompts_per_batch=PROMPTS, rollouts_per_prompt=ROLLOUTS, max_new_tokens=TOKENS, updates_per_batch=UPDATES,
            iterations=ITERATIONS + 1, eval_every=0, eval_prompts=1, test_prompts=1, eval_samples=1,
            checkpoint_seconds=1e9,
        )  # fmt: skip
        seconds = []
        with RunFolder(config) as run_folder:
            run = Run(config, run_folder)
            for _ in range(ITERATIONS + 1):
                start = time.perf_counter()
                batch = run.next_batch()
                for minibatch in batch.minibatches(run.rng):
                    run.update(minibatch)
                seconds.append(time.perf_counter() - start)
        return seconds


def theirs():
    """Seconds of each iteration of `trl.GRPOTrainer`, the first one included."""
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
    return [later - earlier for earlier, later in pairwise(ends)]


def measured(name):
    """Least seconds of the later iterations of `ours` or `theirs` in a new process, and its peak memory in GB."""
    command = [sys.executable, "-m", "benchmarks.pretrained", name]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, memory = json.loads(output.splitlines()[-1])
    return min(seconds[1:]), memory


def main():
    """Print the comparison."""
    (own, memory), (other, more) = measured("ours"), measured("theirs")
    print(f"SmolLM2-135M, {PROMPTS} × {ROLLOUTS} completions of {TOKENS} tokens, {UPDATES} updates of GRPO's loss:")
    print(f"pmdllm {own:.1f} s, {memory:.1f} GB; TRL {other:.1f} s, {more:.1f} GB; ratio {own / other:.2f}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps([globals()[sys.argv[1]](), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB]))
    else:
        main()
