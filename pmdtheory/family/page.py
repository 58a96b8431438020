"""The atlas as a page: ``python -m pmdtheory.family.page > docs/family.md``."""

import contextlib
import io

from . import MEMBERS, Member

__all__ = ["page"]

_NONE = "no law there"
_HEAD = """# What does a loss optimise?

Each loss below leads to one policy q, from an anchor p, rewards r (r̄ their mean, A = r − r̄) and a temperature τ;
s = log(q/p), ρ = q/p, |y| a completion's length. λ, C, m and κ are the numbers that make q sum to 1. The laws are
proved in the [theorems](../pmdtheory/theorems/README.md) and computed by
`pmdtheory.family.MEMBERS[name].law(policy, reward, tau, ...)`; `pmd-llm law` finds out which one a loss of yours is on.
*Caution*: the success rate after one step from .1, a hard prompt, at τ = .3; the lower, the more cautious.

| name | offered by | the loss | what decides | law | caution | exists | statement |
|---|---|---|---|---|---|---|---|
"""
_TAIL = """
Clipped surrogates (PPO, GRPO, DAPO, GSPO) are not here: they have no interior law. Their flow stops when the last class
of rewards is clipped (Statement 30).

## A line a row

One step from a success rate of .1, with the options that each law was given above.

"""


def page() -> str:
    """Return the page as Markdown, one row and one line of Python for each of `MEMBERS`."""
    rows = []
    for member in MEMBERS.values():
        cells = (
            f"`{member.name}`", member.papers, member.formula, member.decides, member.law_formula, caution(member),
            member.exists,
            member.statement,
        )  # fmt: skip
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return f"{_HEAD}{''.join(rows)}{_TAIL}```python\n{program()}```\n\n```text\n{_printed(program())}```\n"


def program() -> str:
    """Return a program that takes a step under each law, a line each."""
    lines = ["from pmdtheory.family import MEMBERS\n", "p, r, tau = [0.9, 0.1], [0.0, 1.0], 0.3"]
    for member in MEMBERS.values():
        options = "".join(f", {name}={value}" for name, value in member.example.items())
        if caution(member) == _NONE:
            tau = next(tau for tau in (1.0, 3.0, 10.0) if caution(member, tau) != _NONE)
            options = f", tau={tau}{options}"
        else:
            options = f", tau{options}"
        lines.append(f'print("{member.name}", MEMBERS["{member.name}"].law(p, r{options}).policy.round(3))')
    return "\n".join(lines) + "\n"


def _printed(code):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue()


def caution(member: Member, tau: float = 0.3) -> str:
    """Success rate after a step from .1, with the options that it was made with."""
    try:
        after = member.law([0.9, 0.1], [0.0, 1.0], tau=tau, **member.example).policy[1]
    except ValueError:
        return _NONE
    options = ", ".join(f"{name} {value}" for name, value in member.example.items())
    return f"{after:.2f}".removeprefix("0") + (f" ({options})" if options else "")


if __name__ == "__main__":
    print(page(), end="")
