"""Writes ``quantised.safetensors``: tensor after tensor as they come, the file whole or absent."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import BundleError
from openautoglm.core.files import atomic_write
from openautoglm.models.quantised import Bf16, Float32, QuantisedMatrix
from openautoglm.models.quantised_layout import ALIGNED, CHUNK_BYTES, FORMAT, MATRICES, MOST_SCALE, PARTS, chunks


class _Piece(NamedTuple):
    """A tensor on its way: element type, shape, where its bytes lie in the work file."""

    kind: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


class QuantisedWriter:
    """Writes a quantised file; a context manager, at whose end the file is whole, or absent after an error.

    ::

        with QuantisedWriter(folder / QUANTISED_NAME) as writer:
            writer.add("model.layers.0.mlp.down_proj.weight", quantise(matrix, 4, 32))
            writer.add("model.norm.weight", norm)

    Tensors go to a nameless work file beside `path` as they come (on the same disk, so twice the file's size is
    needed for a moment), and from there into the file, those of wide elements first, so that each is aligned.

    Args:
        path: of the file; an older one is replaced.
        metadata: further texts for its header.
    """

    def __init__(self, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
        self.path, self._metadata = Path(path), dict(metadata or {})
        if taken := ({*FORMAT, MATRICES} & set(self._metadata)):
            raise ValueError(f"the key {sorted(taken)[0]!r} of the metadata is the writer's own")
        self._pieces: dict[str, _Piece] = {}
        self._matrices: dict[str, tuple[int, int]] = {}
        self._taken: set[str] = set()
        self._work: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._work = tempfile.TemporaryFile(dir=self.path.parent)  # __exit__ closes it
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        work, self._work = self._work, None
        assert work is not None
        with work:
            if kind is None:
                self._finish(work)

    def add(self, name: str, value: QuantisedMatrix | Float32 | Bf16) -> None:
        """Write a matrix, or a tensor in fp32 or bf16, under its name in the checkpoint.

        Raises:
            BundleError: the name is taken; codes, scales or zero points do not fit each other; the scales are not
                rounded as `rounded_scales` does.
        """
        names = {name, *(name + part for part in PARTS)} if isinstance(value, QuantisedMatrix) else {name}
        if not name or name == "__metadata__" or names & self._taken:
            raise self._fault(f"{name!r} stands there already, or is no name", "write each tensor once")
        if isinstance(value, QuantisedMatrix):
            shares, rows = self._checked(name, value)
            rest: list[NDArray[Any]] = [shares, rows, *(() if value.zeros is None else (value.zeros,))]
            self._put(name + PARTS[0], "I8" if value.bits == 8 and value.zeros is None else "U8",
                      (value.shape[0], value.shape[1] if value.bits == 8 else -(-value.shape[1] // 2)), _codes(value))
            for part, kind, array in zip(PARTS[1:], ("F16", "F32", "U8"), rest, strict=False):
                self._put(name + part, kind, array.shape, iter([array]))
            self._matrices[name] = (value.bits, value.shape[1])
        elif isinstance(value, Bf16):
            self._put(name, "BF16", value.shape, iter([value.bits]))
        elif isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float16):
            self._put(name, "F32", value.shape, iter([value.astype(np.float32, copy=False)]))
        else:
            raise self._fault(f"{name} is no tensor in fp32 or bf16", "give a float32 array or a `Bf16`")
        self._taken |= names

    def _checked(self, name: str, value: QuantisedMatrix) -> tuple[NDArray[np.float16], Float32]:
        """Check a matrix; return its shares [O, G] and row scales [O]."""
        scales, zeros = value.scales, value.zeros
        fitting = (value.bits in (8, 4) and value.values.ndim == 2 and scales.ndim == 2 and min(scales.shape) >= 1
                   and len(scales) == len(value.values) and value.shape[1] % scales.shape[1] == 0 and value.shape[1] > 0
                   and value.values.dtype == (np.int8 if zeros is None else np.uint8)
                   and (zeros is None or (zeros.shape == scales.shape and zeros.dtype == np.uint8)))
        if not fitting:
            raise self._fault(f"{name}: values, scales and zero points do not fit each other", "see `QuantisedMatrix`")
        low, high = (-127, 127) if zeros is None else (0, 255)
        if value.bits == 4:
            low, high = (-8, 7) if zeros is None else (0, 15)
        inside = all(low <= int(part.min()) and int(part.max()) <= high
                     for part in (value.values, *(() if zeros is None else (zeros,))))
        largest = np.abs(scales).max(-1)
        if not inside or not (largest <= MOST_SCALE).all():
            raise self._fault(f"{name}: values lie outside {low} to {high}, or scales are not finite or too large",
                              "quantise finite weights")
        shares = np.divide(scales, largest[:, None], out=np.zeros_like(scales),
                           where=largest[:, None] > 0).astype(np.float16)
        if not np.array_equal(shares.astype(np.float32) * largest[:, None], scales):
            raise self._fault(f"{name}: scales are no fp16 shares of the largest of their row",
                              "round them with `openautoglm.models.quantised.rounded_scales` before codes are chosen")
        return shares, largest.astype(np.float32, copy=False)

    def _put(self, name: str, kind: str, shape: tuple[int, ...], arrays: Iterator[NDArray[Any]]) -> None:
        assert self._work is not None, "used outside of its `with`"
        offset = self._work.tell()
        for array in arrays:
            self._work.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        self._pieces[name] = _Piece(kind, shape, offset, self._work.tell() - offset)

    def _finish(self, work: IO[bytes]) -> None:
        ordered = sorted(self._pieces.items(), key=lambda each: -ALIGNED.get(each[1].kind, 1))  # a stable sort
        header: dict[str, Any] = {"__metadata__": {**self._metadata, **FORMAT, MATRICES: json.dumps(
            self._matrices, separators=(",", ":"))}}
        at = 0
        for name, piece in ordered:
            header[name] = {"dtype": piece.kind, "shape": list(piece.shape), "data_offsets": [at, at + piece.bytes]}
            at += piece.bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with atomic_write(self.path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _, piece in ordered:
                work.seek(piece.offset)
                for start in range(0, piece.bytes, CHUNK_BYTES):
                    file.write(work.read(min(CHUNK_BYTES, piece.bytes - start)))

    def _fault(self, message: str, remedy: str) -> BundleError:
        return BundleError(message, where=str(self.path), remedy=remedy)


def _codes(value: QuantisedMatrix) -> Iterator[NDArray[Any]]:
    """The codes of a matrix as the file holds them, some rows at a time."""
    for rows in chunks(*value.values.shape):
        piece = value.values[rows]
        if value.bits == 8:
            yield piece
            continue
        if value.zeros is None:
            piece = (piece + np.int8(8)).view(np.uint8)
        made = np.array(piece[:, 0::2])
        made[:, :piece.shape[1] // 2] |= piece[:, 1::2] << 4
        yield made
