"""Where a loss is averaged decides: a cap on its weights slides from PMD-mean to the KL update.

Binary rewards, one step at three temperatures from a low and a high success rate J, with importance weights min(ρ, c)
(Statement 19). Shown are the failures after the step against the cap c: with c below every ratio the loss is averaged
over the anchor and leads to PMD-mean's policy; with c above every ratio it is averaged over the policy itself and leads
to the KL update. Nothing else differs.
"""

import numpy as np
import pandas as pd

from pmdtheory import kl_update, plotting, pmd_mean_update
from pmdtheory.family import MEMBERS

from . import marks

FULL = {"successes": (0.05, 0.6), "taus": (0.1, 0.2, 0.5), "caps": 61, "largest": 1000.0}
FAST = FULL
KEYS = ["success", "tau", "index"]
REWARD = np.array([0.0, 1.0])


def compute(successes, taus, caps, largest):
    """One row per success rate, temperature and cap."""
    rows, cap = [], np.geomspace(1e-2, largest, caps)
    for J in successes:
        p = np.array([1 - J, J])
        for tau in taus:
            law = MEMBERS["truncated-importance"].law(np.broadcast_to(p, (caps, 2)), REWARD, tau, cap=cap)
            ends = {"mean": pmd_mean_update(p, REWARD, tau), "kl": kl_update(p, REWARD, tau)}
            columns = {"success": J, "tau": tau, "index": np.arange(caps), "cap": cap, "after": law.policy[:, 1]}
            columns |= {f"failure_{name}": end.policy[0] for name, end in ends.items()}
            rows.append(pd.DataFrame(columns | {"failure": law.policy[:, 0]}))
    return pd.concat(rows, ignore_index=True)


def plot(table):
    """A panel per success rate: failures left against the cap."""
    figure, axes = plotting.panels(1, table.success.nunique(), height=2.8)
    taus = sorted(table.tau.unique())
    colours = plotting.tints(marks.LAWS["truncated-importance"]["color"], len(taus))
    for axis, (J, part) in zip(np.ravel(axes), table.groupby("success")):
        for tau, colour in zip(taus, colours):
            curve = part[part.tau == tau]
            axis.loglog(curve.cap, curve.failure, color=colour, label=rf"capped weights, $\tau={tau:g}$")
            for name, (_, role) in marks.UPDATES.items():
                axis.axhline(curve[f"failure_{name}"].iloc[0], **role | {"linestyle": ":", "linewidth": 1.0})
        axis.set(xlabel="cap $c$ of the weights", title=f"success rate {J:g} before the step")
    np.ravel(axes)[0].set_ylabel("failures after the step")
    handles = np.ravel(axes)[0].get_legend_handles_labels()[0]
    for name, role in marks.UPDATES.values():
        handles.append(plotting.line(label=name, **role | {"linestyle": ":", "linewidth": 1.0}))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def finding(table):
    """The cap at which the log-odds are halfway, for the lowest success rate and temperature."""
    part = table[(table.success == table.success.min()) & (table.tau == table.tau.min())]
    odds = np.log1p(-part.failure) - np.log(part.failure)
    low, high = (np.log1p(-part[name].iloc[0]) - np.log(part[name].iloc[0]) for name in ("failure_mean", "failure_kl"))
    half = np.exp(np.interp((low + high) / 2, odds, np.log(part.cap)))
    gaps = [abs(odds.iloc[0] - low), abs(odds.iloc[-1] - high)]
    return (
        f"At J = {part.success.iloc[0]:g} and τ = {part.tau.iloc[0]:g} the log-odds of success after a step go from "
        f"{low:.2f} (PMD-mean) to {high:.2f} (KL), halfway at c = {half:.2g}. At the ends of the curve they are "
        f"within {max(max(gaps), 1e-12):.0e} of the two laws."
    )
