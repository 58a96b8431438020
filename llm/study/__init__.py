"""Studies: many runs of known cost, a row of a table each, kept as soon as it is there.

One engine runs every study, the training studies of `pmdllm.study.declared` and the validation of
`pmdllm.validation.declared` alike: `run` computes what the tables lack, `plan` and `describe` say what that is, `check`
runs a few cells anew and compares. A cell whose row is in the table with the same options is finished, whoever ran it.
So short runs on several machines add up, and an empty folder of tables runs everything anew. Of a finished cell the
folder of its run stays, without model and checkpoint where these are large: two gigabytes each at 135M parameters.

A study has a ``name`` and

=======================  ===============================================================================================
``stages(folder)``       yields each `Stage`, cells and tables; a later one may depend on the rows of an earlier one
``results(folder)``      the `Table` of results of the last stage
``undecided(folder)``    cells of a later stage that an earlier one has to decide on, with the first candidates
``checked_cells(..)``    cells that `check` runs again
=======================  ===============================================================================================

A cell has ``columns`` and ``seed``, which identify its rows; ``identity``, the options that decide the outcome, a text;
``folder``, that of its run in the folder of all runs; and, `runs` being the latter,

=======================  ===============================================================================================
``command(runs)``        the shell command that does the same run
``validate(runs)``       raises ValueError if that cannot be
``run(runs, *others)``   does it, or goes on with it, and with others of its group
``rows(runs)``           its rows by table, when it is finished
``seconds(table)``       predicted from rows of the table of results; ``piece``, ``training``, ``spent``: see `hours`
``group``                optional, and not None: what it has in common with cells that are run in one go with it
``base(runs)``           folder of what it starts from, if that has to be made by ``make_base(runs)``
``headline(rows)``       its outcome in a few words
``judged(rows)``         the numbers that `check` compares
=======================  ===============================================================================================

A training study (`Study`) is a list of `Setting` objects times seeds. Where settings have options to be tuned, every
trial runs on the tuning seeds first, the one with the largest mean validation avg@k is chosen, and a second stage runs
the settings with their chosen trials on the seeds of the study, which are others. In each stage all settings run at the
first seed, then all at the second, so a study that is stopped early is a smaller study. Its tables::

    study_NAME.csv          a row per setting and seed: accuracies, costs, chosen options, versions, device, command
    study_NAME_tuning.csv   the same for the first stage, a row per setting, trial and seed
    study_NAME_curves.csv   a row per setting, seed and iteration
"""

from .check import check, prediction_interval
from .design import Cell, Setting, Study, choose, grid
from .runner import describe, outline, plan, run
from .tables import Stage, Table, accuracy, of

__all__ = ["Cell", "Setting", "Stage", "Study", "Table", "accuracy", "check", "choose", "describe", "grid", "of"]
__all__ += ["outline", "plan", "prediction_interval", "run"]
