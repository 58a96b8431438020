r"""Statement 6: the χ² weight of PMD-mean is at most the Jensen gap.

With Δ = (r − r̄)/τ,

.. math:: λ (1 + χ^2(q\|p)) ≤ \log E_p[e^Δ] = \mathrm{KL}(p\|q_{KL}), \qquad λ ≤ \mathrm{sd}_p(Δ)/2, \qquad λ ≤ \max Δ.

Assumptions: none.

References
----------
Statement 6.
"""

from numpy.typing import ArrayLike

from .. import updates
from . import moments
from .claim import Claim
from .statement import claims


@claims("6")
def gap_is_reverse_kl_of_kl_update(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """log E_p[e^Δ] = KL(p‖q_KL).

    Examples
    --------
    >>> gap_is_reverse_kl_of_kl_update([0.5, 0.5], [0.0, 1.0], tau=1.0).value.round(4)
    np.float64(0.1201)
    """
    p, D = moments.targets(policy, reward, tau)
    s = updates.kl_update(policy, reward, tau).log_ratio
    return Claim("KL(p‖q_KL) = log E_p e^Δ", moments.reverse_kl(p, s), moments.jensen_gap(p, D), relation="==")


@claims("6")
def weight_below_jensen_gap(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """λ(1 + χ²(q‖p)) ≤ log E_p[e^Δ].

    Examples
    --------
    >>> claim = weight_below_jensen_gap([0.5, 0.5], [0.0, 1.0], tau=1.0)
    >>> claim.value.round(4), claim.bound.round(4)
    (np.float64(0.1194), np.float64(0.1201))
    """
    p, D = moments.targets(policy, reward, tau)
    update = updates.pmd_mean_update(policy, reward, tau)
    value = update.chi2_weight * (1 + moments.chi2(p, update.log_ratio))
    return Claim("λ(1 + χ²) ≤ log E_p e^Δ", value, moments.jensen_gap(p, D))


@claims("6")
def weight_below_half_spread(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """λ ≤ sd_p(Δ)/2."""
    p, D = moments.targets(policy, reward, tau)
    update = updates.pmd_mean_update(policy, reward, tau)
    return Claim("λ ≤ sd_p(Δ)/2", update.chi2_weight, moments.spread(p, D) / 2)


@claims("6")
def weight_below_largest_target(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """λ ≤ max Δ."""
    p, D = moments.targets(policy, reward, tau)
    update = updates.pmd_mean_update(policy, reward, tau)
    return Claim("λ ≤ max Δ", update.chi2_weight, moments.extremes(p, D)[1])
