r"""How large a τ may be, and whether PMD-mean is worth it: rules read off simulated training runs.

The runs are those of `posttraining`, tuned and evaluated in two hundred regimes: the table
``figures/data/where_it_pays.csv``, written by ``python -m figures where_it_pays --update``. A third of the random
regimes is held out; the rest decides on two rules.

*Does it pay?* PMD-mean pays in a regime if it gains more than 0.02 of success rate over PMD-part and over the better of
GRPO and RLOO, each with its own tuning. The rule names the two thresholds that tell most regimes right: the age of a
batch when it is used up, U (1 + lag) updates, has to be at least the one, the success rate J at most the other.

*How large may τ be?* Call τ_max the largest τ that keeps nine tenths of a method's best gain. The rule is

.. math:: \log τ_\max = a + b \log U(1 + \text{lag}) + c \log B + d \log \frac{J}{1 - J} + e \log n

for B batches and n rollouts per prompt, fitted by maximum likelihood with normal errors; where all values of τ that
were tried, or only the smallest, keep nine tenths, τ_max is known from one side only (a Tobit model). With one update
in a batch's life τ has no influence on PMD-mean, and its rule leaves such regimes out. Exponents have bootstrap
intervals over regimes.

The factor within which nine of ten held-out regimes have their τ_max is part of the answer. A τ_max known from one side
is at least as far from the rule's as where it is cut off: the factor is a quantile of Kaplan and Meier's estimate. What
the rules say ends where the values of τ that were tried end.
"""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import simplex
from .intervals import Interval, proportion
from .posttraining import Regime

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MARGIN", "Advice", "Rule", "advise", "exponents", "fit", "read", "regimes"]

TABLE = Path(__file__).resolve().parent.parent / "figures" / "data" / "where_it_pays.csv"
MARGIN, KEPT = 0.02, 0.9
"""Success rate that counts as a lead; share of the best gain that a τ has to keep."""
OURS, RIVALS, CLIPPED = "pmd-mean", ("part", "clipped"), ("grpo", "rloo")
REGIME = [field.name for field in fields(Regime)]
LEADS = "lead", "lead_half"
COLUMNS = ["kind", *REGIME, "split", "method", "knob", "gain", *LEADS]
RANGES = {"rollouts": "n", "success": "J", "updates": "U", "batches": "B", "lag": "lag", "flips": "flips"}
_SUCCESS = np.round(np.arange(0.1, 0.91, 0.05), 2)


def read(path: Path | None = None) -> "pd.DataFrame":
    """Return the table of simulated runs, of this repository by default.

    Raises
    ------
    ValueError
        There is no such table, it is another one, or a number is missing; the message names it.
    """
    import pandas as pd

    path = TABLE if path is None else Path(path)
    if not path.is_file():
        raise ValueError(f"table {path} is not there: run from a checkout of the repository, or name its copy.")
    try:
        table = pd.read_csv(path)
    except ValueError:  # not a table at all
        table = pd.DataFrame()
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(f"table {path} lacks {', '.join(missing)}: name a copy of figures/data/{TABLE.name}.")
    ends = (table.split == "evaluation") & (table.method != OURS)
    for name, there in {**dict.fromkeys((*REGIME, "knob", "gain"), table.index), **dict.fromkeys(LEADS, ends)}.items():
        numbers = pd.to_numeric(table[name][there], errors="coerce")
        if numbers.isna().any():
            line = numbers.index[numbers.isna()][0] + 2
            raise ValueError(f"table {path} must have a number for {name} in line {line}: name a copy of {TABLE.name}.")
    return table


def regimes(table: "pd.DataFrame") -> "pd.DataFrame":
    """What was measured in each regime, a row each.

    Parameters
    ----------
    table : pandas.DataFrame
        As `read` returns it.

    Returns
    -------
    pandas.DataFrame
        ``kind`` and the fields of `posttraining.Regime`; ``age``, U (1 + lag), with a lag that the run is long enough
        for; ``lead_part``, ``lead_clipped``, their half-widths ``half_...``: gain of PMD-mean minus that of PMD-part
        and that of the better of GRPO and RLOO, and its 95% interval; for METHOD in pmd-mean, pmd-part:
        ``tau_METHOD``, τ_max in reward units, and ``side_METHOD``, 1 where it may be larger, −1 where smaller, else 0;
        NaN where nothing much is gained. Bandits have no clipped methods, so NaN.
    """
    import pandas as pd

    rows = []
    for key, cell in table.groupby(["kind", *REGIME], sort=False):
        row = dict(zip(["kind", *REGIME], key))
        ends = cell[cell.split == "evaluation"].set_index("method")
        row["age"] = row["updates"] * (1 + min(row["lag"], row["batches"] - 1))
        clipped = ends.reindex(CLIPPED).gain
        best = clipped.idxmax() if clipped.notna().any() else None
        for name, rival in (("part", "pmd-part"), ("clipped", best)):
            lead = ends.loc[rival, ["lead", "lead_half"]] if rival else (np.nan, np.nan)
            row[f"lead_{name}"], row[f"half_{name}"] = lead
        for method in (OURS, "pmd-part"):
            tuning = cell[(cell.split == "tuning") & (cell.method == method)].sort_values("knob")
            row[f"tau_{method}"], row[f"side_{method}"] = largest_tau(tuning.knob.to_numpy(), tuning.gain.to_numpy())
        rows.append(row)
    return pd.DataFrame(rows)


