"""What an entry of the atlas says about a loss, and how its law is asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from ..updates import Update

__all__ = ["Member"]


@dataclass(frozen=True)
class Member:
    """A loss of the family and the policy that it leads to.

    Attributes
    ----------
    name : str
        Its key in `pmdtheory.family.MEMBERS`.
    papers : str
        Where it is proposed or used.
    formula : str
        The loss as its users write it, one line.
    decides : str
        What decides its law: where the gradient is averaged, the baseline, the weights.
    law_formula : str
        The law in one line.
    exists : str
        When there is an interior law.
    statement : str
        Number in ``pmdtheory/theorems/README.md``.
    function : callable
        ``function(policy, reward, tau, **options) -> Update``.
    convex : callable or None
        The same policy from CVXPY, with the same arguments, where the problem is convex.
    example : dict
        Options that the law cannot do without, for two actions, the better one second.

    Examples
    --------
    >>> from pmdtheory.family import MEMBERS
    >>> MEMBERS["pmd-mean"].law([0.5, 0.5], [0.0, 1.0], tau=1.0).policy.round(4)
    array([0.2862, 0.7138])
    """

    name: str
    papers: str
    formula: str
    decides: str
    law_formula: str
    exists: str
    statement: str
    function: Callable
    convex: Callable | None = None
    example: dict = field(default_factory=dict)

    def law(self, policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, **options: Any) -> Update:
        """Return the policy that the loss leads to from its anchor.

        Parameters
        ----------
        policy : array_like, shape (..., K)
            Anchor p; rows sum to 1, zeros allowed.
        reward : array_like, shape (..., K)
            Reward of each action, finite.
        tau : array_like, shape (...)
            Temperature τ > 0 in reward units: the slope of the residual r − V − τ log(q/p). Members without one
            (CISPO, CFPO, AsymRE) do not read it.
        **options
            Those of the member's own file.

        Returns
        -------
        pmdtheory.Update
            ``policy``, ``log_ratio`` (−∞ where the law empties an action) and ``baseline``, the V of the residual or,
            without one, the multiplier of Σ q = 1. ``chi2_weight`` is the λ of the member's own formula, NaN if that
            has none. ``local`` where it is a local optimum only.

        Raises
        ------
        ValueError
            An argument is not as described, or there is no interior law; the message names the condition.
        """
        return self.function(policy, reward, tau, **options)
