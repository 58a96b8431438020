"""Batches of random numbers against streams asked one by one, and halving against `searchsorted`."""

import numpy as np
import pytest

from pmdtheory import draws
from pmdtheory.draws import chances, dealt, draw_actions, passed

UNIFORM, NORMAL = np.random.Generator.random, np.random.Generator.standard_normal


def streams(count):
    return [np.random.default_rng([5, run]) for run in range(count)]


@pytest.mark.parametrize("block", [1, 50, 2**22])
def test_numbers_are_those_of_streams_asked_in_each_step(block, monkeypatch):
    """Whatever number of steps is drawn at a time, and for every mixture of draws."""
    monkeypatch.setattr(draws, "_BLOCK", block)
    labels = np.arange(6) % 3
    deal = dealt(labels)
    for wanted in ([UNIFORM], [UNIFORM, UNIFORM], [UNIFORM, NORMAL], [UNIFORM, deal], [deal], [deal, deal]):
        one_by_one = streams(4)
        for numbers in chances(streams(4), wanted, (2, 3), steps=5):
            for run, stream in enumerate(one_by_one):
                for draw, got in zip(wanted, numbers[:, run], strict=True):
                    known = {UNIFORM: stream.random, NORMAL: stream.normal}.get(draw)
                    alone = known(size=(2, 3)) if known else stream.permutation(labels).reshape(2, 3)
                    np.testing.assert_array_equal(got, alone)


def test_runs_and_steps_are_counted():
    assert [numbers.shape for numbers in chances(streams(3), [UNIFORM], (2, 5), 4)] == [(1, 3, 2, 5)] * 4
    assert list(chances(streams(3), [UNIFORM], (2,), 0)) == []


@pytest.mark.parametrize("K", [1, 2, 3, 7, 8, 9, 100, 1023])
def test_halving_is_searchsorted_row_by_row(K):
    """Ties included: a point that is one of the ends has passed it."""
    rng = np.random.default_rng(K)
    ends = np.sort(rng.integers(0, 20, (5, K)) / 20.0, axis=-1)
    points = np.concatenate([rng.random((5, 40)), ends[:, rng.integers(K, size=20)], [[-1.0, 2.0]] * 5], axis=-1)
    got = passed(ends.ravel(), np.arange(5)[:, None] * K, K, points)
    for row, own, number in zip(ends, points, got):
        np.testing.assert_array_equal(number, np.searchsorted(row, own, side="right"))


def test_halving_in_rows_of_different_lengths():
    rng = np.random.default_rng(0)
    count = np.array([1, 4, 2, 9])
    first = np.append(0, np.cumsum(count)[:-1])
    ends = np.concatenate([np.sort(rng.random(n)) for n in count])
    points = rng.random(4)
    expected = [np.searchsorted(ends[f : f + n], x, side="right") for f, n, x in zip(first, count, points)]
    assert passed(ends, first, count, points).tolist() == expected


def test_policies_and_uniforms_broadcast():
    rng = np.random.default_rng(2)
    policy, uniforms = rng.dirichlet(np.ones(6), (3, 1, 4)), rng.random((2, 4, 7))
    got = draw_actions(policy, uniforms)
    assert got.shape == (3, 2, 4, 7)
    for i, j, c in np.ndindex(3, 2, 4):
        np.testing.assert_array_equal(got[i, j, c], draw_actions(policy[i, 0, c], uniforms[j, c]))
