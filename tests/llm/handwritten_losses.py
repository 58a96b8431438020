"""Losses in a few lines each, as a reader would write them: members of the family, and the same with a mistake.

``loss(logp, old_logp, mask, rewards, tau)`` of one group, as `pmdtheory.identify` calls it.
"""

import torch


def log_ratio(logp, old_logp, mask):
    return ((logp - old_logp) * mask).sum(-1)


def centred(rewards):
    return rewards - rewards.mean()


def pmd_mean(logp, old_logp, mask, rewards, tau):
    return (centred(rewards) - tau * log_ratio(logp, old_logp, mask)).square().mean()


def pmd_mean_of_targets(logp, old_logp, mask, rewards, tau):
    """The same divided by τ²: a target A/τ."""
    return (centred(rewards) / tau - log_ratio(logp, old_logp, mask)).square().mean()


def signs(logp, old_logp, mask, rewards, tau):
    """Rewards ±1 at τ are rewards 0 and 1 at τ/2."""
    return pmd_mean(logp, old_logp, mask, 2 * rewards - 1, tau)


def free_baseline(logp, old_logp, mask, rewards, tau):
    return (rewards - tau * log_ratio(logp, old_logp, mask)).var()


def on_policy(logp, old_logp, mask, rewards, tau):
    s = log_ratio(logp, old_logp, mask)
    return (s.exp().detach() * (centred(rewards) - tau * s).square()).mean()


def a_star_po(logp, old_logp, mask, rewards, tau):
    """A*-PO: the value at β₁ = 2τ from the anchor, then regression on fresh rollouts."""
    value = 2 * tau * (torch.logsumexp(rewards / (2 * tau), 0) - torch.tensor(len(rewards)).log())
    s = log_ratio(logp, old_logp, mask)
    return (s.exp().detach() * (rewards - value - tau * s).square()).mean()


def a_star_po_over_the_anchor(logp, old_logp, mask, rewards, tau):
    value = 2 * tau * (torch.logsumexp(rewards / (2 * tau), 0) - torch.tensor(len(rewards)).log())
    return (rewards - value - tau * log_ratio(logp, old_logp, mask)).square().mean()


def ideal_weights(logp, old_logp, mask, rewards, tau):
    residual = centred(rewards) - tau * log_ratio(logp, old_logp, mask)
    return (torch.softmax(rewards / tau, 0) * residual.square()).sum()


def divided_by_length(logp, old_logp, mask, rewards, tau):
    return ((centred(rewards) - tau * log_ratio(logp, old_logp, mask)).square() / mask.sum(-1)).mean()


def standardised(logp, old_logp, mask, rewards, tau):
    A = centred(rewards) / (rewards.std(correction=0) + 1e-12)
    return (A - tau * log_ratio(logp, old_logp, mask)).square().mean()


def truncated(logp, old_logp, mask, rewards, tau):
    s = log_ratio(logp, old_logp, mask)
    return (s.exp().clamp(max=1.5).detach() * (centred(rewards) - tau * s).square()).mean()


def kimi_k25(logp, old_logp, mask, rewards, tau):
    s = log_ratio(logp, old_logp, mask)
    return -(s.exp() * centred(rewards) - 0.4 * s.square()).mean()


def cfpo(logp, old_logp, mask, rewards, tau):
    rho, A = log_ratio(logp, old_logp, mask).exp(), centred(rewards)
    return -(rho * A - A.abs() * (rho - 1).square() / (2 * 0.3)).mean()


def successes(logp, old_logp, mask, rewards, tau):
    """Supervised training in proportion to the reward: AsymRE at V = 0."""
    return -(rewards * (logp * mask).sum(-1)).mean()


def cispo(logp, old_logp, mask, rewards, tau):
    rho = log_ratio(logp, old_logp, mask).exp()
    return -(rho.clamp(max=1.3).detach() * centred(rewards) * (logp * mask).sum(-1)).mean()


def filtered(logp, old_logp, mask, rewards, tau):
    """PMD-mean with equal-reward groups dropped."""
    return pmd_mean(logp, old_logp, mask, rewards, tau) * (rewards.max() > rewards.min())


def quantile(logp, old_logp, mask, rewards, tau):
    rank = (rewards[None] <= rewards[:, None]).to(rewards.dtype).mean(-1)
    log_z = torch.tensor(1 / tau).expm1().mul(tau).log()
    return (rank - tau * log_z - tau * log_ratio(logp, old_logp, mask)).square().mean()


def per_token_squares(logp, old_logp, mask, rewards, tau):
    """Mistake: the square of each token's ratio instead of the completion's."""
    s = (logp - old_logp) * mask
    return (tau / 2 * s.square() - centred(rewards)[:, None] * s).sum(-1).mean()


def clamped_log_partition(logp, old_logp, mask, rewards, tau):
    """Mistake: the own term is subtracted from the sum, the rest clamped at 1e-8."""
    top = rewards.max()
    w = ((rewards - top) / tau).exp()
    value = top + tau * ((w.sum() - w) / (len(w) - 1)).clamp(min=1e-8).log()
    return (rewards - value - tau * log_ratio(logp, old_logp, mask)).square().mean()


def without_mask(logp, old_logp, mask, rewards, tau):
    """Mistake: padding counts."""
    return (centred(rewards) - tau * (logp - old_logp).sum(-1)).square().mean()


def advantage_over_tokens(logp, old_logp, mask, rewards, tau):
    """Mistake: the advantage is divided by the number of tokens, the penalty is not."""
    return (centred(rewards) / mask.sum(-1) - tau * log_ratio(logp, old_logp, mask)).square().mean()


def leaking_baseline(logp, old_logp, mask, rewards, tau):
    """Mistake: the mean reward of the new policy as baseline, its gradient not stopped."""
    s = log_ratio(logp, old_logp, mask)
    return (rewards - (s.exp() * rewards).mean() - tau * s).square().mean()


def tau_dropped(logp, old_logp, mask, rewards, tau):
    """Mistake: the penalty has no τ."""
    return (centred(rewards) - 0.5 * log_ratio(logp, old_logp, mask)).square().mean()
