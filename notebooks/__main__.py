"""Execute every notebook from its text form and save the pair, pictures included: `python -m notebooks`.

Widgets are dropped from what is saved: without a kernel they show nothing. The cell above each draws a still picture.
"""

from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.glob("[0-9]*.py"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(notebook, folder):
    """Run all cells of `notebook` in place, with `folder` as working directory; raises at the first error."""
    NotebookClient(notebook, timeout=120, record_timing=False, resources={"metadata": {"path": folder}}).execute()


def for_readers(notebook):
    """Drop widgets, and number the cells so that a second run changes no line."""
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


def main():
    """Bring every saved notebook up to date with its text form."""
    for script in SCRIPTS:
        notebook = jupytext.read(script)
        execute(notebook, HERE)
        for_readers(notebook)
        target = script.with_suffix(".ipynb")
        temporary = target.with_name(f".{target.name}")
        nbformat.write(notebook, temporary)
        temporary.replace(target)
        print(f"{target.relative_to(HERE.parent)}: {len(notebook.cells)} cells, {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
