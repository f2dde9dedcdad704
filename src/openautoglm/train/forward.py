"""From a batch to its loss: our own walk over a transformers GLM's modules, or the module's own forward.

Letters in names: B rows of a block, L tokens a row, N token rows of all blocks, T target tokens, R rows whose hidden state is needed, D head width.

The walk computes what training needs and no more: q, k and v in one product, the last layer's output projection and
feed-forward and the head at the rows that predict a target only. Weights stay in the modules, whose forward hooks
(dropout) and replacements (LoRA) act as in the module's own forward; tests hold both forwards equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from openautoglm.data.pack import Batch
from openautoglm.train import fused
from openautoglm.train.objective import cross_entropy_sums

_WALKABLE = frozenset({"GlmDecoderLayer", "Glm4DecoderLayer"})


@dataclass(frozen=True)
class Inputs:
    """A batch as tensors on the model's device.

    Attributes:
        ids: [N].
        positions: [N].
        blocks: shape of each block, [B, L].
        masks: for each block None where a plain causal mask is enough, else [B, 1, L, L], True: may attend.
        needed: rows whose final hidden state is needed, [R].
        which: for each target the place of its row in `needed`, [T]; None where they are the same.
        labels: [T].
    """

    ids: Tensor
    positions: Tensor
    blocks: tuple[tuple[int, int], ...]
    masks: tuple[Tensor | None, ...]
    needed: Tensor
    which: Tensor | None
    labels: Tensor


def to_inputs(batch: Batch, device: torch.device | str = "cpu") -> Inputs:
    """Move a batch to `device` and work out its attention masks."""
    needed, which = np.unique(batch.rows, return_inverse=True)
    plain = len(needed) == len(batch.rows)
    tensors = [torch.from_numpy(array).to(device) for array in (
        batch.ids, batch.positions, batch.segments, batch.branches, batch.rows if plain else needed, which,
        batch.labels)]
    ids, positions, segments, branches, needed_rows, which_rows, labels = tensors
    masks: list[Tensor | None] = []
    start = 0
    for block in batch.blocks:
        span = slice(start, start + block.rows * block.width)
        start = span.stop
        masks.append(None if block.causal else visible(segments[span].view(block.rows, block.width),
                                                       branches[span].view(block.rows, block.width)))
    return Inputs(ids, positions, tuple((block.rows, block.width) for block in batch.blocks), tuple(masks),
                  needed_rows, None if plain else which_rows, labels)


def visible(segments: Tensor, branches: Tensor) -> Tensor:
    """Who may attend to whom, [B, 1, L, L]: earlier tokens of the own unit that are prompt or of the own target."""
    same_unit = segments[:, :, None] == segments[:, None, :]
    open_branch = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    return (same_unit & open_branch).tril()[:, None]


def loss_sums(model: Any, inputs: Inputs, *, smoothing: float = 0.0,
              layer: Callable[..., Tensor] | None = None, recompute: bool = False) -> tuple[Tensor, Tensor]:
    """Sum over the target tokens of the objective and of the plain negative log likelihood, fp32 scalars in nats.

    Args:
        layer: a compiled `decoder_layer`; None runs it eagerly.
        recompute: gradient checkpointing, layer by layer.
    """
    base = bare(model)
    hidden = needed_hidden(base, inputs, layer or decoder_layer, recompute=recompute)
    if inputs.which is not None:
        hidden = hidden.index_select(0, inputs.which)
    if type(base.lm_head) is nn.Linear:
        return cross_entropy_sums(hidden, base.lm_head.weight, inputs.labels, smoothing)
    logits = base.lm_head(hidden).float()
    objective = F.cross_entropy(logits, inputs.labels, reduction="sum", label_smoothing=smoothing)
    return objective, F.cross_entropy(logits.detach(), inputs.labels, reduction="sum")


def bare(model: Any) -> Any:
    """The causal language model itself, also where peft wraps it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def walkable(model: Any) -> bool:
    """Whether our own walk knows the model's layers."""
    base = bare(model)
    return base.config.hidden_act == "silu" and all(type(layer).__name__ in _WALKABLE for layer in base.model.layers)


