"""What the figures of a network beside the theory share: names, rows of an experiment, laws, lines with intervals.

Where nothing else is said, a value is the median over the prompts of a seed, then the mean over seeds with its 95%
interval (of logarithms, where the axis is logarithmic).
"""

from pmdtheory import plotting
from pmdtheory.intervals import mean_interval

from . import marks
from .harness import Columns

STUDY = "validate"
CELLS = Columns("experiment algorithm reward", "tau n size seed share")
ACTIONS = Columns("experiment algorithm reward", "tau seed number policy reward_of_action log_ratio lambert kl_law")

LABELS = {
    "pmd-mean": "PMD-mean",
    "pmd-mean-loo": "PMD-mean, leave-one-out",
    "pmd-part": "log-partition",
    "pmd-part-loo": "log-partition, leave-one-out",
}
MARKERS = dict(zip(LABELS, "osD^"))
LOSSES = ("pmd-mean", "pmd-part")
OWN = {"pmd-mean": "lambert", "pmd-mean-loo": "lambert", "pmd-part": "kl_law", "pmd-part-loo": "kl_law"}
"""The law of a loss."""
OTHER = {"lambert": "kl_law", "kl_law": "lambert"}
SHARES = {"lambert": 1.0, "kl_law": 0.0}
"""f of a law."""
SHOWN = {"reward": "graded", "tau": 0.1}


def look(algorithm, **changes):
    """Colour, line and marker of a loss."""
    return plotting.method(algorithm) | {"marker": MARKERS[algorithm], "markersize": 3.5} | changes


def handles(algorithms=tuple(LABELS), **changes):
    """Lines of the losses for a legend."""
    return [plotting.line(label=f"{LABELS[name]} loss", **look(name, **changes)) for name in algorithms]


def select(rows, experiment, **columns):
    """Rows of an experiment and of a known loss with these values in these columns."""
    chosen = rows[(rows.experiment == experiment) & rows.algorithm.isin(LABELS)]
    for name, value in columns.items():
        chosen = chosen[chosen[name] == value]
    return chosen


def on_law(rows, law, near, least, r2="r2_law"):
    """1 if the seeds of a setting are on a law, −1 if they are not, 0 if they are too few to tell.

    They are on it if both 95% intervals over seeds lie within the tolerances, that of f (`SHARES`) within `near` of the
    law's and that of the column `r2` above `least`; they are not if one of the two lies outside. A mean alone would
    hide how far seeds scatter, and every seed alone what the next one would do. One seed has no interval: 0.
    """
    f, explained = mean_interval(rows.share), mean_interval(rows[r2])
    if SHARES[law] - near < f.low and f.high < SHARES[law] + near and explained.low >= least:
        return 1
    return -1 if f.high < SHARES[law] - near or SHARES[law] + near < f.low or explained.high < least else 0


def points(axis, rows, x, column, log=False, **style):
    """Draw mean and interval of a column for each value of `x`, unconnected."""
    marks.points(axis, rows, x, column, log=log, dots=False, **style | {"linestyle": "none", "capsize": 0})


def laws(axis, x=0.98, up=3):
    """Draw a line at f of each law, and name it, `up` points above the line."""
    for law, name in (("lambert", "Lambert-W law"), ("kl_law", "KL law")):
        colour = plotting.LAWS[law]["color"]
        axis.axhline(SHARES[law], color=colour, linewidth=0.8, zorder=1)
        where = {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points", "fontsize": 7.5, "ha": "right"}
        axis.annotate(name, (x, SHARES[law]), (0, up), color=colour, **where)


def log_ticks(axis, values):
    """Label a logarithmic abscissa with these values."""
    axis.set_xscale("log")
    axis.set_xticks(sorted(values), [f"{value:g}" for value in sorted(values)])
    axis.minorticks_off()
