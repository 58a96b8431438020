"""What every theorem function returns: a value, what bounds it, and where the assumptions hold."""

from typing import Literal, NamedTuple

import numpy as np

TOLERANCE = 1e-9  # relative; the updates are good to 1e-12, which the worst-conditioned claims magnify a hundredfold
_UNDERFLOW = 1e-290  # below it numbers have lost digits, so slack is measured against it


class Claim(NamedTuple):
    """One statement evaluated on a batch of problems; the arrays broadcast.

    Attributes
    ----------
    name : str
        The claim in a few words, such as "KL(p‖q) = λ".
    value, bound : ndarray
        The two sides.
    assumptions : ndarray of bool
        False where the statement says nothing.
    relation : {"<=", "=="}
        How `value` stands to `bound`.
    scale : ndarray, optional
        Natural size of the two sides; the larger of their magnitudes unless both are differences of larger numbers.

    Examples
    --------
    >>> claim = Claim("x ≤ 1", np.array([0.5, 2.0, 9.0]), 1.0, np.array([True, True, False]))
    >>> claim.slack.round(2), claim.holds
    (array([ 0.5 , -0.5 , -0.89]), array([ True, False,  True]))
    """

    name: str
    value: np.ndarray
    bound: np.ndarray | float
    assumptions: np.ndarray | np.bool | bool = True
    relation: Literal["<=", "=="] = "<="
    scale: np.ndarray | float | None = None

    @property
    def slack(self) -> np.ndarray:
        """(bound − value)/scale, or −|bound − value|/scale for an equality; negative is against the claim."""
        scale = np.maximum(np.abs(self.value), np.abs(self.bound)) if self.scale is None else self.scale
        gap = (np.subtract(self.bound, self.value)) / np.maximum(scale, _UNDERFLOW)
        return -np.abs(gap) if self.relation == "==" else gap

    @property
    def holds(self) -> np.ndarray:
        """True where the slack is nonnegative up to rounding, or the assumptions are not met."""
        return (self.slack >= -TOLERANCE) | ~np.asarray(self.assumptions)
