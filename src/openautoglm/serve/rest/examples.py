"""Examples of asks for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_MODEL = "model"
_RECORD = {"name": "The Punter", "food": "Italian", "area": "riverside"}
COMPLETION: dict[str, Any] = {
    "text": {"summary": "A text", "value": {"model": _MODEL, "prompt": "The Punter is", "max_tokens": 16}},
    "record": {"summary": "A record, rendered as in training",
               "value": {"model": _MODEL, "prompt": _RECORD, "max_tokens": 64, "temperature": 0}},
    "batch": {"summary": "Two texts, streamed", "value": {"model": _MODEL, "prompt": ["One", "Two"], "max_tokens": 8,
                                                          "stream": True, "stream_options": {"include_usage": True}}},
}
CHAT: dict[str, Any] = {
    "chat": {"summary": "A question", "value": {"model": _MODEL, "max_tokens": 32, "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is The Punter?"}]}},
    "schema": {"summary": "JSON by a schema", "value": {
        "model": _MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "Rate The Punter."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "rating", "schema": {
            "type": "object", "properties": {"stars": {"type": "integer", "minimum": 0, "maximum": 5}},
            "required": ["stars"], "additionalProperties": False}}}}},
    "long": {"summary": "A long conversation, cut to what fits", "value": {
        "model": _MODEL, "max_tokens": 32, "truncate": "turns",
        "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"},
                     {"role": "user", "content": "Go on."}]}},
}
EMBEDDING: dict[str, Any] = {"texts": {"summary": "Two texts", "value": {"model": _MODEL, "input": ["One", "Two"]}}}
TOKENIZE: dict[str, Any] = {"text": {"summary": "A text", "value": {"model": _MODEL, "prompt": "The Punter"}}}
DETOKENIZE: dict[str, Any] = {"ids": {"summary": "Ids", "value": {"model": _MODEL, "tokens": [20, 21, 22]}}}
