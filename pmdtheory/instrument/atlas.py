"""Which law a policy is on: every law of the atlas on the bench, each at the temperature that brings it closest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from .. import baselines, updates
from ..family import MEMBERS, kimi_k25, weighted
from .bench import Prompt
from .flow import follow
from .response import TARGET_KL, Response

__all__ = ["Candidate", "Match", "candidates", "closest"]

_GRID = np.geomspace(1e-2, 1e2, 41)  # of τ, in units of the declared one
_ROUNDS, _PROMISING = 8, 3  # each round of the search narrows it twentyfold; laws that are far after three are left


@dataclass(frozen=True)
class Candidate:
    """A law that a loss could have.

    Attributes
    ----------
    name : str
        Key of `pmdtheory.family.MEMBERS`, or what it is.
    statement : str
        Its number.
    policies : callable
        ``policies(prompt, taus (G,)) -> (G, K)``, NaN where there is no law.
    has_tau : bool
        Whether there is a temperature.
    fitted : bool
        Whether it is fitted; else it is the loss's own.
    """

    name: str
    statement: str
    policies: Callable
    has_tau: bool = True
    fitted: bool = True


@dataclass(frozen=True)
class Match:
    """A candidate at its best temperature: largest L1 distance over the prompts; `tau` NaN where it has none."""

    name: str
    statement: str
    tau: float
    distance: float
    policies: list


def candidates(response: Response) -> list[Candidate]:
    """Every law that what a `Response` says does not exclude."""
    mean = "loo_mean" if response.baseline == "loo_mean" else "mean"
    found = [
        Candidate("pmd-mean", "2", _regression(mean)),
        Candidate("KL law", "1", lambda prompt, taus: updates.kl_update(prompt.policy, prompt.reward, taus).policy),
        Candidate("length-divided", "23", _regression(mean, weight=-1, advantage=-1)),
        Candidate("leave-one-out log-partition", "13", _regression("loo_log_partition")),
        Candidate("target-kl", "10", _regression("loo_target_kl")),
        Candidate("standardised", "25", _regression(mean, standardised=True)),
        Candidate("kimi-k2.5", "27", _kimi),
        Candidate("quantile", "29", _member("quantile")),
    ]
    if response.form == "truncated regression":
        found.append(Candidate("truncated-importance", "19", _member("truncated-importance", cap=response.cap)))
    if response.form == "regression with a fixed χ² penalty":
        found.append(Candidate("fixed-chi2", "3", _fixed_chi2(response.terms[2] / response.terms[1])))
    if response.form == "quadratic penalty":
        found.append(Candidate("cfpo", "28", _member("cfpo", epsilon=-1 / response.terms[4]), has_tau=False))
    if response.form == "log-likelihood" and response.baseline == "none":
        found.append(Candidate("asymre", "28", _member("asymre", baseline=0.0), has_tau=False))
    if response.form == "truncated weights, no penalty" and response.level == "sequence":
        found.append(Candidate("cispo", "30", _member("cispo", cap=response.cap), has_tau=False))
    if response.form == "regression" and response.level == "token":
        found.append(Candidate("token regression", "17", _token_regression(mean), fitted=False))
    if response.form == "regression" and response.length != response.penalty_length:
        found.append(Candidate("advantage scaled by 1/tokens", "19", _regression(mean, advantage=-1)))
    return found


def _member(name, **options):
    return lambda prompt, taus: MEMBERS[name].law(prompt.policy, prompt.reward, taus, **options).policy


def _fixed_chi2(share):
    """κ is `share` of τ."""
    law = MEMBERS["fixed-chi2"].law
    return lambda prompt, taus: law(prompt.policy, prompt.reward, taus, chi2_coef=share * taus).policy


def _kimi(prompt, taus):
    exists = kimi_k25.has_law(prompt.policy, prompt.reward, taus)
    q = MEMBERS["kimi-k2.5"].law(prompt.policy, prompt.reward, np.where(exists, taus, 1e6)).policy
    return np.where(exists[:, None], q, np.nan)


def _regression(baseline, weight=0, advantage=0, standardised=False):
    """The law of E_p |y|^weight (A |y|^(advantage − weight) − τ s)², A over one of the package's own baselines."""

    def policies(prompt, taus):
        A = _advantages(prompt, baseline, taus)
        if standardised:
            A = A / np.sqrt(prompt.policy @ (prompt.reward - prompt.policy @ prompt.reward) ** 2)
        lengths = prompt.lengths.astype(float)
        w, a = np.broadcast_to(lengths**weight, A.shape), A * lengths**advantage
        p = np.broadcast_to(prompt.policy, A.shape)
        exists = weighted.has_law(p, w, a, taus)
        a = np.where(exists[:, None], a, 0.0)
        return np.where(exists[:, None], weighted.solve(p, w, a, taus, "Statement 11").policy, np.nan)

    return policies


