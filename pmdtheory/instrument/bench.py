r"""A prompt small enough to know its whole law: the group of rollouts is the population.

Completions are strings over one-letter tokens; the policy is a table of logits, one for each letter that can follow a
prefix of them (an autoregressive table). A completion with count c has probability c/n under the anchor, and the group
of n rollouts has it c times, so a mean over the group is a mean over the anchor, without noise.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["EASY", "HARD", "Prompt"]


@dataclass(frozen=True)
class Prompt:
    """Completions, how often the group has each, and their rewards.

    Attributes
    ----------
    completions : tuple of str
        K different strings, none the beginning of another.
    counts : tuple of int
        How many of the n rollouts are each, at least 1.
    rewards : tuple of float
        Reward of each.

    Examples
    --------
    >>> prompt = Prompt(("x", "yx", "yy"), (2, 1, 1), (0.0, 1.0, 0.5))
    >>> prompt.policy, prompt.lengths, prompt.reward[prompt.rows]
    (array([0.5 , 0.25, 0.25]), array([1, 2, 2]), array([0. , 0. , 1. , 0.5]))
    >>> np.exp(prompt.token_logp(prompt.anchor)).prod(axis=1)
    array([0.5 , 0.25, 0.25])
    """

    completions: tuple[str, ...]
    counts: tuple[int, ...]
    rewards: tuple[float, ...]

    @cached_property
    def policy(self) -> np.ndarray:
        """Anchor p, (K,)."""
        return np.array(self.counts) / sum(self.counts)

    @cached_property
    def reward(self) -> np.ndarray:
        """Rewards, (K,)."""
        return np.array(self.rewards, dtype=float)

    @cached_property
    def lengths(self) -> np.ndarray:
        """|y| in tokens, (K,)."""
        return np.array([len(text) for text in self.completions])

    @cached_property
    def mask(self) -> np.ndarray:
        """True on the tokens of a completion, (K, T)."""
        return np.arange(self.lengths.max()) < self.lengths[:, None]

    @cached_property
    def rows(self) -> np.ndarray:
        """Completion of each of the n rollouts, (n,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def _entries(self):
        """Entry of the table at each token (K, T), −1 where padded, and the prefix that each entry belongs to."""
        entries, slots = {}, np.full(self.mask.shape, -1)
        for y, text in enumerate(self.completions):
            for t in range(len(text)):
                slots[y, t] = entries.setdefault(text[: t + 1], len(entries))
        prefixes = {}
        return slots, np.array([prefixes.setdefault(text[:-1], len(prefixes)) for text in entries])

    @cached_property
    def anchor(self) -> np.ndarray:
        """Logits of the anchor, one for each entry of the table."""
        slots, _ = self._entries
        mass = np.bincount(slots[self.mask], np.repeat(self.counts, self.lengths))
        return np.log(mass)

    def _log_softmax(self, logits):
        _, prefix = self._entries
        top = np.full(prefix.max() + 1, -np.inf)
        np.maximum.at(top, prefix, logits)
        return logits - (top + np.log(np.bincount(prefix, np.exp(logits - top[prefix]))))[prefix]

    def token_logp(self, logits: np.ndarray) -> np.ndarray:
        """log π of each token (K, T); 0 where padded."""
        slots, _ = self._entries
        return np.where(self.mask, self._log_softmax(logits)[slots], 0.0)

    def log_ratio(self, logits: np.ndarray) -> np.ndarray:
        """s = log(q/p) of each completion, (K,)."""
        return (self.token_logp(logits) - self.token_logp(self.anchor)).sum(axis=1)

    def pull(self, logits: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Σ_y Σ_t c_{y,t} ∇ log π(y_t|y_<t), in the logits."""
        slots, prefix = self._entries
        direct = np.bincount(slots[self.mask], coefficients[self.mask], minlength=len(logits))
        return direct - np.exp(self._log_softmax(logits)) * np.bincount(prefix, direct)[prefix]


HARD = Prompt(("x", "yx", "yyx", "yyyz", "yyyxx"), (8, 5, 3, 2, 2), (0.0, 0.0, 0.5, 1.0, 1.0))
"""Mean reward 0.275; equal rewards at lengths 1 and 2, and 4 and 5."""
EASY = Prompt(("xx", "yx", "yyx", "yyyz", "xyyy"), (6, 4, 3, 4, 3), (1.0, 0.75, 0.5, 1.0, 0.75))
"""Mean reward 0.8375, half the spread."""
