r"""Rewards replaced by their ranks, whose partition function is known: QRPO.

Without ties the rank of a reward under the anchor is uniform, Z = τ (e^{1/τ} − 1), and the regression on
(rank − τ log Z)/τ is the KL law of the rank, nothing estimated. With ties P(r' ≤ r) has the larger Z (Statement 10)
and mid-ranks the smaller one (Statement 11). Exact, with F the cumulative probability of a level k of probability P:

.. math:: R_k = τ \log\big(τ (e^{F_k/τ} − e^{F_{k−1}/τ})/P_k\big).

References
----------
Statement 29.
"""


from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import convex, partition, simplex, updates
from ..updates import Update
from .member import Member


def law(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, ranks: Literal["at-most", "middle", "exact"] = "at-most"
) -> Update:
    """The update of ranked rewards at the baseline of untied ones.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`; τ in units of a rank. Actions with equal rewards are ties.
    ranks : {'at-most', 'middle', 'exact'}
        P(r' ≤ r) as published, P(r' < r) + P(r' = r)/2, or R_k.

    Returns
    -------
    Update
        Its ``baseline`` is τ log(τ (e^{1/τ} − 1)), in units of a rank.

    Raises
    ------
    ValueError
        Also if mid-ranks have no principal-branch solution.

    Examples
    --------
    >>> for ranks in ("at-most", "exact"):
    ...     print(law([0.5, 0.5], [0.0, 1.0], tau=0.1, ranks=ranks).policy[1].round(3))
    0.968
    0.993
    """
    p, rank, tau, baseline = _parts(policy, reward, tau, ranks)
    if ranks == "exact":
        return updates.kl_update(p, rank, tau)
    try:
        return updates.baseline_update(p, rank, tau, baseline)
    except ValueError as error:
        if "Statement 11" not in str(error):
            raise
        raise ValueError(
            "ranks must be 'exact' here: mid-ranks leave too little mass for a principal-branch law (Statement 29)."
        ) from None


def _parts(policy, reward, tau, ranks):
    if ranks not in ("at-most", "middle", "exact"):
        raise ValueError(f"ranks must be 'at-most', 'middle' or 'exact', got {ranks!r}.")
    p, r, tau = simplex.problem(policy, reward, tau)
    below = np.einsum("...jk,...k->...j", r[..., :, None] > r[..., None, :], p)
    level = np.einsum("...jk,...k->...j", r[..., :, None] == r[..., None, :], p)
    baseline = partition.log_partition_of_ranks(tau)
    if ranks == "exact":
        size = np.where(level > 0, level, 1.0)
        x = size / tau[..., None]
        rank = below + level + tau[..., None] * np.log(-np.expm1(-x) / x)
    else:
        rank = below + (level if ranks == "at-most" else level / 2)
    return p, np.where(p > 0, rank, 0.0), tau, baseline


def _convex(policy, reward, tau, ranks="at-most", **solver_options):
    p, rank, tau, baseline = _parts(policy, reward, tau, ranks)
    if ranks == "middle":
        raise ValueError("ranks must be 'at-most' or 'exact' for the convex statement: mid-ranks overshoot.")
    if ranks == "exact":
        return convex.kl(p, rank, tau, **solver_options)
    return convex.regression(p, rank, tau, baseline, **solver_options)


MEMBER = Member(
    name="quantile",
    papers="QRPO 2507.08068",
    formula="E_p (rank(r) − τ log[τ(e^{1/τ} − 1)] − τ s)²",
    decides="a partition function that is known, up to ties",
    law_formula="KL law of the rank without ties; with ties s + λ e^s = (P(r' ≤ r) − b)/τ",
    exists="always for P(r' ≤ r) and exact ranks; mid-ranks as Statement 11",
    statement="29",
    function=law,
    convex=_convex,
)
