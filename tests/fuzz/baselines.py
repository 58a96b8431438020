"""The baselines from rollouts: NumPy against mpmath by brute force, PyTorch against NumPy, masks and permutations."""

import mpmath
import numpy as np
import torch

from pmdtheory import baselines

_NAMES = ["mean", "loo_mean", "log_partition", "loo_log_partition"]
_EPS = np.finfo(float).eps


def check(rng):
    n, groups = int(rng.integers(1, 24)), int(rng.integers(1, 4))
    rewards = _rewards(rng, (groups, n))
    tau = np.maximum(np.ptp(rewards, axis=-1), 1e-3) * 10 ** rng.uniform(-8, 6, groups)
    mask = rng.random((groups, n)) < rng.choice([0.5, 0.9, 1.0])
    problem = f"rewards={rewards.tolist()}, tau={tau.tolist()}, mask={mask.tolist()}"
    hidden = np.where(mask, rewards, rng.choice([np.nan, np.inf, -1e300]))
    order = rng.permutation(n)
    for name in _NAMES:
        arguments = (name, hidden, tau, mask)
        if name.startswith("loo") and np.any(mask.sum(axis=-1) == 1):
            _refused(arguments, problem)
            continue
        ours = baselines.estimate(*arguments)
        scale = np.abs(rewards).max(axis=-1, where=mask, initial=0.0)[:, None]
        expected = _brute_force(name, rewards, tau, mask)
        off = np.abs(ours - expected) / np.maximum(scale, 1e-300)
        assert off.max() <= 64 * _EPS, (name, off.max(), problem)
        assert np.all(ours[~mask] == 0), (name, problem)
        theirs = baselines.estimate(name, torch.tensor(hidden), torch.tensor(tau), torch.tensor(mask)).numpy()
        assert np.all(np.abs(theirs - ours) <= 64 * _EPS * scale), (name, "PyTorch", problem)
        permuted = baselines.estimate(name, hidden[:, order], tau, mask[:, order])
        assert np.all(np.abs(permuted - ours[:, order]) <= 64 * _EPS * scale), (name, "permuted", problem)


def _rewards(rng, shape):
    style = rng.choice(["binary", "normal", "graded", "constant", "heavy"])
    rewards = {
        "binary": lambda: (rng.random(shape) < rng.random()).astype(float),
        "normal": lambda: rng.normal(size=shape),
        "graded": lambda: rng.integers(0, 5, shape) / 4,
        "constant": lambda: np.full(shape, rng.normal()),
        "heavy": lambda: np.clip(rng.standard_cauchy(shape), -1e9, 1e9),
    }[style]()
    return rewards * 10 ** rng.choice([0.0, rng.uniform(-9, 9)]) + rng.choice([0.0, rng.normal() * 1e3])


def _refused(arguments, problem):
    try:
        baselines.estimate(*arguments)
    except ValueError as error:
        assert "two rollouts" in str(error), problem
    else:
        raise AssertionError(f"one rollout accepted: {problem}")


def _brute_force(name, rewards, tau, mask):
    """Each rollout's baseline from the list of the rollouts it is estimated from."""
    result = np.zeros(rewards.shape)
    with mpmath.workdps(40):
        for group, j in zip(*np.nonzero(mask)):
            used = [i for i in np.flatnonzero(mask[group]) if i != j or not name.startswith("loo")]
            values = [mpmath.mpf(float(rewards[group, i])) for i in used]
            if name.endswith("mean"):
                result[group, j] = mpmath.fsum(values) / len(values)
            else:
                t, top = mpmath.mpf(float(tau[group])), max(values)
                mass = mpmath.fsum(mpmath.exp((v - top) / t) for v in values) / len(values)
                result[group, j] = top + t * mpmath.log(mass)
    return result
