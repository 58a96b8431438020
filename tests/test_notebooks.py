"""Notebooks: text form and saved form agree, the saved one reads without running, each runs and its sliders draw."""

from itertools import pairwise

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell

from notebooks.__main__ import HERE, SCRIPTS, WIDGET, execute

each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)

CORNERS = """
from ipywidgets import interactive

for draw in {f for f in globals().values() if isinstance(getattr(f, "widget", None), interactive)}:
    *sliders, _ = draw.widget.children
    for end in (0, -1):
        draw(*(slider.options[end] for slider in sliders))
"""


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def test_there_are_notebooks():
    assert {path.stem for path in HERE.glob("*.ipynb")} == {script.stem for script in SCRIPTS} != set()


@each
def test_text_and_saved_form_agree(script):
    saved = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(saved)
    assert saved.metadata.jupytext.formats == "ipynb,py:percent"
    assert cells(saved) == cells(jupytext.read(script)), "run: python -m notebooks"
    assert cells(jupytext.reads(jupytext.writes(saved, "py:percent"), "py:percent")) == cells(saved)


@each
def test_saved_form_reads_without_running(script):
    path = script.with_suffix(".ipynb")
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type in ("stream", "display_data", "execute_result")
        assert output.get("name") != "stderr"
        assert WIDGET not in output.get("data", {})
    for before, cell in pairwise(code):
        if "= interact(" in cell.source:
            assert pictures(before) == 1
    assert str(HERE.parent) not in path.read_text()
    assert path.stat().st_size < 600_000


@each
def test_runs_with_its_sliders_at_their_ends(script, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    notebook = jupytext.read(script)
    notebook.cells.append(new_code_cell(CORNERS))
    execute(notebook, HERE)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [output.text for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert pictures(code[-1]) == 2 * sum("= interact(" in cell.source for cell in code)
    saved = nbformat.read(script.with_suffix(".ipynb"), as_version=4).cells
    assert [pictures(cell) for cell in saved if cell.cell_type == "code"] == [pictures(cell) for cell in code[:-1]]


@each
def test_starts_in_any_folder_once_the_package_is_installed(script, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))  # what an installation leaves on the path
    notebook = jupytext.read(script)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    setup = next((i for i, cell in enumerate(code) if "sys.path.insert" in cell.source), 0)
    needed = "figures, pmdtheory" if "sys.path.insert" in code[setup].source else "pmdtheory"
    notebook.cells = [*code[: setup + 1], new_code_cell(f"import {needed}")]
    execute(notebook, tmp_path)
    assert not list(tmp_path.iterdir())
