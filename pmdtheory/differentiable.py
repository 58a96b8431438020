r"""The exact updates in PyTorch: batched, on any device, and differentiable: a network can be trained through one.

=============  ====================================================================
`kl`           q ∝ p e^{r/τ}
`baseline`     s + λ e^s = (r − b)/τ, b ≤ τ log Z
`pmd_mean`     the same at b = E_p[r]
`mixed`        s + (κ/τ) e^s = (r − V)/τ
=============  ====================================================================

With unknowns (s, x), x = λ or V/τ, an update solves F = 0: the stationarity of every action, and E_p[e^s] = 1. They
are found without a gradient, in a bracket; then Newton's step is taken on F of the arguments, and again:

.. math:: (s, x) \leftarrow (s, x) − J^{-1} F(s, x;\, p, r, τ, …).

Nothing moves, but by the implicit function theorem the first step has the first derivatives of the solution and the
second one its second derivatives. J is bordered diagonal: the step costs two sums over the actions.

Arguments are tensors (..., K) and (...), of one dtype and device; float64 is as good as `pmdtheory.updates` in q, while
λ is exact to rounding of 1 rather than of itself, and rows at the limits of floating-point numbers are refused rather
than solved. In float32 q is good to about 1e-6. Nothing is checked that would wait for a GPU but that the solution is
one.

References
----------
Statements 1, 2, 3 and 10.
"""

from typing import NamedTuple

import torch

__all__ = ["Solution", "baseline", "kl", "mixed", "pmd_mean"]

_ROUNDS, _INNER = 200, 60


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
    p, r, tau = _arguments(policy, reward, tau)
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
    return _with_baseline(p, r, tau, (p * r).sum(-1))


def baseline(
    policy: torch.Tensor, reward: torch.Tensor, tau: torch.Tensor | float, baseline: torch.Tensor | float
) -> Solution:
    """The regression on (r − b)/τ.

    Raises
    ------
    ValueError
        A baseline is above τ log Z (Statement 11 is left to `pmdtheory.baseline_update`).
    """
    p, r, tau = _arguments(policy, reward, tau)
    b = torch.as_tensor(baseline, dtype=p.dtype, device=p.device).expand(tau.shape)
    limit = kl(p.detach(), r.detach(), tau.detach()).baseline
    above = b.detach() > limit + 64 * torch.finfo(p.dtype).eps * (1 + limit.abs() + b.detach().abs())
    if above.any():
        raise ValueError(
            f"baseline must be at most tau * log Z = {limit[above][0]:.6g}, got {b.detach()[above][0]:.6g}: above it "
            "use pmdtheory.baseline_update."
        )
    return _with_baseline(p, r, tau, b)


def mixed(
    policy: torch.Tensor, reward: torch.Tensor, tau: torch.Tensor | float, chi2_coef: torch.Tensor | float
) -> Solution:
    """The update with a fixed χ² penalty κ ≥ 0, reward units."""
    p, r, tau = _arguments(policy, reward, tau)
    kappa = torch.as_tensor(chi2_coef, dtype=p.dtype, device=p.device).expand(tau.shape)
    a = kappa / tau
    D = torch.where(p > 0, (r - (p * r).sum(-1, keepdim=True)) / tau[..., None], 0)
    with torch.no_grad():
        fixed = a.detach()

        def mass(n):
            s = _log_ratio(D.detach() - n[..., None], fixed)
            return torch.where(p > 0, p * s.exp(), 0).sum(-1), s

        top, low = _largest(p, D.detach()), _largest(p, -D.detach())
        n, s = _root(mass, -low - fixed, top - fixed)
    s, _, n = _implicit(p, D, s, a, n, finds_weight=False)
    return _solution(p, s, a, (p * r).sum(-1) + tau * n)


def _with_baseline(p, r, tau, b):
    D = torch.where(p > 0, (r - b[..., None]) / tau[..., None], 0)
    with torch.no_grad():
        fixed = D.detach()

        def mass(weight):
            s = _log_ratio(fixed, weight)
            return torch.where(p > 0, p * s.exp(), 0).sum(-1), s

        top = _largest(p, fixed).clamp(min=0)
        weight, s = _root(mass, torch.zeros_like(top), top)
    s, weight, _ = _implicit(p, D, s, weight, torch.zeros_like(weight), finds_weight=True)
    return _solution(p, s, weight, b)


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


