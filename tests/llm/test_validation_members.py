"""Losses of the family on a table of logits: their gradients vanish at the laws, and not at PMD-mean's."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pmdllm.losses import ALGORITHMS
from pmdllm.validation import members
from pmdllm.validation.fit import Anchor

from pmdtheory import pmd_mean_update

ANSWERS = [(1, 0), (1, 2, 0), (1, 2, 2, 0), (2, 0), (2, 1, 1, 1, 1, 1, 0)]
POLICY = np.array([[0.3, 0.2, 0.15, 0.1, 0.2, 0.05], [0.05, 0.1, 0.4, 0.15, 0.25, 0.05]])
REWARDS = {
    "graded": [[1.0, 0.5, 0.0, 0.25, 0.5, 0.0], [0.0, 0.75, 0.5, 1.0, 0.25, 0.0]],
    "binary": [[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]],
}


class Table:
    """Log-probabilities of the actions of each prompt, which are the parameters."""

    def __init__(self, policy):
        self.logits = torch.tensor(np.log(policy), requires_grad=True)
        self.trie = SimpleNamespace(answers=ANSWERS)
        self.max_new_tokens = max(map(len, ANSWERS))

    def __call__(self, prompts):
        return self.logits.log_softmax(-1)


def gradients(name, policy, tau, count):
    """Gradients (count, P, K) of a member's loss at a policy, of as many draws."""
    member, table = members.MEMBERS[name], Table(policy)
    anchor = Anchor(["a", "b"], torch.from_numpy(np.log(POLICY)), torch.tensor(REWARDS[member.reward]).double())
    problem = table, anchor, ALGORITHMS[member.algorithm], tau
    loss = member.loss(SimpleNamespace(problem=problem, generator=torch.Generator().manual_seed(3)))
    return torch.stack([torch.autograd.grad(loss(), table.logits)[0] for _ in range(count)]).numpy(), anchor


@pytest.mark.parametrize("name", members.MEMBERS)
def test_the_gradient_vanishes_at_the_law_and_not_at_pmd_means(name):
    """To rounding where all actions are read, within six standard errors where groups are drawn, 256 at a time."""
    tau = 0.2 if name == "two-temperatures" else 1.0
    count = 1 if np.isinf(members.MEMBERS[name].n) else 30
    _, anchor = gradients(name, POLICY, tau, 1)
    law = members.law(name, Table(POLICY), anchor, tau).policy
    other = pmd_mean_update(POLICY, anchor.rewards.numpy(), tau).policy
    assert np.abs(law - other).sum(axis=1).max() > 0.01
    for policy, vanishes in ((law, True), (other, False)):
        drawn = gradients(name, policy, tau, count)[0]
        error = drawn.std(axis=0) / np.sqrt(count) + 1e-12
        assert (np.abs(drawn.mean(axis=0)) < 6 * error).all() == vanishes


def test_lengths():
    assert members.lengths(Table(POLICY)).tolist() == [2, 3, 4, 2, 7, 7]


def test_every_loss_has_a_law_of_its_name():
    assert set(members.MEMBERS) <= set(members.LAWS)
    assert {member.algorithm for member in members.MEMBERS.values()} <= set(ALGORITHMS)
