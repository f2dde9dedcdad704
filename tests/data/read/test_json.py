"""JSON Lines and JSON arrays: strictness, line numbers, recovery, bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openautoglm.core.values import Example, Reject
from openautoglm.data.read import read
from openautoglm.data.read.strict_json import StrictJsonError, parse
from openautoglm.data.settings import DataSettings

Brief = Callable[..., list[tuple[int, str, str]]]
ReadBytes = Callable[..., list[Example | Reject]]


@pytest.mark.parametrize(("text", "reason"), [
    ("NaN", "not_finite"), ("[-Infinity]", "not_finite"), ('{"a":1,"a":1}', "duplicate_key"),
    (r'["\ud800"]', "lone_surrogate"), ('{"\\udc00":1}', "lone_surrogate"), ("[" * 65 + "]" * 65, "too_deep"),
    ("[" * 100_000, "too_deep"), ("[1,]", "invalid_json"), ("", "invalid_json"), ('["\0"]', "nul_byte"),
])
def test_what_strict_json_refuses(text: str, reason: str) -> None:
    with pytest.raises(StrictJsonError) as error:
        parse(text, 64)
    assert error.value.reason == reason


def test_what_strict_json_takes() -> None:
    assert parse(r'{"a": ["\ud83d\ude00", "\u0000"]}', 64) == {"a": ["\U0001f600", "\0"]}
    assert parse("[1.50, 1e400, " + "9" * 5000 + "]", 64) == ["1.50", "1e400", "9" * 5000]
    assert parse(json.dumps("[" * 200), 64) == "[" * 200
    assert parse('[{"a\\"[[[": []}]', 3) == [{'a"[[[': []}]


@settings(deadline=None, max_examples=50)
@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8))
def test_every_value_that_json_writes_is_read_back(value: object) -> None:
    text = json.dumps(value)
    if r"\ud" not in text:
        assert parse(text, 64) == json.loads(text)


def test_lines_with_faults_between_good_ones(brief: Brief) -> None:
    content = b"""{"a": "1", "b": "x"}

