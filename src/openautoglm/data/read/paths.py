"""Which files a task names, and in which format each is."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from openautoglm.core.errors import DataError
from openautoglm.data.settings import DataSettings

FileFormat = Literal["csv", "tsv", "jsonl", "json", "parquet", "text"]
ENDINGS: dict[str, FileFormat] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet", ".txt": "text", ".text": "text", ".md": "text"}


def resolve(paths: Iterable[str | Path], base: Path) -> list[Path]:
    """Return the files that paths and globs name, relative to `base`, in a stable order, each once.

    Raises:
        DataError: a path is missing or a directory, or a glob matches no file.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = base / Path(given).expanduser()
        if path.is_dir():
            raise DataError("is a directory", where=str(path),
                            remedy="name files, or a glob such as folder/*.csv")
        if path.exists():
            found[path] = None
            continue
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        files = [match for match in matches if match.is_file()]
        if not files:
            raise DataError("no such file", where=str(path), remedy=_near(path))
        found.update(dict.fromkeys(files))
    return list(found)


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist; paths are relative to the task file"
    near = difflib.get_close_matches(path.name, [item.name for item in path.parent.iterdir()], n=3,
                                     cutoff=0.5)
    shown = f"nearest in that folder: {', '.join(near)}"
    return shown if near else "check the path; it is relative to the task file"


def count_bytes(paths: Iterable[Path]) -> int:
    """Return the size of files on disk in bytes (of compressed files, compressed).

    Raises:
        DataError: a file is missing.
    """
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return total


def file_format(path: Path, settings: DataSettings) -> FileFormat:
    """Return the format as set, or by the ending of the name.

    Raises:
        DataError: the ending is not known.
    """
    if settings.format != "auto":
        return settings.format
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending not in ENDINGS:
        raise DataError(f"the ending {ending!r} says no format", where=str(path),
                        remedy="set data.format to one of csv, tsv, jsonl, json, parquet, text, or use an "
                               "ending of "
                               f"{' '.join(ENDINGS)} (with or without .gz)")
    return ENDINGS[ending]
