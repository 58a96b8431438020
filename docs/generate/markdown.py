"""Markdown as text: what is prose in it, where its links lead, which statements it names."""

import re

TEXT = r"(?:`[^`]*`|[^\[\]`]|\[[^\[\]]*\])*"
LINK = re.compile(rf"(?P<image>!?)\[(?P<text>{TEXT})\]\((?P<target>[^()\s]+)\)")
FENCE = r"^(?P<ticks>`{3,})(?!.*`).*?^(?P=ticks)`*[ \t]*$"
_CODE = r"(?P<marks>`+)(?!`).+?(?<!`)(?P=marks)(?!`)"
_FORMULA = r"\$\$.*?\$\$|\$[^$]+\$"
_NOT_PROSE = re.compile(
    rf"{FENCE}|{_FORMULA}|!?\[{TEXT}\]\([^()\s]+\)|{_CODE}|<[^<>\n]+>|^#[^\n]*$|^\([\w-]+\)=$",
    re.DOTALL | re.MULTILINE,
)
_LINK_OR_CODE = re.compile(rf"{FENCE}|{_FORMULA}|{LINK.pattern}|{_CODE}", re.DOTALL | re.MULTILINE)

_ONE = r"\d+(?:\([a-f]\))?"
NAMED = re.compile(rf"(Statements?\s+)({_ONE}(?:(?:,\s+and|,|\s+and|\s+to|\s*–)\s*{_ONE})*)")
_BOUND = re.compile(r"\bB(?:1[01]|[1-9])\b")
BOUNDS = 16  # the statement that the bounds B1 to B11 belong to


def prose(text, change):
    """Apply `change` to the parts of `text` that are neither code, formulas, links nor headings."""
    parts, at = [], 0
    for found in _NOT_PROSE.finditer(text):
        parts += [change(text[at : found.start()]), found.group()]
        at = found.end()
    return "".join([*parts, change(text[at:])])


def relink(text, target):
    """Replace the target of every link outside code and formulas by ``target(old)``, pictures within links too."""

    def change(found):
        if found["target"] is None:
            return found.group()
        return f"{found['image']}[{relink(found['text'], target)}]({target(found['target'])})"

    return _LINK_OR_CODE.sub(change, text)


def statements(text, bounds=False):
    """Return the numbers of the statements that `text` names, in order; with `bounds` B1 to B11 count as their own.

    Examples
    --------
    >>> statements("as in Statements 1–3 and 10(b), by Statement 5")
    [1, 2, 3, 5, 10]
    >>> statements("stays below B4", bounds=True)
    [16]
    """
    found = set()
    for _, numbers in NAMED.findall(text):
        bare = re.sub(r"\([a-f]\)", "", numbers)
        for first, last in re.findall(r"(\d+)(?:(?:\s+to|\s*–)\s*(\d+))?", bare):
            found.update(range(int(first), int(last or first) + 1))
    if bounds and _BOUND.search(text):
        found.add(BOUNDS)
    return sorted(found)


def link_statements(text, link):
    """Make each number after "Statement" a link, ``link(words, number)``, in prose only."""

    def one(found):
        return link(found.group(), int(re.match(r"\d+", found.group()).group()))

    def all_of(found):
        return found[1] + re.sub(_ONE, one, found[2])

    return prose(text, lambda part: NAMED.sub(all_of, part))


def table(header, rows):
    """Return a table; cells are Markdown, in which a bar is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
