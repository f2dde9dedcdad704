"""A service over a scripted backend, and an observer that remembers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from serve_tools import FACTS, FakeBackend

from openautoglm.engine.request import Piece
from openautoglm.serve.backend import Order
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.service import Service, ServiceSettings
from openautoglm.serve.service.values import Caller, Delta, Report
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk

Script = Callable[[Order], tuple[Sequence[Piece], Exception | None]]


class Remembering:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.firsts: list[float] = []
        self.gaps: list[float] = []
        self.reports: list[Report] = []

    def first_token(self, model: str, seconds: float) -> None:
        self.firsts.append(seconds)

    def next_token(self, model: str, seconds: float) -> None:
        self.gaps.append(seconds)

    def ended(self, report: Report) -> None:
        self.reports.append(report)


class HeldBackend(FakeBackend):
    """Holds the last piece back until its gate is opened."""

    async def stream(self, order: Order) -> AsyncGenerator[Piece, None]:
        self.orders.append(order)
        *pieces, last = self.script(order)[0]
        try:
            for piece in pieces:
                yield piece
            assert self.gate is not None
            await self.gate.wait()
            yield last
        finally:
            self.left += 1


class Scene:
    """A service, its backend and its observer."""

    def __init__(self, language: Language, script: Script, *, facts: dict[str, Any] | None = None,
                 kind: type[FakeBackend] = FakeBackend, **more: Any) -> None:
        known = replace(FACTS, vocab_size=language.tokenizer.vocab_size, **(facts or {}))
        self.backend, self.observer = kind(script, known), Remembering()
        settings = ServiceSettings.model_validate(more.pop("settings", {}))
        self.service = Service("m", language, self.backend, settings, observers=[self.observer], **more)

    async def deltas(self, caller: Caller | None = None, **fields: Any) -> list[Delta]:
        """All that is added to the answers to an ask."""
        answering = await self.service.open(ask(**fields), caller)
        async with aclosing(answering.stream()) as deltas:
            return [delta async for delta in deltas]

    async def texts(self, **fields: Any) -> dict[int, str]:
        """The answers by number."""
        found: dict[int, str] = {}
        for delta in await self.deltas(**fields):
            found[delta.choice] = found.get(delta.choice, "") + delta.text
        return found

    @property
    def report(self) -> Report:
        """What was told last."""
        return self.observer.reports[-1]


def ask(**fields: Any) -> CompletionAsk | ChatAsk:
    """An ask of the model `m`; a chat where there are messages."""
    kind = ChatAsk if "messages" in fields else CompletionAsk
    return kind.model_validate({"model": "m", **({} if "messages" in fields else {"prompt": "x"}), **fields})


def spoken(language: Language, *texts: str, finish: str = "stop") -> list[Piece]:
    """The pieces of answers with these texts, a token at a time."""
    pieces = []
    for copy, text in enumerate(texts):
        ids = language.tokenizer.encode(text)
        pieces += [Piece(copy, (token,)) for token in ids[:-1]]
        pieces.append(Piece(copy, tuple(ids[-1:]), finish=finish))  # type: ignore[arg-type]
    return pieces
