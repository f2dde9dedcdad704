"""Weights of a model folder in pieces of some rows, plain or quantised, so that no whole tensor is in memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from openautoglm.core.errors import BundleError
from openautoglm.export.gguf_tensors import Renamed
from openautoglm.models.quantised_file import Form, QuantisedFile, is_quantised, open_quantised
from openautoglm.runtime.quantised import QuantisedMatrix
from openautoglm.runtime.tensors import Bf16, Checkpoint, Entry, Float32

CHUNK_VALUES = 1 << 21


class Weights:
    """The weights of a checkpoint or bundle, plain or quantised; values are read when asked for.

    Args:
        folder: what holds the safetensors.

    Raises:
        BundleError: files are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._quantised: QuantisedFile | None = open_quantised(folder) if is_quantised(folder) else None
        self._plain = None if self._quantised else Checkpoint(folder)

    def check(self, tensors: Sequence[Renamed]) -> None:
        """Check, without reading values, that all of them are there in their shapes.

        Raises:
            BundleError: one is missing or has another shape.
        """
        for tensor in tensors:
            if (found := self._shape(tensor.source)) != tensor.shape:
                raise BundleError(f"the tensor {tensor.source} has shape {list(found)}, the architecture needs "
                                  f"{list(tensor.shape)}", where=str(self.folder),
                                  remedy="use the config.json and the weights of one and the same model")

    def form(self, name: str) -> Form | None:
        """How a matrix is quantised; None where it is not."""
        return None if self._quantised is None else self._quantised.forms.get(name)

    def kind(self, name: str) -> str:
        """The element type of a tensor that is not quantised: F32, F16 or BF16."""
        return self._entry(name).kind

    def pieces(self, name: str) -> Iterator[Float32 | QuantisedMatrix]:
        """Yield a tensor from its first row to its last; vectors [n] come as one row [1, n].

        Raises:
            BundleError: its scales cannot be.
        """
        if self._quantised is not None and self.form(name) is not None:
            stored = self._quantised.stored(name)
            for rows in _steps(*stored.shape):
                zeros = None if stored.zeros is None else stored.zeros[rows]
                codes = stored.codes[rows]
                yield dataclasses.replace(stored, shape=(len(codes), stored.shape[1]), codes=codes, zeros=zeros,
                                          shares=stored.shares[rows], row_scales=stored.row_scales[rows]).matrix()
            return
        found = self._entry(name).read()
        if len(found.shape) == 1:
            yield (found.float32() if isinstance(found, Bf16) else found)[None]
            return
        for rows in _steps(*found.shape):
            piece = found[rows]
            yield piece.float32() if isinstance(piece, Bf16) else piece

    def _entry(self, name: str) -> Entry:
        source = self._quantised if self._plain is None else self._plain
        assert source is not None
        return source.entry(name)

    def _shape(self, name: str) -> tuple[int, ...]:
        if self._quantised is not None and name in self._quantised:
            return self._quantised.shapes[name]
        return self._entry(name).shape


def _steps(rows: int, columns: int) -> list[slice]:
    step = math.ceil(CHUNK_VALUES / max(columns, 1))
    return [slice(start, start + step) for start in range(0, rows, step)]
