"""What one step from few rollouts gains, with few actions and with many.

Each seed draws its own bandit, a Zipf policy over K actions in random order and rewards with mean J, then n rollouts,
and takes the exact minimiser of the sampled regression; unseen actions share the free mass in proportion. Drawn are
binary rewards: a share J = 0.1 of the actions is rewarded and has mass J. PMD-mean subtracts the mean reward of the
rollouts, PMD-part their log-partition (Statements 12–14). (a, b) Gain in expected reward at τ = 0.03 with its 95%
interval over the seeds; horizontal: the exact updates. (c, d) Gain of PMD-mean less that of PMD-part on the same
rollouts; a dot where its 95% interval holds 0. The table has more K and J, graded rewards from Beta(2J, 2(1 − J)) with
J = 0.3, observed as they are or (noisy) through a coin, the mass on unseen actions, and how often a step makes the
policy worse.

The unseen actions enter as one action with their whole mass and mean reward: under the proportional rule that is exact.
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
from scipy.stats import binom

from pmdtheory import divergences, kl_update, plotting, pmd_mean_update
from pmdtheory.comparisons import signs, student_test
from pmdtheory.draws import chances, draw_actions
from pmdtheory.intervals import mean_interval
from pmdtheory.sampled import sampled_update

FULL = {
    "problems": (
        ("binary", 10, 0.1),
        ("binary", 1000, 0.1),
        ("binary", 100_000, 0.1),
        ("binary", 1000, 0.01),
        ("binary", 1000, 0.5),
        ("graded", 10, 0.3),
        ("noisy", 10, 0.3),
    ),
    "taus": (0.01, 0.03, 0.1, 0.3, 1.0),
    "rollouts": (2, 4, 8, 16, 32, 64, 128, 256),
    "seeds": 200,
}
FAST = FULL | {"taus": (0.03,), "rollouts": (4, 16)}
KEYS = ["rewards", "actions", "mean_reward", "tau", "rollouts", "estimator"]

MOST, BLOCK = 256, 2**21  # rollouts of a seed; probabilities at a time
COLD = 0.03
ESTIMATORS = ("mean", "loo_mean", "log_partition", "loo_log_partition")
PARTS = {"mean": "log_partition", "loo_mean": "loo_log_partition"}


def instances(rewards, K, J, streams):
    """Policies and mean rewards, shape (len(streams), K): a bandit from each Generator."""
    zipf = 1 / np.arange(1, K + 1)
    if rewards != "binary":
        reward = np.stack([stream.beta(2 * J, 2 * (1 - J), K) for stream in streams])
        return np.broadcast_to(zipf / zipf.sum(), reward.shape), reward
    good = np.stack([stream.permutation(K) for stream in streams]) < round(J * K)
    mass = np.where(good, zipf, 0.0).sum(axis=-1, keepdims=True)
    return np.where(good, J * zipf / mass, (1 - J) * zipf / (zipf.sum() - mass)), good.astype(float)


def drawn(rewards, K, J, rollouts, streams):
    """`instances`, with actions and observed rewards of shape (len(streams), rollouts)."""
    policy, reward = instances(rewards, K, J, streams)
    uniforms, coins = next(chances(streams, [np.random.Generator.random] * 2, (rollouts,), 1))
    actions = draw_actions(policy, uniforms)
    mean = np.take_along_axis(reward, actions, axis=-1)
    return policy, reward, actions, (coins < mean).astype(float) if rewards == "noisy" else mean


def groups(policy, reward, actions, sizes):
    """Lump what the first n rollouts have not seen into a last action, for each n.

    Parameters
    ----------
    policy, reward : ndarray, shape (N, K)
    actions : ndarray of int, shape (N, most)
    sizes : sequence of int
        n, ascending.

    Yields
    ------
    mass, reward, rollouts, spread
        Probability and mean reward (N, n + 1) of the seen actions, of nothing, and last of all unseen ones together;
        the slot of each rollout (N, n); and the entropy of `policy` among the unseen (N,).
    """
    left, surprise = policy.copy(), policy * -np.log(policy)
    for n in sizes:
        order = np.argsort(actions[:, :n], axis=-1, kind="stable")
        seen = np.take_along_axis(actions, order, axis=-1)
        slot = np.zeros(seen.shape, dtype=np.int64)
        np.cumsum(seen[:, 1:] != seen[:, :-1], axis=-1, out=slot[:, 1:])
        rollouts, mass, value = np.empty_like(slot), *np.zeros((2, len(policy), n + 1))
        for target, place, source in ((rollouts, order, slot), (mass, slot, policy), (value, slot, reward)):
            given = slot if source is slot else np.take_along_axis(source, seen, axis=-1)
            np.put_along_axis(target, place, given, axis=-1)
        for unseen in (left, surprise):
            np.put_along_axis(unseen, seen, 0.0, axis=-1)
        rest = mass[:, -1] = left.sum(axis=-1)
        some = np.where(rest > 0, rest, 1.0)
        value[:, -1] = np.einsum("nk,nk->n", left, reward) / some
        yield mass, value, rollouts, np.where(rest > 0, surprise.sum(axis=-1) / some + np.log(some), 0.0)


def batches(rewards, K, J, rollouts, seeds):
    """Every seed's first n rollouts: per n the columns of `groups` and the rewards; and all that exact updates need."""
    columns, exact = {n: [] for n in rollouts}, []
    at_once = max(1, BLOCK // K)
    for first in range(0, seeds, at_once):
        some = range(first, min(first + at_once, seeds))
        streams = [np.random.default_rng([seed, K, round(1000 * J)]) for seed in some]
        policy, reward, actions, observed = drawn(rewards, K, J, MOST, streams)
        binary = np.broadcast_to([[1 - J, J], [0.0, 1.0]], (len(some), 2, 2)).swapaxes(0, 1)
        exact.append(binary if rewards == "binary" else (policy, reward))
        for n, group in zip(rollouts, groups(policy, reward, actions, rollouts)):
            columns[n].append((*group, observed[:, :n]))
    joined = {n: [np.concatenate(column) for column in zip(*rows)] for n, rows in columns.items()}
    return joined, map(np.concatenate, zip(*exact))


def mean_and_half(values, name):
    """Mean over the seeds and half-width of its 95% interval."""
    mean, half, _ = mean_interval(values)
    return {name: mean, f"{name}_half": half}


def low_quantile(gain):
    """The 5% quantile and the order statistics that hold it with 95% confidence."""
    first, last = binom.ppf([0.025, 0.975], len(gain), 0.05).astype(int)
    low, high = np.sort(gain)[[max(first - 1, 0), last]]
    return {"q05": np.quantile(gain, 0.05), "q05_low": low, "q05_high": high}


def compute(problems, taus, rollouts, seeds):
    """One row per problem, τ, n and estimator, summed up over the seeds; n = 0 stands for the exact updates."""
    rows = []
    for rewards, K, J in problems:
        batch_of, (policy, reward) = batches(rewards, K, J, rollouts, seeds)
        for tau in taus:
            key = {"rewards": rewards, "actions": K, "mean_reward": J, "tau": tau}
            for name, update in (("mean", pmd_mean_update), ("log_partition", kl_update)):
                gain = ((update(policy, reward, tau).policy - policy) * reward).sum(axis=-1)
                rows.append(key | {"rollouts": 0, "estimator": name} | mean_and_half(gain, "gain"))
            for n, batch in batch_of.items():
                rows += [key | {"rollouts": n} | row for row in _one_step(tau, *batch)]
    return pd.DataFrame(rows)


def _one_step(tau, mass, value, actions, spread, observed):
    """One row per estimator, from the same rollouts."""
    rows, gains = [], {}
    for estimator in ESTIMATORS:
        step = sampled_update(mass, actions, observed, tau, baseline=estimator)
        gain = gains[estimator] = ((step.policy - mass) * value).sum(axis=-1)
        lost = divergences.entropy(step.policy) - divergences.entropy(mass)
        lost += (step.policy - mass)[:, -1] * spread
        rows.append(
            {"estimator": estimator, "seeds": len(gain), "worse": int((gain < -1e-12).sum())}
            | low_quantile(gain)
            | mean_and_half(gain, "gain")
            | mean_and_half(divergences.movement(mass, step.log_ratio).kl, "kl")
            | mean_and_half(np.exp(lost), "left")
            | mean_and_half(step.policy[:, -1], "unseen")
            | {"unseen_before": mass[:, -1].mean()}
        )
    for row in rows:
        if row["estimator"] in PARTS:
            row |= mean_and_half(gains[row["estimator"]] - gains[PARTS[row["estimator"]]], "over_part")
    return rows


USUAL = ("binary", 1000, 0.1)
PLAIN = ("mean", "log_partition")
DIVERGING = mpl.colors.LinearSegmentedColormap.from_list("gain", [plotting.BLUE, "white", plotting.VERMILION])
ROLES = {
    "mean": plotting.MEAN,
    "log_partition": plotting.KL,
    "loo_mean": plotting.CHECK | {"marker": "x", "color": plotting.VERMILION},
    "loo_log_partition": plotting.CHECK | {"marker": "+", "markersize": 4.5, "color": plotting.BLUE},
}
LABELS = {
    "mean": "PMD-mean",
    "log_partition": "PMD-part",
    "loo_mean": "PMD-mean, leave-one-out",
    "loo_log_partition": "PMD-part, leave-one-out",
}


def select(table, problem, tau=COLD):
    """Rows of one problem and τ, without the exact updates."""
    rewards, K, J = problem
    rows = table[(table["rewards"] == rewards) & (table.actions == K) & (table.mean_reward == J) & (table.tau == tau)]
    return rows[rows.rollouts > 0]


def draw(axis, rows, value, names=ESTIMATORS, **changes):
    """Column `value` over n with its interval, one curve per estimator."""
    for name in names:
        curve, role = rows[rows.estimator == name], ROLES[name] | changes
        axis.plot(curve.rollouts, curve[value], **role)
        if f"{value}_half" in curve:
            curve = curve.assign(low=curve[value] - curve[f"{value}_half"], high=curve[value] + curve[f"{value}_half"])
        if "low" in curve:
            axis.fill_between(curve.rollouts, curve.low, curve.high, color=role["color"], alpha=0.2, lw=0)
    axis.set_xscale("log", base=2)
    axis.set_xticks([2, 8, 32, 128], ["2", "8", "32", "128"])


def plot(table):
    """Gain and its map over n and τ for few and many actions."""
    figure, axes = plotting.panels(2, 2, height=2.3, width=plotting.PAGE)
    largest = table.over_part.abs().max()
    for gain, chart, K in zip(axes[:2], axes[2:], (10, 1000)):
        problem = ("binary", K, 0.1)
        draw(gain, select(table, problem), "gain")
        for name in PLAIN:
            exact = table[(table["rewards"] == "binary") & (table.rollouts == 0) & (table.tau == COLD)]
            exact = exact[(exact.estimator == name) & (exact.mean_reward == 0.1) & (exact.actions == K)]
            gain.axhline(exact.gain.mean(), **ROLES[name] | {"linewidth": 0.8, "linestyle": ":"})
        gain.set(title=f"gain with {K} actions", ylim=(0, 0.95), xlabel="rollouts", ylabel="gain in expected reward")
        image = _map(chart, table, problem, largest)
        chart.set(title=f"who gains more with {K} actions", xlabel="rollouts", ylabel=r"temperature $\tau$")
    bar = figure.colorbar(image, ax=list(axes[2:]), ticks=[-largest, 0, largest], aspect=12)
    bar.ax.set_yticklabels(["PMD-part", "equal", "PMD-mean"])
    exact = plotting.line(label="exact updates", color="black", linestyle=":", linewidth=0.8)
    figure.legend(handles=[*handles(), exact], loc="outside lower center", ncols=5, columnspacing=1.0, handlelength=1.6)
    return figure


def handles():
    """Lines of the estimators for a legend."""
    return [plotting.line(label=LABELS[name], **ROLES[name]) for name in ESTIMATORS]


def _map(axis, table, problem, largest):
    """Paired difference of gains over n and τ."""
    rows = table[(table["rewards"] == problem[0]) & (table.actions == problem[1]) & (table.mean_reward == problem[2])]
    rows = rows[(rows.rollouts > 0) & (rows.estimator == "mean")]
    grid = rows.pivot(index="tau", columns="rollouts", values="over_part")
    open_ = (grid.abs() <= rows.pivot(index="tau", columns="rollouts", values="over_part_half")).to_numpy()
    image = axis.pcolormesh(
        np.arange(grid.shape[1] + 1), np.arange(grid.shape[0] + 1), grid, cmap=DIVERGING, vmin=-largest, vmax=largest
    )
    tau, n = np.nonzero(open_)
    axis.plot(n + 0.5, tau + 0.5, "k.", markersize=2.5)
    axis.set_xticks(np.arange(grid.shape[1])[::2] + 0.5, [f"{n}" for n in grid.columns[::2]])
    axis.set_yticks(np.arange(grid.shape[0]) + 0.5, [f"{t:g}" for t in grid.index])
    axis.grid(visible=False)
    return image


def compared(table):
    """Rows of the mean, with the sign of its lead over the log-partition: Student's tests with Holm's correction."""
    rows = table[(table.estimator == "mean") & (table.rollouts > 0)]
    tests = [student_test(*row) for row in rows[["over_part", "over_part_half", "seeds"]].itertuples(index=False)]
    return rows.assign(sign=np.array(signs(tests), dtype=int))


def title(table):
    """From how many rollouts on either estimator gains more, with many actions and with few."""
    parts = []
    for K in (1000, 10):
        found = select(compared(table), ("binary", K, 0.1)).set_index("rollouts").sign
        ranges = [(name, found.index[found == sign]) for name, sign in (("PMD-mean", 1), ("PMD-part", -1))]
        words = [f"{name} at {ns.min()} to {ns.max()} rollouts" for name, ns in ranges if len(ns)]
        parts.append(f"of {K} actions {', '.join(words) or 'neither'}")
    return f"Who gains more in a step: {'; '.join(parts)}"


def finding(table):
    """Where PMD-part lags and why, and where it is the better one."""
    usual, noisy = (select(table, problem) for problem in (USUAL, ("noisy", 10, 0.3)))
    at = usual[usual.rollouts == 16].set_index("estimator")
    rows = compared(table)
    wins, losses = ((rows.sign == sign).sum() for sign in (1, -1))
    behind = select(rows[rows.sign < 0], ("binary", 10, 0.1))
    few = f" (K = 10: from n = {behind.rollouts.min()} on)" if len(behind) else ""
    part, mean = (noisy[noisy.estimator == name].set_index("rollouts") for name in ("log_partition", "mean"))
    n = part.worse.idxmax()
    gain = {name: f"{at.gain[name]:.2f} ± {at.gain_half[name]:.2f}" for name in at.index}
    return (
        f"at n = 16, K = 1000, J = 0.1, τ = {COLD} PMD-mean gains {gain['mean']}, PMD-part {gain['log_partition']}, "
        f"which leaves {at.unseen['log_partition']:.0%} of the mass on unseen actions "
        f"({at.unseen_before['mean']:.0%} before). The price: PMD-mean keeps {at.left['mean']:.0%} of the effective "
        f"actions, PMD-part {at.left['log_partition']:.0%}. Of {len(rows)} comparisons PMD-mean wins {wins}, "
        f"PMD-part {losses}, Holm-corrected{few}. With noise, K = 10, n = {n}, PMD-part makes the policy worse in "
        f"{part.worse[n]:.0f}/{part.seeds[n]:.0f} seeds, PMD-mean in {mean.worse[n]:.0f}/{mean.seeds[n]:.0f}."
    )
