"""Packed weights on disk: ``packed-*.safetensors`` beside a checkpoint, ready for the native program to copy or to map.

Each weight is a tensor of bytes, in the order in which a step uses them, packed matrices first and at multiples of 64.
The metadata says how they were made and of which files; a file that does not fit is left alone, with a message why.
Each weight has a checksum there. It is checked when the weight is read into memory: what is only mapped is not read.
docs/formats.md describes the layout.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openautoglm.core.errors import BundleError
from openautoglm.core.files import atomic_write
from openautoglm.runtime.packing import HEADER_BYTES, LINE, Bytes, Item, fill
from openautoglm.runtime.program import Plan
from openautoglm.runtime.tensors import Checkpoint, Entry, read_header

VERSION = "2"
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_AGAIN = "write it again with pack_checkpoint, or remove it"
_FORMAT = {"format": "openautoglm-packed", "version": VERSION}
_FAULTS = {"format": "is no packed file", "version": "is of another version of the format",
           "spec": "is of another architecture", "sources": "was made of other weights"}


@dataclass(frozen=True)
class PackedFile:
    """A packed file that fits a program.

    Attributes:
        entries: of each weight by its name, where its bytes lie.
        checksums: of each weight by its name, the CRC-32 of its bytes.
    """

    path: Path
    entries: Mapping[str, Entry]
    checksums: Mapping[str, int]

    def offset(self, item: Item) -> int:
        """The first byte of a weight in the file."""
        return self.entries[item.name].offset

    def read(self, item: Item, out: Bytes) -> None:
        """Read a weight into memory.

        Raises:
            BundleError: it is damaged, or cannot be read.
        """
        read_into(self.path, self.offset(item), out)
        self.check(item.name, zlib.crc32(out.data))

    def check(self, name: str, checksum: int) -> None:
        """Compare what the bytes of a weight sum up to.

        Raises:
            BundleError: it is damaged.
        """
        if checksum != self.checksums[name]:
            raise BundleError(f"{name} is damaged: its checksum is not the one in the header", where=str(self.path),
                              remedy=_AGAIN)

    def map(self) -> Bytes:
        """The whole file, mapped into memory read-only."""
        mapped: Bytes = np.asarray(np.memmap(self.path, np.uint8, "r"))
        return mapped


def file_name(plan: Plan) -> str:
    """The file of a plan's weights, e.g. ``packed-int8-g32.safetensors``: what is not said is bf16 and symmetric."""
    recipe, words = plan.quantise, []
    if recipe is None:
        return f"packed-{plan.dtype}.safetensors"
    words = [recipe.format, f"g{recipe.group}" if recipe.group else "rows"]
    if not recipe.symmetric:
        words.append("zeros")
    if recipe.head != recipe.format:
        words.append(f"head-{recipe.head}")
    if plan.dtype != "bf16":
        words.append(plan.dtype)
    if recipe.keep:
        words.append(f"keep-{hashlib.sha256(repr(recipe.keep).encode()).hexdigest()[:8]}")
    return f"packed-{'-'.join(words)}.safetensors"


def write_packed(path: Path, items: Sequence[Item], checkpoint: Checkpoint, plan: Plan, native: Any, team: Any) -> None:
    """Round, pack and write weights, one at a time; the file is whole or absent.

    Args:
        native, team: the extension, and the threads that round and pack.

    Raises:
        BundleError: a tensor cannot be read, or holds a value that is not finite.
    """
    ordered = sorted(items, key=lambda item: (item.kind != "packed", item.format != "fp32"))  # a stable sort
    facts, checksums = _facts(plan, ordered, checkpoint), dict.fromkeys((item.name for item in ordered), 0)
    work = native.Block(max(item.bytes for item in ordered)).array
    with atomic_write(path, "wb") as file:
        file.write(_header(ordered, facts, checksums))
        for item in ordered:
            made = work[:item.bytes]
            fill(item, checkpoint, made, native, team)
            file.write(made.data)
            checksums[item.name] = zlib.crc32(made.data)
        file.seek(0)
        file.write(_header(ordered, facts, checksums))


def open_packed(items: Sequence[Item], checkpoint: Checkpoint, plan: Plan, native: Any) -> PackedFile | None:
    """The packed file of a plan beside its checkpoint, None where there is none.

    Raises:
        BundleError: there is one, but it is damaged, or of other weights or another version.
    """
    path = checkpoint.folder / file_name(plan)
    if not path.is_file():
        return None
    metadata, packed = _opened(path, _facts(plan, items, checkpoint))
    digests = _texts(metadata, "items", path)
    with path.open("rb") as file:
        for item in items:
            if digests.get(item.name) != item.digest or item.name not in packed.entries:
                raise BundleError(f"does not hold {item.name} as this version makes it", where=str(path), remedy=_AGAIN)
            _check(item, packed.entries[item.name], file, native)
    return packed


def open_written(path: Path) -> PackedFile:
    """A packed file wherever it lies and whatever it was made of.

    Raises:
        BundleError: it is damaged, or of another version.
    """
    return _opened(path, _FORMAT)[1]


