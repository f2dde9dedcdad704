"""JSON from clients after RFC 8259: UTF-8, no NaN, no duplicate keys, no lone surrogates, bounded depth."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from openautoglm.data.read.strict_json import has_surrogate
from openautoglm.serve.faults import BadRequest

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_FORM = "send one JSON object, in UTF-8"


class Written(float):
    """A number with a fraction or an exponent; its text is the one that the client wrote.

    A record is rendered with its numbers as they stand there, in serving as in training: ``1.50`` stays ``1.50``.
    """

    _text: str

    def __new__(cls, text: str) -> Written:
        """Read a number.

        Raises:
            ValueError: it is larger than a float can be.
        """
        made = super().__new__(cls, text)
        if not math.isfinite(made):
            raise ValueError(f"the number {text[:40]} is out of range")
        made._text = text
        return made

    def __str__(self) -> str:
        return self._text


def parse_object(body: bytes, max_depth: int) -> dict[str, Any]:
    """Read the JSON object that a body consists of.

    Raises:
        BadRequest: it is none; says at which character it goes wrong.
    """
    value = parse_json(body, max_depth)
    if not isinstance(value, dict):
        raise BadRequest("is JSON, but not an object", where="body", remedy=_FORM)
    return value


def parse_json(body: bytes, max_depth: int) -> Any:
    """Read the JSON value that a body consists of.

    Raises:
        BadRequest: it is none; says at which character it goes wrong.
    """
    if (body.count(b"[") + body.count(b"{") > max_depth) and _deeper(body, max_depth):
        raise BadRequest(f"is nested more than {max_depth} levels deep", where="body", remedy="send it less nested")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"is not UTF-8 at byte {error.start}", where="body", remedy=_FORM) from error
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadRequest(f"is not JSON: {error.msg} at character {error.pos + 1}", where="body",
                         remedy=_FORM) from error
    except ValueError as error:  # a duplicate key, or a number that is none or too large
        raise BadRequest(f"is not strict JSON: {str(error)[:200]}", where="body", remedy=_FORM) from error
    if b"\\u" in body and has_surrogate(value):
        raise BadRequest("holds half of a surrogate pair, which is no character", where="body", remedy=_FORM)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=Written)


def _deeper(body: bytes, max_depth: int) -> bool:
    """Whether brackets outside strings are nested deeper than `max_depth`."""
    level = 0
    for token in _TOKEN.finditer(body):
        first = token[0][:1]
        if first in b"[{":
            level += 1
            if level > max_depth:
                return True
        elif first != b'"':
            level -= 1
    return False
