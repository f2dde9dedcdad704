"""The parts of a GLM layer that are no matrix products, with gradients that pass memory less often.

Letters in names: N token rows, H hidden width, F feed-forward width, h heads, D head width.

Autograd's own versions keep every intermediate and make new buffers at every product. Tests hold these
equal to the transformers modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x_NH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """Root mean square norm in fp32 (Zhang and Sennrich 2019); the result has the type of `x_NH`."""
    if torch.compiler.is_compiling():
        wide = x_NH.float()
        return weight_H * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x_NH.dtype)
    return _RmsNorm.apply(x_NH, weight_H, eps)  # type: ignore[no-any-return, no-untyped-call]


def swiglu(gate_up_N2F: Tensor) -> Tensor:
    """``silu(gate) * up`` of a fused product, [N, 2F] to [N, F] (Shazeer 2020)."""
    if torch.compiler.is_compiling():
        gate, up = gate_up_N2F.chunk(2, dim=-1)
        return F.silu(gate) * up
    return _SwiGlu.apply(gate_up_N2F)  # type: ignore[no-any-return, no-untyped-call]


def turn(x_NhD: Tensor, turns_N1P2: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021) of the first P interleaved pairs; a pair is a complex number."""
    pairs = turns_N1P2.shape[-2]
    x_NhP2 = x_NhD[..., : 2 * pairs].float().reshape(*x_NhD.shape[:-1], pairs, 2)
    if torch.compiler.is_compiling():
        (even, odd), (cos, sin) = x_NhP2.unbind(-1), turns_N1P2.unbind(-1)
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(x_NhP2) * torch.view_as_complex(turns_N1P2))
    turned = turned.flatten(-2).to(x_NhD.dtype)
    return turned if 2 * pairs == x_NhD.shape[-1] else torch.cat((turned, x_NhD[..., 2 * pairs :]), dim=-1)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        length_N1 = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale_N1 = length_N1.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale_N1)
        y: Tensor = (wide * scale_N1).mul_(weight).to(x.dtype)
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scale_N1 = ctx.saved_tensors
        normed, d_wide = x.float() * scale_N1, d_y.float()
        product = d_wide * normed
        d_weight = product.sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        along_N1 = (product @ weight.float()[:, None]).div_(x.shape[-1])
        d_x = torch.mul(d_wide, weight.float(), out=product)
        d_x.addcmul_(normed, along_N1, value=-1).mul_(scale_N1)
        return d_x.to(x.dtype), d_weight, None


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        d_gate_up = torch.empty_like(gate_up)
        d_gate, d_up = d_gate_up.chunk(2, dim=-1)
        torch.mul(F.silu(gate), d_y, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_y * up, gate, grad_input=d_gate)
        return d_gate_up
