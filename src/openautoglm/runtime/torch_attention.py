"""Paged attention in torch: decode rows in batches over gathered pages, other rows sequence by sequence.

Heads that share keys are rows of one query: q is viewed as [B, K, G, D], so keys are read once for a group and never
repeated. Letters: B sequences, K kv heads, G query heads of each, T rows, L tokens of the cache, D values of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from openautoglm.runtime.layout import Int32, Layout
from openautoglm.runtime.torch_cache import TorchCache

MOST_GATHERED = 8192
"""Tokens of the cache that a batch of decode rows gathers at once, padding included; one long row may need more."""


@dataclass(frozen=True)
class Decode:
    """Sequences with one row each: rows [B], pages [B, N], and which of their tokens count, [B, 1, 1, L]."""

    rows: Tensor
    pages: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Prefill:
    """Rows `first` up to `last` of one sequence: pages [N], its tokens in the cache, and whether these are the rows."""

    first: int
    last: int
    pages: Tensor
    length: int

    @property
    def whole(self) -> bool:
        """Whether nothing was in the cache before."""
        return self.last - self.first == self.length


class TorchLayout:
    """A layout on a device, sorted into pieces of attention; made once a step, read by every layer."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.device = device
        self.slots = torch.from_numpy(layout.slots).to(device)
        self.pieces: list[Decode | Prefill] = [*self._decodes(layout), *self._prefills(layout)]

    def _decodes(self, layout: Layout) -> Iterator[Decode]:
        numbers = np.flatnonzero(layout.counts == 1)
        numbers = numbers[np.argsort(layout.lengths[numbers], kind="stable")]
        start = 0
        while start < len(numbers):
            pages = -(-layout.lengths[numbers[start:]].astype(np.int64) // layout.page_size)
            fitting = pages * layout.page_size * np.arange(1, len(pages) + 1) <= MOST_GATHERED
            count = max(1, int(fitting.sum()))
            yield self._decode(layout, numbers[start:start + count].astype(np.int32), int(pages[count - 1]))
            start += count

    def _decode(self, layout: Layout, numbers: Int32, pages: int) -> Decode:
        lengths = torch.from_numpy(layout.lengths[numbers])
        mask = torch.arange(pages * layout.page_size) < lengths[:, None]
        return Decode(self._indices(layout.first_rows[numbers]), self._indices(layout.page_table[numbers, :pages]),
                      mask[:, None, None].to(self.device))

    def _prefills(self, layout: Layout) -> Iterator[Prefill]:
        for number in np.flatnonzero(layout.counts > 1).tolist():
            length = int(layout.lengths[number])
            pages = layout.page_table[number, :-(-length // layout.page_size)]
            yield Prefill(int(layout.first_rows[number]), int(layout.first_rows[number + 1]), self._indices(pages),
                          length)

    def _indices(self, numbers: Int32) -> Tensor:
        return torch.from_numpy(numbers.astype(np.int64)).to(self.device)


def attend(q_RKGD: Tensor, layout: TorchLayout, cache: TorchCache, layer: int) -> Tensor:
    """Let each row attend to its sequence up to itself, all keys and values being in the cache already.

    Returns:
        As q: [rows, kv heads, group, head_dim].
    """
    mixed = torch.empty_like(q_RKGD)
    for piece in layout.pieces:
        k_LKD, v_LKD = cache.read(layer, piece.pages, q_RKGD.dtype)
        if isinstance(piece, Decode):
            mixed[piece.rows] = scaled_dot_product_attention(
                q_RKGD[piece.rows], k_LKD.transpose(1, 2), v_LKD.transpose(1, 2), attn_mask=piece.mask)
        else:
            rows = slice(piece.first, piece.last)
            mixed[rows] = _prefill(q_RKGD[rows], k_LKD[:piece.length], v_LKD[:piece.length], piece)
    return mixed


def _prefill(q_TKGD: Tensor, k_LKD: Tensor, v_LKD: Tensor, piece: Prefill) -> Tensor:
    q_KGTD = q_TKGD.permute(1, 2, 0, 3)
    rows, group, length = q_KGTD.shape[2], q_KGTD.shape[1], piece.length
    k, v = (x.transpose(0, 1)[:, None].expand(-1, group, -1, -1) for x in (k_LKD, v_LKD))
    mask = None
    if not piece.whole:
        mask = torch.ones(rows, length, dtype=torch.bool, device=q_TKGD.device).tril(length - rows)
    mixed = scaled_dot_product_attention(q_KGTD, k, v, attn_mask=mask, is_causal=mask is None)
    return mixed.permute(2, 0, 1, 3)
