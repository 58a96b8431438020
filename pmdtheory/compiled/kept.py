"""What is compiled for types that are known, and kept on disk for later processes.

Numba compiles anew when the file of a function changed, but not when that of another which it calls did. What a
function closes over is part of the key under which Numba keeps it: here that is a digest of all files of this folder.
"""

from hashlib import sha256
from pathlib import Path
from types import CellType, FunctionType

from numba import njit, types

NUMBERS, ROWS = (types.Array(types.float64, dimensions, "C") for dimensions in (1, 2))
GIVEN_NUMBERS, GIVEN_ROWS = (types.Array(types.float64, dimensions, "C", readonly=True) for dimensions in (1, 2))
FLAGS = types.Array(types.boolean, 1, "C")
_SOURCES = sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()


def kept(*arguments):
    """Compile for these types of arguments, and keep the result on disk where there is a place for it."""

    def decorate(function):
        settings = {"error_model": "numpy", "nogil": True, "_nrt": False}
        code = function.__code__.replace(co_freevars=("sources",))
        function = FunctionType(code, function.__globals__, function.__name__, closure=(CellType(_SOURCES),))
        try:
            return njit(arguments, cache=True, **settings)(function)
        except RuntimeError:  # no folder can be written
            return njit(arguments, **settings)(function)

    return decorate
