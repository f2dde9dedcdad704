"""Waking up on time: event loops round their timers to milliseconds, a thread that sleeps does not."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import Protocol


class Pacer(Protocol):
    """Waits for moments on the clock that `now` shows, in seconds."""

    def now(self) -> float:
        """The time."""

    async def until(self, at_s: float) -> None:
        """Return at that time, or at once where it is past, after others had their turn."""


class LoopPacer:
    """By the event loop's own clock and timers; a loop whose clock is not the real one runs a load in no time."""

    def now(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    async def until(self, at_s: float) -> None:
        """See `Pacer.until`."""
        await asyncio.sleep(max(0.0, at_s - self.now()))


class ThreadPacer:
    """By ``time.monotonic`` and a thread that sleeps; for one waiter at a time. `close` ends the thread."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[float, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pacer", daemon=True)
        self._thread.start()

    def now(self) -> float:
        """The time."""
        return time.monotonic()

    async def until(self, at_s: float) -> None:
        """See `Pacer.until`."""
        if at_s <= self.now():
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        self._wanted.put((at_s, future))
        await future

    def close(self) -> None:
        """End the thread."""
        self._wanted.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            at_s, future = wanted
            left = at_s - time.monotonic()
            if left > 0:
                time.sleep(left)
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
