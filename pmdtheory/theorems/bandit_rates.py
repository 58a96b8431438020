r"""Statement 16, bandit part: how fast the exact recursions reach the best actions.

With r* the best reward, Δ_a = r* − r_a and p₀* the initial mass of the best actions, gap_t = r* − E_{π_t}[r] obeys

.. math::

    \text{KL, B8:} \quad gap_t &≤ \sum_a Δ_a \frac{π_0(a)}{p_0^*} e^{−tΔ_a/τ}, \\
    \text{PMD-mean, B11:} \quad gap_t &≤ \frac1t \Big[τ \log\frac1{p_0^*} + \frac{r^* − \bar r_0}{p_0^*}\Big].

B8: π_t ∝ π₀ e^{tr/τ}, whose normaliser is at least that of the best actions. B11: the mean of s + λρ = A/τ over the
best actions telescopes the KL divergence, and τλρ(a*) ≤ improvement/p₀* (Statement 5, the mass of the best actions
never falling) telescopes the reward; gap_t decreases, so it is at most the average gap before step t.

Assumptions: some mass on the best actions, which is how "best" is meant: r* is the largest reward on the support.

References
----------
Statement 16, B8 and B11; for B8 Xiao, arXiv 2201.07443.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex, updates
from .claim import Claim
from .statement import claims


@claims("B8")
def kl_rate(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, steps: int = 15) -> Claim:
    """Bound B8 on the KL recursion.

    Parameters
    ----------
    policy, reward : array_like, shape (..., K)
        Initial policy π₀ and rewards.
    tau : array_like, shape (...)
        Temperature of every step, positive.
    steps : int
        Number T of steps.

    Returns
    -------
    Claim
        The reward gap against its bound after 1, …, T steps; shape (..., T).

    Examples
    --------
    >>> claim = kl_rate([0.5, 0.5], [0.0, 1.0], tau=1.0, steps=3)
    >>> claim.value.round(3), claim.bound.round(3)
    (array([0.269, 0.119, 0.047]), array([0.368, 0.135, 0.05 ]))
    """
    p, gaps, log_best, tau = _start(policy, reward, tau)
    time = np.arange(1, steps + 1)[:, None]
    with np.errstate(divide="ignore"):
        log_terms = np.log(p * gaps)[..., None, :] - time * (gaps / tau[..., None])[..., None, :]
    bound = np.exp(log_terms - log_best[..., None, None]).sum(axis=-1)
    value = _gaps(updates.kl_update, p, gaps, tau, steps)
    return Claim("KL: gap_t ≤ Σ Δ_a π₀(a) e^{−tΔ_a/τ}/p₀*", value, bound)


@claims("B11")
def pmd_mean_rate(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, steps: int = 15) -> Claim:
    """Bound B11 on the PMD-mean recursion.

    Examples
    --------
    >>> claim = pmd_mean_rate([0.5, 0.5], [0.0, 1.0], tau=1.0, steps=3)
    >>> claim.value.round(3), claim.bound.round(3)
    (array([0.286, 0.135, 0.056]), array([1.693, 0.847, 0.564]))
    """
    p, gaps, log_best, tau = _start(policy, reward, tau)
    total = np.einsum("...k,...k->...", p, gaps) * np.exp(-log_best) - tau * log_best
    value = _gaps(updates.pmd_mean_update, p, gaps, tau, steps)
    return Claim("PMD-mean: gap_t ≤ [τ log 1/p₀* + gap₀/p₀*]/t", value, total[..., None] / np.arange(1, steps + 1))


def _start(policy, reward, tau):
    """Return p, the reward gaps Δ_a (0 where p = 0), the log mass of the best actions, and tau."""
    p, r, tau = simplex.problem(policy, reward, tau)
    best = r.max(axis=-1, where=p > 0, initial=-np.inf)[..., None]
    mass, rest = (np.where(which, p, 0.0).sum(axis=-1) for which in (r == best, r != best))
    return p, np.where(p > 0, best - r, 0.0), np.where(rest < mass, np.log1p(-np.minimum(rest, 0.5)), np.log(mass)), tau


def _gaps(update, p, gaps, tau, steps):
    """Iterate `update` and return the expected reward gap after each step."""
    history = []
    for _ in range(steps):
        p = update(p, -gaps, tau).policy
        history.append(np.einsum("...k,...k->...", p, gaps))
    return np.stack(history, axis=-1)
