"""The checkpoint that is quantised: checked by its headers, then read piece by piece, never as a whole."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from openautoglm.compress.grid import CHUNK_VALUES
from openautoglm.core.errors import BundleError
from openautoglm.models.checkpoint import read_config, read_spec
from openautoglm.models.quantised_file import is_quantised
from openautoglm.models.spec import GlmSpec
from openautoglm.models.weight_shapes import weight_shapes
from openautoglm.runtime.tensors import Bf16, Checkpoint, to_bf16

EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<i2"}
_AGAIN = "fetch or write the checkpoint again"


@dataclass(frozen=True)
class Slot:
    """One place of a layer where a matrix is quantised; q, k and v stand under each other as one.

    Attributes:
        name: ``qkv``, ``o``, ``gate_up`` or ``down``.
        tensors: of the layer, with their rows, from top to bottom.
        rows, columns: of the whole.
    """

    name: str
    tensors: tuple[tuple[str, int], ...]
    columns: int

    @property
    def rows(self) -> int:
        """Rows of the whole."""
        return sum(rows for _, rows in self.tensors)

    @property
    def weights(self) -> int:
        """Weights of the whole."""
        return self.rows * self.columns


def slots(spec: GlmSpec) -> dict[str, Slot]:
    """The four places of a layer, in the order in which they are computed."""
    q, kv, hidden, ffn = spec.query_size, spec.kv_size, spec.hidden_size, spec.ffn_size
    attention = tuple((f"self_attn.{part}_proj", rows) for part, rows in (("q", q), ("k", kv), ("v", kv)))
    return {slot.name: slot for slot in (
        Slot("qkv", attention, hidden), Slot("o", (("self_attn.o_proj", hidden),), q),
        Slot("gate_up", (("mlp.gate_up_proj", 2 * ffn),), hidden), Slot("down", (("mlp.down_proj", hidden),), ffn))}


def norms(spec: GlmSpec) -> tuple[str, ...]:
    """The norms of a layer."""
    more = ("post_self_attn_layernorm", "post_mlp_layernorm") if spec.family == "glm4" else ()
    return ("input_layernorm", "post_attention_layernorm", *more)


class Source:
    """A checkpoint folder or bundle, plain (fp32, bf16 or fp16), in one file or several.

    Attributes:
        takes_quantised: whether its weights may be quantised already.

    Raises:
        SpecError: the architecture is not supported.
        BundleError: it is damaged, its weights do not fit its configuration, or it is quantised already.
    """

    takes_quantised = False

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.spec = read_spec(self.folder)
        if is_quantised(self.folder) and not self.takes_quantised:
            raise BundleError("the weights are quantised already", where=str(self.folder),
                              remedy="quantise the checkpoint that they were made from")
        self.checkpoint = Checkpoint(self.folder)
        self.slots = slots(self.spec)
        for name, shape in weight_shapes(self.spec).items():
            found = self.checkpoint.shape(name)
            if found != shape:
                raise BundleError(f"the tensor {name} has shape {found}, the architecture needs {shape}",
                                  where=str(self.checkpoint.file(name)),
                                  remedy="use the config.json of the same checkpoint")

    def fingerprint(self) -> str:
        """What tells this checkpoint from another: configuration, names, sizes and times of its files."""
        files = [(file.name, stat.st_size, stat.st_mtime_ns)
                 for file in self.checkpoint.files for stat in [file.stat()]]
        text = json.dumps([read_config(self.folder), files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def tensor(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A tensor in fp32, or the rows [start, stop) of it; read, not mapped.

        Raises:
            BundleError: a value is not finite, or the file ends before the tensor does.
        """
        entry = self.checkpoint.entry(name)
        stop = entry.shape[0] if stop is None else stop
        width = math.prod(entry.shape[1:])
        dtype = np.dtype(_TYPES[entry.kind])
        count = (stop - start) * width
        values = np.fromfile(entry.file, dtype, count, offset=entry.offset + start * width * dtype.itemsize)
        if len(values) < count:
            raise BundleError(f"ends within the tensor {name}", where=str(entry.file), remedy=_AGAIN)
        found = torch.from_numpy(values)
        found = (found.view(torch.bfloat16) if entry.kind == "BF16" else found).float()
        if not bool(torch.isfinite(found).all()):
            raise BundleError(f"{name} holds a value that is not finite, so it cannot be quantised",
                              where=str(entry.file), remedy="train or fetch the checkpoint again")
        return found.view(stop - start, *entry.shape[1:])

    def bf16(self, name: str) -> Bf16:
        """A tensor in bf16."""
        found = self.checkpoint.entry(name).read()
        return found if isinstance(found, Bf16) else to_bf16(found)

    def matrix(self, layer: int, slot: str) -> Tensor:
        """The matrix of a place, [O, I] fp32."""
        return torch.cat([self.tensor(f"{prefix(layer)}{name}.weight") for name, _ in self.slots[slot].tensors])

    def bias(self, layer: int) -> Tensor | None:
        """The biases of q, k and v, under each other."""
        if not self.spec.qkv_bias:
            return None
        return torch.cat([self.tensor(f"{prefix(layer)}{name}.bias") for name, _ in self.slots["qkv"].tensors])

    def norm(self, layer: int, name: str) -> Tensor:
        """The weight of a norm."""
        return self.tensor(f"{prefix(layer)}{name}.weight")

    @property
    def head(self) -> str:
        """The table that makes logits."""
        return EMBEDDING if self.spec.tied else HEAD

    def rows(self, name: str) -> list[tuple[int, int]]:
        """Spans of the rows of a table that are read at a time."""
        total, width = self.checkpoint.shape(name)
        size = max(1, CHUNK_VALUES // width)
        return [(start, min(start + size, total)) for start in range(0, total, size)]


class StoredSource(Source):
    """A checkpoint or bundle as it is stored: quantised weights are read as the values that they stand for."""

    takes_quantised = True

    def tensor(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A tensor in fp32, or the rows [start, stop) of it."""
        stored = self.checkpoint.stored(name)
        if stored is None:
            return super().tensor(name, start, stop)
        return torch.from_numpy(stored[start:stop].matrix().dequantise())


def prefix(layer: int) -> str:
    """What the names of a layer's tensors begin with."""
    return f"model.layers.{layer}."
