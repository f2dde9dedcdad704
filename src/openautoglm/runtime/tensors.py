"""Tensors of a checkpoint, read from safetensors files by numpy alone, mapped into memory when asked for."""

from __future__ import annotations

import json
from pathlib import Path

from openautoglm.core.errors import BundleError
from openautoglm.models.quantised import Bf16, Float32, to_bf16
from openautoglm.models.tensor_file import FLOATS, MOST_HEADER_BYTES, Entry, Header, read_header

__all__ = ["MOST_HEADER_BYTES", "Bf16", "Checkpoint", "Entry", "Float32", "Header", "read_header", "to_bf16"]
INDEX_NAME, SINGLE_NAME = "model.safetensors.index.json", "model.safetensors"
_AGAIN = "fetch or write the checkpoint again, as safetensors"


class Checkpoint:
    """The tensors of a checkpoint folder (or bundle): one safetensors file, or several with an index.

    Args:
        folder: what holds ``model.safetensors`` or ``model.safetensors.index.json``.

    Raises:
        BundleError: a file is missing, cut short or no safetensors; the index and its files differ.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if (self.folder / INDEX_NAME).is_file():
            self._entries = self._indexed(self.folder / INDEX_NAME)
        else:
            self._entries = read_header(self.folder / SINGLE_NAME).entries

    @property
    def files(self) -> list[Path]:
        """The files that hold its tensors, by name."""
        return sorted({entry.file for entry in self._entries.values()})

    def __contains__(self, name: str) -> bool:
        return name in self._entries

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
