"""The real files: E2E rows and records, Chinese poems."""

from __future__ import annotations

from pathlib import Path

import pytest

from openautoglm.core.values import Example, Reject
from openautoglm.data.read import read, resolve
from openautoglm.data.settings import DataSettings

pytestmark = pytest.mark.data


def test_e2e_rows_records_and_fields(shared_data: Path) -> None:
    settings = DataSettings(train="trainset.csv", source="mr", target="ref", fields=r"([\w ]+)\[([^\]]*)\]")
    folder = shared_data / "e2e-nlg"
    counts = {}
    for name in ("trainset.csv", "devset.csv", "testset_w_refs.csv"):
        items = list(read([folder / name], settings))
        assert all(isinstance(item, Example) for item in items)
        assert all(3 <= len(item.fields) <= 8 for item in items)
        counts[name] = (len(items), len({item.source for item in items}))
    assert counts["trainset.csv"] == (42_061, 4_862)
    assert counts["devset.csv"] == (4_672, 547)
    assert counts["testset_w_refs.csv"] == (4_693, 630)
    assert items[-1].origin.line == 4_694


def test_chinese_poems_as_running_text(shared_data: Path) -> None:
    settings = DataSettings(train="*.json", text="paragraphs", fields=["author"])
    paths = resolve(["全唐诗/*.json", "宋词/*.json", "水墨唐诗/*.json", "论语/*.json"],
                    shared_data / "chinese-poetry")
    items = list(read(paths, settings))
    examples = [item for item in items if isinstance(item, Example)]
    assert len(items) == 10_845
    assert len(items) - len(examples) == 20
    assert {item.reason for item in items if isinstance(item, Reject)} == {"missing_column"}
    first = examples[0]
    assert first.target.startswith("秦川雄帝宅，函谷壯皇居。\n")
    assert first.fields == (("author", "太宗皇帝"),)
    assert first.origin.line == 2
    path = Path(examples[777].origin.file)
    assert path.read_text(encoding="utf-8").split("\n")[examples[777].origin.line - 1].strip() == "{"
