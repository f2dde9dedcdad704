"""Pydantic's errors as faults of a task file: key path, line, column, message, nearest valid key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from openautoglm.core.errors import Fault
from openautoglm.pipeline.positions import Document, KeyPath, key_text


def faults_of(error: ValidationError, document: Document, model: type[BaseModel],
              prefix: KeyPath = ()) -> list[Fault]:
    """Every fault of a validation, in file order; those of one place (branches of a union) are joined."""
    grouped: dict[tuple[KeyPath, bool], list[dict[str, Any]]] = {}
    for item in error.errors(include_url=False):
        unknown = item["type"] == "extra_forbidden"
        path = _place((*prefix, *item["loc"]), document, last_may_miss=item["type"] == "missing")
        grouped.setdefault((path, unknown), []).append(dict(item))
    deep = [path for path, _ in grouped]
    faults = []
    for (path, unknown), items in grouped.items():
        if not unknown and any(len(other) > len(path) and other[: len(path)] == path for other in deep):
            continue  # a branch of a union that complains of the whole, while another names the part
        faults.append(_fault(path, items, document, model, unknown=unknown))
    return sorted(faults, key=lambda fault: (fault.line, fault.column))


def _fault(path: KeyPath, items: Sequence[dict[str, Any]], document: Document, model: type[BaseModel], *,
           unknown: bool) -> Fault:
    mark = document.mark(path, of_key=unknown)
    key = key_text(path)
    if unknown:
        known = sorted(_keys_at(model, path[:-1]))
        return Fault(key, *mark, "unknown key", _nearest(str(path[-1]), known))
    messages = list(dict.fromkeys(_message(item) for item in items))
    remedy = next((hint for item in items if (hint := _value_hint(item))), "")
    return Fault(key, *mark, " or ".join(messages), remedy)


def _message(item: dict[str, Any]) -> str:
    if item["type"] == "missing":
        return "required, but missing"
    if item["type"] == "union_tag_invalid":
        return f"there is no {_plain(item['ctx']['discriminator'])} {item['ctx']['tag']!r}"
    if item["type"] == "union_tag_not_found":
        return f"lacks the key {_plain(item['ctx']['discriminator'])}"
    text = str(item["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    text = text.replace("Input should be", "must be")
    shown = repr(item.get("input"))
    if item["type"] != "value_error" and len(shown) <= 60 and not isinstance(item.get("input"), dict | list):
        text += f", not {shown}"
    return text


def _value_hint(item: dict[str, Any]) -> str:
    """For a wrong word in place of one of a few: the nearest of them."""
    if item["type"] == "union_tag_invalid":
        return _nearest(str(item["ctx"]["tag"]), re.findall(r"'([^']*)'", str(item["ctx"]["expected_tags"])))
    if item["type"] != "literal_error" or not isinstance(item.get("input"), str):
        return ""
    allowed = re.findall(r"'([^']*)'", str(item["ctx"]["expected"]))
    near = difflib.get_close_matches(item["input"], allowed, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else ""


def _plain(name: object) -> str:
    return str(name).strip("'")


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.55)
    if near:
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(known)}" if known else ""


def _place(loc: Sequence[str | int], document: Document, *, last_may_miss: bool) -> KeyPath:
    """The part of pydantic's location that stands in the file, without tags of unions and validators."""
    node, path = document.value, list[str | int]()
    for index, part in enumerate(loc):
        inside = isinstance(node, dict) and isinstance(part, str) and part in node
        if inside or (isinstance(node, list) and isinstance(part, int) and part < len(node)):
            node = node[part]
        elif not (last_may_miss and index == len(loc) - 1):
            continue
        path.append(part)
    return tuple(path)


def _keys_at(model: type[BaseModel], path: KeyPath) -> set[str]:
    """The keys that a mapping at `path` may have, over all models that can stand there."""
    annotations: list[Any] = [model]
    for part in path:
        annotations = [inner for annotation in annotations for inner in _inside(annotation, part)]
    return {key for annotation in annotations if _is_model(annotation) for key in annotation.model_fields}


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    """What may stand at `part` of a value of this type, alternatives and all."""
    if _is_model(annotation):
        if part in annotation.model_fields:
            yield from _alternatives(annotation.model_fields[part].annotation)
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict and isinstance(part, str):
        yield from _alternatives(arguments[1])
    elif origin in (tuple, list) and isinstance(part, int):
        yield from _alternatives(arguments[0])


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, without the wrapping of annotated types."""
    origin = get_origin(annotation)
    if origin is None or origin in (dict, tuple, list):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _alternatives(part)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
