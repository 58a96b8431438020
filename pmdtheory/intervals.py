"""The confidence interval of every table, picture and printout: Student's, for a mean over independent seeds."""

import numpy as np


def half_width(sd, count):
    """Half-width of the 95% confidence interval of a mean, t₀.₉₇₅ sd/√count.

    Parameters
    ----------
    sd : array_like
        Sample standard deviation over the seeds (``ddof=1``).
    count : array_like
        Number of seeds; one seed is treated as two, so its interval is 0 with an `sd` of 0.

    Returns
    -------
    ndarray
        In the units of `sd`.

    Examples
    --------
    >>> half_width(1.0, 4).round(4)
    np.float64(1.5912)
    """
    from scipy.stats import t as student

    return student.ppf(0.975, np.maximum(count - 1, 1)) * sd / np.sqrt(count)
