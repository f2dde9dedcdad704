"""What reader and writer of ``quantised.safetensors`` share: names, metadata, forms. docs/formats.md describes it."""

from __future__ import annotations

from typing import Literal, NamedTuple

QUANTISED_NAME = "quantised.safetensors"
FORMAT = {"format": "openautoglm-quantised", "version": "1"}
PARTS = (".codes", ".scales", ".row_scales", ".zeros")
"""What the name of a matrix is followed by, in the names of the tensors that it consists of."""
MATRICES = "matrices"
"""Key of the metadata: JSON, of each matrix its bits and its columns."""
ALIGNED = {"F32": 4, "F16": 2, "BF16": 2}
"""At multiples of how many bytes the elements of a tensor lie; bytes may lie anywhere."""
MOST_SCALE = 1e36
"""No scale is larger, so that no value is infinite."""
CHUNK_BYTES = 1 << 22
"""How much is converted or copied at a time."""


class Form(NamedTuple):
    """How a matrix is quantised: 8 or 4 bits, columns that share a scale, with zero points or without."""

    bits: Literal[8, 4]
    group: int
    symmetric: bool


def chunks(rows: int, columns: int) -> list[slice]:
    """Slices of rows that hold a few MiB of values each."""
    step = max(1, CHUNK_BYTES // max(columns, 1))
    return [slice(start, start + step) for start in range(0, rows, step)]
