"""A student that begins with what its teacher knows: evenly chosen layers, widths cut where it is narrower.

Letters in names: V vocabulary, H hidden width, D head width, F feed-forward width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from openautoglm.core.errors import TrainError
from openautoglm.models.spec import GlmSpec


def initialise(student: Any, spec: GlmSpec, teacher: Any, teacher_spec: GlmSpec) -> None:
    """Put weights of `teacher` into `student`, in place; both are transformers' classes, on any devices.

    Layer i of n is the teacher's layer at the same share of its depth. Kept are the channels and feed-forward rows of
    the greatest weights, heads evenly chosen, and of a head the rotary pairs that turn (nearly) as the student's do.

    Raises:
        TrainError: the student is wider or deeper than its teacher, or of another family.
    """
    refuse(spec, teacher_spec)
    theirs = {name: value.detach().float().cpu() for name, value in teacher.state_dict().items()}
    channels = _greatest(_channel_sizes(theirs, teacher_spec), spec.hidden_size)
    queries, keys = _heads(spec, teacher_spec)
    mine = dict(student.named_parameters())
    with torch.no_grad():
        rows = min(spec.vocab_size, teacher_spec.vocab_size)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in mine:
                mine[name][:rows].copy_(theirs[name][:rows][:, channels])
        mine["model.norm.weight"].copy_(theirs["model.norm.weight"][channels])
        for number in range(spec.layers):
            chosen = -(-(number + 1) * teacher_spec.layers // spec.layers) - 1
            layer = {name.removeprefix(f"model.layers.{chosen}."): value for name, value in theirs.items()
                     if name.startswith(f"model.layers.{chosen}.")}
            for name, value in _cut(layer, channels, queries, keys, spec, teacher_spec).items():
                mine[f"model.layers.{number}.{name}"].copy_(value)


def _cut(layer: dict[str, Tensor], channels: Tensor, queries: Tensor, keys: Tensor, spec: GlmSpec,
         teacher: GlmSpec) -> dict[str, Tensor]:
    """A layer's weights at the student's widths."""
    gate, up = torch.split(layer["mlp.gate_up_proj.weight"], teacher.ffn_size)
    down = layer["mlp.down_proj.weight"]
    inner = _greatest(gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0), spec.ffn_size)
    rows = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    found = {
        "mlp.gate_up_proj.weight": torch.cat([gate[inner], up[inner]])[:, channels],
        "mlp.down_proj.weight": down[channels][:, inner],
        "self_attn.o_proj.weight": layer["self_attn.o_proj.weight"][channels][:, queries]}
    for name, kept in rows.items():
        found[f"self_attn.{name}.weight"] = layer[f"self_attn.{name}.weight"][kept][:, channels]
        if spec.qkv_bias and f"self_attn.{name}.bias" in layer:
            found[f"self_attn.{name}.bias"] = layer[f"self_attn.{name}.bias"][kept]
    return found | {name: value[channels] for name, value in layer.items() if value.ndim == 1 and "norm" in name}


def _channel_sizes(theirs: dict[str, Tensor], spec: GlmSpec) -> Tensor:
    """How much is written to each channel of the residual stream, [H]."""
    total = theirs["model.embed_tokens.weight"].square().mean(0)
    for number in range(spec.layers):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            total = total + theirs[f"model.layers.{number}.{name}.weight"].square().sum(1)
    return total


def _greatest(sizes: Tensor, count: int) -> Tensor:
    """Places of the `count` greatest, in order."""
    return sizes.topk(count).indices.sort().values


def _heads(spec: GlmSpec, teacher: GlmSpec) -> tuple[Tensor, Tensor]:
    """Rows of the teacher's queries and of its keys (and values) that the student takes over."""
    turning, own_turning = (int(one.rotary_factor * one.head_dim) // 2 for one in (teacher, spec))
    pairs = torch.arange(own_turning) * turning // own_turning
    still = 2 * turning + torch.arange(spec.head_dim - 2 * own_turning)
    inside = torch.cat([torch.stack([2 * pairs, 2 * pairs + 1], 1).flatten(), still])
    groups = torch.arange(spec.kv_heads) * teacher.kv_heads // spec.kv_heads
    share, own_share = teacher.heads // teacher.kv_heads, spec.heads // spec.kv_heads
    members = torch.arange(own_share) * share // own_share
    heads = (groups[:, None] * share + members).flatten()
    return (heads[:, None] * teacher.head_dim + inside).flatten(), (groups[:, None] * teacher.head_dim
                                                                    + inside).flatten()


def refuse(spec: GlmSpec, teacher: GlmSpec) -> None:
    """Raise TrainError where a student cannot be cut out of its teacher."""
    remedy = "choose a smaller student, or set distill.initialise to fresh"
    for name in ("layers", "hidden_size", "head_dim", "ffn_size", "heads", "kv_heads"):
        own, theirs = getattr(spec, name), getattr(teacher, name)
        if own > theirs:
            raise TrainError(f"the student's {name} of {own} is above the teacher's {theirs}",
                             where="distill.initialise", remedy=remedy)
    turning, own_turning = (one.rotary_factor * one.head_dim for one in (teacher, spec))
    if (spec.family != teacher.family or own_turning > turning
            or spec.head_dim - own_turning > teacher.head_dim - turning):
        raise TrainError("student and teacher are of different families or turn other shares of a head",
                         where="distill.initialise", remedy=remedy)
