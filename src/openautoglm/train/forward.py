"""From a batch to its loss: our own walk over a transformers GLM's modules, or the module's own forward.

Letters in names: B rows of a block, L tokens a row, N token rows of all blocks, T target tokens, R rows whose
hidden state is needed, H hidden width, h heads, D head width.

The walk computes what training needs and no more: q, k and v in one product, the last layer's output
projection and feed-forward and the head at the rows that predict a target only. Weights stay in the
modules, whose forward hooks (dropout) and replacements (LoRA) act as in the module's own forward; tests
hold both forwards equal.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from openautoglm.data.pack import Batch
from openautoglm.train import fused
from openautoglm.train.freeze import bare, depth
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
        weights: of the targets in the objective, fp32 [T]; None where all weigh the same.
    """

    ids: Tensor
    positions: Tensor
    blocks: tuple[tuple[int, int], ...]
    masks: tuple[Tensor | None, ...]
    needed: Tensor
    which: Tensor | None
    labels: Tensor
    weights: Tensor | None = None


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
                  needed_rows, None if plain else which_rows, labels,
                  None if batch.weights is None else torch.from_numpy(batch.weights).to(device))


def visible(segments: Tensor, branches: Tensor) -> Tensor:
    """Who may attend to whom, [B, 1, L, L]: earlier tokens of the unit, if prompt or of the own target."""
    same_unit = segments[:, :, None] == segments[:, None, :]
    open_branch = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    return (same_unit & open_branch).tril()[:, None]


@dataclass(frozen=True)
class Halves:
    """The two halves of a layer around attention: ours, or compiled ones."""

    before: Callable[..., tuple[Tensor, Tensor, Tensor]]
    after: Callable[..., Tensor]


@dataclass(frozen=True)
class Start:
    """Hidden states [N, H] that enter layer number `layer`, known before: what lies below is not computed."""

    layer: int
    hidden: Tensor


def loss_sums(model: Any, inputs: Inputs, *, smoothing: float = 0.0, recompute: bool = False,
              halves: Halves | None = None, start: Start | None = None) -> tuple[Tensor, Tensor]:
    """Sums over the target tokens of the objective and the plain negative log likelihood, fp32, in nats.

    Args:
        smoothing: label smoothing.
        recompute: gradient checkpointing, layer by layer.
        halves: `compiled()` ones; None runs eagerly.
        start: where the walk begins; None: at the ids.
    """
    base = bare(model)
    hidden = needed_hidden(base, inputs, halves or EAGER, recompute=recompute, start=start)
    if inputs.which is not None:
        hidden = hidden.index_select(0, inputs.which)
    if type(base.lm_head) is nn.Linear:
        return cross_entropy_sums(hidden, base.lm_head.weight, inputs.labels, smoothing, inputs.weights)
    logits = base.lm_head(hidden).float()
    terms = F.cross_entropy(logits, inputs.labels, reduction="none", label_smoothing=smoothing)
    objective = terms.sum() if inputs.weights is None else terms @ inputs.weights
    return objective, F.cross_entropy(logits.detach(), inputs.labels, reduction="sum")


def walkable(model: Any) -> bool:
    """Whether our own walk knows the model's layers."""
    base = bare(model)
    known = all(type(layer).__name__ in _WALKABLE for layer in base.model.layers)
    return known and base.config.hidden_act == "silu"


def needed_hidden(model: Any, inputs: Inputs, halves: Halves, *, recompute: bool = False, start: Start | None = None,
                  taps: dict[int, Tensor] | None = None) -> Tensor:
    """Return the final hidden states at the needed rows, [R, H].

    Args:
        taps: its keys are numbers of layers; their outputs at the needed rows [R, H] are put there. Ours only: the
            model must be `walkable`.
    """
    body = model.model
    if not walkable(model):
        return _own_forward(body, inputs).index_select(0, inputs.needed)
    frozen, last = depth(model), len(body.layers) - 1
    turns = rotary(body.rotary_emb, inputs.positions)
    x_NH = body.embed_tokens(inputs.ids) if start is None else start.hidden
    for number in range(0 if start is None else start.layer, last + 1):
        args = (body.layers[number], x_NH, turns, inputs, halves, inputs.needed if number == last else None)
        with nullcontext() if number >= frozen else torch.no_grad():
            if recompute and torch.is_grad_enabled():
                x_NH = checkpoint(decoder_layer, *args, use_reentrant=False)
            else:
                x_NH = decoder_layer(*args)
        if taps is not None and number in taps:
            taps[number] = x_NH if number == last else x_NH.index_select(0, inputs.needed)
    return norm(body.norm, x_NH)


