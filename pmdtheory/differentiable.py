r"""The exact updates in PyTorch: batched, on any device, and differentiable: a network can be trained through one.

=============  ====================================================================
`kl`           q ∝ p e^{r/τ}
`baseline`     s + λ e^s = (r − b)/τ, b ≤ τ log Z
`pmd_mean`     the same at b = E_p[r]
`mixed`        s + (κ/τ) e^s = (r − V)/τ
=============  ====================================================================

With unknowns (s, x), x = λ or V/τ, an update solves F = 0: the stationarity of every action, and E_p[e^s] = 1. They
are found without a gradient, within about 1e-3; then Newton's step is taken on F of the arguments, and again:

.. math:: (s, x) \leftarrow (s, x) − J^{-1} F(s, x;\, p, r, τ, …).

Nothing but rounding is left to move in the last two steps, but by the implicit function theorem the first of them has
the first derivatives of the solution and the second one its second derivatives. J is bordered diagonal: a step costs
two sums over the actions.

Arguments are tensors (..., K) and (...), of one dtype and device; float64 is as good as `pmdtheory.updates` in q, while
λ is exact to rounding of 1 rather than of itself, and with it s where q is below that. Rows at the limits of
floating-point numbers are refused rather than solved. In float32 q is good to about 1e-5 (L1). ``torch.func`` may
differentiate all of them; of ``torch.func.vmap``, which they do not need, only `kl` can be an argument.

What `pmdtheory.updates` refuses is refused with the same words: on a CPU always, and so is a τ, b or κ that is a Python
number. On a GPU `kl` waits for nothing, and NaN passes through it; the others wait for their solution, and say what is
wrong with τ, κ, or whatever left no solution.

References
----------
Statements 1, 2, 3 and 10.
"""

from typing import NamedTuple

import numpy as np
import torch

from . import simplex

__all__ = ["Solution", "baseline", "kl", "mixed", "pmd_mean"]

_ROUNDS = 200


class Solution(NamedTuple):
    """An update: q and s = log(q/p) (..., K), the χ² weight λ or κ/τ and the baseline b or V (...)."""

    policy: torch.Tensor
    log_ratio: torch.Tensor
    chi2_weight: torch.Tensor
    baseline: torch.Tensor


def kl(policy: torch.Tensor, reward: torch.Tensor, tau: torch.Tensor | float) -> Solution:
    """The KL update; arguments and derivatives as the module says.

    Examples
    --------
    >>> kl(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), 1.0).policy
    tensor([0.2689, 0.7311])
    """
    return _kl(*_arguments(policy, reward, tau))


def _kl(p, r, tau):
    log_z = torch.where(p > 0, p, 1).log().masked_fill(p <= 0, -torch.inf)
    log_z = torch.logsumexp(log_z + r / tau[..., None], dim=-1)
    s = torch.where(p > 0, r / tau[..., None] - log_z[..., None], 0)
    return Solution(p * s.exp(), s, torch.zeros_like(log_z), tau * log_z)


def pmd_mean(policy: torch.Tensor, reward: torch.Tensor, tau: torch.Tensor | float) -> Solution:
    """PMD-mean.

    Examples
    --------
    >>> reward = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    >>> update = pmd_mean(torch.tensor([0.5, 0.5]).double(), reward, 1.0)
    >>> update.policy
    tensor([0.2862, 0.7138], dtype=torch.float64, grad_fn=<MulBackward0>)
    >>> torch.autograd.grad(update.policy[1], reward)[0]
    tensor([-0.1615,  0.1615], dtype=torch.float64)
    """
    p, r, tau = _arguments(policy, reward, tau)
    return _with_baseline(p, r, tau)


