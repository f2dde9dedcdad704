"""Fields that take one thing or a list of things, told apart by hand so that an error names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, "minItems": 1}
_TEXT = {"type": "string"}
_RECORD = {"type": "object", "minProperties": 1}

Item = str | tuple[int, ...] | dict[str, Any]


def _ids(value: Any) -> tuple[int, ...] | None:
    """Ids, or None where it is none."""
    if not isinstance(value, list) or not value:
        return None
    whole = [int(item) if isinstance(item, float) and item.is_integer() else item for item in value]
    fit = all(type(item) is int and 0 <= item < 2**31 for item in whole)
    return tuple(whole) if fit else None


def _one(value: Any, records: bool) -> Item | None:
    if isinstance(value, str):
        return value
    if records and isinstance(value, dict):
        return value or None
    return _ids(value)


def _items(records: bool) -> Callable[[Any], tuple[Item, ...]]:
    what = "a text, an object that is not empty, a list of ids, or a list of these" if records else \
        "a text, a list of ids, or a list of these"

    def read(value: Any) -> tuple[Item, ...]:
        if isinstance(value, tuple):  # read already
            return value
        single = _one(value, records)
        if single is not None:
            return (single,)
        if not isinstance(value, list):
            raise ValueError(f"must be {what}")
        if not value:
            raise ValueError("is an empty list: give at least one")
        found = tuple(_one(item, records) for item in value)
        if None in found:
            raise ValueError(f"must be {what}; item {found.index(None)} is none of them")
        return tuple(item for item in found if item is not None)

    return read


def _strings(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(item, str) for item in values):
        raise ValueError("must be a text or a list of texts")
    if not all(values):
        raise ValueError("holds an empty text, at which everything would end")
    return tuple(values)


def _either(*single: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of one of these, or a list of them."""
    return {"anyOf": [*single, {"type": "array", "items": {"anyOf": list(single)}, "minItems": 1}]}


Prompt = Annotated[tuple[Item, ...], PlainValidator(_items(True)), WithJsonSchema(_either(_TEXT, _IDS, _RECORD))]
Texts = Annotated[tuple[Item, ...], PlainValidator(_items(False)), WithJsonSchema(_either(_TEXT, _IDS))]
Stop = Annotated[tuple[str, ...], PlainValidator(_strings), WithJsonSchema(
    {"anyOf": [{**_TEXT, "minLength": 1}, {"type": "array", "items": {**_TEXT, "minLength": 1}}]})]
