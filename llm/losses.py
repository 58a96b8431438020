r"""Losses: log-ratio regression (policy mirror descent) and the clipped policy gradients it is compared with.

A completion y of a prompt x has log π(y|x) = Σ_t log π(y_t|x, y_<t), summed over its ``mask`` (end-of-sequence
included). With s_t = log π_θ(y_t|·) − log π_old(y_t|·), s = Σ_t s_t, |y| the number of tokens, r the reward and b̂ a
baseline, the loss of policy mirror descent and its gradient are (Statement 17)::

    L = (τ/2)(A/τ − s)² / N,    A = r − b̂,    ∇L = −(A − τ s) ∇log π_θ(y|x) / N:

a policy gradient whose coefficient is the residual, zero once the completion has reached its target s = A/τ. Clipping
instead uses the ratio ρ = e^s and stops where ρ leaves [1 − ε_low, 1 + ε_high] in the direction that A favours::

    L = −Σ_t min(ρ_t A, clip(ρ_t) A) / N.

Every algorithm is a choice of three factors: the baseline b̂, what s or ρ is taken of, and N:

=========================  ==========================================  =====================  =======================
name                       b̂, a baseline of the prompt's n rewards     s or ρ of              N
=========================  ==========================================  =====================  =======================
pmd-mean, pmd-mean-loo     mean, leave-one-out mean                    s, sequence            none
pmd-part, pmd-part-loo     log-partition, leave-one-out                s, sequence            none
pmd-target                 between the two, leave-one-out, so that     s, sequence            none
                           KL(p‖q) is ``target_kl``
kimi-token                 mean                                        s_t, each token        none
grpo                       mean; A divided by the standard deviation   ρ_t, each token        seq-mean-token-mean
dr-grpo                    mean                                        ρ_t, each token        seq-mean-token-sum-norm
rloo                       leave-one-out mean                          ρ = e^s, sequence      none
gspo                       mean; A divided by the standard deviation   ρ_t = e^{s/|y|}        seq-mean-token-mean
pmd:NAME                   any of `pmdtheory.baselines.BASELINES`      s, sequence            none
=========================  ==========================================  =====================  =======================

and members of `pmdtheory.family`, by their names there:

=========================  ==========================================  ================================================
free-baseline              the group's mean of r − τ s at π_θ          s, sequence
fixed-chi2                 the group's mean of r − τ s − κ (ρ − 1)     s, sequence; κ (ρ − 1 − s) is added to L
standardised               mean; A divided by the group's σ̂_n           s, sequence; τ in standard deviations
quantile                   τ log[τ (e^{1/τ} − 1)]; r is its rank       s, sequence; τ in units of a rank
kimi-k2.5                  mean                                        L = −(ρ A − τ s²), sequence
=========================  ==========================================  ================================================

The first two follow the policy (``Algorithm.is_free``): `free_advantages` recomputes A before each update.

N is 1 (``none``), the completion's length |y| (``seq-mean-token-mean``) or the constant ``max_length``
(``seq-mean-token-sum-norm``). It means the same for all: at π_θ = π_old every loss has the gradient −(A/N) ∇log π_θ,
REINFORCE with a baseline. A sequence ratio (rloo) enters once, Σ_t having one term; the geometric one (gspo) stands at
each of the |y| tokens, so its own 1/|y| is undone by the sum and N = |y| gives the published objective.

The batch loss is the mean over the completions that have a token. A completion without any (all masked) adds neither
value nor gradient and is not counted; a batch of such completions has loss 0. Values under a False mask, NaN and
infinity included, are never used, nor are advantage and weight of a completion without tokens. Where a batch comes in
parts (micro-batches, processes), each part is told the ``count`` of the whole; the losses of the parts then add up to
that of the whole.

The regression is a square, safe in single precision up to |s| = 1e19. Ratios overflow there at s = 89, so beyond s = 20
(ρ = 5e8) e^s continues as its tangent, e^20 (1 + s − 20): losses and gradients stay finite and keep their sign.

Where this follows TRL rather than a paper: GRPO's standard deviation has n − 1 in it and 1e-4 added, there is no KL
penalty (TRL's GRPO default; its RLOO has β = 0.05 unless set to 0), RLOO has ratios and clipping at all, and Dr. GRPO
divides by a constant. TRL's mean counts completions without tokens, this one does not.

A shape, name or number that is not as documented is a ``ValueError``.

Others fit in without a new loop: ``old_logp`` may belong to any anchor policy, and a baseline computed from r − τ s
(AGRO, REBEL) is an advantage recomputed at each update.

References
----------
Statements 10, 12, 13 and 17 of ``pmdtheory/theorems/README.md``. Xu, Lu, Yu, Zhao, arXiv 2602.05933; Kimi k1.5, arXiv
2501.12599, eq. 3; GRPO, arXiv 2402.03300, eq. 3; Dr. GRPO, arXiv 2503.20783; RLOO, arXiv 2402.14740; GSPO, arXiv
2507.18071, eq. 5. Those of the members of the family stand in ``docs/family.md``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pmdtheory import knobs  # noqa: F401  registers its baselines
from pmdtheory.baselines import BASELINES, Baseline
from pmdtheory.partition import log_partition_of_ranks

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Settings",
    "advantages",
    "algorithm",
    "clipped_policy_gradient",
    "free_advantages",
    "importance_weights",
    "log_ratio",
    "log_ratio_regression",
    "ratio_with_squared_penalty",
]

LENGTH_NORMALIZATIONS = ("none", "seq-mean-token-mean", "seq-mean-token-sum-norm")
LARGEST_EXPONENT = 20.0
STD_FLOOR = 1e-4


def advantages(
    rewards: torch.Tensor,
    baseline: Any,
    tau: float,
    mask: torch.Tensor | None = None,
    scale: str | None = "none",
    target_kl: float | None = 0.0,
) -> torch.Tensor:
    """Advantage of each rollout over its group's baseline, A = r − b̂, optionally in standard deviations.

    Parameters
    ----------
    rewards : tensor (P, n)
        Rewards of n rollouts for each of P prompts, finite where valid; booleans and integers are promoted.
    baseline : pmdtheory.baselines.Baseline
        An entry of `pmdtheory.baselines.BASELINES`; each group has its ``smallest_group`` of rollouts, or none.
    tau : float
        Temperature τ > 0 in reward units; the means do not use it.
    mask : boolean tensor (P, n), optional
        False where there is no rollout; its reward may be anything.
    scale : {'none', 'std', 'sd', 'rank'}
        'std' divides by the group's standard deviation (n − 1 in it) plus 1e-4, 'sd' by that with n in it, 0/0 being 0
        (Statement 25). 'rank' puts the share of the group
        whose reward is at most r in r's place and subtracts τ log[τ (e^{1/τ} − 1)], whatever the baseline (QRPO).
    target_kl : float
        KL divergence in nats, for a baseline that aims at one.

    Returns
    -------
    tensor (P, n)
        Advantages in reward units, or in standard deviations; 0 where masked. A constant: no gradient.

    Examples
    --------
    >>> advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), BASELINES["loo_mean"], tau=0.1)
    tensor([[ 1.0000, -0.3333, -0.3333, -0.3333]])
    """
    _one_of("scale", scale, ("none", "std", "sd", "rank"))
    rewards = rewards.detach()
    if scale == "rank":
        return _ranks(rewards, tau, mask)
    subtracted = baseline(rewards, tau, mask, target_kl)
    valid = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    advantage = torch.where(valid, rewards, subtracted) - subtracted
    if scale in ("std", "sd"):
        count = valid.sum(-1, keepdim=True) - (1 if scale == "std" else 0)
        centred = torch.where(valid, torch.where(valid, rewards, 0) - BASELINES["mean"](rewards, tau, mask), 0)
        deviation = (centred.square().sum(-1, keepdim=True) / count.clamp(min=1)).sqrt()
        advantage = advantage / (deviation + STD_FLOOR if scale == "std" else torch.where(deviation > 0, deviation, 1))
    return advantage


def _ranks(rewards, tau, mask):
    valid = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    below = ((rewards[..., None, :] <= rewards[..., :, None]) & valid[..., None, :]).sum(-1)
    wide = torch.promote_types(rewards.dtype, torch.float32)
    rank = below.to(wide) / valid.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(valid, rank - float(log_partition_of_ranks(tau)), 0)


def importance_weights(rewards: torch.Tensor, tau: float, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Weights e^{r/τ}/Ẑ that turn a mean over p into one over q ∝ p e^{r/τ}; Ẑ is the mean of e^{r/τ} over the group.

    Arguments as in `advantages`. Weights (P, n) are 0 where masked, average 1 over a group's rollouts and are at most
    n, so nothing overflows. Statement 1: the ratio of the KL update is e^{r/τ}/Z.

    Examples
    --------
    >>> importance_weights(torch.tensor([[0.0, 0.6931472, 0.0, 0.0]]), tau=1.0)
    tensor([[0.8000, 1.6000, 0.8000, 0.8000]])
    """
    weight = (advantages(rewards, BASELINES["log_partition"], tau, mask) / tau).exp()
    return weight if mask is None else torch.where(mask, weight, 0)


