"""Leaks between given splits: found, counted, shown, and removed when asked."""

from __future__ import annotations

from typing import Any


def found(report: Any) -> dict[tuple[str, str], tuple[int, tuple[int, int]]]:
    """Leaks as {(kind, second split): (texts, rows)}, those that train takes part in."""
    return {(leak.kind, leak.between[1]): (leak.texts, leak.rows) for leak in report.leaks
            if leak.between[0] == "train"}


def planted(cleaning: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    words = cleaning.sentence(900, 40).split()
    train = [*cleaning.pairs(30), ("x", " ".join(words)), ("y", cleaning.sentence(5)), ("label", "yes")]
    test = [("record 3", cleaning.sentence(700)), ("z", cleaning.sentence(5).upper()),
            ("v", " ".join([*words[:39], "else"])), ("other label", "yes"), *cleaning.pairs(5, first=800)]
    return train, test


def test_all_three_kinds_are_found(cleaning: Any) -> None:
    train, test = planted(cleaning)
    report = cleaning.run(train, test=test, split={"valid": 0})
    assert found(report) == {("source", "test"): (1, (1, 1)), ("target", "test"): (1, (2, 1)),
                             ("near_target", "test"): (1, (1, 1))}
    assert report.rows_out == {"train": 33, "test": 9}
    near = next(leak for leak in report.leaks if leak.kind == "near_target")
    assert near.examples[0]["train"]["source"] == "x"
    assert near.examples[0]["test"]["source"] == "v"


def test_leaks_leave_train_when_asked_and_never_the_test(cleaning: Any) -> None:
    train, test = planted(cleaning)
    report = cleaning.run(train, test=test, split={"valid": 0}, leaks={"action": "drop_from_train"})
    assert report.dropped == {"leak": 4}
    assert report.rows_out == {"train": 29, "test": 9}
    gone = [row for row in cleaning.rows("dropped") if row["rule"] == "leak"]
    assert sorted(row["source"] for row in gone) == ["record 3", "record 5", "x", "y"]
    assert all("test-raw.jsonl" in row["reason"] for row in gone)
    again = cleaning.run([(row["source"], row["target"]) for row in cleaning.rows("train")], test=test,
                         split={"valid": 0})
    assert again.leaks == []


def test_only_what_is_asked_for_is_looked_for(cleaning: Any) -> None:
    train, test = planted(cleaning)
    report = cleaning.run(train, test=test, split={"valid": 0}, leaks={"look_for": ["source"]})
    assert {leak.kind for leak in report.leaks} == {"source"}


def test_valid_and_test_are_compared_too(cleaning: Any) -> None:
    report = cleaning.run(cleaning.pairs(10), valid=cleaning.pairs(4, first=50),
                          test=cleaning.pairs(4, first=52))
    shared = [leak for leak in report.leaks if leak.between == ("valid", "test")]
    assert {(leak.kind, leak.texts) for leak in shared} == {("source", 2), ("target", 2)}


def test_clean_splits_have_no_leaks(cleaning: Any) -> None:
    report = cleaning.run(cleaning.pairs(10), valid=cleaning.pairs(4, first=50),
                          test=cleaning.pairs(4, first=60))
    assert report.leaks == []