def needed_hidden(model: Any, inputs: Inputs, layer: Callable[..., Tensor], *, recompute: bool = False) -> Tensor:
    """Return the final hidden states at the needed rows, [R, H]."""
    body = model.model
    if not walkable(model):
        return _own_forward(body, inputs).index_select(0, inputs.needed)
    x_NH = body.embed_tokens(inputs.ids)
    turns = rotary(body.rotary_emb, inputs.positions)
    last = len(body.layers) - 1
    for number, block in enumerate(body.layers):
        args = (block, x_NH, turns, inputs.masks, inputs.blocks, inputs.needed if number == last else None)
        if recompute and torch.is_grad_enabled():
            x_NH = checkpoint(layer, *args, use_reentrant=False)
        else:
            x_NH = layer(*args)
    return norm(body.norm, x_NH)


def _own_forward(body: Any, inputs: Inputs) -> Tensor:
    """All final hidden states by the module's own forward, block by block, [N, H]."""
    sizes = [rows * width for rows, width in inputs.blocks]
    states = [body(input_ids=ids.view(shape), attention_mask=mask, position_ids=positions.view(shape),
                   use_cache=False).last_hidden_state.flatten(0, 1)
              for ids, positions, shape, mask in zip(inputs.ids.split(sizes), inputs.positions.split(sizes),
                                                     inputs.blocks, inputs.masks, strict=True)]
    return torch.cat(states)


def rotary(module: Any, positions: Tensor) -> Tensor:
    """What `fused.turn` multiplies by: one complex number of norm one per token and pair, [N, 1, pairs]."""
    angles = positions.reshape(-1, 1, 1).float() * module.inv_freq.float()
    return torch.polar(torch.full_like(angles, module.attention_scaling), angles)


def decoder_layer(block: Any, x_NH: Tensor, turns: Tensor, masks: tuple[Tensor | None, ...],
                  shapes: tuple[tuple[int, int], ...], needed: Tensor | None) -> Tensor:
    """One GLM layer over flat rows; with `needed` the result holds those rows only."""
    attention, mlp = block.self_attn, block.mlp
    q, k, v = project_qkv(attention, norm(block.input_layernorm, x_NH))
    mixed = attend(attention, fused.turn(q, turns), fused.turn(k, turns), v, masks, shapes)
    if needed is not None:
        mixed, x_NH = mixed.index_select(0, needed), x_NH.index_select(0, needed)
    mixed = attention.o_proj(mixed)
    sandwich = hasattr(block, "post_self_attn_layernorm")
    x_NH = x_NH + (norm(block.post_self_attn_layernorm, mixed) if sandwich else mixed)
    gate_up = mlp.gate_up_proj(norm(block.post_attention_layernorm, x_NH))
    y = mlp.down_proj(fused.swiglu(gate_up))
    return x_NH + (norm(block.post_mlp_layernorm, y) if sandwich else y)


def norm(module: Any, x_NH: Tensor) -> Tensor:
    """A GLM norm over rows."""
    return fused.rms_norm(x_NH, module.weight, module.variance_epsilon)


def project_qkv(attention: Any, x_NH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [N, heads, D], keys and values [N, kv heads, D]; one product where the three are plain linears."""
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    width = attention.head_dim
    if all(type(part) is nn.Linear and not part._forward_hooks for part in parts):
        weight = torch.cat([part.weight for part in parts])
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        q, k, v = F.linear(x_NH, weight, bias).split([part.out_features for part in parts], dim=-1)
    else:
        q, k, v = (part(x_NH) for part in parts)
    return q.unflatten(-1, (-1, width)), k.unflatten(-1, (-1, width)), v.unflatten(-1, (-1, width))


def attend(attention: Any, q: Tensor, k: Tensor, v: Tensor, masks: tuple[Tensor | None, ...],
           shapes: tuple[tuple[int, int], ...]) -> Tensor:
    """Grouped-query attention inside the rows of each block; returns [N, heads * D]."""
    share = attention.num_key_value_groups
    if share > 1:
        k, v = (x[:, :, None].expand(-1, -1, share, -1).flatten(1, 2) for x in (k, v))
    drop = attention.attention_dropout if attention.training else 0.0
    sizes = [rows * width for rows, width in shapes]
    mixed = []
    for mask, shape, *parts in zip(masks, shapes, *(x.split(sizes) for x in (q, k, v)), strict=True):
        rows_BhLD = (part.unflatten(0, shape).transpose(1, 2) for part in parts)
        out = F.scaled_dot_product_attention(*rows_BhLD, attn_mask=mask, dropout_p=drop, is_causal=mask is None,
                                             scale=attention.scaling)
        mixed.append(out.transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]
