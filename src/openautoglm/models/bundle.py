"""A model on disk: a folder which transformers loads as it is, plus our card; checked when opened."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors.torch import save_file

from openautoglm.core.errors import BundleError
from openautoglm.core.files import atomic_folder, read_json, sha256_file, write_json
from openautoglm.models import archive, hf
from openautoglm.models.card import CARD_NAME, Card, read_card, versions
from openautoglm.models.spec import GlmSpec
from openautoglm.text.jinja import chat_template
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

WEIGHTS_NAME = "model.safetensors"
_NEEDED = (WEIGHTS_NAME, "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
_AGAIN = "copy or export the bundle again"


@dataclass(frozen=True)
class Bundle:
    """An open, verified bundle; that of an archive lives in a temporary folder as long as this object."""

    path: Path
    card: Card
    tokenizer: Tokenizer

    @property
    def spec(self) -> GlmSpec:
        """The architecture."""
        return self.card.spec

    @property
    def template(self) -> Template:
        """How texts become prompts."""
        return self.card.template

    def model(self, dtype: torch.dtype | None = None) -> Any:
        """Return the weights in transformers' class, on the CPU, in `dtype` (as stored when None)."""
        return hf.load(self.path, dtype=dtype or getattr(torch, self.card.dtype))[0]


def write_bundle(
    path: str | Path,
    *,
    model: Any,
    spec: GlmSpec,
    tokenizer: Tokenizer,
    template: Template,
    card_facts: Mapping[str, Any],
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Bundle:
    """Write a bundle to the folder `path` (an older one is replaced as a whole) and open it.

    Args:
        model: transformers' class of `spec`, adapters merged.
        card_facts: ``data``, ``scores`` and ``recipe`` of the card, each optional.

    Raises:
        BundleError: the weights are not those of `spec`, or `card_facts` holds other facts.
    """
    path = Path(path)
    unknown = set(card_facts) - {"data", "scores", "recipe"}
    if unknown:
        raise BundleError(
            f"a card has no {', '.join(sorted(unknown))}",
            where=str(path),
            remedy="give data, scores and recipe",
        )
    if tokenizer.vocab_size > spec.vocab_size:
        raise BundleError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {spec.vocab_size}",
            where=str(path),
            remedy="build the model with `spec.with_vocabulary`",
        )
    weights = _weights(model, spec, getattr(torch, dtype), str(path))
    with atomic_folder(path) as part:
        save_file(weights, part / WEIGHTS_NAME, metadata={"format": "pt"})
        write_json(part / "config.json", {**spec.config(), "dtype": dtype})
        write_json(
            part / "generation_config.json", {"eos_token_id": list(spec.eos_ids), "pad_token_id": spec.pad_id}
        )
        tokenizer.save(part, chat_template=chat_template(template))
        card = Card(
            spec=spec,
            template=template,
            dtype=dtype,
            tokenizer=tokenizer.fingerprint,
            versions=versions(),
            files={file.name: sha256_file(file) for file in sorted(part.iterdir())},
            **card_facts,
        )
        write_json(part / CARD_NAME, card.model_dump(mode="json"))
    return Bundle(path, card, tokenizer)


def open_bundle(path: str | Path, *, max_bytes: int = archive.MAX_BYTES) -> Bundle:
    """Open a bundle (folder, ``.zip`` or ``.pkl``): format, files and hashes are checked.

    Args:
        max_bytes: what an archive may unpack to.

    Raises:
        BundleError: not a bundle, damaged, incomplete, or of a newer format.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, str(path))
    if not path.is_file():
        raise BundleError(
            "does not exist", where=str(path), remedy="give a bundle: a folder, a .zip or a .pkl"
        )
    folder = Path(tempfile.mkdtemp(prefix="autoglm-bundle-"))
    try:
        archive.unpack(path, folder, max_bytes)
        bundle = _open_folder(folder, str(path))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(bundle, shutil.rmtree, folder, ignore_errors=True)
    return bundle


def export(bundle: Bundle, path: str | Path) -> Path:
    """Write `bundle` to `path`: a ``.zip``, a ``.pkl`` of plain containers and bytes, or a folder."""
    path = Path(path)
    files = [bundle.path / name for name in (*bundle.card.files, CARD_NAME)]
    archive.pack(files, path)
    return path


def _open_folder(folder: Path, where: str) -> Bundle:
    card = read_card(folder)
    missing = [
        name for name in (*_NEEDED, *card.files) if name not in card.files or not (folder / name).is_file()
    ]
    if missing:
        raise BundleError(f"lacks {missing[0]}", where=where, remedy=_AGAIN)
    for name, expected in card.files.items():
        if sha256_file(folder / name) != expected:
            raise BundleError(
                f"{name} is damaged: its SHA-256 is not the one in the card", where=where, remedy=_AGAIN
            )
    if GlmSpec.from_config(read_json(folder / "config.json"), where=f"{where}: config.json") != card.spec:
        raise BundleError(
            "config.json and the card describe different architectures", where=where, remedy=_AGAIN
        )
    return Bundle(folder, card, Tokenizer.load(folder))


def _weights(model: Any, spec: GlmSpec, dtype: torch.dtype, where: str) -> dict[str, torch.Tensor]:
    """Return the weights to store: names and shapes as `spec` asks, shared ones once."""
    state = getattr(model, "_orig_mod", model).state_dict()
    expected = {name: tuple(shape) for name, shape in shapes(spec).items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if found != expected:
        wrong = sorted(name for name, _ in found.items() ^ expected.items())[0]
        raise BundleError(
            f"the model's weights are not those of its spec: {wrong}",
            where=where,
            remedy="give the plain transformers model; merge adapters first",
        )
    if spec.tied:
        del state["lm_head.weight"]
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()}


def shapes(spec: GlmSpec) -> dict[str, torch.Size]:
    """Return name and shape of every weight of `spec`, shared ones under both names."""
    config_name, model_name = hf.CLASSES[spec.family]
    with torch.device("meta"):
        model = getattr(transformers, model_name)(getattr(transformers, config_name)(**spec.config()))
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
