"""What the commands share: the whole table on disk, blanks on paper, JSON instead of paper."""

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas

__all__ = ["add_json", "cells", "check", "print_json", "write"]

_STREAMS = ("/dev/", "/proc/")
_STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def check(path: Path, as_json: bool = False) -> None:
    """Refuse now, with a ``ValueError``, what `write` could not write after a long run."""
    if as_json and str(path) in _STDOUT:
        raise ValueError(f"--csv {path} and --json cannot share standard output; give --csv the name of a file.")
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        if not path.exists():
            tempfile.TemporaryFile(dir=path.parent).close()
        elif not os.access(path, os.W_OK):
            raise PermissionError(0, "it is not writable")
    except OSError as error:
        raise ValueError(f"--csv {path} cannot be written ({error.strerror}); give the name of a file.") from None


def write(table: "pandas.DataFrame", path: Path) -> None:
    """Write a data frame as CSV: a file atomically, a device or a pipe as the stream that it is."""
    if path.exists() and (not path.is_file() or str(path).startswith(_STREAMS)):
        is_stdout = str(path) in _STDOUT
        try:
            with contextlib.nullcontext(sys.stdout) if is_stdout else path.open("a") as stream:
                table.to_csv(stream, index=False)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(f"--csv {path} could not be written: {error.strerror or error}") from None
        return
    path = path.resolve()  # so that a link stays one
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        table.to_csv(temporary, index=False)
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"--csv {path} could not be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--json`` to an argument parser."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table, unrounded")


def print_json(value: Any) -> None:
    """Print dicts, lists, data frames (a list of rows) and NumPy values as JSON, null for what is no finite number."""
    print(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False), flush=True)


def _plain(value):
    if hasattr(value, "to_dict"):
        value = value.to_dict("records")
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def cells(values: Any, widths: Sequence[int]) -> str:
    """Numbers right-aligned in columns of these widths, with four digits; blank where there is none."""
    return " ".join(f"{'':>{w}}" if np.isnan(value) else f"{value:>{w}.4g}" for value, w in zip(values, widths))
