"""Writes bundles and checkpoints whose weights are quantised, from those that they were made of; takes no torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from openautoglm.core.errors import BundleError
from openautoglm.core.files import atomic_folder, atomic_write, read_json, sha256_file, write_json
from openautoglm.models.bundle import Bundle, is_packed, open_bundle
from openautoglm.models.card import CARD_NAME, Card, versions
from openautoglm.models.checkpoint import read_config, read_spec
from openautoglm.models.quantised import Bf16, Float32, QuantisedMatrix
from openautoglm.models.quantised_file import QUANTISED_NAME, QuantisedWriter
from openautoglm.models.spec import GlmSpec
from openautoglm.models.weight_shapes import weight_shapes

TEXTS = (".json", ".jinja", ".txt", ".model")
"""Files of a plain checkpoint that belong to its tokenizer and its configuration."""
_OWN = ("config.json", CARD_NAME)


def write_quantised_bundle(path: str | Path, parent: Bundle | str | Path,
                           tensors: Iterable[tuple[str, QuantisedMatrix | Float32 | Bf16]], *,
                           spec: GlmSpec | None = None, scores: Mapping[str, Any] | None = None,
                           recipe: Mapping[str, Any] | None = None, metadata: Mapping[str, str] | None = None,
                           more: Callable[[Path], object] | None = None) -> Path:
    """Write the folder `path` (an older one is replaced as a whole): all of its parent but the weights.

    A parent with a card gives a bundle, a plain checkpoint folder another one. Tokenizer, prompt template, the
    configuration of generation and the card's recipe are the parent's.

    Args:
        parent: an open bundle, its folder, or the folder of a plain checkpoint.
        tensors: names and values, in any order, each taken before the next is made; a shared head is left out.
        spec: of the weights, where it is not the parent's.
        scores: of the new card; none when None: the parent's are not those of these weights.
        recipe: more keys of the new card's recipe, and other values of known ones.
        metadata: texts for the header of the weights.
        more: writes further files; it is given the unfinished folder, which lacks the card.

    Raises:
        BundleError: the tensors are not those of the spec, or the parent cannot be read.
        SpecError: the parent's architecture is not supported.
    """
    opened = _opened(parent)
    folder, card = (opened.path, opened.card) if isinstance(opened, Bundle) else (opened, None)
    old = read_spec(folder)
    spec = spec or old
    config = read_config(folder)
    with atomic_folder(path) as part:
        for file in _carried(folder, card):
            _carry(file, part / file.name)
        write_json(part / "config.json", config if spec == old else {**config, **spec.config()})
        with QuantisedWriter(part / QUANTISED_NAME, metadata) as writer:
            _write(writer, tensors, spec, str(path))
        if more is not None:
            more(part)
        if card is not None:
            facts = {"spec": spec, "scores": dict(scores or {}), "recipe": {**card.recipe, **(recipe or {})},
                     "files": {file.name: sha256_file(file) for file in sorted(part.iterdir())}}
            made = Card(template=card.template, dtype=card.dtype, tokenizer=card.tokenizer, data=card.data,
                        versions=versions(), **facts)
            write_json(part / CARD_NAME, made.model_dump(mode="json"))
    return Path(path)


def _opened(parent: Bundle | str | Path) -> Bundle | Path:
    """A bundle, or the folder of a checkpoint without a card."""
    if isinstance(parent, Bundle):
        return parent
    folder = Path(parent)
    return folder if folder.is_dir() and not (folder / CARD_NAME).is_file() else open_bundle(folder)


def _carried(folder: Path, card: Card | None) -> list[Path]:
    """The files that a child takes over."""
    if card is not None:
        names = [name for name in card.files if not name.endswith(".safetensors") and not is_packed(name)]
    else:
        names = [file.name for file in sorted(folder.iterdir())
                 if file.is_file() and file.suffix in TEXTS and not file.name.endswith(".safetensors.index.json")]
    return [folder / name for name in names if name not in _OWN]


def _carry(file: Path, to: Path) -> None:
    """Copy a file; a tokenizer without the blanks between its words, which are a good part of a small bundle."""
    if file.name != "tokenizer.json":
        shutil.copyfile(file, to)
        return
    try:
        content = read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"cannot be read: {error}", where=str(file), remedy="fetch the checkpoint again") from error
    with atomic_write(to) as out:
        json.dump(content, out, ensure_ascii=False, separators=(",", ":"))


def _write(writer: QuantisedWriter, tensors: Iterable[tuple[str, QuantisedMatrix | Float32 | Bf16]], spec: GlmSpec,
           where: str) -> None:
    """Write tensors as they come, and check that they are those of a spec."""
    missing = weight_shapes(spec)
    for name, value in tensors:
        wanted = missing.pop(name, None)
        if wanted != tuple(value.shape):
            said = f"has shape {list(value.shape)}, not {list(wanted)}" if wanted else "is none of them, or comes twice"
            raise BundleError(f"the weights are not those of the spec: {name} {said}", where=where,
                              remedy="give the tensors that `weight_shapes` lists, each once")
        writer.add(name, value)
    if missing:
        raise BundleError(f"the weights are not those of the spec: {next(iter(missing))} is missing", where=where,
                          remedy="give the tensors that `weight_shapes` lists, each once")
