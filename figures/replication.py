"""What replicates on networks and what does not: a table computed from the committed tables.

``python -m figures --update`` writes it between its two marks in ``docs/findings.md``, and without the evidence in
``README.md``. Every verdict follows from the tables:
two methods are told apart if an exact two-sided rank test over their seeds gives p < 0.05, divided by the number of
comparisons in the row; with five seeds against five and six comparisons that takes every seed of the one ahead of every
seed of the other. A seed that does not reach a target within its budget counts as later than all that do. Numbers of
runs are compared by Fisher's exact test at the same level.
"""

import re

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from pmdtheory.intervals import SHARE, mean_interval, rank_test

from . import harness, network_family, training_staleness, training_temperature
from .marks import NAMES, below_base
from .network import LABELS, LOSSES, OWN, SHARES
from .training_staleness import TARGET, UPDATES, reaching_target

README, FINDINGS = harness.HERE.parent / "README.md", harness.HERE.parent / "docs" / "findings.md"
MARKS = "<!-- replication: python -m figures --update -->\n", "<!-- end of replication -->\n"
OURS, PART, RIVALS = "pmd-mean-loo", "pmd-part-loo", ("grpo", "gspo")
LEVEL = 0.05


def table(evidence=True):
    """Return the table as Markdown, with or without its column of evidence."""
    rows = [law(), pretrained_law(), family(), conservative(), finite_samples(), stable(), better(), faster()]
    rows = [("claim", "evidence: mean ± 95% interval over seeds", "verdict"), *rows]
    lines = [f"| {' | '.join(row if evidence else (row[0], row[-1]))} |" for row in rows]
    lines.insert(1, "|---" * (3 if evidence else 2) + "|")
    return "\n".join(lines) + "\n"


def law():
    """A network fitted to PMD-mean's loss is on the Lambert-W law."""
    cells = _read("validate")
    cells = cells[cells.experiment == "population"]
    off = (cells.share - cells.algorithm.map(OWN).map(SHARES)).abs()
    on = (off < 0.02) & (cells.r2_law > 0.99)
    parts = [
        f"{LABELS[algorithm]} loss: f within {off[own].max():.3f} of {SHARES[OWN[algorithm]]:g}, R² at least "
        f"{cells.r2_law[own].min():.3f}"
        for algorithm in LOSSES
        if (own := cells.algorithm == algorithm).any()
    ]
    settings = cells.groupby(["reward", "tau"]).ngroups
    return (
        "a network trained on the mean-reward loss lands on the Lambert-W law, not on the KL law",
        f"{'; '.join(parts)}, in all of {len(cells)} fits ({settings} rewards and temperatures, {cells.seed.nunique()} "
        "seeds, population loss; *network against theory*)",
        "holds" if on.all() else f"holds in {on.sum()} of {len(on)} fits" if on.any() else "does not hold",
    )


def pretrained_law():
    """The same of a pretrained network's last block: the interval of f is within 0.05 of its law's."""
    cells = _read("validate_pretrained")
    cells = cells[cells.experiment == "population"]
    parts, on = [], []
    for algorithm, rows in cells.groupby("algorithm"):
        estimate, law = mean_interval(rows.share), OWN[algorithm]
        on.append(SHARES[law] - 0.05 < estimate.low and estimate.high < SHARES[law] + 0.05)
        parts.append(f"{LABELS[algorithm]} loss: f {estimate:.3f}, R² at least {rows[f'r2_{law}'].min():.4f}")
    prompts = cells["size"].iloc[0] if len(cells) else 0
    return (
        "so does SmolLM2-135M, a pretrained model",
        f"{'; '.join(parts)} (last block, {prompts} prompts a seed, {cells.seed.nunique()} seeds, graded reward, "
        f"τ = {cells.tau.max():g}; `pmd-llm validate --preset smollm2-135m`)",
        "holds" if on and all(on) else "does not hold" if on and not any(on) else "not told apart",
    )


