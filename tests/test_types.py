"""Both packages are typed: every public function and method has complete annotations, and the marker is installed."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The solver's inner rooms are called by the updates only.
INNER = {"solver.py", "overestimated.py", "roots.py", "stationarity.py"}
FILES = [path for name in ("pmdtheory", "llm") for path in sorted((ROOT / name).rglob("*.py"))]
FILES = [path for path in FILES if "compiled" not in path.parts]
FILES = [path for path in FILES if path.parent.name != "pmdtheory" or path.name not in INNER]


def unannotated(source):
    """Names of the public functions and methods of a module that lack an annotation; of ``__init__``, of a parameter.

    Public is what ``__all__`` names, and where there is none, what begins with no underscore.
    """
    tree, named = ast.parse(source), None
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__":
            named = (named or set()) | set(ast.literal_eval(node.value))
    yield from _lacking([node for node in tree.body if named is None or getattr(node, "name", None) in named])


def _lacking(body):
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (f"{node.name}.{name}" for name in _lacking(node.body))
        elif isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
            spec = node.args
            every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
            bare = [each.arg for each in every if each.annotation is None and each.arg not in ("self", "cls")]
            first = spec.args[0].arg if spec.args else None
            bare += ["cls"] if first == "cls" and not node.decorator_list and spec.args[0].annotation is None else []
            if bare or (node.returns is None and node.name != "__init__"):
                yield node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_signatures_are_annotated(path):
    assert list(unannotated(path.read_text())) == []


def test_the_reader_of_signatures_sees_what_lacks():
    source = """
__all__ = ["A", "f"]
def f(x: int, *rest): return x
def hidden(x): return x
class A:
    def __init__(self, x): pass
    def g(self): pass
    def h(self, x: int) -> int: return x
    @classmethod
    def k(cls, x: int) -> int: return x
    def _p(self, y): pass
"""
    assert list(unannotated(source)) == ["f", "A.__init__", "A.g"]
    assert list(unannotated("def f(x): return x\ndef _g(x): return x")) == ["f"]


def test_both_packages_carry_the_marker():
    """As PEP 561 asks, in the sources and in what is installed."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for name, folder in (("pmdtheory", "pmdtheory"), ("pmdllm", "llm")):
        assert (ROOT / folder / "py.typed").exists() and "py.typed" in data[name]


def test_annotations_load_nothing_heavy():
    """Neither the solvers of SciPy, nor tables, pictures or CVXPY come with ``import pmdtheory``."""
    code = "import sys, pmdtheory; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"scipy.optimize", "pandas", "cvxpy", "matplotlib", "torch", "tqdm"} & set(shown.split())
