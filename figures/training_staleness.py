"""Many updates per rollout batch, few policy refreshes, rollouts of old policies.

Preset tiny-cpu; a batch of 64 U rollouts gets U updates of 64. PMD-mean and PMD-part subtract leave-one-out estimates.
Temperature τ or clip range ε, and the learning rate, are chosen for each method and each U by the final validation
avg@8, mean of two tuning seeds that are not used again and of the neighbouring rates, among five to seven rates, none
of them at an end, and up to four values of the knob. At equal refreshes and with a lag the choice is taken over.
That of PMD-mean is taken over by two relatives too, in the tables at fresh rollouts: PMD-mean over a free baseline, and
over those groups alone whose rewards differ. (a, b, c) Test avg@8 at equal budgets of 256 updates and 16,384 rollouts,
with rollouts of the policy k batches ago, interquartile mean and its 95% bootstrap interval, small dots: seeds. (d)
Interquartile means over all settings of budget, U and lag, those of 8 policy refreshes among them, runs drawn anew
within each. (e) Probability that a run of PMD-mean ends above one of another method in the same setting. (f) Generated
tokens until validation avg@8 reaches 0.7, between evaluations interpolated, a dot for each seed; a triangle is a seed
that does not get there within the budget; the bar is the restricted mean, of what a seed spends that stops at the
target or at the budget, with its 95% interval. The tables have the spread of the log-ratios and the tuning runs too.
"""

from pmdtheory import plotting
from pmdtheory.comparisons import rank_test, signs

from . import marks
from .harness import Columns
from .marks import accuracies, before, legend_of, name_of, reaching, side_by_side

STUDY = "staleness"
RUN = "updates_per_batch lag seed before/avg@8 test/avg@8"
TABLES = {
    "study_staleness": Columns("method budget", RUN),
    "study_staleness_curves": Columns("method budget", "updates_per_batch lag seed iteration tokens validation/avg@8"),
    "study_staleness_tuning": Columns("method budget", RUN),
}

METHODS = ("pmd-mean-loo", "pmd-part-loo", "grpo", "gspo")
RELATIVES = ("free baseline", "filtered")
UPDATES, LAGS, TARGET = (1, 8, 64), (0, 1, 4), 0.7
REGIME = ["budget", "updates_per_batch", "lag"]


def plot(table, curves, tuning):
    """Final accuracies at equal budgets, for each lag and over all settings; cost of a target."""
    table = table[table.method.isin(METHODS)]
    figure, axes = plotting.panels(2, 3, height=2.3)
    for axis, updates in zip(axes, UPDATES):
        rows = table[(table.budget == "rollouts") & (table.updates_per_batch == updates)]
        side_by_side(axis, rows, "method", METHODS, "lag", LAGS, "test/avg@8", linestyle="none")
        before(axis, table["before/avg@8"].mean())
        axis.set(ylabel="test accuracy", ylim=(0, 1.05), title=f"U = {updates}", xlabel="batches old")
    marks.aggregates(axes[3:5], table, METHODS, REGIME, "test/avg@8")
    axes[3].set(title="over all settings", xlabel="test accuracy")
    axes[4].set(title="who ends higher", xlabel="probability that PMD-mean does")
    marks.survivals(axes[5], reaching_target(curves), METHODS, "updates_per_batch", UPDATES)
    axes[5].set(title=f"tokens until {TARGET}", xlabel="updates per batch")
    handles = [*legend_of(METHODS, linestyle="none"), *marks.survival_marks()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, columnspacing=1.0, handletextpad=0.3)
    return figure


def comparisons(table, others=METHODS[1:]):
    """Signs of PMD-mean against other methods in each regime, by rank tests with Holm's correction."""
    pairs = [
        (rows[rows.method == METHODS[0]]["test/avg@8"], other["test/avg@8"])
        for _, rows in table.groupby(REGIME)
        for name, other in rows.groupby("method")
        if name in others
    ]
    return signs([rank_test(*pair) for pair in pairs])


def title(table, curves, tuning):
    """How often PMD-mean is told from another method, and which way."""
    found = comparisons(table)
    return (
        f"In {table.groupby(REGIME).ngroups} regimes of updates and staleness PMD-mean ends above another method in "
        f"{found.count(1)} of {len(found)} comparisons, below in {found.count(-1)}"
    )


def finding(table, curves, tuning):
    """PMD-mean and the best other method in each setting, who misses the target, and what its relatives do."""
    regimes = [("rollouts", 0, u, f"U = {u}") for u in UPDATES]
    regimes += [("refreshes", 0, 64, "U = 64 at equal refreshes")]
    parts = []
    for budget, lag, updates, name in regimes:
        rows = table[(table.budget == budget) & (table.lag == lag) & (table.updates_per_batch == updates)]
        others = rows[rows.method.isin(METHODS[1:])]
        if len(others):
            best = others.groupby("method")["test/avg@8"].mean().idxmax()
            both = rows[rows.method.isin(["pmd-mean-loo", best])]
            parts.append(f"{name}: {accuracies(both, 'method')}")
    late = reaching_target(curves).groupby("method").tokens.agg(lambda tokens: f"{tokens.isna().sum()}/{len(tokens)}")
    missed = ", ".join(f"{name_of(method)} {count}" for method, count in late.items())
    signs_of_relatives = comparisons(table, RELATIVES)
    return (
        f"test avg@8 of PMD-mean and the best other, interquartile means: {'; '.join(parts[:2])}. "
        f"{'; '.join(parts[2:])}. Seeds that do "
        f"not reach {TARGET}: {missed}. With fresh rollouts its two relatives end "
        f"above PMD-mean in {signs_of_relatives.count(-1)} of {len(signs_of_relatives)} comparisons, "
        f"below in {signs_of_relatives.count(1)}."
    )


def reaching_target(curves):
    """Tokens at which validation avg@8 first reaches the target, of each method, U and seed at equal rollouts."""
    return reaching(_equal(curves), ["method", "updates_per_batch", "seed"], "validation/avg@8", TARGET)


def _equal(curves):
    return curves[(curves.budget == "rollouts") & (curves.lag == 0) & curves.method.isin(METHODS)]
