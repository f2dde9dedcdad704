"""The pool of pages in torch. Letters: N pages or rows, L tokens, K kv heads, D values of a head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openautoglm.runtime.cache import CacheShape

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
_LEAST_SCALE = torch.finfo(torch.float32).tiny


class TorchCache:
    """Keys and values of all layers, [2, layers, slots, kv heads, head_dim], and of int8 their scales."""

    def __init__(self, shape: CacheShape, device: torch.device) -> None:
        self.shape = shape
        places = (2, shape.layers, shape.slots, shape.kv_heads)
        self._values = torch.zeros((*places, shape.head_dim), dtype=_TYPES[shape.format], device=device)
        self._scales = torch.zeros(places, device=device) if shape.format == "int8" else None

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return self._values.nbytes + (0 if self._scales is None else self._scales.nbytes)

    def write(self, layer: int, slots: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> None:
        """Put the keys and values of some rows into their slots."""
        for kind, rows in enumerate((k_NKD, v_NKD)):
            if self._scales is None:
                self._values[kind, layer].index_copy_(0, slots, rows.to(self._values.dtype))
                continue
            exact = rows.float()
            scales = exact.abs().amax(-1) / 127
            codes = (exact / scales.clamp_min(_LEAST_SCALE)[..., None]).round().clamp(-127, 127)
            self._values[kind, layer].index_copy_(0, slots, codes.to(torch.int8))
            self._scales[kind, layer].index_copy_(0, slots, scales)

    def read(self, layer: int, pages: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Gather pages [..., N] to keys and values [..., N x page_size, K, D] in `dtype`."""
        k, v = (self._gather(kind, layer, pages, dtype) for kind in (0, 1))
        return k, v

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy pages, all layers; all are read before any is written."""
        for pool in (self._values, self._scales):
            if pool is not None:
                paged = self._paged(pool, 2)
                paged[:, :, list(targets)] = paged[:, :, list(sources)]

    def _gather(self, kind: int, layer: int, pages: Tensor, dtype: torch.dtype) -> Tensor:
        values = self._paged(self._values[kind, layer], 0)[pages].flatten(-4, -3)
        if self._scales is None:
            return values.to(dtype)
        scales = self._paged(self._scales[kind, layer], 0)[pages].flatten(-3, -2)
        return (values.float() * scales[..., None]).to(dtype)

    def _paged(self, pool: Tensor, axis: int) -> Tensor:
        """A view in which the axis of slots is one of pages and one of their tokens."""
        return pool.view(*pool.shape[:axis], self.shape.pages, self.shape.page_size, *pool.shape[axis + 1:])
