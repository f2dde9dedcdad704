"""Weights of a graph from a checkpoint: sources are checked by headers alone, then evaluated one weight at a time.

Only one weight is in memory at once: plain tensors are views of the mapped file, and everything else is made from them
when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from openautoglm.core.errors import BundleError, GraphError
from openautoglm.graph.ir import Graph, Value
from openautoglm.graph.sources import Concat, Quantised, Rows, Scaled, Source, Tensor, tensors
from openautoglm.models.quantised_file import StoredMatrix
from openautoglm.runtime.quantised import QuantisedMatrix, groups_of, quantise
from openautoglm.runtime.tensors import Bf16, Checkpoint, Float32, to_bf16

Weight = Float32 | Bf16 | QuantisedMatrix
BITS = {"int8": 8, "int4": 4}
_REMEDY = "use the config.json and the weights of one and the same checkpoint"


def check_weights(graph: Graph, checkpoint: Checkpoint) -> None:
    """Check, without reading any weight, that the checkpoint has all that the graph needs, in the right shapes.

    Raises:
        BundleError: a tensor is missing or has another shape; file and tensor are named.
        GraphError: a weight without a source, or a source that does not fit together.
    """
    ends: dict[str, int] = {}
    for value in graph.weights.values():
        source = source_of(value)
        found = shape_of(source, checkpoint)
        if found != value.type.shape:
            raise BundleError(f"the tensor {tensors(source)[0]} gives shape {found}, the architecture needs "
                              f"{value.type.shape}", where=_files([tensors(source)[0]], checkpoint), remedy=_REMEDY)
        _note_ends(source, checkpoint, ends)
    for name, end in ends.items():
        if (rows := checkpoint.shape(name)[0]) != end:
            raise BundleError(f"the tensor {name} has {rows} rows, the architecture needs {end}",
                              where=str(checkpoint.file(name)), remedy=_REMEDY)


def shape_of(source: Source, checkpoint: Checkpoint) -> tuple[int, ...]:
    """The shape that a source will have.

    Raises:
        BundleError: a tensor is missing, or has too few rows.
        GraphError: the parts do not fit together.
    """
    if isinstance(source, Tensor):
        return checkpoint.shape(source.name)
    if isinstance(source, Concat):
        shapes = [shape_of(part, checkpoint) for part in source.parts]
        if not shapes or len({shape[1:] for shape in shapes}) != 1:
            raise GraphError(f"shapes {shapes} cannot lie one under the other", where=", ".join(tensors(source)))
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])
    shape = shape_of(source.of, checkpoint)
    names = tensors(source)
    if isinstance(source, Rows):
        if not shape or not 0 <= source.start < source.stop <= shape[0]:
            raise BundleError(f"{names[0]} of shape {shape} has no rows {source.start} to {source.stop}",
                              where=_files(names, checkpoint), remedy=_REMEDY)
        return (source.stop - source.start, *shape[1:])
    if isinstance(source, Scaled) and not isinstance(source.by, float):
        by = shape_of(source.by, checkpoint)
        if by != shape[-1:]:
            raise BundleError(f"{names[-1]} of shape {by} cannot scale the columns of {names[0]}, shape {shape}",
                              where=_files(names, checkpoint), remedy=_REMEDY)
    if isinstance(source, Quantised) and source.format in ("int8", "int4"):
        if len(shape) != 2:
            raise GraphError(f"only matrices are quantised, not shape {shape}", where=names[0])
        groups_of(shape[1], source.group)
    return shape


def evaluate(source: Source, checkpoint: Checkpoint) -> Weight:
    """Make a weight. Tensors and their rows stay views of the file (bf16 as its bits); scaling gives fp32.

    What is asked for in the form in which it is stored is not rounded again.

    Raises:
        BundleError: a tensor is missing, too small, damaged or not finite.
        GraphError: the parts do not fit together.
    """
    if isinstance(source, Tensor):
        return checkpoint.read(source.name)
    if isinstance(source, Concat):
        return _concat([_plain(part, checkpoint) for part in source.parts])
    if isinstance(source, Quantised) and (stored := stored_parts(source, checkpoint)):
        return _joined([part.matrix() for part in stored])
    of = _plain(source.of, checkpoint)
    if isinstance(source, Rows):
        return of[source.start:source.stop]
    if isinstance(source, Scaled):
        by = source.by if isinstance(source.by, float) else as_float32(_plain(source.by, checkpoint))
        return np.multiply(as_float32(of), by, dtype=np.float32)
    if source.format == "fp32":
        return as_float32(of)
    if source.format == "bf16":
        return of if isinstance(of, Bf16) else to_bf16(of)
    try:
        return quantise(of, 8 if source.format == "int8" else 4, source.group, symmetric=source.symmetric)
    except GraphError as error:
        names = tensors(source)
        raise BundleError(f"{', '.join(names)}: {error.message}", where=_files(names, checkpoint),
                          remedy=error.remedy) from error


def stored_parts(source: Quantised, checkpoint: Checkpoint) -> list[StoredMatrix]:
    """The matrices that lie one under the other in a source and are stored in its very form; else none."""
    found = _stored(source.of, checkpoint) if source.format in BITS else None
    for part in found or ():
        if part.form != (BITS[source.format], source.group or part.shape[1], source.symmetric):
            return []
    return found or []


def _stored(source: Source, checkpoint: Checkpoint) -> list[StoredMatrix] | None:
    if isinstance(source, Tensor):
        part = checkpoint.stored(source.name)
        return None if part is None else [part]
    if isinstance(source, Rows):
        whole = _stored(source.of, checkpoint)
        return [whole[0][source.start:source.stop]] if whole is not None and len(whole) == 1 else None
    if isinstance(source, Concat):
        parts = [_stored(part, checkpoint) for part in source.parts]
        return None if None in parts else [one for part in parts for one in part or ()]
    return None


def _joined(parts: list[QuantisedMatrix]) -> QuantisedMatrix:
    if len(parts) == 1:
        return parts[0]
    zeros = [part.zeros for part in parts if part.zeros is not None]
    return QuantisedMatrix(parts[0].bits, np.concatenate([part.values for part in parts]),
                           np.concatenate([part.scales for part in parts]), np.concatenate(zeros) if zeros else None)


def weight_of(value: Value, checkpoint: Checkpoint) -> Weight:
    """Make the weight of a graph's value; `check_weights` has seen to its shape."""
    return evaluate(source_of(value), checkpoint)


