"""The parts of hand-written pages that are computed: a line ``<!-- computed: NAME -->`` is replaced.

Each number is a function of the package or comes from the committed tables in ``figures/data``.
"""

import functools
import re
from pathlib import Path

import numpy as np
import pandas as pd

from figures import (
    harness,
    replication,
    simulation,
    training_pretrained,
    training_staleness,
    training_temperature,
    where_it_pays,
)
from figures.marks import NAMES, below_base, span
from pmdtheory import advice, kl_update, pmd_mean_update
from pmdtheory.comparisons import rank_test, signs
from pmdtheory.intervals import SHARE, Estimate, interquartile_mean, mean_interval

from . import markdown
from .links import EXPLORE

PARTS = {}
BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "results.csv"
_MEAN, _PART = "pmd-mean-loo", "pmd-part-loo"
_LEARNT = 0.85
_LEADERS = "pmd-mean", "clipped", "part"
_WATCHED = {
    "lambda/mean": "λ, mean over prompts",
    "log_ratio/std": "spread of the log-ratio s",
    "kl/k1": "KL(p‖q), k1",
    "entropy": "entropy of a completion",
}


def fill(text, origin):
    """Return `text` with its computed parts; ``ValueError`` names one that does not exist."""

    def make(found):
        name, _, figure = found[1].partition(" of ")
        if name == "finding" and figure.replace(" ", "_") in harness.NAMES:
            module = harness.module(figure.replace(" ", "_"))
            said = module.finding(*harness.committed(module))
            return f"> *[{figure}](#figure-{figure.replace(' ', '-')}):* {said}"
        if name == "verdict" and figure in (claims := _claims()):
            return f"> *{figure[0].upper()}{figure[1:]}:* {claims[figure].verdict}."
        if found[1] not in PARTS:
            raise ValueError(f"{origin} asks for {found[1]!r}; computed parts are {', '.join(PARTS)}.")
        return PARTS[found[1]]()

    return re.sub(r"^<!-- computed: (.*) -->$", make, text, flags=re.MULTILINE)


def part(function):
    """Enter a function that returns Markdown under its name, with blanks for underscores."""
    PARTS[function.__name__.replace("_", " ")] = function
    return function


@part
def explorer():
    """Links to what can be explored; the explorer only where it is."""
    places = ["[notebooks](../notebooks)", "[the family](family.md)", "[API](../pmdtheory)"]
    return " · ".join((["[The explorer](explore.md)"] if EXPLORE.exists() else []) + places)


@part
def pretrained():
    """What five methods cost on SmolLM2-135M, and how they end."""
    table, curves, _ = harness.committed(training_pretrained)
    return markdown.table(*training_pretrained.costs_table(table, curves))


@part
def iteration_cost():
    """What an iteration of SmolLM2-135M costs, beside TRL's."""
    rows = pd.read_csv(BENCHMARKS).query("benchmark == 'training' and size != 'preset'")
    ours, theirs = rows[rows.peer == "TRL"].iloc[0], rows[rows.path == "TRL"].iloc[0]
    sampling = rows[rows.path == "of this, rollouts"].iloc[0].ratio
    return (
        f"An iteration of SmolLM2-135M ({ours['size']}) takes {ours.ratio:.2f} of the time of `trl.GRPOTrainer` on the "
        f"same model, prompts and batch, {ours.seconds:.0f} s against {theirs.seconds:.0f} on {ours.threads} threads "
        f"of an {ours.machine}, at a peak of {ours.bytes / 2**30:.1f} GiB against {theirs.bytes / 2**30:.1f}; "
        f"{sampling:.0%} of it is sampling (`python -m benchmarks training`)."
    )


