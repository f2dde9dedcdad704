"""Torch kernels of the operators that rules make. Each says in torch what its operator means; none is tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from openautoglm.graph.ir import Attribute
from openautoglm.runtime.kernels import register_kernel
from openautoglm.runtime.torch_kernels import linear, rms_norm

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
    return [linear(_norm(inputs[0], inputs[1], attributes), *inputs[2:])]


@register_kernel("quantised_linear", "torch")
def quantised_linear(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """A linear; activations stay as they are."""
    return [linear(*inputs)]


@register_kernel("quantise_rows", "torch")
def quantise_rows(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """Codes and scales."""
    return _codes(inputs[0], attributes)


@register_kernel("quantised_rows_linear", "torch")
def quantised_rows_linear(inputs: Inputs, attributes: Facts, context: Any) -> list[Tensor]:
    """A linear of quantised rows."""
    codes, scales, weight, *bias = inputs
    x = (codes.float().view(*scales.shape, -1) * scales[..., None]).flatten(-2)
    return [linear(x.to(context.dtype), weight, *bias)]


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
    return rms_norm(x, weight, float(attributes["eps"]))  # type: ignore[arg-type]


def _codes(x: Tensor, attributes: Facts) -> list[Tensor]:
    """Groups divided by a 127th of their largest; a group of zeros stays zeros."""
    group = int(attributes["group"]) or x.shape[-1]  # type: ignore[arg-type]
    grouped = x.float().reshape(*x.shape[:-1], -1, group)
    scales = grouped.abs().amax(-1) / 127
    inverse = torch.where(scales > 0, 1 / scales, 0.0)
    return [torch.round(grouped * inverse[..., None]).to(torch.int8).flatten(-2), scales]
