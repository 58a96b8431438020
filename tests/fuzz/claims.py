"""The theorems on fresh problems: no claim of ``pmdtheory.theorems`` is violated where its assumptions hold."""

import numpy as np

from pmdtheory.theorems import STATEMENTS

_LABELS = list(STATEMENTS)
_CONTEXTS = 12  # the samplers of MDPs are asked for one


def check(rng):
    label = _LABELS[rng.integers(len(_LABELS))]
    claims, sample = STATEMENTS[label]
    for _, arguments in sample(rng, 1 if label[0] in "1B" and label[:2] not in ("10", "11", "B9") else _CONTEXTS):
        for claim in claims:
            result = claim(*arguments)
            assert np.all(result.holds), (label, result.name, np.min(result.slack), arguments)
