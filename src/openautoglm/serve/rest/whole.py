"""Answers that are sent as a whole, in OpenAI's forms."""

from __future__ import annotations

from typing import Any

from openautoglm.serve.rest.logprobs import Offsets, chat_logprobs, completion_logprobs
from openautoglm.serve.service.values import Delta, Finish, TokenLogprob, Usage


class Gathered:
    """The answers of one request, put together from what was added.

    Args:
        count: answers that come.
    """

    def __init__(self, count: int) -> None:
        self._texts: list[list[str]] = [[] for _ in range(count)]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(count)]
        self._finishes: list[Finish | None] = [None] * count

    def add(self, delta: Delta) -> None:
        """Take what was added to an answer."""
        self._texts[delta.choice].append(delta.text)
        self._logprobs[delta.choice] += delta.logprobs
        self._finishes[delta.choice] = delta.finish or self._finishes[delta.choice]

    def deltas(self) -> list[Delta]:
        """Each answer as if it had come at once."""
        return [Delta(index, "".join(parts), tuple(self._logprobs[index]), self._finishes[index])
                for index, parts in enumerate(self._texts)]

    def completion(self, head: dict[str, Any], usage: Usage, *, logprobs: bool) -> dict[str, Any]:
        """The reply to a completion."""
        choices = [{"index": index, "text": "".join(parts),
                    "logprobs": completion_logprobs(self._logprobs[index], Offsets()) if logprobs else None,
                    "finish_reason": self._finishes[index]} for index, parts in enumerate(self._texts)]
        return {**head, "choices": choices, "usage": usage.as_json()}

    def chat(self, head: dict[str, Any], usage: Usage, *, logprobs: bool,
             call: tuple[str, str] | None) -> dict[str, Any]:
        """The reply to a chat; `call` is the id and the name of a function that is called."""
        choices = [{"index": index, "message": _message("".join(parts), call),
                    "logprobs": chat_logprobs(self._logprobs[index]) if logprobs else None,
                    "finish_reason": self._finishes[index]} for index, parts in enumerate(self._texts)]
        return {**head, "choices": choices, "usage": usage.as_json()}


def _message(text: str, call: tuple[str, str] | None) -> dict[str, Any]:
    if call is None:
        return {"role": "assistant", "content": text, "refusal": None}
    number, name = call
    function = {"id": number, "type": "function", "function": {"name": name, "arguments": text}}
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [function]}
