"""In a log-linear bandit PMD-mean leads early at small τ; both end nearly equal on contexts never trained on.

Every seed draws its own problem: 32 training and 128 held-out contexts, 16 actions, 24 Gaussian features of each pair,
a uniform first policy; reward 1 where a hidden linear score plus noise is among the highest tenth, else 0. Each batch
has n rollouts per training context (8 unless said) and leave-one-out baselines, the mean (PMD-mean, solid) or the
log-partition (PMD-part, dashed). It is dealt into U minibatches for one Adam step each (rate 0.1), or fitted to
convergence with a ridge of 0.01 on the move (U = inf). Top: held-out reward over batches at two temperatures; panel c:
PMD-mean minus PMD-part on held-out contexts, paired by seed. Bottom: after the last batch against the temperature
(U = 8), on training and held-out contexts, for few (black) and many rollouts (green); then batches from the policy k
batches before, with its own log-probabilities (U = 8; colours by k). Bands: 95% confidence intervals of the mean over
20 seeds.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from pmdtheory import plotting
from pmdtheory.bandit import Bandit
from pmdtheory.intervals import SHARE, mean_interval
from pmdtheory.loglinear import LogLinear, iterate

FULL = {
    "seeds": 20,
    "steps": 24,
    "taus": (0.05, 1.0),
    "updates": (1, 8, 64, np.inf),
    "staleness": (0, 1, 4),
    "rollouts": (4, 32),
    "sweep": (0.02, 0.05, 0.1, 0.3, 1.0, 3.0),
}
FAST = FULL | {"seeds": 3, "updates": (8, np.inf), "staleness": (0, 4), "rollouts": (4,), "sweep": (0.05, 1.0)}
KEYS = ["update", "tau", "rollouts", "updates", "staleness", "step", "seed"]
TOLERANCE = {"train": 1e-9, "held_out": 1e-9}  # 1536 minibatch steps at small tau amplify rounding up to 1e5-fold

TRAIN, HELD_OUT, ACTIONS, FEATURES = 32, 128, 16, 24
ROLLOUTS, UPDATES, LEARNING_RATE, RIDGE = 8, 8, 0.1, 1e-2
ESTIMATORS = {"mean": "loo_mean", "part": "loo_log_partition"}
STYLES = {"mean": {"linestyle": "-"}, "part": {"linestyle": "--"}}
COLOURS = {"updates": "viridis", "staleness": "magma"}
LABELS = {"mean": "PMD-mean", "part": "PMD-part"}


def problem(seed):
    """Features and binary rewards of all contexts."""
    rng = np.random.default_rng([2602, seed])
    features = rng.normal(size=(TRAIN + HELD_OUT, ACTIONS, FEATURES))
    direction = rng.normal(size=FEATURES)
    score = features @ (direction / np.linalg.norm(direction)) + 0.5 * rng.normal(size=features.shape[:-1])
    return features / np.sqrt(FEATURES), (score > np.quantile(score, 0.9)).astype(float)


def settings(steps, taus, updates, staleness, rollouts, sweep):
    """Every (τ, n, U, k) that is drawn, with the steps at which it is."""
    curve = [step for step in (0, 1, 2, 3, 5, 8, 12, 16, 20) if step < steps] + [steps]
    chosen = {(tau, n, UPDATES, 0): [steps] for tau in sweep for n in rollouts}
    chosen |= {(tau, ROLLOUTS, UPDATES, k): curve for tau in taus for k in staleness}
    return chosen | {(tau, ROLLOUTS, u, 0): curve for tau in taus for u in updates}


def compute(seeds, steps, **choice):
    """One row per update, setting, step and seed: expected reward on training and held-out contexts."""
    features, reward = (np.stack(x) for x in zip(*map(problem, range(seeds))))
    uniform = np.full(reward.shape, 1 / ACTIONS)
    train = LogLinear(features[:, :TRAIN], uniform[:, :TRAIN])
    held_out = LogLinear(features[:, TRAIN:], uniform[:, TRAIN:])
    bandits = [Bandit(r[:TRAIN]) for r in reward]
    rows = []
    for (tau, n, u, k), shown in settings(steps, **choice).items():
        regime = {"ridge": RIDGE} if u == np.inf else {"updates": u, "learning_rate": LEARNING_RATE}
        for update, estimator in ESTIMATORS.items():
            theta = iterate(train, bandits, tau, steps, rollouts=n, estimator=estimator, staleness=k, **regime)
            columns = {"update": update, "tau": tau, "rollouts": n, "updates": float(u), "staleness": k}
            for step in shown:
                values = {
                    "train": (train.at(theta[step]) * reward[:, :TRAIN]).sum(axis=-1).mean(axis=-1),
                    "held_out": (held_out.at(theta[step]) * reward[:, TRAIN:]).sum(axis=-1).mean(axis=-1),
                }
                rows.append(pd.DataFrame(columns | {"step": step, "seed": np.arange(seeds)} | values))
    return pd.concat(rows, ignore_index=True)


def of(table, **values):
    """Rows with these values in these columns."""
    return table[np.logical_and.reduce([table[column] == value for column, value in values.items()])]


def advantage(table):
    """PMD-mean minus PMD-part in held-out reward, one row per setting, step and seed."""
    wide = table.pivot(index=[key for key in KEYS if key != "update"], columns="update", values="held_out")
    return (wide["mean"] - wide["part"]).rename("advantage").reset_index()


def plot(table):
    """Learning curves by U, the paired difference, temperatures, learning curves by staleness."""
    figure, axes = plotting.panels(2, 3, height=2.4)
    curves = table[table.rollouts == ROLLOUTS]
    taus = sorted(curves.tau.unique())
    for i, tau in enumerate(taus):
        _curves(axes[i], of(curves, tau=tau, staleness=0), "updates", "U")
        _curves(axes[4 + i], of(curves, tau=tau, updates=UPDATES), "staleness", "k")
        for axis in (axes[i], axes[4 + i]):
            axis.set(title=rf"$\tau={tau:g}$", ylabel="held-out reward", ylim=(0.08, 0.62))
        updates = sorted(curves.updates.unique())
        for u, colour in zip(updates, plotting.shades(len(updates))):
            rows = advantage(of(curves, tau=tau, staleness=0, updates=u))
            plotting.band(axes[2], "step", rows, "advantage", color=colour, linestyle="-:"[i])
    axes[2].set(xlabel="batches", ylabel="PMD-mean $-$ PMD-part", title="held-out difference")
    _temperatures(axes[3], table[table.rollouts != ROLLOUTS])
    axes[3].set(ylabel=f"reward after {table.step.max()} batches")
    axes[4].legend(loc="lower right")
    black = {"color": "black"}
    axes[2].legend(
        handles=[Line2D([], [], **black, linestyle=x, label=rf"$\tau={tau:g}$") for x, tau in zip("-:", taus)]
    )
    handles = [Line2D([], [], **black, **style, label=LABELS[update]) for update, style in STYLES.items()]
    figure.legend(handles=handles + axes[0].get_legend_handles_labels()[0], loc="outside lower center", ncols=6)
    return figure


def _curves(axis, table, column, symbol):
    values = sorted(table[column].unique())
    for value, colour in zip(values, plotting.shades(len(values), COLOURS[column])):
        for update, style in STYLES.items():
            label = (f"${symbol}={value:g}$" if value < np.inf else "converged") if update == "mean" else None
            rows = of(table, update=update)
            rows = rows[rows[column] == value]
            plotting.band(axis, "step", rows, "held_out", limits=SHARE, color=colour, label=label, **style)
    axis.set(xlabel="batches")


def _temperatures(axis, table):
    for n, colour in zip(sorted(table.rollouts.unique()), (plotting.BLACK, plotting.TEAL)):
        for update, style in STYLES.items():
            rows = of(table, rollouts=n, update=update)
            for column in ("train", "held_out"):
                label = f"$n={n}$" if (update, column) == ("mean", "train") else None
                plotting.band(axis, "tau", rows, column, limits=SHARE, color=colour, label=label, **style)
    axis.set(xscale="log", xlabel=r"temperature $\tau$", title=f"$U={UPDATES}$", ylim=(0.45, 0.85))
    for height, text in ((0.37, "training"), (0.03, "held out")):
        axis.text(0.03, height, text, transform=axis.transAxes, fontsize=7)
    axis.legend(loc="upper right", ncols=2)


def finding(table):
    """Who is ahead on held-out contexts, early and late, cold and warm, fresh and stale."""
    curves = of(table, rollouts=ROLLOUTS)
    last, stale = table.step.max(), table.staleness.max()
    settings = {"after 5 batches": {"step": 5}, f"after {last}": {}}
    settings |= {f"with rollouts {stale} batches old": {"staleness": stale}}
    settings |= {"after one converged fit": {"updates": np.inf, "step": 1}}
    parts = []
    for tau in sorted(curves.tau.unique()):
        usual = {"updates": UPDATES, "staleness": 0, "step": last, "tau": tau}
        leads = {name: advantage(of(curves, **usual | choice)).advantage for name, choice in settings.items()}
        words = ", ".join(f"{mean_interval(lead):+.3f} {name}".replace("± +", "± ") for name, lead in leads.items())
        ends = of(curves, **usual).groupby("update").held_out.mean()
        each = " and ".join(f"{LABELS[update]} {end:.2f}" for update, end in ends.items())
        parts.append(f"at τ = {tau:g} {words} (at the end {each})")
    return f"held-out reward, PMD-mean minus PMD-part, U = {UPDATES}: {'; '.join(parts)}."
