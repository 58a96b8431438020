"""Policy mirror descent as used to post-train language models: exact updates, certificates, bandits, bounds."""

from . import baselines, divergences, knobs
from .updates import Update, baseline_update, kl_update, largest_baseline, mixed_update, pmd_mean_update

__all__ = [
    "Update",
    "baseline_update",
    "baselines",
    "divergences",
    "identify",
    "kl_update",
    "knobs",
    "largest_baseline",
    "mixed_update",
    "penalised_update",
    "pmd_mean_update",
]


def __getattr__(name):
    """Import what most of the package does without when it is first asked for."""
    if name == "identify":
        from .instrument import identify

        return identify
    if name == "penalised_update":
        from .penalised import penalised_update

        return penalised_update
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
