"""The mathematics: ``pmdtheory/theorems/README.md`` as a page a statement, with what checks, uses and draws it.

What stands beside a statement is looked up: its claims in the registry, the figures, laws and modules in whose
docstrings its number occurs.
"""

import ast
import functools
import re
from typing import NamedTuple

from figures import harness
from pmdtheory.family import MEMBERS
from pmdtheory.theorems import STATEMENTS

from . import markdown
from .links import ROOT, THEOREMS

FOLDER = THEOREMS.rpartition("/")[0]


class Statement(NamedTuple):
    """A section of the README: its number, title, one line of the table, text; files that check and use it."""

    number: int
    title: str
    line: str
    text: str
    claims: list  # functions that the registry tries on random problems
    checks: list  # files that hold the claims or test the statement
    code: list  # files that name the statement
    figures: list
    members: list


class Chapter(NamedTuple):
    """A chapter of the README: what stands before its first statement, and its statements."""

    title: str
    text: str
    statements: list


@functools.cache
def chapters():
    """Return the chapters in their order, from the notation to the last one before the references."""
    lines = dict(re.findall(r"^\| \[(\d+)\]\([^)]*\) \|[^|]*\| (.*) \|$", _readme(), flags=re.MULTILINE))
    parts = re.split(r"^## (.*)\n", _readme(), flags=re.MULTILINE)
    found = []
    for title, text in zip(parts[1::2], parts[2::2]):
        if title == "References":
            continue
        before, *sections = re.split(r"^### (\d+)\. (.*)\n", text, flags=re.MULTILINE)
        own = [
            _statement(int(number), name, lines[number], body)
            for number, name, body in zip(sections[::3], sections[1::3], sections[2::3])
        ]
        found.append(Chapter(title, before.strip(), own))
    return found


def statements():
    """Return all statements by number."""
    return {statement.number: statement for chapter in chapters() for statement in chapter.statements}


@functools.cache
def references():
    """Return the README's label of each paper by its arXiv number."""
    listed = _readme().partition("## References")[2]
    return {number: label for label, number in re.findall(r"^- \[(\w+)\].*?arXiv (\d{4}\.\d{5})", listed, re.M | re.S)}


def pages():
    """Return name → Markdown: the index, and a page a statement."""
    return {"index": _index()} | {str(number): _page(statement) for number, statement in statements().items()}


def link(words, number):
    """Return a link to a statement."""
    return f"[{words}](/mathematics/{number}.md)" if number in statements() else words


def link_last_column(text):
    """Link the numbers that stand alone in the last column of a table."""
    return re.sub(r"\| (\d+) \|$", lambda found: f"| {link(found[1], int(found[1]))} |", text, flags=re.MULTILINE)


def _index():
    title, _, head = _readme().partition("\n| ")[0].strip().partition("\n")
    parts = ["# The mathematics", f"*{title.partition(': ')[2]}*", head.strip()]
    for chapter in chapters():
        parts += [f"## {chapter.title}", chapter.text]
        rows = [
            (f"[{s.number}. {s.title}](/mathematics/{s.number}.md)", s.line, _files(s.checks), _figures(s.figures))
            for s in chapter.statements
        ]
        if rows:
            parts.append(markdown.table(("statement", "in one line", "checked in", "figures"), rows))
    names = "\n".join(str(number) for number in statements())
    return "\n\n".join([*parts, f"```{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{names}\n```"]) + "\n"


def _page(statement):
    text = statement.text.strip()
    for path in statement.checks:
        name = path.removeprefix(f"{FOLDER}/")
        text = text.replace(f"`{name}`", _files([path]).replace(f"`{path.rpartition('/')[2]}`", f"`{name}`"))
    rows = [
        ("Claims", ", ".join(f"{{py:obj}}`~{name}`" for name in statement.claims)),
        ("Checked in", _files(statement.checks)),
        ("Figures", _figures(statement.figures)),
        ("Laws", ", ".join(f"[{name}](/family.md)" for name in statement.members)),
        ("Named in", _files(statement.code)),
    ]
    beside = "\n".join(f"- **{what}:** {where}" for what, where in rows if where)
    return f"# {statement.number}. {statement.title}\n\n*{statement.line}*\n\n{beside}\n\n{text}\n"


def _figures(names):
    return ", ".join(f"[{name.replace('_', ' ')}](#figure-{name.replace('_', '-')})" for name in names)


def _files(paths):
    """Links to repository files, as the README of the theorems would write them."""
    up = "../" * (FOLDER.count("/") + 1)
    return ", ".join(f"[`{path.rpartition('/')[2]}`]({up}{path})" for path in paths)


def _statement(number, title, line, text):
    own = {
        label: entry
        for label, entry in STATEMENTS.items()
        if number == (markdown.BOUNDS if label.startswith("B") else int(re.match(r"\d+", label).group()))
    }
    functions = [claim for entry in own.values() for claim in entry.claims]
    claims = list(dict.fromkeys(f"{claim.__module__}.{claim.__name__}" for claim in functions))
    holding = {claim.__module__.replace(".", "/") + ".py" for claim in functions}
    said = re.findall(r"`([\w/]+\.py)`", " ".join(re.findall(r"Checked\s+in(.*?)(?:\n\n|\Z)", text, flags=re.DOTALL)))
    checks = sorted(holding | {path if "/" in path else f"{FOLDER}/{path}" for path in said})
    figures = [
        name for name in harness.NAMES if number in _figure_statements(name) or f"*{name.replace('_', ' ')}*" in text
    ]
    members = [name for name, member in MEMBERS.items() if number in map(int, re.findall(r"\d+", member.statement))]
    code = [path for path, named in _named().items() if number in named and path not in checks]
    return Statement(number, title, line, text, claims, checks, code, figures, members)


@functools.cache
def _figure_statements(name):
    return markdown.statements(harness.module(name).__doc__, bounds=True)


@functools.cache
def _named():
    """Return the statements that the docstrings of each file of the packages name, by path."""
    found = {}
    for path in sorted([*(ROOT / "pmdtheory").rglob("*.py"), *(ROOT / "llm").rglob("*.py")]):
        nodes = (ast.Module, ast.FunctionDef, ast.ClassDef)
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        docstrings = [ast.get_docstring(node) or "" for node in tree if isinstance(node, nodes)]
        found[str(path.relative_to(ROOT))] = markdown.statements("\n\n".join(docstrings))
    return found


@functools.cache
def _readme():
    return (ROOT / THEOREMS).read_text(encoding="utf-8")
