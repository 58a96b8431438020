"""Losses against Statement 17, finite differences, a plain loop over completions, and one another."""

import dataclasses
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pmdllm.losses import (
    ALGORITHMS,
    Settings,
    advantages,
    algorithm,
    clipped_policy_gradient,
    free_advantages,
    importance_weights,
    log_ratio,
    log_ratio_regression,
    ratio_with_squared_penalty,
)

from pmdtheory import baseline_update, baselines, kl_update, pmd_mean_update
from pmdtheory.baselines import BASELINES, Baseline
from pmdtheory.family import MEMBERS

NORMALIZATIONS = ("none", "seq-mean-token-mean", "seq-mean-token-sum-norm")
RATIOS = ("token", "sequence", "geometric")
GRANULARITIES = ("sequence", "token")
MAX_LENGTH = 9
TAU = 0.3
CLIP = 0.2, 0.28
SETTINGS = Settings(tau=TAU, max_length=MAX_LENGTH)


@dataclasses.dataclass
class Batch:
    """P prompts with n completions each, lengths from 0 to T, masks with holes; log-ratios have the given spread."""

    logp: torch.Tensor
    old_logp: torch.Tensor
    mask: torch.Tensor
    rewards: torch.Tensor

    @property
    def inputs(self):
        return self.logp, self.old_logp, self.mask


def make_batch(seed=0, prompts=3, n=4, T=6, spread=0.3, empty=()):
    generator = torch.Generator().manual_seed(seed)
    B = prompts * n
    old_logp = -torch.rand(B, T, generator=generator, dtype=torch.float64) - 0.1
    logp = old_logp + spread * torch.randn(B, T, generator=generator, dtype=torch.float64)
    lengths = torch.randint(2, T + 1, (B,), generator=generator)
    mask = torch.arange(T) < lengths[:, None]
    mask[1, 0] = False
    mask[list(empty)] = False
    rewards = torch.randn(prompts, n, generator=generator, dtype=torch.float64)
    return Batch(logp.requires_grad_(), old_logp, mask, rewards)


def gradient(loss, batch):
    return torch.autograd.grad(loss, batch.logp)[0]


def assert_close(actual, expected, rtol=1e-12, atol=1e-13):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def divisor(normalization, length):
    return {"none": 1, "seq-mean-token-mean": length, "seq-mean-token-sum-norm": MAX_LENGTH}[normalization]


def log_ratios(batch):
    """The valid log-ratios of every completion, as lists of numbers: the plain form the loops below work on."""
    return [
        [float(new - old) for new, old, valid in zip(*row) if valid]
        for row in zip(batch.logp.detach(), batch.old_logp, batch.mask)
    ]


def regression_by_loop(batch, advantage, tau, granularity, normalization):
    losses = []
    for s, A in zip(log_ratios(batch), advantage.tolist()):
        if s:
            terms = s if granularity == "token" else [sum(s)]
            losses.append(sum(tau / 2 * (A / tau - x) ** 2 for x in terms) / divisor(normalization, len(s)))
    return sum(losses) / len(losses)


def clipped_by_loop(batch, advantage, ratio, normalization):
    losses = []
    for s, A in zip(log_ratios(batch), advantage.tolist()):
        if s:
            mean = sum(s) / len(s)
            exponents = {"token": s, "sequence": [sum(s)], "geometric": [mean] * len(s)}[ratio]
            ratios = [math.exp(x) for x in exponents]
            gains = [min(rho * A, min(max(rho, 1 - CLIP[0]), 1 + CLIP[1]) * A) for rho in ratios]
            losses.append(-sum(gains) / divisor(normalization, len(s)))
    return sum(losses) / len(losses)


# The definition


@pytest.mark.parametrize("empty", [(), (0, 5)])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_regression_is_its_definition(granularity, normalization, empty):
    batch = make_batch(empty=empty)
    advantage = batch.rewards.flatten()
    loss, _ = log_ratio_regression(*batch.inputs, advantage, TAU, granularity, normalization, MAX_LENGTH)
    assert loss.item() == pytest.approx(
        regression_by_loop(batch, advantage, TAU, granularity, normalization), rel=1e-12
    )


