"""The arrows of the architecture, and that importing the package stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pmdtheory"

# Each module may import only from layers above it in this list.
LAYERS = [
    ["simplex", "blocks", "stationarity", "intervals", "roots", "sweeps", "draws"],
    ["divergences", "partition", "plotting", "comparisons"],
    ["overestimated", "baselines", "survival"],
    ["solver", "compiled", "knobs"],
    ["updates"],
    ["convex", "differentiable", "penalised", "sampled", "laws"],
    ["loglinear", "bandit", "mdp", "family"],
    ["theorems", "instrument", "posttraining"],
    ["advice"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path):
    """Absolute names of the modules that a file imports, at any depth of its code."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(module):
    """The room of a `pmdtheory` module, or None if it is not one."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pmdtheory" and len(parts) > 1 and parts[1] in LEVEL else None


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    """A module imports only from lower layers, never llm or figures."""
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert own is not None, f"{path.name} has no layer: add it to LAYERS"
    for name in imports(path):
        assert name.split(".")[0] not in {"figures", "llm", "pmdllm", "notebooks", "tests", "benchmarks"}
        other = room(name)
        assert other is None or other == own or LEVEL[other] < LEVEL[own], f"{own} imports {other}"


def test_the_arrow_test_can_fail(tmp_path):
    """The reader of imports sees relative, absolute and nested imports."""
    source = "from . import cli\nimport pmdtheory.theorems\ndef f():\n    from .theorems.check import run\n"
    path = PACKAGE / "nowhere.py"
    tree = list(_imports_of(source, path))
    assert {room(name) for name in tree} >= {"cli", "theorems"}


def _imports_of(source, path):
    class Fake(type(path)):
        def read_text(self):
            return source

    return imports(Fake(path))


def test_import_is_light():
    """Importing pmdtheory takes under half a second of CPU time and loads nothing heavy."""
    code = (
        "import time; start = time.process_time(); import pmdtheory, sys; took = time.process_time() - start;"
        "heavy = {'cvxpy', 'matplotlib', 'pandas', 'torch', 'gymnasium', 'tqdm'} & set(sys.modules);"
        "assert not heavy, heavy; print(took)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True) for _ in range(3)]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert min(float(run.stdout) for run in runs) < 0.5
