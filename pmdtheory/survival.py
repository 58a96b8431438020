"""Costs until a target is reached, where some runs never get there within their budget: survival with censoring.

A run that is cut short says that its cost is larger than its budget, and no more: a mean of those that get there would
flatter whoever fails most. S(t) is Kaplan and Meier's estimate of the share of the runs that need more than t. Its
integral to a horizon h is the restricted mean, E min(T, h): what a run spends that stops at the target or at h. Two
methods are compared by the log-rank test, which counts how many runs of each get there against how many would if all
had the same law, at every cost at which one does. Censoring is assumed not to depend on the cost it hides; with one
budget for all runs it does not.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import simplex
from .comparisons import Difference, permutation
from .intervals import Estimate, half_width


class Costs(NamedTuple):
    """What runs spent until their target, or in all where they are not `reached`; arrays (m,)."""

    spent: Any
    reached: Any

    @classmethod
    def of(cls, cost: ArrayLike, budget: ArrayLike) -> "Costs":
        """Costs that are NaN for runs that did not reach the target within their budget."""
        cost, budget = np.broadcast_arrays(np.asarray(cost, dtype=float), np.asarray(budget, dtype=float))
        return cls(np.where(np.isnan(cost), budget, cost), ~np.isnan(cost))


def restricted_mean(costs: Costs, horizon: float) -> Estimate:
    """Mean cost until the target or `horizon`, whichever comes first.

    Its interval is Student's over the m pseudo-values m μ − (m − 1) μ₋ᵢ of the jackknife, which are min(Tᵢ, h) where
    no run is cut short before the horizon.

    Parameters
    ----------
    costs : Costs
    horizon : float
        Positive; where the run that spent most is cut short, at most its budget, beyond which nothing is known.

    Returns
    -------
    Estimate
        In the units of the costs, its interval cut to [0, h].

    Raises
    ------
    ValueError
        The horizon is not as described, or a cost is NaN; the message names it.

    Examples
    --------
    >>> f"{restricted_mean(Costs.of([10, 20, 30, np.nan], 100), 100):.0f}"
    '40 [0, 100]'

    References
    ----------
    P. K. Andersen, M. G. Hansen and J. P. Klein, Regression analysis of restricted mean survival time based on
    pseudo-observations, Lifetime Data Analysis 10 (2004).
    """
    spent, reached = _checked(costs, "costs")
    last = spent.max(initial=0.0)
    known = np.inf if reached[spent == last].all() else last
    if not 0 < horizon <= known:
        raise ValueError(f"horizon must be positive, at most what is known, {known:g}, got {horizon:g}.")
    count, everyone = spent.size, np.ones(spent.size, dtype=bool)
    if not count:
        return Estimate(np.nan, np.nan, (0.0, horizon))
    mean = _area(spent, reached, horizon)
    if count == 1:
        return Estimate(mean, np.nan, (0.0, horizon))
    others = [everyone & (np.arange(count) != i) for i in range(count)]
    pseudo = [count * mean - (count - 1) * _area(spent[some], reached[some], horizon) for some in others]
    return Estimate(mean, float(half_width(np.std(pseudo, ddof=1), count)), (0.0, horizon))


def _checked(costs, name):
    """What was spent and which runs got there, as arrays."""
    spent = simplex.nonnegative(costs.spent, f"{name}.spent")
    return spent, np.broadcast_to(np.asarray(costs.reached, dtype=bool), spent.shape)


def _area(spent, reached, horizon):
    """∫₀ʰ S(t) dt under Kaplan and Meier's curve, which stays where it is after the last run."""
    from scipy.stats import CensoredData, ecdf

    survival = ecdf(CensoredData.right_censored(spent, ~reached)).sf
    steps = np.concatenate([[0.0], np.minimum(survival.quantiles, horizon), [horizon]])
    return float(np.diff(steps) @ np.concatenate([[1.0], survival.probabilities]))


def log_rank_test(first: Costs, second: Costs) -> Difference:
    """Log-rank test of two methods' costs, exact up to 9,999 divisions of the seeds.

    A run that reaches its target at t has the score Λ(t) − 1, one that is cut short at t the score Λ(t), with Nelson
    and Aalen's Λ of all runs: the sum of a method's scores is how many of its runs were expected to get there, less how
    many did.

    Parameters
    ----------
    first, second : Costs

    Returns
    -------
    Difference
        Its sign is 1 if the first method is later.

    Raises
    ------
    ValueError
        A cost is NaN, infinite or negative; the message names the argument.

    Examples
    --------
    >>> log_rank_test(Costs.of([5, 6, 7, 8, np.nan], 9), Costs.of([1, 2, 3, 4, 4], 9))
    Difference(sign=1, pvalue=0.007936507936507936)

    References
    ----------
    R. Peto and J. Peto, Asymptotically efficient rank invariant test procedures, JRSS A 135 (1972).
    """
    spent, reached = (np.concatenate(parts) for parts in zip(_checked(first, "first"), _checked(second, "second")))
    times = np.unique(spent[reached])
    hazard = [np.sum(reached & (spent == time)) / np.sum(spent >= time) for time in times]
    scores = (times <= spent[:, None]) @ np.array(hazard) - reached
    return permutation(scores[: len(first.spent)], scores[len(first.spent) :])
