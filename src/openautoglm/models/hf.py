"""Weights in transformers' own classes: built from a spec, or loaded from a checkpoint. No remote code, no pickles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from openautoglm.models.spec import GlmSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.utils.hooks import RemovableHandle

_CLASSES = {"glm": ("GlmConfig", "GlmForCausalLM"), "glm4": ("Glm4Config", "Glm4ForCausalLM")}


def build(spec: GlmSpec, *, seed: int, dropout: float = 0.0, attention_dropout: float = 0.0,
          init_std: float = 0.02) -> Any:
    """Return a new ``GlmForCausalLM`` or ``Glm4ForCausalLM`` in fp32 on the CPU.

    Weights are normal with `init_std`; the matrices that write to the residual stream have it divided by
    ``sqrt(2 * layers)`` (Radford et al. 2019, GPT-2), biases are zero, norms one. The same spec and seed give the
    same weights, and torch's own random state is left as it was.

    Args:
        dropout: on the embedding and on what attention and feed-forward add to the stream (see `Dropouts`).
        attention_dropout: on the attention weights.
    """
    config_name, model_name = _CLASSES[spec.family]
    config = getattr(transformers, config_name)(**{
        **spec.config(), "attention_dropout": attention_dropout, "initializer_range": init_std})
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

    The transformers classes know attention dropout only. The hooks act while a module is in training mode; weights
    and their names stay as they are. Keep the object to `remove` them again.

    Args:
        model: a ``GlmForCausalLM`` or ``Glm4ForCausalLM``.
        probability: the share of values set to zero; the others are scaled up (Srivastava et al. 2014).
    """

    def __init__(self, model: Any, probability: float) -> None:
        self.probability = probability
        modules: list[nn.Module] = [model.model.embed_tokens, *residual_outputs(model)]
        self._handles: list[RemovableHandle] = [module.register_forward_hook(_Drop(probability)) for module in modules]

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
