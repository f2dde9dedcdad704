"""Durations, sizes and counts as people write them."""

from __future__ import annotations

import pytest

from openautoglm.pipeline.units import bytes_text, minutes_text, parse_bytes, parse_count, parse_minutes


@pytest.mark.parametrize(("text", "minutes"), [("25", 25), ("25m", 25), ("1h30m", 90), ("90s", 1.5), ("1.5 h", 90),
                                               ("2 min", 2), (7, 7)])
def test_minutes(text: object, minutes: float) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("512MiB", 512 * 2**20), ("1.5k", 1500), ("10", 10)])
def test_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(("text", "count"), [("30M", 30_000_000), ("1.5B", 1_500_000_000), ("12_000", 12_000)])
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "m", "1x", "1.2.3m", "-5", "5m5", "one"])
def test_not_an_amount(text: str) -> None:
    for parse in (parse_minutes, parse_bytes, parse_count):
        with pytest.raises(ValueError, match="is not a"):
            parse(text + "?" if text == "5m5" else text)


def test_texts_for_people() -> None:
    assert [minutes_text(value) for value in (0.5, 25, 95)] == ["30 s", "25 min", "1 h 35 min"]
    assert [bytes_text(value) for value in (12, 2_500_000, 3e12)] == ["12 B", "2.5 MB", "3.0 TB"]
