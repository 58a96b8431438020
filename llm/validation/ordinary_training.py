r"""Which law does ordinary training obey? λ and f from rollouts, on a task where nothing can be enumerated.

A run of `pmdllm.train` on its own task has outer steps as any policy mirror descent has: the policy p that a rollout
batch was drawn from, and the policy q after the updates on that batch. f is estimated from n rollouts of p for each of
many prompts, none of them trained on, by `pmdtheory.laws.pooled_share`: 1 on the Lambert-W law, 0 on the KL
law. Ordinary training need not be near either. Close to p, with s = εD + η and η uncorrelated with D,

.. math:: f = \frac{\mathrm{Cov}_p(D − s, ρ)}{\mathrm{Var}_p(ρ) \, \mathrm{KL}(p‖q)} \approx
              \frac{2 [ε (1 − ε) \mathrm{Var}_p(D) − \mathrm{Var}_p(η)]}{[ε^2 \mathrm{Var}_p(D) + \mathrm{Var}_p(η)]^2}
              \quad \text{to leading order,}

so f ≫ 1 says that the updates stopped early, and f < 0 that s varies mostly with what the reward does not explain: what
a policy does beyond its law, generalising from other prompts or fitted to a few rollouts. Statements 2, 4 and 18 of
``pmdtheory/theorems/README.md``.
"""

import copy
from dataclasses import asdict
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from pmdtheory.laws import pooled_share

from ..config import Config, from_preset
from ..logp import token_logp
from ..rollout import sample
from ..run.folder import RunFolder
from ..train import Run

__all__ = ["measure", "run"]

PROMPTS_PER_UPDATE = 4


def run(cell: Any, config: Any) -> Any:
    """Train the shipped model for a few outer steps: table ``training``, a row per outer step, pass and split.

    On 'train' f is of the batch's prompts, with fresh rollouts; on 'held-out', at each batch's last pass, of as many
    test prompts. ``share_low`` to ``share_high`` is its 95% bootstrap interval, ``weight`` λ, ``reverse_kl`` KL(p‖q).
    """
    rng, rows = np.random.default_rng((cell.seed, 2)), []
    with TemporaryDirectory() as path:
        options = from_preset(
            Config, "tiny-cpu", output=path, seed=cell.seed, threads=torch.get_num_threads(),
            algorithm=cell.algorithm, tau=cell.tau, rollouts_per_prompt=int(cell.n), prompts_per_batch=cell.size,
            updates_per_batch=cell.size // PROMPTS_PER_UPDATE, epochs=config.training_epochs,
            iterations=config.training_iterations, learning_rate=config.training_learning_rate,
            lr_schedule="constant", device=config.device, eval_every=0, eval_prompts=1, test_prompts=1,
        )  # fmt: skip
        with RunFolder(options) as folder:
            training = Run(options, folder)
            unseen = training.task.held_out("test", cell.size)
            training.evaluate_base()
            while not training.finished:
                policy, batch = copy.deepcopy(training.model), training.next_batch()
                for minibatch in batch.minibatches(training.rng):
                    training.update(minibatch)
                    epoch, cut = divmod(minibatch.number + 1, options.updates_per_batch)
                    if cut:
                        continue
                    last = [("held-out", unseen)] if epoch == options.epochs else []
                    for split, problems in [("train", batch.problems), *last]:
                        place = {"split": split, "iteration": training.iteration + 1, "epoch": epoch}
                        measured = measure(training, policy, problems, rng)
                        rows.append(asdict(cell) | place | {"updates": training.updates} | measured)
                training.close(batch)
    return {"training": pd.DataFrame(rows)}


@torch.no_grad()
def measure(training: Any, policy: Any, problems: Any, rng: Any) -> Any:
    """Estimate f of the model q of a `Run` over an older policy p, from fresh rollouts of p: columns of `run`."""
    n, tau = training.config.rollouts_per_prompt, training.config.tau
    generator = torch.Generator(training.device).manual_seed(int(rng.integers(2**31)))
    prompts = [problem.prompt for problem in problems]
    rollouts = sample(policy, training.tokenizer, prompts, n, training.max_new_tokens, generator)
    answers = [problem.answer for problem in problems for _ in range(n)]
    reward = training.task.judge(rollouts.texts(training.tokenizer), answers).correct.reshape(-1, n)
    log_ratio = (token_logp(training.model, rollouts)[0] - rollouts.logp).sum(1).double().cpu().numpy().reshape(-1, n)
    estimate = pooled_share(log_ratio, reward, tau, rng)
    share = {"share": estimate.value, "share_low": estimate.low, "share_high": estimate.high}
    return share | {"weight": estimate.weight, "reverse_kl": estimate.reverse_kl, "prompts": len(prompts)}
