"""The KV cache as a pool of pages: its shape, and what it takes. Targets hold the memory itself.

A slot is the place of one token of one layer: a key and a value for each kv head. Formats: ``fp32``, ``bf16``, and
``int8``, where each key and each value (a row of a head) has an fp32 scale, its largest magnitude / 127.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openautoglm.core.errors import ResourceError

CacheFormat = Literal["fp32", "bf16", "int8"]
_SCALE_BYTES = 4


@dataclass(frozen=True)
class CacheShape:
    """How large a pool is.

    Attributes:
        head_dim: values of a key, and of a value.
        page_size: tokens of a page.
        pages: pages of the pool; each holds its tokens for all layers.
    """

    layers: int
    kv_heads: int
    head_dim: int
    page_size: int
    pages: int
    format: CacheFormat = "bf16"

    def __post_init__(self) -> None:
        if self.page_size < 1 or self.pages < 1:
            raise ResourceError(f"a cache of {self.pages} pages of {self.page_size} tokens holds nothing",
                                remedy="give at least one page of at least one token")

    @property
    def slots(self) -> int:
        """Tokens that the pool holds."""
        return self.pages * self.page_size

    @property
    def page_bytes(self) -> int:
        """Bytes of a page: keys and values of its tokens in all layers, with their scales."""
        head = {"fp32": 4 * self.head_dim, "bf16": 2 * self.head_dim, "int8": self.head_dim + _SCALE_BYTES}[self.format]
        return 2 * self.layers * self.page_size * self.kv_heads * head

    @property
    def bytes(self) -> int:
        """Bytes of the pool."""
        return self.pages * self.page_bytes
