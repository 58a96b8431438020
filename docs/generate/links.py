"""Where a link of the repository leads on the site: to a page, or to a page that shows the file."""

import os
import re
from pathlib import Path

from . import markdown

ROOT = Path(__file__).parents[2]
EXPLORE = ROOT / "docs" / "explore" / "index.html"  # a page of its own, with its own scripts, copied as it is
THEOREMS, GALLERY = "pmdtheory/theorems/README.md", "figures/README.md"

# Repository files and folders that are pages; the pages of docs/ and the notebooks are added by name.
PAGES = {
    "README.md": "/index.md",
    "CHANGELOG.md": "/changelog.md",
    THEOREMS: "/mathematics/index.md",
    GALLERY: "/gallery.md",
    "notebooks": "/notebooks/index.md",
    "pmdtheory": "/api/index.md",
    **{f"docs/{path.name}": f"/{path.name}" for path in (ROOT / "docs").glob("*.md")},
    **{f"notebooks/{path.name}": f"/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")},
}


class Links:
    """Rewrites links and remembers the files that have to be shown.

    Attributes
    ----------
    files : set of str
        Paths from the root of the repository that some page links to and that are not pages themselves.
    """

    def __init__(self):
        self.files = set()

    def rewrite(self, text, origin):
        """Return Markdown of the repository file `origin` with its links led to the site.

        Raises
        ------
        ValueError
            A relative link leads to nothing.
        """
        return markdown.relink(text, lambda target: self.target(target, origin))

    def target(self, target, origin):
        """Return where on the site a link of `origin` leads; a web address, ``#place`` and ``/page`` stay."""
        if re.match(r"[a-z]+:|#|/", target):
            return target
        path, _, anchor = target.partition("#")
        path = os.path.relpath(ROOT / origin / ".." / path, ROOT)
        if not (ROOT / path).exists() or path.startswith(".."):
            raise ValueError(f"{origin} links to {target}, which is not in the repository.")
        return self.page(path, anchor)

    def page(self, path, anchor=""):
        """Return the place of a repository file on the site."""
        number = re.match(r"\d+", anchor)
        if path == THEOREMS and number:
            return f"/mathematics/{number.group()}.md"
        if path == GALLERY and anchor:
            return f"#figure-{anchor}"
        if path not in PAGES:
            self.files.add(path)
        return PAGES.get(path, shown(path)) + (f"#{anchor}" if anchor else "")


def shown(path):
    """Return the place of the page that shows a file or folder, or of its copy if it is data or a picture."""
    if (ROOT / path).is_dir():
        return f"/repository/{path}/index.md"
    if path.endswith((".md", ".csv", ".png", ".svg", ".ipynb")):
        return f"/repository/{path}"
    return f"/repository/{path}.md"
