"""Policy mirror descent as used to post-train language models: exact updates, certificates, bandits, bounds."""

import importlib

# Imported when first asked for, so that a command's help need not wait for NumPy.
_MODULES = {
    "Update": "updates",
    "baseline_update": "updates",
    "baselines": None,
    "divergences": None,
    "identify": "instrument",
    "kl_update": "updates",
    "knobs": None,
    "largest_baseline": "updates",
    "mixed_update": "updates",
    "pmd_mean_update": "updates",
}
__all__ = list(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES[name]
    if module is None:
        return importlib.import_module(f".{name}", __name__)
    return getattr(importlib.import_module(f".{module}", __name__), name)


def __dir__():
    return sorted(set(globals()) | set(__all__))
