"""Policy mirror descent on estimated Q: how far from the optimum it stops, and what the step size does to that.

24 Garnets (10 states, 3 actions, 3 successors, γ = 0.9), the largest value gap over the states, exactly measured: mean
and 95% interval over the Garnets. Panels a to d have constant τ = 0.03. The adversary moves every Q(x, a) by ε against
the advantage, noise is Gaussian and fresh in each iteration, the generative model gives n next states of every state
and action, and rollouts are n returns over 44 steps from each. Below is the floor (mean gap over iterations 33 to 64)
against the largest error ε = ‖Q̂ − Q‖∞ met: with constant τ in e, with growing step sizes (B1) in f. Dotted is
2ε/(1 − γ)², what B3 allows the KL update with those steps; grey is 2ε/(1 − γ), what one PMD-mean step may lose
(Statement 15).
"""

import numpy as np
import pandas as pd
from scipy.stats import t as student

from pmdtheory import kl_update, plotting, pmd_mean_update
from pmdtheory.mdp import MDP, garnet, inexact, iterate, optimal

FULL = {"oracles": ("adversarial", "noise", "generative", "rollouts"), "updates": ("kl", "mean")}
FAST = {"oracles": ("adversarial", "noise"), "updates": ("kl", "mean")}
KEYS = ["oracle", "level", "steps", "update", "iteration"]

GARNETS, STATES, GAMMA, HORIZON, LAST = 24, 10, 0.9, 44, 64
RECORDED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, LAST])
UPDATES = {"kl": kl_update, "mean": pmd_mean_update}
TAUS = {"constant": 0.03, "adaptive": 1.0}
ORACLES = {
    "adversarial": (inexact.adversarial, (0.01, 0.05, 0.2)),
    "noise": (inexact.noise, (0.01, 0.1, 1.0)),
    "generative": (inexact.generative, (256, 32, 4)),
    "rollouts": (lambda n: inexact.rollouts(n, HORIZON), (64, 8, 1)),
}


def side_by_side():
    """All Garnets as one MDP of disconnected parts, so that every iteration is one batch."""
    parts = [garnet(STATES, 3, 3, np.random.default_rng([2026, i]), GAMMA) for i in range(GARNETS)]
    P = np.zeros((GARNETS, STATES, 3, GARNETS, STATES))
    for i, part in enumerate(parts):
        P[i, :, :, i] = part.P
    S = GARNETS * STATES
    return MDP(P.reshape(S, 3, S), np.concatenate([part.R for part in parts]), GAMMA)


def compute(oracles, updates):
    """One row per oracle, level, step-size rule, update and recorded iteration: means over the Garnets."""
    mdp = side_by_side()
    best = optimal(mdp).V
    rows = []
    for oracle in oracles:
        make, levels = ORACLES[oracle]
        for level in levels:
            for steps, tau in TAUS.items():
                for update in updates:
                    gaps, error = _run(mdp, best, make(level), UPDATES[update], steps, tau)
                    keys = {"oracle": oracle, "level": level, "steps": steps, "update": update}
                    rows.append(pd.DataFrame(keys | {"iteration": RECORDED, "seeds": GARNETS} | _mean(gaps, error)))
    return pd.concat(rows, ignore_index=True)


def _run(mdp, best, oracle, update, steps, tau):
    """Gap after each iteration and error in each, shapes (LAST + 1, GARNETS) and (LAST, GARNETS)."""
    errors = []

    def recorded(mdp, truth, rng):
        estimate = oracle(mdp, truth, rng)
        errors.append(_largest(np.abs(estimate - truth.Q).max(axis=1)))
        return estimate

    run = iterate(mdp, update=update, tau=tau, steps=LAST, step_sizes=steps, evaluation=recorded, seed=2026, keep=("V",))
    return _largest(best - run.kept["V"]), np.array(errors)


def _largest(values):
    """Largest over the states of each Garnet."""
    return values.reshape(*values.shape[:-1], GARNETS, STATES).max(axis=-1)


def _mean(gaps, error):
    floor = gaps[LAST // 2 + 1 :].mean(axis=0)
    half = student.ppf(0.975, GARNETS - 1) / np.sqrt(GARNETS)
    return {
        "gap": gaps[RECORDED].mean(axis=1),
        "gap_half_width": half * gaps[RECORDED].std(axis=1, ddof=1),
        "floor": floor.mean(),
        "floor_half_width": half * floor.std(ddof=1),
        "error": error.max(axis=0).mean(),
        "floor_over_bound": (floor / (2 * error.max(axis=0) / (1 - GAMMA) ** 2)).max(),
    }
