"""Checksums of weights that are read piece by piece, as they are streamed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from openautoglm.runtime.packed_files import PackedFile, read_into
from openautoglm.runtime.packing import HEADER_BYTES, Bytes, Item


class Checksums:
    """Follows the packed matrices of a file while they are read, and compares each when its last piece is there.

    Pieces of a matrix come in their order. One that comes again is not looked at: it was checked the first time.

    Attributes:
        packed: the file.
    """

    def __init__(self, packed: PackedFile, items: Iterable[Item]) -> None:
        self.packed = packed
        self._next: dict[int, tuple[str, int, int]] = {}
        """By the place of the piece that comes next: the matrix, its end in the file, and the sum so far."""
        for item in items:
            if item.kind == "packed":
                start, header = packed.offset(item), np.empty(HEADER_BYTES, np.uint8)
                read_into(packed.path, start, header)
                self._next[start + HEADER_BYTES] = item.name, start + item.bytes, zlib.crc32(header.data)

    def add(self, offset: int, piece: Bytes) -> None:
        """Take note of a piece that was read from a place of the file; a matrix's header is none.

        Raises:
            BundleError: it was the last of its matrix, and this is damaged.
        """
        if (found := self._next.pop(offset, None)) is None:
            return
        name, end, checksum = found
        checksum, offset = zlib.crc32(piece.data, checksum), offset + len(piece)
        if offset < end:
            self._next[offset] = name, end, checksum
        else:
            self.packed.check(name, checksum)
