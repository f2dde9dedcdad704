"""Frames and messages: what is sent arrives, and nothing but what is allowed is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, fields
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve_tools import STATS

from openautoglm.serve.worker import messages
from openautoglm.serve.worker.checks import data, flag, many, maybe, one_of, real, row, text, whole
from openautoglm.serve.worker.frames import MOST_BYTES, Frames, ProtocolError, framed
from openautoglm.serve.worker.messages import FROM_ENGINE, TO_ENGINE, Message, decode, encode

KNOWN = {**TO_ENGINE, **FROM_ENGINE}
GOOD: dict[str, Message] = {type(message).__name__: message for message in (
    messages.Setup("/tmp/bundle", "{}", (0, 1)),
    messages.Ask(3, b"\1\0\0\0", "{}", 0, 1.5, ("regex", "a+"), ("stop\ud800",), b"salt", "id"),
    messages.Embed(4, b"\1\0\0\0\2\0\0\0", (1, 1)),
    messages.Cancel(b"\1\0\0\0"),
    messages.Ping(),
    messages.Leave(),
    messages.Hello(50, 128, 16, 64, 8, 4, 2**40, 500, "native", "f" * 64),
    messages.Broken("damaged", "bundle", None),
    messages.Step(9, b"\1\0\0\0", b"\5\0\0\0", ((1, 0, (5, 6), (-0.5, -1.5), (((7, -0.1),), ()), "stop", 0.5),), b""),
    messages.Refused(1, "bad_request", "is empty", "prompt", None, None),
    messages.Embedded(4, 2, b"\0" * 16),
    messages.Beat(9, True, 0.5, astuple(STATS)),
)}
WRONG: dict[str, dict[str, list[Any]]] = {
    "Setup": {"bundle": [3, "x" * 5000], "settings": [b""], "cpus": [(-1,), ("a",), 3]},
    "Ask": {"number": [-1, 2**31, 1.0, True, "1"], "prompt": [b"123", b"\0" * (9 << 20), "text", None],
            "decoding": [b"{}", "x" * (2 << 20)], "priority": [2**40, 0.5],
            "timeout_s": [float("nan"), float("inf"), "1"],
            "grammar": [("pickle", "x"), ("regex",), "regex", ("regex", b"")],
            "stops": [("x",) * 65, ("x" * 5000,), (1,), "stop"], "salt": ["salt", b"x" * 5000],
            "id": [b"", "x" * 5000]},
    "Embed": {"number": [-1], "ids": [b"1"], "lengths": [(0,), (1,) * 5000]},
    "Cancel": {"numbers": [b"123", ()]},
    "Hello": {"vocab_size": [-1], "page_size": [0], "max_batch": [0, 1 << 20], "target": [b"native", "x" * 99]},
    "Broken": {"message": [None], "where": [3]},
    "Step": {"steps": [-1, 2**60], "numbers": [b"12345678"], "ids": [b""], "ended": [b"1"],
             "pieces": [((1, 0, (5,), (), (), None),), ((1, 0, (-5,), (), (), None, None),),
                        ((1, 999, (), (), (), None, None),), ((1, 0, (5,), (float("nan"),), (), None, None),),
                        ((1, 0, (), (), (), "exploded", None),), ((1, 0, (5,), (), (), None, -1.0),), (3,)]},
    "Refused": {"kind": ["MemoryError", 3], "retry_after_s": [-1, float("nan")]},
    "Embedded": {"hidden": [0, 3], "rows": [b"123", []]},
    "Beat": {"busy": [1, None], "slow_s": [-1.0, float("nan")], "stats": [(1,) * 99, ("a",) * 22, (-1,) * 22, None]},
}
CASES = [(kind, field, number) for kind, wrong in WRONG.items() for field, values in wrong.items()
         for number in range(len(values))]


def packed(kind: str, values: Mapping[str, Any]) -> bytes:
    body: bytes = msgpack.packb([kind, values], unicode_errors="surrogatepass")
    return body


def test_every_message_is_tried() -> None:
    assert set(GOOD) == set(KNOWN)
    assert {kind: set(made.checks) for kind, made in KNOWN.items()} == {
        kind: {field.name for field in fields(made)} for kind, made in KNOWN.items()}, "a field without a check"


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_messages_arrive(kind: str) -> None:
    message = GOOD[kind]
    assert decode(encode(message), KNOWN) == message


@pytest.mark.parametrize(("kind", "field", "number"), CASES, ids=lambda value: str(value))
def test_wrong_fields_are_refused_on_both_sides(kind: str, field: str, number: int) -> None:
    values = {**vars(GOOD[kind]), field: WRONG[kind][field][number]}
    with pytest.raises(ProtocolError, match=f"{kind}|no message"):
        decode(packed(kind, values), KNOWN)
    with pytest.raises(ProtocolError):
        KNOWN[kind](**values)


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_fields_are_those_of_the_kind(kind: str) -> None:
    values = vars(GOOD[kind])
    with pytest.raises(ProtocolError, match="other fields"):
        decode(packed(kind, {**values, "more": 1}), KNOWN)
    for name in values:
        with pytest.raises(ProtocolError, match="other fields"):
            decode(packed(kind, {key: value for key, value in values.items() if key != name}), KNOWN)


def test_kinds_of_the_other_direction_are_refused() -> None:
    for kind in FROM_ENGINE:
        with pytest.raises(ProtocolError):
            decode(encode(GOOD[kind]), TO_ENGINE)
    for kind in TO_ENGINE:
        with pytest.raises(ProtocolError):
            decode(encode(GOOD[kind]), FROM_ENGINE)


def readable(body: bytes, known: Mapping[str, type[Message]] = KNOWN) -> bool:
    """Whether bytes are a message; a failure that is no refusal comes through."""
    try:
        return isinstance(decode(body, known), Message)
    except ProtocolError:
        return False


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    assert not readable(noise)


@given(st.sampled_from(sorted(KNOWN)), st.data())
def test_damaged_messages_are_refused_or_still_within_bounds(kind: str, draw: st.DataObject) -> None:
    body = bytearray(encode(GOOD[kind]))
    for _ in range(draw.draw(st.integers(1, 4))):
        body[draw.draw(st.integers(0, len(body) - 1))] = draw.draw(st.integers(0, 255))
    if readable(bytes(body)):
        again = decode(bytes(body), KNOWN)
        assert all(check(getattr(again, name)) for name, check in again.checks.items())


VALUES = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**63 - 1) | st.floats() | st.text(max_size=8)
                      | st.binary(max_size=8), lambda inner: st.lists(inner, max_size=4)
                      | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=12)


@given(st.sampled_from(sorted(KNOWN)), st.data())
def test_any_values_in_any_fields(kind: str, draw: st.DataObject) -> None:
    values = {name: draw.draw(VALUES) for name in KNOWN[kind].checks}
    if readable(msgpack.packb([kind, values])):
        KNOWN[kind](**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@given(VALUES)
def test_any_values_as_a_message(value: Any) -> None:
    readable(msgpack.packb(value))
    readable(msgpack.packb([value, value]))


def test_deep_nesting_is_refused() -> None:
    assert not readable(b"\x91" * 100_000 + b"\xc0")
    assert not readable(b"\x81\xa1a" * 100_000 + b"\xc0")


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 60))
def test_frames_come_whole_however_they_are_cut(bodies: list[bytes], size: int) -> None:
    stream = b"".join(framed(body) for body in bodies)
    frames, found = Frames(), []
    for start in range(0, len(stream), size):
        found += list(frames.feed(stream[start:start + size]))
    assert found == bodies


def test_long_frames_are_refused_before_they_are_read() -> None:
    with pytest.raises(ProtocolError, match="longer"):
        list(Frames().feed((MOST_BYTES + 1).to_bytes(4, "little")))
    with pytest.raises(ProtocolError, match="longer"):
        framed(bytes(MOST_BYTES + 1))
    bodies = Frames().feed(framed(b"ab") + b"\xff" * 4)
    assert next(bodies) == b"ab"
    with pytest.raises(ProtocolError, match="longer"):
        next(bodies)


def test_checks_convert_nothing() -> None:
    assert [whole(0, 3)(value) for value in (0, 3, 4, -1, True, 1.0, "1", None)] == [True, True] + [False] * 6
    assert [real(0, 3)(value) for value in (0, 2.5, float("nan"), True, "1")] == [True, True, False, False, False]
    assert real()(float("-inf"))
    assert [flag(value) for value in (True, False, 1, 0, None)] == [True, True, False, False, False]
    assert [text(2)(value) for value in ("ab", "abc", b"ab")] == [True, False, False]
    assert [data(4, 4)(value) for value in (b"", b"abcd", b"abc", b"abcdabcd", "abcd")] == [True, True] + [False] * 3
    assert [one_of("a")(value) for value in ("a", "b", ["a"])] == [True, False, False]
    assert [maybe(flag)(value) for value in (None, True, 3)] == [True, True, False]
    assert [many(flag, 2)(value) for value in ((), [True], (True,) * 3, (1,), "ab")] == [True, True] + [False] * 3
    assert [row(flag, flag)(value) for value in ((True, False), (True,), (True, 1))] == [True, False, False]
