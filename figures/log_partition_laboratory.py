"""Few rollouts tell the mean reward but not the log-partition, whose error has a far mode.

Binary rewards with success rate J, n rollouts (Statements 12, 13). The error of the regression target, (estimate −
population value)/τ, is exact: the number of successes is binomial, and every one of its values is enumerated. Unless
swept, J = 0.1, n = 16 and τ = 0.1. (a) Probability of each error. (b, c) Median and 5% to 95% quantiles. (d) The
log-partition's bias; crosses: leave-one-out; the mean has none. The table has the standard deviations too, and the
leave-one-out advantage that a lone success gets from the exact log-partition baseline and from the clamp (1e-8) of a
public implementation.
"""

import numpy as np
import pandas as pd
from scipy.stats import binom

from pmdtheory import baselines, kl_update, plotting

from .finite_sample_improvement import ESTIMATORS

FULL = {
    "rollouts": (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512),
    "successes": tuple(round(float(x), 12) for x in np.geomspace(0.005, 0.9, 40)),
    "taus": tuple(round(float(x), 12) for x in np.geomspace(0.01, 3, 40)),
    "cold": (0.03, 0.1, 0.3, 1.0),
}
FAST = {
    "rollouts": (2, 4, 16, 64, 256),
    "successes": FULL["successes"][::13],
    "taus": FULL["taus"][::13],
    "cold": (0.1, 1.0),
}
KEYS = ["sweep", "estimator", "rollouts", "success", "tau", "count"]

N, J, TAU = 16, 0.1, 0.1


def law(estimator, n, success, tau):
    """Exact law of the target error: number of successes that the estimator saw, probability, error."""
    others = n - estimator.startswith("loo_")
    count = np.arange(others + 1)
    # Rollout 0 fails; the baseline it is compared with saw `count` successes, under leave-one-out among the others.
    rewards = (np.arange(n) >= n - count[:, None]).astype(float)
    estimate = baselines.estimate(estimator, rewards, tau)[:, 0]
    population = kl_update([1 - success, success], [0.0, 1.0], tau).baseline if "partition" in estimator else success
    return count, binom.pmf(count, others, success), (estimate - population) / tau


def summary(estimator, n, success, tau):
    """Bias, standard deviation and quantiles of the target error."""
    _, probability, error = law(estimator, n, success, tau)
    bias = probability @ error
    cumulative = np.cumsum(probability)
    quantiles = {
        f"q{100 * level:02.0f}": error[min(np.searchsorted(cumulative, level), error.size - 1)]
        for level in (0.05, 0.5, 0.95)
    }
    return {"bias": bias, "sd": np.sqrt(probability @ (error - bias) ** 2), **quantiles}


def compute(rollouts, successes, taus, cold):
    """One row per estimator and setting of each sweep, per outcome of the law, and per τ of the clamp."""
    rows = []
    settings = [("rollouts", n, J, tau) for n in rollouts for tau in cold]
    settings += [("success", N, success, TAU) for success in successes] + [("tau", N, J, tau) for tau in taus]
    for name in ESTIMATORS:
        for sweep, n, success, tau in settings:
            key = {"sweep": sweep, "estimator": name, "rollouts": n, "success": success, "tau": tau}
            rows.append(key | summary(name, n, success, tau))
        key = {"sweep": "law", "estimator": name, "rollouts": N, "success": J, "tau": TAU}
        rows += [key | {"count": k, "probability": p, "error": e} for k, p, e in zip(*law(name, N, J, TAU))]
    lone = np.eye(1, N)[0]
    for tau in taus:
        key = {"sweep": "clamp", "estimator": "loo_log_partition", "rollouts": N, "tau": tau}
        exact, clamped = (1 - baselines.loo_log_partition(lone, tau, clamp=clamp)[0] for clamp in (None, 1e-8))
        rows.append(key | {"advantage": exact, "advantage_clamped": clamped})
    table = pd.DataFrame(rows)
    table["count"] = table["count"].astype("Int64")
    return table


def plot(table):
    """The law of the error; its quantiles over τ and J; the bias over n."""
    figure, axes = plotting.panels(2, 2, height=2.2)
    roles = {"log_partition": (plotting.KL, "log-partition"), "mean": (plotting.MEAN, "mean reward")}
    for name, (role, _) in roles.items():
        points = table[(table.sweep == "law") & (table.estimator == name) & (table.probability > 1e-4)]
        axes[0].vlines(points.error, 0, points.probability, color=role["color"], linestyle=role["linestyle"])
        axes[0].plot(points.error, points.probability, "o", markersize=3, color=role["color"])
    axes[0].annotate(
        "no success seen", (_far(table), 0.185), (6, 8), textcoords="offset points", fontsize=7.5,
        color=plotting.BLUE,
    )  # fmt: skip
    axes[0].set(xlabel="error of the target", ylabel="probability", xlim=(None, 3.4), ylim=(0, 0.4))
    axes[0].set_title(rf"the errors at $n={N}$, $\tau={TAU}$, $J={J}$")
    sweeps = ("tau", r"temperature $\tau$", "temperature"), ("success", "success rate $J$", "success rate")
    for axis, (sweep, label, title) in zip(axes[1:], sweeps):
        for name, (role, _) in roles.items():
            curve = table[(table.sweep == sweep) & (table.estimator == name)]
            axis.plot(curve[sweep], curve.q50, **role)
            axis.fill_between(curve[sweep], curve.q05, curve.q95, color=role["color"], alpha=0.2, lw=0)
        axis.set(xscale="log", xlabel=label, ylabel="error of the target", yscale="symlog", title=f"over the {title}")
    _bias(axes[3], table[table.sweep == "rollouts"])
    handles = [plotting.line(label=label, **role) for role, label in roles.values()]
    handles.append(plotting.plt.Rectangle((0, 0), 1, 1, color=plotting.GREY, alpha=0.3, label="5% to 95%"))
    handles.append(plotting.line(label="leave-one-out", color=plotting.BLUE, **plotting.CHECK | {"marker": "+"}))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _far(table):
    """The error of the log-partition where no success is seen."""
    law_ = table[(table.sweep == "law") & (table.estimator == "log_partition")]
    return law_.error.min()


def _bias(axis, table):
    taus = sorted(table.tau.unique())
    for tau, colour in zip(taus, plotting.tints(plotting.BLUE, len(taus))):
        for name, style in (
            ("log_partition", {"linestyle": "--", "label": rf"$\tau={tau:g}$"}),
            ("loo_log_partition", plotting.CHECK | {"marker": "+"}),
        ):
            curve = table[(table.estimator == name) & (table.tau == tau)]
            axis.loglog(curve.rollouts, -curve.bias, color=colour, **style)
    axis.legend(loc="lower left", ncols=2)
    axis.set(xlabel="rollouts $n$", ylabel="too low by, on average", ylim=(1e-5, 100), title="the log-partition's bias")


def finding(table):
    """Chance of the far mode, its distance, and what the clamp costs."""
    law_ = table[(table.sweep == "law") & (table.estimator == "log_partition")].set_index("count")
    mean = table[(table.sweep == "law") & (table.estimator == "mean")].set_index("count")
    clamp = table[table.sweep == "clamp"].iloc[0]
    return (
        f"at n = {N}, J = {J}, τ = {TAU} no success is seen with probability {law_.probability[0]:.2f}, and the "
        f"log-partition target is then off by {law_.error[0]:.1f}, the mean's by {mean.error[0]:.1f}. The clamp gives "
        f"a lone success advantage {clamp.advantage_clamped:.2f} instead of {clamp.advantage:.2f} at τ = {clamp.tau:g}."
    )
