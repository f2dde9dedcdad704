"""Weights as the native program holds them: which there are, how many bytes each takes, and how it is made.

A matrix that a linear multiplies by is packed, its bias with it (docs/formats.md); tables, norms and what plug-ins read
stay plain rows of fp32 or bf16. Only one matrix at a time is made, and its tensors are read from the mapped file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import BundleError
from openautoglm.graph.ir import Graph, Value
from openautoglm.graph.sources import Concat, Format, Quantised, Source, Tensor, tensors
from openautoglm.runtime.program import Plan
from openautoglm.runtime.tensors import Bf16, Checkpoint, Float32, to_bf16
from openautoglm.runtime.weights import BITS, Weight, as_float32, evaluate, source_of, stored_parts

LINE = 64
"""Weights lie at multiples of so many bytes."""
HEADER_BYTES, PANEL, _HEAD_BYTES, _GROUP_HEAD_BYTES = 64, 32, 256, 64
_PIECE_VALUES = 1 << 18
Bytes = NDArray[np.uint8]
Form = tuple[str, str, int, int, str, int, bool]


@dataclass(frozen=True)
class Item:
    """One weight of a program.

    Attributes:
        name: unique in its program.
        kind: ``packed``, or ``rows`` for plain rows.
        source: where it comes from; of a packed one `bias` too, None without.
        rows, columns: of the matrix; a vector is one row.
        format: of its elements; rows are fp32 or bf16.
        group, symmetric: of int8 and int4; a group of 0 is a whole row.
    """

    name: str
    kind: Literal["packed", "rows"]
    source: Source
    bias: Source | None
    rows: int
    columns: int
    format: Format
    group: int = 0
    symmetric: bool = True

    @property
    def bytes(self) -> int:
        """Bytes, a packed matrix's header included."""
        if self.kind == "rows":
            return self.rows * self.columns * (4 if self.format == "fp32" else 2)
        return packed_bytes(self.format, self.rows, self.columns, self.group, symmetric=self.symmetric)

    @property
    def form(self) -> Form:
        """Of what it is made and how it lies in memory, whatever it is called."""
        plain = self.source.of if isinstance(self.source, Quantised) else self.source
        return repr((plain, self.bias)), self.kind, self.rows, self.columns, self.format, self.group, self.symmetric

    @cached_property
    def digest(self) -> str:
        """A fingerprint of what it is and how it is made, not of the values."""
        facts = (self.kind, self.source, self.bias, self.rows, self.columns, self.format, self.group, self.symmetric)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def packed_bytes(format: Format, outputs: int, inputs: int, group: int, *, symmetric: bool = True) -> int:
    """Bytes of a packed matrix, header included; `group` 0 is a whole row."""
    if format == "fp32":
        panel = 4 * PANEL * inputs
    elif format == "bf16":
        panel = 4 * PANEL * -(-inputs // 2)
    else:
        size = group or inputs
        codes = PANEL * (-(-size // 8) * 8) // (1 if format == "int8" else 2)
        panel = inputs // size * (_GROUP_HEAD_BYTES * (1 if symmetric else 2) + codes)
    return HEADER_BYTES + -(-outputs // PANEL) * (_HEAD_BYTES + panel)


def packed_item(weight: Value, bias: Value | None, plan: Plan) -> Item:
    """The packed matrix of a linear's weight [outputs, inputs] and bias [outputs]."""
    source = source_of(weight)
    rows, columns = (int(dim) for dim in weight.type.shape)
    name = weight.name if bias is None else f"{weight.name}+bias"
    bias_source = None if bias is None else source_of(bias)
    if not isinstance(source, Quantised):
        return Item(name, "packed", source, bias_source, rows, columns, plan.dtype)
    if source.format not in BITS:
        return Item(name, "packed", source.of, bias_source, rows, columns, source.format)
    return Item(name, "packed", source.of, bias_source, rows, columns, source.format, source.group or columns,
                source.symmetric)


def rows_item(value: Value, checkpoint: Checkpoint | None, plan: Plan, *, exact: bool) -> Item:
    """Plain rows of a weight: in fp32 if `exact`, else as the plan says, or bf16 where the checkpoint has no more."""
    source = source_of(value)
    shape = tuple(int(dim) for dim in value.type.shape)
    rows, columns = (1, shape[0]) if len(shape) == 1 else (shape[0], math.prod(shape[1:]))
    format: Format = "fp32" if exact else plan.dtype
    if isinstance(source, Quantised) and not exact:
        format = "bf16" if source.format == "bf16" else format
    stored = checkpoint.kind(source.name) if checkpoint is not None and isinstance(source, Tensor) else ""
    if stored == "BF16" and not exact:
        format = "bf16"
    return Item(f"{value.name}.rows", "rows", source, None, rows, columns, format)


def products(graph: Graph, plan: Plan) -> Iterator[Item]:
    """The packed matrices of linears without a bias."""
    for node in graph.nodes:
        if node.operator in ("linear", "quantised_linear") and len(node.inputs) == 2:
            yield packed_item(node.inputs[1], None, plan)


def tied_item(matrices: Iterable[Item], table: Item) -> Item | None:
    """That of some packed matrices, a tied head, which holds the rows of a table as exactly as the table would."""
    source = table.source.of if isinstance(table.source, Quantised) else table.source
    for item in matrices:
        exact = item.kind == "packed" and item.bias is None and item.format in ("fp32", table.format)
        if exact and item.source == source:
            return item
    return None


def fill(item: Item, checkpoint: Checkpoint, out: Bytes, native: Any, team: Any) -> None:
    """Make a weight in `out`, `item.bytes` bytes at a multiple of 64; codes that are stored in its form are taken.

    Args:
        native, team: the extension, and the threads that round and pack.

    Raises:
        BundleError: a tensor cannot be read, or a value that is to be rounded is not finite.
    """
    if item.kind == "rows":
        _fill_rows(item, _plain(evaluate(item.source, checkpoint)), out)
        return
    bias = None if item.bias is None else np.ascontiguousarray(as_float32(evaluate(item.bias, checkpoint)))
    if item.format in BITS and (stored := stored_parts(Quantised(item.source, item.format, item.group, item.symmetric),
                                                       checkpoint)):
        codes = [(part.codes.view(np.uint8), part.shares.view(np.uint16), part.row_scales, part.zeros)
                 for part in stored]
        native.pack_codes(team, codes, item.format, item.columns, item.group, item.symmetric, bias, out)
        return
    parts = [part.bits if isinstance(part, Bf16) else part for part in _parts(item.source, checkpoint)]
    try:
        native.pack(team, [np.ascontiguousarray(part) for part in parts], item.format, item.group, item.symmetric,
                    bias, out)
    except ValueError as error:
        names = tensors(item.source)
        raise BundleError(f"{', '.join(names)}: {error}", where=str(checkpoint.folder),
                          remedy="train or fetch the checkpoint again") from error


def _parts(source: Source, checkpoint: Checkpoint) -> Iterator[Float32 | Bf16]:
    """The matrix in pieces that lie one under the other, as they are stored where that is possible."""
    if isinstance(source, Concat):
        for part in source.parts:
            yield from _parts(part, checkpoint)
    else:
        yield _plain(evaluate(source, checkpoint))


def _plain(weight: Weight) -> Float32 | Bf16:
    return weight if isinstance(weight, Bf16 | np.ndarray) else weight.dequantise()


def _fill_rows(item: Item, weight: Float32 | Bf16, out: Bytes) -> None:
    """Convert piece by piece: rounding takes several times the memory of what it rounds."""
    length, at = weight.shape[0], 0
    step = max(1, _PIECE_VALUES * length // (item.rows * item.columns))
    for start in range(0, length, step):
        piece = weight[start:start + step]
        if item.format == "fp32":
            made: NDArray[Any] = as_float32(piece)
        else:
            made = piece.bits if isinstance(piece, Bf16) else to_bf16(piece).bits
        raw = np.ascontiguousarray(made).reshape(-1).view(np.uint8)
        out[at:at + len(raw)] = raw
        at += len(raw)
