"""The verdict on a claim, in words that follow from its cases: each holds, does not hold, or is not told apart."""

import re
from typing import NamedTuple

CASES = 8
"""A verdict names its cases if there are at most so many; else it counts them."""
WORDS = {1: "holds", -1: "does not hold", 0: "not told apart", None: "no rows yet"}


class Claim(NamedTuple):
    """A claim, what the tables say about it, and its cases.

    Attributes
    ----------
    claim, evidence : str
    cases : dict
        Name of each case → 1 if the claim holds there, −1 if it does not, 0 if that is not told apart, None without
        rows.
    unit : str
        What the cases are, where they are counted.
    """

    claim: str
    evidence: str
    cases: dict
    unit: str = "cases"

    @property
    def verdict(self):
        """The verdict with the names of the cases, where it is not the same for all."""
        found = {sign: [name for name, own in self.cases.items() if own == sign] for sign in WORDS}
        there = {sign: names for sign, names in found.items() if names}
        if len(there) < 2 or len(self.cases) > CASES:
            return self.short
        parts = [f"{WORDS[sign]} {', '.join(names)}" for sign, names in there.items()]
        last = list(there)[-1]
        return "; ".join([*parts[:-1], f"else {WORDS[last]}" if len(there[last]) > 2 else parts[-1]])

    @property
    def short(self):
        """The verdict in at most eight words."""
        count, signs = len(self.cases), list(self.cases.values())
        if len(set(signs)) < 2:
            return WORDS[signs[0] if signs else None]
        holds, fails = signs.count(1), signs.count(-1)
        if holds and fails:
            return f"holds in {holds} of {count}, fails in {fails}"
        word, some = ("holds", holds) if holds else ("fails", fails) if fails else (WORDS[0], signs.count(0))
        return f"{word} in {some} of {count} {self.unit}"

    @property
    def anchor(self):
        """The end of a link to the claim's heading."""
        return re.sub(r"[^\w -]", "", self.claim.lower()).replace(" ", "-")


def counted(signs, name="case"):
    """Cases without names of their own."""
    return {f"{name} {number}": sign for number, sign in enumerate(signs, start=1)}


def update(text, marks, content):
    """Return the text of a page with this content between its two marks; ``ValueError`` if it has not both."""
    begin, end = map(re.escape, marks)
    pattern = re.compile(f"(?<={begin}).*?(?={end})", flags=re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page must hold the marks {marks[0].strip()} and {marks[1].strip()}.")
    return pattern.sub(lambda _: content, text)
