"""Conversations in OpenAI form: the last assistant turn is the target, what came before it is its context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openautoglm.core.values import Turn
from openautoglm.data.read.json_lines import kind
from openautoglm.data.read.strict_json import StrictJsonError, parse
from openautoglm.data.read.values import UnfitError

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant",
         "tool": "observation", "function": "observation", "observation": "observation"}


def conversation(values: Mapping[str, Any], column: str, max_depth: int) -> tuple[str, str, tuple[Turn, ...]]:
    """Split a conversation into (source, target, earlier turns): one example, learnt from its last answer.

    The source is the user turn right before the last assistant turn. Where another turn stands there (a
    tool's result), the source is empty and that turn is the last of the earlier ones. Turns after the last
    assistant turn are not used. The roles ``tool`` and ``function`` become ``observation``; a call of a tool
    becomes the assistant turn ``name``, newline, arguments.

    Raises:
        UnfitError: ``missing_column``, ``not_messages``, ``unknown_role``, ``not_text``, ``nul_byte``,
            ``empty``, ``no_assistant_turn``.
    """
    if column not in values:
        raise UnfitError("missing_column",
                         f"the row has no column {column!r} (it has: {', '.join(list(values)[:20])})")
    messages = values[column]
    if type(messages) is str:
        try:
            messages = parse(messages, max_depth)
        except StrictJsonError as error:
            raise UnfitError(error.reason, f"the column {column!r}: {error.detail}") from error
    if not isinstance(messages, list) or not messages:
        raise UnfitError("not_messages", f"the column {column!r} is not a list of messages")
    turns = [_turn(message, place) for place, message in enumerate(messages, 1)]
    last = next((place for place in range(len(turns) - 1, -1, -1) if turns[place].role == "assistant"), None)
    if last is None:
        raise UnfitError("no_assistant_turn", "the conversation has no assistant turn to learn")
    if last == 0:
        raise UnfitError("no_prompt", "nothing stands before the assistant turn")
    target = turns[last].text
    if not target.strip():
        raise UnfitError("empty", "the last assistant turn is empty")
    if turns[last - 1].role == "user":
        return turns[last - 1].text, target, tuple(turns[:last - 1])
    return "", target, tuple(turns[:last])


def _turn(message: Any, place: int) -> Turn:
    if not isinstance(message, dict):
        raise UnfitError("not_messages", f"message {place} is a JSON {kind(message)}, not an object")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise UnfitError("unknown_role",
                         f"message {place} has the role {str(role)[:60]!r}; known: {', '.join(ROLES)}")
    text = _content(message.get("content"), place)
    calls = message.get("tool_calls")
    if calls:
        text = "\n".join([*([text] if text else []), *(_call(call, place) for call in _list(calls, place))])
    if "\0" in text:
        raise UnfitError("nul_byte", f"message {place} holds a NUL character")
    return Turn(ROLES[role], text)


def _content(content: Any, place: int) -> str:
    """The text of a message: a string, null, or a list of text parts."""
    if content is None:
        return ""
    if type(content) is str:
        return content
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
             for part in _list(content, place)]
    if any(type(part) is not str for part in parts):
        raise UnfitError("not_text", f"message {place} holds a part that is not text")
    return "".join(str(part) for part in parts)


def _call(call: Any, place: int) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if type(name) is not str or type(arguments) is not str:
        raise UnfitError("not_text", f"message {place} calls a tool without name and arguments as text")
    return f"{name}\n{arguments}"


def _list(value: Any, place: int) -> list[Any]:
    if not isinstance(value, list):
        raise UnfitError("not_text", f"message {place} has content that is a JSON {kind(value)}")
    return value
