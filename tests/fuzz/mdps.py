"""MDPs with γ up to 1 − 1e-10: values and certificates against rational arithmetic, improvement, and bad arrays.

Random transitions, chains, gridworlds with terminal states and walls, and several classes that do not lead to one
another; rewards of any scale, with ties. What cannot be meant gets a ValueError and nothing else.
"""

from fractions import Fraction

import numpy as np

from pmdtheory import kl_update, pmd_mean_update
from pmdtheory.mdp import MDP, chain, evaluate, garnet, gridworld, iterate, occupancy, optimal
from tests.mdps import dense, exact_certificate, exact_values, random_policy


def check(rng):
    kind = rng.choice(["exact", "improvement", "bad input"], p=[0.4, 0.4, 0.2])
    {"exact": _exact, "improvement": _improvement, "bad input": _bad_input}[kind](rng)


def _mdp(rng, most=7):
    gamma = float(1 - 10 ** -rng.uniform(0, rng.choice([2, 7, 10])))
    kind = rng.choice(["garnet", "chain", "gridworld", "rooms", "episodic"])
    S, A = int(rng.integers(1, most)), int(rng.integers(1, 4))
    sparse = bool(rng.random() < 0.3)
    if kind == "chain":
        mdp = chain(max(2, S), slip=rng.choice([0.0, 0.3, 1e-9]), gamma=gamma)
    elif kind == "gridworld":
        mdp = gridworld(2, int(rng.integers(1, 4)), slip=rng.choice([0.0, 0.3]), gamma=gamma, sparse=sparse)
    else:
        mdp = garnet(S, A, int(rng.integers(1, S + 1)), rng, gamma)
    P, R = dense(mdp).copy(), mdp.R
    if kind == "rooms":
        room = rng.integers(0, 2, S)
        P = np.where(room[:, None, None] == room, P, 0.0) + 1e-3 * np.eye(S)[:, None]
    if kind == "episodic":
        end = rng.integers(S)
        P[end], R = np.eye(S)[end], np.where(np.arange(S)[:, None] == end, 0.0, R)
    if rng.random() < 0.3:
        R = np.where(mdp.terminal[:, None] | (kind == "episodic"), R, np.round(2 * R))
    R = R * float(10 ** rng.choice([0.0, rng.uniform(-6, 6)]))
    return MDP(P / P.sum(axis=-1, keepdims=True), R, gamma)


def _described(mdp):
    return f"P={dense(mdp).tolist()}, R={mdp.R.tolist()}, gamma={mdp.gamma!r}"


def _exact(rng):
    mdp = _mdp(rng)
    problem = _described(mdp)
    best = optimal(mdp, tolerance=np.inf)
    for result in (best, evaluate(mdp, np.eye(mdp.actions)[rng.integers(mdp.actions, size=mdp.states)])):
        V = exact_values(mdp, result.policy.argmax(axis=1))
        off = max(abs(Fraction(float(v)) - w) for v, w in zip(result.V, V))
        assert off <= result.error, ("error", float(off), float(result.error), problem)
        gap = exact_certificate(mdp, V)
        below = max(Fraction(float(v)) - w for v, w in zip(best.V, V))  # V* is at least this
        assert below - Fraction(float(best.error)) <= result.certificate, ("gap", float(below), problem)
        assert result is not best or gap <= 2 * result.certificate, ("optimum", float(gap), problem)
    largest = max(np.abs(best.V).max(), np.abs(mdp.R).max())
    allowed = 64 * (mdp.states + 8) * np.finfo(float).eps / (1 - mdp.gamma)
    assert best.certificate <= allowed * largest, ("certificate", float(best.certificate), problem)


def _improvement(rng):
    mdp = _mdp(rng, most=20)
    policy = random_policy(rng, mdp)
    tau = float(max(np.ptp(mdp.R), 1e-3) * 10 ** rng.uniform(-3, 3))
    problem = f"{_described(mdp)}, policy={policy.tolist()}, tau={tau!r}"
    best = optimal(mdp, tolerance=np.inf)
    for update in (kl_update, pmd_mean_update):
        run = iterate(mdp, policy, update, tau, 3, keep=["V", "policy"])
        for before, after in zip(run.kept["policy"], run.kept["policy"][1:]):
            old, new = evaluate(mdp, before), evaluate(mdp, after)
            # Q itself is rounded, and what the step gets wrong by that is multiplied like an error of Q.
            rounding = 4 * (np.finfo(float).eps * np.abs(old.Q).max() + old.rounding) / (1 - mdp.gamma)
            lost = (old.V - new.V).max()
            assert lost <= old.error + new.error + rounding, (update.__name__, lost, old.error, new.error, problem)
        gap, certificate = (best.V - run.kept["V"]).max(axis=1), run.table.certificate
        errors = best.error + [evaluate(mdp, p).error for p in run.kept["policy"]]
        assert np.all(gap <= certificate + errors), (update.__name__, gap.tolist(), certificate.tolist(), problem)
    law = occupancy(mdp, policy)
    moves = np.einsum("xa,xay->xy", policy, dense(mdp))
    flow = (1 - mdp.gamma) * mdp.rho + mdp.gamma * law @ moves
    off = abs(law.sum() - 1)
    assert law.min() >= 0 and np.abs(law - flow).max() <= 1e-13, (law.tolist(), problem)
    assert off <= 1e-13 + 64 * np.finfo(float).eps / (1 - mdp.gamma), (off, law.tolist(), problem)


def _bad_input(rng):
    """One entry of one argument is spoilt: a ValueError that names the argument, or the entry was harmless."""
    mdp = _mdp(rng)
    arguments = {"P": dense(mdp).copy(), "R": mdp.R.copy(), "gamma": mdp.gamma, "rho": mdp.rho.copy()}
    name = ["P", "R", "gamma", "rho", "policy"][rng.integers(5)]
    bad = [np.nan, np.inf, -np.inf, -1.0, 2.0, 1e308, -1e-300, 1e300][rng.integers(8)]
    policy = random_policy(rng, mdp)
    if name == "gamma":
        arguments[name] = bad
    else:
        array = policy if name == "policy" else arguments[name]
        if rng.random() < 0.3:
            array = array[..., :-1] if rng.random() < 0.5 else array[None]
        elif array.size:
            array[tuple(rng.integers(n) for n in array.shape)] = bad
        if name == "policy":
            policy = array
        else:
            arguments[name] = array
    problem = f"{name} with {bad}: {arguments}, policy={policy.tolist()}"
    try:
        spoilt = MDP(**arguments)
        result = evaluate(spoilt, policy)
        best = optimal(spoilt, tolerance=np.inf)
        run = iterate(spoilt, policy if policy.ndim == 2 else None, steps=2)
    except ValueError as error:
        assert "\n" not in str(error), (error, problem)
    else:
        assert np.isfinite(result.V).all() and np.isfinite(best.V).all(), problem
        assert np.isfinite(run.table.value).all(), problem
