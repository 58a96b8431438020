"""How far an error in one reward moves the policy, by what the loss optimises.

The two policies of *family* over 41 rewards, one step at several τ. The reward of one action is too large by δ = 0.3,
each action in turn, and the update is made again: the change is the L1 distance of the two policies. (a, b) The largest
change over the actions, on a hard and an easy prompt. (c) The mean change on the hard prompt when the action with the
error is drawn from the policy itself. All laws at the same τ; the KL update multiplies the action by e^{δ/τ}, whatever
its probability.
"""

import numpy as np
import pandas as pd

from pmdtheory import plotting
from pmdtheory.family import MEMBERS

from . import marks
from .family import tilted

FULL = {"means": (0.21, 0.79), "taus": (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0), "error": 0.3, "actions": 41}
FAST = FULL
KEYS = ["prompt", "law", "tau"]
LAWS = {
    "on-policy": {},
    "pmd-mean": {},
    "two-temperatures": {"ratio": 3.0},
    "truncated-importance": {"cap": 1.5},
    "fixed-chi2": {"chi2_coef": 0.3},
    "standardised": {},
    "quantile": {},
    "cfpo": {"epsilon": 0.3},
}


def compute(means, taus, error, actions):
    """One row per prompt, law and temperature."""
    reward, rows = np.linspace(0, 1, actions), []
    wrong = reward + error * np.eye(actions)
    for mean in means:
        p = tilted(reward, mean)
        for name, options in LAWS.items():
            for tau in taus:
                given = {key: value for key, value in options.items() if key != "ratio"}
                given |= {"baseline_tau": options["ratio"] * tau} if "ratio" in options else {}
                law = MEMBERS[name].law
                moved = law(np.broadcast_to(p, wrong.shape), wrong, tau, **given).policy
                change = np.abs(moved - law(p, reward, tau, **given).policy).sum(axis=-1)
                columns = {"prompt": mean, "law": name, "tau": tau, "largest": change.max(), "mean": p @ change}
                rows.append(columns | {"action": reward[change.argmax()]})
    return pd.DataFrame(rows)


def plot(table):
    """Largest change by prompt, and the mean change on the hard one."""
    figure, axes = plotting.panels(1, 3, height=2.8)
    prompts = sorted(table.prompt.unique())
    shown = [
        (prompts[0], "largest", "hard prompt, worst error"),
        (prompts[-1], "largest", "easy prompt, worst error"),
        (prompts[0], "mean", "hard prompt, mean error"),
    ]
    for axis, (prompt, column, title) in zip(axes, shown):
        part = table[table.prompt == prompt]
        for name in LAWS:
            curve = part[part.law == name].sort_values("tau")
            axis.loglog(curve.tau, curve[column], label=marks.name_of_law(name), **marks.LAWS[name])
        axis.set(xlabel=r"temperature $\tau$", title=title, ylim=(0.012, 2.4))
    axes[0].set_ylabel("change of the policy, L1")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def title(table):
    """Which law the worst error moves most at the smallest temperature, beside PMD-mean."""
    cold = table[table.tau == table.tau.min()].groupby("law").largest.max()
    worst = marks.name_of_law(cold.idxmax())
    ratio = f"{cold.max() / cold['pmd-mean']:.0f} times as far as PMD-mean at τ = {table.tau.min():g}"
    return f"One wrong reward moves the {worst} most: {ratio}"


def finding(table):
    """The largest change on the hard prompt at the smallest τ, least first."""
    hard = table[(table.prompt == table.prompt.min()) & (table.tau == table.tau.min())].set_index("law")
    least_first = hard.largest.sort_values()
    listed = ", ".join(f"{marks.name_of_law(name)} {value:.2f}" for name, value in least_first.items())
    pairs = table.pivot_table(index=["prompt", "tau"], columns="law", values=["largest", "mean"])
    fewer = {name: (pairs[name, "pmd-mean"] < pairs[name, "on-policy"]).sum() for name in ("largest", "mean")}
    return (
        f"PMD-mean moves less than the KL law in {fewer['largest']} of {len(pairs)} settings, with the error at an "
        f"action drawn from the policy in {fewer['mean']}. At mean reward {table.prompt.min():g} and τ = "
        f"{table.tau.min():g} the worst error moves it by {listed}."
    )
