"""How much each head, each kv group and each feed-forward channel of a model matters.

Letters in names: h query heads, K kv heads, G query heads of a kv head, D head width, F channels, H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openautoglm.compress.prune.examples import ExampleBatch
from openautoglm.compress.prune.observe import Inputs, block_influence, input_effects
from openautoglm.compress.prune.settings import PruneSettings


@dataclass(frozen=True)
class LayerScores:
    """Of one layer, greater is more important: heads [h], groups (kv heads and their query heads) [K], channels [F]."""

    heads: Tensor
    groups: Tensor
    channels: Tensor


def part_scores(model: Any, settings: PruneSettings, batches: Sequence[ExampleBatch],
                inputs: Mapping[nn.Linear, Inputs]) -> list[LayerScores]:
    """Score the parts of every layer as ``settings.score`` says, fp32 on the CPU.

    Args:
        batches: read by ``gradient``.
        inputs: of the output matrices of attention and feed-forward; read by ``wanda``.
    """
    if settings.score == "gradient":
        return _by_gradient(model, batches)
    generator = torch.Generator().manual_seed(settings.seed)
    makers: dict[str, Callable[[Any], LayerScores]] = {
        "l1": lambda layer: _by_weights(layer, 1), "l2": lambda layer: _by_weights(layer, 2),
        "wanda": lambda layer: _by_outputs(layer, inputs), "random": lambda layer: _by_chance(layer, generator)}
    return [makers[settings.score](layer) for layer in model.model.layers]


def layer_scores(model: Any, settings: PruneSettings, batches: Sequence[ExampleBatch]) -> Tensor:
    """Score whole layers, [layers]: by how much they turn their input; by chance where the score is random."""
    if settings.score == "random":
        return torch.rand(len(model.model.layers), generator=torch.Generator().manual_seed(settings.seed))
    return block_influence(model, batches)


def _by_weights(layer: Any, power: int) -> LayerScores:
    """The sum of ``|w|^power`` over everything that goes with a part; of ``l2`` its root."""
    attention, mlp = layer.self_attn, layer.mlp
    width = attention.head_dim

    def rows(linear: nn.Linear) -> Tensor:
        sums = _power(linear.weight, power).sum(1)
        return sums if linear.bias is None else sums + _power(linear.bias, power)

    heads = _parts(rows(attention.q_proj), width) + _parts(_power(attention.o_proj.weight, power).sum(0), width)
    shared = _parts(rows(attention.k_proj), width) + _parts(rows(attention.v_proj), width)
    groups = heads.view(len(shared), -1).sum(1) + shared
    gate, up = rows(mlp.gate_up_proj).chunk(2)
    channels = gate + up + _power(mlp.down_proj.weight, power).sum(0)
    return _rooted(heads, groups, channels) if power == 2 else LayerScores(heads.cpu(), groups.cpu(), channels.cpu())


def _by_outputs(layer: Any, inputs: Mapping[nn.Linear, Inputs]) -> LayerScores:
    """The norm of what a part adds to the residual stream, its inputs taken as independent.

    Wanda (Sun et al. 2023, arXiv 2306.11695) weighs ``|w|`` by the norm of its input; here its squares are summed over
    the columns of a part.
    """
    attention, mlp = layer.self_attn, layer.mlp
    mixed, channels = ((_power(linear.weight, 2).sum(0) * inputs[linear].squares)
                       for linear in (attention.o_proj, mlp.down_proj))
    heads = _parts(mixed, attention.head_dim)
    return _rooted(heads, heads.view(-1, attention.num_key_value_groups).sum(1), channels)


def _by_gradient(model: Any, batches: Sequence[ExampleBatch]) -> list[LayerScores]:
    asked: list[tuple[nn.Linear, int]] = []
    for layer in model.model.layers:
        width, group = layer.self_attn.head_dim, layer.self_attn.num_key_value_groups
        output = layer.self_attn.o_proj
        asked += [(output, width), (output, width * group), (layer.mlp.down_proj, 1)]
    found = input_effects(model, batches, asked)
    return [_rooted(*found[place : place + 3]) for place in range(0, len(found), 3)]


def _by_chance(layer: Any, generator: torch.Generator) -> LayerScores:
    heads = torch.rand(layer.self_attn.o_proj.in_features // layer.self_attn.head_dim, generator=generator)
    groups = torch.rand(layer.self_attn.k_proj.out_features // layer.self_attn.head_dim, generator=generator)
    return LayerScores(heads, groups, torch.rand(layer.mlp.down_proj.in_features, generator=generator))


def _power(weight: Tensor, power: int) -> Tensor:
    values = weight.detach().float()
    return values.abs() if power == 1 else values.square()


def _parts(sums: Tensor, width: int) -> Tensor:
    return sums.view(-1, width).sum(1)


def _rooted(heads: Tensor, groups: Tensor, channels: Tensor) -> LayerScores:
    return LayerScores(heads.sqrt().cpu(), groups.sqrt().cpu(), channels.sqrt().cpu())
