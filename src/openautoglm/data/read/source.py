"""From a path to a stream of bytes: gzip by its magic bytes, encodings, byte-order marks, bounded memory."""

from __future__ import annotations

import codecs
import gzip
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from openautoglm.core.errors import DataError

CHUNK_BYTES = 1 << 18
GZIP_MAGIC = b"\x1f\x8b"
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
         (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
BROKEN = "\udcff"
"""Stands for bytes that are no text in a transcoded stream; strict UTF-8 refuses it and so its line."""


class StreamError(Exception):
    """The stream broke in the middle: a reason slug and a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Source(NamedTuple):
    """An open file: bytes without byte-order mark or gzip, in an encoding where ``\\n`` is one byte."""

    chunks: Iterator[bytes]
    encoding: str
    head: bytes
    """The first chunk, which `chunks` gives too: to judge by."""


def _mark_broken(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return BROKEN, error.end
    raise error


codecs.register_error("openautoglm-mark", _mark_broken)


@contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading bytes.

    Raises:
        DataError: it is missing, a directory, a device, or not readable.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError("not a file", where=str(path),
                            remedy="name files, or a glob such as folder/*.csv")
        file = path.open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"cannot be read: {reason}", where=str(path),
                        remedy="check the path and its permissions") from error
    with file:
        yield file


@contextmanager
def open_source(path: Path, encoding: str, on_bytes: Callable[[int], None] | None = None) -> Iterator[Source]:
    """Open `path` as text bytes; `on_bytes` is told how many bytes on disk each chunk took.

    The chunks raise StreamError when gzip data is damaged or cut off, or the disk fails.

    Raises:
        DataError: the file cannot be opened.
    """
    with open_file(path) as file:
        magic = file.read(2)
        file.seek(0)
        chunks = _raw_chunks(file, magic == GZIP_MAGIC, on_bytes)
        first, chunks = _peek(chunks)
        encoding, mark_bytes = _encoding(first, encoding)
        chunks = _without(mark_bytes, chunks)
        if not _keeps_ascii(encoding):
            chunks, encoding = _transcoded(chunks, encoding), "utf-8"
        head, chunks = _peek(_unix_lines(chunks))
        yield Source(chunks, encoding, head)


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first chunk, and chunks that begin with it; a fault met here is raised by them."""
    first, fault = b"", None
    try:
        first = next(chunks, b"")
    except StreamError as error:
        fault = error
    return first, _joined(first, chunks, fault)


def _raw_chunks(file: IO[bytes], zipped: bool, on_bytes: Callable[[int], None] | None) -> Iterator[bytes]:
    stream: IO[bytes] = gzip.GzipFile(fileobj=file, mode="rb") if zipped else file  # type: ignore[assignment]
    told = 0
    while True:
        try:
            chunk = stream.read1(CHUNK_BYTES) if zipped else stream.read(CHUNK_BYTES)  # type: ignore[attr-defined]
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise StreamError("damaged_gzip",
                              f"the compressed data is cut off or damaged: {error}") from error
        except OSError as error:
            raise StreamError("read_error",
                              f"the file cannot be read further: {error.strerror or error}") from error
        if on_bytes is not None:
            place = os.lseek(file.fileno(), 0, os.SEEK_CUR)
            on_bytes(place - told)
            told = place
        if not chunk:
            return
        yield chunk


def _encoding(first: bytes, encoding: str) -> tuple[str, int]:
    """Return the encoding, decided by the byte-order mark where it is `auto`, and the length of the mark."""
    name = "auto" if encoding == "auto" else codecs.lookup(encoding).name
    for mark, marked in MARKS:
        if first.startswith(mark) and (name == "auto" or marked.startswith(name.removesuffix("-sig"))):
            return marked, len(mark)
    plain = {"auto": "utf-8", "utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}
    return plain.get(name, name), 0


def _without(mark_bytes: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[mark_bytes:]
        mark_bytes = 0


def _joined(first: bytes, rest: Iterator[bytes], fault: StreamError | None) -> Iterator[bytes]:
    if first:
        yield first
    if fault is not None:
        raise fault
    yield from rest


def _keeps_ascii(encoding: str) -> bool:
    """Whether the 128 ASCII bytes mean themselves, so that lines can be split before they are decoded."""
    plain = bytes(range(0x20, 0x7F)) + b"\n\r\t\x1b"
    try:
        return plain.decode(encoding) == plain.decode("ascii")
    except UnicodeDecodeError:
        return False


def _transcoded(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("openautoglm-mark")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def _unix_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Turn the lone carriage returns of old files into newlines, judged by the first chunk."""
    old: bool | None = None
    for chunk in chunks:
        if old is None and chunk:
            old = b"\r" in chunk and b"\n" not in chunk
        yield chunk.replace(b"\r", b"\n") if old else chunk
