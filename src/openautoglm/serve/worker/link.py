"""The server's end of the connection to an engine's process: requests out, pieces in, and an eye on its progress."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from openautoglm.core import log
from openautoglm.engine.request import Piece
from openautoglm.engine.stats import Stats
from openautoglm.serve.backend import late
from openautoglm.serve.faults import KINDS, EngineLost, Fault, Overloaded
from openautoglm.serve.orders import Order, Tap
from openautoglm.serve.pace import Pace
from openautoglm.serve.worker.calls import Call
from openautoglm.serve.worker.frames import Frames, ProtocolError, framed
from openautoglm.serve.worker.letters import letter_of, texts_of
from openautoglm.serve.worker.messages import (
    FROM_ENGINE,
    Beat,
    Broken,
    Cancel,
    Embedded,
    Hello,
    Message,
    Ping,
    Refused,
    Step,
    decode,
    encode,
)
from openautoglm.serve.worker.progress import Progress
from openautoglm.serve.worker.settings import WorkerSettings

_log = log.get(__name__)
_LATE_S = 1.0


class Link(asyncio.Protocol):
    """One life of an engine's process.

    Attributes:
        hello: what it serves with, once it has loaded; a fault where it cannot.
        ended: why it ended; a request that is under way then has failed.
        stats: how the engine stood when it last said so.
        nobody: no request is under way.
        progress: of the engine, as far as it is told.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        loop = asyncio.get_running_loop()
        self._settings, self._loop = settings, loop
        self.hello: asyncio.Future[Hello | Broken] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.stats: Stats | None = None
        self.nobody, self._told = asyncio.Event(), asyncio.Event()
        self.nobody.set()
        self._transport: asyncio.Transport | None = None
        self._frames, self._pace = Frames(), Pace()
        self._calls: dict[int, Call] = {}
        self._last, self._most = 0, 1
        self._gone = array("i")
        self.progress = Progress(settings)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            for body in self._frames.feed(data):
                self._take(decode(body, FROM_ENGINE))
        except ProtocolError as error:
            self.abandon(f"it broke the protocol: {error.message}")

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self.abandon("its process ended" if error is None else f"the connection broke: {error}")

    def send(self, message: Message) -> None:
        """Send a message, if the connection stands."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(encode(message)))

    def abandon(self, why: str) -> None:
        """Give the connection up; requests under way fail."""
        if not self.ended.done():
            self.ended.set_result(why)
        if self._transport is not None:
            self._transport.abort()
        self.fail_all(lost)

    def fail_all(self, fault: Callable[[], Fault]) -> None:
        """Fail the requests under way, each with a fault of its own."""
        for call in list(self._calls.values()):
            self.leave(call)
            call.fail(fault())

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self._calls)

    def ask(self, order: Order) -> Call:
        """Send an order.

        Raises:
            EngineLost: the process is gone.
            Overloaded: more requests are under way than queue and engine take.
            BadRequest: the order is outside all bounds.
        """
        decoding = order.decoding
        at_once = decoding.n * decoding.max_new_tokens if decoding.num_beams > 1 else 0  # beams come as a whole
        call = self._call(at_once, order.tap)
        self._begin(call, letter_of(call.number, order))
        if order.timeout_s is not None:  # the engine keeps deadlines; this is for one that does not answer
            call.timer = self._loop.call_later(order.timeout_s + _LATE_S, self._expire, call)
        return call

    async def embed(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Ask for the mean hidden states of texts: fp32 [count, hidden].

        Raises:
            EngineLost, Overloaded, BadRequest: as `ask`.
            Unsupported: the model gives none.
        """
        call = self._call()
        self._begin(call, texts_of(call.number, prompts))
        try:
            await call.next()
            if call.states is None or len(call.states) != len(prompts):
                raise lost()
            return call.states
        finally:
            self.leave(call)

    def _call(self, at_once: int = 0, tap: Tap | None = None) -> Call:
        if self.ended.done():
            raise lost()
        if len(self._calls) >= self._most:
            raise Overloaded("the queue is full", remedy="try again later", retry_after_s=self._pace.retry_after_s(
                len(self._calls), time.monotonic()))
        self._last = (self._last + 1) % 2**31
        return Call(self._last, max(self._settings.buffer_tokens, at_once), tap)

    def _begin(self, call: Call, message: Message) -> None:
        self.send(message)
        self._calls[call.number] = call
        self.nobody.clear()

    def leave(self, call: Call) -> None:
        """Nobody waits for a request any more: cancel it, unless it has ended."""
        if self._calls.get(call.number) is call:
            self._close(call)
            if not self._gone:
                self._loop.call_soon(self._cancel)
            self._gone.append(call.number)

    def _expire(self, call: Call) -> None:
        self.leave(call)
        call.fail(late())

    def _cancel(self) -> None:
        """Tell of all that have left since, in one message."""
        for start in range(0, len(self._gone), 65_536):
            self.send(Cancel(self._gone[start:start + 65_536].tobytes()))
        del self._gone[:]

    def _close(self, call: Call) -> None:
        self._calls.pop(call.number, None)
        if call.timer is not None:
            call.timer.cancel()
        if not self._calls:
            self.nobody.set()

    def _take(self, message: Message) -> None:
        self.progress.heard += 1
        match message:
            case Step():
                self._take_step(message)
            case Beat():
                self.progress.advance(message.steps, message.busy)
                self.progress.slow_s = message.slow_s
                self.stats = Stats(*message.stats)  # type: ignore[arg-type]
                self._told.set()
            case Refused():
                call = self._calls.get(message.number)
                if call is not None:
                    self._close(call)
                    call.fail(KINDS[message.kind](message.message, where=message.where, remedy=message.remedy,
                                                  retry_after_s=message.retry_after_s))
            case Embedded():
                call = self._calls.get(message.number)
                if call is not None:
                    self._close(call)
                    call.states = np.frombuffer(message.rows, np.float32).reshape(-1, message.hidden)
                    call.end()
            case Hello() | Broken():
                if self.hello.done():
                    raise ProtocolError("a second Hello")
                if isinstance(message, Hello):
                    self._most = message.max_waiting + message.max_batch
                self.hello.set_result(message)

    def _take_step(self, step: Step) -> None:
        self.progress.advance(step.steps, True)
        calls = self._calls
        numbers, ids = array("i", step.numbers), array("i", step.ids)
        for number, token in zip(numbers, ids, strict=True):
            call = calls.get(number)
            if call is not None and not call.token(token):
                self.leave(call)
        for number, *piece in step.pieces:
            call = calls.get(number)
            if call is not None and not call.piece(Piece(*piece)):
                self.leave(call)
        for number in array("i", step.ended):
            call = calls.get(number)
            if call is not None:
                self._close(call)
                self._pace.note(time.monotonic())
                call.end()

    @property
    def steady(self) -> bool:
        """Whether the engine has loaded and made progress lately, or is idle and answers."""
        return self.hello.done() and not self.ended.done() and self.progress.steady

    async def known(self) -> None:
        """Wait until the engine has said how it stands.

        Raises:
            EngineLost: the connection is lost instead.
        """
        self.send(Ping())
        said: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._told.wait()), self.ended]
        await asyncio.wait(said, return_when=asyncio.FIRST_COMPLETED)
        said[0].cancel()
        if self.stats is None:
            raise lost()

    async def watch(self) -> str:
        """Watch the engine until it has ended or hangs; returns why."""
        while not self.ended.done():
            await asyncio.wait([self.ended], timeout=self.progress.tick_s)
            if self.progress.tick():
                self.send(Ping())
            if self.progress.hangs:
                self.abandon(f"it has made no progress for {math.ceil(self.progress.silent_s)} s")
        return self.ended.result()


def lost() -> EngineLost:
    """The fault of a request whose engine is gone."""
    return EngineLost("the engine was lost while it served this request", remedy="send the request again",
                      retry_after_s=1)
