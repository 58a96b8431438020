"""PMD-mean pays where batches have many updates and prompts are hard.

Simulated training (`pmdtheory.posttraining`): a log-linear policy, right or wrong completions, and a budget of B
batches of U Adam updates of 64 rollouts, n for each prompt; J is the mean success rate of the start. PMD-mean and
PMD-part (leave-one-out), KL-weighted PMD-mean, GRPO and RLOO have 18 trials each: three learning rates times six values
of τ or of the clip range; chosen is the best mean over a knob and its neighbours on 10 tuning seeds. The gain of
success rate on unseen prompts comes from 50 other seeds, paired. (a, b, c) UB = 64; colour and first number: lead over
the better of PMD-part, GRPO and RLOO; second: the largest τ with nine tenths of PMD-mean's best gain, of 0.001 to 1
that were tried. Coloured are leads of more than 0.02 told apart at 5%, Bonferroni over all cells and both rivals. (d)
Random regimes (B up to 128, 4 to 32 completions a prompt, lag up to 4, up to a quarter of the verdicts wrong, sampler
noise up to 1), which had no part in the rule; shaded is where it says that PMD-mean leads by more than 0.02. In the
table also bandits, a policy of its own for each prompt and each of 8 batches fitted exactly, and the two ends that the
tiny language model is trained at. `make reproduce` recomputes a part, 20 of the cells of b with their bandits.
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
from scipy.stats import t as student

from pmdtheory import advice, plotting
from pmdtheory.bandit import Bandit, iterate
from pmdtheory.intervals import half_width
from pmdtheory.posttraining import METHODS, Regime, Trial, first_policies, gains

from . import marks

FULL = {
    "kinds": ("map", "bandit", "fitted", "held-out", "trained"),
    "maps": ((4, 0.0), (16, 0.0), (16, 0.2)),
    "success": (0.02, 0.1, 0.3, 0.6, 0.9),
    "updates": (1, 4, 16, 64),
    "random": 90,
    "tuning_seeds": 10,
    "seeds": 50,
}
SAMPLE = FULL | {"kinds": ("map", "bandit"), "maps": ((16, 0.0),)}
FAST = SAMPLE | {"success": (0.1, 0.6), "updates": (1, 64)}
KEYS = ["kind", *advice.REGIME, "split", "method", "knob"]
TOLERANCE = dict.fromkeys(("gain", "half", "decile", "lead", "lead_half"), 1e-5)  # small τ amplify rounding

TAUS, CLIPS = (0.001, 0.004, 0.016, 0.064, 0.25, 1.0), (0.05, 0.1, 0.2, 0.4, 0.8, np.inf)
BANDIT_TAUS = (0.03, 0.06, 0.125, 0.25, 0.5, 1.0)
RATES, TOTAL, BATCHES = (0.3, 1.0, 3.0), 64, 8


def regimes(kind, maps, success, updates, random):
    """The regimes of the maps, those of bandits, or random ones: for the fit, and half as many that it never sees."""
    if kind == "map":
        return [Regime(n, J, U, TOTAL // U, flips=flips) for n, flips in maps for J in success for U in updates]
    if kind == "bandit":
        return [Regime(n, J, 1, BATCHES, flips=flips) for n, flips in maps for J in success]
    if kind == "trained":  # n, U and B of the study of the tiny language model, from its success rate
        return [Regime(16, 0.3, 64, 2), Regime(4, 0.3, 1, 128)]
    held_out = kind == "held-out"
    rng = np.random.default_rng([15, held_out])
    return [_random(rng) for _ in range(random // 2 if held_out else random)]


def _random(rng):
    logit = rng.uniform(np.log(0.02 / 0.98), np.log(0.9 / 0.1))
    total, U = 2 ** rng.integers(5, 8), 2 ** rng.integers(0, 7)
    harder = rng.random(3) < 0.5
    return Regime(
        rollouts=int(2 ** rng.integers(2, 6)),
        success=round(float(1 / (1 + np.exp(-logit))), 4),
        updates=int(U),
        batches=int(max(total // U, 1)),
        completions=int(2 ** rng.integers(2, 6)),
        lag=int(harder[0] * rng.integers(1, 5)),
        flips=round(float(harder[1] * rng.uniform(0, 0.25)), 4),
        mismatch=round(float(harder[2] * rng.uniform(0, 1)), 4),
    )


def grids(kind):
    """The settings of each method, an array of trials with rates along the first axis and the knob along the second."""
    if kind == "bandit":  # nothing but τ: the batch is fitted exactly
        return {method: [[Trial(method, tau, 0.0) for tau in BANDIT_TAUS]] for method in ("pmd-mean", "pmd-part")}
    knobs = {method: CLIPS if method in ("grpo", "rloo") else TAUS for method in METHODS}
    return {method: [[Trial(method, knob, rate) for knob in knobs[method]] for rate in RATES] for method in METHODS}


def smoothed(values):
    """Mean over a value of the knob and its neighbours, along the last axis."""
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 1)], constant_values=np.nan)
    return np.nanmean([padded[..., :-2], padded[..., 1:-1], padded[..., 2:]], axis=0)


def compute(kinds, tuning_seeds, seeds, **grid):
    """Tuning and evaluation in every regime."""
    rows = []
    for kind in kinds:
        for regime in regimes(kind, **grid):
            shown = vars(regime) | ({"updates": np.inf} if kind == "bandit" else {})
            rows += [{"kind": kind} | shown | row for row in tuned(kind, regime, tuning_seeds, seeds)]
    return pd.DataFrame(rows)


def tuned(kind, regime, tuning_seeds, seeds):
    """Each knob's gain at the best rate around it, on tuning seeds; on others, that of the trial chosen by them."""
    run = bandit_gains if kind == "bandit" else gains
    rows, chosen = [], []
    every = grids(kind)
    values = run(regime, [trial for grid in every.values() for row in grid for trial in row], tuning_seeds, seed=0)
    shape = len(every), len(next(iter(every.values()))), len(TAUS), tuning_seeds
    for grid, own in zip(every.values(), values.reshape(shape)):
        near = smoothed(own.mean(axis=-1))
        rate, knob = np.unravel_index(near.argmax(), near.shape)
        chosen.append(grid[rate][knob])
        if grid[0][0].method in ("pmd-mean", "pmd-part"):
            tuning = [(grid[r][k], own[r, k]) for k, r in enumerate(near.argmax(axis=0))]
            rows += [{"split": "tuning"} | trial._asdict() | _summary(values) for trial, values in tuning]
    values = run(regime, chosen, seeds, seed=1)
    for trial, own in zip(chosen, values):
        lead = values[0] - own
        ahead = {"lead": lead.mean(), "lead_half": half_width(lead.std(ddof=1), seeds)}
        rows.append({"split": "evaluation"} | trial._asdict() | _summary(own) | ahead)
    return rows


