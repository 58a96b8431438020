"""The one style of every picture, and the functions that draw on an Axes they are given.

Colours are Okabe and Ito's colour-blind-safe set, and for more methods than it has, some of Paul Tol's muted one. A
method and a law keep their colour and line style in every figure (`METHODS`, `LAWS`, `method`): red is the mean, blue
the log-partition. Where one of these depends on a parameter, its colour runs from dark to light (`tints`). SVGs are
deterministic, without a date, and their text can be selected.
"""

import contextlib
import os
import string
import textwrap
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from .intervals import ANYTHING, over_seeds

if TYPE_CHECKING:
    import pandas

PAGE = 7.0
"""Width of a page, in inches."""

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE, BLACK, GREY = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000", "#7F7F7F",
)  # fmt: skip
INDIGO, OLIVE, WINE, TEAL, SAND = "#332288", "#999933", "#882255", "#44AA99", "#DDCC77"

KL = {"color": BLUE, "linestyle": "--"}
"""The ideal KL update."""
MEAN = {"color": VERMILION, "linestyle": "-"}
"""PMD-mean."""
BOUND = {"color": GREY, "linestyle": ":", "linewidth": 1.0}
"""A bound, a limit or an asymptote."""
CHECK = {"linestyle": "none", "marker": "o", "markersize": 3.2, "markerfacecolor": "none", "markeredgewidth": 0.7}
"""An independent solution (CVXPY) drawn on a curve."""

METHODS = {
    "pmd-mean": MEAN,
    "pmd-mean-loo": MEAN | {"linestyle": (0, (12, 1))},
    "pmd-part": KL,
    "pmd-part-loo": KL | {"linestyle": (0, (2.2, 1.2))},
    "pmd-target": {"color": SKY, "linestyle": "-."},
    "kimi-token": {"color": INDIGO, "linestyle": "-"},
    "grpo": {"color": GREEN, "linestyle": "-."},
    "dr-grpo": {"color": OLIVE, "linestyle": "-."},
    "gspo": {"color": ORANGE, "linestyle": ":"},
    "rloo": {"color": PURPLE, "linestyle": "-"},
    "scheduled-tau": {"color": BLACK, "linestyle": "-"},
    "annealed-tau": {"color": WINE, "linestyle": ":"},
}
"""Colour and line style of a method; the leave-one-out forms have the colour of the plain ones."""
NAMES = {
    "pmd-mean": "PMD-mean",
    "pmd-mean-loo": "PMD-mean",
    "pmd-part": "PMD-part",
    "pmd-part-loo": "PMD-part",
    "grpo": "GRPO",
    "gspo": "GSPO",
    "rloo": "RLOO",
}
"""Names of methods in pictures, where tables have others; that an estimate leaves one out is not said."""
LAWS = {"lambert": {"color": VERMILION}, "kl_law": {"color": BLUE}}
"""Colour of the Lambert-W law and of the KL law: those of the updates that they are of."""

_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.prop_cycle": mpl.cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.titlesize": 10,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.4,
    "legend.fontsize": 7.5,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "lines.linewidth": 1.3,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "pmdtheory",
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}


def style() -> Any:
    """Context manager: the style of every picture of this project."""
    return mpl.rc_context(_STYLE)


def panels(rows: int = 1, columns: int = 1, width: float = PAGE, height: float = 2.3, **kwargs: Any) -> tuple[Any, Any]:
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


def shades(count: int) -> list[str]:
    """`count` colours of a perceptually uniform map, dark to light, for one ordered parameter of no method."""
    return [mpl.colors.to_hex(c) for c in mpl.colormaps["viridis"](np.linspace(0, 0.88, count))]


def tints(colour: Any, count: int) -> list[str]:
    """`count` shades of one colour, dark to light, for an ordered parameter of one method.

    Examples
    --------
    >>> tints(BLUE, 3)
    ['#003f62', '#0676b4', '#80b9d8']
    """
    own, towards_white = np.array(mpl.colors.to_rgb(colour)), np.linspace(-0.45, 0.5, count) if count > 1 else [0.0]
    return [mpl.colors.to_hex(own * (1 + t) if t < 0 else own + (1 - own) * t) for t in towards_white]


def method(name: str) -> dict[str, Any]:
    """Colour and line style of a method; of a name that is not in `METHODS`, the same in every picture and process.

    Examples
    --------
    >>> method("grpo")["color"], method("mine") == method("mine")
    ('#009E73', True)
    """
    if name in METHODS:
        return dict(METHODS[name])
    number = zlib.crc32(name.encode())
    others = TEAL, SAND, "#CC6677", "#117733", "#88CCEE", "#AA4499"
    lines = "-", "--", "-.", ":"
    return {"color": others[number % len(others)], "linestyle": lines[number // len(others) % len(lines)]}


def line(**style: Any) -> mpl.lines.Line2D:
    """A line that is drawn nowhere, for a legend."""
    return mpl.lines.Line2D([], [], **style)


def headline(figure: Any, text: str) -> None:
    """Write the one message of a picture above it, in as many lines as its width asks for."""
    width = int(figure.get_figwidth() * 13)
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    if len(lines) > 1:  # no last line of a single word
        lines = textwrap.wrap(text, min(width, len(text) // len(lines) + 8), break_on_hyphens=False)
    figure.set_figheight(figure.get_figheight() + 0.18 * len(lines))
    figure.suptitle("\n".join(lines), x=0.008, ha="left")


def band(
    axis: Any,
    x: str,
    table: "pandas.DataFrame",
    value: str,
    *,
    by: str = "seed",
    log: bool = False,
    limits: tuple[float, float] = ANYTHING,
    **kwargs: Any,
) -> None:
    """Draw the mean of column `value` over rows that share `x`, with its 95% confidence interval over `by`.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    x, value, by : str
        Columns of `table`: abscissa, ordinate and the column that tells the seeds apart.
    table : pandas.DataFrame
    log, limits
        As in `pmdtheory.intervals.over_seeds`.
    **kwargs
        Passed to ``axis.plot``.
    """
    rows = over_seeds(table, x, value, by, log, limits)
    (line,) = axis.plot(rows.index, rows["mean"], **kwargs)
    axis.fill_between(rows.index, rows.low, rows.high, color=line.get_color(), alpha=0.2, linewidth=0)


def drop_empty(figure: Any) -> None:
    """Remove panels to which nothing was drawn but horizontal or vertical lines, and letter the others anew."""
    axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    for axis in axes:
        if axis.axison and not np.isfinite(axis.dataLim.get_points()).all():
            axis.remove()
    kept = [axis for axis in axes if axis in figure.axes and axis.get_title(loc="left")]
    if len(kept) < sum(bool(axis.get_title(loc="left")) for axis in axes):
        for letter, axis in zip(string.ascii_lowercase, kept):
            axis.set_title(letter if len(kept) > 1 else "", loc="left", fontweight="bold")


@contextlib.contextmanager
def _closing(figure):
    try:
        yield figure
    finally:
        plt.close(figure)


def save(figure: Any, stem: Path) -> None:
    """Write `figure` to ``stem.png`` and ``stem.svg`` (deterministic, atomic) and close it."""
    with style(), _closing(figure):
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            temporary = stem.with_name(f".{stem.name}.{os.getpid()}{suffix}")  # two at once may draw one picture
            figure.savefig(temporary, format=suffix[1:], metadata=metadata)
            if suffix == ".svg":  # readers without the font see one as wide
                text = temporary.read_text(encoding="utf-8")
                text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
                temporary.write_text(text, encoding="utf-8")
            temporary.replace(stem.with_name(stem.name + suffix))
