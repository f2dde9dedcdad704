"""Paged attention in torch against the formula, row by row; keys and values are never repeated for decode rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from openautoglm.runtime import torch_attention
from openautoglm.runtime.cache import CacheShape
from openautoglm.runtime.layout import Part, lay_out
from openautoglm.runtime.torch_attention import TorchLayout, attend
from openautoglm.runtime.torch_cache import TorchCache

PAGE_SIZE, PAGES, WIDTH = 4, 12, 8
PARTS = [Part(1, 9, [3, 0, 7]), Part(5, 0, [1, 2]), Part(1, 0, [11]), Part(3, 6, [5, 4, 6])]


def formula(q: Any, k: Any, v: Any) -> Any:
    """One query [D] against keys and values [L, D]."""
    weights = np.exp(k @ q / WIDTH**0.5)
    return weights / weights.sum() @ v


@pytest.mark.parametrize(("kv_heads", "group"), [(1, 4), (2, 3), (3, 1)])
@pytest.mark.parametrize("most_gathered", [1, 8192])
def test_every_row_attends_to_its_sequence_up_to_itself(kv_heads: int, group: int, most_gathered: int,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_attention, "MOST_GATHERED", most_gathered)
    random = np.random.default_rng(kv_heads)
    cache = TorchCache(CacheShape(1, kv_heads, WIDTH, PAGE_SIZE, PAGES, "fp32"), torch.device("cpu"))
    k, v = random.normal(size=(2, PAGES * PAGE_SIZE, kv_heads, WIDTH)).astype(np.float32)
    cache.write(0, torch.arange(PAGES * PAGE_SIZE), torch.from_numpy(k), torch.from_numpy(v))
    layout = lay_out(PARTS, page_size=PAGE_SIZE, pages=PAGES)
    q = random.normal(size=(layout.rows, kv_heads, group, WIDTH)).astype(np.float32)
    found = attend(torch.from_numpy(q), TorchLayout(layout, torch.device("cpu")), cache, 0).numpy()
    for row, (number, position) in enumerate(zip(layout.row_sequences, layout.positions, strict=True)):
        pages = PARTS[number].pages
        slots = [pages[t // PAGE_SIZE] * PAGE_SIZE + t % PAGE_SIZE for t in range(position + 1)]
        for head in range(kv_heads):
            for member in range(group):
                expected = formula(q[row, head, member], k[slots, head], v[slots, head])
                assert np.allclose(found[row, head, member], expected, atol=1e-5)


def test_heads_that_share_keys_are_rows_of_one_query(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    real = torch_attention.scaled_dot_product_attention

    def spy(q: Any, k: Any, v: Any, **options: Any) -> Any:
        assert not options.get("enable_gqa")
        seen.append((tuple(q.shape), tuple(k.shape)))
        return real(q, k, v, **options)

    monkeypatch.setattr(torch_attention, "scaled_dot_product_attention", spy)
    cache = TorchCache(CacheShape(1, 2, WIDTH, PAGE_SIZE, PAGES, "bf16"), torch.device("cpu"))
    layout = lay_out([Part(1, 4, [0, 1]), Part(1, 2, [2])], page_size=PAGE_SIZE, pages=PAGES)
    attend(torch.zeros(2, 2, 4, WIDTH), TorchLayout(layout, torch.device("cpu")), cache, 0)
    assert seen == [((2, 2, 4, WIDTH), (2, 2, 8, WIDTH))]  # [sequences, kv heads, group, D] and [.., tokens, D]
