"""What a stranger would stumble over in a picture: text beyond the edge, text on text, a legend on the data."""

import itertools

import numpy as np

SLACK = 1.5
"""Pixels, at 100 an inch, by which two boxes may overlap: boxes are taller than the letters in them."""


def faults(figure):
    """Draw a figure; what is wrong with its layout, in words."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [(" ".join(text.get_text().split()), text.get_window_extent(renderer)) for text in _texts(figure)]
    texts = [(words, box) for words, box in texts if words and box.width]
    page, found = figure.bbox, []
    for words, box in texts:
        if box.x0 < page.x0 - SLACK or box.x1 > page.x1 + SLACK or box.y0 < page.y0 - SLACK or box.y1 > page.y1 + SLACK:
            found.append(f"{words!r} leaves the picture")
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if width > SLACK and height > SLACK:
            found.append(f"{one!r} overlaps {other!r}")
    for axis in figure.axes:
        if axis.get_legend() is not None and axis.axison:
            found += _covered(axis, axis.get_legend().get_window_extent(renderer))
    return found


def _texts(figure):
    """The texts of a figure that are drawn."""
    yield from (text for text in figure.texts if text is not figure._suptitle)
    yield from (text for legend in figure.legends for text in legend.get_texts())
    if figure._suptitle is not None:
        yield figure._suptitle
    for axis in figure.axes:
        if axis.get_legend() is not None:
            yield from axis.get_legend().get_texts()
        yield from (axis.title, axis._left_title, axis._right_title, *axis.texts)
        if not axis.axison:
            continue
        for side, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
            yield side.label
            for tick in (*side.get_major_ticks(), *side.get_minor_ticks()):
                if min(limits) <= tick.get_loc() <= max(limits) and tick.label1.get_visible():
                    yield tick.label1


def _covered(axis, legend):
    """Curves, markers and bars of a panel that its legend lies on."""
    for line in axis.lines:
        x, y = line.get_transform().transform_path(line.get_path()).vertices.T if len(line.get_xdata()) else ([], [])
        if line.get_linestyle() not in ("None", "none", "") and line.get_linewidth() and len(x) > 1:
            fine = np.linspace(0, len(x) - 1, 40 * len(x))
            x, y = (np.interp(fine, np.arange(len(x)), values) for values in (x, y))
        inside = (np.asarray(x) > legend.x0) & (np.asarray(x) < legend.x1)
        inside &= (np.asarray(y) > legend.y0) & (np.asarray(y) < legend.y1)
        if inside.any() and not _straight(line):
            yield f"the legend lies on the line {line.get_label()!r}"
    for patch in axis.patches:
        box = patch.get_window_extent()
        if box.width and box.height and box.overlaps(legend):
            yield "the legend lies on a bar"


def _straight(line):
    """Whether a line goes through the whole panel, as a limit does."""
    return len(line.get_xdata()) == 2 and any(data[0] == data[1] for data in (line.get_xdata(), line.get_ydata()))
