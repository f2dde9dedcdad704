"""A bundle in one file: ``.zip``, or ``.pkl`` of plain containers and bytes. Reading trusts nothing.

A zip may hold regular files with plain names only, each of them and all together within bounds. A pickle is
first read as a list of opcodes, of which only those of plain containers, text and bytes are allowed, and then
loaded by an unpickler that finds no class at all.
"""

from __future__ import annotations

import pickle
import pickletools
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from openautoglm.core.errors import BundleError
from openautoglm.core.files import atomic_folder, atomic_write
from openautoglm.models.card import is_plain_name

MAX_BYTES = 64 * 2**30
_MAX_FILES = 256
_MAX_RATIO = 200
_PICKLE_FORMAT = 1
_PLAIN_OPCODES = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
    | {"EMPTY_DICT", "SETITEM", "SETITEMS", "BININT", "BININT1", "BININT2"}
    | {"SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
)


def pack(files: Sequence[Path], path: Path) -> None:
    """Write `files` to `path`, atomically: a ``.zip``, a ``.pkl``, or else a folder."""
    if path.suffix == ".zip":
        with atomic_write(path, "wb") as out, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
            for file in files:
                target.write(file, file.name)
    elif path.suffix == ".pkl":
        content = {"format": _PICKLE_FORMAT, "files": {file.name: file.read_bytes() for file in files}}
        with atomic_write(path, "wb") as out:
            pickle.dump(content, out, protocol=4)
    else:
        with atomic_folder(path) as part:
            for file in files:
                shutil.copyfile(file, part / file.name)


def unpack(path: Path, folder: Path, max_bytes: int = MAX_BYTES) -> None:
    """Write the files of the archive `path` into `folder`.

    Raises:
        BundleError: not an archive of ours, damaged, unsafe, or larger than `max_bytes` when unpacked.
    """
    if shutil.disk_usage(folder).free < path.stat().st_size:
        raise BundleError(
            "does not fit on the disk when unpacked",
            where=str(path),
            remedy=f"free some space under {folder.parent}, or set TMPDIR",
        )
    if path.suffix == ".pkl":
        _unpickle(path, folder, max_bytes)
    elif zipfile.is_zipfile(path):
        _unzip(path, folder, max_bytes)
    else:
        raise BundleError(
            "is not a bundle: neither a folder nor a .zip or .pkl",
            where=str(path),
            remedy="give a bundle written by `export`",
        )


def _unzip(path: Path, folder: Path, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(path) as source:
            _check_members(source.infolist(), path, max_bytes)
            for member in source.infolist():
                with source.open(member) as file, (folder / member.filename).open("xb") as out:
                    _copy(file, out, member.file_size, path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BundleError(
            f"is damaged: {error}", where=str(path), remedy="copy or export the bundle again"
        ) from error


def _check_members(members: Sequence[zipfile.ZipInfo], path: Path, max_bytes: int) -> None:
    if len(members) > _MAX_FILES or sum(member.file_size for member in members) > max_bytes:
        _refuse(path, f"unpacks to more than {_MAX_FILES} files or {max_bytes / 2**30:.2f} GiB")
    for member in members:
        mode = member.external_attr >> 16
        if not is_plain_name(member.filename) or (stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
            _refuse(path, f"holds {member.filename!r}, which is not a regular file with a plain name")
        if member.file_size > _MAX_RATIO * member.compress_size + 2**20:
            _refuse(path, f"{member.filename} unpacks to over {_MAX_RATIO} times its size")


def _copy(file: IO[bytes], out: IO[bytes], size: int, path: Path) -> None:
    while block := file.read(2**20):
        size -= len(block)
        if size < 0:
            _refuse(path, "a file is longer than the archive says")
        out.write(block)


class _Bounded:
    """A file read only as far as it goes: no length claimed inside can make us allocate more."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise pickle.UnpicklingError("a length runs past the end of the file")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(4096)
        self._left -= len(line)
        return line


class _PlainUnpickler(pickle.Unpickler):
    """Finds no class and no function, whatever is asked for."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"asks for {module_name}.{global_name}")


def _unpickle(path: Path, folder: Path, max_bytes: int) -> None:
    size = path.stat().st_size
    if size > max_bytes:
        _refuse(path, f"is larger than {max_bytes / 2**30:.2f} GiB")
    try:
        with path.open("rb") as file:
            for opcode, _, _ in pickletools.genops(_Bounded(file, size)):  # type: ignore[arg-type]
                if opcode.name not in _PLAIN_OPCODES:
                    _refuse(path, f"holds more than plain containers and bytes ({opcode.name})")
            file.seek(0)
            content = _PlainUnpickler(_Bounded(file, size)).load()
    except (
        pickle.UnpicklingError,
        ValueError,
        EOFError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
    ) as error:
        raise BundleError(
            f"is damaged: {error}", where=str(path), remedy="copy or export the bundle again"
        ) from error
    for name, data in _pickled_files(content, path).items():
        (folder / name).write_bytes(data)


def _pickled_files(content: Any, path: Path) -> dict[str, bytes]:
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found > _PICKLE_FORMAT:
        raise BundleError(
            f"has pickle format {found}, this version reads up to {_PICKLE_FORMAT}",
            where=str(path),
            remedy="install a newer openautoglm",
        )
    files = content.get("files") if found == _PICKLE_FORMAT else None
    if (
        not isinstance(files, dict)
        or len(files) > _MAX_FILES
        or not all(
            isinstance(name, str) and is_plain_name(name) and isinstance(data, bytes)
            for name, data in files.items()
        )
    ):
        _refuse(path, "does not hold the files of a bundle")
    return files


def _refuse(path: Path, reason: str) -> NoReturn:
    raise BundleError(f"is refused: {reason}", where=str(path), remedy="use only bundles written by `export`")
