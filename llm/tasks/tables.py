"""Tables read from files as they were written: no value changes its text on the way.

JSON numbers keep their digits, dates stay texts, CSV cells keep their zeros. A damaged file is a ValueError that names
the file and the line. Parquet and the Hugging Face hub, whose values have types, are read by the package datasets.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

__all__ = ["read"]

SPLIT = r"(?:.*[-_.])?(?:(?P<train>train)|(?P<validation>valid|val|dev)|(?P<test>test))(?:ing|idation)?(?:[-_.].*)?"


def read(path: Any, configs: Any = (), hub: bool = True) -> dict[str, Any]:
    """Return the rows of each split, lists of (where a row stands, dict), of a file, a folder or a data set of the hub.

    `configs` are configurations on the hub and, where a folder has them, its subfolders. Raises ValueError if what is
    there cannot be read, and ImportError if the package datasets is needed and missing.
    """
    place = Path(path)
    try:
        if place.is_file():
            return {"train": list(_rows(place))}
        if place.is_dir():
            return _folder(place, configs)
    except OSError as error:
        raise ValueError(f"path {path!r} cannot be read: {error}.") from None
    if not hub:
        raise ValueError(f"path must be an existing file or folder, got {path!r}.")
    parts = [_datasets(path, config) for config in configs or [None]]
    return {split: [row for part in parts for row in part.get(split, [])] for split in parts[0]}


def _folder(place, configs):
    places = [place / config for config in configs if (place / config).is_dir()] or [place]
    files = sorted(path for place in places for path in place.rglob("*") if path.suffix in READERS and path.is_file())
    files = [path for path in files if not path.name.startswith((".", "dataset_info"))]
    splits = {}
    for path in files:
        match = re.fullmatch(SPLIT, path.stem, re.IGNORECASE)
        if not match and len(files) > 1:
            raise ValueError(f"files of a folder must be named train, validation or test, got {str(path)!r}.")
        splits.setdefault(match.lastgroup if match else "train", []).extend(_rows(path))
    if not splits:
        raise ValueError(f"path must hold files that end in {', '.join(READERS)}, got none in {str(place)!r}.")
    return splits


def _rows(path):
    """Yield (place, row) of a file; a row is a dict."""
    if path.suffix not in READERS:
        raise ValueError(f"path must end in {', '.join(READERS)} or be a folder or a hub name, got {str(path)!r}.")
    try:
        for place, row in READERS[path.suffix](path):
            if not isinstance(row, dict):
                raise ValueError(f"a row must be an object with named columns, got {type(row).__name__} ({place})")
            yield f"{path.name}, {place}", row
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}.") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from None


def _json(path):
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json" and text.lstrip()[:1] == "[":
        yield from _numbered(_decoded(text))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", _decoded(line)
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON object ({error})") from None


def _decoded(text):
    value = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    text.encode()  # surrogates that came as they are
    json.dumps(value, ensure_ascii=False).encode()  # and those that came escaped
    return value


def _csv(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        if len(set(reader.fieldnames or [])) < len(reader.fieldnames or []):
            raise ValueError(f"columns must have different names, got {' '.join(', '.join(reader.fieldnames).split())}")
        for row in reader:
            if None in row:
                raise ValueError(f"line {reader.line_num} has more cells than the header has columns")
            yield f"line {reader.line_num}", row


def _datasets(path, config=None, **options):
    try:
        import datasets
    except ImportError:
        raise ImportError(f"reading {path!r} needs the package datasets: pip install datasets") from None
    try:
        loaded = datasets.load_dataset(path, config, **options)
        return {split: list(_numbered(rows)) for split, rows in loaded.items()}
    except Exception as error:  # the hub, the network and pyarrow raise dozens of kinds
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{options.get('data_files', path)!r} cannot be loaded by datasets ({first}): is there a network, and "
            "is the table whole? file:rows.jsonl takes one from the disk."
        ) from None


def _numbered(rows):
    return ((f"row {number}", row) for number, row in enumerate(rows, 1))


READERS = {".json": _json, ".jsonl": _json, ".csv": _csv}
READERS[".parquet"] = lambda path: _datasets("parquet", data_files=str(path))["train"]
