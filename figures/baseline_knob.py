"""One knob, the baseline, leads from a frozen policy over PMD-mean to the KL update.

Ten graded rewards. The baseline b runs along (b − E_p[r])/(τ log Z − E_p[r]): −∞ is frozen, 0 is PMD-mean, 1 the KL
update (Statements 10, 11). In the shaded part beyond, λ < 0 and the drawn stationary point is only a local minimum; it
ends at b_max. The table has χ²(q‖p) too.
"""

import numpy as np
import pandas as pd

from pmdtheory import baseline_update, divergences, kl_update, largest_baseline, plotting

from . import marks

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
    """Expected reward, KL and λ over the knob."""
    figure, axes = plotting.panels(1, 3, height=2.6)
    taus = sorted(table.tau.unique())
    quantities = {
        "reward": ("the reward rises", "expected reward $E_q[r]$"),
        "kl": ("the policy moves further", r"$\mathrm{KL}(q\,\|\,p)$"),
        "tau_weight": (r"the $\chi^2$ weight falls to 0", r"weight $\tau\lambda$"),
    }
    for axis, (column, (title, label)) in zip(axes, quantities.items()):
        for tau, colour in zip(taus, plotting.shades(len(taus))):
            curve = table[table.tau == tau]
            below, above = curve[curve.knob <= 1 + 1e-9], curve[curve.knob >= 1 - 1e-9]
            axis.plot(below.knob, below[column], color=colour, label=rf"$\tau={tau:g}$")
            axis.plot(above.knob, above[column], color=colour, linestyle=":")
        axis.axvspan(1, 1.6, color="#EEEEEE", zorder=0)
        for place, (_, role) in zip((0, 1), marks.UPDATES.values()):
            axis.axvline(place, **role | {"linewidth": 0.9}, zorder=1)
        axis.set(xlim=(-1.8, 1.6), xlabel="baseline", ylabel=label, title=title)
        axis.set_xticks([-1.2, 0, 1], ["to frozen\n(lower)", "PMD-\nmean", "KL\nupdate"])
    axes[1].set(yscale="log", ylim=(1e-2, 10))
    axes[2].set_ylim(-0.06, 0.95)
    handles, _ = axes[0].get_legend_handles_labels()
    handles.append(plotting.line(color="black", linestyle=":", label=r"$\lambda<0$: a local minimum only"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def finding(table):
    """Monotonicity, and where the knob's end lies."""
    convex = table[~table.local]
    steps = convex.sort_values(["tau", "knob"]).groupby("tau")
    rising, falling = steps.reward.diff().dropna(), steps.tau_weight.diff().dropna()
    last = table.groupby("tau").knob.max()
    return (
        f"from frozen to ideal E_q[r] rises in {(rising > 0).sum()} of {len(rising)} steps of b and λ falls in "
        f"{(falling < 0).sum()}. Beyond τ log Z a principal-branch solution exists up to knob "
        + ", ".join(f"{knob:.2f} (τ = {tau:g})" for tau, knob in last.items())
        + "."
    )