def log_ratio(logp: torch.Tensor, old_logp: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Log-ratio of each token (B, T), s_t = log π_θ − log π_old; 0 where masked, and in single precision at least.

    Parameters
    ----------
    logp, old_logp : tensor (B, T)
        log π_θ of the sampled tokens, in nats, where the gradient flows; and that of the policy that sampled them.
    mask : boolean tensor (B, T)
        True on the tokens of the completion, end-of-sequence included.

    Examples
    --------
    >>> log_ratio(torch.tensor([[-1.0, 5.0]]), torch.tensor([[-2.0, math.nan]]), torch.tensor([[True, False]]))
    tensor([[1., 0.]])
    """
    if logp.ndim != 2:
        raise ValueError(f"logp must have shape (B, T), one row per completion, got {tuple(logp.shape)}.")
    for name, value in {"old_logp": old_logp, "mask": mask}.items():
        _shaped(name, value, logp.shape)
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, True on the completion's tokens, got {mask.dtype}: use mask.bool().")
    wide = torch.promote_types(logp.dtype, torch.float32)
    return torch.where(mask, logp.to(wide) - old_logp.detach().to(wide), 0)


def log_ratio_regression(
    logp: torch.Tensor,
    old_logp: torch.Tensor,
    mask: torch.Tensor,
    advantage: torch.Tensor,
    tau: float,
    granularity: str = "sequence",
    length_normalization: str = "none",
    max_length: int | None = None,
    weight: torch.Tensor | None = None,
    count: Any = None,
    chi2_coef: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Policy mirror descent: the squared distance of log-ratios from their targets A/τ.

    (τ/2)(A/τ − s)² / N for each completion, or Σ_t (τ/2)(A/τ − s_t)² / N with ``granularity="token"``; then the mean
    over completions. The gradient is −(A − τ s) ∇log π_θ / N, and with a ``chi2_coef`` κ, which adds κ (ρ − 1 − s),
    it is −(A − τ s − κ (ρ − 1)) ∇log π_θ / N.

    Parameters
    ----------
    logp, old_logp, mask
        As in `log_ratio`.
    advantage : tensor (B,)
        A = r − b̂ in reward units; a constant.
    tau : float
        Temperature τ > 0 in reward units.
    granularity : {'sequence', 'token'}
        Whether the completion's log-ratio or each token's is regressed on A/τ.
    length_normalization : {'none', 'seq-mean-token-mean', 'seq-mean-token-sum-norm'}
        N: 1, the completion's length, or ``max_length``.
    max_length : float, optional
        The constant of 'seq-mean-token-sum-norm', above 0; otherwise unused.
    weight : tensor (B,), optional
        Factor of each completion's loss, such as `importance_weights`; a constant.
    count : int or tensor (), optional
        Completions that the mean is over, where these B are a part of them. Default: those of the B that have a token.
    chi2_coef : float
        κ ≥ 0 in reward units; Statement 3 with a baseline that is free.

    Returns
    -------
    loss : tensor ()
        In reward units.
    metrics : dict of str to tensor ()
        Detached: ``residual``, the root mean square of A − τ s (of A − τ s_t, over tokens).

    Examples
    --------
    >>> mask = torch.tensor([[True, True, False]])
    >>> logp = torch.tensor([[-1.0, -1.0, 0.0]], requires_grad=True)
    >>> loss, _ = log_ratio_regression(logp, logp - 0.5 * mask, mask, advantage=torch.tensor([0.75]), tau=0.5)
    >>> loss.backward()
    >>> logp.grad
    tensor([[-0.2500, -0.2500,  0.0000]])
    """
    _one_of("granularity", granularity, ("sequence", "token"))
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be positive and finite, got {tau}.")
    s, advantage, weight = _read(logp, old_logp, mask, advantage, weight, length_normalization, max_length, count)
    total = s.sum(-1)
    valid, fitted = (mask, s) if granularity == "token" else (mask.any(-1, keepdim=True), total[:, None])
    squares = torch.where(valid, advantage[:, None] - tau * fitted, 0).square()
    loss = (weight * squares.sum(-1)).sum() / (2 * tau)
    if chi2_coef:
        loss = loss + chi2_coef * (weight * torch.where(valid, _exp(fitted) - 1 - fitted, 0).sum(-1)).sum()
    return loss, {"residual": _average(squares, valid).sqrt()}


def clipped_policy_gradient(
    logp: torch.Tensor,
    old_logp: torch.Tensor,
    mask: torch.Tensor,
    advantage: torch.Tensor,
    clip_low: float,
    clip_high: float,
    granularity: str = "token",
    length_normalization: str = "none",
    max_length: int | None = None,
    weight: torch.Tensor | None = None,
    count: Any = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Policy gradient with clipped ratios: GRPO, Dr. GRPO, RLOO and GSPO by the choice of ratio and N.

    −Σ_t min(ρ_t A, clip(ρ_t, 1 − clip_low, 1 + clip_high) A) / N for each completion, then the mean over completions.

    Parameters
    ----------
    logp, old_logp, mask
        As in `log_ratio`.
    advantage : tensor (B,)
        A, a constant.
    clip_low, clip_high : float
        How far ρ may leave 1 downwards where A < 0 and upwards where A > 0; at least 0, infinite for no clipping.
    granularity : {'token', 'sequence', 'geometric'}
        ρ_t = e^{s_t}; one ρ = e^s for the completion, in a sum of one term; or ρ_t = e^{s/|y|} at every token.
    length_normalization, max_length, weight, count
        As in `log_ratio_regression`.

    Returns
    -------
    loss : tensor ()
        In the units of ``advantage``.
    metrics : dict of str to tensor ()
        Detached: ``clip_fraction``, the share of tokens (of completions, for 'sequence') without gradient because their
        ratio is clipped.

    Examples
    --------
    >>> mask = torch.tensor([[True, True]])
    >>> logp = torch.tensor([[-1.0, -0.5]], requires_grad=True)
    >>> old_logp = torch.tensor([[-1.0, -1.0]])
    >>> loss, metrics = clipped_policy_gradient(logp, old_logp, mask, torch.tensor([1.0]), 0.2, 0.2)
    >>> loss.backward()
    >>> logp.grad, metrics["clip_fraction"]
    (tensor([[-1.,  0.]]), tensor(0.5000))
    """
    _one_of("granularity", granularity, ("token", "sequence", "geometric"))
    for name, value in {"clip_low": clip_low, "clip_high": clip_high}.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}; math.inf turns clipping off.")
    s, advantage, weight = _read(logp, old_logp, mask, advantage, weight, length_normalization, max_length, count)
    total, advantage = s.sum(-1), advantage[:, None]
    valid = mask.any(-1, keepdim=True) if granularity == "sequence" else mask
    if granularity == "sequence":
        s = total[:, None]
    elif granularity == "geometric":
        s = (total / _length(mask))[:, None].expand_as(mask)
    rho = _exp(s)
    clipped = rho.clamp(1 - clip_low, 1 + clip_high)
    gain = torch.minimum(rho * advantage, clipped * advantage)
    loss = -(weight * torch.where(valid, gain, 0).sum(-1)).sum()
    is_clipped = ((rho < 1 - clip_low) & (advantage < 0)) | ((rho > 1 + clip_high) & (advantage > 0))
    return loss, {"clip_fraction": _average(is_clipped.to(rho.dtype), valid)}


def ratio_with_squared_penalty(
    logp: torch.Tensor,
    old_logp: torch.Tensor,
    mask: torch.Tensor,
    advantage: torch.Tensor,
    tau: float,
    granularity: str = "sequence",
    length_normalization: str = "none",
    max_length: int | None = None,
    weight: torch.Tensor | None = None,
    count: Any = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kimi K2.5's form: the gain over the policy, the penalty over the anchor; −(ρ A − τ s²) / N, ρ = e^s.

    Arguments and outputs as in `log_ratio_regression`, of the completion's log-ratio alone; ``residual`` is that of the
    gradient, ρ A − 2 τ s. Statement 27; arXiv 2602.02276.
    """
    _one_of("granularity", granularity, ("sequence",))
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be positive and finite, got {tau}.")
    s, advantage, weight = _read(logp, old_logp, mask, advantage, weight, length_normalization, max_length, count)
    s, valid = s.sum(-1), mask.any(-1)
    gain = _exp(s) * advantage
    loss = -(weight * torch.where(valid, gain - tau * s.square(), 0)).sum()
    return loss, {"residual": _average((gain - 2 * tau * s).square(), valid).sqrt()}


def free_advantages(
    advantage: torch.Tensor, log_ratios: torch.Tensor, tau: float, valid: torch.Tensor | None, chi2_coef: float = 0.0
) -> torch.Tensor:
    """Advantages over the baseline that leaves no mean residual: V = mean of r − τ s − κ (ρ − 1) over the group.

    What is regressed then is the residual's deviation from its mean, and the loss that of its variance within groups:
    AGRO, GVPO, VarGrad and REBEL. A group's V uses all of it, so it is computed before minibatches are cut.

    Parameters
    ----------
    advantage, log_ratios : tensor (P, n)
        A = r − b̂ over any baseline, and s at the present policy.
    tau, chi2_coef : float
        τ and κ.
    valid : boolean tensor (P, n)
        Completions that count.

    Returns
    -------
    tensor (P, n)
        A constant, 0 where not valid.

    Examples
    --------
    >>> A, s = torch.tensor([[0.5, -0.5]]), torch.tensor([[2.0, 0.0]])
    >>> free_advantages(A, s, tau=0.5, valid=A > -1)
    tensor([[1., 0.]])
    """
    s = log_ratios.detach()
    residual = torch.where(valid, advantage - tau * s - chi2_coef * (_exp(s) - 1), 0)
    mean = residual.sum(-1, keepdim=True) / valid.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(valid, advantage - mean, 0)


@dataclass(frozen=True, eq=False)
class Settings:
    """What `Algorithm.loss` needs besides the batch, as in the objectives; each reads what concerns it.

    A ``length_normalization`` replaces the algorithm's own; ``dataclasses.replace(settings, weight=…)`` gives each
    minibatch its own weight, and likewise its ``count``.
    """

    tau: float
    clip_low: float = 0.2
    clip_high: float = 0.2
    length_normalization: str | None = None
    max_length: float | None = None
    weight: torch.Tensor | None = None
    count: int | torch.Tensor | None = None
    chi2_coef: float = 0.0


@dataclass(frozen=True)
class Algorithm:
    """A row of the module's table.

    Parameters
    ----------
    baseline : pmdtheory.baselines.Baseline
        b̂.
    objective : callable
        `log_ratio_regression`, `ratio_with_squared_penalty` or `clipped_policy_gradient`.
    granularity : str
        What s or ρ is taken of, as in the objective.
    length_normalization : str
        N, unless the settings say otherwise.
    scale : {'none', 'std', 'sd', 'rank'}
        As in `advantages`.
    is_free : bool
        Whether the baseline follows the policy: `free_advantages` recomputes A at each update.
    needs_chi2 : bool
        Whether a χ² penalty of coefficient ``chi2_coef`` is added.
    """

    baseline: Baseline
    objective: Callable
    granularity: str = "sequence"
    length_normalization: str = "none"
    scale: str = "none"
    is_free: bool = False
    needs_chi2: bool = False

    @property
    def has_temperature(self) -> bool:
        """Whether a penalty τ holds the log-ratio; else ratios are clipped."""
        return self.objective is not clipped_policy_gradient

    @property
    def advantage_uses_tau(self) -> bool:
        """Whether advantages depend on τ."""
        return self.baseline.uses_tau or self.scale == "rank"

    def advantage(
        self, rewards: torch.Tensor, tau: float, mask: torch.Tensor | None = None, target_kl: float | None = 0.0
    ) -> torch.Tensor:
        """`advantages` (P, n) over this algorithm's baseline, in its scale."""
        return advantages(rewards, self.baseline, tau, mask, self.scale, target_kl)

    def loss(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        mask: torch.Tensor,
        advantage: torch.Tensor,
        settings: Settings,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and metrics of a batch: arguments as in the objective, the rest in a `Settings`."""
        scope = (settings.tau,) if self.has_temperature else (settings.clip_low, settings.clip_high)
        normalization = settings.length_normalization or self.length_normalization
        penalty = {"chi2_coef": settings.chi2_coef} if self.needs_chi2 else {}
        return self.objective(
            logp, old_logp, mask, advantage, *scope, self.granularity, normalization, settings.max_length,
            settings.weight, settings.count, **penalty,
        )  # fmt: skip


_PER_TOKEN, _SUM = "seq-mean-token-mean", "seq-mean-token-sum-norm"
ALGORITHMS = {
    "pmd-mean": Algorithm(BASELINES["mean"], log_ratio_regression),
    "pmd-mean-loo": Algorithm(BASELINES["loo_mean"], log_ratio_regression),
    "pmd-part": Algorithm(BASELINES["log_partition"], log_ratio_regression),
    "pmd-part-loo": Algorithm(BASELINES["loo_log_partition"], log_ratio_regression),
    "pmd-target": Algorithm(BASELINES["loo_target_kl"], log_ratio_regression),
    "kimi-token": Algorithm(BASELINES["mean"], log_ratio_regression, "token"),
    "grpo": Algorithm(BASELINES["mean"], clipped_policy_gradient, "token", _PER_TOKEN, "std"),
    "dr-grpo": Algorithm(BASELINES["mean"], clipped_policy_gradient, "token", _SUM),
    "rloo": Algorithm(BASELINES["loo_mean"], clipped_policy_gradient),
    "gspo": Algorithm(BASELINES["mean"], clipped_policy_gradient, "geometric", _PER_TOKEN, "std"),
    "free-baseline": Algorithm(BASELINES["mean"], log_ratio_regression, is_free=True),
    "fixed-chi2": Algorithm(BASELINES["mean"], log_ratio_regression, is_free=True, needs_chi2=True),
    "standardised": Algorithm(BASELINES["mean"], log_ratio_regression, scale="sd"),
    "quantile": Algorithm(BASELINES["mean"], log_ratio_regression, scale="rank"),
    "kimi-k2.5": Algorithm(BASELINES["mean"], ratio_with_squared_penalty),
}


def algorithm(name: str) -> Algorithm:
    """Return the algorithm of a name: a key of `ALGORITHMS`, or ``pmd:NAME`` with a key of ``BASELINES``.

    Raises
    ------
    ValueError
        There is none of that name; the message lists them.

    Examples
    --------
    >>> algorithm("pmd:loo_mean") == algorithm("pmd-mean-loo")
    True
    """
    baseline = str(name).removeprefix("pmd:")
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if baseline != name and baseline in BASELINES:
        return Algorithm(BASELINES[baseline], log_ratio_regression)
    raise ValueError(
        f"algorithm must be one of {', '.join(ALGORITHMS)}, or pmd: and one of {', '.join(BASELINES)}, got {name!r}."
    )


def _read(logp, old_logp, mask, advantage, weight, length_normalization, max_length, count):
    """Token log-ratios (B, T), advantages (B,), and the factor (B,) of each completion's loss in the batch loss."""
    s = log_ratio(logp, old_logp, mask)
    weight = torch.ones_like(advantage) if weight is None else weight
    for name, value in {"advantage": advantage, "weight": weight}.items():
        _shaped(name, value, logp.shape[:1])
    present = mask.any(-1)
    advantage, weight = (torch.where(present, x.detach().to(s.dtype), 0) for x in (advantage, weight))
    divisor = _divisor(mask, length_normalization, max_length)
    count = torch.as_tensor(present.sum() if count is None else count, device=s.device)
    return s, advantage, weight / (divisor * count.clamp(min=1))


def _divisor(mask, length_normalization, max_length):
    _one_of("length_normalization", length_normalization, LENGTH_NORMALIZATIONS)
    if length_normalization == "none":
        return 1
    if length_normalization == "seq-mean-token-mean":
        return _length(mask)
    if max_length is None or not 0 < max_length < math.inf:
        raise ValueError(
            f"max_length must be a positive number, got {max_length}: seq-mean-token-sum-norm divides by the largest "
            "length a completion can have."
        )
    return max_length


def _length(mask):
    return mask.sum(-1).clamp(min=1)


def _exp(x):
    return x.clamp(max=LARGEST_EXPONENT).exp() * (1 + torch.relu(x - LARGEST_EXPONENT))


def _average(values, valid):
    """Detached mean over the valid entries, 0 if there are none."""
    return torch.where(valid, values.detach(), 0).sum() / valid.sum().clamp(min=1)


def _shaped(name, value, shape):
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)} to go with logp, got {tuple(value.shape)}.")


def _one_of(name, value, accepted):
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}.")
