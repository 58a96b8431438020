r"""Each completion's loss divided by its length: ``seq-mean-token-mean``.

Weights 1/|y| give s + λ |y| e^s = (r − r̄)/τ: a long completion has the larger χ² weight, success or failure.

References
----------
Statement 23.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import simplex, updates
from ..updates import Update
from . import weighted
from .member import Member


def law(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, lengths: ArrayLike) -> Update:
    """Solve s + λ|y| e^s = (r − r̄)/τ.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`.
    lengths : array_like, shape (..., K)
        |y| > 0, in tokens.

    Examples
    --------
    >>> np.exp(law([0.2, 0.2, 0.6], [1.0, 1.0, 0.0], tau=0.3, lengths=[1, 100, 10]).log_ratio).round(2)
    array([4.15, 0.25, 0.2 ])
    """
    p, weight, advantage, tau = _parts(policy, reward, tau, lengths)
    return weighted.solve(p, weight, advantage, tau, "division by length needs V at most tau log Z (Statement 23)")


def checked(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, lengths: ArrayLike) -> tuple[np.ndarray, ...]:
    """Check a problem with lengths and broadcast it."""
    p, r, tau = simplex.problem(policy, reward, tau)
    lengths = simplex.positive(lengths, "lengths")
    try:
        return p, r, tau, np.broadcast_to(lengths, p.shape)
    except ValueError:
        raise ValueError(
            f"lengths must have one entry per action: policy has shape {p.shape}, lengths {lengths.shape}."
        ) from None


def _parts(policy, reward, tau, lengths):
    p, r, tau, lengths = checked(policy, reward, tau, lengths)
    A = tau[..., None] * updates.centred_targets(p, r, tau)[0]
    return p, 1 / lengths, A / lengths, tau


def _convex(policy, reward, tau, lengths, **solver_options):
    return weighted.solve_convex(*_parts(policy, reward, tau, lengths), **solver_options)


MEMBER = Member(
    name="length-divided",
    papers="Xu et al. 2602.05933 by default; seq-mean-token-mean",
    formula="E_p (r − r̄ − τ s)²/|y|",
    decides="weights 1/|y|",
    law_formula="s + λ|y| e^s = (r − r̄)/τ",
    exists="always",
    statement="23",
    function=law,
    example={"lengths": (10, 20)},
    convex=_convex,
)
