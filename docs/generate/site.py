"""All pages in their places: `write` fills a folder that Sphinx reads."""

import json
import re
import shutil

from . import api, computed, gallery, markdown, mathematics, references, repository
from .links import EXPLORE, GALLERY, ROOT, THEOREMS, Links

DOCS = ROOT / "docs"
MARK = ".written"  # in a folder that may be emptied
NAMES = {  # the pages of the first level in their order, with their names in the bar at the top
    "mathematics/index": "Mathematics",
    "family": "Family",
    "findings": "Findings",
    "practitioners": "Practitioners",
    "questions": "Questions",
    "gallery": "Gallery",
    "notebooks/index": "Notebooks",
    "explore": "Explore",
    "training": "Training",
    "engines": "Engines",
    "extend": "Extend",
    "approximate": "What is approximate",
    "api/index": "API",
    "layout": "File by file",
    "references": "References",
    "changelog": "Changelog",
    "log": "Log",
}


def pages():
    """Return the place on the site of every Markdown page → its text and the repository file it is from."""
    found = {f"{path.stem}.md": (path.read_text(encoding="utf-8"), f"docs/{path.name}") for path in DOCS.glob("*.md")}
    if not EXPLORE.exists():
        del found["explore.md"]
    found["changelog.md"] = ((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), "CHANGELOG.md")
    found["gallery.md"] = (gallery.page(), GALLERY)
    found["notebooks/index.md"] = (_notebooks(), "notebooks/index.md")
    found |= {f"mathematics/{name}.md": (text, THEOREMS) for name, text in mathematics.pages().items()}
    found["family.md"] = (mathematics.link_last_column(found["family.md"][0]), found["family.md"][1])
    text, origin = found["index.md"]
    entries = [f"{words} <{name}>" for name, words in NAMES.items() if f"{name}.md" in found or name == "api/index"]
    found["index.md"] = (f"{text}\n```{{toctree}}\n:hidden:\n\n" + "\n".join(entries) + "\n```\n", origin)
    return found


def write(folder):
    """Write the source of the site into an empty or new folder, or one that an earlier call has written.

    Raises
    ------
    ValueError
        The folder holds something else, a link leads to nothing, or a page asks for a computed part that does not
        exist; the message names it.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / MARK).exists() or not any(folder.iterdir()))):
        raise ValueError(f"FOLDER must be new, empty or of an earlier build, and {folder} holds something else.")
    shutil.rmtree(folder, ignore_errors=True)
    _put(folder / MARK, "")
    links = Links()
    found = pages()
    for name, (text, origin) in found.items():
        text = markdown.link_statements(computed.fill(text, origin), mathematics.link)
        text = references.cite(gallery.link_figures(text))
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
        shutil.copytree(EXPLORE.parent, extra / "explore")


def llms(found):
    """Return ``llms.txt``: the title, a paragraph, and a line a page."""
    title, paragraph = _opening(found["index.md"][0])
    lines = [f"# {title}", f"> {paragraph}", "The Markdown source of PAGE.html is _sources/PAGE.md.txt.", "## Pages"]
    pages = []
    for name, words in NAMES.items():
        if f"{name}.md" in found:
            heading, first = _opening(found[f"{name}.md"][0])
            pages.append(f"- [{heading}]({name}.html): {first}")
        elif name == "api/index":
            pages.append(f"- [{words}]({name}.html): every public function and class, from the docstrings")
    return "\n\n".join([*lines, "\n".join(pages)]) + "\n"


def _opening(text):
    """The title of a page and the first paragraph after it, without markup."""
    title = re.search(r"^# (.*)$", text, flags=re.MULTILINE)[1]
    body = text[text.index(f"# {title}") + len(title) + 2 :]
    parts = re.split(r"\n\s*\n", body)
    paragraphs = [part for part in parts if part.strip() and not re.match(r"\s*[|`:<(#!*-]", part)]
    first = paragraphs[0] if paragraphs else ""
    words = re.sub(r"\[([^\[\]]*)\]\([^)]*\)", r"\1", " ".join(first.split()))
    return title, re.sub(r"\{[\w:]+\}|[`*]", "", words)


def _put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _notebooks():
    """The page before the notebooks: each with its title and first paragraph."""
    parts = ["# Notebooks", "Tours that call the package, saved with their pictures: to be read as they stand."]
    names = []
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
