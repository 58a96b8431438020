"""A network lands on the law of the loss it was fitted to, the Lambert-W law or the KL law.

A small transformer whose whole policy over 101 actions is known, after one outer step from its base p to q by the
PMD-mean loss or by the log-partition loss; s = log(q/p). (a) Every action of three prompts, graded reward, τ = 0.1: s
against what the law of its loss says (filled) and against the other law (hollow). Area grows with p; actions with p <
0.001, which weigh little in the loss, are pale, some beyond the axes. (b) D − s, D = (r − r̄)/τ, in units of KL(p‖q),
against ρ = q/p. Its mean under p is 1 for any policy; its slope f is 1 on the Lambert-W law and 0 on the KL law, and
nothing is fitted. (c) How far f, the median over all prompts, is from that of the law of its loss, mean and 95%
interval over the seeds; the other law would be at 1 or −1.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting
from pmdtheory.intervals import over_seeds

from .marks import key
from .network import ACTIONS, CELLS, LABELS, LOSSES, MARKERS, OTHER, OWN, SHARES, SHOWN, STUDY, handles, points, select

__all__ = ["STUDY", "TABLES", "finding", "judged", "plot", "shown"]

TABLES = {"validate": CELLS, "validate_actions": ACTIONS}

RARE = 1e-3
"""Actions of less probability are drawn pale."""


def plot(table, actions):
    """Actions against both laws, in both coordinates, and f of every setting."""
    figure, axes = plotting.panels(1, 3, height=2.7)
    if len(select(actions, "population", **SHOWN)):
        _against_laws(axes[0], actions)
        _against_ratio(axes[1], actions)
    _shares(axes[2], table)
    figure.legend(handles=handles(LOSSES), loc="outside lower center", ncols=2)
    return figure


def shown(actions, algorithm):
    """Actions of the setting that is drawn, with D − s in units of KL(p‖q), and ρ."""
    rows = select(actions, "population", algorithm=algorithm, **SHOWN)
    rows, parts = rows[rows.seed == rows.seed.min()], []
    for _, one in rows.groupby("number"):
        p, s = one.policy / one.policy.sum(), one.log_ratio
        excess = (one.reward_of_action - (p * one.reward_of_action).sum()) / one.tau - s
        parts.append(one.assign(excess=excess / -(p * s).sum(), ratio=np.exp(s)))
    return pd.concat(parts) if parts else rows.assign(excess=[], ratio=[])


def _colour(algorithm):
    return plotting.LAWS[OWN[algorithm]]["color"]


def _scatter(axis, rows, x, y, colour, hollow=False):
    """Draw actions as dots whose area grows with p."""
    for some, alpha in ((rows[rows.policy < RARE], 0.15), (rows[rows.policy >= RARE], 0.75)):
        sizes = 3 + 60 * some.policy
        face = {"facecolor": "none", "edgecolor": colour} if hollow else {"facecolor": colour, "edgecolor": "none"}
        axis.scatter(some[x], some[y], s=sizes, alpha=alpha, linewidth=0.6, **face)


def _against_laws(axis, actions):
    both = [(OWN[algorithm], _colour(algorithm), shown(actions, algorithm)) for algorithm in LOSSES]
    for own, colour, rows in both:
        _scatter(axis, rows, OTHER[own], "log_ratio", colour, hollow=True)
        _scatter(axis, rows, own, "log_ratio", colour)
    low, high = min(rows[own].min() for own, _, rows in both), max(rows[own].max() for own, _, rows in both)
    axis.plot([low, high], [low, high], color="black", linewidth=0.8, zorder=1)
    key(axis, "law of its loss", "the other law", loc="lower right")
    axis.set(title="log-ratios of all actions")
    axis.set(xlabel="predicted by a law", ylabel="of the network", ylim=(low - 0.4 * (high - low), high + 1))


def _against_ratio(axis, actions):
    both = [shown(actions, algorithm) for algorithm in LOSSES]
    for algorithm, rows in zip(LOSSES, both):
        _scatter(axis, rows, "ratio", "excess", _colour(algorithm))
    near, far = sorted(rows.ratio[rows.policy >= RARE].max() for rows in both)
    mean, part = (plotting.LAWS[law]["color"] for law in ("lambert", "kl_law"))
    axis.plot([0, near], [0, near], color=mean, linewidth=0.8, zorder=1)
    axis.plot([0, far], [1, 1], color=part, linewidth=0.8, zorder=1)
    axis.text(near, near, " Lambert-W law\n slope $f=1$", color=mean, va="top", fontsize=7.5)
    axis.text(far, 1.1, "KL law, $f=0$", color=part, ha="right", va="bottom", fontsize=7.5)
    axis.set_ylim(-0.3 * near, 1.15 * near)
    axis.set(xlabel=r"ratio $\rho=q/p$", ylabel=r"$(D-s)\,/\,\mathrm{KL}(p\|q)$", title="the law as a slope $f$")


def _shares(axis, table):
    rows = table[table.experiment == "population"]
    settings = sorted(set(zip(rows.reward, rows.tau)))
    for algorithm, shift in zip(LOSSES, (-0.15, 0.15)):
        some = rows[rows.algorithm == algorithm]
        places = [settings.index(setting) + shift for setting in zip(some.reward, some.tau)]
        some = some.assign(place=places, departure=some.share - SHARES[OWN[algorithm]])
        points(axis, some, "place", "departure", color=_colour(algorithm), marker=MARKERS[algorithm], markersize=3.5)
    axis.axhline(0, color="black", linewidth=0.8, zorder=1)
    axis.set_xticks(range(len(settings)), [f"{tau:g}".removeprefix("0") for _, tau in settings])
    for reward in dict.fromkeys(reward for reward, _ in settings):
        mine = [place for place, setting in enumerate(settings) if setting[0] == reward]
        where = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "top"}
        axis.text(np.mean(mine), 0.99, reward, fontsize=7.5, **where)
        axis.axvline(mine[0] - 0.5, color=plotting.GREY, linewidth=0.6, visible=mine[0] > 0)
    axis.set(xlabel=r"temperature $\tau$", ylabel="$f$ minus that of its law", title="how far $f$ is off")


def judged(table):
    """Population cells with their distance from the law: departure of f, R², ratio of divergences, for τ ≤ 0.3."""
    parts = []
    for algorithm in LOSSES:
        rows, own = select(table, "population", algorithm=algorithm), OWN[algorithm]
        ratio = rows[f"from_{OTHER[own]}"] / rows[f"from_{own}"]
        parts.append(rows.assign(
            departure=(rows.share - SHARES[own]).abs(), r2=rows[f"r2_{own}"], plain_r2=rows[f"plain_r2_{own}"],
            ratio=ratio.where(rows.tau <= 0.3),
        ))  # fmt: skip
    return pd.concat(parts)


def off_law(rows):
    """Which judged fits are not on the law of their loss."""
    return (rows.departure >= 0.02) | (rows.r2 <= 0.99) | (rows.ratio < 10)


def title(table, actions):
    """How many fits end on the law of their loss."""
    if select(table, "population").empty:
        return "No network has been fitted to a loss averaged over all actions yet"
    rows = judged(table)
    return (
        f"In {(~off_law(rows)).sum()} of {len(rows)} fits a network lands on the law of its loss: Lambert-W for "
        "PMD-mean, KL for the log-partition"
    )


def finding(table, actions):
    """Both losses against both laws, and which fits are off."""
    if select(table, "population").empty:
        return "no fit to a population loss is in the tables yet, so neither law has been compared with a network."
    rows, sentences = judged(table), []
    for algorithm in LOSSES:
        some = rows[rows.algorithm == algorithm]
        if some.empty:
            continue
        f = over_seeds(some.assign(setting=list(zip(some.reward, some.tau))), "setting", "share")
        other = SHARES[OTHER[OWN[algorithm]]]
        far = f", other law {some.ratio.min():.0f} times as far or more (τ ≤ 0.3)" if some.ratio.any() else ""
        excluded = ((f.low > other) | (f.high < other)).sum()
        sentences.append(
            f"{LABELS[algorithm]} loss: f {some.share.min():.3f} to {some.share.max():.3f}, p-weighted R² at least "
            f"{some.r2.min():.3f}{far}; its interval excludes that in {excluded}/{len(f)} settings."
        )
    off = rows[off_law(rows)]
    names = [f"{row.reward} τ {row.tau:g} {LABELS[row.algorithm]} seed {row.seed}" for row in off.itertuples()]
    sentences.append(
        f"Off by 0.02 in f, R² below 0.99, or less than 10 times as far: {', '.join(names) or 'no fit'}. Without "
        f"weights R² falls to {rows.plain_r2.min():.2f}: rare actions are not fitted."
    )
    return " ".join(sentences)
