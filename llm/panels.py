"""The panels of the paper for any study: reward, accuracies, length, entropy and ratio spread over the iterations.

Matplotlib is imported when a picture is drawn.
"""

__all__ = ["panels"]


def quantities(curves):
    """Columns of a table of curves that are drawn, and their labels."""
    k = next(name for name in curves if name.startswith("validation/avg@")).partition("@")[2]
    return {
        "reward": "training reward",
        f"validation/avg@{k}": f"avg@{k}, validation",
        f"validation/pass@{k}": f"best@{k}, validation",
        f"validation/maj@{k}": f"maj@{k}, validation",
        "validation/greedy": "greedy, validation",
        "length": "response length, tokens",
        "entropy": "entropy, nats",
        "ratio/std": r"sd of $\log\,\pi/\pi_{\mathrm{old}}$",
    }


def panels(curves, by, styles=None, labels=None):
    """Draw the mean over seeds, with its 95% interval, of every quantity over the iterations.

    Parameters
    ----------
    curves : DataFrame
        Columns ``iteration``, ``seed``, the column `by` and those of `pmdllm.study.curves`.
    by : str
        Column with a line for each of its values.
    styles : dict, optional
        Value of `by` → keyword arguments of ``axis.plot``.
    labels : dict, optional
        Value of `by` → text of the legend.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Eight panels, and a legend below.
    axes : ndarray of matplotlib.axes.Axes, shape (8,)
    """
    from pmdtheory import plotting

    figure, axes = plotting.panels(2, 4, height=2.0)
    lines = [name for name in (styles or dict.fromkeys(curves[by])) if (curves[by] == name).any()]
    for axis, (column, label) in zip(axes, quantities(curves).items()):
        for name in lines:
            rows = curves[curves[by] == name].dropna(subset=[column])
            if len(rows):
                plotting.band(axis, "iteration", rows, column, by="seed", **(styles or {}).get(name, {}))
        axis.set(xlabel="iteration", ylabel=label)
    axes[5].set_ylim(bottom=0)
    axes[6].set_ylim(bottom=0)
    axes[7].set_yscale("log")
    handles = axes[0].get_lines()
    figure.legend(handles, [(labels or {}).get(name, name) for name in lines], loc="outside lower center", ncols=4)
    return figure, axes
