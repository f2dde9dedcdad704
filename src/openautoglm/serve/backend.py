"""What generates, as the service sees it: orders of ids go in, pieces of answers come out, faults are told.

Two ways to have one: `InProcess`, for tests and small things, and `worker`, where the engine has a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import AutoGLMError, ResourceError
from openautoglm.engine.async_engine import AsyncEngine
from openautoglm.engine.engine import Engine
from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.request import Piece
from openautoglm.engine.stats import Stats
from openautoglm.engine.text_stream import Decode
from openautoglm.serve.faults import Fault, Overloaded, TimedOut, Unavailable, Unsupported
from openautoglm.serve.intake import Intake, told
from openautoglm.serve.orders import Facts, GrammarText, Order, probe_order
from openautoglm.serve.pace import Pace, Watch

__all__ = ["Backend", "Embeddings", "Facts", "GrammarText", "InProcess", "Order"]

Embeddings = NDArray[np.float32]


class Backend(Protocol):
    """Generates for many callers of one event loop."""

    @property
    def facts(self) -> Facts:
        """What it serves with.

        Raises:
            Unavailable: it has not started yet.
        """

    @property
    def stats(self) -> Stats:
        """How the engine stood when it last said so.

        Raises:
            Unavailable: as `facts`.
        """

    @property
    def ready(self) -> bool:
        """Whether it takes requests and the engine makes progress, or is idle and answers."""

    async def start(self) -> None:
        """Load the model; returns when the first requests can be served.

        Raises:
            AutoGLMError: the model cannot be loaded.
        """

    async def close(self, grace_s: float = 0) -> None:
        """End; no new requests are taken, running ones may finish for so many seconds."""

    def stream(self, order: Order) -> AsyncGenerator[Piece, None]:
        """Yield what each step adds to the answers.

        Leaving the iteration cancels the request within one step: use ``async with aclosing(...)``, as a generator that
        is only dropped is closed when it is collected. A deadline that comes under way ends the answers with finish
        ``deadline``.

        Raises:
            BadRequest: the engine cannot serve it; names the field.
            TooLong: the prompt leaves no room.
            Overloaded: the queue is full; says when to come again.
            TimedOut: the deadline came before the first token.
            EngineLost: the engine failed under way.
            Unavailable: not started, draining or restarting.
        """

    async def embed(self, prompts: Sequence[Sequence[int]]) -> Embeddings:
        """Return fp32 [count, hidden]: the mean over each prompt's positions of the final hidden state, after its norm.

        Raises:
            BadRequest, TooLong, Overloaded, EngineLost, Unavailable: as `stream`.
            Unsupported: this model's program gives no hidden states.
        """

    async def probe(self, timeout_s: float) -> None:
        """Generate one token.

        Raises:
            Fault: it did not come in time.
        """


class InProcess:
    """A `Backend` over an engine in a thread of this process: for tests and where a process of its own is too much.

    What hangs here cannot be killed.

    Args:
        decode: gives the text of ids, for stop strings.
        pieces: bytes of each id, for grammars.
        fingerprint: of the bundle.
        stalled_s: work without a step for so long means that the engine hangs.
        keep: lives as long as this does, e.g. a bundle with a temporary folder.
    """

    def __init__(self, engine: Engine, *, decode: Decode | None = None, pieces: Sequence[bytes] | None = None,
                 fingerprint: str = "", stalled_s: float = 60.0, keep: object = None) -> None:
        self._facts = Facts.of(engine, fingerprint)
        self._engine = AsyncEngine(engine)
        self._compiler = GrammarCompiler(pieces) if pieces is not None else None
        self._intake = Intake(engine, decode, self._compiler)
        self._pace, self._watch = Pace(), Watch(stalled_s)
        self._keep = keep
        self._open = False
        self._active = 0
        self._nobody = asyncio.Event()

    @property
    def facts(self) -> Facts:
        """See `Backend`."""
        return self._facts

    @property
    def stats(self) -> Stats:
        """See `Backend`."""
        return self._engine.stats

    @property
    def ready(self) -> bool:
        """See `Backend`."""
        stats = self.stats
        busy = bool(stats.waiting or stats.filling or stats.decoding)
        stalled = self._watch.idle_s(stats.steps, busy, time.monotonic()) > self._watch.stalled_s
        return self._open and self._engine.alive and not stalled

    async def start(self) -> None:
        """See `Backend`."""
        self._engine.start()
        self._open = True

    async def close(self, grace_s: float = 0) -> None:
        """See `Backend`."""
        started, self._open = self._open, False
        if self._active and grace_s > 0:
            self._nobody.clear()
            await wait_for(self._nobody, grace_s)
        if started:
            await asyncio.to_thread(self._engine.close)
        if self._compiler is not None:
            await asyncio.to_thread(self._compiler.close)

    async def stream(self, order: Order) -> AsyncGenerator[Piece, None]:
        """See `Backend`."""
        if not self._open:
            raise Unavailable("the engine has not started, or is ending", remedy="try again later", retry_after_s=1)
        now = self._engine.now()
        self._active += 1
        try:
            if order.grammar is None:
                request = self._intake.prepare(order, now)
            else:
                request = await asyncio.to_thread(self._intake.prepare, order, now)
            begun = False
            async with aclosing(self._engine.stream(request)) as pieces:
                async for piece in pieces:
                    if piece.finish == "deadline" and not (begun or piece.ids):
                        raise late()
                    begun = True
                    yield piece
            self._pace.note(time.monotonic())
        except Fault:
            raise
        except ResourceError as error:
            raise Overloaded("the queue is full", remedy="try again later", retry_after_s=self._pace.retry_after_s(
                self.stats.waiting, time.monotonic())) from error
        except AutoGLMError as error:
            raise told(error) from error
        finally:
            self._active -= 1
            if not self._active:
                self._nobody.set()

    async def embed(self, prompts: Sequence[Sequence[int]]) -> Embeddings:
        """See `Backend`."""
        raise Unsupported("this model's program gives no hidden states", where="model")

    async def probe(self, timeout_s: float) -> None:
        """See `Backend`."""
        await probe(self, timeout_s)


async def probe(backend: Backend, timeout_s: float) -> None:
    """Let a backend generate one token; that it makes progress for others is as good.

    Raises:
        Fault: it did neither.
    """
    before = backend.stats.steps
    try:
        async with asyncio.timeout(timeout_s), aclosing(backend.stream(probe_order(timeout_s))) as pieces:
            async for _ in pieces:
                return
    except (TimedOut, TimeoutError, Overloaded) as error:
        if backend.stats.steps == before:
            raise late() from error


def late() -> TimedOut:
    """The fault of a deadline that came before the first token."""
    return TimedOut("the deadline came before the first token", remedy="allow more time, or try again later")


async def wait_for(done: asyncio.Event, timeout_s: float) -> bool:
    """Wait for an event, no longer than so many seconds; whether it came."""
    try:
        async with asyncio.timeout(timeout_s):
            return await done.wait()
    except TimeoutError:
        return False