def as_float32(weight: Weight) -> Float32:
    """A weight in fp32, dequantised where it is quantised."""
    if isinstance(weight, QuantisedMatrix):
        return weight.dequantise()
    return weight.float32() if isinstance(weight, Bf16) else weight


def quantised_bytes(shape: tuple[int, ...], source: Quantised) -> int:
    """Bytes of a `QuantisedMatrix` of that shape: a byte a value, fp32 scales, a byte a zero point."""
    groups = shape[0] * groups_of(shape[1], source.group)
    return math.prod(shape) + groups * (4 if source.symmetric else 5)


def _plain(source: Source, checkpoint: Checkpoint) -> Float32 | Bf16:
    weight = evaluate(source, checkpoint)
    return weight.dequantise() if isinstance(weight, QuantisedMatrix) else weight


def _concat(parts: list[Float32 | Bf16]) -> Float32 | Bf16:
    bits = [part.bits for part in parts if isinstance(part, Bf16)]
    if len(bits) == len(parts):
        return Bf16(np.concatenate(bits))
    return np.concatenate([as_float32(part) for part in parts])


def _note_ends(source: Source, checkpoint: Checkpoint, ends: dict[str, int]) -> None:
    """Note of each tensor up to which row it is read, so that one with too many rows is found."""
    if isinstance(source, Tensor):
        ends[source.name] = max(checkpoint.shape(source.name)[:1], default=0)
    elif isinstance(source, Rows) and isinstance(source.of, Tensor):
        ends[source.of.name] = max(source.stop, ends.get(source.of.name, 0))
    elif isinstance(source, Concat):
        for part in source.parts:
            _note_ends(part, checkpoint, ends)
    else:
        _note_ends(source.of, checkpoint, ends)
        if isinstance(source, Scaled) and not isinstance(source.by, float):
            _note_ends(source.by, checkpoint, ends)


def source_of(value: Value) -> Source:
    """Where the weight of a graph comes from.

    Raises:
        GraphError: it has no source.
    """
    if value.source is None:
        raise GraphError("is read like a weight, but has no source", where=value.name)
    return value.source


def _files(names: Iterable[str], checkpoint: Checkpoint) -> str:
    return ", ".join(dict.fromkeys(str(checkpoint.file(name)) for name in names))
