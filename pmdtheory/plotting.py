"""The one style of every picture, and the functions that draw on an Axes they are given.

Colours are Okabe and Ito's colour-blind-safe set; each role keeps its colour, line style and marker in every figure.
SVGs are deterministic: fixed hash salt, glyphs as outlines, no date.
"""

import contextlib
import string

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from .intervals import half_width

PAGE = 7.0
"""Width of a page, in inches."""

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE, BLACK, GREY = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000", "#7F7F7F",
)  # fmt: skip

KL = {"color": BLUE, "linestyle": "--"}
"""The ideal KL update."""
MEAN = {"color": VERMILION, "linestyle": "-"}
"""PMD-mean."""
BOUND = {"color": GREY, "linestyle": ":", "linewidth": 1.0}
"""A bound, a limit or an asymptote."""
CHECK = {"linestyle": "none", "marker": "o", "markersize": 3.2, "markerfacecolor": "none", "markeredgewidth": 0.7}
"""An independent solution (CVXPY) drawn on a curve."""

_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.prop_cycle": mpl.cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.4,
    "legend.fontsize": 7,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "lines.linewidth": 1.3,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "pmdtheory",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}


def style():
    """Context manager: the style of every picture of this project."""
    return mpl.rc_context(_STYLE)


def panels(rows=1, columns=1, width=PAGE, height=2.3, **kwargs):
    """Make a figure of `rows` × `columns` lettered panels, `height` inches a row.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of matplotlib.axes.Axes, shape (rows * columns,)
    """
    figure, axes = plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False, **kwargs)
    axes = axes.ravel()
    if axes.size > 1:
        for letter, axis in zip(string.ascii_lowercase, axes):
            axis.set_title(letter, loc="left", fontweight="bold")
    return figure, axes


def shades(count, cmap="viridis"):
    """`count` colours of a perceptually uniform map, dark to light, for one ordered parameter."""
    return [mpl.colors.to_hex(c) for c in mpl.colormaps[cmap](np.linspace(0, 0.88, count))]


def band(axis, x, table, value, *, by, **kwargs):
    """Draw the mean of column `value` over rows that share `x`, with its 95% confidence interval over `by`.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    x, value, by : str
        Columns of `table`: abscissa, ordinate and the column that tells the seeds apart.
    table : pandas.DataFrame
    **kwargs
        Passed to ``axis.plot``.
    """
    group = table.groupby(x)[value]
    mean, count = group.mean(), table.groupby(x)[by].nunique()
    half = half_width(group.std(ddof=1).fillna(0), count)
    (line,) = axis.plot(mean.index, mean, **kwargs)
    axis.fill_between(mean.index, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)


@contextlib.contextmanager
def _closing(figure):
    try:
        yield figure
    finally:
        plt.close(figure)


def save(figure, stem):
    """Write `figure` to ``stem.png`` and ``stem.svg`` (deterministic, atomic) and close it."""
    with style(), _closing(figure):
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            temporary = stem.with_name(f".{stem.name}{suffix}")
            figure.savefig(temporary, format=suffix[1:], metadata=metadata)
            temporary.replace(stem.with_name(stem.name + suffix))
