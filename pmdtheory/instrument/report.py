"""The question itself, `identify`: what does a loss optimise."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..family import kimi_k25
from . import atlas, flow, response
from .bench import EASY, HARD

__all__ = ["Identification", "identify"]

_ON_THE_LAW = 1e-5
_UNBOUNDED = {"clipped surrogate", "soft clip", "importance-weighted"}
_LEVELS = {"token": "each token's ratio", "sequence": "the completion's ratio", "geometric": "the ratio e^{s/|y|}"}


@dataclass(frozen=True)
class Identification:
    """What `identify` found out.

    Attributes
    ----------
    name : str
        Of the loss.
    law : str
        Key of `pmdtheory.family.MEMBERS`, 'KL law', another law by its name, 'no interior law' or 'unknown'.
    statement : str
        Its number in ``pmdtheory/theorems/README.md``.
    tau : float
        Temperature of the law in our convention, s = (r − V)/τ for the KL law; NaN where there is none.
    declared_tau : float
        What the loss was called with.
    response : pmdtheory.instrument.response.Response
        How the loss answers to ratios, lengths, baselines, equal rewards and their scale.
    stops : list of pmdtheory.instrument.flow.Stop
        Where its own gradient ends on the hard and the easy prompt of the bench.
    matches : list of pmdtheory.instrument.atlas.Match
        The laws of the atlas in the order of their L1 distance from there.
    """

    name: str
    law: str
    statement: str
    tau: float
    declared_tau: float
    response: response.Response
    stops: list
    matches: list

    @property
    def defects(self) -> list[str]:
        """Names of the mistakes found."""
        return self.response.defects

    @property
    def interior(self) -> bool:
        """Whether the loss leads to one policy that keeps every completion."""
        return all(stop.isolated and stop.interior and stop.residual < 1e-6 for stop in self.stops)

    def rows(self) -> list[tuple[str, str]]:
        """The table, as pairs of what and how."""
        found, (near, next_one) = self.response, self.matches[:2]
        lengths = {0: "none", -1: "divided by |y|"}
        length = lengths.get(found.length, f"|y|^{found.length:.2f}")
        if found.penalty_length is not None and found.penalty_length != found.length:
            length = f"advantage: {length}; penalty: {lengths.get(found.penalty_length, found.penalty_length)}"
        form = found.form
        if found.clip:
            form += f", ρ from {found.clip[0]:.4g} to {found.clip[1]:.4g}"
        if found.cap:
            form += f", cap {found.cap:.4g}"
        if found.gates:
            form += f", steepness {found.gates[0]:.4g} where A > 0, {found.gates[1]:.4g} where A < 0"
        tau = "none" if np.isnan(self.tau) else f"{self.tau:.6g} (declared {self.declared_tau:g})"
        return [
            ("law", f"{self.law}" + (f" (Statement {self.statement})" if self.statement else "")),
            ("τ in our convention", tau),
            ("form", f"{form}, in {_LEVELS[found.level]}"),
            ("baseline", found.baseline),
            ("dependence on length", length),
            ("equal-reward groups", found.equal_groups),
            ("reward scale", found.scale),
            ("nearest law", f"{near.name}, L1 distance {near.distance:.1e}"),
            ("next law", f"{next_one.name}, L1 distance {next_one.distance:.1e}"),
            ("defects", ", ".join(self.defects) or "none found"),
        ]

    def table(self) -> str:
        """The table as text."""
        rows = self.rows()
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(f"{name:<{width}}{value}" for name, value in rows)

    def sentence(self) -> str:
        """The finding in a sentence."""
        if self.law == "no interior law":
            ends = "the ratio runs until nothing pulls any more" if self.response.clip else "nothing holds the ratio"
            text = f"{self.name} has no interior law: {ends}."
            if self.statement == "27":
                text = f"{self.name} has no law with ρ ≤ e: one action takes most. A larger τ has one (Statement 27)."
        elif self.law == "unknown":
            near = self.matches[0]
            text = f"{self.name} is on no law of the atlas; {near.name} is the nearest, {near.distance:.2g} away in L1."
        else:
            at = "" if np.isnan(self.tau) else f" at τ = {self.tau:.4g}"
            text = f"{self.name} leads to the law of {self.law}{at} (Statement {self.statement})."
            if self.law == "KL law":
                text = text.replace("the law of KL law", "the KL law")
        if self.law == "filtered":
            text += " Equal-reward groups pull nowhere; groups so large that none is equal lead to PMD-mean's law."
        if self.defects:
            text += f" Defects: {', '.join(self.defects)}."
        return text

    def draw(self, path: str | Path) -> None:
        """Log-ratios of the hard and the easy prompt against rewards: reached, nearest law and next; saved to path."""
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
        for i, (axis, prompt, title) in enumerate(zip(axes, (HARD, EASY), ("hard prompt", "easy prompt"))):
            order = np.argsort(prompt.reward, kind="stable")
            for match, style in zip(self.matches[:2], ("-", "--")):
                if match.policies:
                    with np.errstate(divide="ignore"):
                        s = np.log(match.policies[i] / prompt.policy)
                    axis.plot(prompt.reward[order], s[order], style, label=match.name, color="#0072B2")
            axis.plot(prompt.reward, self.stops[i].log_ratio, "o", color="#D55E00", label=self.name)
            axis.set(title=title, xlabel="reward", ylabel="log-ratio s" if i == 0 else None)
        axes[0].legend()
        figure.savefig(path)
        plt.close(figure)


def identify(loss: Callable[..., Any], tau: float = 0.25, name: str | None = None) -> Identification:
    """Find out which law a loss follows.

    The loss is called on one group of rollouts at a time, of prompts whose policies are rational: completion y appears
    n p(y) times, so the group is the population. Its own gradient is followed from the anchor to where it vanishes, and
    that policy is compared with every law of the atlas at the temperature that fits it best. What the loss depends on
    is measured at single rollouts.

    Parameters
    ----------
    loss : callable
        ``loss(logp, old_logp, mask, rewards, tau) -> tensor ()`` in PyTorch. logp, old_logp: (n, T), log-probabilities
        of the tokens in nats under π_θ, with gradient, and under the anchor, float64; mask: (n, T), True on tokens;
        rewards: (n,); tau: float.
    tau : float
        Temperature to declare to the loss, in reward units of a bench whose rewards lie in [0, 1].
    name : str, optional
        What to call the loss.

    Returns
    -------
    Identification
        ``table()``, ``sentence()`` and ``draw(path)`` tell it.

    Raises
    ------
    ValueError
        The loss returns no scalar, has no gradient at the anchor, or one that is not finite.
    ModuleNotFoundError
        PyTorch is not installed.

    References
    ----------
    Statements 19–30 of ``pmdtheory/theorems/README.md``.

    Examples
    --------
    >>> def loss(logp, old_logp, mask, rewards, tau):
    ...     s = ((logp - old_logp) * mask).sum(-1)
    ...     return ((rewards - rewards.mean() - tau * s) ** 2).mean()
    >>> print(identify(loss, tau=0.5, name="mine").sentence())  # doctest: +SKIP
    mine leads to the law of pmd-mean at τ = 0.5 (Statement 2).
    """
    if not 0 < tau < np.inf:
        raise ValueError(f"tau must be positive and finite, got {tau}.")
    probe = response.Loss(loss)
    found = response.measure(probe, tau)
    prompts = (HARD, EASY)
    stops = [flow.follow(prompt, probe.field(prompt, tau)) for prompt in prompts]
    matches = atlas.closest(atlas.candidates(found), [stop.log_ratio for stop in stops], prompts, tau, found)
    best = matches[0]
    law, statement, at = best.name, best.statement, best.tau
    if found.form in _UNBOUNDED or (best.distance > _ON_THE_LAW and not all(s.isolated and s.interior for s in stops)):
        law, statement, at = "no interior law", "30", np.nan
    elif best.distance > _ON_THE_LAW and found.form == "penalty over the anchor" and not _kimi_has_law(found):
        law, statement, at = "no interior law", "27", np.nan
    elif best.distance > _ON_THE_LAW:
        law, statement, at = "unknown", "", np.nan
    elif law == "pmd-mean" and found.equal_groups == "no gradient":
        law, statement = "filtered", "24"
    return Identification(
        str(name or getattr(loss, "__name__", "the loss")), law, statement, at, tau, found, stops, matches
    )


def _kimi_has_law(found):
    """Whether ρ A − 2 τ s, of the measured τ, has an interior law on the hard prompt."""
    best = HARD.reward.max() - HARD.policy @ HARD.reward
    return bool(kimi_k25.has_law(HARD.policy, HARD.reward, -found.terms[1] * best / 2))
