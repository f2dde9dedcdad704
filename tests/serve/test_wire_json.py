"""Bodies: strict JSON of bounded depth, numbers as they were written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.serve.faults import BadRequest
from openautoglm.serve.wire.json_body import parse_object

_values = st.recursive(st.none() | st.booleans() | st.integers(-2**60, 2**60) | st.text()
                       | st.floats(allow_nan=False, allow_infinity=False),
                       lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
                       max_leaves=12)


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


@given(st.dictionaries(st.text(), _values, max_size=4), st.booleans())
def test_what_is_json_is_read_as_it_is(value: dict[str, object], ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse_object(body, 64) == value
    depth = _depth(value)
    if depth > 1:
        assert parse_object(body, depth) == value
        with pytest.raises(BadRequest, match=f"more than {depth - 1} levels"):
            parse_object(body, depth - 1)


@given(st.binary(max_size=60))
def test_no_bytes_do_harm(body: bytes) -> None:
    try:
        found: dict[str, object] | BadRequest = parse_object(body, 8)
    except BadRequest as fault:
        found = fault
    assert isinstance(found, dict) or (found.field == "body" and found.remedy)


@pytest.mark.parametrize(("body", "why"), [
    (b"", "not JSON"), (b"[1]", "not an object"), (b'{"a":1,"a":2}', "twice"), (b'{"a":NaN}', "NaN"),
    (b'{"a":-Infinity}', "Infinity"), (b'{"a":1e999}', "out of range"), (b'{"a":"\\ud800"}', "surrogate"),
    (b'{"\\udfff":1}', "surrogate"), (b'{"a":"\xff"}', "UTF-8 at byte 6"), (b'{"a":1} x', "character 9"),
    (b'{"a":' + b"[" * 90, "nested"), (b'{"a":' + b"9" * 5000 + b"}", "strict"), (b"\xef\xbb\xbf{}", "not JSON"),
    (b"{'a':1}", "character 2"), (b'{"a":01}', "character"),
], ids=["empty", "list", "duplicate", "nan", "infinity", "huge", "surrogate", "surrogate-key", "utf8", "rest", "deep",
        "digits", "mark", "quotes", "zero"])
def test_what_is_not_strict_json_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        parse_object(body, 64)


def test_brackets_in_texts_are_no_levels() -> None:
    assert parse_object(b'{"a":"' + b"[{" * 100 + b'\\"[[["}', 2) == {"a": "[{" * 100 + '"[[['}


def test_a_number_keeps_its_text() -> None:
    found = parse_object(b'{"price": 1.50, "count": 7, "small": 1e-3}', 4)
    assert [str(value) for value in found.values()] == ["1.50", "7", "1e-3"]
    assert found["price"] + 1 == 2.5
