"""The confidence interval of every table, picture and printout, 95%, over independent seeds.

A mean has Student's interval, x̄ ± t₀.₉₇₅ sd/√m for m seeds; one seed has none. Where the quantity is a share or has
another known range, the interval is cut to that range, which takes nothing from its coverage. k successes in m
independent trials have Clopper and Pearson's exact interval.

Where methods are compared by their runs in several settings, they have interquartile means, the mean of what is left
without the lowest and the highest quarter of all runs, with the stratified bootstrap's interval: the runs of each
setting are drawn anew among themselves. Of normal values it covers 90% with five runs of one setting, 91% with five in
each of three, 94% with twelve in each of three. A quarter of failures does not move an interquartile mean: they are
counted beside it. Costs that a budget cuts short are in `pmdtheory.survival`, tests in `pmdtheory.comparisons`.
"""


import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import pandas

SHARE = (0.0, 1.0)
"""The range of a share, an accuracy or a probability."""
ANYTHING = (-math.inf, math.inf)


class Estimate(NamedTuple):
    """A mean and the half-width of its interval, NaN for one seed; ``format(estimate, ".2f")`` is its text form.

    That is ``0.85 ± 0.10``; ``0.85`` for one seed; the ends, ``0.79 [0.32, 1.00]``, if the interval is cut to `limits`.

    Examples
    --------
    >>> f"{Estimate(0.85, 0.1):.2f}, {Estimate(0.79, 0.47, SHARE):.2f}, {Estimate(0.85, math.nan):.2f}"
    '0.85 ± 0.10, 0.79 [0.32, 1.00], 0.85'
    """

    value: float
    half_width: float
    limits: tuple = ANYTHING

    @property
    def low(self) -> float:
        """Lower end."""
        return max(self.value - self.half_width, self.limits[0])  # the NaN of one seed stays: it comes first

    @property
    def high(self) -> float:
        """Upper end."""
        return min(self.value + self.half_width, self.limits[1])

    def __format__(self, spec):
        if math.isnan(self.half_width):
            return format(self.value, spec)
        if self.value - self.half_width < self.low or self.value + self.half_width > self.high:
            return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"
        return f"{self.value:{spec}} ± {self.half_width:{spec}}"

    def __str__(self):
        return format(self, ".2f")


class Interval(NamedTuple):
    """A value and the ends of its interval, NaN where there is none; ``format(interval, ".2f")`` is its text form.

    Examples
    --------
    >>> f"{Interval(0.85, 0.79, 0.88):.2f}, {Interval(0.85, math.nan, math.nan):.2f}"
    '0.85 [0.79, 0.88], 0.85'
    """

    value: float
    low: float
    high: float

    def __format__(self, spec):
        if math.isnan(self.low):
            return format(self.value, spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self):
        return format(self, ".2f")


def half_width(sd: ArrayLike, count: ArrayLike) -> Any:
    """Half-width of the 95% confidence interval of a mean, t₀.₉₇₅ sd/√count.

    Parameters
    ----------
    sd : array_like
        Sample standard deviation over the seeds (``ddof=1``).
    count : array_like
        Number of seeds.

    Returns
    -------
    ndarray
        In the units of `sd`; NaN for less than two seeds.

    Examples
    --------
    >>> half_width(1.0, 4).round(4)
    np.float64(1.5912)
    """
    from scipy.stats import t as student

    count = np.asarray(count)
    freedom = np.where(count > 1, count - 1, np.nan)
    return student.ppf(0.975, freedom) * sd / np.sqrt(count)


def mean_interval(values: ArrayLike, limits: tuple[float, float] = ANYTHING) -> Estimate:
    """Mean of one value per seed, with its interval.

    Parameters
    ----------
    values : array_like (m,)
    limits : tuple of float
        Range of the quantity, to which the interval is cut.

    Returns
    -------
    Estimate

    Examples
    --------
    >>> print(mean_interval([0.8, 0.9, 1.0]), mean_interval([0.8]), mean_interval([0.9, 0.4], SHARE))
    0.90 ± 0.25 0.80 0.65 [0.00, 1.00]
    """
    values = np.asarray(values, dtype=float)
    spread = values.std(ddof=1) if values.size > 1 else math.nan
    mean = values.mean() if values.size else math.nan
    return Estimate(float(mean), float(half_width(spread, values.size)), limits)


