"""The MDP container: what it accepts, what it derives, how it draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from pmdtheory.mdp import MDP, garnet
from tests.mdps import dense

P = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
R = np.array([[1.0, 2.0], [0.0, 0.0]])
GOOD = {"P": P, "R": R, "gamma": 0.9}


def test_dense_and_sparse_hold_the_same():
    """Any sparse format, with repeated entries, gives the same transitions, terminal states and defaults."""
    rows, columns = np.nonzero(P.reshape(4, 2))
    half = P.reshape(4, 2)[rows, columns] / 2
    repeated = sparse.coo_matrix((np.r_[half, half], (np.r_[rows, rows], np.r_[columns, columns])), shape=(4, 2))
    for given in (P, P.tolist(), sparse.csr_matrix(P.reshape(4, 2)), sparse.csc_array(P.reshape(4, 2)), repeated):
        mdp = MDP(given, R, 0.9)
        np.testing.assert_array_equal(dense(mdp), P)
        np.testing.assert_array_equal(mdp.terminal, [False, True])
        np.testing.assert_array_equal(mdp.rho, [0.5, 0.5])
        assert (mdp.states, mdp.actions, mdp.reward_range) == (2, 2, (0.0, 2.0))


def test_terminal_needs_no_exit_and_no_reward():
    """A state that rewards, or that can be left, is not terminal."""
    paying = R + np.array([[0, 0], [0, 1e-9]])
    leaking = P.copy()
    leaking[1, 1] = [1e-9, 1 - 1e-9]
    for transitions in (P, leaking):
        for rewards in (R, paying):
            expected = transitions is P and rewards is R
            assert MDP(transitions, rewards, 0.9).terminal[1] == expected
            assert MDP(sparse.csr_array(transitions.reshape(4, 2)), rewards, 0.9).terminal[1] == expected


def test_inputs_are_copied_and_rescaled():
    """The arrays handed in stay theirs; single-precision rows are made to sum to 1."""
    rough = garnet(20, 3, 20, np.random.default_rng(0)).P.astype(np.float32)
    before = rough.copy()
    mdp = MDP(rough, np.zeros((20, 3)), 0.5)
    np.testing.assert_array_equal(rough, before)
    np.testing.assert_allclose(mdp.P.sum(axis=-1), 1, atol=4e-16)
    stored = sparse.csr_array(P.reshape(4, 2) * (1 + 1e-7))
    assert MDP(stored, R, 0.9).P.sum() == 4
    assert stored.sum() > 4
    with pytest.raises(AttributeError):
        mdp.gamma = 0.1


@pytest.mark.parametrize("as_sparse", [False, True])
def test_next_states_follow_the_transitions(as_sparse):
    """Frequencies of draws agree with P (chi-square), and what is impossible is never drawn."""
    mdp = garnet(6, 2, 3, np.random.default_rng(1), sparse=as_sparse)
    rng = np.random.default_rng(2)
    n = 20_000
    law = dense(mdp)
    for x in range(6):
        for a in range(2):
            counts = np.bincount(mdp.next_states(rng, np.full(n, x), np.full(n, a)), minlength=6)
            expected = n * law[x, a]
            assert counts[expected == 0].sum() == 0
            possible = expected > 0
            assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 20  # 2 degrees of freedom: 5e-5


BAD = {
    "row that does not sum to 1": ({"P": P * [[[1, 1], [1, 1]], [[1, 0.75], [1, 1]]]}, r"P .*0\.75.*state 1, action 0"),
    "nan probability": ({"P": np.where(P == 0.5, np.nan, P)}, "P .*nan"),
    "P of another shape": ({"P": P[0]}, r"P .*\(2, 2, 2\).*\(2, 2\)"),
    "sparse P of another shape": ({"P": sparse.eye_array(2)}, r"P .*\(4, 2\).*\(2, 2\)"),
    "infinite reward": ({"R": [[np.inf, 0], [0, 0]]}, "R .*inf"),
    "R for one state only": ({"R": [1.0, 2.0]}, r"R .*\(states, actions\).*\(2,\)"),
    "rewards whose values overflow": ({"R": R * 1e289}, r"R must be so small .*2e\+289 at gamma = 0\.9"),
    "gamma 1": ({"gamma": 1.0}, r"gamma .*1\.0"),
    "negative gamma": ({"gamma": -0.1}, r"gamma .*-0\.1"),
    "several gammas": ({"gamma": [0.5, 0.9]}, "gamma .*one number"),
    "rho of another length": ({"rho": [1.0]}, r"rho .*\(2,\).*\(1,\)"),
    "rho that does not sum to 1": ({"rho": [0.5, 0.6]}, r"rho .*1\.1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    """The message names the argument, the value and where it is."""
    change, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        MDP(**(GOOD | change))


def test_negative_probabilities_are_placed():
    """A row that sums to 1 with a negative entry is refused with its state, action and next state."""
    negative = P.copy()
    negative[0, 1] = [-0.5, 1.5]
    for given in (negative, sparse.csr_array(negative.reshape(4, 2))):
        with pytest.raises(ValueError, match=r"-0\.5 for state 0, action 1, next state 0"):
            MDP(given, R, 0.9)
    with pytest.raises(ValueError, match=r"sum of 0\.5 in state 1, action 1"):
        MDP(sparse.csr_array(P.reshape(4, 2) * [[1], [1], [1], [0.5]]), R, 0.9)


def test_policies_are_checked():
    """A policy of another shape or with rows that do not sum to 1 is refused."""
    mdp = MDP(**GOOD)
    with pytest.raises(ValueError, match=r"policy must have shape \(2, 2\).*\(3, 2\)"):
        mdp.check_policy(np.full((3, 2), 0.5))
    with pytest.raises(ValueError, match=r"policy .*0\.9"):
        mdp.check_policy([[0.5, 0.4], [0.5, 0.5]])
