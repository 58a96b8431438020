"""Programs in pages: each ```` ```python ```` block with a ```` ```text ```` block below it that says what it prints.

``python -m docs.generate.snippets docs/questions.md`` runs them and writes what they print in its place.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

PROGRAM = re.compile(r"```python\n(?P<code>.*?)```\n\n```text\n(?P<printed>.*?)```", re.DOTALL)


def run(code, name):
    """Return what a program prints; it shares no names with others."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def refresh(text, name):
    """Return a page with what its programs print now."""
    return PROGRAM.sub(lambda found: f"```python\n{found['code']}```\n\n```text\n{run(found['code'], name)}```", text)


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(refresh(page.read_text(encoding="utf-8"), page.name), encoding="utf-8")
