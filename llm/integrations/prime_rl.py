r"""Policy mirror descent in prime-rl: `pmd_loss`, a function of the form of its custom loss.

prime-rl calls a custom loss for one sequence at a time and divides the sum over sequences, micro-batches and ranks by
the number of trained tokens in the whole batch::

    (1 / Σ_i |y_i|) Σ_i (τ/2)(A_i/τ − s_i)² / N_i,

which is the mean over completions divided by their mean length: a gradient of the same direction and smaller by that
length, which matters to weight decay and to clipping by norm. s_i is taken against the log-probabilities of the server
that sampled, so that π_old is the sampler's law and its mismatch with the trainer is part of s_i. The advantages are
prime-rl's, over the plain mean.

References
----------
Statements 13, 17 and 24 of ``pmdtheory/theorems/README.md``. Xu, Lu, Yu, Zhao, arXiv 2602.05933.
"""

from prime_rl.trainer.rl.loss import LossInputs, LossOutputs

from .. import metrics
from ..credit import of_completions
from ..losses import log_ratio, log_ratio_regression

__all__ = ["pmd_loss"]


def pmd_loss(
    inputs: LossInputs,
    tau: float,
    granularity: str = "sequence",
    length_normalization: str = "none",
    max_length: int | None = None,
    group_size: int | None = None,
) -> LossOutputs:
    """Squared distance of one sequence's log-ratio from its target A/τ.

    Parameters
    ----------
    inputs : prime_rl.trainer.rl.loss.LossInputs
        ``trainer_logprobs``, ``inference_logprobs``, ``advantages``, ``loss_mask`` (seq,), and ``loss_weights`` (seq,)
        or None. Advantage and weight must be the same at all tokens under the mask.
    tau : float
        Temperature τ > 0 in reward units.
    granularity, length_normalization, max_length
        As in `pmdllm.losses.log_ratio_regression`.
    group_size : int, optional
        n of a group: advantages over the plain mean become those over the mean of the others, by n/(n − 1).

    Returns
    -------
    prime_rl.trainer.rl.loss.LossOutputs
        The loss, a sum that prime-rl divides; and metrics of one sequence, which it averages.

    Raises
    ------
    ValueError
        τ is not positive, or advantages or weights vary along the sequence, as those of algorithms that give tokens
        credit of their own.
    """
    if not 0 < tau < float("inf"):
        raise ValueError(f"tau must be positive and finite, got {tau}.")
    mask = inputs.loss_mask.bool()[None]
    advantage = of_completions(inputs.advantages[None], mask, "advantages")
    if group_size is not None:
        if group_size < 2:
            raise ValueError(f"group_size must be at least 2 to leave one out, got {group_size}.")
        advantage = advantage * group_size / (group_size - 1)
    weight = None
    if getattr(inputs, "loss_weights", None) is not None:
        weight = of_completions(inputs.loss_weights[None], mask, "loss_weights")
    row = inputs.trainer_logprobs[None], inputs.inference_logprobs[None], mask
    loss, details = log_ratio_regression(*row, advantage, tau, granularity, length_normalization, max_length, weight)
    s = log_ratio(inputs.trainer_logprobs.detach()[None], *row[1:]).sum(-1)
    return LossOutputs(loss=loss, metrics=details | metrics.kl_estimates(s) | {"log_ratio": s[0]})
