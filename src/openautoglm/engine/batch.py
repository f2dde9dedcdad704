"""The flat batch of a step: one row for each slot, guessed tokens behind it, then the pieces of prompts.

Built from arrays that the slots keep up to date, not through `lay_out`: pages are lent by the pool, which does not err.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.engine.rows import Rows
from openautoglm.engine.schedule import Chunk
from openautoglm.runtime.layout import Layout

Int32 = NDArray[np.int32]


class FlatBatch(NamedTuple):
    """The arguments of `Program.step`."""

    ids: Int32
    positions: Int32
    layout: Layout
    wanted: Int32


class BatchBuilder:
    """Builds flat batches for one program.

    Args:
        page_size: tokens of a page.
        most: most rows of a step.
    """

    def __init__(self, page_size: int, most: int) -> None:
        self._size = page_size
        self._numbers = np.arange(most + 1, dtype=np.int32)

    def build(self, rows: Rows, chunks: Sequence[Chunk], drafts: Mapping[int, list[int]]) -> FlatBatch:
        """Lay out one row for each slot, those of `drafts` (by slot) behind theirs, and `chunks`.

        Wanted are all rows of slots, and the last row of each chunk that ends its prompt.
        """
        return self._mixed(rows, chunks, drafts) if chunks or drafts else self._decode(rows)

    def _decode(self, rows: Rows) -> FlatBatch:
        count = rows.count
        positions = rows.lengths[:count]
        lengths = positions + np.int32(1)
        pages = max(positions.tolist()) // self._size + 1  # a step's few numbers are compared sooner so than by numpy
        table = np.ascontiguousarray(rows.table[:count, :pages])
        layout = Layout(self._size, self._numbers[:count + 1], lengths, table)
        return FlatBatch(rows.ids[:count], positions, layout, self._numbers[:count])

    def _mixed(self, rows: Rows, chunks: Sequence[Chunk], drafts: Mapping[int, list[int]]) -> FlatBatch:
        count = rows.count
        counts = np.ones(count + len(chunks), np.int32)
        lengths = np.zeros(count + len(chunks), np.int32)
        lengths[:count] = rows.lengths[:count]
        for slot, draft in drafts.items():
            counts[slot] += len(draft)
        for number, chunk in enumerate(chunks, count):
            counts[number], lengths[number] = chunk.rows, chunk.start
        lengths += counts
        first_rows = np.zeros(len(counts) + 1, np.int32)
        np.cumsum(counts, out=first_rows[1:])
        ids = np.empty(int(first_rows[-1]), np.int32)
        ids[first_rows[:count]] = rows.ids[:count]
        for slot, draft in drafts.items():
            ids[first_rows[slot] + 1:first_rows[slot + 1]] = draft
        for number, (sequence, start, length, _) in enumerate(chunks, count):
            ids[first_rows[number]:first_rows[number + 1]] = sequence.tokens[start:start + length]
        layout = Layout(self._size, first_rows, lengths, self._table(rows, chunks, int(lengths.max())))
        ends = [first_rows[number + 1] - 1 for number, chunk in enumerate(chunks, count) if chunk.last]
        wanted = np.concatenate([self._numbers[:first_rows[count]], np.array(ends, np.int32)])
        return FlatBatch(ids, layout.positions, layout, wanted)

    def _table(self, rows: Rows, chunks: Sequence[Chunk], longest: int) -> Int32:
        pages = -(-longest // self._size)
        table = np.zeros((rows.count + len(chunks), pages), np.int32)
        held = min(pages, rows.table.shape[1])
        table[:rows.count, :held] = rows.table[:rows.count, :held]
        for number, (sequence, start, length, _) in enumerate(chunks, rows.count):
            used = -(-(start + length) // self._size)
            table[number, :used] = sequence.pages[:used]
        return table
