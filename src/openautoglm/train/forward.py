"""From a batch to its loss: our own walk over a transformers GLM's modules, or the module's own forward.

Letters in names: B rows, L tokens a row, N = B*L, T target tokens, R rows whose hidden state is needed, D head width.

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
from openautoglm.train.objective import cross_entropy_sums

_WALKABLE = frozenset({"GlmDecoderLayer", "Glm4DecoderLayer"})


@dataclass(frozen=True)
class Inputs:
    """A batch as tensors on the model's device. ``mask`` is None where a plain causal mask is enough."""

    ids: Tensor
    positions: Tensor
    mask: Tensor | None
    needed: Tensor
    which: Tensor | None
    labels: Tensor


def to_inputs(batch: Batch, device: torch.device | str = "cpu") -> Inputs:
    """Move a batch to `device` and work out its attention mask (True: may attend)."""
    needed, which = np.unique(batch.rows, return_inverse=True)
    plain = len(needed) == len(batch.rows)
    if plain:
        needed = batch.rows
    mask = None
    if not batch.causal:
        segments, branches = torch.from_numpy(batch.segments).to(device), torch.from_numpy(batch.branches).to(device)
        same_unit = segments[:, :, None] == segments[:, None, :]
        visible = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
        mask = (same_unit & visible).tril()[:, None]
    return Inputs(torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.positions).to(device), mask,
                  torch.from_numpy(needed).to(device), None if plain else torch.from_numpy(which).to(device),
                  torch.from_numpy(batch.labels).to(device))


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
    return cross_entropy_sums(hidden, base.lm_head.weight, inputs.labels, smoothing)


def bare(model: Any) -> Any:
    """The causal language model itself, also where peft wraps it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def walkable(model: Any) -> bool:
    """Whether our own walk knows the model's layers."""
    base = bare(model)
    return all(type(layer).__name__ in _WALKABLE for layer in base.model.layers)


def needed_hidden(model: Any, inputs: Inputs, layer: Callable[..., Tensor], *, recompute: bool = False) -> Tensor:
    """Return the final hidden states at the needed rows, [R, H]."""
    body = model.model
    if not walkable(model):
        states = body(input_ids=inputs.ids, attention_mask=inputs.mask, position_ids=inputs.positions,
                      use_cache=False).last_hidden_state
        return states.flatten(0, 1).index_select(0, inputs.needed)  # type: ignore[no-any-return]
    x_NH = body.embed_tokens(inputs.ids.reshape(-1))
    cos_ND, sin_ND = rotary(body.rotary_emb, inputs.positions)
    last = len(body.layers) - 1
    for number, block in enumerate(body.layers):
        needed = inputs.needed if number == last else None
        if recompute and torch.is_grad_enabled():
            x_NH = checkpoint(layer, block, x_NH, cos_ND, sin_ND, inputs.mask, tuple(inputs.ids.shape), needed,
                              use_reentrant=False)
        else:
            x_NH = layer(block, x_NH, cos_ND, sin_ND, inputs.mask, tuple(inputs.ids.shape), needed)
    return body.norm(x_NH)  # type: ignore[no-any-return]


def rotary(module: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine per token, each rotary pair's value once, fp32 [N, 1, rotary/2]."""
    angles = positions.reshape(-1, 1, 1).float() * module.inv_freq.float()
    return angles.cos() * module.attention_scaling, angles.sin() * module.attention_scaling


def decoder_layer(block: Any, x_NH: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None,
                  shape: tuple[int, int], needed: Tensor | None) -> Tensor:
    """One GLM layer over flat rows; with `needed` the result holds those rows only."""
    attention = block.self_attn
    q, k, v = project_qkv(attention, block.input_layernorm(x_NH))
    q, k = turn(q, cos, sin), turn(k, cos, sin)
    mixed = attend(attention, q, k, v, mask, shape)
    if needed is not None:
        mixed, x_NH = mixed.index_select(0, needed), x_NH.index_select(0, needed)
    mixed = attention.o_proj(mixed)
    sandwich = hasattr(block, "post_self_attn_layernorm")
    x_NH = x_NH + (block.post_self_attn_layernorm(mixed) if sandwich else mixed)
    y = block.post_attention_layernorm(x_NH)
    gate, up = block.mlp.gate_up_proj(y).chunk(2, dim=-1)
    y = block.mlp.down_proj(up * block.mlp.activation_fn(gate))
    return x_NH + (block.post_mlp_layernorm(y) if sandwich else y)


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


def turn(x_NhD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, interleaved pairs over the first ``2 * cos.shape[-1]`` dimensions (Su et al. 2021)."""
    width = 2 * cos.shape[-1]
    even, odd = x_NhD[..., 0:width:2].float(), x_NhD[..., 1:width:2].float()
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2).to(x_NhD.dtype)
    return turned if width == x_NhD.shape[-1] else torch.cat((turned, x_NhD[..., width:]), dim=-1)


def attend(attention: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """Grouped-query attention inside rows; returns [N, heads * D]."""
    share = attention.num_key_value_groups
    q, k, v = (x.unflatten(0, shape).transpose(1, 2) for x in (q, k, v))
    if share > 1:
        k, v = (x.repeat_interleave(share, dim=1) for x in (k, v))
    drop = attention.attention_dropout if attention.training else 0.0
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop, is_causal=mask is None,
                                           scale=attention.scaling)
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)
