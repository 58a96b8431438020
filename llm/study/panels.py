"""Six panels for any study: reward, two accuracies, length, entropy and log-ratio over the iterations."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

__all__ = ["draw", "labels", "panels"]


def quantities(curves):
    """Columns of a table of curves that are drawn, and their labels."""
    k = next(name for name in curves if name.startswith("validation/avg@")).partition("@")[2]
    labels = {
        "reward": "training reward",
        f"validation/avg@{k}": f"avg@{k}, validation",
        "validation/greedy": "greedy, validation",
        "length": "response length, tokens",
        "entropy": "entropy, nats",
        "log_ratio/std": r"sd of log-ratio $\log\,\pi/\pi_{\mathrm{old}}$",
    }
    return {column: label for column, label in labels.items() if column in curves}


def draw(axes: Any, curves: "pd.DataFrame", by: str, styles: dict[str, Any]) -> Any:
    """Draw the mean over seeds, with its 95% interval, of every quantity over the iterations, on six axes or more.

    Returns a line for each value of the column `by` that `styles` has keyword arguments of ``axis.plot`` for, a label
    among them.
    """
    from pmdtheory import plotting

    for axis, (column, label) in zip(axes, quantities(curves).items()):
        for name, style in styles.items():
            rows = curves[curves[by] == name].dropna(subset=[column])
            if len(rows):
                plotting.band(axis, "iteration", rows, column, by="seed", **style)
        axis.set(xlabel="iteration", ylabel=label)
        if column.startswith("validation/"):  # an interval may leave the range, a share cannot
            axis.set_ylim(-0.02, 1.02)
        elif column == "reward":
            axis.set_ylim(top=1.02)
    return axes[0].get_lines()


def panels(curves: "pd.DataFrame", by: str) -> Any:
    """Return a figure of six panels (`draw`) and a legend."""
    from pmdtheory import plotting

    figure, axes = plotting.panels(2, 3, height=2.0)
    styles = {name: plotting.method(name) | {"label": label} for name, label in labels(curves[by].unique()).items()}
    lines = draw(axes, curves, by, styles)
    plotting.drop_empty(figure)
    figure.legend(handles=lines, loc="outside lower center", ncols=min(len(lines), 4))
    return figure


def labels(methods: "Sequence[str]") -> dict[str, str]:
    """Return the names of methods in pictures; those that would share one are told apart by what tables call them.

    Examples
    --------
    >>> labels(["pmd-mean", "pmd-mean-loo", "grpo", "mine"])
    {'pmd-mean': 'PMD-mean', 'pmd-mean-loo': 'PMD-mean (pmd-mean-loo)', 'grpo': 'GRPO', 'mine': 'mine'}
    """
    from pmdtheory.plotting import NAMES

    found: dict[str, str] = {}
    for method in methods:
        name = NAMES.get(method, method)
        found[method] = f"{name} ({method})" if name in found.values() else name
    return found
