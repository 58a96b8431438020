"""PMD in TRL: the shipped 73,000-parameter model learns arithmetic, on one CPU or several processes.

    python examples/trl_pmd.py
    accelerate launch --multi_gpu --num_processes 2 examples/trl_pmd.py --per_device_train_batch_size 32
    python examples/trl_pmd.py --model smollm2-135m --task sums --learning_rate 1e-5 --max_completion_length 16

On CPUs --multi_gpu starts the two processes all the same (--cpu would start one), and they speak through gloo. Every
option of `PMDConfig` can be given. The defaults are those of the preset tiny-cpu: 32 prompts with 16 completions
each, cut into 8 updates, here for 10 generations.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import Dataset
from pmdllm import models, tasks
from pmdllm.integrations.trl import PMDConfig, PMDTrainer
from transformers import HfArgumentParser


@dataclass
class Script:
    """What to train on which prompts."""

    model: str = field(default="base", metadata={"help": "What pmd-llm train --model takes."})
    task: str = field(default="arithmetic", metadata={"help": "What pmd-llm train --task takes."})


def draw(task, count, seed):
    """Draw problems one by one, so that a task with few of them may give one twice."""
    rng = np.random.default_rng(seed)
    return [task.sample(1, rng)[0] for _ in range(count)]


def main(arguments=None):
    """Train, and return the trainer."""
    parser = HfArgumentParser((Script, PMDConfig))
    parser.set_defaults(
        output_dir="runs/trl-pmd", per_device_train_batch_size=64, steps_per_generation=8, num_generations=16,
        max_steps=80, max_completion_length=12, learning_rate=5e-4, adam_beta2=0.95, use_cpu=True, bf16=False,
        gradient_checkpointing=False, logging_steps=8, save_strategy="no", report_to="none",
    )  # fmt: skip
    script, config = parser.parse_args_into_dataclasses(arguments)
    task = tasks.load(script.task)
    model, tokenizer = models.load(script.model, torch.device("cpu"))
    problems = draw(task, 4096, config.seed)
    chats = tokenizer.chat_template is not None
    prompts = [[{"role": "user", "content": problem.prompt}] if chats else problem.prompt for problem in problems]
    dataset = Dataset.from_dict({"prompt": prompts, "answer": [problem.answer for problem in problems]})

    def correct(completions, answer, **_):
        texts = [completion[0]["content"] if chats else completion for completion in completions]
        return task.judge(texts, answer).correct.astype(float).tolist()

    trainer = PMDTrainer(model, correct, config, train_dataset=dataset, processing_class=tokenizer)
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
