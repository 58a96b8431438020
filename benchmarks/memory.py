"""Peak memory, of the objects of a call and of a whole process; the tests measure with it too."""

import resource
import sys
import tracemalloc
from pathlib import Path


def of_objects(function):
    """Largest memory of Python objects while a function runs again, bytes: what is compiled once does not count."""
    function()
    tracemalloc.start()
    function()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def of_process():
    """Bytes that this process held at most: where Linux says it by VmHWM, since its ru_maxrss may be the parent's."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
