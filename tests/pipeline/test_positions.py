"""YAML with places: marks, syntax faults, duplicate keys, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.pipeline.positions import MAX_BYTES, Mark, key_text, parse


def test_marks_of_keys_and_values() -> None:
    document = parse(b"data:\n  train: a.csv\n  rules:\n    - one\n    - two\n")
    assert document.value == {"data": {"train": "a.csv", "rules": ["one", "two"]}}
    assert document.mark(("data", "train"), of_key=True) == Mark(2, 3)
    assert document.mark(("data", "train")) == Mark(2, 10)
    assert document.mark(("data", "rules", 1)) == Mark(5, 7)
    assert document.mark(("data", "absent", "deeper")) == Mark(1, 1)


@pytest.mark.parametrize(("text", "line", "message"), [
    (b"a: 1\n\tb: 2\n", 2, "tab"),
    (b"a:\n\tb: 2\n", 2, "tab"),
    (b"a: [1, 2\nb: 3\n", 2, "not valid YAML"),
    (b"a: 'open\n", 2, "not valid YAML"),
    (b"a: 1\na: 2\n", 2, "stands twice; first on line 1"),
    (b"a: {b: 1, b: 2}\n", 1, "stands twice"),
    (b"a: *nowhere\n", 1, "not valid YAML"),
    (b"a: 1\n---\nb: 2\n", 2, "not valid YAML"),
    (b"a: !!python/object:os.system x\n", 1, "not a plain value"),
    (b"a: 2001-99-99\n", 1, "not a plain value"),
    (b"? [a, b]\n: 1\n", 1, "plain word"),
    (b"a: 1\nb: \xff\n", 2, "UTF-8"),
    (b"a: 1\nb: \x00\n", 2, "not allowed"),
    (b"a: " + b"[" * 3000 + b"\n", 1, "nested too deeply"),
    (b"a: " + b"[" * 60 + b"]" * 60, 1, "nested deeper"),
    (b"a: &a [*a]\n", 1, "nested deeper"),
    (b"<<: 3\n", 1, "merges mappings"),
    (b"#" * (MAX_BYTES + 1), 0, "bytes"),
])
def test_faults_of_syntax_have_a_line(text: bytes, line: int, message: str) -> None:
    faults = parse(text).faults
    assert len(faults) == 1
    assert faults[0].line == line
    assert message in faults[0].message


def test_an_alias_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    faults = parse("\n".join(lines).encode()).faults
    assert "unfolds to more than" in faults[0].message


def test_merge_keys_and_plain_anchors_work() -> None:
    document = parse(b"a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  y: 3\n")
    assert document.faults == []
    assert document.value["b"] == {"x": 1, "y": 3}


def test_keys_stay_the_words_that_were_written() -> None:
    assert parse(b"no: 1\n3: x\n").value == {"no": 1, "3": "x"}


def test_several_duplicate_keys_are_all_reported() -> None:
    assert len(parse(b"a: 1\na: 2\nb: {c: 1, c: 2, c: 3}\n").faults) == 3


def test_key_text() -> None:
    assert key_text(("clean", "rules", 2, "length")) == "clean.rules[2].length"
    assert key_text(()) == "task"


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(data: bytes) -> None:
    document = parse(data)
    assert all(fault.message for fault in document.faults)
