"""PMD-mean: the mean reward in place of the log-partition, gradients averaged over the anchor."""

from .. import convex, updates
from .member import Member

MEMBER = Member(
    name="pmd-mean",
    papers="Kimi k1.5 2501.12599, Kimi K2 2507.20534, Xu et al. 2602.05933",
    formula="E_p (r − r̄ − τ s)²",
    decides="averaged over the anchor, V = r̄",
    law_formula="s + λ e^s = (r − r̄)/τ",
    exists="always",
    statement="2",
    function=updates.pmd_mean_update,
    convex=convex.regression,
)
