"""High-precision reference for the exact updates, certified after the fact.

All arithmetic is mpmath on the given doubles taken exactly; the policy is divided by its exact sum. On the
support of p an update is the solution (s, λ, b) of

    s_i + λ e^{s_i} = (r_i − b)/τ,    Σ p_i e^{s_i} = 1,    1 + λ e^{s_i} > 0,

with b given (`baseline`, `pmd_mean`) or λ given (`mixed`, `kl`). The inequality selects the principal branch,
on which Σ p_i e^{s_i} is strictly decreasing in λ and in b, so the solution is unique. It is found by
Newton's method on all unknowns at once, started from a double-precision bisection, and accepted only if the
last step is below 10^-DIGITS of every unknown: however the iteration began, the result solves the system.

`conditioning` says how far one rounding of the input moves the solution: a double-precision solver cannot be
asked for more.
"""

from __future__ import annotations

from dataclasses import dataclass

import mpmath
import numpy as np
from mpmath import mp, mpf
from scipy.special import lambertw, wrightomega

DIGITS = 50
EPS = 2.0**-52


@dataclass(frozen=True)
class Solution:
    """An update in mpmath numbers: lists over actions, scalars for λ (`chi2_weight`) and b (`baseline`)."""

    policy: list
    log_ratio: list
    chi2_weight: mpf
    baseline: mpf


@dataclass(frozen=True)
class Conditioning:
    """Movement of λ, of q in L1 and of the largest entry of s under one rounding of the input."""

    chi2_weight: float
    policy: float
    log_ratio: float


class Problem:
    """One context on its support, exact: p, r, τ, D = (r − r_c)/τ and the working precision."""

    def __init__(self, policy, reward, tau):
        self.size = len(policy)
        self.support = [i for i, p in enumerate(policy) if p > 0]
        with mp.workdps(1000):
            weights = [mpf(float(policy[i])) for i in self.support]
            total = mpmath.fsum(weights)
            self.p = [w / total for w in weights]
            self.r = [mpf(float(reward[i])) for i in self.support]
            self.tau = mpf(float(tau))
            mode = max(range(len(self.p)), key=lambda i: self.p[i])
            self.centre = self.r[mode]
            self.D = [(r - self.centre) / self.tau for r in self.r]
            small = mpmath.fsum(p * min(1, abs(d)) ** 2 for p, d in zip(self.p, self.D))
            lost = 0 if small == 0 else int(max(0, -mpmath.log10(small)))
        self.constant = small == 0
        self.dps = DIGITS + 40 + lost
        self.p_float = np.array([float(p) for p in self.p])
        self.log_p = np.log(self.p_float)
        self.D_float = np.array([float(d) for d in self.D])

    def mean(self, values):
        return mpmath.fsum(p * x for p, x in zip(self.p, values))

    def full(self, s, lam, b) -> Solution:
        policy, log_ratio = [mpf(0)] * self.size, [mpf(0)] * self.size
        for i, p, x in zip(self.support, self.p, s):
            policy[i], log_ratio[i] = p * mpmath.exp(x), x
        return Solution(policy, log_ratio, lam, b)


def log_partition(policy, reward, tau) -> mpf:
    """τ log Z, in reward units."""
    problem = Problem(policy, reward, tau)
    with mp.workdps(problem.dps):
        return _log_partition(problem)


def mean_reward(policy, reward) -> mpf:
    """E_p[r] under the exactly normalised policy."""
    problem = Problem(policy, reward, 1.0)
    with mp.workdps(problem.dps):
        return problem.centre + problem.mean(problem.D)


def largest_baseline(policy, reward, tau) -> mpf:
    """b_max = r_max + τ (1 + log E_p[−W₀(−e^{−1−(r_max−r)/τ})]) (Statement 11)."""
    problem = Problem(policy, reward, tau)
    with mp.workdps(problem.dps):
        top = max(problem.r)
        gaps = [(top - r) / problem.tau for r in problem.r]
        branch = {g: mpf(1) if g == 0 else -mpmath.lambertw(-mpmath.exp(-1 - g)).real for g in set(gaps)}
        return top + problem.tau * (1 + mpmath.log(problem.mean([branch[g] for g in gaps])))