@part
def one_step():
    """Success rate after one exact step, by the rate before it and τ."""
    rows = []
    for tau in (0.05, 0.1, 0.3, 1.0):
        cells = [f"{tau:g}"]
        for J in (0.02, 0.1, 0.3, 0.5):
            problem = [1 - J, J], [0.0, 1.0], tau
            cells.append(f"{pmd_mean_update(*problem).policy[1]:.3f} / {kl_update(*problem).policy[1]:.3f}")
        rows.append(cells)
    return markdown.table(["τ", *(f"from J = {J}" for J in (0.02, 0.1, 0.3, 0.5))], rows)


@part
def equal_groups():
    """Share of groups whose rewards are all equal, Jⁿ + (1 − J)ⁿ."""
    rows = [
        [f"{J:g}", *(f"{J**n + (1 - J) ** n:.0%}" for n in (4, 8, 16, 32))] for J in (0.01, 0.05, 0.1, 0.3, 0.5, 0.9)
    ]
    return markdown.table(["success rate J", *(f"n = {n}" for n in (4, 8, 16, 32))], rows)


@part
def temperature():
    """Test accuracy and collapsed runs by τ, estimator and rollouts per prompt."""
    runs = _read("study_temperature", training_temperature)
    columns = [(name, n) for n in sorted(runs.n.unique()) for name in (_MEAN, _PART)]
    rows = []
    for tau in sorted(runs.tau.unique()):
        cells = [runs[(runs.tau == tau) & (runs.estimator == name) & (runs.n == n)] for name, n in columns]
        rows.append([f"{tau:g}", *map(_accuracy_and_collapses, cells)])
    return markdown.table(["τ", *(f"{NAMES[name]}, n = {n}" for name, n in columns)], rows)


@part
def updates():
    """Test accuracy by method and updates per batch, at an equal number of rollouts."""
    runs = _read("study_staleness", training_staleness)
    return _by_method(runs[(runs.budget == "rollouts") & (runs.lag == 0)], "updates_per_batch", "U")


@part
def few_or_many_rollouts():
    """Whether few rollouts for each of many prompts end higher than many for few, at one budget."""
    runs = _read("study_temperature", training_temperature)
    few, many = runs.n.min(), runs.n.max()
    parts = []
    for method in (_MEAN, _PART):
        own = runs[runs.estimator == method]
        pairs = [[some[some.n == n]["test/avg@8"] for n in (few, many)] for _, some in own.groupby("tau")]
        found = signs([rank_test(*pair) for pair in pairs])
        parts.append(f"{NAMES[method]} {found.count(1)} and {found.count(-1)} of {len(found)}")
    return (
        f"At one budget of {runs.rollouts.max():,} rollouts, n = {few} ends higher and lower than n = {many} at so "
        f"many values of τ, by exact rank tests with Holm's correction: {', '.join(parts)}. Below n = {few} nothing "
        "was measured on the network."
    )


@part
def who_leads():
    """In how many regimes of the maps each method is told apart, and where those lie in which another one leads."""
    cells = where_it_pays.mapped(_read("where_it_pays"))
    counts = cells.verdict.value_counts()
    rivals = cells[cells.verdict.isin(("part", "clipped"))]
    places = [
        f"J = {cell.success:g}, U = {cell.updates:g}, n = {cell.rollouts}, {cell.flips:.0%} of the verdicts wrong"
        for cell in rivals.itertuples()
    ]
    said = ", ".join(f"{where_it_pays.VERDICTS[name][0]} in {counts.get(name, 0)}" for name in _LEADERS)
    where = f" ({'; '.join(places)})" if places else ""
    return f"Of the {len(cells)} regimes on the three maps: {said}{where}; the others are not told apart."


