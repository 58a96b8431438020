"""The folder of a training run or warm-up: all that a run leaves on the disk, and how it is taken up again.

``config.yaml``
    the configuration;
``metrics.jsonl``
    a line per iteration (of a warm-up, per update): the same bits for the same run (timings are elsewhere);
``timings.jsonl``
    seconds and tokens per second of each iteration;
``checkpoints/``
    the newest two while the run goes on, the last one when it is complete (of a warm-up one, then none);
``model/``
    the trained model, in Hugging Face's format (of a warm-up in the folder itself);
``result.json``
    accuracies on the test prompts before and after training, and what was spent; written last;
``.lock``
    held by the process that works in the folder, and by it alone.

A checkpoint is one file ``NNNNNNNN-DIGEST.pt``: a serial number, and the SHA-256 digest of its content. It holds the
state of the run, the configuration that it belongs to, and the logs up to there, so whatever happens to the other files
can be made good. It is written under a temporary name, flushed to the disk and renamed: under its own name it is whole.
One that is damaged or belongs to another configuration is named in a warning, and the one before it is used. Only
tensors and plain containers are stored, and only these are read back.

Nothing in the folder is changed before the first line is appended: a start that fails leaves what it found.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import yaml

__all__ = ["RunFolder", "check_output", "write_atomically"]

# Fields that may differ when a run goes on: they do not change its outcome.
FREE = ("output", "overwrite", "checkpoint_seconds", "report_to")
LOGS = ("metrics.jsonl", "timings.jsonl")
LENGTHS = ("iterations", "steps")  # of a training run, of a warm-up
DIGITS = 32
_LOCKS = set()  # descriptors; a process that is forked off must not hold the lock of a dead one


class RunFolder:
    """The folder ``config.output``, made if absent, and locked until `close`; a context manager.

    With ``overwrite``, a run that is there is deleted when the first line is appended: the files of a run, and only
    where they are one. ``path`` is the folder; ``result`` that of a complete run, else None.

    Parameters
    ----------
    config : dataclass
        The options; `output`, `overwrite`, and `iterations` or `steps` are among them.
    model : str
        The file or folder by which the folder of a run has a model, and which goes with what is overwritten.
    kept : tuple of int
        Checkpoints that stay while the run goes on, at least 1, and when it is complete.

    Raises
    ------
    ValueError
        The folder cannot be written, another process works in it, it holds a run with another configuration, or files
        of these names that are no run. A larger ``iterations`` is no other configuration where ``lr_schedule`` is
        constant: then the run goes on from its last checkpoint.
    """

    def __init__(self, config: Any, model: str = "model", kept: tuple[int, int] = (2, 1)):
        self.path, self.config = Path(config.output), config
        self._model, self._kept = model, kept
        self._length = next(name for name in LENGTHS if hasattr(config, name))
        self._logs, self._begun = dict.fromkeys(LOGS, ""), False
        self._lock: Any = None
        self.result: dict[str, Any] | None = None
        check_output(self.path)
        self._made = _missing(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path)
            self._look()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Give the lock back; a folder that was made for a run without a line goes."""
        if self._lock in _LOCKS:
            (self.path / ".lock").unlink(missing_ok=True)
            _LOCKS.remove(self._lock)
            os.close(self._lock)
        self._lock = None  # the number may become another file's
        if not self._begun:
            _unmake(self._made)

    def _look(self):
        """Refuse what is no run, or a run of another configuration; read its result."""
        files = "config.yaml", *LOGS, "result.json", self._model, "checkpoints"
        present = [name for name in files if (self.path / name).exists()]
        stored, checkpoints = _stored(self.path / "config.yaml", self._length), self._checkpoints()
        if stored is None and present and not checkpoints:
            self._refuse(f"{present[0]} but no run's config.yaml", "delete what is in it")
        if self.config.overwrite or not present:
            return
        lost, metrics = stored is None, _text(self.path / "metrics.jsonl")
        if lost and (stored := next((content["config"] for _, content in self._contents("cpu")), None)) is None:
            self._refuse("a run without an intact config.yaml or checkpoint")
        differ = _differences(stored, self.config)
        if differ and (checkpoints or "result.json" in present or metrics):
            self._refuse(f"a run with other settings: {', '.join(differ)}")
        if lost:
            _warn(f"{self.path}/config.yaml is missing or damaged; its checkpoint says the same.")
        if "result.json" in present and stored[self._length] == getattr(self.config, self._length):
            with contextlib.suppress(ValueError):
                self.result = json.loads(_text(self.path / "result.json"))
            if not isinstance(self.result, dict):
                _warn(f"{self.path}/result.json is damaged; it is computed again.")
                self.result = None
            elif not self._finished():
                self.result = None

    def _finished(self):
        """Whether the logs are those of the result: what the last checkpoint says, or, where it was deleted, whole."""
        content = self._newest("cpu")
        if content is not None:
            return self._vouched(content, complete=True)
        damaged = [name for name in LOGS if not _whole_lines(_text(self.path / name))]
        for name in damaged:
            _warn(f"{self.path / name} is damaged, and no checkpoint says what it was: the run starts anew.")
        return not damaged and not self._checkpoints()

    def _refuse(self, content, remedy="start anew with --overwrite"):
        raise ValueError(f"output {self.path} holds {content}. Choose another output, or {remedy}.")

    def load(self, device: Any = "cpu") -> dict[str, Any] | None:
        """Return the state of the newest intact checkpoint of this configuration, tensors on `device`, or None.

        What the logs hold beyond it, or lack, is put right when the next line is appended. Every checkpoint that is
        passed over, and every log that is not what the checkpoint vouches for, is named in a warning.
        """
        if self.config.overwrite or not self._checkpoints():
            return None
        content = self._newest(device)
        if content is None:
            _warn(f"no checkpoint in {self.path} can be used: the run starts anew.")
            return None
        self._vouched(content)
        self._logs = content["logs"]
        return content["state"]

    def append(self, name: str, line: dict[str, Any]) -> None:
        """Append the dict `line` to the log `name`."""
        text = json.dumps(line) + "\n"
        with self._writing(), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(text)
        self._logs[name] += text

    def save(self, state: dict[str, Any]) -> None:
        """Write `state`, a dict of tensors, numbers, texts and containers of these, as the newest checkpoint."""
        folder = self.path / "checkpoints"
        part, earlier = folder / ".part", self._checkpoints()
        number = int(earlier[0].name.partition("-")[0]) + 1 if earlier else 1
        with self._writing():
            folder.mkdir(exist_ok=True)
            with _whole(part, lambda: folder / f"{number:08d}-{_digest(part)}.pt") as file:
                torch.save({"config": asdict(self.config), "logs": self._logs, "state": state}, file)
            for old in self._checkpoints()[self._kept[0] :]:
                old.unlink()

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result; of a training run, the last checkpoint stays, so that ``iterations`` can be raised."""
        with self._writing():
            write_atomically(self.path / "result.json", json.dumps(result, indent=1) + "\n")
            for old in self._checkpoints()[self._kept[1] :]:
                old.unlink()
            with contextlib.suppress(OSError):  # some checkpoint is in it, or there never was one
                (self.path / "checkpoints").rmdir()
        self.result = result

    @contextlib.contextmanager
    def _writing(self):
        """Context in which files are written; before the first, what is overwritten goes, and the logs are cut."""
        try:
            if not self._begun:
                self._begun = True
                (self.path / "result.json").unlink(missing_ok=True)
                for path in (self.path / "checkpoints", self.path / self._model) if self.config.overwrite else ():
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                write_atomically(self.path / "config.yaml", self.config.to_yaml())
                for name, text in self._logs.items():
                    write_atomically(self.path / name, text)
            yield
        except (OSError, RuntimeError) as error:  # PyTorch's writer raises the latter
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise OSError(
                f"{self.path} cannot be written ({reason}). What was saved before is intact: make room, and the same "
                "command goes on from there."
            ) from error

    def _newest(self, device):
        """Content of the newest intact checkpoint of this configuration, or None."""
        for path, content in self._contents(device):
            differ = _differences(content["config"], self.config)
            if not differ:
                return content
            _warn(f"checkpoint {path} belongs to a run with other settings ({', '.join(differ)}); it is passed over.")
        return None

    def _contents(self, device):
        """Yield path and content of each intact checkpoint, the newest first."""
        for path in self._checkpoints():
            content, fault = None, "is damaged: it does not match its digest"
            if path.stem.endswith(_digest(path)):
                fault = "is no checkpoint of a run"
                with contextlib.suppress(Exception):  # whatever a file that is no checkpoint makes of it
                    content = torch.load(path, map_location=device, weights_only=True)
            if isinstance(content, dict) and content.keys() == {"config", "logs", "state"}:
                yield path, content
            else:
                _warn(f"checkpoint {path} {fault}; it is passed over.")

    def _checkpoints(self):
        return sorted((self.path / "checkpoints").glob("[0-9]*-*.pt"), reverse=True)

    def _vouched(self, content, complete=False):
        """Whether the logs begin with what a checkpoint says, or are that; one that does not is named in a warning."""
        logs = {name: (_text(self.path / name), text) for name, text in content["logs"].items()}
        damaged = [n for n, (log, text) in logs.items() if log != text and (complete or not log.startswith(text))]
        for name in damaged:
            _warn(f"{self.path / name} was deleted or changed; it and the run go back to where the checkpoint was.")
        return not damaged


def check_output(path: str | Path) -> None:
    """Refuse, by a ``ValueError``, a folder that could not be made or written, before any work is done for it."""
    path, made = Path(path), []
    try:
        made = _missing(path)
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"one block")
            file.flush()
    except OSError as error:
        raise ValueError(
            f"output must be a folder that can be written, got {str(path)!r} ({error.strerror})."
        ) from error
    finally:
        _unmake(made)


def _missing(path):
    """A folder and its parents, innermost first, as far as they do not exist."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def _unmake(folders):
    for folder in folders:
        with contextlib.suppress(OSError):  # it is in use by now
            folder.rmdir()


