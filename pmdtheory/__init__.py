"""Policy mirror descent as used to post-train language models: exact updates, certificates, bandits, bounds."""

from . import baselines, divergences, knobs
from .instrument import identify
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
    "pmd_mean_update",
]