def lower_hidden(model: Any, inputs: Inputs, layers: int) -> Tensor:
    """Return the hidden states after the lowest `layers` layers at all rows, [N, H], without autograd."""
    body = model.model
    with torch.no_grad():
        x_NH = body.embed_tokens(inputs.ids)
        turns = rotary(body.rotary_emb, inputs.positions)
        for block in body.layers[:layers]:
            x_NH = decoder_layer(block, x_NH, turns, inputs, EAGER, None)
    return x_NH  # type: ignore[no-any-return]


def _own_forward(body: Any, inputs: Inputs) -> Tensor:
    """All final hidden states by the module's own forward, block by block, [N, H]."""
    sizes = [rows * width for rows, width in inputs.blocks]
    parts = zip(torch.split(inputs.ids, sizes), torch.split(inputs.positions, sizes), inputs.blocks,
                inputs.masks, strict=True)
    states = [body(input_ids=ids.view(shape), attention_mask=mask, position_ids=positions.view(shape),
                   use_cache=False).last_hidden_state.flatten(0, 1) for ids, positions, shape, mask in parts]
    return torch.cat(states)


def rotary(module: Any, positions: Tensor) -> Tensor:
    """What `fused.turn` turns by: cosine and sine per token and pair, fp32 [N, 1, pairs, 2]."""
    angles = positions.reshape(-1, 1, 1).float() * module.inv_freq.float()
    return torch.stack((angles.cos(), angles.sin()), dim=-1) * float(module.attention_scaling)


def decoder_layer(block: Any, x_NH: Tensor, turns: Tensor, inputs: Inputs, halves: Halves,
                  needed: Tensor | None) -> Tensor:
    """One GLM layer over flat rows; with `needed` the result holds those rows only."""
    mixed = attend(block.self_attn, *halves.before(block, x_NH, turns), inputs)
    if needed is not None:
        mixed, x_NH = mixed.index_select(0, needed), x_NH.index_select(0, needed)
    return halves.after(block, mixed, x_NH)


def before_attention(block: Any, x_NH: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Norm, projections and rotary positions."""
    q, k, v = project_qkv(block.self_attn, norm(block.input_layernorm, x_NH))
    return fused.turn(q, turns), fused.turn(k, turns), v


def after_attention(block: Any, mixed: Tensor, x_NH: Tensor) -> Tensor:
    """Output projection and feed-forward, each added to the residual stream."""
    sandwich = hasattr(block, "post_self_attn_layernorm")
    y = block.self_attn.o_proj(mixed)
    x_NH = x_NH + (norm(block.post_self_attn_layernorm, y) if sandwich else y)
    gate_up = block.mlp.gate_up_proj(norm(block.post_attention_layernorm, x_NH))
    y = block.mlp.down_proj(fused.swiglu(gate_up))
    return x_NH + (norm(block.post_mlp_layernorm, y) if sandwich else y)


EAGER = Halves(before_attention, after_attention)


def compiled() -> Halves:
    """The halves compiled for any number of rows; all layers share the code, attention stays eager."""
    return Halves(torch.compile(before_attention, dynamic=True), torch.compile(after_attention, dynamic=True))


def norm(module: Any, x_NH: Tensor) -> Tensor:
    """A GLM norm over rows."""
    return fused.rms_norm(x_NH, module.weight, module.variance_epsilon)


def project_qkv(attention: Any, x_NH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [N, heads, D], keys and values [N, kv heads, D]; one product of three plain linears."""
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    width = attention.head_dim
    if all(type(part) is nn.Linear and not part._forward_hooks for part in parts):
        weight = torch.cat([part.weight for part in parts])
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        widths = [part.out_features for part in parts]
        q, k, v = torch.split(F.linear(x_NH, weight, bias), widths, dim=-1)
    else:
        q, k, v = (part(x_NH) for part in parts)
    q, k, v = (x.reshape(len(x), -1, width) for x in (q, k, v))
    return q, k, v


def attend(attention: Any, q: Tensor, k: Tensor, v: Tensor, inputs: Inputs) -> Tensor:
    """Grouped-query attention inside the rows of each block; returns [N, heads * D]."""
    share = attention.num_key_value_groups
    if share > 1:
        k, v = (x[:, :, None].expand(-1, -1, share, -1).flatten(1, 2) for x in (k, v))
    drop = attention.attention_dropout if attention.training else 0.0
    sizes = [rows * width for rows, width in inputs.blocks]
    mixed = []
    parts = zip(inputs.blocks, inputs.masks, *(torch.split(x, sizes) for x in (q, k, v)), strict=True)
    for (rows, width), mask, *states in parts:
        q_BhLD, k_BhLD, v_BhLD = (x.view(rows, width, *x.shape[1:]).transpose(1, 2) for x in states)
        out = F.scaled_dot_product_attention(q_BhLD, k_BhLD, v_BhLD, attn_mask=mask, dropout_p=drop,
                                             is_causal=mask is None, scale=attention.scaling)
        mixed.append(out.transpose(1, 2).reshape(rows * width, -1))
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]
