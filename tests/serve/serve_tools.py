"""What tests of backends share: running coroutines, collecting answers, stand-ins for backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from openautoglm.engine.request import Decoding, Finish, Piece
from openautoglm.engine.stats import Stats
from openautoglm.serve.backend import Backend, Embeddings, Facts, Order

ENDLESS = Decoding(max_new_tokens=8000, ignore_stop=True)
STATS = Stats(0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0.0, None)
FACTS = Facts(vocab_size=50, max_tokens=128, page_size=16, pages=64, max_batch=8, max_waiting=4, weight_bytes=1000,
              cache_bytes=500, target="fake", fingerprint="f")


def run(work: Coroutine[Any, Any, Any], timeout_s: float = 120) -> Any:
    """Run a coroutine to its end."""
    return asyncio.run(asyncio.wait_for(work, timeout_s))


async def answers(backend: Backend, order: Order) -> list[tuple[list[int], Finish | None]]:
    """The ids and the end of each answer to an order."""
    found: dict[int, list[int]] = {}
    ends: dict[int, Finish | None] = {}
    async with aclosing(backend.stream(order)) as pieces:
        async for piece in pieces:
            found.setdefault(piece.copy, []).extend(piece.ids)
            ends[piece.copy] = piece.finish
    return [(found[copy], ends[copy]) for copy in sorted(found)]


async def until(condition: Callable[[], bool], *, every_s: float = 0.005) -> None:
    """Wait until something is so."""
    while not condition():
        await asyncio.sleep(every_s)


class FakeBackend:
    """A backend whose answers are scripted: for each request pieces, then a fault or nothing."""

    def __init__(self, script: Callable[[Order], tuple[Sequence[Piece], Exception | None]],
                 facts: Facts = FACTS) -> None:
        self.script, self.facts, self.stats, self.ready = script, facts, STATS, True
        self.orders: list[Order] = []
        self.gate: asyncio.Event | None = None
        self.left = 0
        self.started = self.closed = False

    async def start(self) -> None:
        self.started = True

    async def close(self, grace_s: float = 0) -> None:
        self.closed = True

    async def stream(self, order: Order) -> AsyncGenerator[Piece, None]:
        self.orders.append(order)
        pieces, fault = self.script(order)
        try:
            for piece in pieces:
                yield piece
            if self.gate is not None:
                await self.gate.wait()
            if fault is not None:
                raise fault
        finally:
            self.left += 1

    async def embed(self, prompts: Sequence[Sequence[int]]) -> Embeddings:
        _, fault = self.script(Order(tuple(prompts[0])))
        if fault is not None:
            raise fault
        return np.ones((len(prompts), 2), np.float32)

    async def probe(self, timeout_s: float) -> None:
        _, fault = self.script(Order((0,)))
        if fault is not None:
            raise fault
