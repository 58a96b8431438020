"""Every statement on random problems: how many met the assumptions, how close it came, whether any violates it."""

from typing import TYPE_CHECKING

import numpy as np

from .. import simplex
from . import STATEMENTS

if TYPE_CHECKING:
    import pandas


def run(problems: int = 1000, seed: int = 0, progress: bool = True) -> "pandas.DataFrame":
    """Try every claim of `STATEMENTS` on random problems.

    Parameters
    ----------
    problems : int
        Problems per statement, positive; statements about MDPs take a tenth of them, but at least 40.
    seed : int
        Of the problems; the same seed gives the same table.
    progress : bool
        Show a progress bar on standard error, where that is a terminal.

    Returns
    -------
    pandas.DataFrame
        One row per claim: statement, claim, problems (where the assumptions hold), worst_slack (relative, negative
        is against the claim), violations (problems where it is negative beyond rounding).

    Raises
    ------
    ValueError
        If `problems` is not positive.

    Examples
    --------
    >>> run(problems=20, progress=False).violations.sum()
    np.int64(0)
    """
    import pandas as pd
    from tqdm import tqdm

    simplex.count(problems, "problems", 1)
    simplex.count(seed, "seed", 0)
    rows = {}
    with tqdm(STATEMENTS.items(), unit="statement", disable=not progress or None, leave=False) as bar:
        for label, (claims, sample) in bar:
            bar.set_description(f"statement {label}")
            for size, arguments in sample(np.random.default_rng(seed), problems):
                for claim in claims:
                    name, *result = _tally(claim(*arguments), size)
                    rows.setdefault((label, name), []).append(result)
    table = []
    for (label, name), parts in rows.items():
        held, worst, violations = zip(*parts)
        table.append((label, name, sum(held), np.min(worst), sum(violations)))
    return pd.DataFrame(table, columns=["statement", "claim", "problems", "worst_slack", "violations"])


def format_table(frame: "pandas.DataFrame") -> str:
    """Lay out the table of `run` as text of at most 100 columns."""
    lines = [f"{'statement':<11}{'claim':<52}{'problems':>9}{'worst slack':>14}{'violations':>12}"]
    lines += [
        f"{row.statement:<11}{row.claim:<52}{row.problems:>9}{row.worst_slack:>14.1e}{row.violations:>12}"
        for row in frame.itertuples()
    ]
    return "\n".join(lines)


def _tally(claim, size):
    """Return the claim's name and, of `size` problems, how many meet the assumptions, the worst slack, violations."""
    slack = claim.slack
    assumed, holds = np.broadcast_to(claim.assumptions, slack.shape), np.broadcast_to(claim.holds, slack.shape)
    assumed, holds, slack = (x.reshape(size, -1) for x in (assumed, holds, slack))
    worst = slack.min(where=assumed, initial=np.inf)
    return claim.name, int(assumed.any(axis=-1).sum()), float(worst), int((~holds).any(axis=-1).sum())
