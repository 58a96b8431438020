"""The folder of a training run: all that a run leaves on the disk, and how it is taken up again.

``config.yaml``
    the configuration;
``metrics.jsonl``
    a line per iteration: the same bits for the same run (timings are elsewhere);
``timings.jsonl``
    seconds and tokens per second of each iteration;
``checkpoints/``
    the newest two while the run goes on, the last one when it is complete;
``model/``
    the trained model, in Hugging Face's format;
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
import errno
import fcntl
import hashlib
import json
import os
import shutil
import warnings
from dataclasses import asdict, fields
from pathlib import Path

import torch
import yaml

__all__ = ["RunFolder", "write_atomically"]

# Fields that may differ when a run goes on: they do not change its outcome.
FREE = ("output", "overwrite", "checkpoint_seconds", "report_to")
LOGS = ("metrics.jsonl", "timings.jsonl")
FILES = ("config.yaml", *LOGS, "result.json", "model", "checkpoints")
DIGITS = 32


class RunFolder:
    """The folder ``config.output``, made if absent, and locked until `close`; a context manager.

    Parameters
    ----------
    config : pmdllm.config.Config
        With ``overwrite``, a run that is there is deleted when the first line is appended. Only the files of a run are
        deleted, and only where they are one.

    Attributes
    ----------
    path : Path
        The folder.
    result : dict or None
        That of a complete run.

    Raises
    ------
    ValueError
        The folder cannot be written, another process works in it, it holds a run with another configuration, or files
        of these names that are no run. A larger ``iterations`` is no other configuration where ``lr_schedule`` is
        constant: then the run goes on from its last checkpoint.
    """

    def __init__(self, config):
        self.path, self.config, self.result = Path(config.output), config, None
        self._logs, self._begun, self._lock = dict.fromkeys(LOGS, ""), False, None
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path)
            self._look()
        except OSError as error:
            self.close()
            raise ValueError(
                f"output must be a folder that can be written, got {str(self.path)!r} ({error.strerror})."
            ) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Give the lock back; a folder that was made for a run without a line goes."""
        if self._lock is not None:
            (self.path / ".lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        if not self._begun:
            with contextlib.suppress(OSError):
                for folder in self._made:
                    folder.rmdir()

    def _look(self):
        """Refuse what is no run, or a run of another configuration; find its result."""
        declared, checkpoints = _declared(self.path / "config.yaml"), self._checkpoints()
        present = [name for name in FILES if (self.path / name).exists()]
        if declared is None and present and not checkpoints:
            raise ValueError(
                f"output {self.path} holds {present[0]} but no run's config.yaml: choose another output, or delete "
                "what is in it."
            )
        if self.config.overwrite or not present:
            return
        if declared is None:
            declared = next((content["config"] for _, content in self._contents("cpu")), None)
            warnings.warn(f"{self.path}/config.yaml is missing or damaged; the checkpoints are asked.", stacklevel=4)
            if declared is None:
                raise ValueError(
                    f"output {self.path} holds a run without an intact config.yaml or checkpoint: choose another "
                    "output, or start anew with --overwrite."
                )
        began = bool(checkpoints) or (self.path / "result.json").exists() or bool(_text(self.path / "metrics.jsonl"))
        if began and (differ := _differences(declared, self.config)):
            raise ValueError(
                f"output {self.path} holds a run with other settings: {', '.join(differ)}. Choose another output, or "
                "start anew with --overwrite."
            )
        if (self.path / "result.json").exists() and declared.get("iterations") == self.config.iterations:
            self.result = self._read_result()

    def _read_result(self):
        """The result, if it and the logs before it are intact."""
        try:
            result = json.loads(_text(self.path / "result.json"))
            if isinstance(result, dict) and not self._damaged_logs(self._newest("cpu")):
                return result
        except ValueError:
            warnings.warn(f"{self.path}/result.json is damaged; it is computed again.", stacklevel=5)
        return None

    def load(self, device="cpu"):
        """Return the state of the newest intact checkpoint of this configuration, or None.

        What the logs hold beyond it, or lack, is put right when the next line is appended.

        Parameters
        ----------
        device : str or torch.device
            Where the tensors go.

        Warns
        -----
        UserWarning
            Names every checkpoint that was passed over, and every log that is not what the checkpoint vouches for.
        """
        content = None if self.config.overwrite else self._newest(device)
        if content is None:
            if self._checkpoints() and not self.config.overwrite:
                warnings.warn(f"no checkpoint in {self.path} can be used: the run starts from its beginning.", stacklevel=2)
            return None
        self._damaged_logs(content)
        self._logs = content["logs"]
        return content["state"]

    def append(self, name, line):
        """Append the dict `line` to the log `name`."""
        self._begin()
        text = json.dumps(line) + "\n"
        with _named(self.path / name), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(text)
        self._logs[name] += text

    def save(self, state):
        """Write `state`, a dict of tensors, numbers, texts and containers of these, as the newest checkpoint."""
        self._begin()
        folder = self.path / "checkpoints"
        part = folder / ".part"
        with _named(folder):
            folder.mkdir(exist_ok=True)
            try:
                with part.open("wb") as file:
                    torch.save({"config": asdict(self.config), "logs": self._logs, "state": state}, file)
                    file.flush()
                    os.fsync(file.fileno())
                earlier = self._checkpoints()
                number = int(earlier[0].name.partition("-")[0]) + 1 if earlier else 1
                part.rename(folder / f"{number:08d}-{_digest(part)}.pt")
            finally:
                part.unlink(missing_ok=True)
            for old in earlier[1:]:
                old.unlink()

    def finish(self, result):
        """Write the result; of the checkpoints, the last one stays, so that ``iterations`` can be raised."""
        self._begin()
        with _named(self.path / "result.json"):
            write_atomically(self.path / "result.json", json.dumps(result, indent=1) + "\n")
        self.result = result
        for old in self._checkpoints()[1:]:
            old.unlink()

    def _begin(self):
        """Before the first line: delete what is overwritten, put configuration and logs as they should be."""
        if self._begun:
            return
        with _named(self.path):
            if self.config.overwrite:
                shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
                shutil.rmtree(self.path / "model", ignore_errors=True)
            (self.path / "result.json").unlink(missing_ok=True)
            self._begun = True
            write_atomically(self.path / "config.yaml", self.config.to_yaml())
            for name, text in self._logs.items():
                write_atomically(self.path / name, text)

    def _newest(self, device):
        """Content of the newest intact checkpoint of this configuration, or None."""
        for path, content in self._contents(device):
            differ = _differences(content["config"], self.config)
            if not differ:
                return content
            _warn_of(path, f"belongs to a run with other settings ({', '.join(differ)})")
        return None

    def _contents(self, device):
        """Yield path and content of each intact checkpoint, the newest first."""
        for path in self._checkpoints():
            try:
                intact = path.stem.endswith(_digest(path))
                content = torch.load(path, map_location=device, weights_only=True) if intact else None
            except Exception:  # whatever a file that is no checkpoint makes of it
                content, intact = None, True
            if isinstance(content, dict) and content.keys() == {"config", "logs", "state"}:
                yield path, content
            else:
                _warn_of(path, "is no checkpoint of a run" if intact else "is damaged (it does not match its digest)")

    def _checkpoints(self):
        return sorted((self.path / "checkpoints").glob("[0-9]*-*.pt"), reverse=True)

    def _damaged_logs(self, content):
        """Names of the logs that do not begin with what the checkpoint vouches for, each in a warning."""
        vouched = {} if content is None else content["logs"]
        damaged = [name for name, text in vouched.items() if not _text(self.path / name).startswith(text)]
        for name in damaged:
            warnings.warn(
                f"{self.path / name} was deleted, shortened or changed; it and the run go back "
                "to where the checkpoint was.", stacklevel=3,
            )  # fmt: skip
        return damaged


def write_atomically(path, text):
    """Write `text` to `path` under a temporary name, then rename."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
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
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except BlockingIOError:
        process = os.read(descriptor, DIGITS).decode(errors="replace") or "another one"
        os.close(descriptor)
        raise ValueError(
            f"output {folder} is in use by process {process}: wait for it, end it, or choose another output."
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            os.close(descriptor)
            raise
        warnings.warn(f"{path}: this file system has no locks; start one process at a time.", stacklevel=4)
    return descriptor


@contextlib.contextmanager
def _named(path):
    """Say in one line what could not be written, and that nothing is lost."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise OSError(
            f"{path} cannot be written ({reason}). What was saved before is intact: make room, and the same command "
            "goes on from there."
        ) from error


def _differences(there, config):
    """Options in which a configuration on the disk, a dict, is another than `config`, in words."""
    different = []
    for declared in fields(config):
        name, value = declared.name, getattr(config, declared.name)
        other = there.get(name, declared.default)
        if name in FREE or other == value:
            continue
        said = f"{name} ({other!r} there, {value!r} here"
        if name == "iterations" and isinstance(other, int) and other < value:
            if config.lr_schedule == "constant":
                continue
            said += f", and the {config.lr_schedule} decay of the learning rate depends on it"
        different.append(f"{said})")
    return different


def _declared(path):
    """The configuration in a file, a dict; None if there is no file or it holds none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    is_one = isinstance(values, dict) and {"task", "model", "algorithm", "iterations"} <= values.keys()
    return values if is_one else None


def _text(path):
    """Content of a file, "" if there is none; what is no text stays recognisable as such."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def _warn_of(path, fault):
    warnings.warn(
        f"checkpoint {path} {fault}; the one before it is used, if there is one. Delete the file to silence this.",
        stacklevel=6,
    )
