"""The bound on what waits: so many requests, so many tokens; who comes then is told when to come again."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from pydantic import Field

from openautoglm.core.settings import Settings
from openautoglm.serve.faults import Overloaded, Unavailable
from openautoglm.serve.pace import Pace


class QueueSettings(Settings):
    """Bounds on what may wait for its first token.

    Attributes:
        requests: prompts; those that the engine can run at once are not counted.
        tokens: of these prompts, and those that they ask for.
    """

    requests: int = Field(default=256, ge=0)
    tokens: int = Field(default=1 << 20, ge=1)


class Place:
    """One prompt's place among those that wait and run; use it with ``with``."""

    def __init__(self, queue: Queue, tokens: int) -> None:
        self._queue, self._tokens = queue, tokens
        self._waits = True

    def begin(self) -> None:
        """Its first token has come: it waits no more."""
        if self._waits:
            self._waits = False
            self._queue.leave_line(self._tokens)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.begin()
        self._queue.leave(well=kind is None)


class Queue:
    """Counts who waits and who runs.

    Args:
        slots: prompts that run at once.

    Attributes:
        waiting, waiting_tokens: prompts without a first token yet, and their tokens.
        present: all that wait or run.
    """

    def __init__(self, settings: QueueSettings, slots: int) -> None:
        self._settings, self._slots = settings, slots
        self.waiting = self.waiting_tokens = self.present = 0
        self._closed = False
        self._pace = Pace()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def closed(self) -> bool:
        """Whether nobody is taken in any more."""
        return self._closed

    @property
    def retry_after_s(self) -> float:
        """When it is worth to come again."""
        return self._pace.retry_after_s(self.waiting, time.monotonic())

    def check(self, prompts: int, tokens: int) -> None:
        """See that so many prompts with so many tokens may come in.

        Raises:
            Overloaded: the queue is full.
            Unavailable: the server is ending.
        """
        if self._closed:
            raise Unavailable("the server is ending", remedy="send the request again; another server will take it",
                              retry_after_s=1)
        over = self.present + prompts - self._slots
        many = over > self._settings.requests
        if over > 0 and self.present and (many or self.waiting_tokens + tokens > self._settings.tokens):
            raise Overloaded(f"{self.waiting} prompts with {self.waiting_tokens} tokens wait already",
                             remedy="try again later", retry_after_s=self.retry_after_s)

    def enter(self, tokens: int) -> Place:
        """Take a prompt in that `check` has passed."""
        self.waiting += 1
        self.waiting_tokens += tokens
        self.present += 1
        self._empty.clear()
        return Place(self, tokens)

    def leave_line(self, tokens: int) -> None:
        """A prompt waits no more."""
        self.waiting -= 1
        self.waiting_tokens -= tokens

    def leave(self, *, well: bool) -> None:
        """A prompt has ended."""
        self.present -= 1
        if well:
            self._pace.note(time.monotonic())
        if not self.present:
            self._empty.set()

    def close(self) -> None:
        """Take nobody in any more."""
        self._closed = True

    async def empty(self) -> None:
        """Return when nobody waits or runs."""
        await self._empty.wait()
