r"""Statement 4: the χ² weight of PMD-mean is the reverse KL of the update itself.

.. math:: λ = \mathrm{KL}(p\|q), \qquad \text{the mean under } p \text{ of } s + λρ = (r − \bar r)/τ.

Assumptions: none.

References
----------
Statement 4.
"""

from numpy.typing import ArrayLike

from .. import updates
from . import moments
from .claim import Claim
from .statement import claims


@claims("4")
def weight_is_reverse_kl(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike) -> Claim:
    """KL(p‖q) = λ.

    Examples
    --------
    >>> claim = weight_is_reverse_kl([0.5, 0.5], [0.0, 1.0], tau=1.0)
    >>> claim.value.round(4), claim.bound.round(4), claim.holds
    (np.float64(0.1009), np.float64(0.1009), np.True_)
    """
    p, _ = moments.targets(policy, reward, tau)
    update = updates.pmd_mean_update(policy, reward, tau)
    return Claim("KL(p‖q) = λ", moments.reverse_kl(p, update.log_ratio), update.chi2_weight, relation="==")
