"""Element types of GGUF: rows of weights to the bytes of ggml's blocks.

A block of the quantised types holds 32 neighbours of a row: ``q8_0`` an fp16 scale and 32 int8; ``q4_0`` an fp16 scale
and 16 bytes, value i in the low half of byte i, value i + 16 in its high half, 8 added; ``q4_1`` the same with an fp16
least value in place of the 8. Matrices that are quantised already keep their codes where the type can hold them.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import BundleError
from openautoglm.core.extras import require
from openautoglm.runtime.quantised import QuantisedMatrix
from openautoglm.runtime.tensors import Float32

ElementType = Literal["f32", "f16", "bf16", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1"]
ELEMENT_TYPES: tuple[ElementType, ...] = get_args(ElementType)
BLOCK = 32
_BYTES: dict[ElementType, tuple[int, int]] = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q5_0": (32, 22), "q5_1": (32, 24),
    "q4_0": (32, 18), "q4_1": (32, 20)}
_LEAST = np.float32(1e-30)
"""Values below it become zero before they are quantised: fp16 scales hold nothing near it."""


def row_bytes(kind: ElementType, columns: int) -> int:
    """Bytes of one row."""
    block, size = _BYTES[kind]
    return columns // block * size


def fitting(kind: ElementType, columns: int) -> ElementType:
    """`kind`, or f16 where blocks do not divide the rows."""
    return kind if columns % _BYTES[kind][0] == 0 else "f16"


def stored_as(matrix_bits: int, symmetric: bool) -> ElementType:
    """The type that holds a quantised matrix best."""
    if matrix_bits == 8:
        return "q8_0"
    return "q4_0" if symmetric else "q4_1"


def encode(rows: Float32 | QuantisedMatrix, kind: ElementType, name: str) -> NDArray[np.uint8]:
    """Return the bytes [rows, row_bytes] of some rows of the tensor `name`.

    Raises:
        BundleError: a value is not finite, or too large for the type.
        MissingExtraError: the package gguf is not installed.
    """
    if isinstance(rows, QuantisedMatrix):
        if keeps_codes(rows, kind):
            return _with_codes(rows, kind, name)
        rows = rows.dequantise()
    if not np.isfinite(rows).all():
        raise BundleError(f"{name} holds a value that is not finite", remedy="train or fetch the model again")
    if kind == "f32":
        return np.ascontiguousarray(rows, "<f4").view(np.uint8)
    if kind == "f16":
        return _half(rows, name).view(np.uint8)
    gguf = require("gguf", "export")
    if kind != "bf16":
        rows = np.where(np.abs(rows) < _LEAST, np.float32(0), rows)
        _half(np.abs(rows).max(-1), name)
    with np.errstate(over="ignore"):  # of reciprocals of scales that fp16 rounds to zero
        found: NDArray[np.uint8] = gguf.quants.quantize(np.ascontiguousarray(rows, np.float32),
                                                        gguf.GGMLQuantizationType[kind.upper()])
    return found.view(np.uint8)


def keeps_codes(matrix: QuantisedMatrix, kind: ElementType) -> bool:
    """Whether the type holds the matrix as it is, but for scales rounded to fp16."""
    return kind == stored_as(matrix.bits, matrix.zeros is None) and matrix.group % BLOCK == 0 and (
        matrix.bits == 4 or matrix.zeros is None)


def _with_codes(matrix: QuantisedMatrix, kind: ElementType, name: str) -> NDArray[np.uint8]:
    """Codes as they are, the scale of each group once for every block of it."""
    outputs, columns = matrix.shape
    blocks = columns // BLOCK

    def spread(values: Float32) -> NDArray[np.uint8]:
        """[O, G] as the fp16 of every block, [O, blocks, 2]."""
        return _half(values, name).repeat(blocks // values.shape[1], 1).view(np.uint8).reshape(outputs, blocks, 2)

    codes = matrix.values.reshape(outputs, blocks, BLOCK)
    parts: list[NDArray[Any]] = [spread(matrix.scales)]
    if kind == "q8_0":
        parts.append(codes.view(np.uint8))
    else:
        if matrix.zeros is None:
            codes = (codes + 8).astype(np.uint8)
        else:
            parts.append(spread(-matrix.scales * matrix.zeros))
        parts.append(codes[..., :BLOCK // 2] | codes[..., BLOCK // 2:] << 4)
    return np.concatenate(parts, -1).reshape(outputs, -1)


def _half(values: Float32, name: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(values).astype("<f2")
    if not np.isfinite(found).all():
        raise BundleError(f"{name} holds a value beyond fp16's 65504",
                          remedy="export as f32 or bf16: --type f32, --type bf16")
    return found
