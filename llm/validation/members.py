"""Losses of the family on an enumerable task, each with the law that `pmdtheory.family` predicts for it.

What differs from PMD-mean's regression is how the gradient is weighted, which baseline is subtracted, and which groups
count; everything is a loss or a credit of ordinary training. Each row is fitted by Adam, for its gradient need not be
that of any function::

    on-policy             every action, weighted by the policy that is fitted: rollouts that are always fresh
    exponential-weights   every action, weighted by p e^{r/τ}/Z
    two-temperatures      every action; the baseline is the log-partition at 3τ
    length-divided        every action; the loss of a completion is divided by its number of tokens, which differs
    kimi-k2.5             every action, with a penalty over the anchor: Kimi K2.5's form
    free-baseline         fresh groups; the baseline is the mean residual at the policy that is fitted
    filtered              fresh groups with leave-one-out means; those of equal rewards are dropped
    standardised          fresh groups; advantages divided by the group's standard deviation

A gradient step reads many groups of four rollouts of every prompt: what is in question is where the loss leads, not how
noisy the way is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pmdtheory import kl_update
from pmdtheory.family import MEMBERS as LAWS

from ..credit import credit
from ..losses import Settings, free_advantages

__all__ = ["MEMBERS", "Member", "lengths"]

GROUP, GROUPS, FACTOR = 4, 256, 3.0


@dataclass(frozen=True)
class Member:
    """A loss: the key of its `algorithm`, its reward, the name of the option that holds τ, and the size n of a group.

    A base that is trained from scratch has answers of `uneven` length.

    ``loss(step)`` returns a function of no arguments; ``options(tau, policy)`` returns what the law takes besides
    policy, reward and τ, of a `pmdllm.validation.enumeration.Policy`.
    """

    algorithm: str
    loss: Callable
    options: Callable = lambda tau, policy: {}
    reward: str = "graded"
    tau: str = "tau"
    n: float = math.inf
    uneven: bool = False


def law(name, policy, anchor, tau):
    """Return the update that the loss called `name` leads to from an anchor; a ValueError if it has no interior law."""
    options = MEMBERS[name].options(tau, policy)
    return LAWS[name].law(anchor.policy, anchor.rewards.numpy(), tau, **options)


def lengths(policy: Any) -> Any:
    """Tokens of each action, an array (K,); the malformed one counts as the longest."""
    return torch.tensor([*(len(answer) for answer in policy.trie.answers), policy.max_new_tokens])


def _population(weight=None, baseline=None, fresh=False, **settings):
    """A loss over all actions, weighted by p, by ``weight(p, r, tau)`` (P, K), or by the policy itself if `fresh`.

    ``baseline(p, r, tau)`` (P,) is subtracted, by default the mean reward.
    """

    def of(step):
        policy, anchor, algorithm, tau = step.problem
        p, r = anchor.logp.exp(), anchor.rewards
        subtracted = (p * r).sum(1) if baseline is None else torch.from_numpy(baseline(p.numpy(), r.numpy(), tau))
        fixed = p if weight is None else torch.from_numpy(weight(anchor.policy, r.numpy(), tau))
        advantage, length = (r - subtracted[:, None]).flatten(), lengths(policy).repeat(len(r))
        mask = torch.arange(max(length)) < length[:, None]

        def loss():
            logp = policy(anchor.prompts)
            drawn = logp.detach().exp() if fresh else fixed
            rows = [torch.zeros(mask.shape, dtype=torch.float64) for _ in range(2)]
            rows[0][:, 0], rows[1][:, 0] = logp.flatten(), anchor.logp.flatten()  # all at the first token
            own = Settings(tau, weight=drawn.flatten() * r.shape[1], **settings)
            return algorithm.loss(*rows, mask, advantage, own)[0]

        return loss

    return of


def _groups(filter_low=None, filter_high=None):
    """A loss of fresh groups of rollouts, with the credit of ordinary training."""

    def of(step):
        policy, anchor, algorithm, tau = step.problem
        p = anchor.logp.exp()

        def loss():
            drawn = torch.multinomial(p, GROUPS * GROUP, replacement=True, generator=step.generator)
            actions, prompt = drawn.reshape(-1, GROUP), torch.arange(len(p)).repeat_interleave(GROUPS)[:, None]
            rewards, valid = anchor.rewards[prompt, actions], torch.ones(actions.shape, dtype=torch.bool)
            given = credit(algorithm, rewards, valid, tau, filter_low=filter_low, filter_high=filter_high)
            logp, old_logp = policy(anchor.prompts)[prompt, actions], anchor.logp[prompt, actions]
            advantage = given.advantage
            if algorithm.is_free:
                advantage = free_advantages(advantage, logp.detach() - old_logp, tau, valid)
            rows = given.counted
            if not rows.any():
                return 0 * logp.sum()
            mask = torch.ones((int(rows.sum()), 1), dtype=torch.bool)
            own = Settings(tau, count=actions.numel())  # of all groups: none weighs more because others are dropped
            return algorithm.loss(logp[rows][:, None], old_logp[rows][:, None], mask, advantage[rows], own)[0]

        return loss

    return of


MEMBERS = {
    "on-policy": Member("pmd-mean", _population(fresh=True)),
    "exponential-weights": Member("pmd-mean", _population(lambda p, r, tau: kl_update(p, r, tau).policy)),
    "two-temperatures": Member(
        "pmd-part",
        _population(baseline=lambda p, r, tau: kl_update(p, r, FACTOR * tau).baseline),
        lambda tau, policy: {"baseline_tau": FACTOR * tau},
    ),
    "length-divided": Member(
        "pmd-mean",
        _population(length_normalization="seq-mean-token-mean"),
        lambda tau, policy: {"lengths": lengths(policy).numpy()},
        uneven=True,
    ),
    "kimi-k2.5": Member("kimi-k2.5", _population(), tau="recursion_tau"),
    "free-baseline": Member("free-baseline", _groups(), n=GROUP),
    "filtered": Member(
        "pmd-mean-loo", _groups(0.0, 1.0), lambda tau, policy: {"rollouts": GROUP}, "binary", "recursion_tau", GROUP
    ),
    "standardised": Member(
        "standardised", _groups(), lambda tau, policy: {"rollouts": GROUP}, "binary", "recursion_tau", GROUP
    ),
}