@part
def regimes():
    """What the tiny language model gained at both ends of the map, beside what the simulated runs said."""
    runs, simulated = _read("study_regimes"), _read("where_it_pays")
    runs = runs.dropna(subset="test/avg@8")
    simulated = simulated[(simulated.kind == "trained") & (simulated.split == "evaluation")]
    rows = []
    for regime, updates in (("best", 64), ("worst", 1)):
        own = runs[runs.regime == regime].pivot(index="seed", columns="method", values="test/avg@8")
        said = simulated[simulated.updates == updates].set_index("method")
        for method in (_MEAN, _PART, "grpo", "rloo"):
            leads = ["", "", ""]
            if method != _MEAN:
                row, found = said.loc[method.removesuffix("-loo")], mean_interval((own[_MEAN] - own[method]).dropna())
                lead = Estimate(row.lead, row.lead_half)
                met = found.low <= lead.high and lead.low <= found.high
                leads = [f"{found:+.2f}", f"{lead:+.2f}", "yes" if met else "no"]
            rows.append([f"U = {updates}", NAMES[method], f"{mean_interval(own[method].dropna(), SHARE):.2f}", *leads])
    titles = ["updates per batch", "method", "test accuracy", "lead of PMD-mean", "in simulated runs", "carried over"]
    table = markdown.table(titles, [[cell.replace("± +", "± ") for cell in row] for row in rows])
    return f"{table}\n\nEach with {span(runs.updates, 0)} updates, {runs.seed.nunique()} seeds."


@part
def exponents():
    """How the largest τ of both methods depends on the regime, in simulated runs."""
    table = _read("where_it_pays")
    rows = [
        [NAMES[method], f"{np.exp(scale.value):.2g}", *(f"{power:.2f}" for power in powers)]
        for method in (advice.OURS, "pmd-part")
        for scale, *powers in [advice.exponents(table, method)]
    ]
    titles = ["largest τ is", "a number", "U(1 + lag) to the", "B to the", "J/(1 − J) to the", "n to the"]
    return markdown.table(titles, rows)


@part
def largest_tau():
    """The largest τ by the rule of simulated runs, and by the tuning of the tiny language model: PMD-mean, n = 16."""
    rows = []
    for study, column, score in (
        ("study_temperature", "n", "test"),
        ("study_staleness_tuning", "updates_per_batch", "validation"),
        ("study_regimes_tuning", "updates_per_batch", "validation"),
    ):
        runs = _read(study).rename(columns={"estimator": "method"})
        runs = runs[runs.method == _MEAN]
        runs = runs[runs.n == 16] if column == "n" else runs
        runs = runs.assign(U=runs.updates / runs.iteration).query("U > 1")
        for (U, batches), own in runs.groupby(["U", "iteration"]):
            before = own["before/avg@8"].mean()
            means = own.groupby(["tau", "learning_rate"] if "learning_rate" in own else "tau")[f"{score}/avg@8"].mean()
            gains = means.groupby("tau").max() - before
            tau, side = advice.largest_tau(gains.index.to_numpy(), gains.to_numpy())
            said, low, high = advice.advise(16, before, int(U), int(batches)).tau[advice.OURS]
            seen = f"at least {tau:.2g}, the largest tried" if side > 0 else f"{tau:.2g}"
            met = tau <= high and (low <= tau or side > 0)
            said = f"{said:.2g} ({low:.2g} to {high:.2g})"
            rows.append([f"{U:g}", f"{batches:g}", said, seen, "yes" if met else "no"])
    titles = ["updates per batch", "batches", "largest τ by the rule", "on the language model", "carried over"]
    return markdown.table(titles, rows)


@part
def lag():
    """Test accuracy by method and age of the rollouts."""
    runs = _read("study_staleness", training_staleness)
    old = runs[(runs.budget == "rollouts") & runs.method.isin(runs[runs.lag > 0].method)]
    return _by_method(old[old.updates_per_batch.isin(runs[runs.lag > 0].updates_per_batch)], "lag", "lag")


