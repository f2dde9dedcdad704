"""The look into files before a run: counts, estimates, sharing of sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.data.read.sample import sample
from openautoglm.data.settings import DataSettings

SETTINGS = DataSettings(train=("x.csv",), source="s", target="t")


def rows(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("s,t\n" + "".join(f"{source},{target}\n" for source, target in pairs), encoding="utf-8")
    return path


def test_every_row_of_a_small_file_is_looked_at(tmp_path: Path) -> None:
    path = rows(tmp_path / "x.csv", [(f"record {number // 4}", f"text {number}") for number in range(40)])
    seen = sample([path], SETTINGS, 10, seed=1)
    assert (seen.rows, seen.complete, seen.rows_estimate) == (40, True, 40)
    assert len(seen.first) == len(seen.random) == 10
    assert seen.per_source == pytest.approx(4)


def test_rows_beyond_the_bound_are_estimated_from_bytes(tmp_path: Path) -> None:
    path = rows(tmp_path / "x.csv", [(f"record {number:06}", f"text {number:06}") for number in range(30_000)])
    seen = sample([path], SETTINGS, 10, seed=1, max_rows=20_000)
    assert not seen.complete
    assert seen.rows_estimate == pytest.approx(30_000, rel=0.2)
    assert seen.per_source == 1
