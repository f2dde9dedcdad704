"""The parts of a GLM layer that are no matrix products, with hand-written gradients that touch memory less often.

Letters in names: N token rows, H hidden width, F feed-forward width, h heads, D head width.

Autograd's own versions keep every intermediate and make new buffers at every product; on a CPU these passes cost as
much as half of the matrix products. Tests hold them equal to the transformers modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x_NH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """Root mean square norm in fp32 (Zhang and Sennrich 2019); the result has the type of `x_NH`."""
    return _RmsNorm.apply(x_NH, weight_H, eps)  # type: ignore[no-any-return, no-untyped-call]


def swiglu(gate_up_N2F: Tensor) -> Tensor:
    """``silu(gate) * up`` of a fused product, [N, 2F] to [N, F] (Shazeer 2020)."""
    return _SwiGlu.apply(gate_up_N2F)  # type: ignore[no-any-return, no-untyped-call]


def turn(x_NhD: Tensor, turns_N1P: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): the first P interleaved pairs, as complex numbers, times `turns_N1P`."""
    width = 2 * turns_N1P.shape[-1]
    pairs = torch.view_as_complex(x_NhD[..., :width].float().unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * turns_N1P).flatten(-2).to(x_NhD.dtype)
    return turned if width == x_NhD.shape[-1] else torch.cat((turned, x_NhD[..., width:]), dim=-1)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale_N1 = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale_N1)
        return (wide * scale_N1).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scale_N1 = ctx.saved_tensors
        normed, d_wide = x.float() * scale_N1, d_y.float()
        product = d_wide * normed
        d_weight = product.sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        along_N1 = (product @ weight.float()[:, None]).div_(x.shape[-1])
        d_x = torch.mul(d_wide, weight, out=product) if weight.dtype == product.dtype else d_wide * weight.float()
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