def largest_tau(taus: np.ndarray, gains: np.ndarray) -> tuple[float, float]:
    """τ_max, interpolated between logarithms, and the side on which it is not bounded.

    Parameters
    ----------
    taus, gains : ndarray, shape (m,)
        Increasing temperatures, and what each gains.

    Returns
    -------
    tau, side : float
        Side 1 where the largest τ tried keeps enough, −1 where the smallest one alone does; NaN if the best gain is at
        most `MARGIN`, or a gain is NaN.

    Examples
    --------
    >>> tau, side = largest_tau(np.array([0.01, 0.1, 1.0]), np.array([0.5, 0.5, 0.4]))
    >>> round(tau, 4), side
    (0.3162, 0.0)
    """
    least = KEPT * gains.max()
    if not gains.max() > MARGIN:
        return np.nan, np.nan
    last = int(np.flatnonzero(gains >= least)[-1])
    if last == len(taus) - 1:
        return float(taus[-1]), 1.0
    share = (gains[last] - least) / (gains[last] - gains[last + 1])
    return float(taus[last] * (taus[last + 1] / taus[last]) ** share), -1.0 if last == 0 else 0.0


class Trust(NamedTuple):
    """Counts in held-out regimes on one side of the rule."""

    ahead: int
    behind: int
    regimes: int

    def __str__(self):
        low, high = (float(end) for end in proportion(self.ahead, self.regimes))
        return (
            f"ahead by more than {MARGIN} in {self.ahead} of {self.regimes} held-out regimes "
            f"({low:.0%} to {high:.0%}), behind by as much in {self.behind}"
        )


@dataclass(frozen=True)
class Rule:
    """The two rules, as fitted.

    Attributes
    ----------
    age, success : float
        PMD-mean pays where U (1 + lag) is at least ``age`` and J at most ``success``.
    right : dict of str to float
        Share of the regimes told right: ``fitted`` and ``held-out``.
    coefficients : dict of str to ndarray
        a, b, c, d, e of log τ_max for pmd-mean and pmd-part.
    factor : dict of str to float
        Nine of ten held-out regimes have τ_max within this factor of the rule's; infinite where too many of them are
        known from one side.
    trust : dict
        (pays, rival) → `Trust`, rivals being ``part`` and ``clipped``.
    ranges : dict of str to tuple
        Smallest and largest value of each variable in the regimes of the fit.
    limits : tuple of float
        Smallest and largest τ that was tried.
    """

    age: float
    success: float
    right: dict
    coefficients: dict
    factor: dict
    trust: dict
    ranges: dict
    limits: tuple

    def pays(self, cells: Any) -> Any:
        """Whether PMD-mean pays, for columns ``age`` and ``success``."""
        return (cells["age"] >= self.age) & (cells["success"] <= self.success)

    def tau(self, cells: Any, method: str = OURS) -> Any:
        """τ_max of a method within the range that was tried, for columns as `regimes` returns them."""
        return np.exp(_design(cells) @ self.coefficients[method]).clip(*self.limits)


