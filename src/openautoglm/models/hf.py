"""Weights in transformers' classes, from a spec or a checkpoint. No remote code, no pickles."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import nn
from torch.utils.hooks import RemovableHandle

from openautoglm.core.errors import BundleError
from openautoglm.models.checkpoint import read_spec
from openautoglm.models.quantised import QuantisedMatrix
from openautoglm.models.quantised_file import is_quantised, open_quantised
from openautoglm.models.spec import GlmSpec
from openautoglm.models.weight_shapes import weight_shapes

CLASSES = {"glm": ("GlmConfig", "GlmForCausalLM"), "glm4": ("Glm4Config", "Glm4ForCausalLM")}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def build(
    spec: GlmSpec, *, seed: int, dropout: float = 0.0, attention_dropout: float = 0.0, init_std: float = 0.02
) -> Any:
    """Return a new ``GlmForCausalLM`` or ``Glm4ForCausalLM`` in fp32 on the CPU.

    Weights are normal with `init_std`; the matrices that write to the residual stream have it divided by
    ``sqrt(2 * layers)`` (Radford et al. 2019, GPT-2), biases are zero, norms one. The same spec and seed give
    the same weights, and torch's own random state is left as it was.

    Args:
        dropout: on the embedding and on what attention and feed-forward add to the stream (see `Dropouts`).
        attention_dropout: on the attention weights.
    """
    config_name, model_name = CLASSES[spec.family]
    config = getattr(transformers, config_name)(
        **{**spec.config(), "attention_dropout": attention_dropout, "initializer_range": init_std}
    )
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, model_name)(config)
        with torch.no_grad():
            for output in residual_outputs(model):
                output.weight.div_(math.sqrt(2 * spec.layers))
    if dropout:
        Dropouts(model, dropout)
    return model


def residual_outputs(model: Any) -> Iterator[nn.Linear]:
    """Yield the matrices whose output is added to the residual stream, from the first layer to the last."""
    for layer in model.model.layers:
        yield layer.self_attn.o_proj
        yield layer.mlp.down_proj


class Dropouts:
    """Dropout on the embedding and on every residual branch of a GLM, by forward hooks.

    The transformers classes know attention dropout only. The hooks act while a module is in training mode;
    weights and their names stay as they are. Keep the object to `remove` them again.

    Args:
        model: a ``GlmForCausalLM`` or ``Glm4ForCausalLM``.
        probability: the share of values set to zero; the others are scaled up (Srivastava et al. 2014).
    """

    def __init__(self, model: Any, probability: float) -> None:
        self.probability = probability
        modules: list[nn.Module] = [model.model.embed_tokens, *residual_outputs(model)]
        self._handles: list[RemovableHandle] = [
            module.register_forward_hook(_Drop(probability)) for module in modules
        ]

    def remove(self) -> None:
        """Take all hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class _Drop:
    """A forward hook: dropout of a module's output while the module trains."""

    def __init__(self, probability: float) -> None:
        self._probability = probability

    def __call__(self, module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(output, self._probability, training=module.training)


def load(folder_or_hub: str | Path, *, dtype: torch.dtype = torch.float32) -> tuple[Any, GlmSpec]:
    """Return model and spec of a checkpoint: a folder, or a name on the hub (fetched, or found in its cache).

    Only safetensors are read and no remote code is ever run. Quantised weights are dequantised.

    Raises:
        SpecError: the architecture is not supported.
        BundleError: the checkpoint cannot be found, fetched or read.
    """
    folder = checkpoint_folder(folder_or_hub)
    spec = read_spec(folder)
    given: dict[str, Any] = {}
    if is_quantised(folder):
        given = {"config": _config(folder, spec), "state_dict": _dequantised(folder, spec, dtype)}
    try:
        with _without_progress_bars():
            model = getattr(transformers, CLASSES[spec.family][1]).from_pretrained(
                None if given else folder,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                **given,
            )
            if given and (folder / "generation_config.json").is_file():
                model.generation_config = transformers.GenerationConfig.from_pretrained(
                    folder, local_files_only=True)  # nosec B615  # a folder; nothing is fetched
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(
            f"the weights cannot be read: {error}",
            where=str(folder),
            remedy="fetch or write the checkpoint again, as safetensors",
        ) from error
    return model.eval(), spec


def _config(folder: Path, spec: GlmSpec) -> Any:
    return getattr(transformers, CLASSES[spec.family][0]).from_pretrained(folder, local_files_only=True)


def _dequantised(folder: Path, spec: GlmSpec, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All weights of a quantised checkpoint in `dtype`; only one of them is in fp32 at a time."""
    file, state = open_quantised(folder), dict[str, torch.Tensor]()
    for name, shape in weight_shapes(spec).items():
        if file.shapes.get(name) != shape:
            raise BundleError(f"the tensor {name} is missing" if name not in file else
                              f"the tensor {name} has shape {list(file.shapes[name])}, not {list(shape)}",
                              where=str(file.path), remedy="use config.json and weights of one and the same checkpoint")
        value = file.read(name)
        array = value.dequantise() if isinstance(value, QuantisedMatrix) else np.array(value)
        state[name] = torch.from_numpy(array).to(dtype)
    return state


def checkpoint_folder(folder_or_hub: str | Path) -> Path:
    """Return the local folder of a checkpoint, fetching it from the hub when the argument is no folder.

    Raises:
        BundleError: there is no such folder and the hub has, or gives, no such repository.
    """
    folder = Path(folder_or_hub)
    if folder.is_dir():
        return folder
    name = str(folder_or_hub)
    if not _HUB_NAME.fullmatch(name):
        raise BundleError(
            "no such folder, and not a name on the hub",
            where=name,
            remedy="give the path of a checkpoint folder, or a name such as zai-org/glm-4-9b-chat-hf",
        )
    try:
        return Path(snapshot_download(  # nosec B615  # named by a person, who may name a revision; no code is taken
            name, allow_patterns=["*.json", "*.safetensors", "*.jinja"]))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"cannot be fetched from the hub: {type(error).__name__}",
            where=name,
            remedy="check the name and the connection, or download the checkpoint and give its folder",
        ) from error


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()
