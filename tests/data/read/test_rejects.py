"""The quarantine file, the counts, and the share that stops a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from openautoglm.core.errors import DataError
from openautoglm.core.values import Example, Origin, Reject
from openautoglm.data.read import RejectLog, read_checked, sample
from openautoglm.data.settings import DataSettings

GOOD = Example("s", "t", Origin("f", 1))


def bad(line: int) -> Reject:
    return Reject(Origin("f.csv", line), "null", "the column 'b' is null", "ü,")


def test_rejects_are_written_counted_and_tolerated_below_the_limit(tmp_path: Path) -> None:
    with RejectLog(tmp_path / "rejected.jsonl", 0.5) as log:
        assert list(log.examples([GOOD, bad(2)])) == [GOOD]
        assert list(log.examples([GOOD])) == [GOOD]
    assert (log.rows, log.rejects, dict(log.counts)) == (3, 1, {"null": 1})
    assert [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()] == [
        {"file": "f.csv", "line": 2, "reason": "null", "detail": "the column 'b' is null", "raw": "ü,"}]


def test_above_the_limit_the_file_is_kept_and_the_run_stops(tmp_path: Path) -> None:
    def run() -> None:
        with RejectLog(tmp_path / "rejected.jsonl", 0.1) as log:
            list(log.examples([GOOD, bad(2)]))

    with pytest.raises(DataError,
                       match=r"1 of 2 rows cannot be read \(50.0%, allowed 10.0%\): null 1") as error:
        run()
    assert error.value.where == "f.csv:2"
    assert "rejected.jsonl" in str(error.value)
    assert (tmp_path / "rejected.jsonl").read_text().count("\n") == 1


def test_far_above_the_limit_it_stops_early(tmp_path: Path) -> None:
    seen = 0

    def endless() -> Iterator[Example | Reject]:
        nonlocal seen
        while True:
            seen += 1
            yield bad(seen) if seen % 4 == 0 else GOOD

    def run() -> None:
        with RejectLog(tmp_path / "rejected.jsonl", 0.01) as log:
            for _ in log.examples(endless()):
                pass

    with pytest.raises(DataError, match="250 of 1,000 rows"):
        run()
    assert seen == 1000
    assert (tmp_path / "rejected.jsonl").read_text().count("\n") == 250


def test_another_error_leaves_no_file(tmp_path: Path) -> None:
    def run() -> None:
        with RejectLog(tmp_path / "rejected.jsonl", 1) as log:
            list(log.examples([bad(1)]))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        run()
    assert list(tmp_path.iterdir()) == []


def test_read_checked_and_sample(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a,b\n" + "".join(f"{number},{'' if number == 50 else 'x'}\n" for number in range(100)))
    settings = DataSettings(train="f.csv", source="a", target="b", max_reject_ratio=0.01)
    assert len(list(read_checked([path], settings, tmp_path / "r.jsonl"))) == 99
    with pytest.raises(DataError, match="1 of 100 rows"):
        list(read_checked([path], settings.model_copy(update={"max_reject_ratio": 0.001}), None))
    look = sample([path], settings, 5, seed=1)
    assert [item.origin.line for item in look.first] == [2, 3, 4, 5, 6]
    assert (look.rows, look.rejects, look.complete, look.rows_estimate) == (100, 1, True, 100)
    assert len({item.origin.line for item in look.random}) == 5
    assert look == sample([path], settings, 5, seed=1)
    assert look.random != sample([path], settings, 5, seed=2).random
    part = sample([path], settings, 5, seed=1, max_rows=10)
    assert (part.rows, part.complete) == (10, False)