def fit(table: "pd.DataFrame") -> Rule:
    """Fit both rules and judge them on the held-out regimes.

    Parameters
    ----------
    table : pandas.DataFrame
        As `read` returns it.

    Returns
    -------
    Rule

    Raises
    ------
    ValueError
        The table has no regimes to be fitted, or none held out.
    """
    cells = regimes(table)
    seen, held_out = _seen(cells), cells[cells.kind == "held-out"]
    if not (cells.kind == "fitted").any() or held_out.empty:
        raise ValueError("the table must have the kinds 'fitted' and 'held-out': write it whole.")
    ages = np.unique(seen.age)
    scores = {(age, J): _right(seen, (seen.age >= age) & (seen.success <= J)) for age in ages for J in _SUCCESS}
    age, success = max(scores, key=lambda pair: (scores[pair], *pair))
    says = (held_out.age >= age) & (held_out.success <= success)
    trust = {}
    for pays in (True, False):
        for rival in RIVALS:
            leads = held_out[says == pays][f"lead_{rival}"]
            trust[pays, rival] = Trust(int((leads > MARGIN).sum()), int((leads < -MARGIN).sum()), len(leads))
    taus = table[(table.method == OURS) & (table.split == "tuning") & (table.kind != "bandit")].knob
    limits = float(taus.min()), float(taus.max())
    rule = Rule(
        float(age),
        float(success),
        {"fitted": scores[age, success], "held-out": _right(held_out, says)},
        {method: _tobit(*_known(seen, method))[:-1] for method in (OURS, "pmd-part")},
        {},
        trust,
        {name: (float(seen[name].min()), float(seen[name].max())) for name in RANGES},
        limits,
    )
    for method in (OURS, "pmd-part"):
        known = _influenced(held_out, method)
        off = np.abs(np.log(known[f"tau_{method}"] / rule.tau(known, method)))
        rule.factor[method] = float(np.exp(_quantile(off, known[f"side_{method}"] != 0, 0.9)))
    return rule


def exponents(table: "pd.DataFrame", method: str = OURS, draws: int = 999) -> list[Interval]:
    """Return the coefficients of the rule of τ_max with their 95% bootstrap intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        As `read` returns it.
    method : str
        ``pmd-mean`` or ``pmd-part``.
    draws : int
        How often the regimes of the fit are drawn anew, the same ones every time.

    Returns
    -------
    list of Interval
        Of a, b, c, d, e.
    """
    X, y, side = _known(_seen(regimes(table)), method)
    fitted = _tobit(X, y, side)
    numbers = np.random.default_rng(0).integers(len(y), size=(draws, len(y)))
    drawn = [_tobit(X[some], y[some], side[some], fitted)[:-1] for some in numbers]
    ends = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [Interval(*map(float, row)) for row in zip(fitted, *ends)]


def leads(cells: "pd.DataFrame") -> "pd.Series":
    """Lead of PMD-mean over the better of its rivals."""
    return cells[["lead_part", "lead_clipped"]].min(axis=1)


def _right(cells, says):
    return float(((leads(cells) > MARGIN) == says).mean())


def _design(cells):
    logit = np.log(cells["success"] / (1 - cells["success"]))
    columns = np.log(cells["age"]), np.log(cells["batches"]), logit, np.log(cells["rollouts"])
    return np.stack([np.ones(np.shape(logit)), *columns], axis=-1)


def _seen(cells):
    """The regimes of the fit."""
    return cells[cells.kind.isin(("map", "fitted"))]


def _influenced(cells, method):
    """Regimes in which something is gained and τ has an influence on a method."""
    cells = cells.dropna(subset=f"tau_{method}")
    return cells[cells.age > 1] if method == OURS else cells


def _known(cells, method):
    """Design, log τ_max and the side on which it is not bounded."""
    cells = _influenced(cells, method)
    return _design(cells), np.log(cells[f"tau_{method}"].to_numpy()), cells[f"side_{method}"].to_numpy()


def _tobit(X, y, side, start=None):
    """Maximum likelihood of log τ_max, normal, some of them known from one side; the last number is log σ."""
    from scipy.optimize import minimize
    from scipy.special import log_ndtr

    exact = side == 0

    def loss(parameters):
        z = (y - X @ parameters[:-1]) / np.exp(parameters[-1])
        tail = log_ndtr(-side * z)
        pull = np.where(exact, z, side * np.exp(-z * z / 2 - tail) / np.sqrt(2 * np.pi))  # −dℓ/dz
        value = np.where(exact, z * z / 2 + parameters[-1], -tail).mean()
        return value, np.append(-(pull @ X) / np.exp(parameters[-1]), (exact - pull * z).sum()) / len(y)

    start = np.append(np.linalg.lstsq(X, y, rcond=None)[0], 0.0) if start is None else start
    return minimize(loss, start, jac=True, method="BFGS").x


def _quantile(distances, beyond, level):
    """A quantile of distances, some of which lie `beyond` what is known of them, by Kaplan and Meier's estimate."""
    from scipy.stats import CensoredData, ecdf

    if not len(distances):
        return np.inf
    found = ecdf(CensoredData.right_censored(np.asarray(distances), np.asarray(beyond))).cdf
    enough = found.quantiles[found.probabilities >= level - 1e-12]
    return enough[0] if len(enough) else np.inf


