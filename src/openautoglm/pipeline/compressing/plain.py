"""Released checkpoints as parents: a folder without a card, of the families ``glm`` and ``glm4``.

Such a folder is taken as it is and never changed; the card that its children get is made here. Weights are looked at
by their headers, and copied in blocks: they are never in memory as a whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from openautoglm.core.errors import BundleError
from openautoglm.core.progress import progress
from openautoglm.models.bundle import WEIGHTS_NAME, Bundle, is_packed, open_bundle
from openautoglm.models.card import CARD_NAME, Card
from openautoglm.models.checkpoint import read_spec, stored_type
from openautoglm.models.quantised_bundle import TEXTS
from openautoglm.models.quantised_file import QUANTISED_NAME
from openautoglm.models.spec import GlmSpec
from openautoglm.models.weight_shapes import weight_shapes
from openautoglm.runtime.tensors import INDEX_NAME, Checkpoint
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import GMASK, Tokenizer

_NEEDED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
_BLOCK = 1 << 24


def open_parent(path: str | Path) -> Bundle:
    """Open a bundle, or the folder of a released checkpoint: `config.json`, safetensors in one file or several, and the
    files of its tokenizer.

    The card of a checkpoint knows architecture, prompt form, element type and the hashes of the files, and nothing of
    its training.

    Raises:
        BundleError: neither, damaged, or a file is missing.
        SpecError: the architecture is not supported.
        TokenizerError: the tokenizer is none of a GLM.
    """
    folder = Path(path)
    if not folder.is_dir() or (folder / CARD_NAME).is_file() or not (folder / "config.json").is_file():
        return open_bundle(path)
    spec, checkpoint = read_spec(folder), Checkpoint(folder)
    _refuse_other_shapes(checkpoint, spec)
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise BundleError(f"lacks {name}", where=str(folder), remedy="fetch all files of the checkpoint")
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > spec.vocab_size:
        raise BundleError(f"the tokenizer has {tokenizer.vocab_size} ids, the model {spec.vocab_size}",
                          where=str(folder), remedy="use the tokenizer of the same checkpoint")
    card = Card(spec=spec, template=Template(kind="glm4" if GMASK in tokenizer.special else "pair"),
                dtype="bfloat16" if stored_type(folder) == "bf16" else "float32", tokenizer=tokenizer.fingerprint,
                recipe={"name": folder.resolve().name}, files=_hashes(folder, checkpoint))
    return Bundle(folder, card, tokenizer)


def copy_files(bundle: Bundle, part: Path) -> None:
    """Copy all files of a bundle but its card; weights that lie in several files become one."""
    weights = [name for name in bundle.card.files if name.endswith(".safetensors") and not is_packed(name)]
    split = WEIGHTS_NAME not in weights and QUANTISED_NAME not in weights
    for name in bundle.card.files:
        if not (split and name in weights) and (bundle.path / name).is_file():
            shutil.copyfile(bundle.path / name, part / name)
    if split:
        join_weights(bundle.path, part / WEIGHTS_NAME)


def join_weights(folder: Path, to: Path) -> None:
    """Write the weights of a checkpoint folder as one safetensors file, each tensor as it is stored.

    Raises:
        BundleError: a tensor is missing, or a file ends within it.
    """
    checkpoint = Checkpoint(folder)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    entries, end = [checkpoint.entry(name) for name in weight_shapes(read_spec(folder))], 0
    sizes = [entry.map().nbytes for entry in entries]
    for name, entry, size in zip(weight_shapes(read_spec(folder)), entries, sizes, strict=True):
        header[name] = {"dtype": entry.kind, "shape": list(entry.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with to.open("wb") as out, progress(end / 1e6, "copy", "MB") as bar:
        out.write(len(text).to_bytes(8, "little") + text)
        for entry, size in zip(entries, sizes, strict=True):
            with entry.file.open("rb") as file:
                file.seek(entry.offset)
                left = size
                while left:
                    block = file.read(min(left, _BLOCK))
                    if not block:
                        raise BundleError("ends within a tensor", where=str(entry.file),
                                          remedy="fetch or write the checkpoint again")
                    out.write(block)
                    left -= len(block)
                    bar.advance(len(block) / 1e6)


def _refuse_other_shapes(checkpoint: Checkpoint, spec: GlmSpec) -> None:
    for name, shape in weight_shapes(spec).items():
        found = checkpoint.shape(name)
        if found != shape:
            raise BundleError(f"the tensor {name} has shape {list(found)}, the architecture needs {list(shape)}",
                              where=str(checkpoint.file(name)), remedy="use the config.json of the same checkpoint")


def _hashes(folder: Path, checkpoint: Checkpoint) -> dict[str, str]:
    """SHA-256 of the weights and of the texts beside them; other files are left alone."""
    texts = [file for file in sorted(folder.iterdir())
             if file.is_file() and file.suffix in TEXTS and file.name != INDEX_NAME and not file.name.startswith(".")]
    files = sorted({*texts, *checkpoint.files})
    found = {}
    with progress(sum(file.stat().st_size for file in files) / 1e6, "read", "MB") as bar:
        for file in files:
            digest = hashlib.sha256()
            with file.open("rb") as handle:
                while block := handle.read(_BLOCK):
                    digest.update(block)
                    bar.advance(len(block) / 1e6)
            found[file.name] = digest.hexdigest()
    return found
