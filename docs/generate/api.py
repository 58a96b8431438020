"""The API pages: every public function and class of both packages, a page a module, read from the sources.

Public is what ``__all__`` lists, or else what a module defines under a name without an underscore.
"""

import ast
from typing import NamedTuple

from . import markdown
from .links import ROOT

PACKAGES = {"pmdtheory": ROOT / "pmdtheory", "pmdllm": ROOT / "llm"}


class Module(NamedTuple):
    """What a module offers: functions, classes with their public methods, other names, names defined elsewhere."""

    name: str
    path: str
    line: str
    functions: list
    classes: dict
    data: list
    elsewhere: list


def modules():
    """Return every module of both packages but those that only start a command."""
    return [
        _module(package, folder, path)
        for package, folder in PACKAGES.items()
        for path in sorted(folder.rglob("*.py"))
        if path.name != "__main__.py"
    ]


def pages():
    """Return name → Markdown: the index, and a page a module."""
    found = modules()
    parts = ["# API", "Every public function and class, from the docstrings."]
    for package in PACKAGES:
        own = [module for module in found if module.name.split(".")[0] == package]
        rows = [(f"[`{module.name}`](/api/{module.name}.md)", module.line) for module in own]
        names = "\n".join(module.name for module in own)
        toctree = f"```{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{names}\n```"
        parts += [f"## {package}", markdown.table(("module", "what it holds"), rows), toctree]
    return {"index": "\n\n".join(parts) + "\n"} | {module.name: _page(module) for module in found}


def _page(module):
    lines = [f".. automodule:: {module.name}", f".. currentmodule:: {module.name}"]
    lines += [f".. autofunction:: {name}" for name in module.functions]
    for name, methods in module.classes.items():
        lines.append(f".. autoclass:: {name}" + (f"\n   :members: {', '.join(methods)}" if methods else ""))
    parts = [f"# {module.name}", f"Source: [`{module.path}`](../{module.path})"]
    parts.append("```{eval-rst}\n" + "\n\n".join(lines) + "\n```")
    for title, names in (("Other names", module.data), ("Defined elsewhere", module.elsewhere)):
        if names:
            parts.append(f"**{title}:** " + ", ".join(f"{{py:obj}}`{name}`" for name in names))
    return "\n\n".join(parts) + "\n"


def _module(package, folder, path):
    parts = [package, *path.relative_to(folder).with_suffix("").parts]
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name: _methods(node) for node in tree.body if isinstance(node, ast.ClassDef)} | _made(tree)
    listed = _all(tree)
    public = listed if listed is not None else [name for name in {**functions, **classes} if not name.startswith("_")]
    elsewhere = [name for name in public if name not in functions and name not in classes]
    data = [name for name in elsewhere if name in _assigned(tree)]
    return Module(
        name,
        str(path.relative_to(ROOT)),
        " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split()),
        [name for name in public if name in functions],
        {name: classes[name] for name in public if name in classes},
        data,
        [name for name in elsewhere if name not in data],
    )


def _all(tree):
    """Return the names of ``__all__``, or None without one."""
    found = None
    for node in tree.body:
        targets = [node.target] if isinstance(node, ast.AugAssign) else getattr(node, "targets", [])
        if any(getattr(target, "id", "") == "__all__" for target in targets):
            found = (found or []) + ast.literal_eval(node.value)
    return found


def _assigned(tree):
    nodes = [node for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    targets = [target for node in nodes for target in getattr(node, "targets", None) or [node.target]]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _made(tree):
    """Return the classes that are made by a call, such as ``namedtuple``."""
    calls = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    makers = {"namedtuple", "make_dataclass"}
    return {node.targets[0].id: [] for node in calls if getattr(node.value.func, "id", "") in makers}


def _methods(node):
    return [item.name for item in node.body if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")]
