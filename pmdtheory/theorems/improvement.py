r"""Statement 5: how much one step improves the expected reward.

.. math::

    E_q[r] − E_p[r] &= τ [\mathrm{KL}(q\|p) + λ (1 + χ^2(q\|p))] && \text{(PMD-mean)} \\
    E_q[r] − E_p[r] &= τ [\mathrm{KL}(q\|p) + \mathrm{KL}(p\|q)] && \text{(KL update)}

Both are nonnegative. Assumptions: none.

References
----------
Statement 5.
"""

from numpy.typing import ArrayLike

from .. import updates
from . import moments
from .claim import Claim
from .statement import claims


@claims("5")
def pmd_mean_improvement(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """(E_q r − E_p r)/τ = KL(q‖p) + λ(1 + χ²(q‖p)) for PMD-mean.

    Examples
    --------
    >>> claim = pmd_mean_improvement([0.5, 0.5], [0.0, 1.0], tau=1.0)
    >>> claim.value.round(4), claim.bound.round(4)
    (np.float64(0.2138), np.float64(0.2138))
    """
    p, D = moments.targets(policy, reward, tau)
    update = updates.pmd_mean_update(policy, reward, tau)
    s = update.log_ratio
    bound = moments.kl(p, s) + update.chi2_weight * (1 + moments.chi2(p, s))
    return Claim("PMD-mean: ΔE r/τ = KL(q‖p) + λ(1 + χ²)", moments.improvement(p, s, D), bound, relation="==")


@claims("5")
def kl_improvement(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """(E_q r − E_p r)/τ = KL(q‖p) + KL(p‖q) for the KL update.

    Examples
    --------
    >>> kl_improvement([0.5, 0.5], [0.0, 1.0], tau=1.0).value.round(4)
    np.float64(0.2311)
    """
    p, D = moments.targets(policy, reward, tau)
    s = updates.kl_update(policy, reward, tau).log_ratio
    bound = moments.kl(p, s) + moments.reverse_kl(p, s)
    return Claim("KL update: ΔE r/τ = KL(q‖p) + KL(p‖q)", moments.improvement(p, s, D), bound, relation="==")
