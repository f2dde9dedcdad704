"""Writes bundles: weights of transformers' classes, configuration, tokenizer and card, as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors.torch import save_file

from openautoglm.core.errors import BundleError
from openautoglm.core.files import atomic_folder, sha256_file, write_json
from openautoglm.models import hf
from openautoglm.models.bundle import WEIGHTS_NAME, Bundle
from openautoglm.models.card import CARD_NAME, Card, versions
from openautoglm.models.spec import GlmSpec
from openautoglm.text.jinja import chat_template
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer


def write_bundle(
    path: str | Path,
    *,
    model: Any,
    spec: GlmSpec,
    tokenizer: Tokenizer,
    template: Template,
    card_facts: Mapping[str, Any],
    dtype: Literal["float32", "bfloat16"] = "float32",
    more: Callable[[Path], object] | None = None,
) -> Bundle:
    """Write a bundle to the folder `path` (an older one is replaced as a whole) and open it.

    Args:
        model: transformers' class of `spec`, adapters merged.
        card_facts: ``data``, ``scores`` and ``recipe`` of the card, each optional.
        more: writes further files, such as packed weights; it is given the unfinished folder, which lacks the card.

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
        if more is not None:
            more(part)
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
