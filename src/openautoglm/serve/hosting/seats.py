"""What is in memory: one seat for each version that is loaded, on its way in, or on its way out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Literal

from openautoglm.core import log
from openautoglm.serve.faults import Fault, Unavailable
from openautoglm.serve.registry.records import Version
from openautoglm.serve.registry.residency import Plan, Resident, plan
from openautoglm.serve.service.readiness import Readiness
from openautoglm.serve.service.service import Service

_log = log.get(__name__)


class NoRoom(Unavailable):
    """There is no room in memory for a model, or none in time."""


class Seat:
    """One version.

    Attributes:
        service: that answers; None until it is loaded.
        size_bytes: of weights and cache; an estimate until it is loaded, 0 before it has its room.
        users: requests that wait for it or run on it.
        used_s: when the last of them left, on the monotonic clock.
        fault: why it was not loaded.
        loading: the task that loads it.
        loaded: set when that has ended, well or not. idle: set while nobody uses it. gone: set when it has left.
    """

    def __init__(self, version: Version) -> None:
        self.version, self.label = version, label(version)
        self.state: Literal["LOADING", "READY", "UNLOADING"] = "LOADING"
        self.service: Service | None = None
        self.readiness: Readiness | None = None
        self.size_bytes = self.users = 0
        self.used_s = time.monotonic()
        self.fault: Fault | None = None
        self.loading: asyncio.Task[None] | None = None
        self.leaving: asyncio.Task[None] | None = None
        self.loaded, self.idle, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.idle.set()

    def enter(self) -> None:
        """Somebody uses it, or waits for it: it stays until `leave`."""
        self.users += 1
        self.idle.clear()

    def leave(self) -> None:
        """One user less."""
        self.users -= 1
        self.used_s = time.monotonic()
        if not self.users:
            self.idle.set()


class Seats:
    """All seats, within a budget. Belongs to one event loop.

    Args:
        budget_bytes: of all together; None: no bound.
        pinned: ids of versions that stay whatever comes.
    """

    def __init__(self, budget_bytes: int | None, pinned: Callable[[], frozenset[int]]) -> None:
        self.budget_bytes, self._pinned = budget_bytes, pinned
        self._seats: dict[int, Seat] = {}
        self._stirred = asyncio.Event()

    def __iter__(self) -> Iterator[Seat]:
        return iter(list(self._seats.values()))

    def get(self, version: Version) -> Seat | None:
        """The seat of a version."""
        return self._seats.get(version.id)

    def add(self, version: Version) -> Seat:
        """A seat for a version that comes; it has no room yet."""
        seat = self._seats[version.id] = Seat(version)
        return seat

    def lost(self, seat: Seat) -> None:
        """Take away a seat whose version was not loaded."""
        self._drop(seat)
        seat.loaded.set()

    async def room(self, seat: Seat, size_bytes: int, wait_s: float) -> None:
        """Reserve room for a newcomer, for which others leave that nobody uses; waits for those that are busy.

        Raises:
            NoRoom: there is none, or none within `wait_s`.
        """
        until = time.monotonic() + wait_s
        while True:
            found = self._plan(seat, size_bytes)
            if found.fits:
                seat.size_bytes = size_bytes  # before anything is waited for: the next newcomer must count it
                await asyncio.gather(*(self.leave(one) for one in self if str(one.version.id) in found.unload))
                return
            if not found.later or not await self._stir(until - time.monotonic()):
                raise NoRoom(f"there is no room in memory for {seat.label} now", where="model",
                                  remedy="try again later", retry_after_s=5)

    async def settle(self, seat: Seat, size_bytes: int) -> None:
        """Note the exact size of a model that was loaded; others leave where it is more than was reserved.

        Where those are busy the budget is exceeded until `shrink` finds them idle.
        """
        seat.size_bytes = size_bytes
        seat.enter()
        try:
            over_bytes = await self.shrink()
        finally:
            seat.leave()
        if over_bytes > 0:
            _log.warning("the models in memory are larger than the budget until some are idle", extra={
                "over_bytes": over_bytes, "budget_bytes": self.budget_bytes})

    async def shrink(self) -> int:
        """Let idle models leave until all fit into the budget; return the bytes that are still over."""
        found = self._plan(None, 0)
        await asyncio.gather(*(self.leave(one) for one in self if str(one.version.id) in found.unload))
        return found.short_bytes

    async def leave(self, seat: Seat) -> None:
        """Let a model leave as soon as nobody uses it; from now on nobody enters."""
        if seat.leaving is None:
            seat.state = "UNLOADING"
            seat.leaving = asyncio.create_task(self._unload(seat), name=f"unload {seat.label}")
        await asyncio.shield(seat.leaving)

    def stir(self) -> None:
        """Something has changed that newcomers may wait for."""
        self._stirred.set()
        self._stirred = asyncio.Event()

    async def _unload(self, seat: Seat) -> None:
        if seat.loading is not None and not seat.loaded.is_set():
            seat.loading.cancel()
        await seat.loaded.wait()
        await seat.idle.wait()
        try:
            if seat.service is not None:
                seat.service.queue.close()
                await seat.service.backend.close()
                _log.info("unloaded %s", seat.label, extra={"size_bytes": seat.size_bytes})
        except Exception:
            _log.exception("%s did not end well", seat.label)
        finally:
            self._drop(seat)

    def _drop(self, seat: Seat) -> None:
        if self._seats.get(seat.version.id) is seat:
            del self._seats[seat.version.id]
        seat.gone.set()
        self.stir()

    def _plan(self, newcomer: Seat | None, size_bytes: int) -> Plan:
        if self.budget_bytes is None:
            return Plan()
        pinned = self._pinned()
        there = [Resident(str(one.version.id), one.size_bytes, one.used_s, pinned=one.version.id in pinned,
                          busy=one.users > 0 or one.state != "READY") for one in self if one is not newcomer]
        return plan(size_bytes, there, self.budget_bytes)

    async def _stir(self, timeout_s: float) -> bool:
        """Wait until something has changed; False where the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._stirred.wait()
        except TimeoutError:
            return False


def label(version: Version) -> str:
    """How figures and logs call a version: ``name/number``, which clients can ask for."""
    return f"{version.model}/{version.number}"