def write_atomically(path: str | Path, text: str) -> None:
    """Write `text` to `path` under a temporary name, then rename."""
    path = Path(path)
    with _whole(path.with_name(f".{path.name}.part"), lambda: path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def _whole(part, target):
    """Open the file `part`; once all is written and on the disk, it becomes ``target()``."""
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(target())
    finally:
        part.unlink(missing_ok=True)


def _lock(folder):
    """Lock the folder for this process, until the descriptor that is returned is closed or the process ends."""
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise BlockingIOError  # it was given back, and perhaps taken again, between the two lines above
    except BlockingIOError:
        process = os.read(descriptor, DIGITS).decode(errors="replace") or "another one"
        os.close(descriptor)
        raise ValueError(
            f"output {folder} is in use by process {process}: wait for it, end it, or choose another output."
        ) from None
    except OSError as error:
        _warn(f"{path} cannot be locked ({error.strerror}): do not start two processes in this folder.")
    _LOCKS.add(descriptor)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def _forked():
    for descriptor in _LOCKS:
        os.close(descriptor)
    _LOCKS.clear()


os.register_at_fork(after_in_child=_forked)


def _differences(stored, config):
    """Options in which a configuration on the disk, a dict, is another than `config`, in words."""
    different = []
    for declared in fields(config):
        name, value = declared.name, getattr(config, declared.name)
        other, reason = stored.get(name, declared.default), ""
        if name in FREE or other == value:
            continue
        if name in LENGTHS and isinstance(other, int) and other < value:
            schedule = getattr(config, "lr_schedule", "cosine")
            if schedule == "constant":
                continue
            reason = f", and the {schedule} decay of the learning rate depends on it"
        different.append(f"{name} ({other!r} there, {value!r} here{reason})")
    return different


def _stored(path, length):
    """The configuration in a file, a dict; None if there is no file or it holds none with such a `length`."""
    with contextlib.suppress(Exception):  # whatever a file that is none makes of its reader
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return values if {"task", length} <= values.keys() else None


def _text(path):
    """Content of a file, "" if there is none; what is no text stays recognisable as such."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _whole_lines(text):
    """Whether a log has lines, and each is a JSON object."""
    try:
        return text.endswith("\n") and all(isinstance(json.loads(line), dict) for line in text.splitlines())
    except ValueError:
        return False


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def _warn(text):
    warnings.warn(text, stacklevel=4)
