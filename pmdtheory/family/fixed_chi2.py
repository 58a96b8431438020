"""A fixed χ² penalty beside the KL one.

References
----------
Statement 3.
"""

from .. import convex, updates
from .member import Member

MEMBER = Member(
    name="fixed-chi2",
    papers="χPO 2407.13399",
    formula="max E_q r − τ KL(q‖p) − (κ/2) χ²(q‖p)",
    decides="a weight that does not adapt",
    law_formula="s + (κ/τ) e^s = r/τ + const",
    exists="always",
    statement="3",
    function=updates.mixed_update,
    example={"chi2_coef": 0.3},
    convex=convex.mixed,
)
