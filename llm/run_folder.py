"""The folder of a training run: one configuration, logs that are cut back when a run resumes, a result written last.

``config.yaml``
    the configuration;
``metrics.jsonl``
    a line per iteration: the same bits for the same run (timings are elsewhere);
``timings.jsonl``
    seconds and tokens per second of each iteration;
``result.json``
    accuracies on the test prompts before and after training, and what was spent; written last;
``model/``
    the trained model, in Hugging Face's format;
``checkpoints/``
    removed when the run is complete.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import yaml

from . import checkpoint
from .checkpoint import write_atomically

__all__ = ["RunFolder"]

# Fields that may differ when a run is resumed: they do not change its outcome.
FREE = ("output", "overwrite", "checkpoint_seconds", "report_to")


class RunFolder:
    """The folder ``config.output``, made if absent.

    Parameters
    ----------
    config : pmdllm.config.Config
        With ``overwrite``, a run that is there is deleted first; a folder that holds no run is never deleted.

    Attributes
    ----------
    path : Path
        The folder.
    offsets : dict of str to int
        Bytes of each log that belong to the run; part of its checkpoints.

    Raises
    ------
    ValueError
        The folder holds a run with another configuration, and at least one line of its metrics.
    """

    def __init__(self, config):
        self.path = Path(config.output)
        self.offsets = {"metrics.jsonl": 0, "timings.jsonl": 0}
        declared = self.path / "config.yaml"
        if config.overwrite and declared.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        log = self.path / "metrics.jsonl"
        begun = log.exists() and log.stat().st_size > 0
        if not (begun and declared.exists()):
            write_atomically(declared, config.to_yaml())
            return
        there, here = yaml.safe_load(declared.read_text(encoding="utf-8")), asdict(config)
        differ = [
            f"{name} ({there.get(name)!r} there, {value!r} here)"
            for name, value in here.items()
            if name not in FREE and there.get(name) != value
        ]
        if differ:
            raise ValueError(
                f"output {self.path} holds a run with other settings: {', '.join(differ)}. Choose another output, or "
                "start anew with --overwrite."
            )

    def append(self, name, line):
        """Append the dict `line` to the log `name`."""
        with (self.path / name).open("ab") as file:
            file.write((json.dumps(line) + "\n").encode())
            self.offsets[name] = file.tell()

    def cut(self, offsets):
        """Cut the logs to these lengths: what was written after the checkpoint that a run resumes from goes."""
        self.offsets = dict(offsets)
        for name, end in offsets.items():
            with (self.path / name).open("ab") as file:
                file.truncate(end)

    @property
    def result(self):
        """The result of a complete run, or None."""
        path = self.path / "result.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, result):
        """Write the result and remove the checkpoints."""
        write_atomically(self.path / "result.json", json.dumps(result, indent=1) + "\n")
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def load(self, device):
        state = checkpoint.load_latest(self.path / "checkpoints", device)
        self.cut(self.offsets if state is None else state["offsets"])
        return state

    def save(self, state):
        checkpoint.save(self.path / "checkpoints", state | {"offsets": self.offsets})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