def family():
    """A network fitted to another loss is on that one's law."""
    cells = network_family.fits(_read("validate", network_family))
    apart = cells.ratio >= network_family.LEAST
    names = ", ".join(sorted(cells.algorithm.unique()))
    return (
        "other losses lead networks to their own laws",
        f"PMD-mean's law is {cells.ratio.min():.0f} to {cells.ratio.max():.0f} times as far as the loss's own in "
        f"{len(cells)} fits ({names}; {cells.seed.nunique()} seeds; *network family*)",
        "holds" if len(cells) and apart.all() else f"holds in {apart.sum()} of {len(cells)} fits",
    )


def conservative():
    """How far the two losses move a network's policy, on prompts with little and with much reward."""
    prompts = _read("validate_prompts")
    rows = prompts[(prompts.experiment == "population") & (prompts.reward == "binary") & (prompts.tau == 0.1)]
    rows = rows.assign(part=np.where(rows.expected_reward < 0.3, "low", "high"))
    moved = rows.pivot_table(index=["seed", "part"], columns="algorithm", values="kl")
    share = (moved["pmd-mean"] / moved["pmd-part"]).unstack("part")
    low, high = share["low"].dropna(), share["high"].dropna()
    sign = _ahead(high, low)
    return (
        "conservative where rewards are low",
        f"a fitted network's KL(q‖p) under PMD-mean is {mean_interval(low):.2f} of that under the log-partition on "
        f"prompts solved less than 30% of the time, {mean_interval(high):.2f} on the others (binary reward, τ = 0.1; "
        "*network against theory*)",
        ("not told apart", "holds", "does not hold")[sign if sign < 0 or mean_interval(low).high < 1 else 0],
    )


def finite_samples():
    """Training with few rollouts at small τ and at large."""
    runs = _read("study_temperature", training_temperature)
    runs = runs[runs.n == runs.n.min()]
    parts, signs = [], {}
    for tau in (runs.tau.min(), runs.tau.max()):
        ours, other = (runs[(runs.tau == tau) & (runs.estimator == name)]["test/avg@8"] for name in (OURS, PART))
        parts.append(f"at τ = {tau:g} PMD-mean {_share(ours)}, PMD-part {_share(other)}")
        signs[f"at τ = {tau:g}"] = _ahead(ours, other, of=2)
    return (
        "robust to finite samples",
        f"test avg@8 with {runs.n.min()} rollouts per prompt: {'; '.join(parts)} (*training temperature*; bandits: "
        "*finite sample improvement*)",
        _verdict(signs),
    )


def stable():
    """Runs that end below the base."""
    runs, trials = _read("study_temperature", training_temperature), _read("study_staleness_tuning")
    groups = {
        "at τ ≤ 0.1": runs[runs.tau <= 0.1].rename(columns={"estimator": "method"}),
        "at τ > 0.1": runs[runs.tau > 0.1].rename(columns={"estimator": "method"}),
        "in tuning for staleness": trials,
    }
    parts, signs = [], {}
    for where, rows in groups.items():
        ends = [below_base(rows[rows.method == name]) for name in (OURS, PART)]
        counts = [[end.sum(), (~end).sum()] for end in ends]
        parts.append(f"{where} PMD-mean {ends[0].sum()}/{len(ends[0])}, PMD-part {ends[1].sum()}/{len(ends[1])}")
        apart = fisher_exact(counts).pvalue < LEVEL / len(groups)
        signs[where] = int(np.sign(ends[1].mean() - ends[0].mean())) if apart else 0
    return (
        "stable where PMD-part is not",
        f"runs that end below the base: {'; '.join(parts)} (*training temperature*, *training staleness*)",
        _verdict(signs),
    )


def better():
    """Final accuracy against GRPO and GSPO, for each number of updates per batch."""
    runs = _read("study_staleness", training_staleness)
    runs = runs[(runs.budget == "rollouts") & (runs.lag == 0)]
    evidence, verdict = _against_rivals(runs, "test/avg@8", _share, ("better than", "worse than"), 1)
    return (
        "better than GRPO and GSPO",
        f"test avg@8, every method tuned alike for each U: {evidence} (*training staleness*)",
        verdict,
    )


