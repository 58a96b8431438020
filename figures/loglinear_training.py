"""PMD-mean against PMD-part in a log-linear bandit, on contexts never trained on.

Every seed draws its own problem: 32 training and 128 held-out contexts, 16 actions, 24 Gaussian features of each pair,
a uniform first policy; reward 1 where a hidden linear score plus noise is among the highest tenth, else 0. Each batch
has n rollouts per training context (8 unless said) and leave-one-out baselines, the mean (PMD-mean) or the
log-partition (PMD-part). It is dealt into U minibatches for one Adam step each (rate 0.1; U = 8 unless said), or fitted
to convergence with a ridge of 0.01 on the move. (a, b) Held-out reward over batches at two temperatures. (c) PMD-mean
minus PMD-part, paired by seed, for each U at the lower one. (d) After the last batch against the temperature, for few
and many rollouts. Bands: 95% confidence intervals of the mean over the seeds. The table has training contexts too, and
batches from the policy k batches before, with its own log-probabilities.
"""

import numpy as np
import pandas as pd

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
STYLES = {"mean": plotting.MEAN, "part": plotting.KL}
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
    """Learning curves, the paired difference by U, temperatures."""
    figure, axes = plotting.panels(2, 2, height=2.3)
    curves = of(table, rollouts=ROLLOUTS, staleness=0)
    taus = sorted(curves.tau.unique())
    for axis, tau in zip(axes, taus):
        for update, style in STYLES.items():
            rows = of(curves, tau=tau, updates=UPDATES, update=update)
            plotting.band(axis, "step", rows, "held_out", limits=SHARE, label=LABELS[update], **style)
        axis.set(title=rf"training at $\tau={tau:g}$", xlabel="batches", ylabel="held-out reward", ylim=(0.05, 0.6))
        axis.legend(loc="lower right")
    updates = sorted(curves.updates.unique())
    for u, colour in zip(updates, plotting.shades(len(updates))):
        rows = advantage(of(curves, tau=taus[0], updates=u))
        label = f"{u:g} update{'s' if u > 1 else ''} a batch" if u < np.inf else "converged"
        plotting.band(axes[2], "step", rows, "advantage", color=colour, label=label)
    axes[2].axhline(0, **plotting.BOUND)
    axes[2].set(xlabel="batches", ylabel="difference in reward", ylim=(-0.17, 0.11))
    axes[2].set_title(rf"PMD-mean minus PMD-part, $\tau={taus[0]:g}$")
    axes[2].legend(loc="lower right", ncols=2, columnspacing=1.0)
    _temperatures(axes[3], table[table.rollouts != ROLLOUTS])
    axes[3].set(title=f"after {table.step.max()} batches", ylabel="held-out reward")
    return figure


def _temperatures(axis, table):
    sizes = sorted(table.rollouts.unique())
    for update, style in STYLES.items():
        for n, colour in zip(sizes, plotting.tints(style["color"], 3)[1:]):
            rows, label = of(table, rollouts=n, update=update), f"{LABELS[update]}, {n:g} rollouts"
            plotting.band(axis, "tau", rows, "held_out", limits=SHARE, label=label, **style | {"color": colour})
    axis.set(xscale="log", xlabel=r"temperature $\tau$", ylim=(0.33, 0.6))
    axis.legend(loc="lower left")


def title(table):
    """The lead of PMD-mean on held-out contexts at the lowest temperature, early and at the end."""
    curves, last = of(table, rollouts=ROLLOUTS, updates=UPDATES, staleness=0), table.step.max()
    tau = curves.tau.min()
    early, late = (mean_interval(advantage(of(curves, tau=tau, step=step)).advantage).value for step in (5, last))
    return (
        f"In a log-linear bandit at τ = {tau:g} PMD-mean's lead on held-out contexts is {early:+.2f} after 5 batches, "
        f"{late:+.2f} after {last}"
    )


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
        words = [f"{mean_interval(lead):+.3f} {name}".replace("± +", "± ") for name, lead in leads.items()]
        ends = of(curves, **usual).groupby("update").held_out.mean()
        each = " and ".join(f"{LABELS[update]} {end:.2f}" for update, end in ends.items())
        place = f"{'At' if parts else 'at'} τ = {tau:g}"
        parts += [f"{place} {', '.join(words[:2])} ({each})", ", ".join(words[2:])]
    return f"held-out reward, PMD-mean minus PMD-part, U = {UPDATES}: {'. '.join(parts)}."