def baseline(
    policy: torch.Tensor, reward: torch.Tensor, tau: torch.Tensor | float, baseline: torch.Tensor | float
) -> Solution:
    """The regression on (r − b)/τ.

    Raises
    ------
    ValueError
        A baseline is above τ log Z (Statement 11 is left to `pmdtheory.baseline_update`).
    """
    p, r, tau, b = _arguments(policy, reward, tau, baseline=baseline)
    limit = _kl(p.detach(), r.detach(), tau.detach()).baseline
    above = b.detach() > limit + 64 * torch.finfo(p.dtype).eps * (1 + limit.abs() + b.detach().abs())
    if above.any():
        raise ValueError(
            f"baseline must be at most tau * log Z = {limit[above][0]:.6g}, got {b.detach()[above][0]:.6g}: above it "
            "use pmdtheory.baseline_update."
        )
    return _with_baseline(p, r, tau, baseline=b)


def mixed(
    policy: torch.Tensor, reward: torch.Tensor, tau: torch.Tensor | float, chi2_coef: torch.Tensor | float
) -> Solution:
    """The update with a fixed χ² penalty κ ≥ 0, reward units."""
    p, r, tau, kappa = _arguments(policy, reward, tau, chi2_coef=chi2_coef)
    a = kappa / tau
    D = torch.where(p > 0, (r - (p * r).sum(-1, keepdim=True)) / tau[..., None], 0)
    with torch.no_grad():
        top, low = _largest(p, D), -_largest(p, -D)
        log_z = top + (p * (D - top[..., None]).exp()).sum(-1).log()
        s, weight, n = _root(p, D, a, low - a, log_z - a, finds_weight=False)
        s, _, n = _implicit(p, D, s, weight, n, finds_weight=False)
    s, _, n = _implicit(p, D, s, a, n, finds_weight=False)
    return _solution((p, r, tau), s, a, (p * r).sum(-1) + tau * n, chi2_coef=kappa)


def _with_baseline(p, r, tau, **given):
    b = given.get("baseline", (p * r).sum(-1))
    D = torch.where(p > 0, (r - b[..., None]) / tau[..., None], 0)
    with torch.no_grad():
        mean = (p * D).sum(-1)
        sd = (p * (D - mean[..., None]) ** 2).sum(-1).sqrt()
        zero = torch.zeros_like(mean)
        high = torch.minimum((mean + torch.hypot(mean, sd)) / 2, _largest(p, D)).clamp(min=0)
        s, weight, shift = _root(p, D, zero, zero, high, finds_weight=True)
        s, weight, _ = _implicit(p, D, s, weight, shift, finds_weight=True)
    s, weight, _ = _implicit(p, D, s, weight, torch.zeros_like(weight), finds_weight=True)
    return _solution((p, r, tau), s, weight, b, **given)


def _implicit(p, D, s, weight, shift, finds_weight):
    """Two of Newton's steps on s + λ e^s = D − n, E_p[e^s] = 1, in s and either λ or n: the solution's derivatives."""
    for _ in range(2):
        rho = s.exp()
        F, G = s + weight[..., None] * rho - (D - shift[..., None]), torch.where(p > 0, p * rho, 0).sum(-1) - 1
        inverse = 1 / (1 + weight[..., None] * rho)
        pull = rho if finds_weight else torch.ones_like(rho)  # ∂F/∂λ or ∂F/∂n
        step = (G - (p * rho * F * inverse).sum(-1)) / (p * rho * pull * inverse).sum(-1)
        s = torch.where(p > 0, s - (F + pull * step[..., None]) * inverse, 0)
        weight, shift = (weight + step, shift) if finds_weight else (weight, shift + step)
    return s, weight, shift


def _solution(problem, s, weight, b, **given):
    p, _, tau = problem
    q = p * s.exp()
    off = (q.detach().sum(-1) - 1).abs().max() if q.numel() else torch.zeros(())
    valid = (tau > 0).all() & (given.get("chi2_coef", tau) >= 0).all()
    if not (valid & (off < 1e4 * torch.finfo(p.dtype).eps)):
        _refuse(*problem, **given)
        raise ValueError(
            f"tau must be larger, or policy have no probabilities near 0, for {p.dtype}: the update is off by "
            f"{float(off):.2g}; pmdtheory.updates solves such rows."
        )
    return Solution(q, s, weight, b)