def faster():
    """Tokens to a target against GRPO and GSPO; seeds that do not get there are later than all that do."""
    costs = reaching_target(_read("study_staleness_curves", training_staleness))
    costs = costs.assign(cost=costs.tokens.fillna(np.inf))
    evidence, verdict = _against_rivals(costs, "cost", _tokens(costs.budget.max()), ("faster than", "slower than"), -1)
    return (
        "faster than GRPO and GSPO",
        f"thousands of tokens until validation avg@8 is {TARGET} (k/m: k of m seeds get there; ≥: the others at the "
        f"budget), every method tuned alike for each U: {evidence} (*training staleness*)",
        verdict,
    )


def _against_rivals(rows, column, words, verbs, sign):
    """Evidence for every U, and where PMD-mean is ahead of a rival or behind; `sign` is −1 where less is better."""
    evidence, ahead, behind = [], [], []
    for updates in UPDATES:
        values = {
            name: rows[(rows.method == name) & (rows.updates_per_batch == updates)][column] for name in (OURS, *RIVALS)
        }
        shown = ", ".join(f"{NAMES[name]} {words(some)}" for name, some in values.items())
        evidence.append(f"U = {updates}: {shown}")
        for name in RIVALS:
            apart = sign * _ahead(values[OURS], values[name], of=len(UPDATES) * len(RIVALS))
            if apart:
                (ahead if apart > 0 else behind).append(f"{NAMES[name]} at U = {updates}")
    count = len(UPDATES) * len(RIVALS)
    if not ahead and not behind:
        verdict = "not told apart at this scale"
    elif len(ahead) == count or len(behind) == count:
        verdict = "holds" if ahead else "does not hold"
    else:
        parts = [f"{verb} {', '.join(names)}" for verb, names in zip(verbs, (ahead, behind)) if names]
        rest = ["else not told apart"] if len(ahead) + len(behind) < count else []
        verdict = "; ".join([*parts, *rest])
    return "; ".join(evidence), verdict


def _ahead(ours, theirs, of=1):
    """1 if the first values are higher than the second, −1 if they are lower, 0 if one of `of` tests says neither."""
    if rank_test(ours, theirs) >= LEVEL / of:
        return 0
    ranks = pd.concat([ours, theirs]).rank()
    return 1 if ranks[: len(ours)].mean() > ranks[len(ours) :].mean() else -1


def _verdict(signs):
    """Where a claim holds, where its opposite does, and where neither is told apart."""
    words = {1: "holds", -1: "does not hold: PMD-part is ahead", 0: "not told apart"}
    where = {sign: ", ".join(place for place, own in signs.items() if own == sign) for sign in words}
    return "; ".join(f"{word} {where[sign]}" for sign, word in words.items() if where[sign])


def _share(values):
    return f"{mean_interval(values, SHARE):.2f}" if len(values) else "–"


def _tokens(budget):
    """Words for costs in thousands of tokens, of which those that are not finite are at least the budget."""

    def words(costs):
        if costs.empty:
            return "–"
        there = np.isfinite(costs)
        mean = mean_interval(costs.where(there, budget) / 1e3)
        shown = f"{mean:.0f}" if there.all() else f"≥ {mean.value:.0f}"
        return f"{shown} ({there.sum()}/{len(costs)})"

    return words


def update(text, evidence=False):
    """Return the text of a page with the present table between its marks."""
    begin, end = map(re.escape, MARKS)
    pattern = re.compile(f"(?<={begin}).*?(?={end})", flags=re.DOTALL)
    if not pattern.search(text):
        page = FINDINGS.name if evidence else README.name
        raise ValueError(f"{page} must hold the marks {MARKS[0].strip()} and {MARKS[1].strip()}.")
    return pattern.sub(lambda _: table(evidence), text)


def _read(name, figure=None):
    return harness.read(harness.DATA / f"{name}.csv", figure.TABLES[name] if figure else None)
