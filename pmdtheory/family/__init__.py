"""The family: what each loss of post-training optimises, one file a member.

A loss averages (r − V − τ s)²/2, or its gradient, over some measure, with some weights; s = log(q/p) is the log-ratio
to the anchor p. What it optimises is the policy at which its gradient vanishes:

    w μ (r − V − τ s) = C q    for every action, one C, Σ q = 1.

Four choices decide that law: the anchor p, the measure μ, the baseline V and the weights w. A file of this folder
that defines a `MEMBER` enters the atlas; nothing else lists it. Most laws are one of the package's updates, or become
one when the weights are read as a policy (``weighted.py``); the others are normalised by one root
(``normalisation.py``).

References
----------
Statements 19 to 30 of ``pmdtheory/theorems/README.md``.
"""

import importlib
import pkgutil

from .member import Member

__all__ = ["MEMBERS", "Member", "by_name"]

_names = [found.name for found in pkgutil.iter_modules(__path__) if found.name != "page"]
_modules = [importlib.import_module(f"{__name__}.{name}") for name in _names]
MEMBERS = {module.MEMBER.name: module.MEMBER for module in _modules if hasattr(module, "MEMBER")}


def by_name(name: str) -> Member:
    """Return the member called ``name``, or raise a ``ValueError`` that lists the names."""
    if name not in MEMBERS:
        raise ValueError(f"member must be one of {', '.join(MEMBERS)}, got {name!r}.")
    return MEMBERS[name]
