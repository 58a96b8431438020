"""What replicates on networks and what does not: claims whose verdicts follow from the committed tables.

``python -m figures --update`` writes them between two marks of ``docs/findings.md``, a heading each, and as a table of
short verdicts, which lead there, between those of ``README.md``. Two methods are told apart if an exact two-sided rank
test over their seeds gives p < 0.05; costs of a target by the exact log-rank test, numbers of runs by Fisher's exact
test. Where a claim rests on several tests, Holm's method corrects their p-values before: with five seeds against five
and six tests every seed of one method has to be ahead of every seed of the other.
"""

import re

import numpy as np
from scipy.stats import fisher_exact

from pmdtheory.comparisons import Difference, holm, rank_test, signs
from pmdtheory.intervals import interquartile_mean, mean_interval, proportion
from pmdtheory.survival import log_rank_test

from . import (
    harness,
    network_family,
    network_held_out,
    network_training,
    training_knob,
    training_methods,
    training_staleness,
    training_temperature,
)
from .marks import NAMES, above, below_base, costs_of, horizon, restricted
from .network import LABELS, LOSSES, OWN, SHARES, on_law
from .training_staleness import TARGET, UPDATES, reaching_target
from .verdicts import Claim, counted

README, FINDINGS = harness.HERE.parent / "README.md", harness.HERE.parent / "docs" / "findings.md"
MARKS = "<!-- replication: python -m figures --update -->\n", "<!-- end of replication -->\n"
OURS, PART, RIVALS = "pmd-mean-loo", "pmd-part-loo", ("grpo", "gspo")
ACCURACY = "test/avg@8"


def claims():
    """All claims in order, at most ten."""
    rows = (law, further, family, conservative, finite_samples, stable, better, faster, tuned, knob)
    return [row() for row in rows]


def table(page="docs/findings.md"):
    """Return the claims with their short verdicts as Markdown; the verdicts lead to their headings in `page`."""
    rows = [f"| {claim.claim} | [{claim.short}]({page}#{claim.anchor}) |" for claim in claims()]
    return "\n".join(["| claim | verdict |", "|---|---|", *rows]) + "\n"


def sections():
    """Return the claims with their whole verdicts and evidence as Markdown, a heading each."""
    return "\n".join(
        f"### {claim.claim[0].upper()}{claim.claim[1:]}\n\n**{claim.verdict[0].upper()}{claim.verdict[1:]}.**\n\n"
        f"<details><summary>Evidence</summary>\n\n{claim.evidence[0].upper()}{claim.evidence[1:]}.\n\n</details>\n"
        for claim in claims()
    )


def law():
    """A network fitted to PMD-mean's loss is on the Lambert-W law."""
    cells = _read("validate")
    cells = cells[cells.experiment == "population"]
    off = (cells.share - cells.algorithm.map(OWN).map(SHARES).astype(float)).abs()
    on = (off < 0.02) & (cells.r2_law > 0.99)
    parts = [
        f"{LABELS[algorithm]} loss: f within {off[own].max():.3f} of {SHARES[OWN[algorithm]]:g}, R² at least "
        f"{cells.r2_law[own].min():.3f}"
        for algorithm in LOSSES
        if (own := cells.algorithm == algorithm).any()
    ]
    settings = cells.groupby(["reward", "tau"]).ngroups
    return Claim(
        "a network trained on the mean-reward loss lands on the Lambert-W law",
        f"{'; '.join(parts)}, in all of {len(cells)} fits ({settings} rewards and temperatures, {cells.seed.nunique()} "
        "seeds, population loss; *network against theory*)",
        counted(np.where(on, 1, -1)),
        "fits",
    )


def further():
    """The same of SmolLM2-135M, of prompts that an update does not see, and of ordinary training at its best.

    A case holds or fails as `network.on_law` says.
    """
    cells, unseen = _read("validate_pretrained"), network_held_out.last(_read("validate_held_out", network_held_out))
    cells, parts, cases = cells[cells.experiment == "population"], [], {}
    blocks = cells.options.astype(str).str.extract(r"blocks=(\d+)")[0]
    for (count, size, algorithm), rows in cells.groupby([blocks, "size", "algorithm"]):
        own, trained = OWN[algorithm], {"0": "all", "1": "the last block"}.get(count, f"the last {count} blocks")
        on = on_law(rows, own, network_held_out.NEAR, network_held_out.R2, f"r2_{own}")
        cases[f"for {trained} of SmolLM2-135M ({size} prompts) and the {LABELS[algorithm]} loss"] = on
        command = re.sub(r" --(experiments|seeds) \S+", "", rows.command.iloc[0])
        parts.append(
            f"{trained} of SmolLM2-135M, {LABELS[algorithm]} loss: f {mean_interval(rows.share):.3f}, R² at least "
            f"{rows[f'r2_{own}'].min():.4f} ({size} prompts a seed, {rows.seed.nunique()} seeds, graded reward, "
            f"τ = {rows.tau.max():g}; `{command}`)"
        )
    for algorithm, rows in unseen.groupby("algorithm"):
        on = on_law(rows, OWN[algorithm], network_held_out.NEAR, network_held_out.R2)
        cases[f"for unseen prompts and the {LABELS[algorithm]} loss"] = on
        parts.append(
            f"unseen prompts after {rows['size'].max():,.0f} others, {LABELS[algorithm]} loss: f "
            f"{mean_interval(rows.share):.3f}, R² at least {rows.r2_law.min():.3f} ({rows.seed.nunique()} seeds; "
            "unseen by the update, not by the warm-up; *network held out*)"
        )
    settings = list(network_training.settings(_read("training_map", network_training)))
    if settings:
        (updates, n, tau, rate), rows = max(settings, key=lambda item: item[1].r2_lambert.mean())
        on = on_law(rows, "lambert", network_training.NEAR, network_training.R2, "r2_lambert")
        cases["for ordinary training at its best"] = on
        parts.append(
            f"ordinary training, best of {len(settings)} settings (n = {n}, U = {updates}, τ = {tau:g}, "
            f"rate {rate:g}): f {mean_interval(rows.share):.2f}, R² {mean_interval(rows.r2_lambert):.2f} "
            f"({rows.seed.nunique()} seeds; *network training*)"
        )
    return Claim("so do SmolLM2-135M, unseen prompts, and ordinary training", "; ".join(parts) or "none", cases)


