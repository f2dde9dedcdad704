"""Small data files for the tests of cleaning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openautoglm.data.clean import clean
from openautoglm.data.clean_settings import CleanSettings
from openautoglm.data.quality import QualityReport
from openautoglm.data.settings import DataSettings

Pair = tuple[str, str]


class Cleaning:
    """Writes pairs as files, cleans them, and reads what came out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"

    def data(self, **splits: Sequence[Pair]) -> DataSettings:
        """Write JSON Lines files, one a split, and say how to read them."""
        for split, pairs in splits.items():
            lines = [json.dumps({"in": source, "out": target}, ensure_ascii=False) + "\n"
                     for source, target in pairs]
            (self.folder / f"{split}-raw.jsonl").write_text("".join(lines))
        files = {split: f"{split}-raw.jsonl" for split in splits}
        return DataSettings.model_validate({**files, "source": "in", "target": "out", "allow_empty": True})

    def run(self, train: Sequence[Pair], valid: Sequence[Pair] = (), test: Sequence[Pair] = (),
            **settings: Any) -> QualityReport:
        """Clean pairs into `out`."""
        splits = {"train": train, "valid": valid, "test": test}
        data = self.data(**{split: pairs for split, pairs in splits.items() if pairs})
        how = CleanSettings.model_validate({"workers": 1, **settings})
        return clean(data, how, self.out, base=self.folder)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Read a file of results; empty when it is not there."""
        path = self.out / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def targets(self, name: str) -> list[str]:
        """Read the targets of a split."""
        return [row["target"] for row in self.rows(name)]

    @staticmethod
    def sentence(number: int, words: int = 14) -> str:
        """A sentence of its own for every number: two share no word."""
        return " ".join(f"w{number}x{step}" for step in range(words))

    def pairs(self, count: int, first: int = 0) -> list[Pair]:
        """Pairs that have nothing in common."""
        return [(f"record {number}", self.sentence(number)) for number in range(first, first + count)]


@pytest.fixture
def cleaning(tmp_path: Path) -> Cleaning:
    """Cleaning in a fresh folder."""
    return Cleaning(tmp_path)
