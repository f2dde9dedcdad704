"""Plans and rows: every example once a pass, even steps, bounded sharing, rows without overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openautoglm.data.pack import collate, in_order, plan_pass
from openautoglm.data.tokens import TokenStore, store_from_ids

LAYOUTS = ("bucket", "packed", "shared")


@st.composite
def stores(draw) -> TokenStore:
    targets = st.lists(st.integers(1, 12), min_size=1, max_size=7)
    sources = draw(st.lists(st.tuples(st.integers(1, 9), targets), min_size=1, max_size=12))
    rows, token = [], 1
    for number, (prompt, targets) in enumerate(sources):
        for target in targets:
            rows.append(([1000 + number] * prompt + list(range(token, token + target)), prompt))
            token += target
    return store_from_ids(rows)


@given(stores(), st.sampled_from(LAYOUTS), st.integers(1, 20), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_every_target_once_a_pass(store, layout, batch, references, parts):
    plan = plan_pass(store, layout, seed=1, number=0, batch=batch, references_per_source=references)
    seen = [index for step in plan for unit in step for index in unit]
    assert sorted(seen) == list(range(len(store)))
    assert all(len(unit) <= references and len({int(store.groups[i]) for i in unit}) == 1
               for step in plan for unit in step)
    labels, real = [], 0
    for step in plan:
        batches = collate(store, step, layout, row_tokens=16, parts=parts)
        assert len(batches) <= parts
        for rows in batches:
            labels += rows.labels.tolist()
            real += rows.real_tokens
            check_rows(rows)
    assert sorted(labels) == list(range(1, 1 + store.target_tokens))
    assert real == store.tokens


def check_rows(batch) -> None:
    """A target is predicted from the token before it in its own branch, or from the prompt's end."""
    ids, segments = batch.ids, batch.segments
    assert (segments[batch.rows] > 0).all()
    assert sum(block.rows * block.width for block in batch.blocks) == batch.computed_tokens
    before = ids[batch.rows]
    assert ((before == batch.labels - 1) | (before >= 1000)).all()
    assert (batch.positions[segments == 0] == 0).all()


def test_steps_are_even_and_differ_by_pass_and_seed():
    store = store_from_ids([([5, 5, i], 2) for i in range(103)])
    for layout in LAYOUTS:
        plan = plan_pass(store, layout, seed=0, number=0, batch=10, references_per_source=1)
        assert {sum(len(unit) for unit in step) for step in plan} <= {10, 11}
        assert plan == plan_pass(store, layout, seed=0, number=0, batch=10, references_per_source=1)
        assert plan != plan_pass(store, layout, seed=0, number=1, batch=10, references_per_source=1)
        assert plan != plan_pass(store, layout, seed=1, number=0, batch=10, references_per_source=1)


def test_steps_by_target_tokens():
    rng = np.random.default_rng(0)
    store = store_from_ids([([9] * 3 + [1] * int(n), 3) for n in rng.integers(1, 30, 400)])
    sizes = [sum(int(store.lengths[i] - 3) for unit in step for i in unit)
             for step in plan_pass(store, "packed", seed=0, number=0, batch=200, batch_unit="target_tokens")]
    assert abs(np.mean(sizes) - 200) < 5
    assert max(sizes) < 200 + 60


def test_packing_wastes_little():
    rng = np.random.default_rng(0)
    store = store_from_ids([([i] * int(p) + [1] * int(t), int(p))
                            for i, (p, t) in enumerate(zip(rng.integers(20, 40, 64), rng.integers(10, 40, 64),
                                                           strict=True))])
    (batch,) = collate(store, [(i,) for i in range(64)], "packed", row_tokens=256)
    assert batch.computed_tokens < 1.12 * batch.real_tokens
    assert not any(block.causal for block in batch.blocks)


def test_a_unit_longer_than_a_row_widens_the_rows():
    store = store_from_ids([([1] * 50, 10), ([2] * 5, 2)])
    (batch,) = collate(store, [(0,), (1,)], "packed", row_tokens=16)
    assert max(block.width for block in batch.blocks) >= 49


@pytest.mark.parametrize("rows", [None, 5])
def test_validation_order_covers_what_it_says(rows):
    store = store_from_ids([([7, i // 3, 3, i + 10], 3) for i in range(30)])
    labels = [label for batch in in_order(store, batch_tokens=20, rows=rows) for label in batch.labels]
    assert len(labels) == (30 if rows is None else 5)
    assert len(set(labels)) == len(labels)


def test_rows_of_similar_length_share_a_block():
    rng = np.random.default_rng(0)
    store = store_from_ids([([1] * int(n), 3) for n in rng.integers(10, 100, 64)])
    for layout in ("bucket", "shared"):
        (batch,) = collate(store, [(i,) for i in range(64)], layout, row_tokens=0)
        assert batch.computed_tokens < 1.08 * batch.real_tokens
        assert 2 < len(batch.blocks) < 20
        assert all(block.causal for block in batch.blocks)