@pytest.mark.parametrize("empty", [(), (0, 5)])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_clipped_policy_gradient_is_its_definition(ratio, normalization, empty):
    batch = make_batch(empty=empty)
    advantage = batch.rewards.flatten()
    loss, _ = clipped_policy_gradient(*batch.inputs, advantage, *CLIP, ratio, normalization, MAX_LENGTH)
    assert loss.item() == pytest.approx(clipped_by_loop(batch, advantage, ratio, normalization), rel=1e-12)


# Gradients


@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradients_agree_with_finite_differences(name):
    batch = make_batch(empty=(2,))
    advantage = ALGORITHMS[name].advantage(batch.rewards, TAU).flatten()
    weight = torch.linspace(0.5, 2, len(advantage), dtype=torch.float64)
    chosen = dataclasses.replace(SETTINGS, weight=weight)

    def loss(logp):
        return ALGORITHMS[name].loss(logp, batch.old_logp, batch.mask, advantage, chosen)[0]

    assert torch.autograd.gradcheck(loss, (batch.logp,))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_gradient_is_the_residual_form_of_statement_17(granularity, normalization):
    """∂L/∂log π(y_t) = −(A − τ s)/N over the completions with a token, s the sum or the token's own."""
    batch = make_batch(empty=(4, 7))
    advantage = batch.rewards.flatten()
    loss, _ = log_ratio_regression(*batch.inputs, advantage, TAU, granularity, normalization, MAX_LENGTH)
    s = torch.where(batch.mask, batch.logp.detach() - batch.old_logp, 0)
    s = s if granularity == "token" else s.sum(1, keepdim=True)
    N = torch.tensor([divisor(normalization, max(int(length), 1)) for length in batch.mask.sum(1)])
    expected = -(advantage[:, None] - TAU * s) / N[:, None] * batch.mask / 10
    assert_close(gradient(loss, batch), expected)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_first_gradient_is_reinforce_with_the_algorithms_advantage_and_length_weight(name, normalization):
    """At π_θ = π_old: −(A/N) ∇ Σ_t log π(y_t), whatever the loss, the ratio and τ."""
    batch = make_batch(spread=0)
    algorithm = ALGORITHMS[name]
    advantage = algorithm.advantage(batch.rewards, TAU).flatten()
    chosen = dataclasses.replace(SETTINGS, length_normalization=normalization)
    loss, _ = algorithm.loss(*batch.inputs, advantage, chosen)
    N = torch.tensor([divisor(normalization, int(length)) for length in batch.mask.sum(1)])
    reinforce = -(advantage / N * (batch.logp * batch.mask).sum(1)).mean()
    assert_close(gradient(loss, batch), gradient(reinforce, batch))


def test_gradient_vanishes_where_the_target_is_reached():
    batch = make_batch()
    s = log_ratio(*batch.inputs).sum(1).detach()
    loss, metrics = log_ratio_regression(*batch.inputs, TAU * s, TAU)
    assert_close(loss.detach(), torch.zeros_like(loss))
    assert_close(gradient(loss, batch), torch.zeros_like(batch.logp))
    assert metrics["residual"] < 1e-14


@pytest.mark.parametrize("name", ALGORITHMS)
def test_old_policy_advantage_and_weight_are_constants(name):
    batch = make_batch()
    constants = [batch.old_logp, batch.rewards.flatten(), torch.ones(12, dtype=torch.float64)]
    old_logp, advantage, weight = (x.clone().requires_grad_() for x in constants)
    chosen = dataclasses.replace(SETTINGS, weight=weight)
    loss, metrics = ALGORITHMS[name].loss(batch.logp, old_logp, batch.mask, advantage, chosen)
    loss.backward()
    assert batch.logp.grad.abs().sum() > 0
    assert old_logp.grad is None and advantage.grad is None and weight.grad is None
    assert not any(value.requires_grad for value in metrics.values())


