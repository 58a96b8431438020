"""Each loss has a law of its own: what it makes of an action's probability, by its reward.

Two policies over the same 41 rewards in [0, 1], tilted exponentially to a low and to a high mean reward. Each curve is
log(q/p) under the law of a loss at the same τ (Statements 19–30): the KL law, which every loss with fresh rollouts or a
baseline that follows its residual shares; PMD-mean; two temperatures (β₁ = 3τ); weights truncated at 1.5; standardised
advantages; ranks; CFPO (ε = 0.3) and AsymRE (V = −0.1), which have no temperature; and Kimi K2.5's form where it has an
interior law. Curves end where a law empties actions.
"""

import numpy as np
import pandas as pd

from pmdtheory import kl_update, plotting
from pmdtheory.family import MEMBERS

from . import marks

FULL = {"means": (0.21, 0.79), "tau": 0.3, "actions": 41}
FAST = FULL
KEYS = ["prompt", "law", "index"]
OPTIONS = {
    "on-policy": {},
    "pmd-mean": {},
    "two-temperatures": {"baseline_tau": 0.9},
    "truncated-importance": {"cap": 1.5},
    "standardised": {},
    "quantile": {},
    "cfpo": {"epsilon": 0.3},
    "asymre": {"baseline": -0.1},
    "kimi-k2.5": {},
}


def compute(means, tau, actions):
    """One row per prompt, law and action; no rows where there is no interior law."""
    reward, rows = np.linspace(0, 1, actions), []
    for mean in means:
        policy = tilted(reward, mean)
        for name, options in OPTIONS.items():
            try:
                law = MEMBERS[name].law(policy, reward, tau, **options)
            except ValueError:
                continue
            s = np.where(np.isfinite(law.log_ratio), law.log_ratio, np.nan)
            columns = {"prompt": mean, "law": name, "index": np.arange(actions), "reward": reward, "policy": policy}
            rows.append(pd.DataFrame(columns | {"log_ratio": s, "after": law.policy @ reward}))
    return pd.concat(rows, ignore_index=True)


def tilted(reward, mean):
    """Uniform policy tilted exponentially until its mean reward is `mean`, by bisection."""
    low, high = -100.0, 100.0
    for _ in range(100):
        slope = (low + high) / 2
        policy = kl_update(np.full(len(reward), 1 / len(reward)), slope * reward, 1.0).policy
        low, high = (slope, high) if policy @ reward < mean else (low, slope)
    return policy


def plot(table):
    """A panel per prompt."""
    figure, axes = plotting.panels(1, table.prompt.nunique(), height=3.0)
    for axis, (prompt, part) in zip(np.ravel(axes), table.groupby("prompt")):
        kind = "hard" if prompt < 0.5 else "easy"
        for name in OPTIONS:
            curve = part[part.law == name]
            axis.plot(curve.reward, curve.log_ratio, label=marks.name_of_law(name), **marks.LAWS[name])
        axis.axhline(0, **plotting.BOUND, label="unchanged")
        axis.set(xlabel="reward", ylabel=r"log-ratio $\log(q/p)$", ylim=(-6, 3.2))
        axis.set_title(f"{kind} prompt: mean reward {prompt:g}")
    handles, labels = np.ravel(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


def finding(table):
    """Mean rewards after one step, most cautious first, on the hard prompt."""
    hard = table[table.prompt == table.prompt.min()]
    after = hard.groupby("law").after.first().sort_values()
    missing = [name for name in OPTIONS if name not in after.index]
    listed = ", ".join(f"{marks.name_of_law(name)} {value:.3f}" for name, value in after.items())
    none = f"; no interior law: {', '.join(missing)}" if missing else ""
    return f"From mean reward {hard.prompt.iloc[0]:g} one step leads to {listed}{none}."
