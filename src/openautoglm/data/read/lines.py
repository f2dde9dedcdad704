"""Physical lines with their numbers, decoded strictly, in bounded memory. A fault stays on its line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from openautoglm.data.read.source import Source, StreamError

RAW_CHARS = 2000


class LineFault(NamedTuple):
    """Why a line is not text: a reason slug, a detail, and whether the text beside it is the whole line."""

    reason: str
    detail: str
    whole: bool = False


Line = tuple[int, str, LineFault | None]
"""Number (1-based), text without its newline, and what is wrong (then the text is bounded, only to show)."""


def lines(source: Source, max_row_bytes: int) -> Iterator[Line]:
    """Yield every line of a source. A line longer than `max_row_bytes` is skipped without being held."""
    encoding, number, carry, skipping = source.encoding, 1, b"", False
    try:
        for chunk in source.chunks:
            end = chunk.rfind(b"\n")
            if end < 0:
                if skipping:
                    continue
                carry += chunk
                if len(carry) > max_row_bytes:
                    yield _too_long(number, carry, max_row_bytes, encoding)
                    carry, skipping = b"", True
                continue
            block, rest = carry + chunk[:end], chunk[end + 1:]
            if skipping:
                start = chunk.find(b"\n")
                block, skipping, number = chunk[start + 1:end], False, number + 1
                carry = b""
                if start == end:
                    carry = rest
                    continue
            carry = rest
            yield from _block(number, block, encoding, max_row_bytes)
            number += block.count(b"\n") + 1
    except StreamError as error:
        yield number, show(carry, encoding), LineFault(error.reason, error.detail)
        return
    if carry:
        yield from _block(number, carry, encoding, max_row_bytes)


def _block(number: int, block: bytes, encoding: str, limit: int) -> Iterator[Line]:
    """Yield the lines of a block of whole lines: all at once if nothing is wrong, else one by one."""
    if len(block) <= limit and b"\0" not in block:
        try:
            text = block.decode(encoding)
        except UnicodeDecodeError:
            text = None
        if text is not None:
            for number, line in enumerate(text.split("\n"), number):  # noqa: B020
                yield number, line, None
            return
    for number, raw in enumerate(block.split(b"\n"), number):  # noqa: B020
        yield _one(number, raw, encoding, limit)


def _one(number: int, raw: bytes, encoding: str, limit: int) -> Line:
    if len(raw) > limit:
        return _too_long(number, raw, limit, encoding)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        return number, raw.decode(encoding, "replace"), LineFault(
            "broken_encoding", f"byte {error.start + 1} of the line is not {encoding}: {error.reason}",
            whole=True)
    if "\0" in text:
        return number, text, LineFault("nul_byte", f"NUL at character {text.index(chr(0)) + 1} of the line",
                                       whole=True)
    return number, text, None


def _too_long(number: int, raw: bytes, limit: int, encoding: str) -> Line:
    return number, show(raw, encoding), LineFault("row_too_long",
                                                  f"longer than max_row_bytes ({limit:,} bytes)")


def show(raw: bytes, encoding: str) -> str:
    """The beginning of some bytes as text, whatever they are."""
    return raw[:RAW_CHARS].decode(encoding, "replace")
