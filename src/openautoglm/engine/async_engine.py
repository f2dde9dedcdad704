"""An engine in a thread of its own, for callers in event loops."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from types import TracebackType

from openautoglm.core.errors import AutoGLMError, GenerationError
from openautoglm.engine.engine import Engine
from openautoglm.engine.generate import Candidate
from openautoglm.engine.request import Piece, Request
from openautoglm.engine.sequence import Ticket
from openautoglm.engine.stats import Stats

_LONGEST_SLEEP_S = 60.0


class _Call:
    """One request of one event loop."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[Piece | AutoGLMError | list[Candidate]] = asyncio.Queue()
        self.ticket: Ticket | None = None
        self.over = False


class AsyncEngine:
    """Runs an engine until it is closed; use it with ``async with``, or `start` and `close`.

    The engine belongs to the thread from then on. What a step gave is handed to each event loop in one go.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outbox: list[tuple[_Call, Piece]] = []
        self._calls: set[_Call] = set()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._door = threading.Lock()
        self._ended = False

    @property
    def stats(self) -> Stats:
        """How the engine stands."""
        return self._engine.stats

    @property
    def alive(self) -> bool:
        """Whether requests are served."""
        return self._thread.is_alive() and not self._ended

    def now(self) -> float:
        """The time on the engine's clock, for deadlines."""
        return self._engine.now()

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving: requests under way fail; returns when the thread has ended."""
        self._commands.put(None)
        if self._thread.is_alive():
            self._thread.join()

    async def __aenter__(self) -> AsyncEngine:
        self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await asyncio.to_thread(self.close)

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """Yield what each step adds to a request's answers. Leaving the iteration cancels the request.

        Raises:
            GenerationError: the request cannot be served, fails under way, or the engine is closed.
            ResourceError: the queue is full.
        """
        call = self._begin(request)
        try:
            while True:
                got = await call.pieces.get()
                if isinstance(got, AutoGLMError):
                    raise got
                if isinstance(got, list):
                    return
                yield got
        finally:
            self._leave(call)

    async def generate(self, request: Request) -> list[Candidate]:
        """Return a request's answers when all have ended; cancelling the task cancels the request.

        Raises:
            GenerationError, ResourceError: as `stream`.
        """
        call = self._begin(request)
        try:
            while True:
                got = await call.pieces.get()
                if isinstance(got, AutoGLMError):
                    raise got
                if isinstance(got, list):
                    return got
        finally:
            self._leave(call)

    def _begin(self, request: Request) -> _Call:
        call = _Call(request)
        with self._door:
            if not self.alive:
                raise GenerationError("the engine does not run", remedy="start it, or look for why it has ended")
            self._commands.put(lambda: self._submit(call))
        return call

    def _leave(self, call: _Call) -> None:
        if not call.over:
            self._commands.put(lambda: self._cancel(call))

    def _submit(self, call: _Call) -> None:
        try:
            call.ticket = self._engine.submit(call.request, lambda piece: self._outbox.append((call, piece)))
        except AutoGLMError as error:
            self._hand({call: [error]})
        else:
            self._calls.add(call)

    def _cancel(self, call: _Call) -> None:
        self._calls.discard(call)
        if call.ticket is not None:
            self._engine.cancel(call.ticket)

    def _run(self) -> None:
        try:
            stepped = False
            while self._obey(stepped):
                stepped = self._engine.step()
                self._deliver()
            self._end(GenerationError("the engine was closed", remedy="send the request again"))
        except Exception as error:  # a fault of the engine itself: say so to everyone who waits
            failure = GenerationError(f"the engine broke down: {error!r}", remedy="report this; restart the engine")
            failure.__cause__ = error
            self._end(failure)

    def _obey(self, stepped: bool) -> bool:
        """Do what was asked, waiting for it where there was nothing to step; False at the end."""
        wait = 0.0
        if self._engine.idle:
            wait = _LONGEST_SLEEP_S
        elif not stepped and self._engine.wake_at is not None:
            wait = max(0.0, min(self._engine.wake_at - self._engine.now(), _LONGEST_SLEEP_S))
        try:
            command = self._commands.get(timeout=wait) if wait else self._commands.get_nowait()
            while True:
                if command is None:
                    return False
                command()
                command = self._commands.get_nowait()
        except queue.Empty:
            return True

    def _deliver(self) -> None:
        """Hand on what a step gave, and the results of requests that have ended."""
        if not self._outbox:
            return
        gifts: dict[_Call, list[Piece | AutoGLMError | list[Candidate]]] = {}
        for call, piece in self._outbox:
            if call in self._calls:
                gifts.setdefault(call, []).append(piece)
        self._outbox.clear()
        for call, gift in gifts.items():
            if call.ticket is not None and call.ticket.done:
                self._calls.discard(call)
                gift.append(call.ticket.error or call.ticket.result())
        self._hand(gifts)

    def _hand(self, gifts: dict[_Call, list[Piece | AutoGLMError | list[Candidate]]]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[_Call]] = {}
        for call in gifts:
            loops.setdefault(call.loop, []).append(call)
        for loop, calls in loops.items():
            mine = [(call, gifts[call]) for call in calls]
            if loop.is_closed():
                for call in calls:
                    self._cancel(call)
            else:
                loop.call_soon_threadsafe(_receive, mine)

    def _end(self, failure: AutoGLMError) -> None:
        """Tell everyone who waits that nothing comes any more; let go what they asked for."""
        with self._door:
            self._ended = True
        while not self._commands.empty():
            command = self._commands.get()
            if command is not None:
                command()
        calls, self._calls = self._calls, set()
        self._outbox.clear()
        self._hand({call: [failure] for call in calls})
        for call in calls:
            self._cancel(call)


def _receive(mine: list[tuple[_Call, list[Piece | AutoGLMError | list[Candidate]]]]) -> None:
    for call, gifts in mine:
        for gift in gifts:
            call.over = call.over or not isinstance(gift, Piece)
            call.pieces.put_nowait(gift)