{"a": "2", "b": NaN}
{"a": "3", "a": "3", "b": "x"}
{"a": "4", "b": "\\ud800"}
{"a": "5", "b": "\xff"}
{"a": "6", "b": "\\u0000"}
{"a": "7"}
{"a": "8", "b": null}
{"a": "9", "b": {"c": 1}}
{"a": "10", "b": " "}
["a", "b"]
{"a": 1.50, "b": true}
{"a": ["l", "m"], "b": "y"}"""
    assert brief(content, "f.jsonl") == [
        (1, "1", "x"), (3, "!", "not_finite"), (4, "!", "duplicate_key"), (5, "!", "lone_surrogate"),
        (6, "!", "broken_encoding"), (7, "!", "nul_byte"), (8, "!", "missing_column"), (9, "!", "null"),
        (10, "!", "not_text"), (11, "!", "empty"), (12, "!", "not_an_object"), (13, "1.50", "true"),
        (14, "l\nm", "y")]


def test_empty_cells_may_be_let_through_for_the_rules(brief: Brief) -> None:
    content = b'{"a": "", "b": "x"}\n{"a": "1", "b": null}\n{"a": "2"}\n'
    assert brief(content, "f.jsonl", allow_empty=True) == [(1, "", "x"), (2, "1", ""), (3, "2", "")]


def test_an_array_gives_the_line_of_each_element(brief: Brief) -> None:
    for indent in (None, 1, 4):
        rows = [{"a": f"{{[{number}", "b": 'q"]},\n'} for number in range(5)]
        text = json.dumps(rows, indent=indent)
        lines = [1 + text.count("\n", 0, text.index(json.dumps(row)[1:12])) - bool(indent) for row in rows]
        assert brief(text.encode(), "f.json") == [
            (line, row["a"], row["b"]) for line, row in zip(lines, rows, strict=True)]


def test_a_json_file_may_hold_one_object_or_lines(brief: Brief) -> None:
    assert brief(b' {"a": "1",\n "b": ["x", "y"]}\n', "f.json") == [(1, "1", "x\ny")]
    assert brief(b'{"a": "1", "b": "x"}\n{"a": "2", "b": "y"}\n', "f.json") == [(1, "1", "x"), (2, "2", "y")]
    assert brief(b'{"a": "1", "b": "x"} tail', "f.json") == [(1, "!", "invalid_json")]
    assert brief(b"[]", "f.json") == []
    assert brief(b"", "f.json") == [(1, "!", "invalid_json")]


@pytest.mark.parametrize("broken", [
    b'{"a": "2", "b": "x"', b'{"a": "2, "b": "x"}', b'{"a": "2", "b": "x}', b'{"a": "2", "b": "x"}}',
    b'{"a": 2]}',
    b'{"a": NaN, "b": "x"}', b"", b"[1, 2]", b'{"a": "2", "b": "\xff"}', b'{"a": "2" "b"}',
    b'{"a": "line\nend"}',
    b'{"a": "2", "b": [[[[[[[[[[]]]]]]]]]]}', b'{"a": "' + b"x" * 700_000 + b'"}',
    b'{"a": ["' + b'y","' * 90_000 + b'"]}',
    b'{"a": "' + b'\\"}, {' * 90_000 + b'"}'])
@pytest.mark.parametrize("between", [b",", b",\n"])
def test_a_broken_element_costs_only_itself(brief: Brief, broken: bytes, between: bytes) -> None:
    good = [b'{"a": "%d", "b": "x"}' % number for number in (1, 3, 4)]
    items = brief(b"[" + between.join([good[0], broken, *good[1:]]) + b"]", "f.json", max_json_depth=9,
                  max_row_bytes=1000)
    assert [source for _, source, _ in items] == ["1", "!", "3", "4"]


@pytest.mark.parametrize("tail", [b"", b",", b',{"a": "2", "b": "x', b',{"a": "2", "b": "x"', b"] x", b"]]"])
def test_an_array_that_does_not_end_well_says_so(brief: Brief, tail: bytes) -> None:
    items = brief(b'[{"a": "1", "b": "x"}' + tail, "f.json")
    assert [item[1] for item in items] == ["1", "!"]


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=60), st.integers(1, 7))
def test_any_bytes_are_read_alike_whatever_the_chunks(content: bytes, size: int) -> None:
    from openautoglm.data.read.json_array import json_array
    from openautoglm.data.read.source import Source

    whole = list(json_array(Source(iter([content]), "utf-8", b""), max_row_bytes=64, max_depth=5).rows)
    parts = (content[start:start + size] for start in range(0, len(content), size))
    assert [row[:2] for row in json_array(Source(parts, "utf-8", b""), max_row_bytes=64,
                                          max_depth=5).rows] == [
        row[:2] for row in whole]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "start", "end"), [
    ("f.jsonl", b'{"a": "', b'"}\n{"a": "1", "b": "x"}\n'),
    ("f.json", b'[{"a": "', b'"}, {"a": "1", "b": "x"}]'),
    ("f.json", b'[{"a": [', b']}, {"a": "1", "b": "x"}]'), ("f.csv", b'a,b\n"', b'"\n1,x\n'),
    ("f.csv", b"a,b\n", b"\n1,x\n")])
def test_a_line_of_100_megabytes_is_skipped_in_bounded_memory(tmp_path: Path, name: str, start: bytes,
                                                              end: bytes) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(start)
        for _ in range(100):
            file.write(b"1 23" * (1 << 18))
        file.write(end)
    tracemalloc.start()
    items = list(read([path], DataSettings(train=name, source="a", target="b")))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(items[0], Reject)
    assert items[0].reason == "row_too_long"
    assert isinstance(items[-1], Example)
    assert items[-1].target == "x"
    assert peak_bytes < 24 << 20
