"""Headers of safetensors files, and their tensors mapped into memory by numpy alone.

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
from openautoglm.models.quantised import Bf16, Float32

MOST_HEADER_BYTES = 100_000_000
FLOATS = ("F32", "F16", "BF16")
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1", "I8": "i1"}
_AGAIN = "fetch or write the checkpoint again, as safetensors"


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its file, element type (``F32``, ``F16``, ``BF16``, ...), shape, first byte in the file."""

    file: Path
    kind: str
    shape: tuple[int, ...]
    offset: int

    def read(self) -> Float32 | Bf16:
        """Map a tensor of floats into memory, read-only; fp16 is converted."""
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, np.float32)
        mapped = self.map()
        return Bf16(mapped) if self.kind == "BF16" else mapped.astype(np.float32, copy=False)

    def map(self) -> NDArray[Any]:
        """Map the tensor into memory, read-only, as it is stored; bf16 as uint16."""
        dtype = np.dtype(_TYPES[self.kind])
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, dtype)
        return np.asarray(np.memmap(self.file, dtype, "r", self.offset, self.shape))


class Header(NamedTuple):
    """What the header of a safetensors file says: its tensors by name, and its metadata."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


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
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"the header's entry of {name} cannot be read", where=str(path), remedy=_AGAIN) from error
    if not start <= first <= last <= size or min(shape, default=0) < 0:
        raise BundleError(f"the tensor {name} lies outside the file: the file is cut short or damaged",
                          where=str(path), remedy=_AGAIN)
    if kind in _TYPES and math.prod(shape) * np.dtype(_TYPES[kind]).itemsize != last - first:
        raise BundleError(f"the tensor {name} of shape {shape} does not fill its {last - first} bytes",
                          where=str(path), remedy=_AGAIN)
    return Entry(path, kind, shape, first)
