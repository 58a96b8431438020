"""Citations: the numbers and labels by which the repository names papers, as entries of ``docs/references.bib``."""

import re

from . import markdown, mathematics
from .links import ROOT

BIBLIOGRAPHY = ROOT / "docs" / "references.bib"
NUMBER = re.compile(r"(?:arXiv )?\b(\d{4}\.\d{5})\b")


def entries():
    """Return the keys of the bibliography: arXiv numbers, for papers that have one."""
    return re.findall(r"^@\w+\{([^,]+),", BIBLIOGRAPHY.read_text(encoding="utf-8"), flags=re.MULTILINE)


def cite(text):
    """Make arXiv numbers, and the labels of the theorems' README, citations."""
    labels = {label: number for number, label in mathematics.references().items()}
    known = set(entries())

    def entry(found):
        number = labels.get(found[1], found[1])
        return f"{{cite:p}}`{number}`" if number in known else found.group()

    def change(part):
        return re.sub(r"\[([A-Z]+)\]", entry, NUMBER.sub(entry, part))

    return markdown.prose(text, change)
