r"""One temperature estimates the value, another one regresses on it.

V = β₁ log E_p[e^{r/β₁}] from offline samples of the anchor, slope τ = β₂. Averaged over the anchor it is Statement 10
at b = V, between the KL update (β₁ = β₂) and PMD-mean (β₁ = ∞). A*-PO as published averages over the policy: the KL law
at β₂ for every β₁.

References
----------
Statement 22.
"""

import numpy as np
from numpy.typing import ArrayLike

from .. import convex, updates
from ..updates import Update
from .member import Member


def law(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, baseline_tau: ArrayLike, averaged_over: str = "anchor"
) -> Update:
    """Statement 10 at b = β₁ log E_p[e^{r/β₁}], or the KL law.

    Parameters
    ----------
    policy, reward, tau
        As in `pmdtheory.family.Member.law`; τ is β₂.
    baseline_tau : array_like, shape (...)
        β₁ > 0, reward units; a principal-branch law always exists for β₁ ≥ τ.
    averaged_over : {'anchor', 'policy'}
        Where the rollouts come from: the anchor, or the policy itself as published.

    Examples
    --------
    >>> for beta in (1.0, 3.0, 1e6):
    ...     print(law([0.5, 0.5], [0.0, 1.0], tau=1.0, baseline_tau=beta).policy.round(4))
    [0.2689 0.7311]
    [0.2804 0.7196]
    [0.2862 0.7138]
    """
    value = _value(policy, reward, baseline_tau, averaged_over)
    if averaged_over == "policy":
        return updates.kl_update(policy, reward, tau)
    same = np.asarray(baseline_tau) == np.asarray(tau)
    if same.all():
        return updates.kl_update(policy, reward, tau)
    return updates.baseline_update(policy, reward, tau, value)


def _value(policy, reward, baseline_tau, averaged_over):
    if averaged_over not in ("anchor", "policy"):
        raise ValueError(f"averaged_over must be 'anchor' or 'policy', got {averaged_over!r}.")
    try:
        return updates.kl_update(policy, reward, baseline_tau).baseline
    except ValueError as error:
        raise ValueError(str(error).replace("tau must", "baseline_tau must")) from None


def _convex(policy, reward, tau, baseline_tau, averaged_over="anchor", **solver_options):
    if averaged_over == "policy":
        return convex.kl(policy, reward, tau, **solver_options)
    value = _value(policy, reward, baseline_tau, averaged_over)
    return convex.regression(policy, reward, tau, value, **solver_options)


MEMBER = Member(
    name="two-temperatures",
    papers="A*-PO 2505.20686",
    formula="E (r − β₁ log E_p e^{r/β₁} − β₂ s)²",
    decides="averaged over the anchor or over the policy",
    law_formula="s + λ e^s = (r − β₁ log E_p e^{r/β₁})/β₂; over the policy s = r/β₂ − log Z",
    exists="β₁ ≥ β₂; below, a local one while V ≤ b_max",
    statement="22",
    function=law,
    example={"baseline_tau": 0.9},
    convex=_convex,
)
