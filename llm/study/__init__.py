"""Studies: many training runs of known cost, a row of a table each, kept as soon as it is there.

A `Study` is a list of `Setting` objects times seeds. A `Cell` is one training run of it. Settings may have options to
be tuned: then a study has two stages,

1. every trial of every setting on the tuning seeds; the trial with the largest mean validation avg@k is chosen;
2. the settings with their chosen trials on the seeds of the study, which are others.

In each stage all settings run at the first seed, then all at the second, so a study that is stopped early is a smaller
study. Each finished cell is merged into CSV tables, where it replaces the row of the same setting and seed::

    study_NAME.csv          a row per setting and seed: accuracies, costs, chosen options, versions, device, command
    study_NAME_tuning.csv   the same for the first stage, a row per setting, trial and seed
    study_NAME_curves.csv   a row per setting, seed and iteration

A cell whose row is in the table with the same options is finished, whoever trained it. So short runs on several
machines add up, and an empty folder of tables trains everything anew.
"""

from .check import check, prediction_interval
from .design import Cell, Setting, Study, choose, grid
from .runner import plan, predicted_seconds, run
from .tables import Tables, accuracy, curves, merge, of, read, results

__all__ = [
    "Cell",
    "Setting",
    "Study",
    "Tables",
    "accuracy",
    "check",
    "choose",
    "curves",
    "grid",
    "merge",
    "of",
    "plan",
    "predicted_seconds",
    "prediction_interval",
    "read",
    "results",
    "run",
]