def _advantages(prompt, baseline, taus):
    """Mean advantage of the copies of each completion, (G, K)."""
    rewards = np.broadcast_to(prompt.reward[prompt.rows], (len(taus), len(prompt.rows)))
    A = rewards - baselines.BASELINES[baseline](rewards, taus, None, TARGET_KL)
    return np.add.reduceat(A, np.cumsum(prompt.counts) - prompt.counts, axis=-1) / prompt.counts


def _token_regression(baseline):
    """Each token's log-ratio regressed on A/τ: no formula, but the flow of A − τ s_t itself."""

    def policies(prompt, taus):
        old, reached = prompt.token_logp(prompt.anchor), []
        for tau, A in zip(taus, _advantages(prompt, baseline, taus)):

            def field(logits, tau=tau, A=A):
                residual = A[:, None] - tau * (prompt.token_logp(logits) - old)
                return prompt.pull(logits, prompt.policy[:, None] * np.where(prompt.mask, residual, 0.0))

            reached.append(prompt.policy * np.exp(follow(prompt, field).log_ratio))
        return np.array(reached)

    return policies


def closest(
    found: list[Candidate], log_ratios: list[np.ndarray], prompts: Sequence[Prompt], tau: float, response: Response
) -> list[Match]:
    """The candidates in the order of their distance from the policies p e^s, each a `Match`."""
    reached = [prompt.policy * np.exp(s) for prompt, s in zip(prompts, log_ratios)]
    reached = [q / q.sum() for q in reached]
    own = response.tau or tau
    matches = [_fit(candidate, reached, prompts, tau, own) for candidate in found]
    matches.sort(key=lambda match: match.distance)
    if response.form == "regression" and response.baseline == "unknown" and matches[0].distance > 1e-6:
        matches.append(_two_temperatures(reached, prompts, own))
        matches.sort(key=lambda match: match.distance)
    return matches


def _fit(candidate, reached, prompts, tau, own):
    """The candidate at its best temperature, by ever finer grids."""
    taus, rounds = (tau * _GRID, _ROUNDS) if candidate.has_tau and candidate.fitted else (np.array([own]), 1)
    for turn in range(rounds):
        policies = [candidate.policies(prompt, taus) for prompt in prompts]
        each = [np.abs(law - q).sum(axis=-1) for law, q in zip(policies, reached)]
        distances = np.max(np.nan_to_num(each, nan=2.0), axis=0)
        best = int(distances.argmin())
        if turn == _PROMISING and distances[best] > 0.02:
            break
        if rounds > 1 and turn < rounds - 1:
            taus = np.geomspace(taus[max(best - 1, 0)], taus[min(best + 1, len(taus) - 1)], len(taus))
    at = float(taus[best]) if candidate.has_tau else np.nan
    return Match(candidate.name, candidate.statement, at, float(distances[best]), [law[best] for law in policies])


def _two_temperatures(reached, prompts, tau):
    """Both temperatures fitted."""

    def law(x, prompt):
        slope, first = np.exp(x[0]), np.exp(x[0] + x[1])
        return MEMBERS["two-temperatures"].law(prompt.policy, prompt.reward, slope, baseline_tau=first).policy

    def distance(x):
        try:
            return max(np.abs(law(x, prompt) - q).sum() for prompt, q in zip(prompts, reached))
        except ValueError:
            return 2.0

    options = {"xatol": 1e-9, "fatol": 1e-10, "maxiter": 400}
    fit = minimize(distance, [np.log(tau), 1.0], method="Nelder-Mead", options=options)
    name = f"two-temperatures (β₁ = {np.exp(fit.x.sum()):.4g})"
    return Match(name, "22", float(np.exp(fit.x[0])), float(fit.fun), [law(fit.x, prompt) for prompt in prompts])