# Masks and weights


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e300])
def test_masked_values_are_irrelevant(name, junk):
    """In value, gradient and metrics; advantage and weight of a completion without tokens included."""
    batch = make_batch(empty=(0, 3))
    weight = torch.linspace(0.5, 2, 12, dtype=torch.float64)

    def run(fill):
        logp = torch.where(batch.mask, batch.logp.detach(), fill).requires_grad_()
        old_logp = torch.where(batch.mask, batch.old_logp, -fill)
        present = batch.mask.any(1)
        advantage, weights = (torch.where(present, x, fill) for x in (batch.rewards.flatten(), weight))
        chosen = dataclasses.replace(SETTINGS, weight=weights)
        loss, metrics = ALGORITHMS[name].loss(logp, old_logp, batch.mask, advantage, chosen)
        loss.backward()
        return loss.item(), {k: v.item() for k, v in metrics.items()}, logp.grad

    loss, metrics, grad = run(junk)
    expected = run(0.0)
    assert (loss, metrics) == expected[:2] and torch.equal(grad, expected[2])
    assert (grad[~batch.mask] == 0).all()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_completion_without_tokens_is_as_if_it_were_not_there(name):
    batch = make_batch(empty=(0, 3))
    advantage, keep = batch.rewards.flatten(), batch.mask.any(1)
    loss, metrics = ALGORITHMS[name].loss(*batch.inputs, advantage, SETTINGS)
    rest = ALGORITHMS[name].loss(*(x[keep] for x in batch.inputs), advantage[keep], SETTINGS)
    assert_close(loss, rest[0])
    assert_close(metrics, rest[1])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_batch_without_tokens_has_loss_and_gradient_zero(name):
    batch = make_batch(empty=range(12))
    loss, metrics = ALGORITHMS[name].loss(*batch.inputs, torch.full((12,), math.nan), SETTINGS)
    assert loss.item() == 0 and (gradient(loss, batch) == 0).all()
    assert all(value == 0 for value in metrics.values())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_weight_is_how_often_a_completion_counts(name):
    batch = make_batch()
    advantage = batch.rewards.flatten()
    counts = torch.tensor([1, 2, 0, 3] * 3)
    chosen = dataclasses.replace(SETTINGS, weight=counts)
    loss, _ = ALGORITHMS[name].loss(*batch.inputs, advantage, chosen)
    repeated = (x.repeat_interleave(counts, 0) for x in (*batch.inputs, advantage))
    expected, _ = ALGORITHMS[name].loss(*repeated, SETTINGS)
    assert_close(loss, expected * counts.sum() / len(counts))


def test_the_target_is_reached_by_the_update_of_the_other_rollouts():
    """KL(p̂‖q) of the update of Statement 10 with the baseline of a rollout, p̂ uniform on the others, is the target, or
    as near as the mean and the log-partition allow."""
    rewards, tau, target = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0, 0.3]], dtype=torch.float64), 0.2, 0.8
    missed = 0
    found = rewards - ALGORITHMS["pmd-target"].advantage(rewards, tau, target_kl=target)
    for j, baseline in enumerate(found[0].tolist()):
        others = np.delete(rewards[0].numpy(), j)
        update = baseline_update(np.full(5, 0.2), others, tau, baseline)
        least, most = (-step(np.full(5, 0.2), others, tau).log_ratio.mean() for step in (pmd_mean_update, kl_update))
        missed += not least < target < most
        assert -update.log_ratio.mean() == pytest.approx(min(max(target, least), most), rel=1e-8)
    assert 0 < missed < 6


