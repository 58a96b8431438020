"""The gallery: a card a figure, with what its module and its tables say (`figures.harness.describe`)."""

from figures import harness

from . import mathematics
from .links import GALLERY, ROOT


def page():
    """Return the page as Markdown, with the links of ``figures/README.md``."""
    introduction = (ROOT / GALLERY).read_text(encoding="utf-8").split("\n\n")[1]
    return "\n\n".join(["# Gallery", introduction, *map(card, harness.NAMES)]) + "\n"


def statements(name):
    """Return the numbers of the statements that a figure draws."""
    return [number for number, statement in mathematics.statements().items() if name in statement.figures]


def card(name):
    """Return one figure: picture, title, and folded its caption, finding and origin."""
    said = harness.describe(name)
    drawn = ", ".join(mathematics.link(f"{n}. {mathematics.statements()[n].title}", n) for n in statements(name))
    return f"""(figure-{name.replace("_", "-")})=
## {name.replace("_", " ")}

{said.title}

[![{name.replace("_", " ")}](output/{name}.png)](output/{name}.svg)

:::{{dropdown}} Finding, caption and data
*Finding:* {said.finding}

{said.caption}

{f"*Statements:* {drawn}" if drawn else ""}

{said.origin}
:::"""
