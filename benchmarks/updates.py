"""Seconds of the updates, against a softmax of the same array and against what a user would write or call instead.

`scipy.special.softmax` of the rewards is the floor: no update can read its input and write a policy for less. The
updates run compiled where Numba is installed, and by NumPy; one thread either way.
"""

import os
from functools import partial
from unittest.mock import patch

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax, wrightomega

from pmdtheory import baseline_update, convex, kl_update, mixed_update, pmd_mean_update, updates

from .rows import repeated, row, show, taking_turns

SHAPES = ((1, 1_000_000), (1000, 1000), (100_000, 10))
GROWTH = [(1, 10**k) for k in range(1, 7)] + [(10**k, 10) for k in range(1, 6)]
TEMPERATURES = (1.0, 1 / 30)
SOFTMAX, COMPILED, NUMPY = "softmax", "compiled", "NumPy"
PER_CONTEXT = "PMD-mean, per context"


def problem(contexts, actions, seed=0):
    """Dirichlet policies and normal rewards."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(actions), contexts), rng.normal(size=(contexts, actions))


def calls(policy, reward, tau):
    """Every update of the table, as functions of nothing."""
    binary, below = (reward > 0).astype(float), (policy * reward).sum(axis=-1) - tau
    return {
        "KL update": lambda: kl_update(policy, reward, tau),
        "PMD-mean": lambda: pmd_mean_update(policy, reward, tau),
        "PMD-mean, binary rewards": lambda: pmd_mean_update(policy, binary, tau),
        "baseline below the mean": lambda: baseline_update(policy, reward, tau, below),
        "mixed, kappa 0.3": lambda: mixed_update(policy, reward, tau, 0.3),
    }


def by(path, function):
    """The function on one path, whatever is installed."""
    if path == COMPILED:
        return function

    def run():
        with patch.object(updates, "_compiled", lambda: None):
            function()

    return run


def paths():
    """What there is to run."""
    return [COMPILED, NUMPY] if updates._compiled() is not None else [NUMPY]


def over_softmax(shapes=SHAPES, temperatures=TEMPERATURES, only=None, rounds=5):
    """Rows for each update, path, shape and temperature, with the ratio to the floor."""
    rows = []
    for (contexts, actions), tau in [(shape, tau) for shape in shapes for tau in temperatures]:
        policy, reward = problem(contexts, actions)
        floor, repeats = reward / tau, max(1, 2000 // reward.size)
        for what, update in calls(policy, reward, tau).items():
            if only not in (None, what):
                continue
            there = [*(by(path, update) for path in paths()), lambda floor=floor: softmax(floor, axis=-1)]
            timed = [lambda f=f, n=repeats: [f() for _ in range(n)] for f in there]
            seconds, ratio = taking_turns(timed, rounds)
            size = f"{contexts:,} × {actions:,}, tau {tau:.3g}"
            rows += [
                row(what, size, path, s / repeats, ratio=r, peer=SOFTMAX)
                for path, s, r in zip((*paths(), SOFTMAX), seconds, ratio)
            ]
    return rows


def by_brentq(policy, reward, tau):
    """PMD-mean of one context as one would write it with SciPy: λ by `brentq`, s by the Wright omega function."""
    target = (reward - policy @ reward) / tau
    if not target.any():
        return policy

    def surplus(log_weight):
        return policy @ wrightomega(log_weight + target).real - np.exp(log_weight)

    log_weight = brentq(surplus, np.log(1e-12), np.log(target.max()), xtol=1e-14)
    return policy * wrightomega(log_weight + target).real * np.exp(-log_weight)


PEERS = {
    "CVXPY, one batched problem": lambda policy, reward, tau: convex.regression(policy, reward, tau).policy,
    "CVXPY, a problem per context": lambda policy, reward, tau: np.stack(
        [convex.regression(p, r, tau).policy for p, r in zip(policy[:5], reward[:5])]
    ),
    "SciPy, brentq and wrightomega": lambda policy, reward, tau: np.stack(
        [by_brentq(p, r, tau) for p, r in zip(policy, reward)]
    ),
}
"""What a user would take instead, for all contexts or the first."""


def over_solvers(contexts=100, actions=10, tau=0.1, rounds=3, peers=PEERS):
    """Seconds per context of PMD-mean, against CVXPY's one batched problem, and CVXPY and SciPy context by context."""
    policy, reward = problem(contexts, actions)
    found = pmd_mean_update(policy, reward, tau).policy
    what, size = PER_CONTEXT, f"{contexts:,} × {actions:,}, tau {tau:.3g}"
    rows = []
    for name, peer in peers.items():
        answer = peer(policy, reward, tau)
        off = np.abs(answer - found[: len(answer)]).sum(axis=-1).max()
        ours = [by(path, lambda: pmd_mean_update(policy, reward, tau)) for path in paths()]
        calls, timed = zip(*map(repeated, (*ours, partial(peer, policy, reward, tau))))
        seconds, _ = taking_turns(timed, rounds)
        seconds = seconds / calls / [*[contexts] * len(paths()), len(answer)]
        rows += [row(what, size, path, s, ratio=s / seconds[-1], peer=name) for path, s in zip(paths(), seconds)]
        rows.append(row(what, size, f"{name}, {off:.0e} away in L1", seconds[-1]))
    return rows


def growth_of_solvers(shapes=GROWTH, tau=TEMPERATURES[1], longest=2.0):
    """The same for ever more actions, and contexts; no more of a peer that takes `longest` seconds, or gives up."""
    rows = []
    for axis in (0, 1):
        growing = [shape for shape in shapes if shape[axis] == (1, 10)[axis]]
        for name, peer in PEERS.items():
            for contexts, actions in growing:
                try:
                    rows += over_solvers(contexts, actions, tau, 1, {name: peer})
                except RuntimeError:  # CVXPY's solver gives up
                    break
                if rows[-1]["seconds"] * contexts > longest:
                    break
    return rows


def one_call(actions=10, rounds=7):
    """Seconds of one call on a handful of actions, checks included."""
    policy, reward = problem(1, actions)
    timed = [by(path, lambda: [pmd_mean_update(policy[0], reward[0], 0.1) for _ in range(100)]) for path in paths()]
    seconds, ratio = taking_turns(timed, rounds)
    return [row("PMD-mean, one call", f"{actions} actions", path, s / 100, ratio=r, peer=NUMPY)
            for path, s, r in zip(paths(), seconds, ratio)]  # fmt: skip


def rows():
    """All of them."""
    growth = over_softmax(GROWTH, TEMPERATURES[1:], only="PMD-mean")
    return [*over_softmax(), *growth, *over_solvers(), *growth_of_solvers(), *one_call()]


def main():
    """Print the rows."""
    print(f"{os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    show(rows())


if __name__ == "__main__":
    main()