def test_importance_weights_are_the_ratio_of_the_exact_update():
    """They average 1, a lone success at tiny τ takes the whole weight n, and masked rollouts have none."""
    rewards = torch.tensor([[0.3, -1.0, 0.7, 0.1], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    expected = 4 * torch.softmax(rewards / 0.5, dim=1)
    assert_close(importance_weights(rewards, 0.5), expected)
    assert_close(importance_weights(rewards, 1e-3)[1], torch.tensor([0.0, 4, 0, 0], dtype=torch.float64))
    mask = torch.tensor([[True, True, True, False], [False, False, False, False]])
    masked = importance_weights(torch.where(mask, rewards, math.nan), 0.5, mask)
    assert_close(masked[0, :3], 3 * torch.softmax(rewards[0, :3] / 0.5, dim=0))
    assert (masked[~mask] == 0).all()


# Advantages


@pytest.mark.parametrize("name", ["pmd-mean", "pmd-mean-loo", "pmd-part", "pmd-part-loo", "rloo", "dr-grpo"])
def test_unscaled_advantage_is_reward_minus_the_baseline_of_the_simulators(name):
    rewards = make_batch().rewards
    estimator = ALGORITHMS[name].baseline.name
    expected = rewards.numpy() - baselines.estimate(estimator, rewards.numpy(), TAU)
    assert_close(ALGORITHMS[name].advantage(rewards, TAU), torch.tensor(expected))


@pytest.mark.parametrize("estimator", BASELINES)
@pytest.mark.parametrize("scale", ["none", "std"])
def test_masked_rollouts_are_as_if_they_were_not_there(estimator, scale):
    rewards = make_batch(n=5).rewards
    mask = torch.tensor([[True, True, False, True, False], [True] * 5, [False] * 5])
    result = advantages(torch.where(mask, rewards, math.nan), BASELINES[estimator], TAU, mask, scale, 0.5)
    assert_close(result[0, mask[0]], advantages(rewards[:1, mask[0]], BASELINES[estimator], TAU, None, scale, 0.5)[0])
    assert_close(result[1], advantages(rewards[1:2], BASELINES[estimator], TAU, None, scale, 0.5)[0])
    assert (result[~mask] == 0).all()


def test_scaled_advantage_is_in_sample_standard_deviations():
    rewards = make_batch().rewards
    r = rewards.numpy()
    expected = (r - r.mean(1, keepdims=True)) / (np.std(r, axis=1, ddof=1, keepdims=True) + 1e-4)
    assert_close(advantages(rewards, BASELINES["mean"], TAU, scale="std"), torch.tensor(expected))


@pytest.mark.parametrize("chi2_coef", [0.0, 0.4])
def test_a_free_baseline_gives_the_gradient_of_the_variance_within_groups(chi2_coef):
    """And with a χ² penalty, which is no variance, the pull of the residual's deviation from its group's mean."""
    batch = make_batch(empty=(2,))
    valid = batch.mask.any(1).reshape(3, 4)
    name = "fixed-chi2" if chi2_coef else "free-baseline"
    algorithm, chosen = ALGORITHMS[name], dataclasses.replace(SETTINGS, chi2_coef=chi2_coef)
    s = log_ratio(*batch.inputs).sum(1)
    first = algorithm.advantage(batch.rewards, TAU, valid)
    A = free_advantages(first, s.reshape(3, 4), TAU, valid, chi2_coef)
    loss, _ = algorithm.loss(*batch.inputs, A.flatten(), chosen)
    u = torch.where(valid, batch.rewards - TAU * s.reshape(3, 4) - chi2_coef * s.reshape(3, 4).exp(), 0)
    mean = u.sum(1, keepdim=True) / valid.sum(1, keepdim=True)
    if not chi2_coef:
        variance = torch.where(valid, (u - mean).square(), 0).sum() / valid.sum() / (2 * TAU)
        (expected,) = torch.autograd.grad(variance, batch.logp, retain_graph=True)
        assert_close(gradient(loss, batch), expected)
        return
    pull = torch.where(valid, u - mean, 0).detach().flatten()
    assert_close(gradient(loss, batch), -gradient((pull * s).sum() / valid.sum(), batch))


def test_a_fixed_chi2_penalty_is_at_its_law():
    """On the law of Statement 3 every residual of a group is the same, so that nothing pulls; elsewhere it does."""
    p, r, tau, kappa = np.array([0.5, 0.2, 0.3]), np.array([0.0, 1.0, 0.4]), 0.2, 0.3
    q = MEMBERS["fixed-chi2"].law(p, r, tau, chi2_coef=kappa).policy
    rewards, valid = torch.tensor(r)[None], torch.ones(1, 3, dtype=torch.bool)
    for policy, pulls in ((q, False), (MEMBERS["pmd-mean"].law(p, r, tau).policy, True)):
        s = torch.tensor(np.log(policy / p))[None]
        A = free_advantages(rewards, s, tau, valid, kappa)
        left = (A - tau * s - kappa * (s.exp() - 1)).abs().max()
        assert (left > 1e-3) == pulls and (pulls or left < 1e-12)


def test_kimi_k25_is_its_formula():
    batch = make_batch(empty=(2,))
    advantage = batch.rewards.flatten()
    loss, metrics = ratio_with_squared_penalty(*batch.inputs, advantage, TAU)
    s = [sum(values) for values in log_ratios(batch)]
    terms = [math.exp(x) * a - TAU * x * x for i, (x, a) in enumerate(zip(s, advantage.tolist())) if i != 2]
    assert loss.item() == pytest.approx(-sum(terms) / 11, rel=1e-12)
    pulls = [math.exp(x) * a - 2 * TAU * x for i, (x, a) in enumerate(zip(s, advantage.tolist())) if i != 2]
    assert metrics["residual"].item() == pytest.approx(math.sqrt(sum(x * x for x in pulls) / 11), rel=1e-12)


def test_quantile_advantages_are_ranks_over_a_known_log_partition():
    """Of the family's law, whose population is the group; completions that do not count have no rank."""
    rewards, tau = torch.tensor([[0.1, 0.7, 0.7, 0.3, 9.0]], dtype=torch.float64), 0.2
    valid = torch.tensor([[True, True, True, True, False]])
    A = ALGORITHMS["quantile"].advantage(rewards, tau, valid)[0]
    known = tau * mpmath.log(mpmath.quad(lambda x: mpmath.exp(x / tau), [0, 1]))
    assert_close(A, torch.tensor([0.25, 1.0, 1.0, 0.5, 0.0], dtype=A.dtype) - float(known) * valid[0].to(A.dtype))
    law = MEMBERS["quantile"].law(np.full(4, 0.25), rewards[0, :4].numpy(), tau)
    lam = np.exp(-law.log_ratio) * ((A[:4].numpy() / tau) - law.log_ratio)
    assert np.ptp(lam) < 1e-9


def test_standardised_advantages_of_equal_rewards_are_zero_and_of_others_have_variance_one():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 5.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    A = ALGORITHMS["standardised"].advantage(rewards, TAU, torch.tensor([[True, True, True, False], [True] * 4]))
    assert_close(A[0], torch.tensor([2**0.5, -(2**-0.5), -(2**-0.5), 0.0], dtype=A.dtype))
    assert (A[1] == 0).all()


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"quantile"}))
@pytest.mark.parametrize("reward", [0.0, 1.0, -0.1, 1 / 3])
def test_equal_rewards_have_advantage_zero(name, reward):
    assert (ALGORITHMS[name].advantage(torch.full((2, 8), reward), 0.01) == 0).all()


