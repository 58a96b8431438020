r"""Gradients averaged over the policy itself: rollouts that are always fresh, or weights ρ that are not differentiated.

Then q (r − V − τ s) = C q: the KL law, whatever V is. Divided by length, q (r − V − τ s)/|y| = C q is the KL law of the
reward r − C |y|, and V matters again:

.. math:: τ s = r − V − C |y|.

References
----------
Statement 19.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import convex, simplex, updates
from ..updates import Update
from . import normalisation
from .length_divided import checked
from .member import Member


def law(
    policy: ArrayLike,
    reward: ArrayLike,
    tau: ArrayLike,
    lengths: ArrayLike | None = None,
    baseline: ArrayLike | None = None,
) -> Update:
    """The KL law, or with `lengths` that of r − C|y|.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`.
    lengths : array_like, shape (..., K), optional
        |y| ≥ 1 of each action, where the loss of a completion is divided by it.
    baseline : array_like, shape (...), optional
        V, reward units, by default r̄; irrelevant without `lengths`.

    Examples
    --------
    >>> law([0.5, 0.5], [0.0, 1.0], tau=1.0).policy.round(4)
    array([0.2689, 0.7311])
    >>> law([0.5, 0.5], [0.0, 1.0], tau=1.0, lengths=[1, 10]).policy.round(4)
    array([0.2984, 0.7016])
    """
    if lengths is None:
        return updates.kl_update(policy, reward, tau)
    p, r, tau, lengths = checked(policy, reward, tau, lengths)
    if baseline is not None:
        p, r, tau, baseline = simplex.problem(p, r, tau, baseline=baseline)
        lengths = np.broadcast_to(lengths, p.shape)
    D, mean = updates.centred_targets(p, r, tau)[0], np.einsum("...k,...k->...", p, r)
    V = mean if baseline is None else baseline
    target = D + ((mean - V) / tau)[..., None]
    K, on = p.shape[-1], p > 0
    T, L = (np.where(on, x, y).reshape(-1, K) for x, y in ((target, -np.inf), (lengths, 1.0)))

    def ratio(rows, c):
        rho = np.exp(np.minimum(T[rows] - c[:, None] * L[rows], 700.0))
        return rho, rho * L[rows]

    slopes = np.where(on, target / lengths, np.nan)
    low, high = np.nanmin(slopes, axis=-1), np.nanmax(slopes, axis=-1)
    c = normalisation.solve(p, ratio, low, high, 0.0)
    return normalisation.update(p, np.exp(np.where(on, target - c[..., None] * lengths, 0.0)), V)


def _convex(policy, reward, tau, lengths=None, baseline=None, **solver_options):
    if lengths is not None:
        raise ValueError("lengths must be None for the convex statement: with a division by length there is none.")
    return convex.kl(policy, reward, tau, **solver_options)


MEMBER = Member(
    name="on-policy",
    papers="Tang and Munos 2506.09477; the k2 penalty in the loss, the k1 penalty in the reward",
    formula="E_q (r − V − τ s)², gradient of the square only",
    decides="averaged over the policy, so V cancels",
    law_formula="s = r/τ − log Z",
    exists="always",
    statement="19",
    function=law,
    convex=_convex,
)
