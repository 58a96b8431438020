"""Claims about the update in theory and simulation, whose verdicts follow from the committed tables.

``python -m figures --update`` writes them as a table between two marks of ``docs/findings.md``. Statements that are
proved are counted where tables hold them on problems; differences between sampled runs by Student's test over their
seeds, corrected by Holm's method within a claim.
"""

import numpy as np
import pandas as pd

from pmdtheory import advice
from pmdtheory.comparisons import signs, student_test
from pmdtheory.intervals import mean_interval

from . import better_knob, finite_sample_improvement, harness, loglinear_training, marks, where_it_pays
from .finite_sample_iterated import PLAIN, STEPS
from .verdicts import Claim, counted

MARKS = "<!-- simulation: python -m figures --update -->\n", "<!-- end of simulation -->\n"


def claims():
    """All claims in order."""
    rows = (
        *(step, one_context, low_values, partition, one_step, many_steps, loglinear, knob, blind, inexact, laws),
        *(wrong_reward, mdps, pays),
    )
    return [row() for row in rows]


def table():
    """Return the claims with evidence and verdicts as Markdown."""
    rows = [f"| {claim.claim} | {claim.evidence} | {claim.verdict} |" for claim in claims()]
    return "\n".join(["| claim | evidence | verdict |", "|---|---|---|", *rows]) + "\n"


def step():
    """CVXPY's solution of the mirror descent step, and the weight against the KL divergence."""
    solved, weights = _read("population"), _read("adaptive_weight")
    solved = solved[solved["update"] == "mean"].dropna(subset=["cvxpy_subproblem"])
    distance = (solved.policy * np.exp(solved.cvxpy_subproblem) - solved.policy * np.exp(solved.log_ratio)).abs()
    distance = distance.groupby([solved.mean_reward, solved.tau]).sum()
    off = (weights.chi2_weight / weights.reverse_kl - 1).abs()
    return Claim(
        "PMD-mean is a mirror descent step with weight λ = KL(p‖q) on χ²",
        f"proved (Statements 1–4); of {len(distance)} such problems CVXPY's solutions are within "
        f"{distance.max():.0e} (L1), and λ within {max(off.max(), 1e-12):.0e} of KL(p‖q) on {len(off)} (*population*, "
        "*adaptive weight*)",
        counted(np.where([*(distance < 1e-5), *(off < 1e-9)], 1, -1)),
        "problems",
    )


def one_context():
    """Failures that one step leaves, in a bandit with binary rewards."""
    rows = _read("conservatism")
    rows = rows[rows.success < 0.3]
    row = rows[rows.tau == 0.1].assign(off=lambda some: (some.success - 0.01).abs()).nsmallest(1, "off").squeeze()
    more = np.sign((rows.mean_factor / rows.kl_factor - 1).round(9))
    left = f"{row.mean_factor:.0%}, the KL update {row.kl_factor:.1%}" if len(rows) else "–"
    return Claim(
        "holds back where successes are rare",
        f"of the failures at J = 0.01, τ = 0.1 one step leaves {left}; it leaves more in {(more > 0).sum()} of "
        f"{len(rows)} problems with J < 0.3 (*conservatism*, *zero temperature*)",
        counted(more.astype(int)),
        "problems",
    )


def low_values():
    """How far the two updates move in a gridworld's cells of low value."""
    cells = _read("mdp_lambda_map")
    low = cells[cells.V < 0.05]
    held = (low.kl_kl > 0.01) & (low.kl_mean < low.kl_kl / 2)
    still = (low.kl_kl <= 0.01).mean() if len(low) else 0
    return Claim(
        "a low value alone makes it hold back in a gridworld",
        f"where V < 0.05 it moves less than half as far as the KL update in {held.sum()} of {len(low)} cells; in "
        f"{still:.0%} the actions differ too little for either to move 0.01 nats (*mdp lambda map*)",
        counted(np.where(held, 1, -1)),
        "cells",
    )


def partition():
    """Root mean square error of the log-partition from 16 rollouts, in nats."""
    rows = _read("log_partition_laboratory")
    rows = rows[(rows.sweep == "tau") & (rows.estimator == "log_partition")]
    error = np.hypot(rows.bias, rows.sd)
    groups = {"at τ ≤ 0.1": error[rows.tau <= 0.1], "at τ ≥ 0.5": error[rows.tau >= 0.5]}
    cases = {
        name: (1 if (some > 1).all() else -1 if (some <= 1).all() else 0) if len(some) else None
        for name, some in groups.items()
    }
    said = ", ".join(f"{marks.span(some, 2)} nats {name}" for name, some in groups.items() if len(some))
    return Claim(
        "the log-partition cannot be estimated from a few rollouts",
        f"off by more than a factor e: root mean square error with n = 16, J = 0.1: {said} (*log-partition "
        "laboratory*)",
        cases,
    )


