"""The token store: what goes in comes out; over-long examples are counted and refused, never cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from openautoglm.core.errors import DataError
from openautoglm.core.values import Example, Origin
from openautoglm.data.tokens import build_store, open_store


class Encoded(NamedTuple):
    ids: list[int]
    prompt_tokens: int


class Letters:
    """A template without a tokenizer: one id a letter, 0 ends prompt and target."""

    def encode_many(self, examples, tokenizer):
        return [Encoded([*map(ord, e.source), 0, *map(ord, e.target)], len(e.source) + 1) for e in examples]


def examples(*pairs):
    return [Example(source, target, Origin("a.csv", line))
            for line, (source, target) in enumerate(pairs, start=2)]


def test_round_trip(tmp_path):
    rows = iter(examples(("ab", "cd"), ("ab", "e"), ("x", "yz")))
    store = build_store(rows, Letters(), None, tmp_path / "s", 16)
    assert len(store) == 3
    assert store[1].tolist() == [97, 98, 0, 101]
    assert store.prompts.tolist() == [3, 3, 2]
    assert store.groups.tolist() == [0, 0, 1]
    assert (store.tokens, store.target_tokens, store.overlong) == (13, 5, 0)
    again = open_store(tmp_path / "s")
    assert again.fingerprint == store.fingerprint
    assert np.array_equal(again.ids, store.ids)
    assert isinstance(again.ids, np.memmap)


def test_content_decides_the_fingerprint(tmp_path):
    first = build_store(examples(("ab", "cd")), Letters(), None, tmp_path / "1", 16)
    second = build_store(examples(("a", "bcd")), Letters(), None, tmp_path / "2", 16)
    third = build_store(examples(("ab", "cd")), Letters(), None, tmp_path / "3", 32)
    assert first.fingerprint == third.fingerprint != second.fingerprint


def test_overlong_examples_are_counted_then_refused(tmp_path):
    pairs = examples(*[("a", "b")] * 9, ("a", "b" * 30))
    store = build_store(pairs, Letters(), None, tmp_path / "s", 8, max_overlong_ratio=0.1)
    assert (len(store), store.overlong) == (9, 1)
    with pytest.raises(DataError, match="1 of 10 examples are longer than 8 tokens") as failure:
        build_store(pairs, Letters(), None, tmp_path / "t", 8, max_overlong_ratio=0.05)
    assert failure.value.where == "a.csv:11"
    assert not (tmp_path / "t").exists()


def test_nothing_to_learn_is_refused(tmp_path):
    with pytest.raises(DataError, match="no example"):
        build_store([], Letters(), None, tmp_path / "s", 8)
    with pytest.raises(DataError, match="one target token") as failure:
        build_store(examples(("a", "")), Letters(), None, tmp_path / "s", 8)
    assert failure.value.where == "a.csv:2"


@pytest.mark.parametrize("harm", ["cut", "absent", "newer"])
def test_a_damaged_store_is_named(tmp_path, harm):
    build_store(examples(("a", "b")), Letters(), None, tmp_path / "s", 8)
    if harm == "cut":
        (tmp_path / "s" / "ids.bin").write_bytes(b"\0" * 4)
    elif harm == "absent":
        (tmp_path / "s" / "store.json").unlink()
    else:
        text = (tmp_path / "s" / "store.json").read_text()
        (tmp_path / "s" / "store.json").write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(DataError, match="token store"):
        open_store(tmp_path / "s")