def _solution(p, s, weight, baseline):
    q = p * s.exp()
    off = (q.detach().sum(-1) - 1).abs().max() if q.numel() else torch.zeros(())
    if not off < 1e4 * torch.finfo(p.dtype).eps:
        raise ValueError(
            f"tau must be larger, or policy have no probabilities near 0, for {p.dtype}: the update is off by "
            f"{float(off):.2g}; pmdtheory.updates solves such rows."
        )
    return Solution(q, s, weight, baseline)


def _arguments(policy, reward, tau):
    """Broadcast p and r to (..., K) and tau to (...)."""
    p = torch.as_tensor(policy)
    if not p.is_floating_point() or p.ndim == 0:
        raise ValueError(f"policy must be a tensor (..., K) of real numbers, got {p.dtype}, {tuple(p.shape)}.")
    r, tau = (torch.as_tensor(x, dtype=p.dtype, device=p.device) for x in (reward, tau))
    if r.ndim == 0 or r.shape[-1] != p.shape[-1]:
        raise ValueError(f"reward must have one entry per action, {p.shape[-1]}, got shape {tuple(r.shape)}.")
    batch = torch.broadcast_shapes(p.shape[:-1], r.shape[:-1], tau.shape)
    return p.expand(*batch, p.shape[-1]), r.expand(*batch, p.shape[-1]), tau.expand(batch)


def _largest(p, x):
    return x.masked_fill(p <= 0, -torch.inf).amax(-1)


def _root(mass, low, high):
    """The x between `low` and `high` where a mass, which falls in x, is 1, by Chandrupatla's bracketing; and its s."""
    eps = torch.finfo(low.dtype).eps
    margin = 4 * eps * (1 + low.abs() + high.abs())
    low, high = low.clone(), high + margin
    fl, fh = mass(low)[0] - 1, mass(high)[0] - 1
    low, fl = torch.where(fl < 0, low - margin, low), fl.clamp(min=0)
    c, fc = low.clone(), fl.clone()
    x, fx, t = high.clone(), fh.clone(), torch.full_like(low, 0.5)
    best = high
    for _ in range(_ROUNDS):
        new = x + t * (low - x)
        value = mass(new)[0] - 1
        same = torch.sign(value) == torch.sign(fx)
        c, fc = torch.where(same, x, low), torch.where(same, fx, fl)
        low, fl = torch.where(same, low, x), torch.where(same, fl, fx)
        x, fx = new, value
        best = torch.where(fl.abs() < fx.abs(), low, x)
        width = (low - x).abs()
        tolerance = 2 * eps * best.abs() + eps * eps
        share = tolerance / width.clamp(min=torch.finfo(low.dtype).tiny)
        if bool(((share > 0.5) | (fx == 0) | (fl == 0)).all()):
            break
        xi, phi = (x - low) / (c - low), (fx - fl) / (fc - fl)
        quadratic = (phi * phi < xi) & ((1 - phi) ** 2 < 1 - xi)
        guess = fx / (low * 0 + fl - fx) * fc / (fl - fc) + (c - x) / (low - x) * fx / (fc - fx) * fl / (fc - fl)
        t = torch.where(quadratic & guess.isfinite(), guess, 0.5)
        t = torch.minimum(torch.maximum(t, share), 1 - share).clamp(0, 1)
    return best, mass(best)[1]


def _log_ratio(d, weight):
    """s of s + λ e^s = d: Newton from above, where it converges without a safeguard."""
    weight = weight[..., None].clamp(min=0)
    tiny = torch.finfo(d.dtype).tiny
    s = torch.minimum(d, ((d.clamp(min=0) + 1) / weight.clamp(min=tiny)).log())
    for _ in range(_INNER):
        u = weight * s.exp()
        step = (s + u - d) / (1 + u)
        s = s - step
        if bool((step.abs() <= 4 * torch.finfo(d.dtype).eps * (1 + s.abs())).all()):
            break
    return s
