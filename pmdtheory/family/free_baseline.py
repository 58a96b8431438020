"""A baseline re-estimated as the mean of r − τ s: the variance of the residual.

The residuals then average to zero, so C = 0 and they vanish one by one: the KL law, under every measure of full
support, every positive symmetric weight of pairs, and groups of any n ≥ 2. The loss is a convex quadratic in the
logits.

References
----------
Statement 21.
"""

from .. import convex, updates
from .member import Member

MEMBER = Member(
    name="free-baseline",
    papers="AGRO 2503.19612, GVPO 2504.19599, VarGrad/TBA 2503.18929, REBEL 2404.16767, DRO 2405.19107",
    formula="Var_μ(r − τ s)",
    decides="V follows the residual, so C = 0",
    law_formula="s = r/τ − log Z",
    exists="always",
    statement="21",
    function=updates.kl_update,
    convex=convex.kl,
)
