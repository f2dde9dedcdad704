"""Splits: shares, seeds, and above all nothing that crosses."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import ValidationError

from openautoglm.data.clean_settings import SplitSettings

SPLITS = ("train", "valid", "test")


def crossing(cleaning: Any, side: str) -> list[str]:
    """Texts that stand in more than one split."""
    seen: dict[str, set[str]] = {}
    for split in SPLITS:
        for row in cleaning.rows(split):
            seen.setdefault(row[side], set()).add(split)
    return [text for text, where in seen.items() if len(where) > 1]


def test_shares_are_met_and_no_row_is_lost(cleaning: Any) -> None:
    report = cleaning.run(cleaning.pairs(400), split={"valid": 0.1, "test": 0.2})
    assert report.rows_out == {"train": 280, "valid": 40, "test": 80}
    lines = sorted(row["line"] for split in SPLITS for row in cleaning.rows(split))
    assert lines == list(range(1, 401))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_that_share_anything_never_cross(cleaning: Any, seed: int) -> None:
    dice = random.Random(seed)
    pairs = [(f"record {dice.randrange(120)}", cleaning.sentence(dice.randrange(400))) for _ in range(300)]
    words = cleaning.sentence(1000, 40).split()
    pairs += [(f"near {number}", " ".join([*words[:39], f"last{number}"])) for number in range(8)]
    report = cleaning.run(pairs, split={"valid": 0.1, "test": 0.1, "seed": seed, "max_group": 1.0})
    assert report.rows_out["valid"] > 0
    assert report.rows_out["test"] > 0
    if "target" in report.split_together:
        assert crossing(cleaning, "target") == []
    assert crossing(cleaning, "source") == []
    homes = {split for split in SPLITS for row in cleaning.rows(split) if row["source"].startswith("near ")}
    assert len(homes) == 1 or "near_target" not in report.split_together


def test_the_seed_decides_and_nothing_else(cleaning: Any) -> None:
    cleaning.run(cleaning.pairs(100), split={"valid": 0.1, "test": 0.1, "seed": 7})
    first = cleaning.targets("valid")
    cleaning.run(cleaning.pairs(100), split={"valid": 0.1, "test": 0.1, "seed": 7})
    assert cleaning.targets("valid") == first
    cleaning.run(cleaning.pairs(100), split={"valid": 0.1, "test": 0.1, "seed": 8})
    assert cleaning.targets("valid") != first


def test_one_giant_group_is_reported_and_loosened(cleaning: Any) -> None:
    text = cleaning.sentence(1)
    pairs = [(f"record {number}", text) for number in range(100)]
    report = cleaning.run(pairs, split={"valid": 0.1, "test": 0.1})
    assert report.split_together == ["source"]
    assert report.rows_out["valid"] == 10
    assert any("hang together" in warning for warning in report.warnings)


def test_one_source_for_all_leaves_valid_empty_only_with_a_word(cleaning: Any) -> None:
    pairs = [("same", cleaning.sentence(number)) for number in range(50)]
    report = cleaning.run(pairs, split={"valid": 0.2, "test": 0})
    assert report.split_together == []
    assert report.rows_out == {"train": 40, "valid": 10}
    assert any("share a source may cross" in warning for warning in report.warnings)


def test_labels_do_not_tie_rows(cleaning: Any) -> None:
    report = cleaning.run([(f"record {number}", "yes" if number % 2 else "no") for number in range(100)],
                          split={"valid": 0.1, "test": 0.1})
    assert report.split_together == ["source", "target", "near_target"]
    assert report.rows_out == {"train": 80, "valid": 10, "test": 10}


def test_text_without_sources_is_split_row_by_row(cleaning: Any) -> None:
    report = cleaning.run([("", cleaning.sentence(number)) for number in range(100)])
    assert report.rows_out == {"train": 90, "valid": 5, "test": 5}


def test_given_splits_stay_and_the_missing_one_is_made(cleaning: Any) -> None:
    report = cleaning.run(cleaning.pairs(100), test=cleaning.pairs(7, first=500), split={"valid": 0.1})
    assert report.rows_out == {"train": 90, "valid": 10, "test": 7}
    assert report.split_made == ["valid"]
    assert cleaning.targets("test") == [cleaning.sentence(number) for number in range(500, 507)]


def test_a_tiny_set_still_gets_each_split(cleaning: Any) -> None:
    report = cleaning.run(cleaning.pairs(10), split={"valid": 0.1, "test": 0.1, "max_group": 1.0})
    assert report.rows_out == {"train": 8, "valid": 1, "test": 1}


def test_the_default_shares_leave_no_small_set_without_validation(cleaning: Any) -> None:
    assert cleaning.run(cleaning.pairs(5)).rows_out == {"train": 3, "valid": 1, "test": 1}


def test_shares_must_leave_train() -> None:
    with pytest.raises(ValidationError, match="leave at least"):
        SplitSettings(valid=0.5, test=0.5)