def one_step():
    """Gain of one step from finitely many rollouts, paired by seed."""
    found = finite_sample_improvement.compared(_read("finite_sample_improvement"))
    parts = [
        f"K = {count}: ahead in {(some.sign > 0).sum()}, behind in {(some.sign < 0).sum()} of {len(some)}"
        for count, some in found.groupby("actions")
    ]
    return Claim(
        "gains more than PMD-part in a step from few rollouts",
        f"{'; '.join(parts)}, over temperatures and n, after Holm's correction (*finite sample improvement*, "
        "*three cases*)",
        counted(found.sign),
        "comparisons",
    )


def many_steps():
    """Reward after many steps without noise and with it."""
    last = _read("finite_sample_iterated")
    last = last[last.step == STEPS]
    settings = {
        "without noise": (last.case == "graded") & (last.sweep == "steps"),
        "with Gaussian noise of 0.5": (last.sweep == "scale") & (last.scale == 0.5),
        "with coins": (last.case == "noisy") & (last.sweep == "steps"),
    }
    tests, said = {}, []
    for name, chosen in settings.items():
        rows = last[chosen].set_index("estimator")
        if set(PLAIN) <= set(rows.index):
            ours, part = (rows.loc[plain] for plain in PLAIN)
            half = np.hypot(ours.reward_half, part.reward_half)
            tests[name] = student_test(ours.reward - part.reward, half, int(min(ours.runs, part.runs)))
            ends = (f"{one.reward:.2f} ± {one.reward_half:.2f}" for one in (ours, part))
            said.append(f"{name} {' against '.join(ends)}")
    return Claim(
        f"ends higher than PMD-part after {STEPS} steps from few rollouts",
        f"{'; '.join(said)}, Holm's correction (*finite sample iterated*)",
        dict.fromkeys(settings) | dict(zip(tests, signs(list(tests.values())))),
    )


def loglinear():
    """Lead on held-out contexts of a log-linear bandit, early and late, cold and warm."""
    table = loglinear_training.of(
        _read("loglinear_training"),
        rollouts=loglinear_training.ROLLOUTS, updates=loglinear_training.UPDATES, staleness=0,
    )  # fmt: skip
    tests, said = {}, []
    for tau in dict.fromkeys((table.tau.min(), table.tau.max())) if len(table) else ():
        for name, after in (("early", 5), ("late", table.step.max())):
            lead = loglinear_training.advantage(loglinear_training.of(table, tau=tau, step=after)).advantage
            estimate = mean_interval(lead)
            tests[f"{name} at τ = {tau:g}"] = student_test(estimate.value, estimate.half_width, len(lead))
            said.append(f"{name} at τ = {tau:g} {estimate:+.3f}".replace("± +", "± "))
    return Claim(
        "ahead of PMD-part in a log-linear bandit",
        f"lead in held-out reward {', '.join(said)}, Holm's correction (*loglinear training*)",
        dict(zip(tests, signs(list(tests.values())))),
    )


def knob():
    """Knobs against the better of PMD-mean and PMD-part at a fixed τ."""
    leads = better_knob.leads(_read("better_knob"))
    leads = leads[leads.knob != "measuring"]
    return Claim(
        "a knob beats a fixed τ and baseline in bandits",
        f"{_leads(leads)}, by more than 0.5% and after Holm's correction (*better knob*; networks: *training knob*)",
        counted(leads.sign),
        "comparisons",
    )


def blind():
    """A temperature that follows λ against one that falls blindly."""
    leads = better_knob.leads(_read("better_knob"))
    leads = leads[leads.knob == "measuring"]
    return Claim(
        "a τ that follows λ beats one that falls blindly",
        f"{_leads(leads)}, by more than 0.5% and after Holm's correction (*better knob*)",
        counted(leads.sign),
        "bandits",
    )