def kl(policy, reward, tau) -> Solution:
    """The KL update: λ = 0, b = τ log Z."""
    problem = Problem(policy, reward, tau)
    with mp.workdps(problem.dps):
        b = _log_partition(problem)
        return problem.full([(r - b) / problem.tau for r in problem.r], mpf(0), b)


def pmd_mean(policy, reward, tau) -> Solution:
    """PMD-mean: b = E_p[r]."""
    problem = Problem(policy, reward, tau)
    with mp.workdps(problem.dps):
        return _given_baseline(problem, problem.centre + problem.tau * problem.mean(problem.D))


def baseline(policy, reward, tau, b) -> Solution:
    """Any baseline up to `largest_baseline`: λ < 0 above τ log Z (Statements 10 and 11)."""
    problem = Problem(policy, reward, tau)
    with mp.workdps(problem.dps):
        return _given_baseline(problem, mpf(b) if isinstance(b, mpf) else mpf(float(b)))


def mixed(policy, reward, tau, chi2_coef) -> Solution:
    """The mixed subproblem max E_q r − τ KL(q‖p) − (κ/2) χ²(q‖p): λ = κ/τ, b unknown."""
    problem = Problem(policy, reward, tau)
    with mp.workdps(problem.dps):
        lam = mpf(float(chi2_coef)) / problem.tau
        if lam == 0:
            return kl(policy, reward, tau)
        return _given_weight(problem, lam)


def _log_partition(problem):
    top = max(problem.D)
    total = problem.mean([mpmath.exp(d - top) for d in problem.D])
    return problem.centre + problem.tau * (top + mpmath.log(total))


def _given_baseline(problem, b):
    delta = [(r - b) / problem.tau for r in problem.r]
    if problem.constant:
        return problem.full([mpf(0)] * len(problem.r), delta[0], b)
    shift = (problem.centre - b) / problem.tau
    delta_float = np.array([float(d) for d in delta])
    start = _start_negative if b > _log_partition(problem) else _start_positive
    lam, s = start(problem, delta_float, float(shift))
    s, lam = _newton(problem, [mpf(x) for x in s], mpf(lam), delta, fixed_weight=False)
    return problem.full(s, lam, b)


def _given_weight(problem, lam):
    if problem.constant:
        return problem.full([mpf(0)] * len(problem.r), lam, problem.centre - problem.tau * lam)
    shift, s = _start_weighted(problem, float(mpmath.log(lam)), float(lam))
    s, shift = _newton(problem, [mpf(x) for x in s], mpf(shift), problem.D, fixed_weight=True, lam=lam)
    return problem.full(s, lam, problem.centre + problem.tau * shift)


def _newton(problem, s, unknown, target, fixed_weight, lam=None):
    """Solve s + λ e^s + n = target, E_p e^s = 1 for s and one of λ (n = 0) and n (λ fixed)."""
    for _ in range(60):
        weight = lam if fixed_weight else unknown
        rho = [mpmath.exp(x) for x in s]
        slope = [1 + weight * x for x in rho]
        offset = unknown if fixed_weight else mpf(0)
        gap = [t - offset - x - weight * y for t, x, y in zip(target, s, rho)]
        column = [mpf(1)] * len(s) if fixed_weight else rho
        excess = problem.mean(rho) - 1 + problem.mean([y * g / a for y, g, a in zip(rho, gap, slope)])
        step = excess / problem.mean([y * c / a for y, c, a in zip(rho, column, slope)])
        move = [(g - c * step) / a for g, c, a in zip(gap, column, slope)]
        unknown += step
        s = [x + m for x, m in zip(s, move)]
        scale = abs(unknown) + (1 if fixed_weight else 0)
        if abs(step) <= mpf(10) ** -DIGITS * scale and all(
            abs(m) <= mpf(10) ** -DIGITS * max(abs(x), abs(m) if x == 0 else 0) for m, x in zip(move, s)
        ):
            weight = lam if fixed_weight else unknown
            if not all(1 + weight * mpmath.exp(x) > 0 for x in s):
                raise ArithmeticError("left the principal branch")
            return s, unknown
    raise ArithmeticError("the reference did not converge")


