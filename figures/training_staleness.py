"""Staleness and time to accuracy: many updates per rollout batch, few policy refreshes, and rollouts of old policies.

Preset tiny-cpu; a batch of 64 U rollouts gets U updates of 64. PMD-mean and PMD-part subtract leave-one-out estimates.
Temperature τ or clip range ε, and the learning rate, are chosen for each method and each U among six trials by the
final validation avg@8, mean of two tuning seeds that are not used again; at equal refreshes and with a lag the choice
for that U is taken over. (a) Test avg@8 at equal budgets of 256 updates and 16,384 rollouts, mean and 95% interval,
small dots: seeds. (b) At an equal number of 8 policy refreshes. (c) With rollouts of the policy
k batches ago, U = 8. (d, e) Validation avg@8 over generated tokens, U = 8 and 64. (f, g) Tokens and seconds of one CPU
core until it reaches 0.7, between evaluations interpolated; k/m: only k of the m seeds do. (h) Standard deviation of
the completions' log-ratio, (i) mean entropy of a token, both averaged over the training of (a). (j) Share of
all 12 tuning runs of a method and U that end below the base.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting

from .training_temperature import points, said, summary

STUDY = "staleness"
TABLES = ("study_staleness", "study_staleness_curves", "study_staleness_tuning")

METHODS = {
    "pmd-mean-loo": ("PMD-mean", {"color": plotting.VERMILION, "linestyle": "-"}),
    "pmd-part-loo": ("PMD-part", {"color": plotting.BLUE, "linestyle": "--"}),
    "grpo": ("GRPO", {"color": plotting.GREEN, "linestyle": "-."}),
    "gspo": ("GSPO", {"color": plotting.ORANGE, "linestyle": ":"}),
}
UPDATES, TARGET = (1, 8, 64), 0.7


def plot(table, curves, tuning):
    """Final accuracies at equal budgets, refreshes and lags; curves; costs of a target; spread, entropy, collapse."""
    figure, axes = plotting.panels(3, 4, height=2.3)
    axes[10].remove()
    axes[11].remove()
    equal = table[(table.budget == "rollouts") & (table.lag == 0)]
    refreshed = table[table.budget == "refreshes"]
    lagged = table[(table.budget == "rollouts") & (table.updates_per_batch == 8)]
    lagged = lagged[lagged.method.isin(table[table.lag > 0].method)]
    columns = ("updates_per_batch", UPDATES), ("updates_per_batch", UPDATES[1:]), ("lag", (0, 1, 4))
    for axis, rows, (column, values) in zip(axes, (equal, refreshed, lagged), columns):
        _side_by_side(axis, rows, column, values, "test/avg@8")
        axis.axhline(table["before/avg@8"].mean(), **plotting.BOUND)
        axis.set(ylabel="avg@8, test", ylim=(0, 1))
    axes[0].set(title="equal rollouts", xlabel="updates per batch U")
    axes[1].set(title="equal refreshes", xlabel="updates per batch U")
    axes[2].set(title="lag, U = 8", xlabel="lag k in batches")
    shown = _equal(curves)
    for axis, updates in zip(axes[3:5], (8, 64)):
        for method, (_, style) in METHODS.items():
            rows = shown[(shown.method == method) & (shown.updates_per_batch == updates)]
            rows = rows.dropna(subset="validation/avg@8")
            if len(rows):
                rows = rows.assign(thousands=rows.groupby("iteration").tokens.transform("mean") / 1e3)
                plotting.band(axis, "thousands", rows, "validation/avg@8", by="seed", **style)
        axis.axhline(TARGET, **plotting.BOUND)
        axis.set(xlabel="tokens, thousands", ylabel="avg@8, validation", title=f"U = {updates}", ylim=(0, 1))
    costs = reaching(curves)
    for axis, column, unit in ((axes[5], "tokens", 1e3), (axes[6], "cpu_seconds", 1.0)):
        known = costs.assign(cost=costs[column] / unit).dropna(subset="cost")
        _side_by_side(axis, known, "updates_per_batch", UPDATES, "cost")
        axis.set(ylim=(0, None), xlabel="updates per batch U", title=f"until {TARGET}")
        _unreached(axis, costs)
    axes[5].set(ylabel="tokens, thousands")
    axes[6].set(ylabel="seconds of a core")
    labels = {"ratio/std": "spread of log-ratio", "entropy": "entropy of a token, nats"}
    for axis, (column, label) in zip(axes[7:9], labels.items()):
        over = shown.groupby(["method", "updates_per_batch", "seed"])[column].mean().reset_index()
        _side_by_side(axis, over, "updates_per_batch", UPDATES, column)
        axis.set(xlabel="updates per batch U", ylabel=label, ylim=(0, None))
    share = collapsed(tuning)
    for i, (method, (_, style)) in enumerate(METHODS.items()):
        shares = share.get(method, {})
        places = [UPDATES.index(updates) + 0.18 * (i - 1.5) for updates in shares]
        axes[9].bar(places, list(shares.values()), width=0.16, color=style["color"])
    _ticks(axes[9], UPDATES)
    axes[9].set(xlabel="updates per batch U", ylabel="trials below the base", ylim=(0, 1))
    handles = [
        axes[0].errorbar([], [], [], marker="o", markersize=3.5, label=label, **style)
        for label, style in METHODS.values()
    ]
    figure.legend(handles=handles, loc="lower right", bbox_to_anchor=(0.95, 0.12), ncols=2, fontsize=8)
    return figure


def finding(table, curves, tuning):
    """Who is ahead in each setting, what reaching the target costs, and how often tuning runs collapse."""
    parts = []
    for budget, lag, updates in [("rollouts", 0, u) for u in UPDATES] + [("refreshes", 0, u) for u in (8, 64)]:
        rows = table[(table.budget == budget) & (table.lag == lag) & (table.updates_per_batch == updates)]
        if len(rows):
            parts.append(f"U = {updates} at equal {budget}: {_ranking(rows)}")
    lags = sorted(table.lag[table.lag > 0].unique())
    parts += [f"lag {lag}: {_ranking(table[table.lag == lag])}" for lag in lags]
    costs = reaching(curves)
    reached = []
    for (method, updates), rows in costs.groupby(["method", "updates_per_batch"]):
        there = rows.dropna(subset="tokens")
        seeds = f"{len(there)} of {len(rows)} seeds"
        cost = f" after {there.tokens.mean() / 1e3:.0f} thousand tokens and {there.cpu_seconds.mean():.0f} s"
        reached.append(f"{METHODS[method][0]} at U = {updates}: {seeds}{cost if len(there) else ''}")
    below = (table["test/avg@8"] < table["before/avg@8"]).sum()
    trials = tuning["test/avg@8"] < tuning["before/avg@8"]
    shares = trials.groupby(tuning.method).mean()
    by_method = ", ".join(f"{METHODS[name][0]} {share:.0%}" for name, share in shares.items())
    return (
        f"test avg@8 with 95% intervals over {table.seed.nunique()} seeds. {'. '.join(parts)}. Until validation avg@8 "
        f"reaches {TARGET}: {'; '.join(reached)}. Below the base end {below} of {len(table)} runs with chosen options, "
        f"and of the tuning runs: {by_method}. Chosen: {_chosen(table)}."
    )


def reaching(curves, target=TARGET):
    """Tokens and CPU seconds at which validation avg@8 first reaches the target, interpolated; NaN if it never does."""
    found = []
    shown = _equal(curves).dropna(subset="validation/avg@8")
    for (method, updates, seed), rows in shown.groupby(["method", "updates_per_batch", "seed"]):
        rows = rows.sort_values("iteration")
        y = rows["validation/avg@8"].to_numpy()
        first = int(np.argmax(y >= target))
        cost = {"tokens": np.nan, "cpu_seconds": np.nan}
        if first > 0:
            share = (target - y[first - 1]) / (y[first] - y[first - 1])
            for name in cost:
                x = rows[name].to_numpy()
                cost[name] = x[first - 1] + share * (x[first] - x[first - 1])
        found.append({"method": method, "updates_per_batch": updates, "seed": seed} | cost)
    return pd.DataFrame(found)


def collapsed(tuning):
    """Share of the tuning runs that end below the base: method → U → share."""
    below = (tuning["test/avg@8"] < tuning["before/avg@8"]).groupby([tuning.method, tuning.updates_per_batch]).mean()
    return {method: rows.droplevel(0).to_dict() for method, rows in below.groupby(level=0)}


def _equal(curves):
    return curves[(curves.budget == "rollouts") & (curves.lag == 0)]


def _side_by_side(axis, rows, column, values, name):
    """A point with its interval for each method, beside each other at each value of a column."""
    for i, (method, (_, style)) in enumerate(METHODS.items()):
        own = rows[rows.method == method]
        if len(own):
            place = own[column].map({value: at + 0.18 * (i - 1.5) for at, value in enumerate(values)})
            points(axis, own.assign(place=place), "place", name, **style)
    _ticks(axis, values)


def _ticks(axis, values):
    axis.set_xticks(range(len(values)), values)
    axis.set(xlim=(-0.5, len(values) - 0.5))


def _unreached(axis, costs):
    """Say how many seeds reach the target where not all do."""
    for i, method in enumerate(METHODS):
        for at, updates in enumerate(UPDATES):
            rows = costs[(costs.method == method) & (costs.updates_per_batch == updates)]
            if rows.tokens.isna().any():
                place = at + 0.18 * (i - 1.5)
                text = f"{rows.tokens.notna().sum()}/{len(rows)}"
                low = axis.get_xaxis_transform()
                axis.text(place, 0.02, text, transform=low, ha="center", fontsize=5.5, rotation=90)


def _ranking(rows):
    mean, half = summary(rows, "method", "test/avg@8")
    order = mean.sort_values(ascending=False).index
    return ", ".join(f"{METHODS[name][0]} {said(mean[name], half[name])}" for name in order)


def _chosen(table):
    """The options that tuning chose, method by method."""
    words = []
    for (method, updates), rows in table.groupby(["method", "updates_per_batch"]):
        row = rows.iloc[0]
        knobs = {"ε": row.clip_low, "τ": row.tau, "lr": row.learning_rate}
        said = " ".join(f"{name} {value:g}" for name, value in knobs.items() if value == value)
        words.append(f"{METHODS[method][0]} at U = {updates} {said}")
    return "; ".join(words)
