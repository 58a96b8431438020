"""Memory, measured."""

import tracemalloc


def peak(function):
    """Largest memory of Python objects while a function runs again, bytes: what is compiled once does not count."""
    function()
    tracemalloc.start()
    function()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most
