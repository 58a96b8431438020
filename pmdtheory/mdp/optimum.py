"""The optimal policy of an MDP, certified.

Policy iteration, where modified policy iteration (Puterman and Shin 1978) finds the policies to be valued exactly:
greedy steps, each followed by sweeps with its policy, so that few systems are solved. A state whose actions are all
equal so far, because news of a reward has not reached it, takes all of them alike: then news travels a step with every
sweep, where an arbitrary action would not let it through.

A state changes its action only for one that is better by more than rounding, so that equally good actions do not
alternate.
"""

from typing import Any

import numpy as np
from scipy import sparse

from .evaluation import Evaluation, advantage_rounding, evaluate
from .model import MDP

__all__ = ["certified", "optimal"]

TOLERANCE = 1e-6
_GREEDY_STEPS, _PATIENCE, _SWEEPS, _MOST_SWEEPS = 2000, 20, 20, 320
_CLOSE, _BETTER, _FEW = 1e-6, 1e-13, 1e-3


def optimal(mdp: MDP, tolerance: float | None = None, solver: str | None = None) -> Evaluation:
    """Find an optimal policy by policy iteration, and certify it.

    Should rounding lead back to an earlier policy, the best certified one is returned.

    Parameters
    ----------
    mdp : MDP
    tolerance : float, optional
        Largest certificate to accept, units of value; 1e-6 of the largest value by default.
    solver : {"direct", "iterative"}, optional
        As in `evaluate`.

    Returns
    -------
    Evaluation
        Of a deterministic policy that is optimal to within its `certificate`.

    Raises
    ------
    ValueError
        If rounding leaves a larger certificate than `tolerance`; the message gives the one reached. With the default
        this takes γ above 1 − 1e-7, and states that do not lead to one another. As `evaluate` besides.

    Examples
    --------
    >>> from pmdtheory.mdp import MDP
    >>> two = MDP(P=[[[1, 0], [0, 1]], [[0, 1], [0, 1]]], R=[[1, 0], [0, 0]], gamma=0.5)
    >>> best = optimal(two)
    >>> best.V, bool(best.certificate < 1e-13)
    (array([2., 0.]), True)
    """
    every, best, seen = np.arange(mdp.states), None, set()
    choice = _settled(mdp, mdp.R.argmax(axis=1), np.zeros(mdp.states))
    while (policy := hash(choice.tobytes())) not in seen:
        seen.add(policy)
        current = evaluate(mdp, np.eye(mdp.actions)[choice], solver)
        if best is None or current.certificate <= best.certificate:
            best = current
        greedy = current.A.argmax(axis=1)
        better = current.A[every, greedy] > current.A[every, choice] + 2 * current.rounding
        choice = np.where(better, greedy, choice)
        if better.any() and hash((settled := _settled(mdp, choice, current.V)).tobytes()) not in seen:
            choice = settled
    return certified(mdp, best, tolerance)


def certified(mdp: MDP, evaluation: Any, tolerance: float | None) -> Any:
    """Return `evaluation`, of one policy, if its certificate is at most `tolerance` (or its default)."""
    if tolerance is None:
        tolerance = TOLERANCE * max(np.abs(evaluation.V).max(), np.abs(mdp.R).max())
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be nonnegative, got {tolerance}.")
    if not evaluation.certificate <= tolerance:
        raise ValueError(
            f"tolerance must be at least {evaluation.certificate:.2g}, the gap that rounding leaves at gamma = "
            f"{mdp.gamma!r} where values reach {np.abs(evaluation.V).max():.2g}, got {tolerance:.2g}: accept that, or "
            "choose a smaller gamma."
        )
    return evaluation


def _settled(mdp, choice, V):
    """Action of each state that is greedy for values near the optimal ones, found without solving a system.

    Actions are changed for better ones also where values are far below the largest, so that no state keeps an arbitrary
    one and holds up the news; where gains have been below rounding for some steps, that is given up. It ends when no
    action changes, no news spreads and the last step moved all values alike, within 1e-6. Once few actions change, ever
    more sweeps are made with the policy.
    """
    every, live, sweeps, undecided, idle = np.arange(mdp.states), ~mdp.terminal, _SWEEPS, None, 0
    policy = _policies(mdp)
    for _ in range(_GREEDY_STEPS):
        Q = mdp.backup(V)
        greedy, top, least = Q.argmax(axis=1), Q.max(axis=1), Q.min(axis=1)
        gain, size = top - Q[every, choice], np.maximum(np.abs(top), np.abs(least))
        rounding = 2 * advantage_rounding(mdp, np.abs(V).max(), size.max())
        changes = gain > np.minimum(_BETTER * size, rounding)
        choice = np.where(changes, greedy, choice)
        before, undecided = undecided, live & (top == least)
        spreads = before is None or np.count_nonzero(before) > np.count_nonzero(undecided)
        idle = 0 if spreads or gain.max() > rounding else idle + 1
        moving = np.count_nonzero(changes) if idle <= _PATIENCE else 0
        if not spreads and not moving and _span((Q[every, choice] - V)[live]) <= _CLOSE * size.max():
            break
        sweeps = _SWEEPS if spreads or moving > _FEW * mdp.states else min(2 * sweeps, _MOST_SWEEPS)
        moves, reward = policy(choice, undecided)
        for _ in range(sweeps):
            V = reward + moves @ V
    return choice


def _span(values):
    return values.max(initial=-np.inf) - values.min(initial=np.inf)


def _policies(mdp):
    """(choice, undecided) → γP and R under a policy: of each state its choice, of the undecided all actions alike."""
    every, alike = np.arange(mdp.states), mdp.induced(mdp.uniform_policy())
    rows = sparse.vstack([mdp.rows, alike], format="csr") if mdp.is_sparse else mdp.rows

    def policy(choice, undecided):
        reward = np.where(undecided, mdp.R.mean(axis=1), mdp.R[every, choice])
        row = every * mdp.actions + choice
        if mdp.is_sparse:
            return mdp.gamma * rows[np.where(undecided, mdp.R.size + every, row)], reward
        moves = rows[row]
        moves[undecided] = alike[undecided]
        return mdp.gamma * moves, reward

    return policy
