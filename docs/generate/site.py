"""All pages in their places: `write` fills a folder that Sphinx reads."""

import json
import re
import shutil
from pathlib import Path

from . import api, computed, gallery, markdown, mathematics, references, repository
from .links import GALLERY, ROOT, THEOREMS, Links

DOCS = ROOT / "docs"
EXPLORE = DOCS / "explore"  # a page of its own, with its own scripts, copied as it is
ORDER = (
    "mathematics/index", "family", "practitioners", "questions", "gallery", "notebooks/index", "explore", "engines",
    "extend", "approximate", "api/index", "references", "changelog", "log",
)  # fmt: skip


def pages():
    """Return the place on the site of every Markdown page → its text and the repository file it is from."""
    found = {f"{path.stem}.md": (path.read_text(encoding="utf-8"), f"docs/{path.name}") for path in DOCS.glob("*.md")}
    if not (EXPLORE / "index.html").exists():
        del found["explore.md"]
    found["changelog.md"] = ((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), "CHANGELOG.md")
    found["gallery.md"] = (gallery.page(), GALLERY)
    found["notebooks/index.md"] = (_notebooks(), "notebooks/index.md")
    found |= {f"mathematics/{name}.md": (text, THEOREMS) for name, text in mathematics.pages().items()}
    text, origin = found["index.md"]
    order = [name for name in ORDER if f"{name}.md" in found or name == "api/index"]
    found["index.md"] = (f"{text}\n```{{toctree}}\n:hidden:\n\n" + "\n".join(order) + "\n```\n", origin)
    return found


def write(folder):
    """Write the source of the site into an empty or new folder.

    Raises
    ------
    ValueError
        A link leads to nothing, or a page asks for a computed part that does not exist; the message names it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    links = Links()
    found = pages()
    for name, (text, origin) in found.items():
        text = references.cite(markdown.link_statements(computed.fill(text, origin), mathematics.link))
        _put(folder / name, links.rewrite(text, origin))
    for name, text in api.pages().items():
        _put(folder / "api" / f"{name}.md", links.rewrite(text, "docs/api.md"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        _put(folder / "notebooks" / path.name, _notebook(path, links))
    done = set()
    while links.files - done:
        for path in sorted(links.files - done):
            repository.write(path, folder, links)
            done.add(path)
    extra = folder / "extra"
    _put(extra / "llms.txt", llms(found))
    if EXPLORE.exists():
        shutil.copytree(EXPLORE, extra / "explore")


def llms(found):
    """Return ``llms.txt``: the title, a paragraph, and a line a page."""
    lines = []
    for name in ORDER:
        if f"{name}.md" in found:
            title, first = _opening(found[f"{name}.md"][0])
            lines.append(f"- [{title}]({name}.html): {first}")
    title, first = _opening(found["index.md"][0])
    lines.insert(0, f"- [{title}](index.html)")
    lines.append("- [API](api/index.html): every public function and class, from the docstrings")
    return f"# {title}\n\n> {first}\n\nThe Markdown source of PAGE.html is _sources/PAGE.md.txt.\n\n## Pages\n\n" + "\n".join(lines) + "\n"


def _opening(text):
    """The title of a page and the first paragraph after it, without markup."""
    title = re.search(r"^# (.*)$", text, flags=re.MULTILINE)[1]
    body = text[text.index(f"# {title}") + len(title) + 2 :]
    paragraphs = [part for part in re.split(r"\n\s*\n", body) if part.strip() and not re.match(r"\s*[|`:<(#!*-]", part)]
    first = paragraphs[0] if paragraphs else ""
    return title, re.sub(r"\[([^\[\]]*)\]\([^)]*\)|[`*]", r"\1", " ".join(first.split()))


def _put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _notebooks():
    """The page before the notebooks: each with its title and first paragraph."""
    parts, names = ["# Notebooks", "Tours that call the package; saved with their pictures, to be read as they stand."], []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title, first = _opening("".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]))
        parts.append(f"**[{title}]({path.name})** {first}")
        names.append(path.stem)
    return "\n\n".join([*parts, "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```"]) + "\n"


def _notebook(path, links):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = markdown.link_statements("".join(cell["source"]), mathematics.link)
            cell["source"] = links.rewrite(text, f"notebooks/{path.name}").splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False)
