"""Structured removal: which heads, channels and layers stay, and the smaller model made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from openautoglm.core.settings import Settings
from openautoglm.models import hf
from openautoglm.models.spec import GlmSpec

Numbers = tuple[int, ...]


class Cut(Settings):
    """What stays of a model. Layers hold as many heads and channels each; which ones differs by layer.

    Attributes:
        spec: the smaller model.
        layers: the layers that stay.
        heads: for each of these the query heads that stay.
        kv_heads: for each the kv heads that stay.
        channels: for each the feed-forward channels that stay.
    """

    spec: GlmSpec
    layers: Numbers
    heads: tuple[Numbers, ...]
    kv_heads: tuple[Numbers, ...]
    channels: tuple[Numbers, ...]

    @classmethod
    def whole(cls, spec: GlmSpec) -> Cut:
        """All of a model."""
        every = range(spec.layers)
        return cls(spec=spec, layers=tuple(every), heads=(tuple(range(spec.heads)),) * spec.layers,
                   kv_heads=(tuple(range(spec.kv_heads)),) * spec.layers,
                   channels=(tuple(range(spec.ffn_size)),) * spec.layers)

    def then(self, later: Cut) -> Cut:
        """What both leave, in the numbers of the first one's model."""
        def inside(mine: tuple[Numbers, ...], theirs: tuple[Numbers, ...]) -> tuple[Numbers, ...]:
            return tuple(tuple(mine[layer][number] for number in numbers)
                         for layer, numbers in zip(later.layers, theirs, strict=True))

        return Cut(spec=later.spec, layers=tuple(self.layers[layer] for layer in later.layers),
                   heads=inside(self.heads, later.heads), kv_heads=inside(self.kv_heads, later.kv_heads),
                   channels=inside(self.channels, later.channels))

    def removed(self, origin: GlmSpec) -> dict[str, Any]:
        """What is gone, for the card: numbers of layers, of heads by layer, and how many channels."""
        def gone(count: int, stay: Numbers) -> list[int]:
            return sorted(set(range(count)) - set(stay))

        return {"layers": gone(origin.layers, self.layers),
                "kv_heads": [gone(origin.kv_heads, stay) for stay in self.kv_heads],
                "heads": [gone(origin.heads, stay) for stay in self.heads],
                "channels_per_layer": origin.ffn_size - self.spec.ffn_size}


def select(state: Mapping[str, Tensor], origin: GlmSpec, cut: Cut) -> dict[str, Tensor]:
    """Return the tensors of the smaller model under their new names; masks of weights are cut in the same way.

    Args:
        state: tensors of the whole model by transformers' names; some may be absent.
    """
    chosen = {name: tensor for name, tensor in state.items() if not name.startswith("model.layers.")}
    for new, old in enumerate(cut.layers):
        rows, columns = _places(origin, cut, new)
        prefix = f"model.layers.{old}."
        for name, tensor in state.items():
            if not name.startswith(prefix):
                continue
            part = name.removeprefix(prefix)
            module = part.rpartition(".")[0]
            if module in rows:
                tensor = tensor.index_select(0, rows[module].to(tensor.device))
            elif module in columns:
                tensor = tensor.index_select(1, columns[module].to(tensor.device))
            chosen[f"model.layers.{new}.{part}"] = tensor
    return chosen


def _places(origin: GlmSpec, cut: Cut, layer: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The rows, and the columns, that stay of a layer's matrices."""
    heads = spread(cut.heads[layer], origin.head_dim)
    kv_heads = spread(cut.kv_heads[layer], origin.head_dim)
    channels = torch.tensor(cut.channels[layer], dtype=torch.long)
    rows = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads, "self_attn.v_proj": kv_heads,
            "mlp.gate_up_proj": torch.cat([channels, channels + origin.ffn_size])}
    return rows, {"self_attn.o_proj": heads, "mlp.down_proj": channels}


def spread(numbers: Numbers, width: int) -> Tensor:
    """The places of parts of equal width, [numbers x width]."""
    return (torch.tensor(numbers, dtype=torch.long)[:, None] * width + torch.arange(width)).flatten()


def make_model(state: Mapping[str, Tensor], spec: GlmSpec) -> Any:
    """Return transformers' model of `spec` that holds copies of the tensors, in their types, in evaluation mode."""
    model = hf.build(spec, seed=0)
    own = {name: tensor.detach().clone() for name, tensor in state.items()}
    if spec.tied:
        own["lm_head.weight"] = own["model.embed_tokens.weight"]
    model.load_state_dict(own, assign=True)
    if spec.tied:
        model.tie_weights()
    return model.to(next(iter(own.values())).device).eval()
