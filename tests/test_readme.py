"""The README's example prints what the README says; its commands, and those of the pages beside it, exist."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pmdllm import cli as pmdllm_cli
from pmdllm.config import Config, parse
from pmdllm.warmup import WarmupConfig

from pmdtheory import cli

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PAGES = [TEXT, *((ROOT / "docs" / f"{page}.md").read_text() for page in ("training", "layout", "findings"))]


def block(language, text=TEXT):
    """The code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(program):
    """The lines of all pages that call one program, each once."""
    lines = "".join(text for page in PAGES for text in block("sh", page)).splitlines()
    return sorted({line.partition("#")[0].strip() for line in lines if line.startswith(f"{program} ")})


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 100


def test_the_example_prints_what_is_printed():
    """Run the Python block, compare its output with the block that follows it."""
    (code,), (expected,) = block("python"), block("text")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == expected
    assert len(code.splitlines()) <= 10


COMMANDS = commands("pmdtheory")


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_run(line, capsys):
    """Every `pmdtheory` command of the README exits with 0."""
    words = shlex.split(line)[1:]
    words = ["20" if word == "200" else word for word in words]
    assert cli.main(words) == 0
    assert capsys.readouterr().out


SMALL = "--iterations 1 --prompts_per_batch 8 --rollouts_per_prompt 2 --eval_prompts 2 --test_prompts 2"
TRAINING = [command.strip() for line in commands("pmd-llm") for command in line.split("&&")]


@pytest.mark.parametrize("line", TRAINING)
def test_training_commands_are_understood(line, tmp_path, monkeypatch, capsys):
    """Every `pmd-llm` command of the README: training and warm-up are parsed, the others run on a few prompts."""
    command, *words = shlex.split(line)[1:]
    monkeypatch.chdir(tmp_path)
    if command in ("train", "warmup"):
        kind = {"train": Config, "warmup": WarmupConfig}[command]
        assert isinstance(parse(kind, words, kind=command), kind)
        return
    if command == "evaluate":
        words = ["base" if word.startswith("runs/") else word for word in words] + ["--prompts", "2", "--samples", "2"]
    if command == "compare":
        words = ["0-1" if word == "0-2" else word for word in words] + SMALL.split()
    assert pmdllm_cli.main([command, *words]) == 0
    assert capsys.readouterr().out


def test_the_page_on_extending_runs(tmp_path):
    """Its blocks in their order, in a process of their own: they enter things into registries."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), flags=re.DOTALL)
    run = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert len(blocks) == 10 and "True" in run.stdout


def test_make_targets_exist():
    """Every make target that a page names is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"(?:^|`)make ([a-z-]+)", page, flags=re.MULTILINE)}
    assert len(named) > 8 and named <= targets


def test_links_resolve():
    """Every relative link of the README, the gallery and the pages points at a file."""
    for page in (ROOT / "README.md", ROOT / "figures" / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)\)", prose):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
