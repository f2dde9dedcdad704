"""How versions come into memory: one load at a time for each, room made first, failures remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openautoglm.core import log
from openautoglm.core.errors import AutoGLMError, ResourceError
from openautoglm.serve.faults import Fault, Unavailable
from openautoglm.serve.hosting.failures import Failures
from openautoglm.serve.hosting.loading import Loader
from openautoglm.serve.hosting.seats import NoRoom, Seat, Seats
from openautoglm.serve.hosting.settings import HostingSettings
from openautoglm.serve.registry.records import Version
from openautoglm.serve.service.readiness import Readiness

_log = log.get(__name__)


class Arrivals:
    """Loads versions onto their seats.

    Attributes:
        failures: what could not be loaded lately.
        starting: ids of versions that the server is not ready before they were tried.
    """

    def __init__(self, seats: Seats, loader: Loader, settings: HostingSettings) -> None:
        self._seats, self._loader, self._settings = seats, loader, settings
        self._exact: dict[int, int] = {}
        self.failures = Failures(settings.retry_s, settings.most_retry_s)
        self.starting: set[int] = set()

    async def enter(self, version: Version, check: Callable[[], None]) -> Seat:
        """Enter the seat of a version as soon as it is loaded; whoever calls leaves it again.

        Args:
            check: raises where nobody may enter; called before each attempt.

        Raises:
            Unavailable: it cannot be loaded now.
        """
        while True:
            check()
            seat = self._seats.get(version)
            if seat is not None and seat.state == "UNLOADING":
                await seat.gone.wait()
                continue
            if seat is None:
                if self.failures.waiting(version):
                    raise self.failures.fault(version)
                seat = self.begin(version)
            seat.enter()
            try:
                await seat.loaded.wait()
                if seat.fault is not None:
                    raise _again(seat.fault)
                if seat.state == "READY":
                    return seat
            except BaseException:
                seat.leave()
                raise
            seat.leave()

    def begin(self, version: Version) -> Seat:
        """Begin to load a version that has no seat; the load goes on when those who wait for it have left."""
        seat = self._seats.add(version)
        seat.loading = asyncio.create_task(self._load(seat), name=f"load {seat.label}")
        return seat

    async def _load(self, seat: Seat) -> None:
        """Load a version onto its seat; what goes wrong is the seat's `fault`, and in the log."""
        try:
            known = self._exact.get(seat.version.id)
            await self._seats.room(seat, known or await self._loader.estimate(seat.version), self._settings.room_s)
            await self._bring(seat)
        except asyncio.CancelledError:
            seat.fault = Unavailable(f"{seat.label} was taken out while it was loaded", where="model",
                                     remedy="try again later", retry_after_s=1)
        except NoRoom as fault:
            _log.warning("%s", fault.message)
            seat.fault = fault
        except (AutoGLMError, OSError) as error:
            self._failed(seat, error)
        except Exception as error:
            self._failed(seat, error, trace=error)
        finally:
            self.starting.discard(seat.version.id)
            if seat.fault is not None:
                self._seats.lost(seat)

    async def _bring(self, seat: Seat) -> None:
        _log.info("loading %s", seat.label)
        service = await self._loader.load(seat.version)
        facts = service.backend.facts
        size_bytes = self._exact[seat.version.id] = facts.weight_bytes + facts.cache_bytes
        budget_bytes = self._settings.memory_bytes
        if budget_bytes is not None and size_bytes > budget_bytes:
            await service.backend.close()
            raise ResourceError(f"takes {size_bytes:,} bytes, {budget_bytes:,} are allowed", where=seat.label,
                                remedy="raise --memory-budget, or give it fewer --cache-tokens")
        self.failures.forget(seat.version)
        seat.service, seat.readiness, seat.state = service, Readiness(service.backend), "READY"
        seat.loaded.set()
        _log.info("loaded %s", seat.label, extra={"size_bytes": size_bytes, "target": facts.target})
        await self._seats.settle(seat, size_bytes)

    def _failed(self, seat: Seat, error: Exception, trace: Exception | None = None) -> None:
        """Remember a failure that is the version's own."""
        again_s = self.failures.add(seat.version)
        _log.error("%s cannot be loaded: %s", seat.label, error, exc_info=trace or error.__cause__,
                   extra={"again_s": again_s})
        seat.fault = self.failures.fault(seat.version)


def _again(fault: Fault) -> Fault:
    """The same fault for another request."""
    return type(fault)(fault.message, where=fault.where, remedy=fault.remedy, retry_after_s=fault.retry_after_s)
