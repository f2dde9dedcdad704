"""The plain operators in torch, on any device, in fp32 or bf16; norms and rotary positions are computed in fp32.

Each kernel takes inputs, attributes and the `TorchContext`, and gives its outputs; shapes are those of
`graph/operators.py`. A weight is a tensor or a `TorchQuantised`, which is dequantised where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from openautoglm.graph.ir import Attribute
from openautoglm.runtime.kernels import register_kernel
from openautoglm.runtime.quantised import QuantisedMatrix
from openautoglm.runtime.torch_attention import attend
from openautoglm.runtime.torch_cache import TorchCache

Inputs = Sequence[Any]
Attributes = Mapping[str, Attribute]


class TorchQuantised:
    """A quantised matrix on a device; see `QuantisedMatrix`."""

    def __init__(self, matrix: QuantisedMatrix, device: torch.device) -> None:
        self.values = torch.from_numpy(matrix.values).to(device)
        self.scales = torch.from_numpy(matrix.scales).to(device)
        self.zeros = None if matrix.zeros is None else torch.from_numpy(matrix.zeros).to(device)

    def dequantise(self) -> NDArray[np.float32]:
        """All of it in fp32, on the CPU."""
        exact: NDArray[np.float32] = self.rows().cpu().numpy()
        return exact

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes + self.scales.nbytes + (0 if self.zeros is None else self.zeros.nbytes)

    def rows(self, numbers: Tensor | slice = slice(None)) -> Tensor:
        """Some rows [rows, in], or all, in fp32."""
        scales, values = self.scales[numbers], self.values[numbers]
        grouped = values.view(*scales.shape, -1).float()
        if self.zeros is not None:
            grouped = grouped - self.zeros[numbers].float()[..., None]
        return (grouped * scales[..., None]).flatten(-2)


Matrix = Tensor | TorchQuantised


@dataclass
class TorchContext:
    """What kernels share: the cache, the type of what flows, and cosines and sines of the step's positions."""

    cache: TorchCache
    dtype: torch.dtype
    turns: dict[tuple[int, float], tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Each row [width] divided by its root mean square, times the weight (if any); in fp32, returned as x."""
    exact = x.float()
    normed = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
    return (normed if weight is None else normed * weight).to(x.dtype)


def linear(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
    """x [rows, in] times weight [out, in], plus bias [out] -> [rows, out]."""
    whole = weight.rows() if isinstance(weight, TorchQuantised) else weight
    return F.linear(x, whole.to(x.dtype), None if bias is None else bias.to(x.dtype))


@register_kernel("embedding", "torch")
def _embedding(inputs: Inputs, _: Attributes, context: TorchContext) -> Inputs:
    ids, table = inputs
    rows = table.rows(ids) if isinstance(table, TorchQuantised) else table[ids]
    return [rows.to(context.dtype)]


@register_kernel("rms_norm", "torch")
def _rms_norm(inputs: Inputs, attributes: Attributes, _: TorchContext) -> Inputs:
    return [rms_norm(inputs[0], inputs[1], _number(attributes, "eps"))]


@register_kernel("linear", "torch")
def _linear(inputs: Inputs, _: Attributes, __: TorchContext) -> Inputs:
    return [linear(*inputs)]


@register_kernel("split", "torch")
def _split(inputs: Inputs, attributes: Attributes, _: TorchContext) -> Inputs:
    sizes: Any = attributes["sizes"]
    return list(inputs[0].split(sizes, -1))


@register_kernel("rotary", "torch")
def _rotary(inputs: Inputs, attributes: Attributes, context: TorchContext) -> Inputs:
    x, positions = inputs
    dims = int(_number(attributes, "rotary_dims"))
    cos, sin = _turns(positions, dims, _number(attributes, "theta"), context)
    heads = x.unflatten(-1, (-1, int(_number(attributes, "head_dim"))))
    even, odd = heads[..., :dims].float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2).to(x.dtype)
    return [torch.cat((turned, heads[..., dims:]), -1).flatten(1)]


@register_kernel("paged_attention", "torch")
def _paged_attention(inputs: Inputs, attributes: Attributes, context: TorchContext) -> Inputs:
    q, k, v, layout = inputs
    layer, heads, kv_heads = (int(_number(attributes, name)) for name in ("layer", "heads", "kv_heads"))
    context.cache.write(layer, layout.slots, *(rows.unflatten(-1, (kv_heads, -1)) for rows in (k, v)))
    mixed = attend(q.unflatten(-1, (kv_heads, heads // kv_heads, -1)), layout, context.cache, layer)
    return [mixed.flatten(1)]


@register_kernel("silu", "torch")
def _silu(inputs: Inputs, _: Attributes, __: TorchContext) -> Inputs:
    return [F.silu(inputs[0])]


@register_kernel("add", "torch")
def _add(inputs: Inputs, _: Attributes, __: TorchContext) -> Inputs:
    return [inputs[0] + inputs[1]]


@register_kernel("mul", "torch")
def _mul(inputs: Inputs, _: Attributes, __: TorchContext) -> Inputs:
    return [inputs[0] * inputs[1]]


@register_kernel("gather_rows", "torch")
def _gather_rows(inputs: Inputs, _: Attributes, __: TorchContext) -> Inputs:
    return [inputs[0][inputs[1]]]


def _turns(positions: Tensor, dims: int, theta: float, context: TorchContext) -> tuple[Tensor, Tensor]:
    """Cosine and sine [rows, 1, dims / 2], made once for all layers of a step."""
    known = context.turns.get((dims, theta))
    if known is None or known[0] is not positions:
        inverse = theta ** (-torch.arange(0, dims, 2, device=positions.device, dtype=torch.float32) / dims)
        angles = (positions.float()[:, None] * inverse)[:, None]
        known = context.turns[dims, theta] = (positions, angles.cos(), angles.sin())
    return known[1], known[2]


def _number(attributes: Attributes, name: str) -> float:
    value: Any = attributes[name]
    return float(value)
