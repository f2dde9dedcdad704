"""Which number format trains fastest on this hardware."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the hardware has bf16 matrix products; a CPU without them is many times slower than in fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def choose(wanted: Literal["auto", "bf16", "fp32"], device: torch.device) -> Literal["bf16", "fp32"]:
    """Resolve ``auto``."""
    if wanted == "auto":
        return "bf16" if multiplies_bf16(device) else "fp32"
    return wanted


def autocast(precision: Literal["bf16", "fp32"], device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