def bandit_gains(regime, trials, seeds, seed):
    """As `posttraining.gains` in bandits of sixteen prompts, each with its own policy, fitted to a batch exactly."""
    streams = [np.random.default_rng(own) for own in np.random.SeedSequence([2, seed]).spawn(seeds)]
    start, reward = (np.concatenate(arrays) for arrays in zip(*(first_policies(regime, s, 16) for s in streams)))
    found, clear = [], 1 - 2 * regime.flips  # an observed verdict is right with probability flips + clear r
    problem = Bandit(regime.flips + clear * reward, noise="bernoulli")
    for method, estimator in (("pmd-mean", "loo_mean"), ("pmd-part", "loo_log_partition")):
        taus = [[trial.knob] for trial in trials if trial.method == method]
        table = iterate(
            problem, start, taus, regime.batches, rollouts=regime.rollouts, estimator=estimator, seed=seed,
            per_context=True,
        )  # fmt: skip
        paths = table.reward.to_numpy().reshape(regime.batches + 1, len(taus), seeds, -1)
        found.append((paths[-1] - paths[0]).mean(axis=-1) / clear)
    return np.concatenate(found)


def _summary(own):
    half = half_width(own.std(ddof=1), len(own))
    return {"gain": own.mean(), "half": half, "decile": np.quantile(own, 0.1), "below": int((own < 0).sum())}


