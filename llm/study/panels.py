"""The panels of the paper for any study: reward, accuracies, length, entropy and log-ratio over the iterations."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw", "panels"]


def quantities(curves):
    """Columns of a table of curves that are drawn, and their labels."""
    k = next(name for name in curves if name.startswith("validation/avg@")).partition("@")[2]
    labels = {
        "reward": "training reward",
        **{f"validation/{name}@{k}": f"{name}@{k}, validation" for name in ("avg", "pass", "maj")},
        "validation/greedy": "greedy, validation",
        "length": "response length, tokens",
        "entropy": "entropy, nats",
        "log_ratio/std": r"sd of log-ratio $\log\,\pi/\pi_{\mathrm{old}}$",
    }
    return {column: label for column, label in labels.items() if column in curves}


def draw(axes: Any, curves: "pd.DataFrame", by: str, styles: dict[str, Any]) -> Any:
    """Draw the mean over seeds, with its 95% interval, of every quantity over the iterations, on eight axes or more.

    Returns a line for each value of the column `by` that `styles` has keyword arguments of ``axis.plot`` for.
    """
    from pmdtheory import plotting

    for axis, (column, label) in zip(axes, quantities(curves).items()):
        for name, style in styles.items():
            rows = curves[curves[by] == name].dropna(subset=[column])
            if len(rows):
                plotting.band(axis, "iteration", rows, column, by="seed", label=name, **style)
        axis.set(xlabel="iteration", ylabel=label)
        if column.startswith("validation/"):  # an interval may leave the range, a share cannot
            axis.set_ylim(-0.02, 1.02)
        elif column == "reward":
            axis.set_ylim(top=1.02)
    return axes[0].get_lines()


def panels(curves: "pd.DataFrame", by: str) -> Any:
    """Return a figure of eight panels (`draw`) and a legend."""
    from pmdtheory import plotting

    figure, axes = plotting.panels(2, 4, height=2.0)
    lines = draw(axes, curves, by, {name: plotting.method(name) for name in curves[by].unique()})
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    return figure
