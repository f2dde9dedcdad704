"""The layout of a step: rows, positions, slots, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openautoglm.core.errors import GraphError, ResourceError
from openautoglm.runtime.layout import Part, lay_out


def test_rows_positions_and_slots() -> None:
    layout = lay_out([Part(1, 5, [3, 7]), Part(3, 0, [2]), Part(2, 3, [0, 9, 8])], page_size=4, pages=10)
    assert (layout.rows, layout.sequences) == (6, 3)
    assert layout.row_sequences.tolist() == [0, 1, 1, 1, 2, 2]
    assert layout.positions.tolist() == [5, 0, 1, 2, 3, 4]
    assert layout.slots.tolist() == [29, 8, 9, 10, 3, 36]
    assert layout.lengths.tolist() == [6, 3, 5]
    assert layout.last_rows.tolist() == [0, 3, 5]
    assert layout.page_table.tolist() == [[3, 7], [2, 0], [0, 9]]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 40)), min_size=1, max_size=6), st.integers(1, 16))
def test_slots_are_those_of_the_definition(parts: list[tuple[int, int]], page_size: int) -> None:
    needed = [-(-(tokens + start) // page_size) for tokens, start in parts]
    order = np.random.default_rng(0).permutation(sum(needed) + 3).tolist()
    pages = [[order.pop() for _ in range(count)] for count in needed]
    layout = lay_out([Part(*part, mine) for part, mine in zip(parts, pages, strict=True)],
                     page_size=page_size, pages=sum(needed) + 3)
    expected = [mine[t // page_size] * page_size + t % page_size
                for (tokens, start), mine in zip(parts, pages, strict=True) for t in range(start, start + tokens)]
    assert layout.slots.tolist() == expected
    assert len(set(expected)) == layout.rows


def test_sequences_may_share_pages_that_none_writes_to() -> None:
    layout = lay_out([Part(1, 4, [0, 1]), Part(2, 4, [0, 2])], page_size=4, pages=3)
    assert layout.slots.tolist() == [4, 8, 9]


@pytest.mark.parametrize(("parts", "message"), [
    ([], "needs sequences"),
    ([Part(0, 3, [0])], "at least one row"),
    ([Part(1, -1, [0])], "start"),
    ([Part(1, 0, [1]), Part(1, 0, [1])], "sequence 0 of the step: writes to page 1"),
    ([Part(1, 2, [1]), Part(1, 7, [1, 0])], "writes to page 1"),
    ([Part(4, 4, [1, 1])], "writes to page 1"),
])
def test_impossible_steps_are_refused(parts: list[Part], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        lay_out(parts, page_size=4, pages=4)


@pytest.mark.parametrize(("part", "message"), [
    (Part(1, 4, [0]), "needs 2 pages for 5 tokens, has 1"),
    (Part(1, 4, [0, 4]), "outside the pool of 4"),
    (Part(1, 4, [0, -1]), "outside the pool of 4"),
    (Part(1, 9, [0, 1, 2]), "grows to 10 tokens, the model has 9 positions"),
])
def test_what_the_pool_or_the_model_cannot_hold_is_refused(part: Part, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        lay_out([Part(1, 0, [3]), part], page_size=4, pages=4, max_positions=9)
