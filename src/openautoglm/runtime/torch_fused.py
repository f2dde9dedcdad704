"""Torch kernels of the operators that rules make. Each says in torch what its operator means; none is tuned.

Quantised weights come as tensors that are dequantised already, or as matrices that can `dequantise` themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from openautoglm.graph import fused
from openautoglm.graph.ir import Attribute
from openautoglm.runtime.kernels import register_kernel

_OPERATORS = fused.__name__  # importing the module makes the operators known
Inputs = Sequence[Any]
Facts = Mapping[str, Attribute]


@register_kernel("silu_mul", "torch")
def silu_mul(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """silu(gate) * up."""
    gate, up = inputs if len(inputs) == 2 else inputs[0].chunk(2, dim=-1)
    return [F.silu(gate) * up]


@register_kernel("add_rms_norm", "torch")
def add_rms_norm(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """The sum, and the sum normed."""
    total = inputs[0] + inputs[1]
    return [total, _norm(total, inputs[2], attributes)]


@register_kernel("unit_rms_norm", "torch")
def unit_rms_norm(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """Rows divided by their root mean square."""
    return [_norm(inputs[0], None, attributes)]


@register_kernel("norm_linear", "torch")
def norm_linear(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """A norm, then a linear."""
    return [F.linear(_norm(inputs[0], inputs[1], attributes), *inputs[2:])]


@register_kernel("quantised_linear", "torch")
def quantised_linear(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """A linear; activations stay in fp32."""
    return [F.linear(inputs[0], _matrix(inputs[1]), *inputs[2:])]


@register_kernel("quantise_rows", "torch")
def quantise_rows(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """Codes and scales."""
    return _codes(inputs[0], attributes)


@register_kernel("quantised_rows_linear", "torch")
def quantised_rows_linear(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """A linear of quantised rows."""
    codes, scales, weight, *bias = inputs
    x = (codes.float().view(*scales.shape, -1) * scales[..., None]).flatten(-2)
    return [F.linear(x, _matrix(weight), *bias)]


@register_kernel("rms_norm_quantise", "torch")
def rms_norm_quantise(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """A norm, then codes and scales."""
    return _codes(_norm(inputs[0], inputs[1], attributes), attributes)


@register_kernel("add_rms_norm_quantise", "torch")
def add_rms_norm_quantise(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """The sum, and codes and scales of the sum normed."""
    total, normed = add_rms_norm(inputs, attributes, context)
    return [total, *_codes(normed, attributes)]


@register_kernel("silu_mul_quantise", "torch")
def silu_mul_quantise(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """silu(gate) * up, as codes and scales."""
    return _codes(silu_mul(inputs, attributes, context)[0], attributes)


def _norm(x: Tensor, weight: Tensor | None, attributes: Facts) -> Tensor:
    """In fp32, as the models were trained."""
    normed = F.rms_norm(x.float(), (x.shape[-1],), eps=float(attributes["eps"]))  # type: ignore[arg-type]
    return (normed if weight is None else normed * weight).to(x.dtype)


def _codes(x: Tensor, attributes: Facts) -> list[Tensor]:
    group = int(attributes["group"]) or x.shape[-1]  # type: ignore[arg-type]
    grouped = x.float().reshape(*x.shape[:-1], -1, group)
    scales = grouped.abs().amax(-1) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0.0)
    return [torch.round(grouped * inverse[..., None]).to(torch.int8).flatten(-2), scales]


def _matrix(weight: Any) -> Tensor:
    return weight if isinstance(weight, Tensor) else torch.from_numpy(weight.dequantise())
