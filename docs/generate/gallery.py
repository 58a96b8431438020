"""The gallery: the sections of ``figures/README.md``, which the figures' modules and tables write, as cards."""

import re

from figures import harness

from . import markdown, mathematics
from .links import GALLERY, ROOT

_FOLD = re.compile(r"</?details>(<summary>.*?</summary>)?")  # what the README folds; here everything but the finding is


def page():
    """Return the page as Markdown, with the links of ``figures/README.md``."""
    introduction = (ROOT / GALLERY).read_text(encoding="utf-8").split("\n\n")[1]
    return "\n\n".join(["# Gallery", introduction, *map(card, harness.NAMES)]) + "\n"


def link_figures(text):
    """Make the name of a figure in italics, as the pages write it, a link to its card."""

    def one(found):
        name = found[1].replace(" ", "_")
        return f"[{found[1]}](#figure-{found[1].replace(' ', '-')})" if name in harness.NAMES else found.group()

    return markdown.prose(text, lambda part: re.sub(r"(?<!\*)\*([a-z][a-z0-9 ]*)\*(?!\*)", one, part))


def statements(name):
    """Return the numbers of the statements that a figure draws."""
    return [number for number, statement in mathematics.statements().items() if name in statement.figures]


def card(name):
    """Return one figure: its message, picture and finding, and folded the rest."""
    title, _, *rest = section(name).split("\n\n")
    finding = next(part for part in rest if part.startswith("*Finding:*"))
    drawn = ", ".join(mathematics.link(f"{n}. {mathematics.statements()[n].title}", n) for n in statements(name))
    alt = re.sub(r"[\[\]*`]", "", title)
    folded = [part for part in rest if part != finding and not _FOLD.fullmatch(part)]
    return f"""(figure-{name.replace("_", "-")})=
## {name.replace("_", " ")}

::::{{card}}
{title}

[![{alt}](output/{name}.png)](output/{name}.svg)

{finding}

{f"*Statements:* {drawn}" if drawn else ""}

:::{{dropdown}} How it was made
{(chr(10) * 2).join(folded)}
:::
::::"""


def section(name):
    """Return what ``figures/README.md`` says of a figure, without the heading."""
    sections = re.split(r"^## (.*)\n\n", (ROOT / GALLERY).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(sections[1::2], sections[2::2]))[name.replace("_", " ")].strip()