@pytest.mark.parametrize("rewards", [torch.tensor([[1, 0, 0]]), torch.tensor([[True, False, False]])])
@pytest.mark.parametrize("scale", ["none", "std", "sd", "rank"])
def test_verdicts_are_rewards(rewards, scale):
    expected = advantages(torch.tensor([[1.0, 0.0, 0.0]]), BASELINES["mean"], TAU, scale=scale)
    assert torch.equal(advantages(rewards, BASELINES["mean"], TAU, scale=scale), expected)


@given(
    rewards=npst.arrays(np.float64, st.tuples(st.just(2), st.integers(2, 8)), elements=st.floats(-5, 5)),
    log_tau=st.floats(-2, 1),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_leave_one_out_mean_is_the_plain_mean_at_another_temperature(rewards, log_tau, seed):
    """A − τs with A times n/(n−1) is n/(n−1) (A − τ's), τ' = τ(n−1)/n: loss and gradient scale by n/(n−1)."""
    n, tau = rewards.shape[1], 10**log_tau
    batch = make_batch(seed, prompts=2, n=n)
    rewards = torch.from_numpy(rewards)
    losses = {}
    for name, temperature in {"pmd-mean-loo": tau, "pmd-mean": tau * (n - 1) / n}.items():
        advantage = ALGORITHMS[name].advantage(rewards, temperature).flatten()
        losses[name], _ = ALGORITHMS[name].loss(*batch.inputs, advantage, Settings(tau=temperature))
    assert_close(losses["pmd-mean-loo"], n / (n - 1) * losses["pmd-mean"], rtol=1e-9)
    expected = n / (n - 1) * gradient(losses["pmd-mean"], batch)
    assert_close(gradient(losses["pmd-mean-loo"], batch), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ALGORITHMS)
@given(seed=st.integers(0, 2**16), data=st.data())
@settings(max_examples=20, deadline=None)
def test_order_within_a_group_and_of_groups_is_irrelevant(name, seed, data):
    """Loss and metrics stay, the gradient moves with the completions."""
    batch = make_batch(seed, prompts=2, n=4, empty=(5,))
    within = [data.draw(st.permutations(range(4))) for _ in range(2)]
    groups = data.draw(st.permutations(range(2)))
    order = torch.tensor([4 * g + i for g in groups for i in within[g]])

    def run(order):
        rewards, mask = batch.rewards.flatten()[order].reshape(2, 4), batch.mask[order]
        present = mask.any(1).reshape(2, 4)
        advantage = ALGORITHMS[name].advantage(rewards, TAU, present).flatten()
        logp, old_logp = batch.logp[order], batch.old_logp[order]
        loss, metrics = ALGORITHMS[name].loss(logp, old_logp, mask, advantage, SETTINGS)
        return loss, metrics, gradient(loss, batch)

    for actual, expected in zip(run(order), run(torch.arange(8))):
        assert_close(actual, expected, rtol=1e-10, atol=1e-12)


# Relations between the losses, and with the theory


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_completions_of_one_token_have_no_granularity(normalization):
    batch = make_batch(T=2)
    batch.mask[:] = torch.tensor([True, False])
    advantage = batch.rewards.flatten()
    rest = (normalization, MAX_LENGTH)
    regressions = [log_ratio_regression(*batch.inputs, advantage, TAU, g, *rest)[0] for g in GRANULARITIES]
    clipped = [clipped_policy_gradient(*batch.inputs, advantage, *CLIP, ratio, *rest)[0] for ratio in RATIOS]
    for losses in (regressions, clipped):
        gradients = [gradient(loss, batch) for loss in losses]
        for other, other_gradient in zip(losses[1:], gradients[1:]):
            assert_close(other, losses[0])
            assert_close(other_gradient, gradients[0])


def test_the_weighted_regression_over_a_whole_policy_is_minimised_by_pmd_mean():
    """One token per completion, every action once, weighted by p: descent on the logits lands on Statement 2."""
    p = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    reward = torch.tensor([1.0, -0.5, 0.4, 0.0], dtype=torch.float64)
    advantage = reward - (p * reward).sum()
    mask = torch.ones(4, 1, dtype=torch.bool)
    logits = p.log().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        logp = logits.log_softmax(0)[:, None]
        loss, _ = log_ratio_regression(logp, p.log()[:, None], mask, advantage, TAU, weight=4 * p)
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = pmd_mean_update(p.numpy(), reward.numpy(), TAU).policy
    np.testing.assert_allclose(logits.detach().softmax(0).numpy(), expected, rtol=1e-5)


def test_without_clipping_the_sequence_ratio_estimates_the_surrogate_objective():
    batch = make_batch()
    advantage = batch.rewards.flatten()
    loss, metrics = clipped_policy_gradient(*batch.inputs, advantage, math.inf, math.inf, "sequence")
    ratio = (torch.where(batch.mask, batch.logp - batch.old_logp, 0).sum(1)).exp()
    assert_close(loss, -(ratio * advantage).mean())
    assert metrics["clip_fraction"] == 0


# Extreme ratios


@pytest.mark.parametrize("s", [-1e4, -200.0, 25.0, 200.0, 1e4])
@pytest.mark.parametrize("A", [-1.0, 1.0])
@pytest.mark.parametrize("ratio", RATIOS)
def test_extreme_ratios_leave_loss_and_gradient_finite(ratio, A, s):
    """Clipped where the advantage favours the excess; otherwise a gradient of the right sign, or e^s → 0."""
    logp = torch.tensor([[s]], dtype=torch.float32, requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, metrics = clipped_policy_gradient(logp, torch.zeros(1, 1), mask, torch.tensor([A]), 0.2, 0.2, ratio)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logp.grad).all()
    favoured = s * A > 0
    assert metrics["clip_fraction"] == favoured
    assert logp.grad.item() == 0 if favoured else -A * logp.grad.item() >= 0
    if s > 0 and not favoured:
        assert logp.grad.item() == pytest.approx(math.exp(20))


def test_the_regression_stays_accurate_at_small_tau():
    """τ = 1e-4, targets of ±1e4, single precision: the residual form in double precision is the reference."""
    batch = make_batch()
    logp = batch.logp.detach().float().requires_grad_()
    advantage = batch.rewards.flatten()
    loss, _ = log_ratio_regression(logp, batch.old_logp.float(), batch.mask, advantage.float(), 1e-4)
    loss.backward()
    s = log_ratio(*batch.inputs).sum(1, keepdim=True).detach()
    expected = -(advantage[:, None] - 1e-4 * s) * batch.mask / 12
    assert_close(logp.grad.double(), expected, rtol=1e-6, atol=1e-8)


# Metrics


def test_metrics_describe_the_completions():
    batch = make_batch(empty=(1,))
    advantage = batch.rewards.flatten()
    s = np.array([sum(row) for row in log_ratios(batch) if row])
    A = np.delete(advantage.numpy(), 1)
    tokens = [(A_i, x) for A_i, row in zip(A, [row for row in log_ratios(batch) if row]) for x in row]
    residual = {
        "sequence": np.sqrt(np.mean((A - TAU * s) ** 2)),
        "token": np.sqrt(np.mean([(A_i - TAU * x) ** 2 for A_i, x in tokens])),
    }
    for granularity, expected in residual.items():
        _, metrics = log_ratio_regression(*batch.inputs, advantage, TAU, granularity)
        assert metrics["residual"].item() == pytest.approx(expected)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_clip_fraction_is_the_share_without_gradient(ratio):
    batch = make_batch(empty=(1,))
    loss, metrics = clipped_policy_gradient(*batch.inputs, batch.rewards.flatten(), *CLIP, ratio)
    dead = gradient(loss, batch) == 0
    clipped = {"token": dead[batch.mask], "sequence": dead.all(1)[batch.mask.any(1)]}[ratio]
    expected = clipped.double().mean()
    assert 0 < expected < 1
    assert_close(metrics["clip_fraction"], expected)


# Settings and errors


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_settings_replace_the_algorithms_length_normalization(name, normalization):
    batch = make_batch()
    advantage = batch.rewards.flatten()
    chosen = dataclasses.replace(SETTINGS, length_normalization=normalization)
    other = dataclasses.replace(ALGORITHMS[name], length_normalization=normalization)
    loss, _ = ALGORITHMS[name].loss(*batch.inputs, advantage, chosen)
    expected, _ = other.loss(*batch.inputs, advantage, SETTINGS)
    assert loss == expected


def bad_calls():
    batch = make_batch()
    logp, old_logp, mask = (x.detach() for x in batch.inputs)
    A = batch.rewards.flatten()
    regress, clip = log_ratio_regression, clipped_policy_gradient
    return {
        "logp must have shape": lambda: regress(logp[0], old_logp, mask, A, TAU),
        "old_logp must have shape": lambda: regress(logp, old_logp[:, 1:], mask, A, TAU),
        "mask must have shape": lambda: regress(logp, old_logp, mask[1:], A, TAU),
        "mask must be boolean": lambda: regress(logp, old_logp, mask.long(), A, TAU),
        "advantage must have shape": lambda: clip(logp, old_logp, mask, A[:, None], *CLIP),
        "weight must have shape": lambda: regress(logp, old_logp, mask, A, TAU, weight=A[1:]),
        "tau must be positive and finite, got 0": lambda: regress(logp, old_logp, mask, A, 0),
        "tau must be positive and finite, got nan": lambda: regress(logp, old_logp, mask, A, math.nan),
        "clip_low must be at least 0, got -0.1": lambda: clip(logp, old_logp, mask, A, -0.1, 0.2),
        "clip_high must be at least 0, got nan": lambda: clip(logp, old_logp, mask, A, 0.2, math.nan),
        "granularity must be one of sequence, token, got 'word'": lambda: regress(
            logp, old_logp, mask, A, TAU, "word"
        ),
        "granularity must be one of .*, got 'word'": lambda: clip(logp, old_logp, mask, A, *CLIP, "word"),
        "length_normalization must be one of .*, got 'mean'": lambda: regress(
            logp, old_logp, mask, A, TAU, length_normalization="mean"
        ),
        "max_length must be a positive number, got None": lambda: clip(
            logp, old_logp, mask, A, *CLIP, length_normalization="seq-mean-token-sum-norm"
        ),
        "scale must be one of none, std, sd, rank, got 'max'": lambda: advantages(
            batch.rewards, BASELINES["mean"], TAU, scale="max"
        ),
        "algorithm must be one of .*, or pmd: and one of .*, got 'median'": lambda: algorithm("median"),
        "at least two rollouts": lambda: advantages(batch.rewards[:, :1], BASELINES["loo_mean"], TAU),
    }


@pytest.mark.parametrize("message", bad_calls())
def test_bad_input_is_named(message):
    with pytest.raises(ValueError, match=message):
        bad_calls()[message]()


def test_one_entry_adds_a_baseline_that_trains(monkeypatch):
    """The largest reward of a group as baseline: one entry of the registry, and `pmd:best` is an algorithm."""
    best = Baseline("best", lambda rewards, mask: torch.where(mask, rewards, -torch.inf).amax(-1))
    monkeypatch.setitem(BASELINES, "best", best)
    batch = make_batch()
    advantage = algorithm("pmd:best").advantage(batch.rewards, TAU)
    assert_close(advantage, batch.rewards - batch.rewards.amax(1, keepdim=True))
    loss, _ = algorithm("pmd:best").loss(*batch.inputs, advantage.flatten(), SETTINGS)
    expected, _ = log_ratio_regression(*batch.inputs, advantage.flatten(), TAU)
    assert_close(loss, expected)


@pytest.mark.parametrize("name", ["pmd-mean", "kimi-token", "grpo", "rloo"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_losses_of_parts_add_up_to_that_of_the_whole(name, normalization):
    """Parts of unequal size, each told the count of the whole; the mean of their own means is something else."""
    batch = make_batch(seed=4, prompts=4, n=3, empty=(2, 7))
    advantage = torch.linspace(-1, 1, 12, dtype=torch.float64)
    whole = dataclasses.replace(SETTINGS, length_normalization=normalization)
    parts = [range(2), range(2, 7), range(7, 12)]

    def loss(rows, settings):
        rows = list(rows)
        inputs = (value[rows] for value in batch.inputs)
        return ALGORITHMS[name].loss(*inputs, advantage[rows], settings)[0]

    expected = loss(range(12), whole)
    counted = dataclasses.replace(whole, count=torch.tensor(10))
    torch.testing.assert_close(sum(loss(rows, counted) for rows in parts), expected)
    assert abs(sum(loss(rows, whole) for rows in parts) / 3 - expected) > 1e-3 * abs(expected)


def test_log_ratios_are_added_in_single_precision_at_least():
    """501 log-ratios of 1/128, a sum that bfloat16 does not hold."""
    old, mask = torch.zeros(1, 501, dtype=torch.bfloat16), torch.ones(1, 501, dtype=torch.bool)
    assert (old + 1 / 128).sum().item() != 501 / 128
    assert log_ratio(old + 1 / 128, old, mask).sum().item() == 501 / 128
    assert log_ratio(old.double(), old.double(), mask).dtype == torch.float64
