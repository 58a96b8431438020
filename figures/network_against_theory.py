"""A network whose whole policy is known, fitted by one outer step, against the exact solutions.

A small transformer completes sums: 101 actions, a base p that errs, rewards binary or graded. It is fitted to the
PMD-mean loss or to the log-partition loss; s = log(q/p). Where nothing else is said, a value is the median over the
prompts of a seed, then the mean over seeds with its 95% interval (of logarithms, where the axis is logarithmic). (a)
Every action of three prompts of one seed, graded reward, τ = 0.1: s against what the law of its loss says (filled) and
against the other law (hollow). Area grows with p; actions with p < 0.001, which weigh little in the loss, are pale,
and some lie beyond the axes. (b) The same for D − s, D = (r − r̄)/τ, in units of KL(p‖q). Its mean under p is 1 for
any policy; on the Lambert-W law it is ρ, on the KL law 1, and nothing is fitted. (c) The slope f in (b) of every
prompt, reward, τ and seed; what lies beyond the axis is counted at its end. (d) How far f is from that of its law. (e)
Divergence from both laws while L-BFGS goes on, graded reward, τ = 0.1. (f, g) n fresh rollouts at every gradient step,
graded reward, τ = 0.3: f, dashed the prediction (Statements 2 and 10; the law's λ over the network's KL(p‖q)), and the
divergence from the law of the
estimator. Hollow: completions that the network generated. Dotted: the leave-one-out log-partition from the KL law. (h)
One fixed batch of rollouts: share of the variance of s, on the actions drawn, that Statement 14 (filled) and the
population law (hollow) miss. (i, j) Outer steps in a row, binary reward, τ = 1: expected reward and failures, dashed
the exact recursion, bands for the difference from it; grey, where Statement 9 puts the failures, given those of the
step before. (k) Ordinary training of the shipped model on its own task, where nothing can be enumerated: f after four
passes over a batch with n = 16, pooled over its prompts (filled) and over test prompts (hollow), from fresh rollouts of
the policy before. A few prompts with large ratios decide a pooled f. Lines at both population laws, which repeated
passes over one batch do not promise. (l) f against the number of training prompts, on those (filled) and on others
(hollow), graded reward, τ = 0.3.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting
from pmdtheory.intervals import half_width

from .training_temperature import said

STUDY = "validate"
TABLES = ("validate", "validate_prompts", "validate_steps", "validate_actions")

LABELS = {
    "pmd-mean": "PMD-mean",
    "pmd-mean-loo": "PMD-mean, leave-one-out",
    "pmd-part": "log-partition",
    "pmd-part-loo": "log-partition, leave-one-out",
}
COLOURS = dict(zip(LABELS, (plotting.VERMILION, plotting.ORANGE, plotting.BLUE, plotting.SKY)))
MARKERS = dict(zip(LABELS, "osD^"))
OWN = {"pmd-mean": "lambert", "pmd-mean-loo": "lambert", "pmd-part": "kl_law", "pmd-part-loo": "kl_law"}
OTHER = {"lambert": "kl_law", "kl_law": "lambert"}
SHARE = {"lambert": 1.0, "kl_law": 0.0}
LOSSES = ("pmd-mean", "pmd-part")
SHOWN = {"reward": "graded", "tau": 0.1}
RARE = 1e-3
"""Actions of less probability are drawn pale."""
ROUNDING = 1e-8
"""Of an R² near 1, as the tables hold it."""


def plot(table, prompts, steps, actions):
    """Twelve panels, those whose experiment is there."""
    figure, axes = plotting.panels(4, 3, height=2.15)
    fits = select(actions, "population", **SHOWN)
    drawn = (
        (fits, lambda axis: against_laws(axis, actions)),
        (fits, lambda axis: against_ratio(axis, actions)),
        (select(prompts, "population"), lambda axis: _histogram(axis, prompts)),
        (select(table, "population"), lambda axis: shares(axis, table, departure=True)),
        (select(steps, "population", **SHOWN), lambda axis: _over_steps(axis, steps)),
        (select(table, "rollouts"), lambda axis: _share_over_rollouts(axis, table, prompts)),
        (select(table, "rollouts"), lambda axis: _divergence_over_rollouts(axis, table)),
        (select(table, "batch"), lambda axis: _fixed_batch(axis, table)),
        (select(prompts, "recursion"), lambda axis: _reward(axis, prompts)),
        (select(prompts, "recursion"), lambda axis: _failures(axis, prompts)),
        (select(table, "training"), lambda axis: _training(axis, table)),
        (select(table, "held-out"), lambda axis: _held_out(axis, table)),
    )
    for axis, (rows, draw) in zip(axes, drawn):
        if len(rows):
            draw(axis)
        else:
            axis.remove()
    handles = [handle(axes[0], algorithm) for algorithm in LABELS]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def handle(axis, algorithm):
    """Line of a loss for a legend."""
    style = {"color": COLOURS[algorithm], "marker": MARKERS[algorithm], "markersize": 3.5}
    return axis.plot([], [], label=f"{LABELS[algorithm]} loss", **style)[0]


def select(rows, experiment, **columns):
    """Rows of an experiment with these values in these columns."""
    chosen = rows[rows.experiment == experiment]
    for name, value in columns.items():
        chosen = chosen[chosen[name] == value]
    return chosen


def over_seeds(rows, x, column, log=False):
    """Mean over seeds and ends of its 95% interval (NaN for one seed) for each value of `x`; geometric if `log`."""
    values = np.log(rows[column]) if log else rows[column]
    group = values.groupby(rows[x])
    mean, half = group.mean(), half_width(group.std(ddof=1), group.count())
    found = pd.DataFrame({"mean": mean, "low": mean - half, "high": mean + half})
    return np.exp(found) if log else found


def line(axis, rows, x, column, log=False, **style):
    """Draw mean and interval of a column, whose rows are one a seed and value of `x`."""
    found = over_seeds(rows, x, column, log)
    axis.plot(found.index, found["mean"], **{"markersize": 3.5} | style)
    axis.fill_between(found.index, found.low, found.high, color=style["color"], alpha=0.2, linewidth=0)


def points(axis, rows, x, column, log=False, **style):
    """Draw mean and interval of a column for each value of `x`, unconnected."""
    found = over_seeds(rows, x, column, log)
    spread = [found["mean"] - found.low, found.high - found["mean"]]
    axis.errorbar(
        found.index, found["mean"], spread, **{"linestyle": "none", "markersize": 4, "elinewidth": 0.9} | style
    )


def scatter(axis, rows, x, y, colour, hollow=False):
    """Draw actions as dots whose area grows with p."""
    for some, alpha in ((rows[rows.policy < RARE], 0.15), (rows[rows.policy >= RARE], 0.75)):
        sizes = 3 + 60 * some.policy
        face = {"facecolor": "none", "edgecolor": colour} if hollow else {"facecolor": colour, "edgecolor": "none"}
        axis.scatter(some[x], some[y], s=sizes, alpha=alpha, linewidth=0.6, **face)


def key(axis, filled, hollow, colour="black", **where):
    """Say what filled and hollow markers stand for."""
    for face, text in ((colour, filled), ("none", hollow)):
        axis.plot([], [], "o", color=colour, markersize=3.5, markerfacecolor=face, label=text)
    axis.legend(handletextpad=0.1, borderpad=0.2, **where)


def shown(actions, algorithm):
    """Actions of the setting that is shown, with q, D − s in units of KL(p‖q), and ρ."""
    rows = select(actions, "population", algorithm=algorithm, **SHOWN)
    rows, parts = rows[rows.seed == rows.seed.min()], []
    for _, one in rows.groupby("number"):
        p, s = one.policy / one.policy.sum(), one.log_ratio
        excess = (one.reward_of_action - (p * one.reward_of_action).sum()) / one.tau - s
        parts.append(one.assign(excess=excess / -(p * s).sum(), ratio=np.exp(s)))
    return pd.concat(parts) if parts else rows.assign(excess=[], ratio=[])


def against_laws(axis, actions):
    """Draw s of the network that was fitted to either loss against both laws."""
    both = [(OWN[algorithm], COLOURS[algorithm], shown(actions, algorithm)) for algorithm in LOSSES]
    for own, colour, rows in both:
        scatter(axis, rows, OTHER[own], "log_ratio", colour, hollow=True)
        scatter(axis, rows, own, "log_ratio", colour)
    low, high = min(rows[own].min() for own, _, rows in both), max(rows[own].max() for own, _, rows in both)
    axis.plot([low, high], [low, high], color="black", linewidth=0.8, zorder=1)
    key(axis, "law of its loss", "the other law", loc="lower right")
    axis.set(xlabel="$s$ of the law", ylabel="$s$ of the network", ylim=(low - 0.4 * (high - low), high + 1))


def against_ratio(axis, actions):
    """Draw (D − s)/KL(p‖q) against ρ for both losses, and both laws."""
    both = [shown(actions, algorithm) for algorithm in LOSSES]
    for algorithm, rows in zip(LOSSES, both):
        scatter(axis, rows, "ratio", "excess", COLOURS[algorithm])
    near, far = sorted(rows.ratio[rows.policy >= RARE].max() for rows in both)
    axis.plot([0, near], [0, near], color=COLOURS["pmd-mean"], linewidth=0.8, zorder=1)
    axis.plot([0, far], [1, 1], color=COLOURS["pmd-part"], linewidth=0.8, zorder=1)
    axis.text(near, near, " Lambert-W law", color=COLOURS["pmd-mean"], va="center", fontsize=7)
    axis.text(far, 1.1, "KL law", color=COLOURS["pmd-part"], ha="right", va="bottom", fontsize=7)
    axis.set_ylim(-0.3 * near, 1.15 * near)
    axis.set(xlabel=r"ratio $\rho=q/p$", ylabel=r"$(D-s)\,/\,\mathrm{KL}(p\|q)$")


def _histogram(axis, prompts):
    edges = np.arange(-0.11, 1.12, 0.02)
    for algorithm in LOSSES:
        rows = select(prompts, "population", algorithm=algorithm)
        axis.hist(rows.share.clip(-0.1, 1.1), edges, color=COLOURS[algorithm], alpha=0.85)
    axis.set(yscale="log", ylim=(0.7, None), xlabel="$f$", ylabel="prompts")


def shares(axis, table, departure=False):
    """Draw f, or its departure from that of the law, for every reward and τ, with intervals over the seeds."""
    rows = table[table.experiment == "population"]
    settings = sorted(set(zip(rows.reward, rows.tau)))
    for algorithm, shift in zip(LOSSES, (-0.15, 0.15)):
        some = rows[rows.algorithm == algorithm]
        places = [settings.index(setting) + shift for setting in zip(some.reward, some.tau)]
        expected = SHARE[OWN[algorithm]]
        some = some.assign(place=places, shown=some.share - expected if departure else some.share)
        points(axis, some, "place", "shown", color=COLOURS[algorithm], marker=MARKERS[algorithm])
        axis.axhline(0 if departure else expected, color="black", linewidth=0.8, zorder=1)
    axis.set_xticks(range(len(settings)), [f"{tau:g}" for _, tau in settings])
    for reward in dict.fromkeys(reward for reward, _ in settings):
        mine = [place for place, setting in enumerate(settings) if setting[0] == reward]
        axis.text(np.mean(mine), 1.02, reward, ha="center", transform=axis.get_xaxis_transform(), fontsize=7)
        axis.axvline(mine[0] - 0.5, color=plotting.GREY, linewidth=0.6, visible=mine[0] > 0)
    axis.set(xlabel=r"temperature $\tau$", ylabel="$f$ minus that of its law" if departure else "$f$")


def _over_steps(axis, steps):
    for algorithm in LOSSES:
        rows, own = select(steps, "population", algorithm=algorithm, **SHOWN), OWN[algorithm]
        for law, dashes in ((own, "-"), (OTHER[own], ":")):
            line(axis, rows, "evaluations", f"from_{law}", True, color=COLOURS[algorithm], linestyle=dashes)
    for dashes, text in (("-", "its own law"), (":", "the other law")):
        axis.plot([], [], dashes, color="black", label=text)
    axis.set(yscale="log", xlabel="gradients", ylabel="KL from a law")
    axis.legend(loc="lower left")


def _share_over_rollouts(axis, table, prompts):
    predicted = prompts.assign(predicted=prompts.weight / prompts.reverse_kl)
    for algorithm in LABELS:
        style = {"color": COLOURS[algorithm], "marker": MARKERS[algorithm]}
        line(axis, select(table, "rollouts", algorithm=algorithm), "n", "share", **style)
        points(axis, select(table, "completions", algorithm=algorithm), "n", "share", **style, markerfacecolor="white")
    part = select(predicted, "rollouts", algorithm="pmd-part-loo").groupby("n").predicted.median()
    axis.plot(part.index, part, color="black", linestyle="--", linewidth=0.8)
    axis.axhline(1, color="black", linestyle="--", linewidth=0.8, zorder=1)
    _rollouts_axis(axis, table)
    axis.set(ylabel="$f$")


def _divergence_over_rollouts(axis, table):
    for algorithm in LABELS:
        style = {"color": COLOURS[algorithm], "marker": MARKERS[algorithm]}
        rows = select(table, "rollouts", algorithm=algorithm)
        line(axis, rows, "n", "from_law", True, **style)
        made = select(table, "completions", algorithm=algorithm)
        points(axis, made, "n", "from_law", True, **style, markerfacecolor="white")
    rows = select(table, "rollouts", algorithm="pmd-part-loo")
    line(axis, rows, "n", "from_kl_law", True, color=COLOURS["pmd-part-loo"], linestyle=":")
    _rollouts_axis(axis, table)
    axis.set(yscale="log", ylabel="KL from the predicted law")


def _rollouts_axis(axis, table):
    ticks = sorted(select(table, "rollouts").n.unique())
    axis.set(xscale="log", xlabel="rollouts $n$")
    axis.set_xticks(ticks, [f"{n:g}" for n in ticks])
    axis.minorticks_off()


def _fixed_batch(axis, table):
    names = [name for name in LABELS if len(select(table, "batch", algorithm=name))]
    for place, name in enumerate(names):
        rows = select(table, "batch", algorithm=name)
        for column, face in (("r2_law", COLOURS[name]), (f"r2_{OWN[name]}", "white")):
            missed = rows.assign(place=place, missed=(1 - rows[column]).clip(lower=ROUNDING))
            style = {"color": COLOURS[name], "marker": MARKERS[name], "markerfacecolor": face}
            points(axis, missed, "place", "missed", True, **style)
    axis.set_xticks(range(len(names)), [name.replace("pmd-", "").replace("-", "\n", 1) for name in names])
    key(axis, "Statement 14", "population law", loc="lower left")
    axis.set(yscale="log", ylabel="$1-R^2$", xlim=(-0.5, len(names) - 0.5))


def recursion(prompts):
    """Per seed and outer step: expected reward and failures, exact and found, and Statement 9's ends for the failures.

    Expected rewards are means over the prompts, failures medians; step 0 is the base.
    """
    rows = select(prompts, "recursion")
    failed = 1 - rows.expected_reward
    rows = rows.assign(
        found=rows.expected_reward + rows.gain, exact=rows.expected_reward_recursion,
        failures=failed * np.exp(rows.failure_log_ratio), exact_failures=1 - rows.expected_reward_recursion,
        low=failed * np.exp(rows.failure_low), high=failed * np.exp(rows.failure_high),
    )  # fmt: skip
    first = rows[rows.iteration == 1]
    failed, start = 1 - first.expected_reward, {"iteration": 0}
    start |= {"found": first.expected_reward, "exact": first.expected_reward}
    start |= dict.fromkeys(("failures", "exact_failures", "low", "high"), failed)
    group = pd.concat([first.assign(**start), rows]).groupby(["algorithm", "seed", "iteration"])
    means = group[["found", "exact"]].mean()
    return means.join(group[["failures", "exact_failures", "low", "high"]].median()).reset_index()


RECURSIONS = ("pmd-mean", "pmd-mean-loo")
ENDS = ("low", "high")


def _reward(axis, prompts):
    rows = recursion(prompts)
    for algorithm in RECURSIONS:
        some = rows[rows.algorithm == algorithm]
        exact = some.groupby("iteration").exact.mean()
        paired = some.assign(found=some.found - some.exact + some.iteration.map(exact))
        line(axis, paired, "iteration", "found", color=COLOURS[algorithm], marker=MARKERS[algorithm])
        axis.plot(exact.index, exact, color="black", linestyle="--", linewidth=0.8)
    axis.set(xlabel="outer step", ylabel="expected reward", ylim=(0, 1.02))


def _failures(axis, prompts):
    rows = recursion(prompts)
    for algorithm in RECURSIONS:
        some = rows[rows.algorithm == algorithm]
        ends = [over_seeds(some, "iteration", end, True)["mean"] for end in ENDS]
        axis.fill_between(ends[0].index, *ends, color=plotting.GREY, alpha=0.35, linewidth=0)
        exact = over_seeds(some, "iteration", "exact_failures", True)["mean"]
        paired = some.assign(failures=some.failures / some.exact_failures * some.iteration.map(exact))
        line(axis, paired, "iteration", "failures", True, color=COLOURS[algorithm], marker=MARKERS[algorithm])
        axis.plot(exact.index, exact, color="black", linestyle="--", linewidth=0.8)
    axis.set(yscale="log", xlabel="outer step", ylabel="failures")


def _training(axis, table):
    rows = select(table, "training")
    for tau, dashes in zip(sorted(rows.tau.unique()), ("-", "--")):
        for algorithm in rows.algorithm.unique():
            for split, face in (("train", COLOURS[algorithm]), ("held-out", "white")):
                some = rows[(rows.tau == tau) & (rows.algorithm == algorithm) & (rows.split == split)]
                style = {"color": COLOURS[algorithm], "marker": MARKERS[algorithm], "markerfacecolor": face}
                line(axis, some, "iteration", "share", linestyle=dashes, **style)
        axis.plot([], [], dashes, color="black", label=rf"$\tau={tau:g}$")
    for algorithm in LOSSES:
        axis.axhline(SHARE[OWN[algorithm]], color=COLOURS[algorithm], linewidth=0.8, zorder=1)
    axis.set(xlabel="outer step", ylabel="$f$, ordinary training", xticks=sorted(rows.iteration.unique()))
    axis.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.55, 1.16))


def _held_out(axis, table):
    rows = select(table, "held-out")
    for algorithm in LOSSES:
        for split, face in (("train", COLOURS[algorithm]), ("held-out", "white")):
            some = rows[(rows.algorithm == algorithm) & (rows.split == split)]
            style = {"color": COLOURS[algorithm], "marker": MARKERS[algorithm], "markerfacecolor": face}
            line(axis, some, "size", "share", **style)
    ticks = sorted(rows["size"].unique())
    key(axis, "trained on", "unseen", loc="best")
    axis.set(xscale="log", xlabel="training prompts", ylabel="$f$")
    axis.set_xticks(ticks, [f"{size:g}" for size in ticks])
    axis.minorticks_off()


def finding(table, prompts, steps, actions):
    """What holds in numbers, and what does not."""
    sentences = [population(table), _single(prompts), _rollouts(table), _batch(table), _chained(prompts)]
    sentences += [_trained(table), _unseen(table)]
    return f"{table.seed.nunique()} seeds, medians over prompts. " + " ".join(filter(None, sentences))


def judged(table):
    """Population cells with their distance from the law: departure of f, R², ratio of divergences, for τ ≤ 0.3."""
    parts = []
    for algorithm in LOSSES:
        rows, own = select(table, "population", algorithm=algorithm), OWN[algorithm]
        ratio = rows[f"from_{OTHER[own]}"] / rows[f"from_{own}"]
        parts.append(rows.assign(
            departure=(rows.share - SHARE[own]).abs(), r2=rows[f"r2_{own}"], plain_r2=rows[f"plain_r2_{own}"],
            ratio=ratio.where(rows.tau <= 0.3),
        ))  # fmt: skip
    return pd.concat(parts)


def population(table):
    """Both losses against both laws, in words."""
    rows, sentences = judged(table), []
    for algorithm in LOSSES:
        some = rows[rows.algorithm == algorithm]
        if some.empty:
            continue
        f = over_seeds(some.assign(setting=list(zip(some.reward, some.tau))), "setting", "share")
        other = SHARE[OTHER[OWN[algorithm]]]
        far = f", the other law at least {some.ratio.min():.0f} times as far (tau ≤ 0.3)" if some.ratio.any() else ""
        excluded = (f.low > other) | (f.high < other)
        sentences.append(
            f"The {LABELS[algorithm]} loss, all rewards and tau: f {some.share.min():.4f} to {some.share.max():.4f}, "
            f"p-weighted R² at least {some.r2.min():.4f}{far}; the 95% interval of f excludes the other law in "
            f"{excluded.sum()} of {len(f)} settings."
        )
    if sentences:
        broken = rows[(rows.departure >= 0.02) | (rows.r2 <= 0.99) | (rows.ratio < 10)]
        names = [
            f"{row.reward} tau {row.tau:g} {LABELS[row.algorithm]} seed {row.seed}" for row in broken.itertuples()
        ]
        sentences.append(
            f"Off by 0.02 in f, R² below 0.99, or less than 10 times as far: {', '.join(names) or 'no fit'}. Without "
            f"weights, R² falls to {rows.plain_r2.min():.2f}: actions of almost no probability are not fitted."
        )
    return " ".join(sentences)


def _single(prompts):
    rows = prompts[prompts.experiment == "population"]
    if rows.empty:
        return ""
    within = (rows.share - rows.algorithm.map(OWN).map(SHARE)).abs() < 0.02
    return f"Of single prompts, {within.mean():.0%} have f within 0.02 of its law's."


def _rollouts(table):
    parts = []
    for experiment, how in (("rollouts", ""), ("completions", " generated")):
        for algorithm, rows in select(table, experiment).groupby("algorithm"):
            f, r2 = over_seeds(rows, "n", "share"), over_seeds(rows, "n", "r2_law")["mean"]
            half = f.high - f["mean"]
            each = [f"{said(f['mean'][n], half[n])} at {n:g}{how} (R² {r2[n]:.3f})" for n in f.index]
            parts.append(f"{LABELS[algorithm]} {', '.join(each)}")
    return f"f from n fresh rollouts, R² against the predicted law: {'; '.join(parts)}." if parts else ""


def _batch(table):
    rows = select(table, "batch")
    if rows.empty:
        return ""
    population = pd.concat([part[f"r2_{OWN[name]}"] for name, part in rows.groupby("algorithm")])
    return (
        f"One fixed batch: R² at least {rows.r2_law.min():.4f} against Statement 14, at most {population.max():.4f} "
        "against the population law."
    )


def _chained(prompts):
    if select(prompts, "recursion").empty:
        return ""
    parts = []
    for algorithm, rows in recursion(prompts).groupby("algorithm"):
        mean = rows.groupby("iteration")[["found", "exact"]].mean()
        low, high, failures, exact = (
            over_seeds(rows, "iteration", name, True)["mean"] for name in (*ENDS, "failures", "exact_failures")
        )
        left = failures.index[(failures > 1.1 * high) | (1.1 * failures < low)]
        last, gap = failures.index[-1], (mean.found - mean.exact).abs().max()
        parts.append(
            f"{LABELS[algorithm]}, expected reward within {gap:.3f} of the exact one, failures over 10% beyond "
            f"Statement 9's interval {f'from step {left[0]}' if len(left) else 'never'}, and {failures[last]:.1e} "
            f"after step {last}, {exact[last]:.1e} in theory"
        )
    return f"Outer steps in a row: {'; '.join(parts)}."


def _trained(table):
    rows, parts = select(table, "training", split="train"), []
    for (algorithm, tau), some in rows.groupby(["algorithm", "tau"]):
        f = over_seeds(some, "iteration", "share").iloc[-1]
        parts.append(f"{LABELS[algorithm]} {said(f['mean'], f.high - f['mean'])} at tau {tau:g}")
    return f"f in ordinary training, not fitted to a stop: {'; '.join(parts)}." if parts else ""


def _unseen(table):
    parts = []
    for (algorithm, split), rows in select(table, "held-out").groupby(["algorithm", "split"]):
        f = over_seeds(rows, "size", "share")["mean"]
        parts.append(f"{LABELS[algorithm]} {split} " + ", ".join(f"{f[size]:.2f} of {size}" for size in f.index))
    return f"f by number of training prompts: {'; '.join(parts)}." if parts else ""
