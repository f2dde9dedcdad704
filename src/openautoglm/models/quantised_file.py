"""``quantised.safetensors``: matrices in int8 and int4 as codes and scales, all other tensors as floats.

docs/formats.md describes the layout. Reading and writing take numpy alone, and the memory of one tensor at a time.
Letters in names: O outputs (rows), I inputs (columns), G groups of a row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import BundleError
from openautoglm.models.quantised import Bf16, Float32, QuantisedMatrix
from openautoglm.models.quantised_layout import (
    ALIGNED,
    FORMAT,
    MATRICES,
    MOST_SCALE,
    PARTS,
    QUANTISED_NAME,
    Form,
    chunks,
)
from openautoglm.models.quantised_writer import QuantisedWriter
from openautoglm.models.tensor_file import Entry, read_header

__all__ = ["QUANTISED_NAME", "Form", "QuantisedFile", "QuantisedWriter", "StoredMatrix", "forms_of",
           "is_quantised", "open_quantised"]
_MOST_COLUMNS = 1 << 31
_AGAIN = "copy or write the bundle again"


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A quantised matrix as it lies in the file, mapped read-only; value = (code - zero) * share * row scale.

    Attributes:
        form, shape: how it is quantised, [O, I].
        codes: int8 or uint8 [O, I]; of 4 bits uint8 [O, ceil(I / 2)], the even column in the low half, 8 added where
            symmetric.
        shares: fp16 [O, G].
        row_scales: fp32 [O].
        zeros: uint8 [O, G]; None where symmetric.
    """

    form: Form
    shape: tuple[int, int]
    codes: NDArray[Any]
    shares: NDArray[np.float16]
    row_scales: Float32
    zeros: NDArray[np.uint8] | None

    def __getitem__(self, rows: slice) -> StoredMatrix:
        zeros = None if self.zeros is None else self.zeros[rows]
        scales = self.row_scales[rows]
        return StoredMatrix(self.form, (len(scales), self.shape[1]), self.codes[rows], self.shares[rows], scales, zeros)

    def matrix(self) -> QuantisedMatrix:
        """The matrix, copied out of the file, one value a byte."""
        scales = self.shares.astype(np.float32) * self.row_scales[:, None]
        zeros = None if self.zeros is None else np.array(self.zeros)
        if self.form.bits == 8:
            return QuantisedMatrix(8, np.array(self.codes), scales, zeros)
        values: NDArray[Any] = np.empty(self.shape, np.int8 if zeros is None else np.uint8)
        for rows in chunks(*self.shape):
            codes = self.codes[rows]
            piece = values[rows]
            piece[:, 0::2] = codes & 15
            piece[:, 1::2] = (codes >> 4)[:, :self.shape[1] // 2]
            if zeros is None:
                piece -= 8
        return QuantisedMatrix(4, values, scales, zeros)


class QuantisedFile:
    """An open file; what its header says is checked, values are read when asked for.

    Attributes:
        path: the file.
        metadata: texts by their keys.
        forms: of each quantised matrix, how it is quantised.
        shapes: of every matrix and tensor.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        entries, self.metadata = read_header(self.path)
        for key, wanted in FORMAT.items():
            if self.metadata.get(key) != wanted:
                raise self._fault(f"has {key} {self.metadata.get(key)!r}, this version reads {wanted!r}",
                                  "write it with `QuantisedWriter`, or install a version that reads it")
        for name, entry in entries.items():
            if entry.offset % ALIGNED.get(entry.kind, 1):
                raise self._fault(f"the tensor {name} does not lie at a multiple of its elements")
        self._matrices = {name: self._parts(name, facts, entries) for name, facts in self._facts().items()}
        self._plain = entries
        self.forms = {name: form for name, (form, _) in self._matrices.items()}
        self.shapes: dict[str, tuple[int, ...]] = {
            name: (parts[".row_scales"].shape[0], self._columns[name]) for name, (_, parts) in self._matrices.items()}
        for name, entry in self._plain.items():
            if entry.kind not in ("F32", "BF16"):
                raise self._fault(f"the tensor {name} has elements of type {entry.kind}", "store it as F32 or BF16")
            self.shapes[name] = entry.shape

    @property
    def names(self) -> tuple[str, ...]:
        """Matrices and tensors, by their names in the checkpoint."""
        return tuple(self.shapes)

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def read(self, name: str) -> QuantisedMatrix | Float32:
        """A quantised matrix, or a tensor in fp32 (bf16 converted).

        Raises:
            BundleError: there is none of that name, or its scales or zero points cannot be.
        """
        if name in self._matrices:
            return self.stored(name).matrix()
        found = self.entry(name).read()
        return found.float32() if isinstance(found, Bf16) else found

    def entry(self, name: str) -> Entry:
        """Where a tensor that is not quantised lies.

        Raises:
            BundleError: there is none of that name.
        """
        if name not in self._plain:
            raise self._fault(f"the tensor {name} is missing" if name not in self._matrices else f"{name} is quantised")
        return self._plain[name]

    def stored(self, name: str) -> StoredMatrix:
        """A quantised matrix as it lies in the file.

        Raises:
            BundleError: there is none of that name, or its scales or zero points cannot be.
        """
        if name not in self._matrices:
            raise self._fault(f"the quantised matrix {name} is missing")
        form, parts = self._matrices[name]
        codes, shares, rows = (parts[part].map() for part in PARTS[:3])
        zeros = parts[".zeros"].map() if ".zeros" in parts else None
        with np.errstate(over="ignore", invalid="ignore"):
            largest = np.abs(shares).max(-1).astype(np.float32) * np.abs(rows)
        if not (largest <= MOST_SCALE).all():
            raise self._fault(f"scales of {name} are not finite, or too large")
        if zeros is not None and form.bits == 4 and int(zeros.max()) > 15:
            raise self._fault(f"zero points of {name} lie outside 0 to 15")
        return StoredMatrix(form, cast(tuple[int, int], self.shapes[name]), codes, shares, rows, zeros)

    def _facts(self) -> dict[str, tuple[int, int]]:
        """Bits and columns of each matrix, as the metadata says."""
        try:
            facts = {str(name): (int(bits), int(columns))
                     for name, (bits, columns) in json.loads(self.metadata[MATRICES]).items()}
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise self._fault(f"its metadata say nothing of its matrices that can be read: {error!r}") from error
        self._columns = {name: columns for name, (_, columns) in facts.items()}
        for name, (bits, columns) in facts.items():
            if bits not in (8, 4) or not 1 <= columns <= _MOST_COLUMNS:
                raise self._fault(f"the matrix {name} cannot have {bits} bits and {columns} columns")
        return facts

    def _parts(self, name: str, facts: tuple[int, int], entries: dict[str, Entry]) -> tuple[Form, dict[str, Entry]]:
        """Take the tensors of a matrix out of `entries`, check them, and say its form."""
        bits, columns = cast(Literal[8, 4], facts[0]), facts[1]
        parts = {part: entries.pop(name + part) for part in PARTS if name + part in entries}
        if missing := [part for part in PARTS[:3] if part not in parts]:
            raise self._fault(f"the tensor {name}{missing[0]} is missing")
        symmetric = ".zeros" not in parts
        shape = parts[".scales"].shape
        if len(shape) != 2 or min(shape) < 1 or columns % shape[1]:
            raise self._fault(f"{name}.scales of shape {list(shape)} do not fit {columns} columns")
        width = columns if bits == 8 else (columns + 1) // 2
        wanted = {".codes": ("I8" if bits == 8 and symmetric else "U8", (shape[0], width)), ".scales": ("F16", shape),
                  ".row_scales": ("F32", shape[:1]), ".zeros": ("U8", shape)}
        for part, entry in parts.items():
            kind, fitting = wanted[part]
            if (entry.kind, entry.shape) != (kind, fitting):
                raise self._fault(f"{name}{part} is {entry.kind}{list(entry.shape)}, "
                                  f"it should be {kind}{list(fitting)}")
        return Form(bits, columns // shape[1], symmetric), parts

    def _fault(self, message: str, remedy: str = _AGAIN) -> BundleError:
        return BundleError(message, where=str(self.path), remedy=remedy)


def open_quantised(path: str | Path) -> QuantisedFile:
    """Open ``quantised.safetensors``, given itself or the folder that it lies in.

    Raises:
        BundleError: it is missing, damaged, of another format or version, or its tensors do not fit each other.
    """
    path = Path(path)
    return QuantisedFile(path / QUANTISED_NAME if path.is_dir() else path)


def forms_of(folder: str | Path) -> dict[str, Form]:
    """How the quantised matrices of the checkpoint in a folder are stored; none where it has no quantised file.

    Raises:
        BundleError: as `open_quantised`.
    """
    return open_quantised(folder).forms if is_quantised(folder) else {}


def is_quantised(folder: str | Path) -> bool:
    """Whether the checkpoint in a folder has quantised weights."""
    return (Path(folder) / QUANTISED_NAME).is_file()
