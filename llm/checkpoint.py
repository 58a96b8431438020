"""Checkpoints: complete, written atomically, verified when read.

A checkpoint is one file ``NNNNNNNN-DIGEST.pt``: a serial number, and the SHA-256 digest of its content. It is written
under a temporary name, flushed to the disk and renamed, so under its own name it is whole. If the content
does not match the digest all the same (a failing disk, a hand), the file is named in a warning and the one before it
is used. Only tensors and plain containers are stored, and only these are read back.
"""

import hashlib
import os
import warnings
from pathlib import Path

import torch

__all__ = ["load_latest", "save", "write_atomically"]

DIGITS = 32


def save(folder, state, keep=2):
    """Write `state` to `folder` as its newest checkpoint and leave the newest `keep` there.

    Parameters
    ----------
    folder : path
        Made if absent.
    state : dict
        Tensors, numbers, strings and containers of these.
    keep : int
        Checkpoints that stay, this one included; at least 2, so that a damaged one has a predecessor.

    Returns
    -------
    Path
        The file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _newest_first(folder)
    number = int(earlier[0].name.partition("-")[0]) + 1 if earlier else 1
    part = folder / ".part"
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    path = part.rename(folder / f"{number:08d}-{_digest(part)}.pt")
    for old in _newest_first(folder)[max(keep, 2) :]:
        old.unlink()
    return path


def load_latest(folder, device="cpu"):
    """Return the state of the newest intact checkpoint in `folder`, or None if there is none.

    Parameters
    ----------
    folder : path
        Where `save` wrote; it need not exist.
    device : str or torch.device
        Where the tensors go.

    Warns
    -----
    UserWarning
        Names every damaged checkpoint that was passed over.
    """
    for path in _newest_first(folder):
        if path.stem.endswith(_digest(path)):
            return torch.load(path, map_location=device, weights_only=True)
        warnings.warn(
            f"checkpoint {path} is damaged (its content does not match the digest in its name); using the one before "
            "it, if there is one. Delete the file to silence this.",
            stacklevel=2,
        )
    return None


def write_atomically(path, text):
    """Write `text` to `path` under a temporary name, then rename."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def _digest(path):
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def _newest_first(folder):
    return sorted(Path(folder).glob("[0-9]*-*.pt"), reverse=True)