def family():
    """A network fitted to another loss is on that one's law."""
    cells = network_family.fits(_read("validate", network_family))
    apart = cells.ratio >= network_family.LEAST
    names = ", ".join(sorted(cells.algorithm.unique()))
    return Claim(
        "other losses lead networks to their own laws",
        f"PMD-mean's law is {cells.ratio.min():.0f} to {cells.ratio.max():.0f} times as far as the loss's own in "
        f"{len(cells)} fits ({names}; {cells.seed.nunique()} seeds; *network family*)",
        counted(np.where(apart, 1, -1)),
        "fits",
    )


def conservative():
    """How far the two losses move a network's policy, on prompts with little and with much reward."""
    prompts = _read("validate_prompts")
    rows = prompts[(prompts.experiment == "population") & (prompts.reward == "binary") & (prompts.tau == 0.1)]
    rows = rows.assign(part=np.where(rows.expected_reward < 0.3, "low", "high"))
    moved = rows.pivot_table(index=["seed", "part"], columns="algorithm", values="kl")
    share = (moved["pmd-mean"] / moved["pmd-part"]).unstack("part") if len(rows) else rows.assign(low=0, high=0)
    low, high = share["low"].dropna(), share["high"].dropna()
    (sign,) = signs([rank_test(high, low)])
    known = sign if sign < 0 or mean_interval(low).high < 1 else 0
    return Claim(
        "conservative where rewards are low",
        f"a fitted network's KL(q‖p) under PMD-mean is {mean_interval(low):.2f} of that under the log-partition on "
        f"prompts solved less than 30% of the time, {mean_interval(high):.2f} on the others (binary reward, τ = 0.1; "
        "*network against theory*)",
        {"on rarely solved prompts": known} if len(low) else {},
    )


def finite_samples():
    """Training with few rollouts at small τ and at large."""
    runs = _read("study_temperature", training_temperature)
    runs = runs[runs.n == runs.n.min()]
    pairs = {}
    for tau in dict.fromkeys((runs.tau.min(), runs.tau.max())) if len(runs) else ():
        pairs[f"at τ = {tau:g}"] = [runs[(runs.tau == tau) & (runs.estimator == name)] for name in (OURS, PART)]
    said = (
        f"{where} PMD-mean {_estimate(ours)}, PMD-part {_estimate(theirs)}" for where, (ours, theirs) in pairs.items()
    )
    cases, words = _tested({where: _apart(*pair) for where, pair in pairs.items()})
    return Claim(
        "robust to finite samples",
        f"test avg@8 with {runs.n.min()} rollouts per prompt, interquartile means: {'; '.join(said)}{words} (*training "
        "temperature*; bandits: *finite sample improvement*)",
        cases,
    )


def stable():
    """Runs that end below the base."""
    runs, trials = _read("study_temperature", training_temperature), _read("study_staleness_tuning")
    groups = {
        "at τ ≤ 0.1": runs[runs.tau <= 0.1].rename(columns={"estimator": "method"}),
        "at τ > 0.1": runs[runs.tau > 0.1].rename(columns={"estimator": "method"}),
        "in tuning for staleness": trials,
    }
    parts, tests = [], {}
    for where, rows in groups.items():
        ends = [below_base(rows[rows.method == name]) for name in (OURS, PART)]
        counts = [[end.sum(), (~end).sum()] for end in ends]
        parts.append(f"{where} PMD-mean {_count(ends[0])}, PMD-part {_count(ends[1])}")
        if all(len(end) for end in ends):
            tests[where] = Difference(int(np.sign(ends[1].mean() - ends[0].mean())), fisher_exact(counts).pvalue)
        else:
            tests[where] = None
    cases, words = _tested(tests)
    return Claim(
        "stable where PMD-part is not",
        f"runs that end below the base, and exact 95% intervals of their share: {'; '.join(parts)}{words} (*training "
        "temperature*, *training staleness*)",
        cases,
    )