VERDICTS = {
    "pmd-mean": ("PMD-mean ahead", plotting.VERMILION),
    "none": ("not told apart, or by less than 0.02", "#EEEEEE"),
    "part": ("PMD-part ahead", plotting.BLUE),
    "clipped": ("GRPO or RLOO ahead", plotting.GREEN),
}
STRONG = 0.25  # lead from which the colour is full


def verdicts(cells, seeds):
    """Which method is ahead in each cell of the maps by a lead that counts, at 5% over all of them and both rivals."""
    level = 0.05 / max(len(cells) * len(advice.RIVALS), 1)
    wider = student.ppf(1 - level / 2, seeds - 1) / student.ppf(0.975, seeds - 1)
    leads = {name: (cells[f"lead_{name}"], wider * cells[f"half_{name}"]) for name in advice.RIVALS}
    ahead = np.all([lead > np.maximum(half, advice.MARGIN) for lead, half in leads.values()], axis=0)
    behind = {name: lead < -np.maximum(half, advice.MARGIN) for name, (lead, half) in leads.items()}
    worst = cells[["lead_part", "lead_clipped"]].idxmin(axis=1).str.removeprefix("lead_")
    found = np.where(ahead, "pmd-mean", "none").astype(object)
    for name, mask in behind.items():
        found[mask & (worst == name)] = name
    return found


def mapped(table):
    """The cells of the maps with their verdicts."""
    cells = advice.regimes(table[table.kind == "map"])
    own = {"tau": cells[f"tau_{advice.OURS}"], "side": cells[f"side_{advice.OURS}"], "lead": advice.leads(cells)}
    return cells.assign(verdict=verdicts(cells, FULL["seeds"]), **own)


def plot(table):
    """The three maps; the rule and the regimes that it did not see."""
    figure, axes = plotting.panels(2, 2, height=2.7)
    cells = mapped(table)
    for axis, (n, flips) in zip(axes, FULL["maps"]):
        own = cells[(cells.rollouts == n) & (cells.flips == flips)]
        axis.set_title(f"{n} rollouts a prompt, {f'{flips:.0%} of verdicts wrong' if flips else 'true verdicts'}")
        if len(own):
            _map(axis, own)
    if (table.kind == "held-out").any():
        _held_out(axes[3], table)
    axes[3].set_title("regimes that the rule did not see")
    handles = [mpl.patches.Patch(color=colour, label=words) for words, colour in VERDICTS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _map(axis, cells):
    rows, columns = sorted(cells.success.unique()), sorted(cells.updates.unique())
    for cell in cells.itertuples():
        x, y = columns.index(cell.updates), rows.index(cell.success)
        colour = VERDICTS[cell.verdict][1]
        if cell.verdict == "pmd-mean":
            share = 0.25 + 0.75 * min(cell.lead / STRONG, 1)
            colour = 1 - share * (1 - np.array(mpl.colors.to_rgb(colour)))
        axis.add_patch(mpl.patches.Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white"))
        dark = cell.verdict in ("part", "clipped")
        lead = f"{cell.lead:+.2f}".replace("-0.00", "+0.00").replace("-", "−")
        axis.text(x, y, f"{lead}\n{_tau(cell)}", ha="center", va="center", fontsize=6,
                  color="white" if dark else "black")  # fmt: skip
    axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5), ylabel="success rate of the start")
    axis.set_xticks(range(len(columns)), [f"{U:g}" for U in columns])
    axis.set_yticks(range(len(rows)), [f"{J:g}" for J in rows])
    axis.set_xlabel("updates per batch")
    axis.grid(visible=False)


def _tau(cell):
    """The largest τ in words; with one update a batch it has no influence, and where nothing is gained none is kept."""
    return "any τ" if cell.age == 1 else "–" if cell.tau != cell.tau else f"τ ≤ {cell.tau:.1g}"


