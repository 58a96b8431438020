"""What the commands share: the whole table on disk, blanks on paper."""

import numpy as np


def write(table, path):
    """Write a data frame as CSV, atomically."""
    temporary = path.with_name(f".{path.name}")
    table.to_csv(temporary, index=False)
    temporary.replace(path)


def cells(values, widths):
    """Numbers right-aligned in columns of these widths, with four digits; blank where there is none."""
    return " ".join(f"{'':>{w}}" if np.isnan(value) else f"{value:>{w}.4g}" for value, w in zip(values, widths))
