"""Server-sent events of a streamed answer. What is the same in all of them is written once; a piece costs little more
than its text."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Protocol

from openautoglm.serve.faults import Fault
from openautoglm.serve.rest.errors import error_bytes
from openautoglm.serve.rest.logprobs import Offsets, chat_logprobs, completion_logprobs
from openautoglm.serve.service.values import Delta, Usage

DONE = b"data: [DONE]\n\n"
_NO_LOGPROBS = '"logprobs":null,"finish_reason":'


class Events(Protocol):
    """Writes the events of one request."""

    def event(self, delta: Delta) -> bytes:
        """What was added to an answer; empty where nothing is to be told."""

    def usage(self, usage: Usage) -> bytes:
        """The counts of tokens, after all else."""


class _Frame:
    """The beginning and the end that all events of a request share."""

    def __init__(self, head: dict[str, Any], *, usage: bool) -> None:
        self._head = f"data: {json.dumps(head, separators=(',', ':'))[:-1]},"
        self.start = f'{self._head}"choices":[{{"index":'
        self.end = '}],"usage":null}\n\n' if usage else "}]}\n\n"

    def last(self, usage: Usage) -> bytes:
        told = json.dumps(usage.as_json(), separators=(",", ":"))
        return f'{self._head}"choices":[],"usage":{told}}}\n\n'.encode()


class CompletionEvents:
    """Events of a completion."""

    def __init__(self, head: dict[str, Any], *, usage: bool, logprobs: bool) -> None:
        self._frame = _Frame(head, usage=usage)
        self._offsets: dict[int, Offsets] | None = {} if logprobs else None

    def event(self, delta: Delta) -> bytes:
        """See `Events`."""
        if not (delta.text or delta.finish or delta.logprobs):
            return b""
        frame = self._frame
        finish = "null" if delta.finish is None else f'"{delta.finish}"'
        start = f'{frame.start}{delta.choice},"text":{quoted(delta.text)},'
        if self._offsets is None:
            return f"{start}{_NO_LOGPROBS}{finish}{frame.end}".encode()
        told = json.dumps(completion_logprobs(delta.logprobs, self._offsets.setdefault(delta.choice, Offsets())))
        return f'{start}"logprobs":{told},"finish_reason":{finish}{frame.end}'.encode()

    def usage(self, usage: Usage) -> bytes:
        """See `Events`."""
        return self._frame.last(usage)


class ChatEvents:
    """Events of a chat; the first of each answer says whose turn it is."""

    def __init__(self, head: dict[str, Any], *, usage: bool, logprobs: bool, call: tuple[str, str] | None) -> None:
        self._frame = _Frame(head, usage=usage)
        self._logprobs, self._call = logprobs, call
        self._begun: set[int] = set()

    def event(self, delta: Delta) -> bytes:
        """See `Events`."""
        frame, choice = self._frame, delta.choice
        first = b""
        if choice not in self._begun:
            self._begun.add(choice)
            first = f'{frame.start}{choice},"delta":{self._opening()},{_NO_LOGPROBS}null{frame.end}'.encode()
        if not (delta.text or delta.finish or delta.logprobs):
            return first
        finish = "null" if delta.finish is None else f'"{delta.finish}"'
        start = f'{frame.start}{choice},"delta":{self._content(delta.text)},'
        if not self._logprobs:
            return first + f"{start}{_NO_LOGPROBS}{finish}{frame.end}".encode()
        told = json.dumps(chat_logprobs(delta.logprobs))
        return first + f'{start}"logprobs":{told},"finish_reason":{finish}{frame.end}'.encode()

    def usage(self, usage: Usage) -> bytes:
        """See `Events`."""
        return self._frame.last(usage)

    def _opening(self) -> str:
        if self._call is None:
            return '{"role":"assistant","content":""}'
        number, name = self._call
        function = {"index": 0, "id": number, "type": "function", "function": {"name": name, "arguments": ""}}
        return json.dumps({"role": "assistant", "content": None, "tool_calls": [function]})

    def _content(self, text: str) -> str:
        if not text:
            return "{}"
        if self._call is None:
            return f'{{"content":{quoted(text)}}}'
        return f'{{"tool_calls":[{{"index":0,"function":{{"arguments":{quoted(text)}}}}}]}}'


def chunk(told: dict[str, Any]) -> bytes:
    """An event of any form."""
    return b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


def error_event(fault: Fault) -> bytes:
    """A fault that came under way."""
    return b"data: " + error_bytes(fault) + b"\n\n"
