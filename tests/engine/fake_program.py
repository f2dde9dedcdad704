"""A program without a model: logits are a hash of the tokens that the cache says came before, so that a page which is
lost, shared wrongly or copied wrongly changes the text."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openautoglm.models.spec import GlmSpec
from openautoglm.runtime.cache import CacheShape
from openautoglm.runtime.layout import Layout, Part, lay_out
from openautoglm.runtime.program import Facts, Plan, check_pages, check_step

VOCAB = 50
STOP = 3
UNWRITTEN = -7


def fake_logits(tokens: Sequence[int], vocab: int = VOCAB, order: int | None = None) -> NDArray[np.float32]:
    """Logits after `tokens`; only the last `order` of them count, if given."""
    seen = np.asarray(tokens if order is None else tokens[-order:], np.int32)
    return np.random.default_rng(zlib.crc32(seen.tobytes())).normal(0, 2, vocab).astype(np.float32)


class FakeProgram:
    """Keeps token ids where a model keeps keys and values, and reads each row's history back through the layout.

    Args:
        logits: of a history.
        before: called with the number of each step, e.g. to fail.

    Attributes:
        batches: of each step the rows of each sequence.
    """

    def __init__(self, *, pages: int = 64, page_size: int = 4, max_rows: int = 64, max_wanted: int = 32,
                 positions: int = 128, vocab: int = VOCAB,
                 logits: Callable[[Sequence[int]], NDArray[np.float32]] = fake_logits,
                 before: Callable[[int], None] | None = None) -> None:
        spec = GlmSpec(vocab_size=vocab, hidden_size=8, layers=1, heads=1, kv_heads=1, head_dim=8, ffn_size=8,
                       max_positions=positions, eos_ids=(STOP,))
        self.plan = Plan(spec, "fake", "fp32", CacheShape(1, 1, 8, page_size, pages, "fp32"), max_rows, max_wanted)
        self.facts = Facts(0, 0, 0)
        self.cache = np.full((pages, page_size), UNWRITTEN, np.int64)
        self.batches: list[list[int]] = []
        self.copied = 0
        self._logits, self._before = logits, before

    def step(self, ids: Any, positions: Any, layout: Layout, wanted: Any) -> NDArray[np.float32]:
        """See `Program.step`; the layout is checked as `lay_out` would."""
        if self._before is not None:
            self._before(len(self.batches))
        rows = check_step(self.plan, ids, positions, layout, wanted)
        self._check(layout, rows.positions)
        self.batches.append(layout.counts.tolist())
        self.cache.ravel()[layout.slots] = rows.ids
        made = np.empty((len(wanted), self.plan.spec.vocab_size), np.float32)
        for number, row in enumerate(rows.wanted.tolist()):
            table = layout.page_table[layout.row_sequences[row]]
            history = self.cache[table].ravel()[:int(layout.positions[row]) + 1]
            assert history.min() >= 0, "a place of the cache is read that was never written"
            made[number] = self._logits(history.tolist())
        return made

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """See `Program.copy_pages`."""
        check_pages(self.plan, sources, targets)
        assert len(set(targets)) == len(targets)
        self.copied += len(targets)
        for source, target in zip(sources, targets, strict=True):
            self.cache[target] = self.cache[source]

    def _check(self, layout: Layout, positions: Any) -> None:
        size = layout.page_size
        parts = [Part(int(count), int(length - count), table[:-(-int(length) // size)].tolist())
                 for count, length, table in zip(layout.counts, layout.lengths, layout.page_table, strict=True)]
        right = lay_out(parts, page_size=size, pages=self.plan.cache.pages,
                        max_positions=self.plan.spec.max_positions)
        assert np.array_equal(right.positions, positions)
        assert np.array_equal(right.slots, layout.slots)


def greedy_text(prompt: Sequence[int], limit: int, *, logits: Callable[[Sequence[int]], Any] = fake_logits,
                stops: Sequence[int] = (STOP,)) -> list[int]:
    """What greedy decoding of one prompt gives, the stop id left out."""
    tokens = list(prompt)
    for _ in range(limit):
        token = int(logits(tokens).argmax())
        if token in stops:
            break
        tokens.append(token)
    return tokens[len(prompt):]
