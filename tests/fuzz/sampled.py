"""The sampled minimiser: neither a perturbation of it nor SciPy's minimiser from random starts has a lower loss."""

import numpy as np
from scipy.optimize import minimize

from pmdtheory.sampled import UNSEEN_RULES, sampled_loss, sampled_update

_STARTS, _PERTURBATIONS = 4, 60


def check(rng):
    K = int(rng.integers(2, 9))
    p = rng.dirichlet(np.full(K, rng.choice([0.3, 1.0, 5.0]))) + 1e-12 * rng.random(K)
    p /= p.sum()
    n = int(rng.integers(2, 40))
    actions = rng.choice(K, n, p=p) if rng.random() < 0.5 else rng.integers(0, K, n)
    rewards = rng.normal(size=K)[actions] if rng.random() < 0.5 else rng.integers(0, 2, n).astype(float)
    rewards = rewards + rng.choice([0.0, 0.1]) * rng.normal(size=n)
    tau = float(10 ** rng.uniform(-1.5, 2))
    baseline = ["mean", "loo_mean", "log_partition", "loo_log_partition", float(rng.normal())][rng.integers(5)]
    unseen = list(UNSEEN_RULES)[rng.integers(len(UNSEEN_RULES))]
    problem = (
        f"policy={p.tolist()}, actions={actions.tolist()}, rewards={rewards.tolist()}, tau={tau!r}, "
        f"baseline={baseline!r}, unseen={unseen!r}"
    )
    rollouts = (actions, rewards, tau, baseline)
    update = sampled_update(p, *rollouts, unseen=unseen)
    q, s = update.policy, update.log_ratio
    assert q.min() >= 0 and abs(q.sum() - 1) <= 1e-13, problem
    assert np.allclose(q, p * np.exp(s), rtol=1e-12, atol=0), problem

    b = _baselines(baseline, rewards, tau)
    weights = np.bincount(actions, minlength=K) / n
    targets = np.bincount(actions, (rewards - b) / tau, K) / np.maximum(weights * n, 1)
    noise = ((((rewards - b) / tau) - targets[actions]) ** 2).mean() / 2
    loss = float(sampled_loss(p, q, *rollouts))
    own = noise + _loss(s, weights, targets)
    assert abs(loss - own) <= 1e-10 * (1 + own), (loss, own, problem)
    tolerance = 1e-9 * (1 + loss)

    near = np.where(np.isfinite(s), s, -40.0) + rng.normal(size=(_PERTURBATIONS, K)) * 10 ** rng.uniform(
        -6, 0.5, (_PERTURBATIONS, 1)
    )
    mixed = np.log((0.5 * q + 0.5 * rng.dirichlet(np.ones(K), _PERTURBATIONS)) / p)
    for other in (near, mixed):
        other = other - np.logaddexp.reduce(np.log(p) + other, axis=-1, keepdims=True)
        least = (noise + _loss(other, weights, targets)).min()
        assert loss <= least + tolerance, ("perturbed", loss, least, problem)

    starts = [np.zeros(K), *(12 * np.eye(K)[rng.integers(K, size=1)]), *rng.normal(scale=4, size=(_STARTS, K))]
    for start in starts:
        fit = minimize(_loss_and_slope, start, (p, weights, targets), jac=True, method="L-BFGS-B")
        assert loss <= noise + fit.fun + tolerance, ("L-BFGS", loss, noise + fit.fun, start.tolist(), problem)


def _baselines(baseline, rewards, tau):
    """Each rollout's baseline, one rollout at a time."""
    if not isinstance(baseline, str):
        return np.full(len(rewards), baseline)
    result = []
    for j in range(len(rewards)):
        used = np.delete(rewards, j) if baseline.startswith("loo") else rewards
        log_mean = tau * (np.logaddexp.reduce(used / tau) - np.log(len(used)))
        result.append(used.mean() if baseline.endswith("_mean") or baseline == "mean" else log_mean)
    return np.array(result)


def _loss(s, weights, targets):
    return (weights * np.where(weights > 0, s - targets, 0.0) ** 2).sum(axis=-1) / 2


def _loss_and_slope(s, p, weights, targets):
    """The loss of q ∝ p e^s, and its gradient."""
    s = s - np.logaddexp.reduce(np.log(p) + s)
    pull = weights * np.where(weights > 0, s - targets, 0.0)
    return _loss(s, weights, targets), pull - p * np.exp(s) * pull.sum()
