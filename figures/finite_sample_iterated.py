"""Forty steps of fresh rollouts: noise turns PMD-part against what it has learnt, delay hurts both (Statements 12–14).

Each of the runs draws its own bandit of K = 100 actions as in the figure of one step, and takes the exact minimiser of
the sampled regression again and again, n = 16 rollouts a step from the current policy and τ = 0.1 unless shown
otherwise. Binary: J = 0.05, rewards of an action are always the same. Graded: mean rewards from Beta(0.6, 1.4), observed
as they are; noisy: as coins, in all panels from d on except g, where Gaussian noise is added. (a–c) Expected reward.
(d) Effective number of actions, exp H. (e–h) Reward after the last step over temperature, rollouts, noise and delay.
(i) Probability that a run ends below its start. Delay d: step t draws the rollouts from the policy of step t − d (of
step 0 before that), keeping to actions that the policy of step t has not excluded, and fits log(q/π_t) to the targets
of their rewards as if they were fresh. Bands are 95% intervals over the runs.
"""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from pmdtheory import plotting
from pmdtheory.bandit import Bandit, draw_actions, iterate
from pmdtheory.baselines import ESTIMATORS
from pmdtheory.sampled import sampled_update

from .finite_sample_improvement import LABELS, ROLES, instance, mean_and_half

FULL = {
    "cases": ("binary", "graded", "noisy"),
    "taus": (0.03, 0.1, 0.3, 1.0),
    "rollouts": (4, 16, 64),
    "scales": (0.1, 0.2, 0.5, 1.0),
    "delays": (1, 2, 4, 8, 16),
    "runs": 200,
}
FAST = {"cases": ("noisy",), "taus": (), "rollouts": (4,), "scales": (), "delays": (1,), "runs": 200}
KEYS = ["sweep", "case", "estimator", "tau", "rollouts", "scale", "delay", "step"]

K, TAU, N, STEPS = 100, 0.1, 16, 40
PLAIN = ("mean", "log_partition")
CASES = {
    "binary": ("binary", 0.05, {"noise": "none"}),
    "graded": ("graded", 0.3, {"noise": "none"}),
    "noisy": ("graded", 0.3, {"noise": "bernoulli"}),
}


def bandit(case, runs, scale=0.0):
    """One context per run, each with its own instance; and the policies to start from."""
    rewards, J, noise = CASES[case]
    policy, reward = zip(*(instance(rewards, K, J, np.random.default_rng([run, K])) for run in range(runs)))
    return Bandit(np.stack(reward), **(noise if scale == 0 else {"noise": "gaussian", "noise_scale": scale})), np.stack(policy)


def delayed(problem, policy, tau, steps, delay, rollouts, estimator, seed=0):
    """Policies (steps + 1, C, K) when rollouts are `delay` steps old; with delay 0 those of `bandit.iterate`."""
    policies = [policy]
    (stream,) = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(1))
    for step in range(steps):
        old = np.where(policies[-1] > 0, policies[max(step - delay, 0)], 0.0)
        actions = draw_actions(old, stream.random((len(policy), rollouts)))
        rewards = problem.observe(stream, actions)
        policies.append(sampled_update(policies[-1], actions, rewards, tau, baseline=estimator).policy)
    return np.stack(policies)


def compute(cases, taus, rollouts, scales, delays, runs):
    """Every step of the plain setting of each case; the last step along each sweep."""
    rows = []
    for case in cases:
        for estimator in ESTIMATORS:
            rows += _fresh("steps", case, estimator, runs, range(STEPS + 1))
    for estimator in PLAIN:
        for tau in taus:
            rows += _fresh("tau", "noisy", estimator, runs, [STEPS], tau=tau)
        for scale in scales:
            rows += _fresh("scale", "graded", estimator, runs, [STEPS], scale=scale)
        for delay in delays:
            problem, policy = bandit("noisy", runs)
            end = delayed(problem, policy, TAU, STEPS, delay, N, estimator)[-1]
            key = {"sweep": "delay", "case": "noisy", "estimator": estimator, "tau": TAU, "rollouts": N, "scale": 0.0}
            reward = (end * problem.reward).sum(axis=-1)
            rows.append(key | {"delay": delay, "step": STEPS} | mean_and_half(reward, "reward"))
    for estimator in ESTIMATORS:
        for n in rollouts:
            rows += _fresh("rollouts", "noisy", estimator, runs, [STEPS], n=n)
    return pd.DataFrame(rows)


def _fresh(sweep, case, estimator, runs, steps, tau=TAU, n=N, scale=0.0):
    problem, policy = bandit(case, runs, scale)
    path = iterate(problem, policy, tau, STEPS, rollouts=n, estimator=estimator, per_context=True)
    start = path.reward[path.step == 0].to_numpy()
    key = {"sweep": sweep, "case": case, "estimator": estimator, "tau": tau, "rollouts": n, "scale": scale, "delay": 0}
    rows = []
    for step in steps:
        at = path[path.step == step]
        gain = at.reward.to_numpy() - start
        rows.append(
            key
            | {"step": step, "runs": runs, "below": int((gain < -1e-12).sum())}
            | mean_and_half(at.reward.to_numpy(), "reward")
            | mean_and_half(np.exp(at.entropy.to_numpy()), "effective")
        )
    return rows