def better():
    """Final accuracy against GRPO and GSPO, for each number of updates per batch."""
    runs = _read("study_staleness", training_staleness)
    runs = runs[(runs.budget == "rollouts") & (runs.lag == 0)]
    cases, words = _against_rivals(runs, _estimate, _apart)
    ahead = ", ".join(f"{NAMES[name]} {above(runs, OURS, name, ['updates_per_batch'], ACCURACY)}" for name in RIVALS)
    return Claim(
        "better than GRPO and GSPO",
        f"test avg@8, interquartile means, every method tuned for each U: {words}. Probability that a run of "
        f"PMD-mean ends above one of the other at the same U: {ahead} (*training staleness*)",
        cases,
        "comparisons",
    )


def faster():
    """Tokens to a target against GRPO and GSPO, as survival with censoring."""
    costs = reaching_target(_read("study_staleness_curves", training_staleness))
    end = horizon(costs, ["method", "updates_per_batch"])

    def apart(ours, theirs):
        if not len(ours) or not len(theirs):
            return None
        test = log_rank_test(*map(costs_of, (ours, theirs)))
        return test._replace(sign=-test.sign)

    cases, words = _against_rivals(costs, lambda rows: restricted(rows, end), apart)
    return Claim(
        "faster than GRPO and GSPO",
        f"thousands of tokens until validation avg@8 is {TARGET}, restricted mean to {end / 1e3:.0f} (k/m: k of m "
        f"seeds get there), every method tuned for each U: {words} (*training staleness*)",
        cases,
        "comparisons",
    )


def tuned():
    """Final accuracy of PMD-mean against every other method at one budget, each with a rate of its own."""
    runs, ours = _read("study_methods", training_methods), "pmd-mean tau 0.1"
    names = training_methods.WORDS
    own = runs[runs.method == ours]
    others = {name: runs[runs.method == name] for name in names if name != ours}
    cases, words = _tested({f"against {names[name]}": _apart(own, rows) for name, rows in others.items()})
    said = ", ".join(f"{names[name]} {_estimate(rows)}" for name, rows in {ours: own, **others}.items())
    ahead = ", ".join(f"{names[name]} {above(runs, ours, name, ['study'], ACCURACY)}" for name in others)
    return Claim(
        "ahead of other tuned methods at eight updates a batch",
        f"test avg@8, interquartile means, the learning rate chosen for each: {said}{words}. Probability "
        f"that a run of PMD-mean τ = 0.1 ends above one of the other: {ahead} (*training methods*)",
        cases,
        "comparisons",
    )


def knob():
    """Final accuracy of the knobs against the better of PMD-mean and PMD-part at a fixed τ."""
    runs = _read("study_knob", training_knob)
    names = training_knob.words_of(training_knob.KNOBS)
    _, best, tests = training_knob.compared(runs)
    cases, words = _tested({names[name]: test for name, test in tests.items()})
    said = ", ".join(f"{names.get(name, name)} {_estimate(rows)}" for name, rows in runs.groupby("knob"))
    return Claim(
        "a knob beats a fixed temperature and baseline",
        f"test avg@8, interquartile means: {said}; tested against {names.get(best, 'none')}, the better of the fixed "
        f"ones{words} (*training knob*)",
        cases,
        "knobs",
    )


def _against_rivals(rows, estimate, apart):
    """Signs of PMD-mean against each rival for each U, and the evidence; `apart` compares rows of two methods."""
    evidence, tests = [], {}
    for updates in UPDATES:
        at = rows[rows.updates_per_batch == updates]
        cells = {name: at[at.method == name] for name in (OURS, *RIVALS)}
        evidence.append(f"U = {updates}: " + ", ".join(f"{NAMES[name]} {estimate(own)}" for name, own in cells.items()))
        tests |= {f"against {NAMES[name]} at U = {updates}": apart(cells[OURS], cells[name]) for name in RIVALS}
    cases, words = _tested(tests)
    return cases, "; ".join(evidence) + words


def _apart(ours, theirs):
    """Rank test of final accuracies; None without rows."""
    return rank_test(ours[ACCURACY], theirs[ACCURACY]) if len(ours) and len(theirs) else None


def _tested(tests):
    """Cases of a claim by their tests, None without rows; and in words that they are corrected, with the least p."""
    made = {name: test for name, test in tests.items() if test is not None}
    cases = dict.fromkeys(tests) | dict(zip(made, signs(list(made.values()))))
    if not made:
        return cases, ""
    least = holm([test.pvalue for test in made.values()]).min()
    return cases, f"; of {len(made)} tests the least p is {least:.2g} after Holm's correction"


def _estimate(rows):
    return f"{interquartile_mean([rows[ACCURACY]]):.2f}" if len(rows) else "–"


def _count(ends):
    """k/m with the exact interval of the share."""
    if not len(ends):
        return "–"
    low, high = proportion(ends.sum(), len(ends))
    return f"{ends.sum()}/{len(ends)} [{low:.2f}, {high:.2f}]"


def _read(name, figure=None):
    return harness.read(harness.DATA / f"{name}.csv", figure.TABLES[name] if figure else None)
