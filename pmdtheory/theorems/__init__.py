"""Executable theorems: each statement of ``README.md`` as functions that evaluate both of its sides.

`STATEMENTS` maps a statement's label to its claims and to random problems for them; ``check.run`` tries them all.
"""

from collections.abc import Callable
from typing import NamedTuple

from . import (
    bandit_rates,
    baseline_knob,
    binary_reward,
    implicit_regulariser,
    improvement,
    jensen_gap,
    likelihood_ratio_order,
    limits,
    mdp_adaptive_steps,
    mdp_certificate,
    mdp_constant_step,
    mdp_entropy_regularised,
    mdp_geometric_steps,
    mdp_improvement,
    mdp_pmd_mean_rate,
    mdp_problems,
    overestimated_baseline,
    problems,
    reverse_kl_weight,
    softmax_policy_gradient,
)
from .claim import Claim

__all__ = ["STATEMENTS", "Claim", "Statement"]


class Statement(NamedTuple):
    """The claims of one statement, and the sampler of problems whose arguments they all take (see ``problems.py``)."""

    claims: tuple[Callable[..., Claim], ...]
    sample: Callable = problems.contexts


STATEMENTS = {
    "3": Statement((implicit_regulariser.mixed_update_agrees, implicit_regulariser.mixed_objective_is_largest)),
    "4": Statement((reverse_kl_weight.weight_is_reverse_kl,)),
    "5": Statement((improvement.pmd_mean_improvement, improvement.kl_improvement)),
    "6": Statement(
        (
            jensen_gap.gap_is_reverse_kl_of_kl_update,
            jensen_gap.weight_below_jensen_gap,
            jensen_gap.weight_below_half_spread,
            jensen_gap.weight_below_largest_target,
        )
    ),
    "7": Statement(
        (
            likelihood_ratio_order.ratio_increases_with_reward,
            likelihood_ratio_order.kl_ratio_increases_faster,
            likelihood_ratio_order.convex_order,
            likelihood_ratio_order.smaller_kl,
            likelihood_ratio_order.smaller_reverse_kl,
            likelihood_ratio_order.smaller_chi2,
            likelihood_ratio_order.smaller_f_divergences,
            likelihood_ratio_order.smaller_largest_ratio,
            likelihood_ratio_order.larger_smallest_ratio,
            likelihood_ratio_order.smaller_log_ratio_spread,
            likelihood_ratio_order.reward_between,
        )
    ),
    "8": Statement(
        (
            limits.weight_at_high_temperature_from_above,
            limits.weight_at_high_temperature_from_below,
            limits.updates_agree_at_high_temperature,
            limits.weight_at_low_temperature,
            limits.policy_at_low_temperature,
            limits.keeps_several_actions_at_low_temperature,
            limits.kl_update_is_greedy_at_low_temperature,
        )
    ),
    "9": Statement(
        (
            binary_reward.success_ratio,
            binary_reward.failure_ratio_from_above,
            binary_reward.failure_ratio_from_below,
            binary_reward.kl_failure_ratio,
            binary_reward.kl_failure_ratio_from_above,
            binary_reward.penalty_near_variance,
        ),
        problems.binary_contexts,
    ),
    "10": Statement(
        (
            baseline_knob.weight_identity,
            baseline_knob.weight_decreases,
            baseline_knob.reward_increases,
            baseline_knob.ideal_at_log_partition,
            baseline_knob.pmd_mean_at_mean,
            baseline_knob.frozen_far_below,
        ),
        problems.contexts_with_baselines,
    ),
    "11": Statement(
        (
            overestimated_baseline.no_solution_above_largest_baseline,
            overestimated_baseline.solution_up_to_largest_baseline,
            overestimated_baseline.strict_local_minimum,
            overestimated_baseline.least_loss_below_ratio,
            overestimated_baseline.dumping_costs_less,
        ),
        problems.contexts_with_high_baselines,
    ),
    "15(a)": Statement((mdp_improvement.pmd_mean_improves, mdp_improvement.kl_improves), mdp_problems.mdps),
    "15(b)": Statement(
        (mdp_improvement.pmd_mean_improves_inexactly, mdp_improvement.kl_improves_inexactly),
        mdp_problems.mdps_with_errors,
    ),
    "15(c)": Statement((mdp_improvement.terminal_states_stay,), mdp_problems.episodic_mdps),
    "B1": Statement((mdp_adaptive_steps.gamma_linear_rate,), mdp_problems.mdps),
    "B2": Statement((mdp_adaptive_steps.lookahead_rate,), mdp_problems.mdps_with_lookahead),
    "B3": Statement((mdp_adaptive_steps.inexact_rate,), mdp_problems.mdps_with_errors),
    "B4": Statement((mdp_constant_step.constant_step_rate,), mdp_problems.mdps),
    "B5": Statement((mdp_geometric_steps.geometric_step_rate,), mdp_problems.mdps),
    "B6": Statement((mdp_entropy_regularised.lan_rate,), mdp_problems.regularised_mdps),
    "B7": Statement((mdp_entropy_regularised.npg_rate,), mdp_problems.regularised_mdps),
    "B8": Statement((bandit_rates.kl_rate,)),
    "B9": Statement((softmax_policy_gradient.softmax_gradient_rate,), mdp_problems.unit_contexts),
    "B10": Statement(
        (mdp_certificate.advantage_below_gap, mdp_certificate.gap_below_certificate),
        mdp_problems.mdps_with_policies,
    ),
    "B11": Statement((bandit_rates.pmd_mean_rate,)),
    "B11 MDP": Statement((mdp_pmd_mean_rate.pmd_mean_rate,), mdp_problems.mdps),
}
