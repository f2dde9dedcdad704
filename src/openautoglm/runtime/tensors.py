"""Tensors of a checkpoint, read from safetensors files by numpy alone, mapped into memory when asked for.

A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON: name, element type, shape,
first and last byte behind the header), then the bytes of the tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import BundleError

Float32 = NDArray[np.float32]
MOST_HEADER_BYTES = 100_000_000
INDEX_NAME, SINGLE_NAME = "model.safetensors.index.json", "model.safetensors"
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}
_AGAIN = "fetch or write the checkpoint again, as safetensors"


@dataclass(frozen=True, eq=False)
class Bf16:
    """bf16 values: numpy has no such type, so their 16 bits as uint16."""

    bits: NDArray[np.uint16]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.bits.shape

    def __getitem__(self, rows: slice) -> Bf16:
        return Bf16(self.bits[rows])

    def float32(self) -> Float32:
        """The same values in fp32; exact."""
        return (self.bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bf16(values: Float32) -> Bf16:
    """Round fp32 values to the nearest bf16, ties to even; what is not a number stays none."""
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (raw + np.uint32(0x7FFF) + ((raw >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return Bf16(np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16))


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its file, element type (``F32``, ``F16``, ``BF16``), shape, first byte in the file."""

    file: Path
    kind: str
    shape: tuple[int, ...]
    offset: int

    def read(self) -> Float32 | Bf16:
        """Map the tensor into memory, read-only; fp16 is converted."""
        dtype = np.dtype(_TYPES[self.kind])
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, np.float32)
        mapped = np.asarray(np.memmap(self.file, dtype, "r", self.offset, self.shape))
        return Bf16(mapped) if self.kind == "BF16" else mapped.astype(np.float32, copy=False)


class Header(NamedTuple):
    """What the header of a safetensors file says: its tensors by name, and its metadata."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


class Checkpoint:
    """The tensors of a checkpoint folder (or bundle): one safetensors file, or several with an index.

    Args:
        folder: what holds ``model.safetensors`` or ``model.safetensors.index.json``.

    Raises:
        BundleError: a file is missing, cut short or no safetensors; the index and its files differ.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if (self.folder / INDEX_NAME).is_file():
            self._entries = self._indexed(self.folder / INDEX_NAME)
        else:
            self._entries = read_header(self.folder / SINGLE_NAME).entries

    @property
    def files(self) -> list[Path]:
        """The files that hold its tensors, by name."""
        return sorted({entry.file for entry in self._entries.values()})

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def entry(self, name: str) -> Entry:
        """Say where a tensor lies.

        Raises:
            BundleError: there is none of that name, or its element type is none of ours.
        """
        found = self._entries.get(name)
        if found is None:
            raise BundleError(f"the tensor {name} is missing", where=str(self.folder), remedy=_AGAIN)
        if found.kind not in _TYPES:
            raise BundleError(f"the tensor {name} has elements of type {found.kind}", where=str(found.file),
                              remedy=f"store weights as one of {', '.join(_TYPES)}")
        return found

    def _indexed(self, path: Path) -> dict[str, Entry]:
        try:
            places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
            names = {str(file) for file in places.values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"the index cannot be read: {error!r}", where=str(path), remedy=_AGAIN) from error
        if foreign := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
            raise BundleError(f"the index names {foreign[0]!r}, which is no safetensors file of the folder",
                              where=str(path), remedy=_AGAIN)
        shards = {name: read_header(self.folder / name).entries for name in sorted(names)}
        for tensor, file in places.items():
            if tensor not in shards[file]:
                raise BundleError(f"the tensor {tensor} is missing, which the index puts there",
                                  where=str(self.folder / file), remedy=_AGAIN)
        return {tensor: shards[file][tensor] for tensor, file in places.items()}


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file and check it against the file's size.

    Raises:
        BundleError: it cannot be read, or is not whole.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, MOST_HEADER_BYTES):
                raise ValueError("its header does not fit")
            header = json.loads(file.read(length))
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        return Header({name: _entry(path, name, facts, 8 + length, size) for name, facts in header.items()}, metadata)
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror or error}", where=str(path),
                          remedy="give a folder of safetensors; other formats are not read") from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise BundleError(f"is no whole safetensors file: {error}", where=str(path), remedy=_AGAIN) from error


def _entry(path: Path, name: str, facts: Mapping[str, Any], start: int, size: int) -> Entry:
    try:
        kind, shape = str(facts["dtype"]), tuple(int(length) for length in facts["shape"])
        first, last = (start + int(offset) for offset in facts["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the header's entry of {name} cannot be read", where=str(path), remedy=_AGAIN) from error
    if not start <= first <= last <= size or min(shape, default=0) < 0:
        raise BundleError(f"the tensor {name} lies outside the file: the file is cut short or damaged",
                          where=str(path), remedy=_AGAIN)
    if kind in _SIZES and math.prod(shape) * _SIZES[kind] != last - first:
        raise BundleError(f"the tensor {name} of shape {shape} does not fill its {last - first} bytes",
                          where=str(path), remedy=_AGAIN)
    return Entry(path, kind, shape, first)
