"""PMD-mean's χ² weight adapts to the success rate, and always equals KL(p‖q).

(a) τλ, the χ² coefficient in reward units (times two), against the success rate J of binary rewards; as τ → 0 it tends
to J(1 − J) (Statements 8, 9). (b) λ against KL(p‖q) for the same problems and for random graded ones, on the identity
line (Statement 4).
"""

import numpy as np
import pandas as pd

from pmdtheory import divergences, plotting, pmd_mean_update

FULL = {"taus": (0.01, 0.03, 0.1, 0.3, 1.0), "points": 99, "graded": 60}
FAST = {"taus": (0.01, 0.1, 1.0), "points": 99, "graded": 12}
KEYS = ["problem", "tau", "index"]


def compute(taus, points, graded):
    """One row per binary problem (τ, J) and per random graded problem."""
    success = np.arange(1, points + 1) / (points + 1)
    policy, reward = np.stack([1 - success, success], axis=-1), np.array([0.0, 1.0])
    rows = [_rows("binary", tau, policy, np.broadcast_to(reward, policy.shape)) for tau in taus]
    for tau in taus:
        draws = [np.random.default_rng([2026, i]) for i in range(graded)]
        policies = np.stack([rng.dirichlet(np.full(20, 0.3)) for rng in draws])
        rows.append(_rows("graded", tau, policies, np.stack([rng.random(20) for rng in draws])))
    return pd.concat(rows, ignore_index=True)


def _rows(problem, tau, policy, reward):
    update = pmd_mean_update(policy, reward, tau)
    columns = {
        "problem": problem,
        "tau": tau,
        "index": np.arange(len(policy)),
        "mean_reward": update.baseline,
        "chi2_weight": update.chi2_weight,
        "reverse_kl": divergences.movement(policy, update.log_ratio).reverse_kl,
        "bound": np.sqrt((policy * (reward - update.baseline[:, None]) ** 2).sum(axis=-1)) / tau / 2,
    }
    return pd.DataFrame(columns)


def plot(table):
    """Adaptive weight and its limit; the identity λ = KL(p‖q)."""
    figure, (left, right) = plotting.panels(1, 2, height=2.8)
    taus = sorted(table.tau.unique())
    for tau, colour in zip(taus, plotting.tints(plotting.VERMILION, len(taus))):
        binary = table[(table.problem == "binary") & (table.tau == tau)]
        graded = table[(table.problem == "graded") & (table.tau == tau)]
        left.plot(binary.mean_reward, tau * binary.chi2_weight, color=colour, label=rf"$\tau={tau:g}$")
        right.loglog(binary.chi2_weight, binary.reverse_kl, ".", markersize=2, color=colour)
        right.loglog(graded.chi2_weight, graded.reverse_kl, **plotting.CHECK | {"color": colour})
    J = np.linspace(0, 1, 201)
    left.plot(J, J * (1 - J), **plotting.BOUND | {"color": "black"}, label=r"$J(1-J)$, the limit")
    left.set(xlabel="success rate $J$", ylabel=r"weight $\tau\lambda$", ylim=(0, 0.37))
    left.set_title(r"the weight over the success rate")
    right.set_title(r"$\lambda=\mathrm{KL}(p\,\|\,q)$ on every problem")
    left.legend(ncols=2, loc="upper center", columnspacing=1.0)
    ends = [table.chi2_weight.min(), table.chi2_weight.max()]
    right.plot(ends, ends, **plotting.BOUND | {"color": "black"}, label="equal")
    right.set(xlabel=r"$\lambda$, as solved", ylabel=r"$\mathrm{KL}(p\,\|\,q)$")
    right.plot([], [], ".", color=plotting.VERMILION, label="binary rewards")
    right.plot([], [], **plotting.CHECK | {"color": plotting.VERMILION}, label="graded rewards, 20 actions")
    right.legend(loc="upper left")
    return figure


def finding(table):
    """Distance to the limit and to the identity."""
    binary = table[table.problem == "binary"]
    coldest = binary[binary.tau == binary.tau.min()]
    limit = coldest.mean_reward * (1 - coldest.mean_reward)
    gap = (coldest.tau * coldest.chi2_weight - limit).abs().max()
    identity = (table.chi2_weight / table.reverse_kl - 1).abs().max()
    return (
        f"λ equals KL(p‖q) within {max(identity, 1e-12):.0e} relative on all {len(table)} problems. "
        f"τλ is within {gap:.3f} of J(1 − J) at τ = {binary.tau.min():g}."
    )