def verify(path: Path) -> None:
    """Read a packed file beside its checkpoint from end to end and check every weight; no extension is needed.

    Raises:
        BundleError: it is damaged, of another version, or of other weights.
    """
    checkpoint = Checkpoint(path.parent)
    _, packed = _opened(path, {**_FORMAT, "sources": _sources(checkpoint)})
    whole = packed.map()
    for name, entry in packed.entries.items():
        packed.check(name, zlib.crc32(whole[entry.offset:entry.offset + math.prod(entry.shape)].data))


def _opened(path: Path, wanted: Mapping[str, str]) -> tuple[Mapping[str, str], PackedFile]:
    """The metadata of a packed file, and where its weights lie, if it is what is wanted."""
    entries, metadata = read_header(path)
    for name, fault in _FAULTS.items():
        if name in wanted and metadata.get(name) != wanted[name]:
            raise BundleError(fault, where=str(path), remedy=_AGAIN)
    checksums = _texts(metadata, "checksums", path)
    try:
        found = {name: int(checksums[name], 16) for name in entries}
    except (KeyError, ValueError) as error:
        raise BundleError("its checksums cannot be read", where=str(path), remedy=_AGAIN) from error
    return metadata, PackedFile(path, entries, found)


def _check(item: Item, entry: Entry, file: Any, native: Any) -> None:
    """Check a weight's place and, of a packed matrix, its own header."""
    fault = ""
    if entry.kind != "U8" or entry.shape != (item.bytes,):
        fault = f"{item.name} has {entry.kind} {list(entry.shape)}, it should have {item.bytes} bytes"
    elif item.kind == "packed":
        if entry.offset % LINE:
            fault = f"{item.name} does not lie at a multiple of {LINE} bytes"
        file.seek(entry.offset)
        head = np.frombuffer(file.read(HEADER_BYTES), np.uint8)
        try:
            facts = native.check_packed(head, item.bytes)
        except ValueError as error:
            raise BundleError(f"{item.name}: {error}", where=str(entry.file), remedy=_AGAIN) from error
        if facts != (item.format, item.rows, item.columns, item.group, item.symmetric):
            fault = f"{item.name} is {facts}"
    if fault:
        raise BundleError(fault, where=str(entry.file), remedy=_AGAIN)


def _facts(plan: Plan, items: Sequence[Item], checkpoint: Checkpoint) -> dict[str, str]:
    spec = hashlib.sha256(plan.spec.model_dump_json().encode()).hexdigest()
    recipe = {"dtype": plan.dtype, "quantise": None if plan.quantise is None else plan.quantise.model_dump(mode="json")}
    return {**_FORMAT, "spec": spec, "recipe": json.dumps(recipe), "sources": _sources(checkpoint),
            "items": json.dumps({item.name: item.digest for item in items})}


def _sources(checkpoint: Checkpoint) -> str:
    return json.dumps({file.name: fingerprint(file) for file in checkpoint.files})


def fingerprint(path: Path) -> str:
    """A fingerprint of a large file that takes little time: its size, and pieces from all over it."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1) if size > _SAMPLE_BYTES else 0)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _texts(metadata: Mapping[str, str], key: str, path: Path) -> dict[str, str]:
    """The mapping that stands as JSON under a key of the metadata."""
    try:
        return {str(name): str(text) for name, text in json.loads(metadata[key]).items()}
    except (KeyError, ValueError, AttributeError, RecursionError) as error:
        raise BundleError("its metadata cannot be read", where=str(path), remedy=_AGAIN) from error


def _header(items: Sequence[Item], metadata: Mapping[str, str], checksums: Mapping[str, int]) -> bytes:
    """The header of a safetensors file, its length before it, filled up so that the first tensor lies at a line.

    Its length does not depend on the checksums, which are known last.
    """
    sums = json.dumps({name: f"{checksum:08x}" for name, checksum in checksums.items()})
    tensors: dict[str, Any] = {"__metadata__": {**metadata, "checksums": sums}}
    at = 0
    for item in items:
        tensors[item.name] = {"dtype": "U8", "shape": [item.bytes], "data_offsets": [at, at + item.bytes]}
        at += item.bytes
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % LINE)
    return len(text).to_bytes(8, "little") + text


def read_into(path: Path, offset: int, out: Bytes) -> None:
    """Read bytes of a file into memory.

    Raises:
        BundleError: the file is shorter than it was, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        read_at(handle, offset, out, path)
    finally:
        os.close(handle)


def read_at(handle: int, offset: int, out: Bytes, path: Path) -> None:
    """As `read_into`, from an open file."""
    view, done = out.data, 0
    while done < len(view):
        try:
            count = os.preadv(handle, [view[done:done + (64 << 20)]], offset + done)
        except OSError as error:
            raise BundleError(f"cannot be read: {error.strerror}", where=str(path), remedy=_AGAIN) from error
        if count == 0:
            raise BundleError("is shorter than it was", where=str(path), remedy=_AGAIN)
        done += count
