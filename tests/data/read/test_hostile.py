"""The hostile files through every reader, and the published JSON test suite at the level of the parser."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest

from openautoglm.core.errors import DataError
from openautoglm.core.values import Example, Reject
from openautoglm.data.read import columns, read
from openautoglm.data.read.json_array import json_array
from openautoglm.data.read.row import Row
from openautoglm.data.read.source import open_source
from openautoglm.data.read.strict_json import StrictJsonError, parse
from openautoglm.data.settings import DataSettings

SHAPES: tuple[dict[str, Any], ...] = (
    {"source": "a", "target": "b"}, {"source": "a", "target": "a"}, {"template": "{a}", "target": "b"},
    {"messages": "messages"}, {"text": "text"}, {"text": "a", "fields": ["a"]})
BARE = ({"source": "a", "target": "b", "header": ["a", "b"]},
        {"text": "a", "header": ["a"], "quoting": False})
FORMATS = ("jsonl", "json", "csv", "tsv", "text", "parquet")


def hostile_files(folder: Path) -> list[Path]:
    files = sorted(path for path in (folder / "hostile").rglob("*") if path.is_file())
    assert len(files) > 300
    return files


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_every_hostile_file_through_every_reader(shared_data: Path, kind: str) -> None:
    items, errors = 0, list[DataError]()
    for path in hostile_files(shared_data):
        for shape in (*SHAPES, *BARE) if kind != "parquet" else SHAPES[:1]:
            settings = DataSettings(train="f", format=kind, **shape)  # type: ignore[arg-type]
            try:
                columns(path, settings)
                for item in read([path], settings):
                    assert isinstance(item, Example | Reject)
                    assert item.origin.file == str(path)
                    assert item.origin.line >= 1
                    items += 1
            except DataError as error:
                errors.append(error)
    assert items or kind == "parquet"
    assert bool(errors) == (kind not in ("jsonl", "json"))
    assert all(error.where and error.remedy for error in errors)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_files_that_are_no_json_never_give_an_example(shared_data: Path, kind: str) -> None:
    refused = sorted((shared_data / "hostile/json-testsuite/test_parsing").glob("n_*.json"))
    assert len(refused) > 180
    for path in refused:
        for name in ("a", "", "b", "x", "id", "title", "asd"):
            settings = DataSettings(train="f", format=kind, text=name)  # type: ignore[arg-type]
            items = list(read([path], settings))
            assert not any(isinstance(item, Example) for item in items), path
            assert items or not path.read_bytes().strip(codecs.BOM_UTF8 + b" \n"), path


@pytest.mark.data
def test_the_parser_agrees_with_the_test_suite(shared_data: Path) -> None:
    folder = shared_data / "hostile/json-testsuite/test_parsing"
    duplicates = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}
    for path in sorted(folder.glob("y_*.json")):
        text = path.read_bytes().decode()
        if path.name in duplicates:
            with pytest.raises(StrictJsonError, match="twice"):
                parse(text, 64)
        else:
            parse(text, 64)
    for path in sorted(folder.glob("n_*.json")):
        with pytest.raises(ValueError):
            parse(path.read_bytes().decode(), 200)


@pytest.mark.data
def test_objects_of_the_test_suite_are_rows(shared_data: Path) -> None:
    folder = shared_data / "hostile/json-testsuite/test_parsing"
    rows = 0
    for path in sorted(folder.glob("y_object*.json")):
        with open_source(path, "auto") as source:
            for row in json_array(source, max_row_bytes=1 << 20, max_depth=64).rows:
                rows += isinstance(row, Row)
                assert isinstance(row, Row) or row.reason == "duplicate_key"
    assert rows >= 8


@pytest.mark.data
def test_the_naughty_strings_are_all_read_as_text(shared_data: Path, tmp_path: Path) -> None:
    strings = json.loads((shared_data / "hostile/blns.json").read_text(encoding="utf-8"))
    path = tmp_path / "naughty.jsonl"
    path.write_text("".join(json.dumps({"a": text, "b": "x"}) + "\n" for text in strings))
    items = list(read([path], DataSettings(train="f", source="a", target="b", allow_empty=True)))
    assert [item.source for item in items if isinstance(item, Example)] == strings