@dataclass(frozen=True)
class Advice:
    """What the rules say of one regime; its text form is the answer in words.

    Attributes
    ----------
    pays : bool
        Whether PMD-mean is expected to lead PMD-part and the clipped policy gradients by more than `MARGIN`.
    tau : dict of str to tuple
        τ_max of pmd-mean and pmd-part with the ends of its interval, reward units, all within `tried`; None where τ has
        no influence.
    tried : tuple of float
        Smallest and largest τ that was tried.
    trust : dict of str to Trust
        What became of the same advice in held-out regimes, against ``part`` and ``clipped``.
    outside : tuple of str
        The variables that lie outside what was simulated.
    """

    pays: bool
    tau: dict
    tried: tuple
    trust: dict
    outside: tuple

    def __str__(self):
        lines = [f"In simulation PMD-mean {'pays' if self.pays else 'does not pay'} here."]
        for method, name in ((OURS, "PMD-mean"), ("pmd-part", "PMD-part")):
            if self.tau[method] is None:
                lines.append(f"{name}: with one update per batch τ has no influence on it.")
            else:
                tau, low, high = self.tau[method]
                line = f"{name}: τ at most {tau:.2g} ({low:.2g} to {high:.2g}) times the range of the reward"
                lines.append(f"{line}{self._cut(low, high)}.")
        for rival, name in (("part", "PMD-part"), ("clipped", "the better of GRPO and RLOO")):
            lines.append(f"The same advice against {name}: PMD-mean {self.trust[rival]}.")
        if self.outside:
            lines.append(f"This extrapolates: {'; '.join(self.outside)}.")
        lines.append("docs/practitioners.md says what of this carried over to a network, and what did not.")
        return "\n".join(lines)

    def _cut(self, low, high):
        """Which ends of an interval are where the values of τ that were tried end, in words."""
        least, most = self.tried
        words = [f"less than {least:g}"] * (low <= least) + [f"more than {most:g}"] * (high >= most)
        return f"; {' and '.join(words)} was not tried" if words else ""


@cache
def _rule(path):
    return fit(read(path))


def advise(
    rollouts: int,
    success: float,
    updates: int,
    batches: int = 64,
    lag: int = 0,
    flips: float = 0.0,
    path: Path | None = None,
) -> Advice:
    """Say how large τ may be and whether PMD-mean pays, from simulated runs.

    Parameters
    ----------
    rollouts : int
        n ≥ 2 rollouts for each prompt.
    success : float
        J, the mean success rate before training, in (0, 1).
    updates : int
        U updates on a batch.
    batches : int
        B batches in the whole training.
    lag : int
        Age of the policy that samples, in batches.
    flips : float
        Share of wrong verdicts, in [0, 0.5]. The rules do not use it; beyond what was simulated the advice says so.
    path : Path, optional
        Of the table, by default that of the repository.

    Returns
    -------
    Advice

    Raises
    ------
    ValueError
        An argument is not as described, or there is no table; the message names it.

    Examples
    --------
    >>> advice = advise(rollouts=16, success=0.2, updates=16, batches=8)
    >>> advice.pays, advice.tau["pmd-mean"][0] < 0.5
    (True, True)
    """
    simplex.count(rollouts, "rollouts", 2)
    Regime(2, success, updates, batches, lag=lag, flips=flips)  # the other checks
    rule = _rule(path)
    cell = {
        "rollouts": rollouts,
        "success": success,
        "updates": updates,
        "batches": float(batches),
        "lag": lag,
        "flips": flips,
    }
    outside = tuple(
        f"{words} = {cell[name]:g}, simulated {low:g} to {high:g}"
        for name, words in RANGES.items()
        for low, high in [rule.ranges[name]]
        if not low <= cell[name] <= high
    )
    cell["age"] = float(updates * (1 + min(lag, batches - 1)))
    pays = bool(rule.pays(cell))
    taus: dict[str, tuple | None] = {}
    for method in (OURS, "pmd-part"):
        tau, factor = float(rule.tau(cell, method)), rule.factor[method]
        taus[method] = tuple(float(end) for end in np.clip([tau, tau / factor, tau * factor], *rule.limits))
    if cell["age"] == 1:
        taus[OURS] = None
    return Advice(pays, taus, rule.limits, {rival: rule.trust[pays, rival] for rival in RIVALS}, outside)