def _arguments(policy, reward, tau, **given):
    """Broadcast p and r to (..., K), tau and those given to (...); refuse what can be seen without a GPU."""
    p = torch.as_tensor(policy)
    if not p.is_floating_point() or p.ndim == 0:
        raise ValueError(f"policy must be a tensor (..., K) of real numbers, got {p.dtype}, {tuple(p.shape)}.")
    typed = {name: x for name, x in {"tau": tau, **given}.items() if not torch.is_tensor(x)}
    r, tau, *others = (torch.as_tensor(x, dtype=p.dtype, device=p.device) for x in (reward, tau, *given.values()))
    if r.ndim == 0 or r.shape[-1] != p.shape[-1]:
        raise ValueError(f"reward must have one entry per action, {p.shape[-1]}, got shape {tuple(r.shape)}.")
    if all(_at_hand(x) for x in (p, r, tau, *others)):
        _refuse(p, r, tau, **dict(zip(given, others)))
    for name, value in typed.items():
        _ACCEPTED[name](value, name)
    batch = torch.broadcast_shapes(p.shape[:-1], r.shape[:-1], *(x.shape for x in (tau, *others)))
    return p.expand(*batch, p.shape[-1]), r.expand(*batch, p.shape[-1]), *(x.expand(batch) for x in (tau, *others))


def _at_hand(tensor):
    """Whether looking at values waits for nothing, neither for a GPU nor for the other rows of ``torch.func.vmap``."""
    return tensor.device.type == "cpu" and torch.func.debug_unwrap(tensor).shape == tensor.shape


_ACCEPTED = {"tau": simplex.positive, "baseline": simplex.finite, "chi2_coef": simplex.nonnegative}


def _refuse(p, r, tau, **given):
    """Raise what `pmdtheory.updates` raises of such arguments."""
    tensors = (x.detach().double().cpu() for x in (p, r, tau, *given.values()))
    p, r, tau, *others = (np.from_dlpack(torch.func.debug_unwrap(x)) for x in tensors)  # of torch.func's too
    given = dict(zip(given, others))
    for name, value in given.items():
        _ACCEPTED[name](value, name)
    simplex.problem(p, r, tau, **given)


def _largest(p, x):
    return x.masked_fill(p <= 0, -torch.inf).amax(-1)


def _root(p, D, fixed, low, high, finds_weight):
    """s, λ and n, one of the last two in [`low`, `high`], the other `fixed`; s is within about 1e-3 of the solution.

    E_p[e^s] falls in both. Newton's method, on the reciprocal for λ and on the logarithm for n, in which either is
    close to linear; where it leaves the bracket, the bracket is halved.
    """
    x = high
    for _ in range(_ROUNDS):
        weight, shift = (x, fixed) if finds_weight else (fixed, x)
        s = torch.where(p > 0, _log_ratio(D - shift[..., None], weight[..., None]), 0)
        rho = s.exp()
        pull = (rho if finds_weight else 1) / (1 + weight[..., None] * rho)  # −ds/dx
        mass = (p * rho).sum(-1)
        step = mass * (mass - 1 if finds_weight else mass.log()) / (p * rho * pull).sum(-1)
        near = ~(step.abs() * pull.amax(-1) >= 1e-3)  # NaN is left to the check of the solution
        if bool(near.all()):
            break
        low, high = torch.where(mass > 1, x, low), torch.where(mass > 1, high, x)
        new = torch.where((x + step > low) & (x + step < high), x + step, low / 2 + high / 2)
        x = torch.where(near, x, new)
    return s, weight, shift


def _log_ratio(d, weight):
    """s of s + λ e^s = d within 4e-5: a rational fit of W(x) for x = e^z ≤ e; above, a Newton step in log ω."""
    log_weight = weight.log()
    z = d + log_weight
    x, above = z.clamp(max=1).exp(), z.clamp(min=1)
    low = d - x * (1 + x * (1.67666 + 0.351145 * x)) / (1 + x * (2.67666 + x * (1.53565 + 0.126332 * x)))
    omega = above - 4.21463 * ((above - 1) / (above + 7.82567))
    log_omega = omega.log()
    return torch.where(z > 1, log_omega + (above - log_omega - omega) / (1 + omega) - log_weight, low)
