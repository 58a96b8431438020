"""Optional experiment trackers: TensorBoard, Weights & Biases, Trackio, through Accelerate's one interface for them."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

__all__ = ["trackers"]


def trackers(config: Any) -> Callable[[dict[str, Any]], Any]:
    """Return a function that sends the line of an iteration to every tracker that ``config.report_to`` names.

    A tracker that is unknown, or whose package is missing, is a ``ValueError``.
    """
    opened = [_open(name, config) for name in map(str.strip, config.report_to.split(",")) if name not in ("", "none")]

    def log(line):
        values = {name: value for name, value in line.items() if name != "iteration"}
        for tracker in opened:
            tracker.log(values, step=line["iteration"])

    return log


def _open(name, config):
    try:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS as KINDS
    except ImportError:
        raise ValueError("report_to needs the package accelerate: pip install accelerate, or report_to none.") from None
    if name not in KINDS:
        raise ValueError(f"report_to must be none or names among {', '.join(sorted(KINDS))}, got {name!r}.")
    PartialState()
    folder, kind = Path(config.output), KINDS[name]
    where = {"logging_dir": str(folder / name)} if kind.requires_logging_directory else {}
    try:
        tracker = kind(folder.name, **where)
        tracker.start()
    except (ImportError, NameError) as error:
        raise ValueError(f"report_to {name} needs its package: pip install {name}, or report_to none.") from error
    tracker.store_init_configuration(asdict(config))
    return tracker
