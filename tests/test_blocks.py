"""Blocks of rows and of actions change no result."""

import numpy as np
import pytest

from pmdtheory import baseline_update, blocks, kl_update, mixed_update, pmd_mean_update
from tests.problems import on

UPDATES = {
    "kl": kl_update,
    "pmd-mean": pmd_mean_update,
    "mixed": lambda *problem: mixed_update(*problem, 0.3),
    "below": lambda *problem: baseline_update(*problem, -4.0),
}


@pytest.mark.parametrize("shape", [(0, 3), (1, 9), (9, 1), (7, 3), (3, 7), (2, 100)], ids=str)
def test_rows_come_back_in_order_whatever_their_layout(monkeypatch, shape):
    monkeypatch.setattr(blocks, "BLOCK", 10)
    x, y = np.arange(float(np.prod(shape))).reshape(shape), np.arange(float(shape[0]))
    sizes = []

    def function(x, y):
        sizes.append(x.size)
        return x + y[:, None], x.sum(axis=-1) * y

    both, each = blocks.of_rows(function, x, y)
    np.testing.assert_array_equal(both, x + y[:, None])
    np.testing.assert_array_equal(each, x.sum(axis=-1) * y)
    assert max(sizes) <= max(10, shape[1])


@pytest.mark.parametrize("rewards", ["normal", "binary"])
@pytest.mark.parametrize("shape", [(5, 4, 6), (30, 90), (2, 500)], ids=str)
@pytest.mark.parametrize("tau", [30.0, 1.0, 0.02])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_do_not_depend_on_the_size_of_blocks(monkeypatch, name, tau, shape, rewards):
    rng = np.random.default_rng(0)
    policy, reward = rng.dirichlet(np.ones(shape[-1]), shape[:-1]), rng.normal(size=shape)
    policy[..., 0] = 0.0
    policy /= policy.sum(axis=-1, keepdims=True)
    if rewards == "binary":
        reward = (reward > 0.5).astype(float)
    with on("NumPy"):
        whole = UPDATES[name](policy, reward, tau)
        monkeypatch.setattr(blocks, "BLOCK", 64)
        parts = UPDATES[name](policy, reward, tau)
    for field in ("policy", "log_ratio", "chi2_weight", "baseline"):
        np.testing.assert_allclose(getattr(parts, field), getattr(whole, field), rtol=1e-11, atol=1e-14, err_msg=field)
    assert parts.policy.flags.c_contiguous and whole.policy.flags.c_contiguous


def test_a_baseline_too_high_is_named_by_its_place_in_the_batch(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 8)
    policy, reward, baseline = np.full((3, 4, 2), 0.5), np.tile([0.0, 1.0], (3, 4, 1)), np.zeros((3, 4))
    baseline[2, 1] = 5.0
    with on("NumPy"), pytest.raises(ValueError, match=r"at index \(2, 1\)"):
        baseline_update(policy, reward, 1.0, baseline)
