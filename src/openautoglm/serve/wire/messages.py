"""Messages of a conversation and the functions they speak of, in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from openautoglm.serve.wire.fields import Ask, Flag, Text

Role = Literal["system", "developer", "user", "assistant", "tool"]
_PART = {"type": "object", "required": ["type", "text"], "additionalProperties": False,
         "properties": {"type": {"const": "text"}, "text": {"type": "string"}}}


def _content(value: Any) -> Any:
    """The text of a message: as it is, or put together from parts."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a text, or a list of parts such as {\"type\": \"text\", \"text\": \"...\"}")
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise ValueError("holds a part that is not text: this model reads text alone, and nothing is fetched")
        if not isinstance(part.get("text"), str) or len(part) != 2:
            raise ValueError("holds a part of text that has other fields than type and text")
    return "".join(part["text"] for part in value)


Content = Annotated[Text | None, PlainValidator(_content), WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}]})]


class CalledFunction(Ask):
    """Name and arguments (JSON as text) of a call."""

    name: Text = Field(min_length=1)
    arguments: Text


class ToolCall(Ask):
    """A call that the model made."""

    id: Text | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Ask):
    """One message.

    Attributes:
        content: text; of an assistant's message with calls it may be null.
        tool_calls: calls that the assistant made.
        tool_call_id, name, refusal, annotations, audio, function_call, reasoning_content: as clients send answers back;
            of no effect.
    """

    role: Role
    content: Content = None
    name: Text | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: Text | None = None
    refusal: Text | None = None
    annotations: tuple[Any, ...] | None = None
    audio: None = None
    function_call: None = None
    reasoning_content: Text | None = None


class Function(Ask):
    """A function that may be called."""

    name: Text = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: Flag | None = None


class Tool(Ask):
    """A tool: a function."""

    type: Literal["function"]
    function: Function


class NamedFunction(Ask):
    """The name of a function."""

    name: Text = Field(min_length=1)


class NamedTool(Ask):
    """The function that must be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool
