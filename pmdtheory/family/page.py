"""The atlas as a page: ``python -m pmdtheory.family.page > docs/family.md``."""

from . import MEMBERS

__all__ = ["page"]

_HEAD = """# What does a loss optimise?

Each loss below leads to one policy q, from an anchor p, rewards r (r̄ their mean, A = r − r̄) and a temperature τ;
s = log(q/p), ρ = q/p, |y| a completion's length. λ, C, m and κ are the numbers that make q sum to 1. The laws are
proved in the [theorems](../pmdtheory/theorems/README.md) and computed by
`pmdtheory.family.MEMBERS[name].law(policy, reward, tau, ...)`; `pmd-llm law` finds out which one a loss of yours is on.

| name | offered by | the loss | what decides | law | exists | statement |
|---|---|---|---|---|---|---|
"""
_TAIL = """
Clipped surrogates (PPO, GRPO, DAPO, GSPO) are not here: they have no interior law. Their flow stops when the last class
of rewards is clipped (Statement 30).
"""


def page():
    """Return the page as Markdown, one row for each of `MEMBERS`."""
    rows = []
    for member in MEMBERS.values():
        cells = (
            f"`{member.name}`", member.papers, member.formula, member.decides, member.law_formula, member.exists,
            member.statement,
        )  # fmt: skip
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return _HEAD + "".join(rows) + _TAIL


if __name__ == "__main__":
    print(page(), end="")
