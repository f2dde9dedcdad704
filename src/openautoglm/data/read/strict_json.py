"""JSON after RFC 8259: no NaN, no duplicate keys, no lone surrogates, bounded depth; numbers as written."""

from __future__ import annotations

import json
import re
from typing import Any

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class StrictJsonError(ValueError):
    """Text that is not strict JSON: a reason slug and a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Number(str):
    """A JSON number, kept as it was written: ``1.50`` stays ``1.50``, however many digits."""

    __slots__ = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise StrictJsonError("duplicate_key", f"the key {twice[:100]!r} stands twice in one object")
    return value


def _constant(name: str) -> Any:
    raise StrictJsonError("not_finite", f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=Number,
                            parse_int=Number)


def parse(text: str, max_depth: int) -> Any:
    """Parse one JSON value; numbers become `Number`.

    Raises:
        StrictJsonError: reasons ``invalid_json``, ``not_finite``, ``duplicate_key``, ``lone_surrogate``,
            ``too_deep``, ``nul_byte``.
    """
    if text.count("[") + text.count("{") > max_depth and _deeper(text, max_depth):
        raise StrictJsonError("too_deep", f"nested deeper than max_json_depth ({max_depth})")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if "\0" in text:
            raise StrictJsonError("nul_byte", f"NUL at character {text.index(chr(0)) + 1}") from error
        raise StrictJsonError("invalid_json", f"{error.msg} at character {error.pos + 1}") from error
    if "\\u" in text and has_surrogate(value):
        raise StrictJsonError("lone_surrogate", "half of a surrogate pair, which is no character")
    return value


def parse_first(text: str, start: int, max_depth: int, max_chars: int) -> tuple[Any, int] | None:
    """Parse the value that begins at `start`: the quick way, for a value that is whole, small and faultless.

    Returns:
        The value and where it ends; None when the slow way must look.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    deep = text.count("[", start, end) + text.count("{", start, end) > max_depth
    half = text.find("\\u", start, end) >= 0 and has_surrogate(value)
    return None if deep or half or end - start > max_chars else (value, end)


def _deeper(text: str, max_depth: int) -> bool:
    """Whether brackets outside strings are nested deeper than `max_depth`."""
    level = 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if first in "[{":
            level += 1
            if level > max_depth:
                return True
        elif first != '"':
            level -= 1
    return False


def has_surrogate(value: Any) -> bool:
    """Whether a text in a value, whose depth is bounded, holds half of a surrogate pair."""
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(has_surrogate(key) or has_surrogate(item) for key, item in value.items())
    return isinstance(value, list) and any(map(has_surrogate, value))