def _surplus(s):
    """e^s − 1 − s without cancellation."""
    series = s * s / 2 * (1 + s / 3 * (1 + s / 4 * (1 + s / 5 * (1 + s / 6 * (1 + s / 7)))))
    return np.where(np.abs(s) < 0.03, series, np.expm1(np.minimum(s, 709.0)) - s)


def _start_positive(problem, delta, shift):
    """Bisect for log λ; E_p e^s − 1 has the sign of E_p[e^s − 1 − s] + E_p Δ − λ, which keeps its digits."""
    mean_delta = problem.p_float @ problem.D_float + shift
    low, high = -1500.0, np.log(np.max(np.abs(delta)) + 1.0)
    for _ in range(200):
        middle = 0.5 * (low + high)
        s = delta - wrightomega(middle + delta)
        excess = problem.p_float @ _surplus(s) + mean_delta - np.exp(middle)
        low, high = (middle, high) if excess > 0 else (low, middle)
    return mpmath.exp(low), delta - wrightomega(low + delta)


def _start_negative(problem, delta, shift):
    """Bisect for t in −λ = t e^{−1−max Δ}; the branch point is t = 1."""
    mean_delta = problem.p_float @ problem.D_float + shift
    top = delta.max()

    def log_ratio(t):
        u = np.real(lambertw(-t * np.exp(delta - top - 1.0)))
        return delta - np.where(np.isnan(u), -1.0 + 1e-9, u)

    low, high = 0.0, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        lam = -middle * np.exp(-1.0 - top)
        too_much = problem.p_float @ _surplus(log_ratio(middle)) + mean_delta - lam > 0
        low, high = (low, middle) if too_much else (middle, high)
    return -mpf(low) * mpmath.exp(-1 - mpf(top)), log_ratio(low)


def _start_weighted(problem, log_weight, weight):
    """Bisect for the shift n of s + a e^s = D − n with a given; E_p e^s decreases in n."""
    low, high = -2.0 * weight - 2.0 * np.max(np.abs(problem.D_float)) - 1.0, np.max(problem.D_float) + 1.0

    def log_ratio(n):
        return problem.D_float - n - wrightomega(log_weight + problem.D_float - n)

    for _ in range(200):
        middle = 0.5 * (low + high)
        too_much = np.logaddexp.reduce(problem.log_p + log_ratio(middle)) > 0
        low, high = (middle, high) if too_much else (low, middle)
    return low, log_ratio(low)


def conditioning(policy, reward, tau, solution) -> Conditioning:
    """How far one rounding of the input moves a solution whose baseline was given, to first order.

    The baseline, each reward and baseline less the reward of the most probable action, their quotients by τ
    and each probability are moved by 2^-52 of themselves. With u = λρ the system gives
    dλ/dΔ_i = p_i ρ_i/(1+u_i)/S and dλ/dlog p_i = p_i ρ_i/S where S = Σ p ρ²/(1+u), and
    ds_i = (dΔ_i − ρ_i dλ)/(1+u_i).
    """
    problem = Problem(policy, reward, tau)
    if problem.constant:
        return Conditioning(0.0, 0.0, 0.0)
    with mp.workdps(problem.dps):
        rho = [mpmath.exp(solution.log_ratio[i]) for i in problem.support]
        slope = [1 + solution.chi2_weight * x for x in rho]
        shift = (abs(solution.baseline - problem.centre) + abs(solution.baseline)) / problem.tau
        moved = [EPS * (abs(d) + shift) for d in problem.D]
        total = problem.mean([x * x / a for x, a in zip(rho, slope)])
        weight = (problem.mean([x / a * m for x, a, m in zip(rho, slope, moved)]) + EPS) / total
        log_ratio = [(m + x * weight) / a for m, x, a in zip(moved, rho, slope)]
        policy_change = problem.mean([x * (m + EPS) for x, m in zip(rho, log_ratio)])
    return Conditioning(float(weight), float(policy_change), float(max(log_ratio)))


def regression_loss(q, policy, reward, tau, b):
    """E_p[½ (log(q/p) − (r − b)/τ)²]."""
    return 0.5 * policy @ (np.log(q / policy) - (reward - b) / tau) ** 2
