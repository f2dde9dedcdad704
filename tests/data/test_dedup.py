"""Duplicates: exact and near ones are found, and nothing else goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.data.clean_settings import NearSettings
from openautoglm.data.dedup import _candidates
from openautoglm.data.keys import Signer, WordKeys, band_rows, normalised, shingles, split_words
from openautoglm.data.tables import Groups, KeyTable, RowFile, by_key

NO_SPLIT = {"split": {"valid": 0, "test": 0}}


def test_equal_pairs_leave_but_equal_targets_of_other_sources_stay(cleaning: Any) -> None:
    text = cleaning.sentence(1)
    report = cleaning.run([("a", text), ("b", text), ("a", text.upper()), ("A", f" {text} ")], **NO_SPLIT)
    assert report.exact_duplicates.rows == {"train": 2}
    assert report.duplicates_as_read == {"train": 0}
    assert [row["source"] for row in cleaning.rows("train")] == ["a", "b"]


def test_near_targets_of_one_source_leave(cleaning: Any) -> None:
    words = cleaning.sentence(1, 30).split()
    near = " ".join([*words[:-1], "other"])
    far = " ".join([*words[:15], *cleaning.sentence(2, 15).split()])
    report = cleaning.run([("a", " ".join(words)), ("a", near), ("a", far), ("b", near)], **NO_SPLIT)
    assert report.near_duplicates.rows == {"train": 1}
    assert [(row["source"], row["target"]) for row in cleaning.rows("train")] == [
        ("a", " ".join(words)), ("a", far), ("b", near)]
    (pair,) = report.near_duplicates.examples
    assert pair["first"]["target"] == " ".join(words)


@pytest.mark.parametrize(("action", "found", "kept"), [("drop", 1, 1), ("report", 1, 2), ("keep", 0, 2)])
def test_actions(cleaning: Any, action: str, found: int, kept: int) -> None:
    text = cleaning.sentence(1)
    report = cleaning.run([("a", text), ("a", text)], dedup={"exact": action, "near": "keep"}, **NO_SPLIT)
    assert report.exact_duplicates.rows == {"train": found}
    assert len(cleaning.rows("train")) == kept


def test_given_test_sets_keep_their_duplicates(cleaning: Any) -> None:
    pair = ("a", cleaning.sentence(1))
    report = cleaning.run(cleaning.pairs(5, 10), test=[pair, pair], **NO_SPLIT)
    assert report.exact_duplicates.rows["test"] == 1
    assert len(cleaning.rows("test")) == 2


def test_turns_belong_to_the_source(cleaning: Any) -> None:
    assert normalised(" Ｃafé\t NOIR ") == "café noir"
    assert split_words("中文字 and words") == ["中", "文", "字", "and", "words"]


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.9])
def test_signatures_estimate_jaccard(similarity: float) -> None:
    signer = Signer(NearSettings(permutations=256, shingle=1))
    size = 400
    shared = round(2 * size * similarity / (1 + similarity))
    left = [f"s{number}" for number in range(size)]
    right = [*left[:shared], *(f"t{number}" for number in range(size - shared))]
    words, counts = WordKeys().of([" ".join(left), " ".join(right)])
    low = signer.sign(words, counts).astype(np.uint8)
    assert signer.similarity(low[:1], low[1:])[0] == pytest.approx(similarity, abs=0.12)


def test_band_width_keeps_the_recall() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9):
        for permutations in (64, 128):
            rows = band_rows(threshold, permutations)
            assert (1 - threshold**rows) ** (permutations // rows) <= 0.05
            wider = rows + 1
            assert (1 - threshold**wider) ** (permutations // wider) > 0.05


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=8), st.integers(1, 4))
def test_shingles_are_equal_exactly_where_words_are(texts: list[list[str]], size: int) -> None:
    words, counts = WordKeys().of([" ".join(text) for text in texts])
    hashes, offsets = shingles(words, counts, size)
    seen: dict[int, tuple[str, ...]] = {}
    for number, text in enumerate(texts):
        width = min(size, len(text))
        wanted = [tuple(text[at:at + width]) for at in range(len(text) - width + 1)] if text else []
        made = hashes[int(offsets[number]):int(offsets[number + 1])].tolist()
        assert len(made) == len(wanted)
        for value, shingle in zip(made, wanted, strict=True):
            assert seen.setdefault(value, shingle) == shingle
    assert len(set(seen.values())) == len(seen)


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60))
def test_groups_are_the_connected_components(edges: list[tuple[int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        groups = Groups(Path(folder) / "groups", 30)
        for at in range(0, len(edges), 7):
            part = np.array(edges[at:at + 7], dtype=np.int64).reshape(-1, 2)
            groups.union(part[:, 0], part[:, 1])
        roots = groups.find(np.arange(30)).tolist()
    label = list(range(30))
    for _ in range(30):
        for left, right in edges:
            label[left] = label[right] = min(label[left], label[right])
    assert roots == label


def test_a_long_chain_is_one_group(tmp_path: Path) -> None:
    groups = Groups(tmp_path / "groups", 5000)
    groups.union(np.arange(4999), np.arange(1, 5000))
    assert not groups.find(np.arange(5000)).any()


def test_key_tables_bring_equal_keys_together_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    entries = np.stack([rng.integers(0, 50, 4000).astype(np.uint64) << np.uint64(56),
                        np.arange(4000, dtype=np.uint64)], axis=1)
    table = KeyTable(tmp_path / "table", 2)
    for at in range(0, 4000, 700):
        table.add(KeyTable.arrange(entries[at:at + 700]))
    found: dict[int, list[int]] = {}
    for part in table.partitions():
        sorted_, first = by_key(part)
        for (key, code), start in zip(sorted_.tolist(), first.tolist(), strict=True):
            assert sorted_[start, 0] == key
            assert key not in found or found[key][-1] < code
            found.setdefault(key, []).append(code)
    assert sum(map(len, found.values())) == 4000
    assert len(found) == 50


def test_records_come_back_by_row(tmp_path: Path) -> None:
    table = np.arange(8000, dtype=np.uint8).reshape(1000, 8)
    file = RowFile(tmp_path / "rows", ("u1", (8,)))
    file.add(table[:300])
    file.add(table[300:])
    file.finish()
    wanted = np.array([999, 0, 300, 299])
    assert np.array_equal(file.take(wanted), table[wanted])


def test_rows_of_other_splits_in_a_bucket_are_always_compared() -> None:
    split = np.array([0, 0, 2, 0, 0, 0, 2])
    entries = np.array([[5, row, row] for row in range(6)] + [[9, 6, 6]], dtype=np.uint64)
    pairs = {(min(pair), max(pair)) for pair in zip(*map(list, _candidates(entries, split)), strict=True)}
    assert {(0, 2), (1, 2), (2, 3), (2, 4), (2, 5)} <= pairs
    assert all(6 not in pair for pair in pairs)
