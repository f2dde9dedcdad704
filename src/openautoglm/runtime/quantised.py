"""Matrices in int8 and int4: round to nearest, in groups of neighbouring input columns that share a scale.

value = (stored - zero point) x scale. Symmetric: no zero point, stored -127..127 or -8..7; asymmetric: stored
0..255 or 0..15, and 0.0 is always exact. Letters in names: O outputs (rows), I inputs (columns), G groups of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import GraphError
from openautoglm.models.quantised import Bf16, Float32, QuantisedMatrix, rounded_scales

__all__ = ["QuantisedMatrix", "groups_of", "quantise", "rounded_scales"]
_CHUNK_VALUES = 1 << 22
"""How many values are converted at a time, so that quantising takes little memory beside its result."""


def groups_of(columns: int, group: int) -> int:
    """How many groups a row of `columns` has; `group` 0 is the whole row.

    Raises:
        GraphError: the groups do not divide the row.
    """
    size = group or columns
    if size < 1 or columns % size:
        raise GraphError(f"groups of {group} do not divide a row of {columns} columns",
                         remedy="choose a group that divides every row, e.g. 32")
    return columns // size


def quantise(matrix: Float32 | Bf16, bits: Literal[8, 4], group: int = 32, *, symmetric: bool = True
             ) -> QuantisedMatrix:
    """Round a matrix [O, I] to the nearest of its groups' levels.

    Symmetric 8 bits: the largest magnitude becomes 127. Symmetric 4 bits: it becomes -8 (so the scale takes the
    opposite of its sign), which uses all sixteen levels. Asymmetric: the levels span least to greatest value and 0.
    Scales are rounded to what packed weights hold: an fp16 share of the largest scale of the row.

    Raises:
        GraphError: not a matrix, groups that do not divide its rows, or values that are not finite.
    """
    if len(matrix.shape) != 2:
        raise GraphError(f"only matrices are quantised, not shape {matrix.shape}")
    rows, columns = matrix.shape
    groups = groups_of(columns, group)
    values: NDArray[Any] = np.empty((rows, columns), np.int8 if symmetric else np.uint8)
    scales = np.empty((rows, groups), np.float32)
    zeros = None if symmetric else np.empty((rows, groups), np.uint8)
    for chunk in _chunks(rows, columns):
        piece = matrix[chunk]
        plain = piece.float32() if isinstance(piece, Bf16) else piece
        grouped = plain.reshape(-1, groups, columns // groups)
        if not np.isfinite(grouped).all():
            raise GraphError("a weight is not finite, so it cannot be quantised",
                             remedy="train or fetch the checkpoint again")
        if zeros is None:
            stored = _symmetric(grouped, bits, scales[chunk])
        else:
            stored = _asymmetric(grouped, bits, scales[chunk], zeros[chunk])
        values[chunk] = stored.reshape(-1, columns)
    return QuantisedMatrix(bits, values, scales, zeros)


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, _CHUNK_VALUES // max(columns, 1))
    return (slice(start, start + size) for start in range(0, rows, size))


def _symmetric(grouped: Float32, bits: int, scales: Float32) -> Float32:
    least, greatest = grouped.min(-1), grouped.max(-1)
    if bits == 8:
        scales[...] = rounded_scales(np.maximum(-least, greatest) / 127)
        low, high = -127, 127
    else:
        scales[...] = rounded_scales(np.where(-least > greatest, least, greatest) / -8)
        low, high = -8, 7
    return np.clip(np.rint(_divide(grouped, scales)), low, high)


def _asymmetric(grouped: Float32, bits: int, scales: Float32, zeros: NDArray[np.uint8]) -> Float32:
    top = (1 << bits) - 1
    least, greatest = np.minimum(grouped.min(-1), 0), np.maximum(grouped.max(-1), 0)
    scales[...] = rounded_scales((greatest - least) / top)
    zeros[...] = np.clip(np.rint(_divide(-least[..., None], scales)), 0, top)[..., 0]
    return np.clip(np.rint(_divide(grouped, scales)) + zeros[..., None], 0, top)


def _divide(grouped: Float32, scales: Float32) -> Float32:
    """Divide groups by their scales; those of a scale of zero are zero."""
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=np.abs(scales) > np.finfo(np.float32).tiny)
    return grouped * inverse[..., None]
