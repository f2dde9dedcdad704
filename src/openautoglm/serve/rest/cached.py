"""Answers as the cache keeps them, and how they are given again: whole or as events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from typing import Any

from openautoglm.serve.rest.whole import Gathered
from openautoglm.serve.service.answering import Answering
from openautoglm.serve.service.values import Delta, TokenLogprob, Usage


class Replayed:
    """An answer from the cache; see `Answering` for what it offers."""

    unkept = None

    def __init__(self, body: bytes) -> None:
        told = json.loads(body)
        self.fingerprint: str = told["fingerprint"]
        self.tool: str | None = told["tool"]
        self.usage = Usage(**told["usage"])
        self._deltas = [Delta(number, text, tuple(map(_logprob, logprobs)), finish)
                        for number, (text, logprobs, finish) in enumerate(told["choices"])]

    @property
    def count(self) -> int:
        """Answers that come."""
        return len(self._deltas)

    def tap(self, ready: Callable[[], bool], take: Callable[[Delta], None]) -> None:
        """See `Answering`; here all deltas are yielded."""

    async def stream(self) -> AsyncGenerator[Delta, None]:
        """Each answer as a whole."""
        for delta in self._deltas:
            yield delta


Answers = Answering | Replayed


def packed(gathered: Gathered, answering: Answers, fingerprint: str) -> bytes:
    """An answer that has ended, in a form that can be kept."""
    choices = [(delta.text, [_told(token) for token in delta.logprobs], delta.finish) for delta in gathered.deltas()]
    return json.dumps({"fingerprint": fingerprint, "tool": answering.tool, "usage": asdict(answering.usage),
                       "choices": choices}, separators=(",", ":")).encode()


def _told(token: TokenLogprob) -> list[Any]:
    return [token.text, token.logprob, token.raw.hex(), [[text, value, raw.hex()] for text, value, raw in token.top]]


def _logprob(told: list[Any]) -> TokenLogprob:
    text, value, raw, top = told
    return TokenLogprob(text, value, bytes.fromhex(raw), tuple((word, one, bytes.fromhex(rest)) for word, one, rest
                                                               in top))
