"""Tensors of the Open Inference Protocol, as far as texts, counts and vectors need them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openautoglm.protos import inference_pb2 as pb
from openautoglm.serve.faults import BadRequest, Unsupported

INPUTS = ("text_input", "record", "messages")
_LENGTH = struct.Struct("<I")
_MOST_DIMENSIONS = 8
_FORMS = {"INT64": ("<i8", "int64_contents"), "FP32": ("<f4", "fp32_contents")}


def inputs_of(request: Any) -> dict[str, list[bytes]]:
    """The elements of each input by its name.

    Raises:
        BadRequest: an input is unknown, or its elements do not fit its shape.
        Unsupported: an input has parameters, e.g. lies in shared memory.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(f"has {len(raw)} items, there are {len(request.inputs)} inputs", where="raw_input_contents",
                         remedy="give one for each input, or use contents")
    found: dict[str, list[bytes]] = {}
    for number, tensor in enumerate(request.inputs):
        where = f"inputs.{number}"
        if tensor.name not in INPUTS or tensor.name in found:
            raise BadRequest(f"{tensor.name[:100]!r} is no input, or stands there twice", where=f"{where}.name",
                             remedy=f"use {', '.join(INPUTS)}")
        if tensor.datatype != "BYTES":
            raise BadRequest(f"is {tensor.datatype[:20]!r}", where=f"{where}.datatype", remedy="use BYTES")
        if tensor.parameters:
            raise Unsupported("parameters of inputs, such as shared memory, are not supported",
                              where=f"{where}.parameters", remedy="send the elements themselves")
        elements = _elements(tensor, raw[number] if raw else None, where)
        if not _fits(tensor.shape, len(elements)):
            raise BadRequest(f"has {len(elements)} elements, which is not what its shape says", where=where,
                             remedy="correct the shape")
        found[tensor.name] = elements
    return found


def _elements(tensor: Any, raw: bytes | None, where: str) -> list[bytes]:
    given = {field.name for field, _ in tensor.contents.ListFields()}
    if raw is None:
        if given - {"bytes_contents"}:
            raise BadRequest("holds other fields than bytes_contents", where=f"{where}.contents",
                             remedy="use bytes_contents")
        return list(tensor.contents.bytes_contents)
    if given:
        raise BadRequest("stands beside raw_input_contents", where=f"{where}.contents", remedy="use one of them")
    return list(_unpacked(raw, where))


def _unpacked(raw: bytes, where: str) -> Iterator[bytes]:
    """Elements that have their lengths before them."""
    at = 0
    while at < len(raw):
        start = at + _LENGTH.size
        end = start + _LENGTH.unpack_from(raw, at)[0] if start <= len(raw) else math.inf
        if end > len(raw):
            raise BadRequest("ends within an element", where=where,
                             remedy="put the length of each element before it, in four bytes, little-endian")
        yield raw[start:int(end)]
        at = int(end)


def _fits(shape: Sequence[int], count: int) -> bool:
    if not 0 < len(shape) <= _MOST_DIMENSIONS or any(size < 0 for size in shape):
        return False
    return math.prod(shape) == count


def text_of(element: bytes, where: str) -> str:
    """An element as text.

    Raises:
        BadRequest: it is not UTF-8.
    """
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"is not UTF-8 at byte {error.start}", where=where, remedy="send UTF-8") from error


class Outputs:
    """Collects the outputs of a reply.

    Args:
        raw: write them as raw contents, as the client sent its inputs.
        wanted: names of those that are asked for; empty: all.
    """

    def __init__(self, reply: Any, *, raw: bool, wanted: Sequence[str]) -> None:
        self._reply, self._raw, self._wanted = reply, raw, wanted

    def texts(self, name: str, texts: Sequence[str]) -> None:
        """Add BYTES [texts]."""
        values = [text.encode() for text in texts]
        tensor = self._tensor(name, "BYTES", (len(values),))
        if tensor is not None and self._raw:
            self._reply.raw_output_contents.append(b"".join(_LENGTH.pack(len(value)) + value for value in values))
        elif tensor is not None:
            tensor.contents.bytes_contents.extend(values)

    def numbers(self, name: str, datatype: str, values: NDArray[Any]) -> None:
        """Add INT64 or FP32 in the shape of `values`."""
        kind, field = _FORMS[datatype]
        tensor = self._tensor(name, datatype, values.shape)
        if tensor is not None and self._raw:
            self._reply.raw_output_contents.append(np.ascontiguousarray(values, kind).tobytes())
        elif tensor is not None:
            getattr(tensor.contents, field).extend(values.ravel().tolist())

    def _tensor(self, name: str, datatype: str, shape: Sequence[int]) -> Any:
        if self._wanted and name not in self._wanted:
            return None
        return self._reply.outputs.add(name=name, datatype=datatype, shape=shape)


def tensor_metadata(name: str, datatype: str, shape: Sequence[int]) -> Any:
    """What a model's metadata says of a tensor."""
    return pb.ModelMetadataResponse.TensorMetadata(name=name, datatype=datatype, shape=shape)
