"""The models of a registry behind one server: chosen by name, loaded when they are needed, kept as long as they may be.

`use` is the way of every request: choose a version, find its seat or let it be loaded, stay on the seat meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from openautoglm.serve.faults import TimedOut, Unavailable
from openautoglm.serve.hosting.arrivals import Arrivals
from openautoglm.serve.hosting.loading import Loader
from openautoglm.serve.hosting.seats import Seat, Seats, label
from openautoglm.serve.hosting.settings import HostingSettings
from openautoglm.serve.hosting.shelf import Shelf
from openautoglm.serve.registry.catalog import Catalog
from openautoglm.serve.registry.names import Reference
from openautoglm.serve.registry.records import Version
from openautoglm.serve.service.models import Held, Model
from openautoglm.serve.service.service import Service

_ENDING = "the server is ending"
_LAST_S = 2.0


class Hosted:
    """Implements `service.models.Models` and `Repository` over the registry's catalog; belongs to one event loop.

    Attributes:
        catalog: what there is.
        seats: what is in memory. arrivals: how it comes there.
        failures: what could not be loaded lately.
        asked: ids of versions that an administrator loads right now.
    """

    def __init__(self, catalog: Catalog, loader: Loader, settings: HostingSettings | None = None) -> None:
        self.settings = settings or HostingSettings()
        self.catalog = catalog
        self.shelf = Shelf(catalog)
        self.seats = Seats(self.settings.memory_bytes, lambda: self.shelf.pinned)
        self.arrivals = Arrivals(self.seats, loader, self.settings)
        self.failures = self.arrivals.failures
        self.asked: Counter[int] = Counter()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nobody is taken in any more."""
        return self._closed

    async def listed(self) -> Sequence[Model]:
        """See `Models`: plain names, versions by number, and aliases, as far as they can be asked for."""
        return self.shelf.listed(self.loaded())

    @asynccontextmanager
    async def use(self, name: str | None, *, key: str | None = None,
                  timeout_s: float | None = None) -> AsyncIterator[Service]:
        """See `Models`."""
        version = self.shelf.choose(name, key)
        async with self.hold(version, timeout_s=timeout_s) as seat:
            assert seat.service is not None
            yield seat.service

    @asynccontextmanager
    async def hold(self, version: Version, *, timeout_s: float | None = None,
                   asked: bool = False) -> AsyncIterator[Seat]:
        """Stay on the seat of a version, which is loaded where it is not.

        Args:
            timeout_s: how long to wait for that.
            asked: by an operator, whose word counts more than what was wished and what failed before.

        Raises:
            Unavailable: it cannot be loaded now, or must not be. TimedOut: it took too long.
        """
        if asked:
            self.failures.forget(version)
        try:
            async with asyncio.timeout(timeout_s):
                seat = await self.arrivals.enter(version, lambda: self._check(version, asked=asked))
        except TimeoutError:
            raise TimedOut(f"{label(version)} was not loaded in time", where="timeout_s",
                           remedy="try again: it is being loaded") from None
        except Unavailable:
            if self.failures.failing(version):
                self.catalog.record(version, ok=False)
            raise
        try:
            yield seat
        finally:
            seat.leave()
            self.seats.stir()

    def loaded(self) -> Mapping[str, Service]:
        """See `Models`; by ``name/number``."""
        return {seat.label: seat.service for seat in self.seats if seat.state == "READY" and seat.service is not None}

    async def unready(self) -> str | None:
        """See `Models`: the registry was read, nothing that operators want in memory fails, and all that is answers."""
        if self._closed:
            return _ENDING
        if self.catalog.snapshot.revision < 0:
            return "the registry has not been read yet"
        for version in self.shelf.wanted:
            if self.failures.failing(version):
                return f"{label(version)} cannot be loaded"
            if version.id in self.arrivals.starting:
                return f"{label(version)} is being loaded"
        present = [seat for seat in self.seats if seat.state == "READY"]
        faults = await asyncio.gather(*(_fault(seat) for seat in present))
        return next((f"{seat.label}: {why}" for seat, why in zip(present, faults, strict=True)
                     if why is not None and seat.state == "READY"), None)

    async def drain(self, timeout_s: float) -> bool:
        """See `Models`. What is being loaded is given up."""
        self._closed = True
        for seat in self.seats:
            if seat.service is not None:
                seat.service.queue.close()
            elif seat.loading is not None:
                seat.loading.cancel()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(seat.idle.wait() for seat in self.seats))
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Unload everything; requests that still run fail with an error that may be retried."""
        self._closed = True
        for seat in self.seats:
            if seat.loading is not None and not seat.loaded.is_set():
                seat.loading.cancel()
        services = [seat.service for seat in self.seats if seat.service is not None]
        await asyncio.gather(*(service.backend.close() for service in services), return_exceptions=True)
        leaving = [asyncio.create_task(self.seats.leave(seat)) for seat in self.seats]
        if leaving:  # the engines have ended; whoever writes to a client that does not read is not waited for
            await asyncio.wait(leaving, timeout=_LAST_S)

    async def index(self) -> Sequence[Held]:
        """See `Repository`."""
        return [self._held(version) for model in self.catalog.snapshot.models.values()
                for version in model.versions.values()]

    async def load(self, name: str, version: str | None, by: str, *, pin: bool | None = None) -> None:
        """See `Repository`. It is noted as a wish, so that other servers load it too, and this one when it restarts.

        Raises:
            BadRequest, NotFound: no such version. Unavailable: it cannot be loaded; then nothing is noted.
            StoreLost, DiskFull: the database does not answer, or has no room.
        """
        await self.catalog.refresh()
        wanted = self.shelf.find(name, version)
        self.asked[wanted.id] += 1
        try:
            async with self.hold(wanted, asked=True):
                pinned = wanted.id in self.shelf.pinned if pin is None else pin
                await self._wish(self.catalog.registry.wishes.set, Reference(wanted.model, wanted.number), loaded=True,
                                 pinned=pinned, by=by)
        finally:
            self.asked[wanted.id] -= 1

    async def unload(self, name: str, version: str | None, by: str) -> None:
        """See `Repository`. It is noted as a wish, so that other servers unload it too."""
        await self.catalog.refresh()
        wanted = self.shelf.find(name, version)
        await self._wish(self.catalog.registry.wishes.set, Reference(wanted.model, wanted.number), loaded=False, by=by)
        seat = self.seats.get(wanted)
        if seat is not None:
            await self.seats.leave(seat)

    async def release(self, name: str, version: str | None, by: str) -> None:
        """Take back what was wished for a version: it is loaded on first use, and leaves when others need the room.

        Raises:
            BadRequest, NotFound, StoreLost, DiskFull: as `load`.
        """
        await self.catalog.refresh()
        wanted = self.shelf.find(name, version)
        await self._wish(self.catalog.registry.wishes.forget, Reference(wanted.model, wanted.number), by=by)

    async def preload(self, names: Collection[str]) -> None:
        """Load versions by name, one after the other.

        Raises:
            BadRequest, NotFound: there is no such model. Unavailable: it cannot be loaded.
        """
        for name in names:
            async with self.hold(self.shelf.find(name)):
                pass

    async def _wish(self, call: Callable[..., object], reference: Reference, **options: Any) -> None:
        await self.catalog.registry.run(call, reference, **options)
        await self.catalog.refresh()

    def _held(self, version: Version) -> Held:
        seat = self.seats.get(version)
        reason = ""
        if version.stage == "archived":
            reason = "archived"
        elif self.shelf.unwanted(version):
            reason = "taken out of service"
        elif self.failures.failing(version):
            reason = "it could not be loaded"
        return Held(version.model, str(version.number), "UNAVAILABLE" if seat is None else seat.state, reason)

    def _check(self, version: Version, *, asked: bool) -> None:
        if self._closed:
            raise Unavailable(_ENDING, remedy="send the request again; another server will take it", retry_after_s=1)
        if not asked and self.shelf.unwanted(version):
            raise Unavailable(f"{label(version)} was taken out of service", where="model",
                              remedy="ask for another version, or let an administrator load it")

async def _fault(seat: Seat) -> str | None:
    assert seat.readiness is not None
    return await seat.readiness.fault()
