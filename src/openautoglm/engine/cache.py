"""The keys and values of past tokens, in buffers allocated once.

Shapes: B rows, K key/value heads, T tokens, D head_dim.
"""

from __future__ import annotations

import torch


class KvCache:
    """Static KV cache of a batch, with the one method by which transformers' attention asks its cache.

    All rows have the same length. Buffers are [B, K, T, D] a layer and never grow; views of the filled part
    are handed out, so attention costs what was really written.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._layers, self._capacity = layers, capacity
        self.length = 0
        """Tokens written in every layer, once a forward pass has ended."""

    def update(
        self, keys_BKTD: torch.Tensor, values_BKTD: torch.Tensor, layer: int, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append a layer's new keys and values; return all of them so far."""
        if layer == len(self._keys):
            batch, heads, _new, dim = keys_BKTD.shape
            shape = (batch, heads, self._capacity, dim)
            self._keys.append(keys_BKTD.new_empty(shape))
            self._values.append(values_BKTD.new_empty(shape))
        end = self.length + keys_BKTD.shape[2]
        keys, values = self._keys[layer], self._values[layer]
        keys[:, :, self.length : end] = keys_BKTD
        values[:, :, self.length : end] = values_BKTD
        if layer == self._layers - 1:
            self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def select(self, rows: torch.Tensor) -> None:
        """Keep `rows` only, in that order; a row may be taken several times."""
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                new = old.new_empty((len(rows), *old.shape[1:]))
                new[:, :, : self.length] = old[:, :, : self.length].index_select(0, rows)
                buffers[layer] = new

    def reorder(self, rows: torch.Tensor, start: int) -> None:
        """Take the tokens from `start` on from `rows`; those before are the same in the rows exchanged."""
        for buffers in (self._keys, self._values):
            for buffer in buffers:
                written = buffer[:, :, start : self.length]
                written.copy_(written.index_select(0, rows))
