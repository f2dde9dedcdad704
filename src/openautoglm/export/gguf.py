"""``.gguf``: one file that llama.cpp runs, with weights, architecture, tokenizer and chat template.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian). Weights are converted some
rows at a time; the file is whole or absent.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openautoglm.core import log
from openautoglm.core.errors import BundleError, ResourceError, SpecError
from openautoglm.core.extras import require
from openautoglm.core.files import atomic_write
from openautoglm.core.progress import progress
from openautoglm.export.element_types import ELEMENT_TYPES, ElementType, encode, fitting, row_bytes, stored_as
from openautoglm.export.gguf_tensors import ARCHITECTURES, EMBEDDING, HEAD, Renamed, tensors_of
from openautoglm.export.gguf_vocabulary import Vocabulary, vocabulary_of
from openautoglm.export.source import Source
from openautoglm.export.weights import Weights

_FILE_TYPES: dict[ElementType, int] = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "bf16": 32}
"""``general.file_type``: the type of most matrices."""
_STORED: dict[str, ElementType] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_QUANTISATION_VERSION = 2
_FINER: tuple[ElementType, ...] = ("q4_0", "q4_1", "q5_0", "q5_1")
_log = log.get(__name__)


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        types: how many tensors have which element type.
        notes: what a person should know.
    """

    path: Path
    types: dict[str, int]
    notes: tuple[str, ...]


def write_gguf(source: Source, path: str | Path, kind: ElementType | None = None) -> Written:
    """Write a model as GGUF.

    Args:
        path: the file; an older one is replaced when the new one is whole.
        kind: element type of the matrices; None: as they are stored, quantised ones in the nearest type. Vectors are
            fp32. With a type of less than 8 bits the embedding and the head have q8_0.

    Raises:
        BundleError: weights are missing, damaged, or beyond the element type.
        SpecError: llama.cpp has no architecture for it, or there is no such element type.
        TokenizerError: llama.cpp cannot hold the tokenizer.
        ResourceError: the disk is too small.
        MissingExtraError: the package gguf is not installed.
    """
    path = Path(path)
    if kind is not None and kind not in ELEMENT_TYPES:
        raise SpecError(f"there is no element type {kind!r}", where=str(path),
                        remedy=f"use one of {', '.join(ELEMENT_TYPES)}")
    if path.is_dir():
        raise BundleError("is a folder", where=str(path), remedy="give the name of a file that ends in .gguf")
    gguf = require("gguf", "export")
    tensors = tensors_of(source.spec)
    weights = Weights(source.folder)
    weights.check(tensors)
    types = {tensor.source: _type_of(tensor, weights, kind) for tensor in tensors}
    vocabulary = vocabulary_of(source)
    sizes = {tensor.source: _bytes_of(tensor, types[tensor.source]) for tensor in tensors}
    total = sum(sizes.values())
    _refuse_small_disk(path, total)
    counts = Counter(types[tensor.source] for tensor in tensors if tensor.is_matrix)
    with _quiet(), atomic_write(path, "wb") as file, progress(total / 1e6, "export", "MB") as bar:
        writer = gguf.GGUFWriter(None, ARCHITECTURES[source.spec.family])
        _add_facts(writer, source, _FILE_TYPES[counts.most_common(1)[0][0]])
        _add_vocabulary(writer, vocabulary, source.template)
        for tensor in tensors:
            writer.add_tensor_info(tensor.target, tensor.shape, np.dtype(np.float32), sizes[tensor.source],
                                   gguf.GGMLQuantizationType[types[tensor.source].upper()])
        writer.fout, writer.state = [file], type(writer.state).EMPTY  # it would open a name, not an open file
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_padding(file, file.tell())
            for piece in weights.pieces(tensor.source):
                data = encode(piece, types[tensor.source], tensor.source)
                file.write(data.data)
                bar.advance(data.nbytes / 1e6)
        writer.write_padding(file, file.tell())
    return Written(path, dict(Counter(types.values())), (*_type_notes(tensors, types, kind), *vocabulary.notes))


def _type_of(tensor: Renamed, weights: Weights, kind: ElementType | None) -> ElementType:
    if not tensor.is_matrix:
        return "f32"
    form = weights.form(tensor.source)
    if kind is None:
        kind = stored_as(form.bits, form.symmetric) if form else _STORED[weights.kind(tensor.source)]
    elif kind in _FINER and tensor.source in (EMBEDDING, HEAD):
        kind = "q8_0"
    return fitting(kind, tensor.shape[1])


def _type_notes(tensors: list[Renamed], types: dict[str, ElementType], kind: ElementType | None) -> Iterator[str]:
    narrow = sum(1 for tensor in tensors if tensor.is_matrix and types[tensor.source] == "f16")
    if narrow and kind != "f16":
        yield f"{narrow} matrices have rows that blocks of 32 do not divide, and are f16"


def _bytes_of(tensor: Renamed, kind: ElementType) -> int:
    return (tensor.shape[0] if tensor.is_matrix else 1) * row_bytes(kind, tensor.shape[-1])


def _refuse_small_disk(path: Path, size: int) -> None:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    if (free := shutil.disk_usage(folder).free) < size:
        raise ResourceError(f"the file takes {size / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free", where=str(path),
                            remedy="free some space, or choose a smaller --type")


def _add_facts(writer: Any, source: Source, file_type: int) -> None:
    """The architecture; nothing is left to llama.cpp's defaults."""
    spec = source.spec
    writer.add_type("model")
    writer.add_name(source.name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(_QUANTISATION_VERSION)
    writer.add_vocab_size(spec.vocab_size)
    writer.add_context_length(spec.max_positions)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_feed_forward_length(spec.ffn_size)
    writer.add_block_count(spec.layers)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(spec.rms_eps)
    writer.add_rope_dimension_count(round(spec.head_dim * spec.rotary_factor))
    writer.add_rope_freq_base(spec.rope_theta)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary, template: str) -> None:
    """Byte-level BPE. No token is put before a text: the chat template writes GLM's own head."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.split.name)
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.start)
    for add, i in zip((writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), vocabulary.ends,
                      strict=False):
        add(i)
    writer.add_pad_token_id(vocabulary.pad)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(template)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library logs what it writes, which our progress says."""
    theirs = logging.getLogger("gguf")
    before = theirs.level
    theirs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.setLevel(before)
