r"""Statement 16, B10: the largest advantage certifies how far a policy is from optimal.

For any policy with exact Q, and g = max_{x,a} A(x, a) over all actions,

.. math:: g ≤ \max_x (V^* − V^π)(x) ≤ \frac{g}{1−γ}.

Below: where A(x, a) = g, V*(x) ≥ Q*(x, a) ≥ Q^π(x, a) = V^π(x) + g. Above: by the performance difference lemma V* − V^π
is a mean of E_{π*}A^π ≤ g, divided by 1−γ. So g ≤ (1−γ)ε certifies ε-optimality in every state without knowing V*.

Assumptions: none.

References
----------
Statement 16; Ju and Lan, arXiv 2409.19437.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..mdp import advantage_gap, evaluate, optimal
from ..mdp.model import MDP
from . import mdp_problems
from .claim import TOLERANCE, Claim
from .statement import claims


@claims("B10", mdp_problems.mdps_with_policies)
def advantage_below_gap(mdp: MDP, policy: ArrayLike) -> Claim:
    """Largest advantage ≤ largest gap.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (..., S, A)
        Leading axes only for a dense MDP.

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> claim = advantage_below_gap(chain(3, gamma=0.5), [[0.5, 0.5]] * 3)
    >>> claim.value.round(3), claim.bound.round(3)
    (np.float64(0.606), np.float64(1.164))
    """
    advantage, gap, scale = _gaps(mdp, policy)
    return Claim("max A ≤ max (V* − V)", advantage, gap, scale=np.maximum(gap, scale))


@claims("B10", mdp_problems.mdps_with_policies)
def gap_below_certificate(mdp: MDP, policy: ArrayLike) -> Claim:
    """Largest gap ≤ largest advantage over 1−γ."""
    advantage, gap, scale = _gaps(mdp, policy)
    bound = advantage / (1 - mdp.gamma)
    return Claim("max (V* − V) ≤ max A/(1−γ)", gap, bound, scale=np.maximum(bound, scale))


def _gaps(mdp, policy):
    """Largest advantage, largest gap, and the scale at which the errors of both stay within the tolerance of claims."""
    current, best = evaluate(mdp, policy), optimal(mdp)
    errors = current.error + best.error + best.certificate
    return advantage_gap(current), (best.V - current.V).max(axis=-1), errors / TOLERANCE
