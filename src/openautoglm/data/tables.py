"""Tables on disk that keep memory flat in the number of rows.

`RowFile` holds one fixed-size record a row, in row order. `KeyTable` holds (key, code, ...) entries spread
over partitions by their key, so that equal keys meet in one partition, which alone is sorted in memory.
Everything is little-endian numpy data in a scratch folder, and lives only as long as one cleaning run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
PARTITIONS = 64
_WAITING_BYTES = 4 << 20
_PIECE_ENTRIES = 1 << 14


class KeyTable:
    """Entries of `columns` unsigned 64-bit numbers; the first is the key.

    Entries of one partition come back in the order in which they were added.
    """

    def __init__(self, folder: Path, columns: int) -> None:
        self.folder, self.columns = folder, columns
        self._waiting: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self._waiting_bytes = 0
        self._on_disk = False
        folder.mkdir(parents=True)

    @staticmethod
    def arrange(entries: U64) -> tuple[U64, NDArray[np.int64]]:
        """Sort entries by partition (stable); return them with the number of entries of each partition."""
        home = (entries[:, 0] >> np.uint64(58)).astype(np.uint8)
        order = np.argsort(home, kind="stable")
        return entries[order], np.bincount(home, minlength=PARTITIONS)

    def add(self, arranged: tuple[U64, NDArray[np.int64]]) -> None:
        """Append entries arranged by `arrange`."""
        entries, counts = arranged
        start = 0
        for home, count in enumerate(counts.tolist()):
            if count:
                self._waiting[home].append(entries[start:start + count].tobytes())
                start += count
        self._waiting_bytes += entries.nbytes
        if self._waiting_bytes >= _WAITING_BYTES:
            self._write()

    def _write(self) -> None:
        for home, parts in enumerate(self._waiting):
            if parts:
                with (self.folder / f"{home:02d}").open("ab") as file:
                    file.write(b"".join(parts))
                parts.clear()
        self._waiting_bytes = 0
        self._on_disk = True

    def partitions(self) -> Iterator[U64]:
        """Yield the entries partition by partition, shape (entries, columns); a large one comes in pieces.

        All entries of a key come together. Nothing may be added from here on.
        """
        if self._on_disk:
            self._write()
        for home, waiting in enumerate(self._waiting):
            path = self.folder / f"{home:02d}"
            if waiting:
                flat = np.frombuffer(b"".join(waiting), dtype="<u8")
            elif self._on_disk and path.exists():
                flat = np.fromfile(path, dtype="<u8")
            else:
                continue
            yield from _pieces(flat.reshape(-1, self.columns))


def _pieces(entries: U64) -> Iterator[U64]:
    """Cut a partition by further bits of the keys, so that what is worked on at once stays small."""
    bits = max(0, (len(entries) // _PIECE_ENTRIES).bit_length())
    if not bits:
        yield entries
        return
    piece = (entries[:, 0] >> np.uint64(58 - bits)).astype(np.uint16) & ((1 << bits) - 1)
    order = np.argsort(piece, kind="stable")
    ends = np.cumsum(np.bincount(piece, minlength=1 << bits))
    start = 0
    for end in ends.tolist():
        if end > start:
            yield entries[order[start:end]]
        start = end


class RowFile:
    """Fixed-size records in row order, appended once, then read in order or by row number."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self.rows = 0
        self._file = path.open("wb")

    def add(self, records: NDArray[Any]) -> None:
        """Append records, shape (rows,), or (rows, ...) where a record is itself an array."""
        assert records.nbytes == len(records) * self.dtype.itemsize
        self._file.write(records.tobytes())
        self.rows += len(records)

    def finish(self) -> None:
        """End writing; reading may begin."""
        self._file.close()

    def chunks(self, rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first row, records) in order, `rows` records at a time."""
        with self.path.open("rb") as file:
            for first in range(0, self.rows, rows):
                yield first, np.fromfile(file, self.dtype, min(rows, self.rows - first))

    def take(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the records of some rows, in any order."""
        size = self.dtype.itemsize
        with self.path.open("rb") as file:
            read, number = os.pread, file.fileno()
            data = b"".join([read(number, size, row * size) for row in rows.tolist()])
        return np.frombuffer(data, dtype=self.dtype)


class Groups:
    """Union-find over rows; a group's root is its first row.

    Takes four bytes a row (eight from two billion rows on) in a file mapped into memory.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.parent = scratch_array(path, rows, np.int32 if rows < 1 << 31 else np.int64)
        for start in range(0, rows, 1 << 16):
            self.parent[start:start + (1 << 16)] = np.arange(start, min(rows, start + (1 << 16)))

    def find(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the roots of `rows`."""
        root = self.parent[rows]
        while True:
            up = self.parent[self.parent[root]]
            if np.array_equal(up, root):
                break
            self.parent[root] = up
            root = up
        self.parent[rows] = root
        return root.astype(np.int64)

    def apart(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of which i `left[i]` and `right[i]` are in different groups."""
        return np.asarray(self.find(left) != self.find(right))

    def union(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Join `left[i]` with `right[i]` for every i; the smaller root wins, whatever the order of the
        pairs."""
        while len(left):
            left, right = self.find(left), self.find(right)
            apart = left != right
            left, right = left[apart], right[apart]
            np.minimum.at(self.parent, np.maximum(left, right), np.minimum(left, right))


def scratch_array(path: Path, rows: int, dtype: Any) -> NDArray[Any]:
    """Return an array of zeros of `rows` items, backed by a file so that the system may write it out."""
    if rows == 0:
        return np.zeros(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="w+", shape=(rows,)))


def by_key(entries: U64) -> tuple[U64, NDArray[np.int64]]:
    """Sort entries by key (stable); return them with, for each, the place of the first entry of its key."""
    entries = entries[np.argsort(entries[:, 0], kind="stable")]
    if not len(entries):
        return entries, np.zeros(0, dtype=np.int64)
    return entries, run_starts(entries[1:, 0] != entries[:-1, 0])


def run_starts(new: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each item the place where its run starts; `new[i]` says that item i + 1 starts one."""
    places = np.arange(len(new) + 1)
    places[1:][~new] = 0
    return np.maximum.accumulate(places)
