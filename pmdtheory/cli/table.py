"""What the commands share: the whole table on disk, blanks on paper."""

import contextlib
import os
import sys
import tempfile

import numpy as np

_STREAMS = ("/dev/", "/proc/")


def check(path):
    """Refuse now, with a ``ValueError``, what `write` could not write after a long run."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        if not path.exists():
            tempfile.TemporaryFile(dir=path.parent).close()
        elif not os.access(path, os.W_OK):
            raise PermissionError(0, "it is not writable")
    except OSError as error:
        raise ValueError(f"--csv {path} cannot be written ({error.strerror}); give the name of a file.") from None


def write(table, path):
    """Write a data frame as CSV: a file atomically, a device or a pipe as the stream that it is."""
    if path.exists() and (not path.is_file() or str(path).startswith(_STREAMS)):
        is_stdout = str(path) in ("/dev/stdout", "/dev/fd/1")
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


def cells(values, widths):
    """Numbers right-aligned in columns of these widths, with four digits; blank where there is none."""
    return " ".join(f"{'':>{w}}" if np.isnan(value) else f"{value:>{w}.4g}" for value, w in zip(values, widths))