def _held_out(axis, table):
    rule, cells = advice.fit(table), advice.regimes(table[table.kind == "held-out"])
    lead = advice.leads(cells)
    axis.axvspan(rule.age / np.sqrt(2), 256, ymax=rule.success / 1.3, color=plotting.VERMILION, alpha=0.15, linewidth=0)
    groups = {
        "led by more than 0.02": (lead > advice.MARGIN, {"color": plotting.VERMILION, "marker": "o"}),
        "within 0.02": (
            lead.abs() <= advice.MARGIN,
            {"color": plotting.GREY, "marker": "o", "markerfacecolor": "none"},
        ),
        "trailed by more": (lead < -advice.MARGIN, {"color": plotting.BLUE, "marker": "x"}),
    }
    for words, (mask, style) in groups.items():
        if mask.any():
            axis.plot(cells.age[mask], cells.success[mask], linestyle="none", markersize=4, label=words, **style)
    axis.set(xscale="log", xlim=(0.7, 256), ylim=(0, 1.3), xlabel="updates per batch × (1 + lag)")
    axis.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axis.set_ylabel("success rate of the start")
    axis.legend(loc="upper center", ncols=3, columnspacing=0.8, handletextpad=0)


def title(table):
    """In how many cells of the maps PMD-mean is ahead, and behind."""
    cells = mapped(table)
    many = cells.updates >= 16
    ahead, behind = cells.verdict == "pmd-mean", cells.verdict.isin(("part", "clipped"))
    return (
        f"PMD-mean leads PMD-part, GRPO and RLOO by over {advice.MARGIN} in {(ahead & many).sum()} of {many.sum()} "
        f"regimes with 16 or more updates a batch, in {(ahead & ~many).sum()} of {(~many).sum()} with fewer; "
        f"it trails in {behind.sum()}"
    )


def finding(table):
    """The rules and what became of them in regimes they did not see; what differs in bandits."""
    parts = [_counts(table)]
    if (table.kind == "held-out").any():
        rule = advice.fit(table)
        inside, outside = (rule.trust[pays, "part"] for pays in (True, False))
        clipped = rule.trust[True, "clipped"]
        scale, *powers = advice.exponents(table)
        age, B, odds, _ = (f"{power:.2f}" for power in powers)
        parts = [
            f"the rule that PMD-mean pays where U(1 + lag) ≥ {rule.age:g} and J ≤ {rule.success:g} tells "
            f"{rule.right['held-out']:.0%} of {inside.regimes + outside.regimes} unseen regimes right: there it leads "
            f"PMD-part in {inside.ahead} and GRPO and RLOO in {clipped.ahead} of {inside.regimes}",
            f"Its largest τ: {np.exp(scale.value):.2g} (U(1 + lag))^({age}) B^({B}) (J/(1 − J))^({odds}), within a "
            f"factor {rule.factor[advice.OURS]:.1f} in 90%",
        ]
        parts.append(_worst(table))
    bandits = advice.regimes(table[table.kind == "bandit"])
    if len(bandits):
        worst = bandits.loc[bandits.lead_part.idxmin()]
        parts.append(
            f"Exact bandits: lead over PMD-part {bandits.lead_part.min():+.2f} (J = {worst.success:g}, "
            f"{worst.flips:.0%} wrong) to {bandits.lead_part.max():+.2f}"
        )
    return f"{'. '.join(parts)}."


def _worst(table):
    """How often each method ends below its start, and the mean lead of PMD-mean's worst decile of seeds."""
    ends = table[(table.split == "evaluation") & table.kind.isin(("map", "fitted", "held-out"))]
    below, runs = ends.groupby("method").below.sum(), FULL["seeds"] * (ends.method == advice.OURS).sum()
    deciles = ends.pivot(index=["kind", *advice.REGIME], columns="method", values="decile")
    lead = (deciles[advice.OURS] - deciles["pmd-part"]).mean()
    counts = ", ".join(f"{marks.NAMES[name]} {below[name]}" for name in (advice.OURS, "pmd-part", "grpo"))
    return f"Runs below start: {counts} of {runs:,}; the worst decile leads PMD-part's by {lead:.2f}"


def _counts(table):
    cells = mapped(table)
    ahead = (cells.verdict == "pmd-mean").sum()
    return (
        f"PMD-mean's lead over the better of the others is {cells.lead.min():+.2f} to {cells.lead.max():+.2f} in "
        f"{len(cells)} regimes of the map, more than {advice.MARGIN} and told apart in {ahead}"
    )
