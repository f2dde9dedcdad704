from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.data.agreement import agreement, agreement_weights, store_weights
from openautoglm.data.pack import collate
from openautoglm.data.tokens import store_from_ids

REFERENCES = st.lists(st.lists(st.integers(0, 6), max_size=12), max_size=8)


def test_the_odd_one_out_agrees_least_and_weighs_least():
    typical = [1, 2, 3, 4, 5]
    references = [typical, [1, 2, 3, 4, 6], [1, 2, 3, 4, 5, 6], [9, 8, 7]]
    scores = agreement(references)
    weights = agreement_weights(references, 1.0)
    assert scores.argmin() == 3
    assert scores[3] == 0.0
    assert weights.argmin() == 3
    assert weights[0] > 1 > weights[3]


def test_identical_references_agree_wholly_and_weigh_the_same():
    assert agreement([[1, 2, 3, 4]] * 3) == pytest.approx([1, 1, 1])
    assert agreement_weights([[1, 2, 3, 4]] * 3, 2.0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("references", [[], [[1, 2]], [[1, 2], [3, 4]]])
def test_too_few_references_are_left_alone(references):
    assert agreement_weights(references, 1.0).tolist() == [1.0] * len(references)


@given(REFERENCES, st.floats(0, 3))
def test_weights_are_positive_have_mean_one_and_ignore_order(references, strength):
    weights = agreement_weights(references, strength)
    assert (weights > 0).all()
    if references:
        assert weights.mean() == pytest.approx(1.0)
    assert np.allclose(agreement_weights(references[::-1], strength), weights[::-1])


def test_the_store_weighs_references_of_one_source_and_batches_carry_the_weights():
    rows = [([9, 1, 2, 3, 4, 5], 1), ([8, 1, 2], 1), ([9, 1, 2, 3, 4, 6], 1), ([9, 7, 7, 7], 1), ([9, 1, 2, 3, 4], 1)]
    store = store_from_ids(rows)
    weights = store_weights(store, 1.0)
    assert weights[1] == 1
    assert weights[3] == weights.min() < 1 < weights[0]
    (batch,) = collate(store, [(0, 3), (1,)], "shared", row_tokens=16, weights=weights)
    by_label = {int(label): float(weight) for label, weight in zip(batch.labels, batch.weights, strict=True)}
    assert by_label[5] == pytest.approx(float(weights[0]))
    assert by_label[7] == pytest.approx(float(weights[3]))
    assert len(batch.weights) == len(batch.labels) == 10
