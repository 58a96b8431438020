"""A Sphinx extension: the docstrings' plain notation, |x| and Statement 4, in the terms of reStructuredText."""

import re

from . import markdown, mathematics

_CODE = re.compile(r"``.*?``|`[^`\s][^`]*`_{0,2}")
_BAR = "∣"  # looks like |, which reStructuredText reads as the beginning of a substitution
_DIRECTIVE = re.compile(r"\s*\.\. \w+::")
_TABLE = re.compile(r"\s*=+( +=+)+$")
_DOCTEST = re.compile(r"\s*(>>>|\.\.\. )")


def _lines(app, what, name, obj, options, lines):
    inside, table = None, False  # indent of the directive or literal block that a line stands in
    for at, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        table = bool(line.strip()) and (table or bool(_TABLE.match(line)))
        if inside is not None and line.strip() and indent <= inside:
            inside = None
        if inside is not None or _DOCTEST.match(line):
            continue
        if table:  # columns keep their width
            lines[at] = line.replace("|", _BAR)
            continue
        if what == "module" and re.fullmatch(r"-{3,}", line):  # a heading, as numpydoc makes it elsewhere
            lines[at - 1 : at + 1] = [f".. rubric:: {lines[at - 1]}", ""]
            continue
        if not _DIRECTIVE.match(line):
            lines[at] = _prose(line)
        if _DIRECTIVE.match(line) or line.rstrip().endswith("::"):
            inside = indent


def _prose(line):
    parts, at = [], 0
    for found in _CODE.finditer(line):
        parts += [_plain(line[at : found.start()]), found.group()]
        at = found.end()
    return "".join([*parts, _plain(line[at:])])


def _plain(text):
    text = re.sub(r"(\w)_(?=\W|$)", r"\1\\_", text.replace("|", _BAR))
    if text.count("*") == 1:  # of an expression: emphasis has two
        text = text.replace("*", r"\*")
    known = mathematics.statements()

    def link(words, number):
        return f":doc:`{words} </mathematics/{number}>`" if number in known else words

    return markdown.link_statements(text, link)


def setup(app):
    """Change docstrings before numpydoc reads their sections."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _lines, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