def over_seeds(
    table: "pandas.DataFrame",
    by: str | list[str],
    column: str,
    seed: str = "seed",
    log: bool = False,
    limits: tuple[float, float] = ANYTHING,
) -> "pandas.DataFrame":
    """Mean of a column over the seeds, with its interval, for each value of another column.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of one seed at one value of `by` are averaged first; missing values are left out.
    by, column, seed : str
        Columns: what the result is indexed by, what is averaged, and what tells the independent runs apart.
    log : bool
        Whether the mean is geometric: of logarithms, like its interval.
    limits : tuple of float
        Range of the quantity, to which intervals are cut.

    Returns
    -------
    pandas.DataFrame
        Columns ``mean``, ``low``, ``high`` and ``count``, the number of seeds; the ends are NaN for one seed.
    """
    rows = table.dropna(subset=[column])
    values = rows.groupby([by, seed])[column].mean()
    group = (np.log(values) if log else values).groupby(level=by)
    found = group.agg(["mean", "count"])
    half = half_width(group.std(ddof=1), found["count"])
    ends = {"mean": found["mean"], "low": found["mean"] - half, "high": found["mean"] + half}
    ends = {name: (np.exp(end) if log else end).clip(*limits) for name, end in ends.items()}
    return found.assign(**ends)[["mean", "low", "high", "count"]]


def proportion(successes: int, trials: int) -> tuple[Any, Any]:
    """Ends of Clopper and Pearson's 95% interval of a probability; it covers at least 95% whatever that is.

    Parameters
    ----------
    successes, trials : array_like of int
        Of independent trials.

    Returns
    -------
    low, high : ndarray
        NaN without a trial.

    Examples
    --------
    >>> low, high = proportion(3, 5)
    >>> print(f"{low:.3f} {high:.3f}")
    0.147 0.947

    References
    ----------
    C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934).
    """
    from scipy.stats import binomtest

    pairs = zip(np.ravel(successes), np.ravel(trials))
    ends = [binomtest(int(k), int(m)).proportion_ci(method="exact") if m else (np.nan, np.nan) for k, m in pairs]
    low, high = np.reshape(ends, (-1, 2)).T
    return low.reshape(np.shape(successes)), high.reshape(np.shape(successes))


def interquartile_mean(settings: Sequence[ArrayLike]) -> Interval:
    """Mean of the middle half of all runs, with the stratified bootstrap's interval.

    Parameters
    ----------
    settings : sequence of array_like (m,)
        One value per run, for each setting.

    Returns
    -------
    Interval
        NaN if the value of a run is; its ends are NaN if a setting has less than two runs.

    Examples
    --------
    >>> print(interquartile_mean([[0.8, 0.9, 0.9, 1.0, 0.1], [0.7, 0.8, 0.8]]))
    0.83 [0.60, 0.88]

    References
    ----------
    R. Agarwal, M. Schwarzer, P. S. Castro, A. Courville and M. G. Bellemare, Deep reinforcement learning at the edge of
    the statistical precipice, NeurIPS 2021.
    """
    from scipy.stats import trim_mean

    return stratified(lambda *runs, axis: trim_mean(np.concatenate(runs, axis), 0.25, axis), settings)


def stratified(statistic: Callable[..., Any], samples: Sequence[ArrayLike]) -> Interval:
    """Value of a statistic, with the percentile interval of 9,999 draws of each sample anew, the same ones every time.

    Parameters
    ----------
    statistic : callable
        Takes the samples, and the keyword `axis` along which their runs lie.
    samples : sequence of array_like (m,)
        Independent samples, each drawn anew by itself.

    Returns
    -------
    Interval
        NaN without a value in each sample, or where a value is NaN; its ends are NaN if a sample has less than two.
    """
    from scipy.stats import bootstrap

    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    fewest = min((len(array) for array in arrays), default=0)
    if any(np.isnan(array).any() for array in arrays):
        return Interval(math.nan, math.nan, math.nan)
    value = float(statistic(*arrays, axis=-1)) if fewest else math.nan
    if fewest < 2:
        return Interval(value, math.nan, math.nan)
    drawn = bootstrap(arrays, statistic, vectorized=True, method="percentile", rng=np.random.default_rng(0))
    return Interval(value, *map(float, drawn.confidence_interval))
