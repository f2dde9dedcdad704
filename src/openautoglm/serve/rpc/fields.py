"""From the messages of `text.proto` to the fields of an ask; what they may hold is the validator's business."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from openautoglm.serve.faults import BadRequest
from openautoglm.serve.wire.json_body import parse_json, parse_object
from openautoglm.serve.wire.limits import Limits

_FORM_FIELDS = {"json_schema": "json", "json_object": "json_object", "regex": "regex", "choice": "choice"}


def plain(message: Any, *but: str) -> dict[str, Any]:
    """The fields of a message that are set and are no messages themselves; `but` are left out.

    Raises:
        BadRequest: a number is none.
    """
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        name = field.name
        if name in but:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            found[name] = {str(key): _number(name, item) for key, item in value.items()}
        elif field.message_type is None:
            found[name] = list(value) if field.is_repeated else _number(name, value)
    return found


def _number(name: str, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRequest("is no number", where=name, remedy="correct it")
    return value


def options_of(options: Any, limits: Limits) -> dict[str, Any]:
    """The fields of `Options`."""
    found = plain(options)
    kind = options.form.WhichOneof("kind") if options.HasField("form") else None
    if kind is not None:
        value: Any = getattr(options.form, kind)
        if kind == "json_schema":
            value = record_of(value.encode(), "form.json_schema", limits)
        elif kind == "choice":
            value = list(value.texts)
        found["structured_outputs"] = {_FORM_FIELDS[kind]: value}
    return found


def prompt_of(prompt: Any, where: str, limits: Limits) -> Any:
    """A text, a record or ids.

    Raises:
        BadRequest: it is none of them, or the record is no JSON object.
    """
    kind = prompt.WhichOneof("kind")
    if kind is None:
        raise BadRequest("is empty", where=where, remedy="give text, record or ids")
    if kind == "record":
        return record_of(prompt.record.encode(), where, limits)
    return prompt.text if kind == "text" else list(prompt.ids.ids)


def record_of(text: bytes, where: str, limits: Limits) -> dict[str, Any]:
    """A record from JSON.

    Raises:
        BadRequest: it is no JSON object.
    """
    try:
        return parse_object(text, limits.json_depth)
    except BadRequest as fault:
        raise BadRequest(fault.message, where=where, remedy="give a JSON object, in UTF-8") from fault


def messages_of(messages: Iterable[Any]) -> list[dict[str, Any]]:
    """The messages of a conversation."""
    found = []
    for message in messages:
        made = plain(message)
        made.setdefault("role", "")
        if message.tool_calls:
            made["tool_calls"] = [{**({"id": call.id} if call.id else {}), "function": {
                "name": call.name, "arguments": call.arguments}} for call in message.tool_calls]
        found.append(made)
    return found


def tools_of(request: Any, limits: Limits) -> dict[str, Any]:
    """The functions of a chat, and which of them must be called."""
    found: dict[str, Any] = {}
    if request.tools:
        found["tools"] = [{"type": "function", "function": _function(tool, number, limits)}
                          for number, tool in enumerate(request.tools)]
    kind = request.WhichOneof("tool_choice")
    if kind == "tool_mode":
        found["tool_choice"] = request.tool_mode
    elif kind == "tool_name":
        found["tool_choice"] = {"type": "function", "function": {"name": request.tool_name}}
    return found


def _function(tool: Any, number: int, limits: Limits) -> dict[str, Any]:
    made = {"name": "", **plain(tool)}
    if "parameters" in made:
        made["parameters"] = record_of(made["parameters"].encode(), f"tools.{number}.parameters", limits)
    return made


def conversation_of(text: bytes, where: str, limits: Limits) -> list[Any]:
    """Messages from a JSON list.

    Raises:
        BadRequest: it is none.
    """
    try:
        found = parse_json(text, limits.json_depth)
    except BadRequest as fault:
        raise BadRequest(fault.message, where=where, remedy="give a JSON list of messages, in UTF-8") from fault
    if not isinstance(found, list):
        raise BadRequest("is JSON, but no list", where=where, remedy=f"write e.g. {json.dumps([_EXAMPLE])}")
    return found


_EXAMPLE = {"role": "user", "content": "Hello"}
