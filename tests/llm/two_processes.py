"""What ``accelerate launch`` runs in two processes for ``test_trl.py``: the example, then a run to be compared.

`losses` is the loss curve of a run whose rollouts depend on the generation and the group alone, so that one process
and two with the same batch in all must give the same curve. Groups of 8 in batches of 24: the middle one lies on both.
"""

import json
import runpy
import sys
from pathlib import Path

import torch
from pmdllm.integrations import trl as adapter

from tests.llm.test_trl import LENGTH, Feed, base, make_trainer, ragged

ROOT = Path(__file__).parents[2]
GROUPS, SIZE = 3, 8


class Shared(Feed):
    """Rollouts of whole groups by the present model, of which each process takes its rows."""

    def __call__(self, prompts, trainer):
        model, first = trainer.accelerator.unwrap_model(trainer.model), trainer.accelerator.process_index * len(prompts)
        last, output = first + len(prompts), {"prompt_ids": [], "completion_ids": [], "logprobs": None}
        for group in range(first // SIZE, (last - 1) // SIZE + 1):
            generator = torch.Generator().manual_seed(trainer.state.global_step * GROUPS + group)
            prompt = prompts[max(first, group * SIZE) - first]
            whole = ragged(model, trainer.processing_class, [prompt], SIZE, LENGTH, generator)
            own = slice(max(first - group * SIZE, 0), min(last - group * SIZE, SIZE))
            output["prompt_ids"] += whole.prompt_ids[own].tolist()
            output["completion_ids"] += [row[mask].tolist() for row, mask in zip(whole.tokens[own], whole.mask[own])]
        return output

    def reward(self, completions, **_):
        return [len(set(text)) % 5 / 4 for text in completions]


def losses(folder, processes):
    """Losses of 4 updates: 2 generations, each used twice, in two micro-batches, with truncated completions."""
    model, tokenizer = base()
    trainer = make_trainer(
        model, tokenizer, Shared(), folder, num_generations=SIZE, steps_per_generation=2, num_iterations=2,
        per_device_train_batch_size=GROUPS * SIZE // 2 // processes, max_steps=4, learning_rate=1e-3,
    )  # fmt: skip
    assert trainer.accelerator.num_processes == processes
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def with_own_counts(pieces, accelerator):
    """The defect: each process divides by the completions that count in it."""
    for piece in pieces:
        piece["count"] = sum(piece["counted"].sum() for piece in pieces) * accelerator.num_processes


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    example = [f"--output_dir={folder / 'example'}", "--max_steps=2", "--steps_per_generation=2"]
    sys.argv = ["trl_pmd.py", *example, "--per_device_train_batch_size=16", "--logging_steps=1"]
    ran = runpy.run_path(str(ROOT / "examples" / "trl_pmd.py"))["main"]()
    curve = losses(folder / "right", processes=2)
    adapter._set_count = with_own_counts
    defective = losses(folder / "defective", processes=2)
    if ran.accelerator.is_main_process:
        found = {"example": ran.state.log_history[0], "curve": curve, "defective": defective}
        (folder / "found.json").write_text(json.dumps(found))