@part
def warning_signs():
    """What runs of PMD-part that end below the base show early, beside those that do not."""
    runs, curves = _read("study_temperature", training_temperature), _read("study_temperature_curves")
    cell = ["estimator", "tau", "n", "seed"]
    runs = runs[runs.estimator == _PART].assign(collapsed=lambda rows: below_base(rows))
    rows = []
    for first, last in ((1, 3), (4, 10)):
        early = curves[curves.iteration.between(first, last)].groupby(cell)[list(_WATCHED)].mean().reset_index()
        early = early.merge(runs[[*cell, "collapsed"]], on=cell)
        for column, words in _WATCHED.items():
            bad, good = (early[early.collapsed == end][column] for end in (True, False))
            higher = (bad.to_numpy()[:, None] > good.to_numpy()).mean()
            cells = (f"{mean_interval(bad):.2f}", f"{mean_interval(good):.2f}", f"{higher:.0%}")
            rows.append([f"{first} to {last}", words, *cells])
    counts = f"{runs.collapsed.sum()} collapsed", f"{(~runs.collapsed).sum()} others"
    return markdown.table(["iterations", "mean over the run", *counts, "collapsed one is higher"], rows)


@part
def entropy():
    """How much of its first entropy a run of the study of τ ends with."""
    runs, curves = _read("study_temperature", training_temperature), _read("study_temperature_curves")
    cell = ["estimator", "tau", "n", "seed"]
    ends = curves.groupby(cell).entropy.agg(lambda values: values.dropna().iloc[-1] / values.dropna().iloc[0])
    ends = runs.merge(ends.rename("left").reset_index(), on=cell)
    learnt = ends["test/avg@8"] > _LEARNT
    parts = [f"{ends.left[own].min():.0%} to {ends.left[own].max():.0%}" for own in (learnt, ~learnt)]
    return (
        f"In all {len(ends)} runs of that study, entropy at the end was {parts[0]} of that at the start in the "
        f"{learnt.sum()} runs with a test accuracy above {_LEARNT:g}, and {parts[1]} in the {(~learnt).sum()} others."
    )


@part
def models():
    """Accuracy before and after training, by task and model."""
    studies = {
        "seeds": "arithmetic, shipped 73,000 parameters, two bases",
        "sums": "sums in English, SmolLM2-135M",
        "word_problems": "word problems, SmolLM2-135M after a supervised start",
        "gpu_pretrained": "sums in English, SmolLM2-135M, on a GPU",
    }
    rows = []
    for name, words in studies.items():
        runs = _read(f"study_{name}")
        for method, own in runs.groupby("method") if "method" in runs else [(_MEAN, runs)]:
            column = next(column for column in runs if re.fullmatch(r"test/avg@\d+", column))
            ends = (f"{mean_interval(own[end], SHARE):.2f}" for end in (column.replace("test", "before"), column))
            rows.append([words, NAMES[method], len(own), column.partition("/")[2], *ends])
    return markdown.table(["task and model", "method", "runs", "measure", "before", "after"], rows)


@part
def verdicts():
    """What replicates on networks, as in the README."""
    return replication.table("findings.md")


@functools.cache
def _claims():
    """All claims by their words."""
    return {claim.claim: claim for module in (replication, simulation) for claim in module.claims()}


def _by_method(runs, by, name):
    values = sorted(runs[by].unique())
    rows = []
    for method in (*training_staleness.METHODS, *training_staleness.RELATIVES):
        own = runs[runs.method == method]
        if len(own):
            cells = [own[own[by] == value]["test/avg@8"] for value in values]
            means = [f"{interquartile_mean([cell]):.2f}" if len(cell) else "–" for cell in cells]
            rows.append([NAMES.get(method, f"PMD-mean, {method}"), *means])
    return markdown.table(["method", *(f"{name} = {value}" for value in values)], rows)


def _accuracy_and_collapses(runs):
    return f"{interquartile_mean([runs['test/avg@8']]):.2f} ({below_base(runs).sum()}/{len(runs)})"


def _read(name, figure=None):
    return harness.read(harness.DATA / f"{name}.csv", figure.TABLES[name] if figure else None)
