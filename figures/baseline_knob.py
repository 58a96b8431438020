"""One knob from frozen to ideal: what every baseline does, and where convexity ends (Statements 10 and 11).

Ten graded rewards. The baseline b runs along (b − E_p[r])/(τ log Z − E_p[r]): −∞ is frozen, 0 is PMD-mean, 1 the KL
update; in the shaded part beyond, λ < 0 and the drawn stationary point is only a local minimum; it ends at b_max.
"""

import numpy as np
import pandas as pd

from pmdtheory import baseline_update, divergences, kl_update, largest_baseline, plotting

FULL = {"taus": (0.05, 0.2, 1.0), "stride": 1}
FAST = {"taus": (0.05, 1.0), "stride": 5}
KEYS = ["tau", "index"]

REWARD = np.linspace(0, 1, 10)
WEIGHTS = np.array([24, 18, 14, 11, 9, 8, 6, 5, 3, 2])
POLICY = WEIGHTS / WEIGHTS.sum()
KNOB = np.concatenate([-np.geomspace(30, 0.05, 50), np.linspace(0, 1, 21)])
BEYOND = np.linspace(0, 1, 21)[1:]


def compute(taus, stride):
    """One row per τ and baseline: from far below the mean to τ log Z, and on to b_max."""
    mean = POLICY @ REWARD
    rows = []
    for tau in taus:
        ideal, largest = kl_update(POLICY, REWARD, tau).baseline, largest_baseline(POLICY, REWARD, tau)
        baseline = np.concatenate([mean + KNOB * (ideal - mean), ideal + BEYOND * (largest - ideal)])
        index = np.arange(baseline.size)[::stride]
        update = baseline_update(POLICY, REWARD, tau, baseline[index])
        moved = divergences.movement(POLICY, update.log_ratio)
        columns = {
            "tau": tau,
            "index": index,
            "baseline": baseline[index],
            "knob": (baseline[index] - mean) / (ideal - mean),
            "local": update.local,
            "reward": update.policy @ REWARD,
            "kl": moved.kl,
            "chi2": moved.chi2,
            "tau_weight": tau * update.chi2_weight,
        }
        rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def plot(table):
    """Expected reward, KL, χ² and λ over the knob."""
    figure, axes = plotting.panels(1, 4, height=2.5)
    taus = sorted(table.tau.unique())
    quantities = {
        "reward": r"$E_q[r]$",
        "kl": r"$\mathrm{KL}(q\,\|\,p)$",
        "chi2": r"$\chi^2(q\,\|\,p)$",
        "tau_weight": r"$\tau\lambda$",
    }
    for axis, (column, label) in zip(axes, quantities.items()):
        for tau, colour in zip(taus, plotting.shades(len(taus))):
            curve = table[table.tau == tau]
            below, above = curve[curve.knob <= 1 + 1e-9], curve[curve.knob >= 1 - 1e-9]
            axis.plot(below.knob, below[column], color=colour, label=rf"$\tau={tau:g}$")
            axis.plot(above.knob, above[column], color=colour, linestyle=":")
        axis.axvspan(1, 2.0, color="#EEEEEE", zorder=0)
        axis.axvline(0, **plotting.BOUND)
        axis.axvline(1, **plotting.BOUND)
        axis.set(xlim=(-3, 2.0), xlabel="baseline knob", ylabel=label)
        height, side = (0.97, "top") if column == "tau_weight" else (0.03, "bottom")
        for place, name in ((0, "PMD-mean"), (1, "KL update")):
            where = {"transform": axis.get_xaxis_transform(), "rotation": 90, "ha": "right", "va": side}
            axis.text(place, height, name, fontsize=6, **where)
    axes[1].set(yscale="log", ylim=(3e-4, 10))
    axes[2].set(yscale="log", ylim=(3e-4, 100))
    axes[3].set_ylim(-0.1, 1.7)
    handles, labels = axes[0].get_legend_handles_labels()
    handles += axes[0].plot([], [], ":", color="black")
    figure.legend(handles, [*labels, r"$\lambda<0$: local minimum only"], loc="outside lower center", ncols=4)
    return figure


def finding(table):
    """Monotonicity, and where the knob's end lies."""
    convex = table[~table.local]
    steps = convex.sort_values(["tau", "knob"]).groupby("tau")
    rising, falling = steps.reward.diff().dropna(), steps.tau_weight.diff().dropna()
    last = table.groupby("tau").knob.max()
    return (
        f"from frozen to ideal E_q[r] rises in {(rising > 0).sum()} of {len(rising)} steps of b and λ falls in "
        f"{(falling < 0).sum()}; beyond τ log Z a principal-branch solution exists up to knob "
        + ", ".join(f"{knob:.2f} (τ = {tau:g})" for tau, knob in last.items())
        + "."
    )
