"""The README's example prints what the README says, and its commands exist."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from pmdtheory import cli

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def block(language):
    """The code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_example_prints_what_is_printed():
    """Run the Python block, compare its output with the block that follows it."""
    (code,), (expected,) = block("python"), block("text")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == expected
    assert len(code.splitlines()) <= 10


COMMANDS = [
    line.partition("#")[0].strip() for line in "".join(block("sh")).splitlines() if line.startswith("pmdtheory ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_run(line, capsys):
    """Every `pmdtheory` command of the README exits with 0."""
    words = shlex.split(line)[1:]
    words = ["20" if word == "200" else word for word in words]
    assert cli.main(words) == 0
    assert capsys.readouterr().out


def test_make_targets_exist():
    """Every make target that the README names is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", TEXT)) <= targets


def test_links_resolve():
    """Every relative link of the README and the gallery points at a file."""
    for page in (ROOT / "README.md", ROOT / "figures" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
