"""The package `pmdllm`: its arrows, what it needs, what it ships, and the examples in its docstrings."""

import ast
import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "llm"

# Each module may import only from layers above it in this list.
LAYERS = [
    ["losses", "metrics", "muon", "run", "tasks"],
    ["config", "credit"],
    ["models"],
    ["logp", "integrations"],
    ["rollout"],
    ["batch", "evaluate"],
    ["train", "warmup"],
    ["study"],
    ["validation"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(path for path in FOLDER.rglob("*.py") if path != FOLDER / "__init__.py")
MODULES = [".".join(("pmdllm", *path.relative_to(FOLDER).with_suffix("").parts)) for path in SOURCES]
MODULES = [name.removesuffix(".__init__") for name in MODULES]


def imports(path):
    """Absolute names of the modules a file of the package imports, at any depth of its code."""
    package = ["pmdllm", *path.relative_to(FOLDER).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_arrows_point_down(path):
    own = path.relative_to(FOLDER).with_suffix("").parts[0]
    assert own in LEVEL, f"{own} has no layer: add it to LAYERS"
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in {"figures", "notebooks", "tests", "benchmarks", "llm"}
        if parts[0] == "pmdllm" and len(parts) > 1 and parts[1] in LEVEL:
            assert parts[1] == own or LEVEL[parts[1]] < LEVEL[own], f"{own} imports {parts[1]}"


def test_the_arrow_test_sees_relative_imports():
    assert {"pmdllm.losses", "pmdllm.run.folder"} <= set(imports(FOLDER / "train.py"))
    assert "pmdllm.tasks.answers" in set(imports(FOLDER / "tasks" / "__init__.py"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name, request):
    if name in ("pmdllm.integrations.trl", "pmdllm.integrations.verl", "pmdllm.integrations.prime_rl"):
        pytest.importorskip(name.rpartition(".")[2], reason="the engine is not installed")
    module = importlib.import_module(name)
    outcome = doctest.testmod(module, extraglobs={"getfixture": request.getfixturevalue})
    assert outcome.failed == 0


def test_declared_packages_are_those_that_exist():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join((name, *path.parent.relative_to(ROOT / folder).parts))
        for name, folder in (("pmdtheory", "pmdtheory"), ("pmdllm", "llm"))
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(declared) == found


def python(code, *arguments, cwd=ROOT, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_losses_and_metrics_need_pytorch_only():
    loaded = python("import sys, pmdllm.losses, pmdllm.metrics; print(*sys.modules)").split()
    assert not {"transformers", "cvxpy", "matplotlib", "pandas", "scipy.optimize"} & set(loaded)


def test_no_engine_comes_with_the_base_package():
    """Neither installed by it nor imported by the package of their adapters."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=\[ ]", line)[0] for line in project["dependencies"]}
    assert not {"trl", "verl", "prime-rl", "torch", "transformers", "ray", "vllm"} & needed
    assert {"trl", "verl"} <= project["optional-dependencies"].keys()
    loaded = python("import sys, pmdllm.integrations; print(*sys.modules)").split()
    assert not {"trl", "verl", "prime_rl", "torch"} & set(loaded)


def test_a_run_needs_neither_cvxpy_nor_trl_nor_datasets(tmp_path):
    """Training the shipped base with those packages (and others that may be absent) made impossible to import."""
    code = """
import sys
absent = ["cvxpy", "trl", "datasets", "matplotlib", "accelerate", "reasoning_gym", "math_verify", "gymnasium", "pebble",
          "tensorboard", "pandas"]
sys.modules.update(dict.fromkeys(absent))
from pmdllm.config import Config, from_preset
from pmdllm.train import train
config = from_preset(Config, "tiny-cpu", output=sys.argv[1], iterations=1, eval_prompts=8, test_prompts=8,
                     prompts_per_batch=8, rollouts_per_prompt=4)
print(train(config, progress=False)["updates"])
"""
    assert python(code, tmp_path / "run").split()[-1] == "8"


def test_a_wheel_brings_base_and_presets(tmp_path):
    """Build and install it away from the sources, and load what training starts from."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("pmdtheory", "llm"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    site = tmp_path / "site"
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--target", site, tmp_path], check=True)
    code = (
        "import pmdllm; from pmdllm import models, config;"
        "print(pmdllm.__file__, config.presets(), models.load('base')[0].num_parameters())"
    )
    shown = python(code, cwd=site, PYTHONPATH=str(site))
    assert shown.startswith(str(site / "pmdllm"))
    assert "tiny-cpu" in shown and int(shown.split()[-1]) > 10_000


def test_the_gpu_study_runs_from_links(tmp_path):
    """As ``make gpu`` does on a machine where nothing is installed and much is absent: the plan of all its cells."""
    (tmp_path / "pmdllm").symlink_to(ROOT / "llm")
    (tmp_path / "pmdtheory").symlink_to(ROOT / "pmdtheory")
    code = """
import sys
sys.modules.update(dict.fromkeys(["cvxpy", "trl", "datasets", "accelerate", "math_verify", "pebble", "gymnasium"]))
import pmdllm.cli
assert pmdllm.cli.main(["study", "gpu", "--jobs", "1", "--dry-run", "--tables", "none"]) == 0
print(pmdllm.__file__)
"""
    shown = python(code, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "gpu: 10 cells" in shown and str(tmp_path) in shown.splitlines()[-1]
    target = subprocess.run(["make", "-n", "gpu"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m pmdllm.cli study gpu --jobs 1" in target


def test_an_editable_install_runs_the_sources():
    """The environment of the tests is one; from another folder, `pmdllm` is still the folder `llm`."""
    shown = python("import pmdllm; print(pmdllm.__file__)", cwd=ROOT.parent, PYTHONPATH="")
    assert Path(shown.strip()) == FOLDER / "__init__.py"
