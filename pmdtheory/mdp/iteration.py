r"""Policy mirror descent on a whole MDP.

Iteration k evaluates π_k, and in every state x takes one step of the chosen update with reward Q(x, ·) and one τ_k,

.. math:: π_{k+1}(·|x) = \mathrm{update}\big(π_k(·|x),\, Q_k(x, ·),\, τ_k\big), \qquad Q_k = (T^*)^{h-1} \hat Q^{π_k},

with T*Q(x, a) = R(x, a) + γ E[max_{a'} Q(y, a')] for lookahead h > 1 and Q̂ what an oracle of ``inexact`` makes of Q.
For PMD-mean the baseline is E_π Q̂ (Statement 15). The step size is η_k = 1/τ_k:

==============  ==========================================================================================
``constant``    τ_k = τ
``geometric``   τ_k = τ / growth^k (B5; the growth there is ϑ/(ϑ − 1))
``adaptive``    1/τ_k = max_x min D_h(greedy‖π_k) / (τ γ^{2h(k+1)}) (B1 and B2 with c₀ = τ), D_h the update's
                own Bregman divergence, KL for every update that has none
==============  ==========================================================================================

The floor. A probability that underflows to 0 is lost for good, since an update multiplies: an action that looks bad at
first and turns out best later, which is common at small τ, could never return. On FrozenLake-v1 with γ = 0.99 and
τ = 3e-6 both KL and PMD-mean then stop short of the optimum for ever. So after each update probabilities below
``FLOOR`` = 1e-150 are raised to it, except where the first policy is 0. Values change by far less than rounding. What
changes is that an action's log-probability stops falling at −345, so that at small τ it returns sooner than in exact
arithmetic. Bounds that telescope KL(π*‖π_k) remain true, since the floor only lowers it. The floor is such that χ² of
an action that returns in one step, 1/FLOOR, and the squared ratio on the way to it, 1/FLOOR², are still finite.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .. import divergences, simplex
from ..updates import Update, pmd_mean_update
from . import inexact
from .evaluation import evaluate
from .mirror_maps import kl_to_greedy
from .model import MDP

if TYPE_CHECKING:
    import pandas

__all__ = ["FLOOR", "Iteration", "iterate", "lookahead_values"]

FLOOR = 1e-150
SMALLEST_TAU = 1e-20  # times the largest value: there growing step sizes stop, long after every step is greedy

_STEP_SIZES = ("constant", "geometric", "adaptive")
_KEPT = ("V", "policy", "chi2_weight")


@dataclass(frozen=True)
class Iteration:
    """What `iterate` returns.

    Attributes
    ----------
    table : pandas.DataFrame
        One row for each policy visited, the first included.
    policy : ndarray, shape (S, A)
        The last policy.
    kept : dict of str to ndarray
        The arrays asked for by `keep`, one leading entry for each row of the table.
    """

    table: "pandas.DataFrame"
    policy: np.ndarray
    kept: dict = field(default_factory=dict)


def iterate(
    mdp: MDP,
    policy: ArrayLike | None = None,
    update: Callable[..., Update] = pmd_mean_update,
    tau: float = 0.1,
    steps: int = 100,
    *,
    step_sizes: str = "constant",
    growth: float | None = None,
    lookahead: int = 1,
    evaluation: Callable[..., np.ndarray] = inexact.exact,
    tolerance: float | None = None,
    optimal_value: ArrayLike | None = None,
    seed: int = 0,
    progress: bool = False,
    keep: Sequence[str] = (),
) -> Iteration:
    """Run policy mirror descent with exact records of every policy.

    Parameters
    ----------
    mdp : MDP
    policy : array_like, shape (S, A), optional
        Where to start; uniform by default. Positive probabilities never fall below ``FLOOR``; zeros stay, except under
        a mirror map that can raise them.
    update : callable
        ``update(policy, reward, tau) -> pmdtheory.Update`` on all states at once: `pmdtheory.kl_update`,
        `pmdtheory.pmd_mean_update`, ``functools.partial(pmdtheory.mixed_update, chi2_coef=0.1)``, those of
        `pmdtheory.convex`, `Euclidean()`, `Tsallis(0.5)`.
    tau : float
        Temperature τ, units of Q, positive; what it sets is told by `step_sizes`.
    steps : int
        Most iterations, at least 0.
    step_sizes : {"constant", "geometric", "adaptive"}
        See the table in the module's docstring.
    growth : float, optional
        Factor of the geometric step size, at least 1; 1/γ by default.
    lookahead : int
        h ≥ 1.
    evaluation : callable
        Oracle of `pmdtheory.mdp.inexact`; exact by default.
    tolerance : float, optional
        Stop when the certificate is at most this, units of value (Statement B10).
    optimal_value : array_like, shape (S,), optional
        V*, for instance ``optimal(mdp).V``; adds the columns max_gap and mean_gap.
    seed : int
        Root of the random numbers of the oracle.
    progress : bool
        Show a progress bar on standard error, where that is a terminal.
    keep : sequence of {"V", "policy", "chi2_weight"}
        Arrays to return for every row of the table; those of a step (chi2_weight) are NaN in the first.

    Returns
    -------
    Iteration
        Its table has the columns iteration; value (exact, from ρ); certificate (that of `Evaluation`: advantage gap
        over 1 − γ, rounding included); max_gap (over states) and mean_gap (over ρ), if asked for; entropy; and of the
        step that led here (NaN in the first row) tau, kl, reverse_kl, chi2, chi2_weight and chi2_weight_max. Entropy,
        divergences and λ are means over the states that are not terminal (over all, if all are). A mirror map that
        takes all mass from an action has an infinite reverse KL there, and no λ (NaN).

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.

    References
    ----------
    Statements 15 and 16; Xiao, arXiv 2201.07443; Johnson, Pike-Burke, Rebeschini, arXiv 2302.11381; Protopapas and
    Barakat, arXiv 2403.14156 (lookahead).

    Examples
    --------
    >>> from pmdtheory.mdp import chain
    >>> run = iterate(chain(5), tau=0.01, steps=100, tolerance=1e-6)
    >>> bool(run.table.value.is_monotonic_increasing), bool(run.table.certificate.iloc[-1] <= 1e-6)
    (True, True)
    """
    import pandas as pd

    p = _start(mdp, policy)
    support = p > 0
    tau = simplex.positive(tau, "tau")
    if tau.ndim:
        raise ValueError(f"tau must be one number, got shape {tau.shape}.")
    if step_sizes not in _STEP_SIZES:
        raise ValueError(f"step_sizes must be one of {', '.join(_STEP_SIZES)}, got {step_sizes!r}.")
    simplex.count(steps, "steps", 0)
    simplex.count(lookahead, "lookahead", 1)
    if unknown := set(keep) - set(_KEPT):
        raise ValueError(f"keep must name some of {', '.join(_KEPT)}, got {', '.join(sorted(unknown))}.")
    next_tau = _temperature(mdp, update, float(tau), step_sizes, growth, lookahead)
    if optimal_value is not None:
        optimal_value = simplex.finite(optimal_value, "optimal_value")
        if optimal_value.shape != (mdp.states,):
            raise ValueError(f"optimal_value must have shape ({mdp.states},), got {optimal_value.shape}.")

    rng = np.random.default_rng(seed)
    live = slice(None) if mdp.terminal.all() else ~mdp.terminal
    rows, kept = [], {name: [] for name in keep}
    led_here, chi2_weight = _no_step(), np.full(mdp.states, np.nan)
    for k in _counter(steps + 1, progress):
        truth = evaluate(mdp, p)
        # From here on the numbers of one action lie side by side: NumPy then handles S at a time instead of A.
        policy = np.asfortranarray(truth.policy)
        row = {"iteration": k, "value": truth.value, "certificate": truth.certificate}
        if optimal_value is not None:
            gap = optimal_value - truth.V
            row |= {"max_gap": gap.max(), "mean_gap": gap @ mdp.rho}
        rows.append(row | {"entropy": divergences.entropy(policy[live]).mean()} | led_here)
        for name, arrays in kept.items():
            arrays.append({"V": truth.V, "policy": truth.policy, "chi2_weight": chi2_weight}[name])
        if tolerance is not None and truth.certificate <= tolerance:
            break
        if k == steps:
            continue  # not break: the progress bar then ends full

        Q = np.asfortranarray(lookahead_values(mdp, evaluation(mdp, truth, rng), lookahead))
        tau_k = next_tau(k, policy, Q)
        step = _checked(update(policy, Q, tau_k), mdp)
        chi2_weight = step.chi2_weight
        led_here = _measure(policy, step, tau_k, live)
        p = np.ascontiguousarray(np.where(support, np.maximum(step.policy, FLOOR), step.policy))
    return Iteration(pd.DataFrame(rows), p, {name: np.stack(arrays) for name, arrays in kept.items()})


def lookahead_values(mdp: MDP, Q: np.ndarray, depth: int) -> np.ndarray:
    """Apply the Bellman optimality operator `depth` − 1 times to Q, shape (S, A)."""
    for _ in range(depth - 1):
        Q = mdp.backup(Q.max(axis=-1))
    return Q


def _start(mdp, policy):
    p = mdp.check_policy(mdp.uniform_policy() if policy is None else policy)
    if p.shape != mdp.R.shape:
        raise ValueError(f"policy must have shape {mdp.R.shape}, got {p.shape}.")
    return np.where(p > 0, np.maximum(p, FLOOR), 0.0)


def _temperature(mdp, update, tau, step_sizes, growth, lookahead):
    """The rule (iteration, policy, Q) -> τ of this iteration."""
    growth = growth if growth is not None else min(1 / mdp.gamma, 1e300) if mdp.gamma else 2.0
    if not 1 <= growth < np.inf:
        raise ValueError(f"growth must be a number of at least 1, got {growth}.")
    distance = getattr(update, "distance_to_greedy", kl_to_greedy)
    smallest = SMALLEST_TAU * (np.abs(mdp.R).max() or 1.0) / (1 - mdp.gamma)

    def adaptive(k, policy, Q):
        farthest = max(distance(policy, Q).max(), np.finfo(float).eps)
        return max(tau * mdp.gamma ** (2 * lookahead * (k + 1)) / farthest, smallest)

    return {
        "constant": lambda k, policy, Q: tau,
        "geometric": lambda k, policy, Q: max(tau * growth**-k, smallest),
        "adaptive": adaptive,
    }[step_sizes]


def _checked(step, mdp):
    """The step, if it is what an update must return."""
    if not isinstance(step, Update):
        raise ValueError(
            "update must return a pmdtheory.Update, with policy q, log_ratio log(q/p), chi2_weight and baseline (NaN "
            f"where there are none) and local (False), got {type(step).__name__}."
        )
    for name, shape in (("policy", mdp.R.shape), ("log_ratio", mdp.R.shape), ("chi2_weight", mdp.R.shape[:1])):
        if np.shape(getattr(step, name)) != shape:
            raise ValueError(f"update must return a {name} of shape {shape}, got {np.shape(getattr(step, name))}.")
    simplex.distribution(step.policy, "policy returned by update")
    return step


def _measure(policy, step, tau, live):
    moved = divergences.movement(policy[live], step.log_ratio[live])
    weight = step.chi2_weight[live]
    return _no_step() | {
        "tau": tau,
        "kl": moved.kl.mean(),
        "reverse_kl": moved.reverse_kl.mean(),
        "chi2": moved.chi2.mean(),
        "chi2_weight": weight.mean(),
        "chi2_weight_max": weight.max(),
    }


def _no_step():
    return dict.fromkeys(["tau", "kl", "reverse_kl", "chi2", "chi2_weight", "chi2_weight_max"], np.nan)


def _counter(total, progress):
    if not progress:
        return range(total)
    from tqdm import tqdm

    return tqdm(range(total), total=total, desc="iterations", unit="it", disable=None, leave=False)
