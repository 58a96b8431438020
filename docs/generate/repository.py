"""Pages that show a file of the repository, for the links of other pages to lead to."""

import re
import shutil
import subprocess

from . import mathematics
from .links import ROOT, shown

LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".yaml": "yaml", ".json": "json", ".jsonl": "json"}
_LARGEST = 400_000  # bytes of text that a page shows


def write(path, folder, links):
    """Write the page or the copy of a repository file or folder into the source of the site."""
    source, target = ROOT / path, folder / shown(path)[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.write_text(_listing(path, links), encoding="utf-8")
    elif path.endswith(".md"):
        text = re.sub(r"\A---\n.*?\n---\n", "", source.read_text(encoding="utf-8"), flags=re.DOTALL)  # its own head
        text = links.rewrite(text, path)
        target.write_text(f"---\norphan: true\n---\n\n{text}", encoding="utf-8")
    elif target.suffix == ".md":
        target.write_text(_file(path), encoding="utf-8")
    else:
        shutil.copyfile(source, target)


def _file(path):
    source = ROOT / path
    head = f"---\norphan: true\n---\n\n# `{path}`\n\n"
    try:
        text = source.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return f"{head}{source.stat().st_size} bytes that are not text.\n"
    if len(text) > _LARGEST:
        return f"{head}{len(text)} characters, too many to show.\n"
    claims = [s for s in mathematics.statements().values() if path in s.checks]
    named = ", ".join(mathematics.link(f"{s.number}. {s.title}", s.number) for s in claims)
    language = LANGUAGES.get(source.suffix, "make" if source.name == "Makefile" else "text")
    fence = "`" * 8
    return f"{head}{f'Checks {named}.' if named else ''}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _listing(path, links):
    """A folder: its committed files, with links to those of this folder."""
    command = ["git", "-C", ROOT, "ls-files", "--", path]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")
    names = sorted({name for name in found if name}) or sorted(
        str(file.relative_to(ROOT)) for file in (ROOT / path).rglob("*") if file.is_file()
    )
    rows = [
        f"- [`{name.removeprefix(path + '/')}`]({links.page(name)})"
        if "/" not in name.removeprefix(path + "/")
        else f"- `{name.removeprefix(path + '/')}`"
        for name in names
    ]
    return f"---\norphan: true\n---\n\n# `{path}/`\n\n" + "\n".join(rows) + "\n"
