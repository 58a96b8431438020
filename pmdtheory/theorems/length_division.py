r"""Statement 23: division by length is a χ² penalty in proportion to the length.

.. math:: s + λ|y| e^s = A/τ, \qquad λ = \mathrm{Cov}_p(A, 1/|y|)/τ − E_p[s/|y|] ≥ 0.

Assumptions: none.

References
----------
Statement 23.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import family
from . import family_problems, moments
from .claim import Claim
from .statement import claims


@claims("23", family_problems.with_lengths)
def weight_identity(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, lengths: ArrayLike) -> Claim:
    """λ = Cov_p(A, 1/|y|)/τ − E_p[s/|y|].

    Parameters
    ----------
    lengths : array_like, shape (..., K)
        |y| ≥ 1.

    Examples
    --------
    >>> weight_identity([0.5, 0.5], [0.0, 1.0], 1.0, [1, 10]).value.round(4)
    np.float64(0.0118)
    """
    p, D = moments.targets(policy, reward, tau)
    law, inverse = _law(policy, reward, tau, lengths), 1 / np.asarray(lengths, dtype=float)
    predicted = moments.mean(p * inverse, D) - moments.mean(p * inverse, law.log_ratio)
    size = moments.mean(p * inverse, np.abs(D) + np.abs(law.log_ratio))
    return Claim("λ = Cov(A, 1/|y|)/τ − E_p[s/|y|]", law.chi2_weight, predicted, relation="==", scale=size)


@claims("23", family_problems.with_lengths)
def improves(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, lengths: ArrayLike) -> Claim:
    """E_q[r] ≥ r̄ + τ KL(q‖p), with equality only at p."""
    p, D = moments.targets(policy, reward, tau)
    s = _law(policy, reward, tau, lengths).log_ratio
    return Claim("divided by length: E_q r ≥ r̄ + τ KL(q‖p)", moments.kl(p, s), moments.improvement(p, s, D))


@claims("23", family_problems.with_lengths)
def ratio_falls_with_length(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, lengths: ArrayLike) -> Claim:
    """Among actions of equal reward the longer one has the smaller ratio: largest rise, against 0."""
    s = _law(policy, reward, tau, lengths).log_ratio
    r, length = np.asarray(reward), np.asarray(lengths)
    pairs = (r[..., :, None] == r[..., None, :]) & (length[..., :, None] > length[..., None, :])
    rise = np.where(pairs, s[..., :, None] - s[..., None, :], -np.inf).max(axis=(-1, -2))
    some = pairs.any(axis=(-1, -2))
    return Claim("at equal reward longer means less", np.where(some, rise, 0.0), 0.0, some, scale=1 + np.abs(s).max(-1))


def _law(policy, reward, tau, lengths):
    return family.MEMBERS["length-divided"].law(policy, reward, tau, lengths=lengths)
