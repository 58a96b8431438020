"""The parts of hand-written pages that are computed: a line ``<!-- computed: NAME -->`` is replaced."""

import re

PARTS = {}


def part(function):
    """Enter a function without arguments that returns Markdown, under its name with blanks for underscores."""
    PARTS[function.__name__.replace("_", " ")] = function
    return function


def fill(text, origin):
    """Return `text` with its computed parts; ``ValueError`` names one that does not exist."""

    def make(found):
        if found[1] not in PARTS:
            raise ValueError(f"{origin} asks for {found[1]!r}; computed parts are {', '.join(PARTS)}.")
        return PARTS[found[1]]()

    return re.sub(r"^<!-- computed: (.*) -->$", make, text, flags=re.MULTILINE)