def pays():
    """Regimes of many updates a batch in which PMD-mean leads all others in simulated training."""
    table = _read("where_it_pays")
    cells = where_it_pays.mapped(table) if len(table) else table.assign(verdict=[], lead=[])
    many = cells[cells.updates >= 16]
    few = cells[cells.updates < 16]
    leads = f"{many.lead.min():+.2f} to {many.lead.max():+.2f}" if len(many) else "–"
    return Claim(
        "leads PMD-part, GRPO and RLOO where a batch has many updates",
        f"simulated training: lead of {leads} in success rate with 16 or more updates a batch; with fewer ahead in "
        f"{(few.verdict == advice.OURS).sum()} of {len(few)} regimes, by more than {advice.MARGIN} and after "
        "Bonferroni's correction (*where it pays*; a network: [for practitioners](practitioners.md))",
        counted(many.verdict.map({advice.OURS: 1, "none": 0}).fillna(-1).astype(int).to_numpy()),
        "regimes",
    )


def _leads(leads):
    """How many leads of each knob are ahead and behind, in words."""
    names = better_knob.KNOBS | {"measuring": "scheduled τ over annealed"}
    return "; ".join(
        f"{names[name]}: ahead in {(some.sign > 0).sum()}, behind in {(some.sign < 0).sum()} of {len(some)} bandits"
        for name, some in leads.groupby("knob", sort=False)
    )


def inexact():
    """Floor of the gap on estimated values, growing steps and constant ones."""
    rows = _read("inexact_evaluation")
    rows = rows[(rows.iteration == rows.iteration.max()) & (rows.oracle != "adversary")]
    rows = rows.set_index(["rule", "oracle", "level", "update"])[["floor", "floor_half_width", "garnets"]]
    floor, half, count = (rows[name].unstack("update").reindex(columns=["kl", "mean"]) for name in rows)
    halves = np.hypot(half["kl"], half["mean"])
    tests = [student_test(*row) for row in zip(floor["kl"] - floor["mean"], halves, count.min(axis=1))]
    found = pd.Series(signs(tests), floor.index, dtype=int)
    words = {"adaptive": "growing steps", "constant": "a constant τ"}
    said = "; ".join(
        f"with {words.get(rule, rule)} in {(some > 0).sum()} of {len(some)} settings, higher in {(some < 0).sum()}"
        for rule, some in found.groupby(level="rule")
    )
    return Claim(
        "steadier than the KL update under inexact evaluation",
        f"its gap ends lower {said}, after Holm's correction (*inexact evaluation*)",
        counted(found),
        "settings",
    )


def laws():
    """How far the laws of other losses are from the two, at the same τ."""
    rows = _read("family").replace([np.inf, -np.inf], np.nan)
    curves = rows.set_index(["law", "prompt", "index"]).log_ratio.unstack("law")
    others = [law for law in curves if law not in ("on-policy", "pmd-mean")]
    nearest = {
        law: min((curves[law] - curves[known]).abs().max() for known in ("on-policy", "pmd-mean")) for law in others
    }
    said = f"{marks.span(nearest.values(), 2)} nats from the nearer of the two" if nearest else "–"
    return Claim(
        "losses in use have laws of their own, neither PMD-mean's nor the KL law",
        f"largest difference of log(q/p): {said}, for {', '.join(nearest)} ([the family](family.md), *family*, "
        "*averaging*, *filtering*, *kimi k25*)",
        {marks.name_of_law(law): 1 if far > 0.01 else -1 for law, far in nearest.items()},
        "laws",
    )


def wrong_reward():
    """How far one wrong reward moves the update."""
    rows = _read("robustness")
    rows = rows[rows.law.isin(["pmd-mean", "on-policy"])]
    moved = rows.pivot(index=["prompt", "tau"], columns="law", values="largest")
    less = np.sign((moved["on-policy"] / moved["pmd-mean"] - 1).round(9)) if len(moved) else rows.tau
    return Claim(
        "one wrong reward moves it less than the KL law",
        f"the worst one in {(less > 0).sum()} of {len(less)} settings of prompt and τ; of a rare action by O(√p) at "
        "most (Statement 31, *robustness*)",
        counted(less.astype(int)),
        "settings",
    )


def mdps():
    """Bounds on values, gaps and improvement in MDPs."""
    rows = _read("mdp_convergence")
    names = ", ".join(rows.claim.astype(str).unique())
    return Claim(
        "improves every state of an MDP, at least at the proved rates",
        f"proved (Statements 15, B11); {rows.holds.sum()} of {len(rows)} points within the bounds of {names} (*mdp "
        "convergence*; small τ: Statement 32, *recovery*)",
        counted(np.where(rows.holds, 1, -1)),
        "points",
    )


def _read(name):
    return harness.read(harness.DATA / f"{name}.csv")
