"""The layout of a step: whose token each row of the flat batch is, and where its keys and values lie in the cache.

The cache is a pool of pages of `page_size` tokens each. A sequence owns pages in the order of its tokens: token
``t`` lies in page ``pages[t // page_size]`` at offset ``t % page_size``; page x page size + offset is its *slot*.
Letters in names: R rows, S sequences, P pages of the longest sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import GraphError, ResourceError

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class Part(NamedTuple):
    """What a step does for one sequence.

    Attributes:
        tokens: how many token rows it has in this step, at least one.
        start: position of the first of them; that many tokens lie in the cache already.
        pages: its pages in order, enough for start + tokens; more may be held in reserve.
    """

    tokens: int
    start: int
    pages: Sequence[int]


@dataclass(frozen=True, eq=False)
class Layout:
    """The layout of one step; make it with `lay_out`, which checks it.

    Attributes:
        page_size: tokens of a page.
        first_rows: [S + 1] first row of each sequence, and the number of rows at the end.
        lengths: [S] tokens of each sequence in the cache when the step is done.
        page_table: [S, P] pages of each sequence that hold tokens, filled up with page 0, which is not read there.
    """

    page_size: int
    first_rows: Int32
    lengths: Int32
    page_table: Int32

    @property
    def rows(self) -> int:
        """Token rows of the step."""
        return int(self.first_rows[-1])

    @property
    def sequences(self) -> int:
        """Sequences of the step."""
        return len(self.lengths)

    @cached_property
    def counts(self) -> Int32:
        """[S] rows of each sequence."""
        return np.diff(self.first_rows)

    @cached_property
    def row_sequences(self) -> Int32:
        """[R] the number of the sequence that each row belongs to."""
        return np.repeat(np.arange(self.sequences, dtype=np.int32), self.counts)

    @cached_property
    def positions(self) -> Int32:
        """[R] the position of each row in its sequence."""
        firsts = self.lengths - self.first_rows[1:]
        return np.arange(self.rows, dtype=np.int32) + firsts[self.row_sequences]

    @cached_property
    def slots(self) -> Int64:
        """[R] where in the cache each row's keys and values go."""
        pages = self.page_table[self.row_sequences, self.positions // self.page_size].astype(np.int64)
        return pages * self.page_size + self.positions % self.page_size

    @cached_property
    def last_rows(self) -> Int32:
        """[S] the last row of each sequence: the one whose logits give its next token."""
        return self.first_rows[1:] - 1


def lay_out(parts: Sequence[Part], *, page_size: int, pages: int, max_positions: int | None = None) -> Layout:
    """Lay one step out, row after row in the order of `parts`.

    Args:
        pages: pages of the pool.
        max_positions: the longest that a sequence may become; None for no bound.

    Raises:
        GraphError: no rows, or a page which a sequence writes to is another's too, or occurs twice in one sequence.
        ResourceError: a sequence has too few pages, a page outside the pool, or grows too long.
    """
    if not parts or min(part.tokens for part in parts) < 1 or min(part.start for part in parts) < 0:
        raise GraphError("a step needs sequences, each with at least one row and a start of at least 0",
                         remedy="leave idle sequences out of the step")
    counts = np.array([part.tokens for part in parts], np.int64)
    lengths = counts + np.array([part.start for part in parts], np.int64)
    if max_positions is not None and lengths.max() > max_positions:
        number = int(lengths.argmax())
        raise ResourceError(f"grows to {lengths[number]} tokens, the model has {max_positions} positions",
                            where=f"sequence {number} of the step", remedy="end the sequence, or shorten its prompt")
    used = -(-lengths // page_size)
    table = np.zeros((len(parts), int(used.max())), np.int64)
    for number, (part, count) in enumerate(zip(parts, used.tolist(), strict=True)):
        if len(part.pages) < count:
            raise ResourceError(f"needs {count} pages for {lengths[number]} tokens, has {len(part.pages)}",
                                where=f"sequence {number} of the step", remedy="lend it pages before the step")
        table[number, :count] = part.pages[:count]
    _check_pages(table, used, (lengths - counts) // page_size, pages)
    first_rows = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return Layout(page_size, first_rows, lengths.astype(np.int32), table.astype(np.int32))


def _check_pages(table_SP: Int64, used_S: Int64, first_written_S: Int64, pages: int) -> None:
    """Refuse pages outside the pool, and written ones that stand in the table twice."""
    places = np.arange(table_SP.shape[1])
    taken = places < used_S[:, None]
    if table_SP.min() < 0 or table_SP.max() >= pages:
        number = int(((table_SP < 0) | (table_SP >= pages)).any(1).argmax())
        raise ResourceError(f"a page lies outside the pool of {pages}", where=f"sequence {number} of the step",
                            remedy="lend only pages of this program's pool")
    holders = np.bincount(table_SP[taken], minlength=pages)
    written = taken & (places >= first_written_S[:, None])
    shared = written & (holders[table_SP] > 1)
    if shared.any():
        number = int(shared.any(1).argmax())
        page = int(table_SP[number, int(shared[number].argmax())])
        raise GraphError(f"writes to page {page}, which stands in the step twice",
                         where=f"sequence {number} of the step",
                         remedy="copy a shared page before a sequence writes to it")
