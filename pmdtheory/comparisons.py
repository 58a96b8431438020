"""Is one method ahead of another? Exact tests over independent seeds, Holm's correction, probability of improvement.

A test of few seeds divides them anew: its p-value is the share of the divisions of all values into two groups of the
same sizes whose sums are at least as far out, doubled for both sides. Nothing is assumed of the laws. Summed are ranks,
Wilcoxon's rank-sum test, or the scores of another test, as in `pmdtheory.survival`.

Of several tests of one claim each has to hold after Holm's correction: the probability that any of those that hold does
so by chance is at most the level. The probability of improvement says by how much one method is ahead, not whether:
the chance that one of its runs ends above one of the other's, ties half, a mean over settings.

A run without a value, NaN, decides nothing: tests refuse it, and estimates that it has a part in are NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .intervals import Interval, stratified

LEVEL = 0.05
"""The level of every verdict."""


class Difference(NamedTuple):
    """The sign of the difference between two samples, 1 where the first is higher, and its two-sided p-value."""

    sign: int
    pvalue: float


def rank_test(first: ArrayLike, second: ArrayLike) -> Difference:
    """Wilcoxon's rank-sum test, exact up to 9,999 divisions of the seeds into two groups; midranks for ties.

    Parameters
    ----------
    first, second : array_like (m,)
        One value per seed.

    Returns
    -------
    Difference
        Its p-value is 1 with less than two values on a side.

    Raises
    ------
    ValueError
        A value is NaN; the message names the argument.

    Examples
    --------
    >>> rank_test([6, 7, 8, 9, 9], [1, 2, 3, 4, 5])  # 2 of the 252 divisions
    Difference(sign=1, pvalue=0.007936507936507936)
    """
    from scipy.stats import rankdata

    first, second = _values(first, "first"), _values(second, "second")
    ranks = rankdata([*first, *second])
    return permutation(ranks[: first.size], ranks[first.size :])


def permutation(first: ArrayLike, second: ArrayLike) -> Difference:
    """Test of the sum of the first scores over all divisions of the scores, up to 9,999.

    Beyond (from 8 against 8 seeds), as many random divisions stand for all, the same ones every time.

    Parameters
    ----------
    first, second : array_like (m,)
        One score per seed.

    Returns
    -------
    Difference
        Its p-value is 1 with less than two scores on a side.

    Raises
    ------
    ValueError
        A score is NaN; the message names the argument.
    """
    from scipy.stats import permutation_test

    first, second = _values(first, "first"), _values(second, "second")
    if min(first.size, second.size) < 2:
        return Difference(0, 1.0)
    test = permutation_test(
        (first, second), lambda ours, theirs, axis: ours.sum(axis), vectorized=True, rng=np.random.default_rng(0)
    )
    return Difference(int(np.sign(round(first.mean() - second.mean(), 12))), float(test.pvalue))


def student_test(mean: float, half_width: float, count: int) -> Difference:
    """Student's test of a mean difference against 0, from its 95% interval over `count` seeds.

    Parameters
    ----------
    mean, half_width : float
        As of `pmdtheory.intervals.Estimate`; without an interval, NaN, there is no difference.
    count : int
        Number of seeds.

    Returns
    -------
    Difference

    Raises
    ------
    ValueError
        The half-width is negative, or the mean NaN beside an interval; the message names the argument.

    Examples
    --------
    >>> student_test(-0.1, 0.1, 5)  # zero is an end of the interval
    Difference(sign=-1, pvalue=0.05)
    """
    from scipy.stats import t as student

    if half_width < 0:
        raise ValueError(f"half_width must be nonnegative, or NaN for no interval, got {half_width}.")
    if np.isnan(half_width) or count < 2:
        return Difference(0, 1.0)
    _values(mean, "mean")
    quantile = student.ppf(0.975, count - 1)
    far = abs(mean) / half_width if half_width else np.inf if mean else 0.0
    return Difference(int(np.sign(mean)), round(float(2 * student.sf(far * quantile, count - 1)), 12))


def holm(pvalues: ArrayLike) -> np.ndarray:
    """P-values corrected for their number by Holm's method, to be compared with the level as they are.

    Parameters
    ----------
    pvalues : array_like (k,)

    Returns
    -------
    ndarray (k,)
        The i-th smallest is multiplied by k + 1 − i, and is at least the one before and at most 1.

    Raises
    ------
    ValueError
        A p-value is NaN.

    Examples
    --------
    >>> print(holm([0.03, 0.01, 0.5]))
    [0.06 0.03 0.5 ]

    References
    ----------
    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    pvalues = _values(pvalues, "pvalues")
    order = np.argsort(pvalues)
    corrected = np.empty_like(pvalues)
    corrected[order] = np.maximum.accumulate(pvalues[order] * np.arange(len(order), 0, -1)).clip(max=1.0)
    return corrected


def signs(tests: Sequence[Difference], level: float = LEVEL) -> list[int]:
    """Signs of several tests of one claim; 0 for those that do not hold after Holm's correction.

    Examples
    --------
    >>> signs([Difference(1, 0.01), Difference(-1, 0.04)]), signs([Difference(-1, 0.04), Difference(-1, 0.04)])
    ([1, -1], [0, 0])
    """
    return [test.sign * int(p < level) for test, p in zip(tests, holm([test.pvalue for test in tests]))]


def improvement(ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike]) -> Interval:
    """Probability that a run of one method ends above one of another, a mean over settings.

    Parameters
    ----------
    ours, theirs : sequence of array_like (m,)
        One value per run, for each of the same settings.

    Returns
    -------
    Interval
        With the stratified bootstrap's interval, which is a point, and too narrow, where every run of one method is
        above every run of the other.

    Examples
    --------
    >>> print(improvement([[0.8, 0.9], [0.5, 0.7]], [[0.7, 0.8], [0.6, 0.7]]))
    0.62 [0.38, 1.00]

    References
    ----------
    Agarwal et al., as in `pmdtheory.intervals.interquartile_mean`.
    """
    count = len(ours)

    def above(*runs, axis):
        pairs = ((np.expand_dims(x, -1), np.expand_dims(y, -2)) for x, y in zip(runs[:count], runs[count:]))
        return np.mean([((x > y) + 0.5 * (x == y)).mean((-2, -1)) for x, y in pairs], axis=0)

    return stratified(above, [*ours, *theirs])


def _values(value, name):
    array = np.asarray(value, dtype=float)
    if missing := np.isnan(array).sum():
        raise ValueError(f"{name} must be without NaN, got {missing} of {array.size}: leave out what lacks a value.")
    return array
