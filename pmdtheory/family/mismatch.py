r"""Rollouts from one policy, log-ratios against another: sampler g, anchor p.

The weights are g/p and the baseline is E_g[r], the mean of what was sampled:

.. math:: s + λ (p/g) e^s = (r − E_g[r])/τ.

E_g[r] may exceed τ log Z of the anchor, and then more successes in the rollouts can mean fewer afterwards.

References
----------
Statement 26.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex, updates
from ..updates import Update
from . import weighted
from .member import Member


def law(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, sampler: ArrayLike, baseline: ArrayLike | None = None
) -> Update:
    """Solve s + λ (p/g) e^s = (r − V)/τ.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`.
    sampler : array_like, shape (..., K)
        g, positive exactly where p is.
    baseline : array_like, shape (...), optional
        V ≤ τ log Z of the anchor, reward units; by default E_g[r].

    Raises
    ------
    ValueError
        Also if V exceeds τ log Z.

    Examples
    --------
    >>> law([0.1, 0.9], [1.0, 0.0], tau=1.0, sampler=[0.15, 0.85]).policy[0].round(3)
    np.float64(0.231)
    """
    return weighted.solve(*_parts(policy, reward, tau, sampler, baseline), "E_g[r] must be at most tau log Z")  # type: ignore[call-arg]


def _parts(policy, reward, tau, sampler, baseline=None):
    g = simplex.distribution(sampler, "sampler")
    p, r, tau = simplex.problem(policy, reward, tau)
    if g.shape[-1] != p.shape[-1]:
        raise ValueError(f"sampler must have one entry per action: policy has shape {p.shape}, sampler {g.shape}.")
    p, r, g = np.broadcast_arrays(p, r, g)
    p, r, tau = simplex.problem(p, r, tau)
    if ((g > 0) != (p > 0)).any():
        raise ValueError("sampler must be positive exactly where policy is: nothing else is ever regressed.")
    V = np.einsum("...k,...k->...", g, r) if baseline is None else simplex.problem(p, r, tau, baseline=baseline)[3]
    ideal = updates.kl_update(p, r, tau).baseline
    above = ideal + 1e-12 * (np.abs(ideal) + np.abs(r).max(axis=-1)) < V
    if above.any():
        i = np.argwhere(above)[0]
        name = "E_g[r], the mean reward of sampler," if baseline is None else "baseline"
        raise ValueError(
            f"{name} must be at most tau * log Z of policy, {ideal[tuple(i)]:.6g}, for the law to be unique "
            f"(Statement 26), got {V[tuple(i)]:.6g}."
        )
    weight = np.where(p > 0, g / np.where(p > 0, p, 1.0), 0.0)
    return p, weight, weight * (r - V[..., None]), tau


def _convex(policy, reward, tau, sampler, baseline=None, **solver_options):
    return weighted.solve_convex(*_parts(policy, reward, tau, sampler, baseline), **solver_options)


MEMBER = Member(
    name="mismatch",
    papers="training and inference engines that disagree; off-policy rollouts",
    formula="E_g (r − E_g[r] − τ log(q/p))²",
    decides="weights g/p, V of the sampler",
    law_formula="s + λ (p/g) e^s = (r − E_g[r])/τ",
    exists="E_g[r] ≤ τ log Z",
    statement="26",
    function=law,
    example={"sampler": (0.92, 0.08)},
    convex=_convex,
)
