"""Tensors of a checkpoint, read from safetensors files by numpy alone, mapped into memory when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from openautoglm.core.errors import BundleError
from openautoglm.models.quantised import Bf16, Float32, QuantisedMatrix, to_bf16
from openautoglm.models.quantised_file import QUANTISED_NAME, QuantisedFile, StoredMatrix, is_quantised, open_quantised
from openautoglm.models.quantised_layout import Form
from openautoglm.models.tensor_file import FLOATS, MOST_HEADER_BYTES, Entry, Header, read_header

__all__ = ["MOST_HEADER_BYTES", "Bf16", "Checkpoint", "Entry", "Float32", "Header", "read_header", "to_bf16"]
INDEX_NAME, SINGLE_NAME = "model.safetensors.index.json", "model.safetensors"
_AGAIN = "fetch or write the checkpoint again, as safetensors"


class Checkpoint:
    """The tensors of a checkpoint folder (or bundle): one safetensors file, several with an index, or a quantised one.

    Args:
        folder: what holds ``model.safetensors``, ``model.safetensors.index.json`` or ``quantised.safetensors``.

    Raises:
        BundleError: a file is missing, cut short or no safetensors; the index and its files differ; there are
            quantised and other weights.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._quantised: QuantisedFile | None = None
        if is_quantised(self.folder):
            if others := [name for name in (INDEX_NAME, SINGLE_NAME) if (self.folder / name).is_file()]:
                raise BundleError(f"holds {others[0]} and {QUANTISED_NAME}", where=str(self.folder),
                                  remedy="keep one of them")
            self._quantised = open_quantised(self.folder)
            self._entries = {name: self._quantised.entry(name) for name in self._quantised.names
                             if name not in self._quantised.forms}
        elif (self.folder / INDEX_NAME).is_file():
            self._entries = self._indexed(self.folder / INDEX_NAME)
        else:
            self._entries = read_header(self.folder / SINGLE_NAME).entries

    @property
    def files(self) -> list[Path]:
        """The files that hold its tensors, by name."""
        whole = () if self._quantised is None else (self._quantised.path,)
        return sorted({*whole, *(entry.file for entry in self._entries.values())})

    @property
    def forms(self) -> Mapping[str, Form]:
        """The form of each matrix that is stored quantised."""
        return {} if self._quantised is None else self._quantised.forms

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self.forms

    def stored(self, name: str) -> StoredMatrix | None:
        """A matrix as it is stored quantised; None where it is not.

        Raises:
            BundleError: it is damaged.
        """
        return self._quantised.stored(name) if self._quantised is not None and name in self.forms else None

    def read(self, name: str) -> Float32 | Bf16 | QuantisedMatrix:
        """A tensor, mapped where it is stored as it is used.

        Raises:
            BundleError: as `entry`, or it is damaged.
        """
        stored = self.stored(name)
        return self.entry(name).read() if stored is None else stored.matrix()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            BundleError: there is none of that name, or its element type is none of ours.
        """
        if self._quantised is not None and name in self.forms:
            return self._quantised.shapes[name]
        return self.entry(name).shape

    def kind(self, name: str) -> str:
        """The element type of a tensor: ``F32``, ``F16``, ``BF16``; ``quantised`` for a quantised one."""
        return "quantised" if name in self.forms else self.entry(name).kind

    def file(self, name: str) -> Path:
        """The file of a tensor; the folder where there is no such tensor."""
        if self._quantised is not None:
            return self._quantised.path
        return self._entries[name].file if name in self._entries else self.folder

    def entry(self, name: str) -> Entry:
        """Say where a tensor lies.

        Raises:
            BundleError: there is none of that name, or its element type is none of ours.
        """
        found = self._entries.get(name)
        if found is None:
            raise BundleError(f"the tensor {name} is missing", where=str(self.folder), remedy=_AGAIN)
        if found.kind not in FLOATS:
            raise BundleError(f"the tensor {name} has elements of type {found.kind}", where=str(found.file),
                              remedy=f"store weights as one of {', '.join(FLOATS)}")
        return found

    def _indexed(self, path: Path) -> dict[str, Entry]:
        try:
            places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
            names = {str(file) for file in places.values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"the index cannot be read: {error!r}", where=str(path), remedy=_AGAIN) from error
        if foreign := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
            raise BundleError(f"the index names {foreign[0]!r}, which is no safetensors file of the folder",
                              where=str(path), remedy=_AGAIN)
        shards = {name: read_header(self.folder / name).entries for name in sorted(names)}
        for tensor, file in places.items():
            if tensor not in shards[file]:
                raise BundleError(f"the tensor {tensor} is missing, which the index puts there",
                                  where=str(self.folder / file), remedy=_AGAIN)
        return {tensor: shards[file][tensor] for tensor, file in places.items()}
